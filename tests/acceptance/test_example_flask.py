"""The Flask example as its README says, against each deployment."""

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import requests

from tests.acceptance.deployments import Cluster, Deployment, free_port
from tests.acceptance.sink import wait_until

APP = Path(__file__).parents[2] / "examples" / "python-flask" / "app.py"
pytestmark = pytest.mark.timeout(120)


@pytest.fixture(scope="module", params=["http", "thrift"])
def url(request: pytest.FixtureRequest, deployment: Deployment, tmp_path_factory: Any) -> Any:
    """Of the running app, which speaks to soraka in either way."""
    if isinstance(deployment, Cluster) and "reminders" not in deployment.soraka("topic", "list"):
        deployment.soraka("topic", "add", "reminders")
    soraka = {"http": deployment.url, "thrift": f"thrift://127.0.0.1:{deployment.thrift_port}"}
    port = free_port()
    log = tmp_path_factory.mktemp("flask") / "app.log"
    with log.open("wb") as out:
        app = subprocess.Popen(
            [sys.executable, str(APP)],
            env={**os.environ, "SORAKA_URL": soraka[request.param], "PORT": str(port)},
            stdout=out,
            stderr=out,
        )
    made = f"http://127.0.0.1:{port}"
    try:
        wait_until(lambda: _answers(made, app), 20, log.read_text)
        yield made
    finally:
        app.kill()
        app.wait(10)


def _answers(url: str, app: "subprocess.Popen[bytes]") -> bool:
    assert app.poll() is None, "the app ended"
    try:
        return requests.get(url, timeout=5).status_code == 404
    except requests.ConnectionError:
        return False


def order(url: str, number: int, after_s: float) -> dict[str, Any]:
    fields = {"order": f"{url}-{number}".replace("/", ""), "remind_after_s": after_s}
    answer = requests.post(f"{url}/orders", json=fields, timeout=15)
    assert answer.status_code == 200, answer.text
    return {**fields, **answer.json()}


def shown(url: str, made: dict[str, Any]) -> dict[str, Any]:
    answer = requests.get(f"{url}/orders/{made['order']}", timeout=15)
    assert answer.status_code == 200, answer.text
    found: dict[str, Any] = answer.json()
    return found


def post(url: str, made: dict[str, Any], what: str, **fields: Any) -> None:
    answer = requests.post(f"{url}/orders/{made['order']}/{what}", json=fields, timeout=15)
    assert answer.status_code == 200, answer.text


def test_an_order_is_reminded_of_once(url: str) -> None:
    made = order(url, 1, 0.5)
    assert order(url, 1, 0.5)["reminder"] == made["reminder"]
    wait_until(lambda: shown(url, made)["reminder_is"] == "succeeded", 20)
    assert shown(url, made)["reminded"] == 1


def test_one_that_is_paid_is_not(url: str) -> None:
    made = order(url, 2, 60)
    post(url, made, "paid")
    wait_until(lambda: shown(url, made)["reminder_is"] == "cancelled", 20)
    assert shown(url, made)["reminded"] == 0


def test_one_that_has_more_time_is_reminded_of_later(url: str) -> None:
    made = order(url, 3, 60)
    wait_until(lambda: shown(url, made)["reminder_is"] == "pending", 20)
    post(url, made, "later", by_s=60)
    assert shown(url, made)["reminder_is"] == "pending"
