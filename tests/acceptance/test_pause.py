"""A topic is paused under load and goes on: nothing is called meanwhile, everything after."""

import json
import time
from bisect import bisect_right
from collections import Counter

import pytest

from tests.acceptance.deployments import Cluster, Deployment, now_ms
from tests.acceptance.sink import Sink, wait_until

pytestmark = pytest.mark.timeout(180)
RATE = 100
GRACE_MS = 1000
"""Until all processes know of it; a call may be under way then."""


def change(deployment: Deployment, topic: str, **settings: object) -> None:
    """Standalone keeps its topics in a file, which it reads at its start."""
    if isinstance(deployment, Cluster):
        options = {"paused": "--paused", "resumed": "--resumed"}
        arguments = [options["paused" if settings.pop("paused") else "resumed"]]
        for name, value in settings.items():
            arguments += [f"--{name.replace('_', '-')}", str(value)]
        deployment.soraka("topic", "update", topic, *arguments)
        return
    process = deployment.processes["standalone"]
    assert process.stop() == 0
    file = deployment.folder / "data" / "topics.json"
    topics = json.loads(file.read_text())
    topics[topic].update(settings)
    file.write_text(json.dumps(topics))
    process.start()
    deployment.wait_ready()


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

    change(deployment, topic, paused=False, max_dispatches_per_second=RATE)
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
    assert "parked" not in Counter(deployment.state(msg_id) for msg_id in ids)
