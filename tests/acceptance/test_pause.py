"""A topic is paused under load and goes on: nothing is called meanwhile, everything after."""

import subprocess
import sys
import time
import uuid
from bisect import bisect_right
from collections import Counter
from pathlib import Path

import pytest
import requests

from tests.acceptance.conftest import cluster_addresses
from tests.acceptance.deployments import Cluster, Deployment, now_ms
from tests.acceptance.sink import Sink, wait_until

pytestmark = pytest.mark.timeout(180)
RATE = 100
GRACE_MS = 2000
"""Until all processes know of it; a call may be under way then."""


def change(deployment: Deployment, topic: str, paused: bool, rate: int = 0) -> None:
    """With the command on a cluster, which has no admin here; by the API on standalone."""
    if isinstance(deployment, Cluster):
        how = "--paused" if paused else "--resumed"
        deployment.soraka("topic", "update", topic, how, "--max-dispatches-per-second", str(rate))
        return
    token = _token(deployment)
    for path, fields in (
        ("update", {"max_dispatches_per_second": rate}),
        ("pause" if paused else "resume", {}),
    ):
        answer = requests.post(
            f"http://127.0.0.1:{deployment.admin_port}/sorakaq/topic/{path}",
            json={"topic_name": topic, **fields},
            headers={"Authorization": f"Bearer {token}"},
            timeout=10,
        )
        assert answer.status_code == 200, answer.text


def _token(deployment: Deployment) -> str:
    data = str(deployment.folder / "data")
    command = ["admin", "add-token", uuid.uuid4().hex, "--role=operator", "--data-dir", data]
    return subprocess.run(
        [sys.executable, "-m", "soraka", *command],
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
    ).stdout.strip()


def submit(deployment: Deployment, topic: str, url: str, delays: list[int]) -> list[str]:
    callback = {"request_type": "POST", "url": url}
    messages = [{"topic_name": topic, "delay_time": d, "callback": callback} for d in delays]
    _, body = deployment.post("submitBatch", json={"messages": messages})
    return [item["msgId"] for item in body["result"]]


def test_a_paused_topic_waits_and_goes_on_at_its_rate(
    deployment: Deployment, sink: Sink, topic: str
) -> None:
    url = sink.url("/paused")
    ids = submit(deployment, topic, url, [10 * n for n in range(500)])
    wait_until(lambda: len(sink.calls) >= 50, 20, lambda: f"{len(sink.calls)} calls")
    change(deployment, topic, paused=True)
    quiet_from = now_ms() + GRACE_MS
    ids += submit(deployment, topic, url, [0] * 100)
    cancelled, later = ids[-1], ids[-2]
    wait_until(lambda: now_ms() > quiet_from + 3000, 20, lambda: "time passes")
    called = {call.msg_id for call in sink.calls}
    assert [call for call in sink.calls if call.at > quiet_from] == []
    assert {deployment.state(msg_id) for msg_id in ids[-20:]} == {"pending"}
    assert len(called) < len(ids) - 100
    command = {"topic_name": topic, "msg_id": cancelled}
    assert deployment.post("cancel", json=command)[0] == 200
    command = {"topic_name": topic, "msg_id": later, "add_time": 1500}
    assert deployment.post("addTime", json=command)[0] == 200

    change(deployment, topic, paused=False, rate=RATE)
    resumed_at = now_ms()
    wanted = set(ids) - {cancelled}
    wait_until(
        lambda: {call.msg_id for call in sink.calls} >= wanted,
        60,
        lambda: f"{len(wanted - {call.msg_id for call in sink.calls})} not called",
    )
    time.sleep(0.3)
    times = Counter(call.msg_id for call in sink.calls)
    assert set(times) == wanted
    assert set(times.values()) == {1}
    after = sorted(call.at for call in sink.calls if call.msg_id not in called)
    # in two seconds, with the burst of each worker, and how unevenly callbacks travel
    for index, at in enumerate(after):
        assert bisect_right(after, at + 2000) - index <= RATE * 2 * 1.25 + 5
    assert after[-1] - resumed_at < 1000 * len(after) / RATE * 2 + 5000
    states = Counter(deployment.state(msg_id) for msg_id in ids)
    assert states == {"succeeded": len(wanted), "cancelled": 1}


def test_a_center_that_is_killed_while_a_topic_goes_on_loses_nothing(
    request: pytest.FixtureRequest, tmp_path: Path, sink: Sink
) -> None:
    made = Cluster(tmp_path, cluster_addresses(request), centers=2)
    try:
        made.start()
        topic = made.new_topic()
        change(made, topic, paused=True)
        ids = submit(made, topic, sink.url("/killed"), [0] * 400)
        wait_until(lambda: made.state(ids[-1]) == "pending", 20, made.output)
        assert sink.calls == []
        change(made, topic, paused=False, rate=80)
        wait_until(lambda: len(sink.calls) >= 40, 30, made.output)
        # either one may be at it
        made.processes["center0"].kill()
        made.processes["center0"].start()
        wait_until(lambda: len(sink.calls) >= 150, 30, made.output)
        made.processes["center1"].kill()
        made.processes["center1"].start()
        wait_until(lambda: {call.msg_id for call in sink.calls} == set(ids), 60, made.output)
        assert set(Counter(call.msg_id for call in sink.calls).values()) == {1}
    finally:
        made.close()
