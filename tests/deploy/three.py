"""Three hosts that carry all roles between them, as in docs/deploy.md: the first callback, all that
was stored lost and restored, and a host lost for good and replaced.

Each step needs those before it: run it with -x.
"""

import json
import uuid
from collections.abc import Callable

import pytest
import requests

from tests.acceptance.sink import wait_until
from tests.deploy.conftest import BESIDE, SMALL, Deployment
from tests.deploy.site import Called

pytestmark = [pytest.mark.deploy, pytest.mark.timeout(900)]
LOST, NEW = "host3", "new"


@pytest.fixture(scope="module")
def deployment(begin: Callable[..., Deployment]) -> Deployment:
    return begin("three", is_secured=True, worker_instances=2, **SMALL)


def test_from_nothing_to_the_first_callback(deployment: Deployment) -> None:
    played = deployment.playbooks.play("site.yml")
    print(f"site.yml on three hosts: {played.seconds:.0f} s")
    deployment.site.soraka("topic", "add", "greetings")
    _is_called(deployment, "host1", 3000)
    assert "soraka-worker@1.service" in deployment.site.units(LOST)


def test_what_was_lost_is_restored(deployment: Deployment) -> None:
    """Also in the replicas, of which Sentinel may make a primary."""
    site, hosts = deployment.site, deployment.hosts
    backup = hosts.home / "backup"
    site.soraka("topic", "add", "kept", "--business", "ours")
    called = Called(hosts[BESIDE], wait_s=300)
    msg_id = site.submit("host1", "kept", called.url, 60_000)
    deployment.playbooks.play("backup.yml", "-e", f"backup_dir={backup}")
    site.soraka("topic", "update", "kept", "--business", "theirs")
    for name in deployment.names:
        stopped = hosts[name].ssh("systemctl stop soraka-center 'soraka-worker@*'", timeout_s=120)
        assert stopped.returncode == 0, stopped.stderr
    lost = hosts[site.primary()].ssh("soraka-redis-cli flushall")
    assert lost.returncode == 0, lost.stderr
    assert called.waits, "it was called before it was lost"
    confirmed = ("-e", f"restore_from={backup}", "-e", "restore_confirmed=true")
    deployment.playbooks.play("restore.yml", *confirmed)
    headers, _, _ = called.wait()
    assert headers["Soraka-Message-Id"] == msg_id
    assert json.loads(site.soraka("topic", "get", "kept"))["business"] == "ours"
    wait_until(lambda: _replicas(deployment) == 2, 60, lambda: "two replicas follow")


def test_a_host_that_is_lost_is_replaced(deployment: Deployment) -> None:
    """By another, at another address, which carries what it carried."""
    site, hosts = deployment.site, deployment.hosts
    hosts[LOST].power_off()
    _is_called(deployment, "host2", 30_000)
    hosts.add(NEW)
    hosts.replace(LOST, NEW)
    deployment.regroup(site.groups)
    played = deployment.playbooks.play("site.yml")
    print(f"site.yml with a host replaced: {played.seconds:.0f} s")
    site.wait_up(LOST)
    wait_until(lambda: _replicas(deployment) == 2, 60, lambda: "two replicas follow")
    _is_called(deployment, "host1", 3000)
    for name in site.groups["redis"]:
        asked = hosts[name].ssh("soraka-redis-cli -p 26379 sentinel ckquorum soraka").stdout
        assert asked.startswith("OK 3 usable Sentinels"), f"{name}: {asked}"
        known = hosts[name].ssh("soraka-redis-cli -p 26379 sentinel master soraka").stdout.split()
        assert known[known.index("num-other-sentinels") + 1] == "2", f"{name} counts the dead one"
    changed = deployment.playbooks.play("site.yml").changed
    assert changed == dict.fromkeys(deployment.names, 0)
    # it carries its part: another may go
    hosts["host2"].power_off()
    _is_called(deployment, "host1", 30_000)


def _is_called(deployment: Deployment, nginx: str, delay_ms: int) -> None:
    """A message that is submitted there. After a loss it is refused for some seconds, of each
    partition of Kafka until that has another leader."""
    called = Called(deployment.hosts[BESIDE], wait_s=180)
    key, accepted = uuid.uuid4().hex, []

    def is_accepted() -> bool:
        try:
            accepted.append(
                deployment.site.submit(nginx, "greetings", called.url, delay_ms, key=key)
            )
        except (AssertionError, requests.RequestException):
            return False
        return True

    wait_until(is_accepted, 120, lambda: "it is accepted")
    headers, _, _ = called.wait()
    assert headers["Soraka-Message-Id"] == accepted[0]


def _replicas(deployment: Deployment) -> int:
    """Of Redis, that follow its primary."""
    role = deployment.hosts[deployment.site.primary()].ssh("soraka-redis-cli role").stdout
    return sum(host.address in role for host in deployment.hosts.hosts.values())
