"""The whole scenario, step by step: a cluster on six hosts from nothing, and what may become of it.

Each step needs those before it: run it with -x.
"""

import socket
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.acceptance.sink import wait_until
from tests.deploy import inventory
from tests.deploy.conftest import BESIDE, SMALL, Deployment
from tests.deploy.room import CONTROL
from tests.deploy.site import Called
from tests.faults.conftest import record
from tests.faults.run import LEASE_MARGIN_MS, Run

pytestmark = [pytest.mark.deploy, pytest.mark.timeout(900)]
RATE = 40.0
"""Operations per second: six hosts share two cores."""
BEHIND_MS = 3000
"""So much, at most, of what the store had answered is not in a replica."""
OFF_S = 120.0
NEW = "host7"
NAME = "queue.example"
"""Under which clients may reach nginx."""


@pytest.fixture(scope="module")
def deployment(next_version: str, begin: Callable[..., Deployment]) -> Deployment:
    settings = {"store": {"lease_margin_ms": LEASE_MARGIN_MS}}
    return begin(
        "cluster", is_secured=True, soraka_settings=settings, nginx_server_names=[NAME], **SMALL
    )


@pytest.fixture(scope="module")
def topic(deployment: Deployment) -> str:
    return deployment.site.new_topic()


@pytest.fixture
def run(
    deployment: Deployment, topic: str, tmp_path: Path, request: pytest.FixtureRequest
) -> Iterator[Run]:
    """Load through both nginx; its callbacks come to the machine that ansible runs on."""
    name = request.node.name.removeprefix("test_").replace("_", " ")
    secured = deployment.site.secured
    made = Run(
        deployment.site,
        topic,
        tmp_path,
        seed=6,
        rate=RATE,
        name=name,
        address=CONTROL,
        secured=secured,
    )
    try:
        made.flow(50, OFF_S)
        yield made
    finally:
        made.close()
    if made.verified:
        record(made)


# --------------------------------------------------------------------------- there and back


def test_from_nothing(deployment: Deployment) -> None:
    """Every unit runs."""
    deployment.playbooks.play("site.yml")
    for name in deployment.names:
        assert set(deployment.site.units(name).values()) == {"active"}, name
        assert set(deployment.site.exposure(name).values()) == {"OK"}, name


def test_nginx_has_a_certificate_for_its_name(deployment: Deployment) -> None:
    secured = deployment.site.secured
    assert secured is not None
    for address in deployment.addresses("nginx"):
        with socket.create_connection((address, 443)) as plain:
            secured.wrap_socket(plain, server_hostname=NAME).close()


def test_again_changes_nothing(deployment: Deployment) -> None:
    changed = deployment.playbooks.play("site.yml").changed
    assert changed == dict.fromkeys(deployment.names, 0)


def test_a_message_is_called_on_another_host(deployment: Deployment, topic: str) -> None:
    """Submitted through one nginx and the other."""
    for nginx in deployment.site.groups["nginx"]:
        called = Called(deployment.hosts[BESIDE])
        msg_id = deployment.site.submit(nginx, topic, called.url, 2000)
        headers, body, caller = called.wait()
        assert (headers["Soraka-Message-Id"], body) == (msg_id, {"via": nginx})
        assert caller in deployment.addresses("worker")


# --------------------------------------------------------------------------- hosts that are lost


def test_hosts_lose_their_power(deployment: Deployment, run: Run) -> None:
    """One with a worker alone; one with the way in, a center and a worker; one with the primary of
    Redis, a Kafka and a ZooKeeper. Each comes back before the next."""
    vouched = deployment.site.count("store.vouched")
    primary = deployment.site.primary()
    for name, lost_ms in (("host6", 0), ("host4", 0), (primary, BEHIND_MS)):
        run.flow(100, OFF_S)
        with run.fault(f"{name} loses power", may_repeat=True, lost_ms=lost_ms) as fault:
            deployment.hosts[name].power_off()
            fault.struck(LEASE_MARGIN_MS)  # what was claimed may be called yet
            run.flow(200, OFF_S)
            deployment.hosts[name].boot()
            deployment.hosts[name].wait()
            deployment.site.wait_up(name)
            run.flow(100, OFF_S)
    assert deployment.site.count("store.vouched") > vouched, "no other Redis became the primary"
    run.verify()


# --------------------------------------------------------------------------- changes under load


def test_an_upgrade_fails_no_submission(
    deployment: Deployment, run: Run, next_version: str
) -> None:
    before = run.refused_for_now()
    deployment.set(soraka_version=next_version)
    deployment.playbooks.play("rolling.yml")
    run.flow(100)
    assert run.refused_for_now() == before
    report = run.verify()
    assert report.counts["duplicates"] == 0
    for name in deployment.site.processes:
        assert next_version in deployment.hosts[name].ssh("soraka --version").stdout


def test_a_worker_host_is_added(deployment: Deployment, run: Run) -> None:
    """It gets its share."""
    deployment.hosts.add(NEW)
    workers = (*deployment.site.groups["worker"], NEW)
    deployment.regroup({**deployment.site.groups, "worker": workers})
    deployment.playbooks.play("scale.yml", "-e", "scale_role=worker")
    wait_until(lambda: calls_of(deployment, NEW) > 20, OFF_S, lambda: f"{NEW} makes calls")
    report = run.verify()
    assert report.counts["duplicates"] == 0


def test_a_worker_host_is_removed(deployment: Deployment, run: Run) -> None:
    """It hands over what it has; nothing is left of it, and nobody lets it in any more."""
    removed = ("--limit", NEW, "-e", "uninstall_confirmed=true", "-e", "uninstall_data=true")
    deployment.playbooks.play("uninstall.yml", *removed)
    assert not deployment.site.left(NEW)
    deployment.regroup(inventory.LAYOUTS["cluster"])
    deployment.playbooks.play("scale.yml", "-e", "scale_role=worker")
    rules = deployment.hosts["host1"].ssh("nft list table inet soraka").stdout
    assert deployment.hosts["host6"].address in rules
    assert deployment.hosts[NEW].address not in rules
    report = run.verify()
    assert report.counts["duplicates"] == 0


def test_all_is_taken_down(deployment: Deployment) -> None:
    confirmed = ("-e", "uninstall_confirmed=true", "-e", "uninstall_data=true")
    deployment.playbooks.play("uninstall.yml", *confirmed)
    for name in deployment.names:
        assert not deployment.site.left(name), name


def calls_of(deployment: Deployment, name: str) -> float:
    """Callbacks that the first worker of a host has made, by its metrics."""
    ask = "import urllib.request as u; print(u.urlopen('http://127.0.0.1:30004/metrics').read().decode())"
    text = deployment.hosts[name].ssh(f'python3 -c "{ask}"').stdout
    lines = [line for line in text.splitlines() if line.startswith("soraka_callbacks_total{")]
    return sum(float(line.rpartition(" ")[2]) for line in lines)
