"""The small form: one host with all roles, from nothing to a callback, and the same again."""

import json
from collections.abc import Callable
from typing import Any

import pytest

from tests.deploy.conftest import BESIDE, SMALL, Deployment
from tests.deploy.site import Called

pytestmark = [pytest.mark.deploy, pytest.mark.timeout(480)]


@pytest.fixture(scope="module")
def deployment(begin: Callable[..., Deployment]) -> Deployment:
    return begin("single", is_secured=False, **SMALL)


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        ({"worker_instanses": 2}, "worker_instanses: unknown"),
        ({"worker_instances": "many"}, "worker_instances"),
        ({"kafka_heap": "much"}, "kafka_heap = much: must be as 512m"),
        (
            {"worker_settings": {"worker": {"max_calbacks": 9}}},
            "settings of worker: worker.max_calbacks",
        ),
    ],
    ids=["a name", "a type", "a value", "a setting of soraka"],
)
def test_wrong_variables_are_refused(
    deployment: Deployment, wrong: dict[str, Any], said: str
) -> None:
    """Before a task changes the host."""
    played = deployment.playbooks.attempt("site.yml", "-e", json.dumps(wrong))
    assert played.code != 0
    assert said in played.output
    assert played.changed == {"host1": 0}


def test_check_mode_changes_nothing(deployment: Deployment) -> None:
    """On a bare host, where the most is missing that later tasks look at."""
    deployment.playbooks.play("site.yml", "--check", "--diff")
    assert not deployment.site.left("host1")


def test_from_nothing(deployment: Deployment) -> None:
    """Every unit runs, and is hardened."""
    deployment.playbooks.play("site.yml")
    assert set(deployment.site.units("host1").values()) == {"active"}
    assert set(deployment.site.exposure("host1").values()) == {"OK"}


def test_again_changes_nothing(deployment: Deployment) -> None:
    assert deployment.playbooks.play("site.yml").changed == {"host1": 0}


def test_a_message_is_called_on_another_host(deployment: Deployment) -> None:
    called = Called(deployment.hosts[BESIDE])
    msg_id = deployment.site.submit("host1", "greetings", called.url, 2000)
    headers, body, caller = called.wait()
    assert (headers["Soraka-Message-Id"], body) == (msg_id, {"via": "host1"})
    assert caller == deployment.hosts["host1"].address


def test_a_backup_comes_back(deployment: Deployment) -> None:
    """What was pending, and the settings of a topic, when both are lost."""
    site, host = deployment.site, deployment.hosts["host1"]
    backup = deployment.hosts.home / "backup"
    site.soraka("topic", "add", "kept", "--business", "ours")
    called = Called(deployment.hosts[BESIDE], wait_s=180)
    msg_id = site.submit("host1", "kept", called.url, 30_000)
    deployment.playbooks.play("backup.yml", "-e", f"backup_dir={backup}")
    site.soraka("topic", "update", "kept", "--business", "theirs")
    lost = host.ssh("systemctl stop soraka-center 'soraka-worker@*' && soraka-redis-cli flushall")
    assert lost.returncode == 0, lost.stderr
    assert called.waits, "it was called before it was lost"
    confirmed = ("-e", f"restore_from={backup}", "-e", "restore_confirmed=true")
    deployment.playbooks.play("restore.yml", *confirmed)
    headers, _, _ = called.wait()
    assert headers["Soraka-Message-Id"] == msg_id
    assert json.loads(site.soraka("topic", "get", "kept"))["business"] == "ours"
