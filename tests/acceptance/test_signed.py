"""Signed callbacks of real deployments, verified as receivers do: by the official libraries of
Standard Webhooks for Python and Node.js."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import requests
from standardwebhooks import Webhook, WebhookVerificationError

from tests.acceptance.deployments import Cluster, Deployment
from tests.acceptance.sink import Answer, Call, Sink, wait_until

DEV = Path(__file__).parents[2] / "dev"
VERIFY = Path(__file__).with_name("verify.cjs")
pytestmark = pytest.mark.timeout(120)


@pytest.fixture(scope="module")
def node_path() -> str:
    """Where the library for Node.js is."""
    where = "from stacklib import npm; print(npm.webhooks())"
    command = [sys.executable, "-c", where]
    path = subprocess.run(command, cwd=DEV, check=True, capture_output=True, text=True)
    found = path.stdout.strip()
    if not (shutil.which("node") and Path(found).exists()):
        missing = "standardwebhooks for Node.js is not installed: run dev/stack install"
        if os.environ.get("CI"):
            pytest.fail(missing, pytrace=False)
        pytest.skip(missing)
    return found


class Secrets:
    """Those of a topic, set as operators of that deployment do."""

    def __init__(self, deployment: Deployment, topic: str) -> None:
        self._deployment = deployment
        self._topic = topic
        self._token = "" if isinstance(deployment, Cluster) else _token(deployment)

    def add(self) -> str:
        if isinstance(self._deployment, Cluster):
            return self._deployment.soraka("topic", "add-secret", self._topic).strip()
        return str(self._post("addSecret")["secret"])

    def remove_older(self) -> None:
        if isinstance(self._deployment, Cluster):
            self._deployment.soraka("topic", "remove-secret", self._topic, "older")
        else:
            self._post("removeSecret", which="older")

    def _post(self, path: str, **fields: str) -> Any:
        url = f"http://127.0.0.1:{self._deployment.admin_port}/sorakaq/topic/{path}"
        headers = {"Authorization": f"Bearer {self._token}"}
        given = {"topic_name": self._topic, **fields}
        answer = requests.post(url, json=given, headers=headers, timeout=15)
        assert answer.status_code == 200, answer.text
        return answer.json()["result"]


def _token(deployment: Deployment) -> str:
    command = [sys.executable, "-m", "soraka", "admin", "add-token", "signing"]
    options = ["--role=operator", f"--data-dir={deployment.folder / 'data'}"]
    done = subprocess.run([*command, *options], check=True, capture_output=True, text=True)
    return done.stdout.strip()


def python_says(secret: str, call: Call) -> bool:
    try:
        Webhook(secret).verify(call.body, call.headers)
    except WebhookVerificationError:
        return False
    return True


def node_says(node_path: str, *given: tuple[str, Call]) -> list[str]:
    cases = [
        {
            "secret": secret,
            "headers": {name.lower(): value for name, value in call.headers.items()},
            "body": call.body.decode(),
        }
        for secret, call in given
    ]
    command = ["node", str(VERIFY)]
    environ = {**os.environ, "NODE_PATH": node_path}
    done = subprocess.run(
        command, input=json.dumps(cases), env=environ, check=True, capture_output=True, text=True
    )
    verdicts: list[str] = json.loads(done.stdout)
    return verdicts


def test_receivers_go_over_to_a_new_secret_without_a_callback_they_must_refuse(
    deployment: Deployment, sink: Sink, node_path: str
) -> None:
    topic = deployment.new_topic()
    sink.answer("/retried", lambda call: Answer(500 if call.attempt == 1 else 200))

    def called(path: str = "/signed", count: int = 1) -> Call:
        msg_id = deployment.submit(
            topic, sink.url(path), delay_time=0, retry=[0], callback={"params": {"ö": "€"}}
        )
        return sink.wait(msg_id, count, 40)[-1]  # on Kafka the first of a topic takes a while

    def signatures() -> int:
        return len(called().headers.get("Webhook-Signature", "").split())

    def all_workers_have(count: int) -> None:
        wait_until(lambda: all(signatures() == count for _ in range(4)), 40)

    assert signatures() == 0
    secrets = Secrets(deployment, topic)
    old = secrets.add()
    all_workers_have(1)
    one = called()
    new = secrets.add()
    all_workers_have(2)
    both, retried = called(), called("/retried", 2)
    secrets.remove_older()
    all_workers_have(1)
    after = called()

    assert one.headers["Webhook-Id"] == one.msg_id
    assert retried.attempt == 2
    right = [(old, one), (old, both), (new, both), (old, retried), (new, retried), (new, after)]
    wrong = [(new, one), (old, after)]
    assert [python_says(*case) for case in right] == [True] * len(right)
    assert [python_says(*case) for case in wrong] == [False] * len(wrong)
    assert node_says(node_path, *right) == ["ok"] * len(right)
    assert node_says(node_path, *wrong) == ["No matching signature found"] * len(wrong)
    told = deployment.output()
    assert old not in told
    assert new not in told
