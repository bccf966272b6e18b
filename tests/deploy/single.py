"""The small form: one host with all roles, from nothing to a callback, and the same again."""

from collections.abc import Callable

import pytest

from tests.deploy.conftest import BESIDE, SMALL, Deployment
from tests.deploy.site import Called

pytestmark = [pytest.mark.deploy, pytest.mark.timeout(480)]


@pytest.fixture(scope="module")
def deployment(begin: Callable[..., Deployment]) -> Deployment:
    return begin("single", is_secured=False, **SMALL)


def test_from_nothing(deployment: Deployment) -> None:
    """Every unit runs, and nothing else has failed."""
    deployment.playbooks.play("site.yml")
    assert set(deployment.site.units("host1").values()) == {"active"}


def test_again_changes_nothing(deployment: Deployment) -> None:
    assert deployment.playbooks.play("site.yml").changed == {"host1": 0}


def test_a_message_is_called_on_another_host(deployment: Deployment) -> None:
    called = Called(deployment.hosts[BESIDE])
    msg_id = deployment.site.submit("host1", "greetings", called.url, 2000)
    headers, body, caller = called.wait()
    assert (headers["Soraka-Message-Id"], body) == (msg_id, {"via": "host1"})
    assert caller == deployment.hosts["host1"].address
