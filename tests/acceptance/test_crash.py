"""Processes killed without warning while messages flow: nothing accepted is lost, nothing is
called early, nothing confirmed as cancelled is called."""

import random
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import gevent
import pytest
import requests

from tests.acceptance.conftest import cluster_addresses
from tests.acceptance.deployments import Cluster, Deployment, Standalone, now_ms
from tests.acceptance.sink import Sink, wait_until

pytestmark = pytest.mark.timeout(420)


class Load:
    """Submits for as long as it is let, cancelling some; remembers what was confirmed."""

    def __init__(self, deployment: Deployment, topic: str, sink: Sink, seed: int) -> None:
        self._deployment = deployment
        self._topic = topic
        self._url = sink.url("/load")
        self._random = random.Random(seed)
        self._stopped = False
        self.accepted: dict[str, int] = {}
        """Least due time by message id."""
        self.cancelled: set[str] = set()
        self._greenlets = [gevent.spawn(self._run) for _ in range(4)]

    def stop(self) -> None:
        self._stopped = True
        gevent.joinall(self._greenlets, timeout=30, raise_error=True)

    def _run(self) -> None:
        while not self._stopped:
            try:
                self._submit()
            except requests.RequestException:
                gevent.sleep(0.05)  # killed just now; what it answered nothing to is unknown
            gevent.sleep(0.002)

    def _submit(self) -> None:
        delay = self._random.choice([0, 50, 300, 1000, 2500])
        before = now_ms()
        item = {
            "topic_name": self._topic,
            "delay_time": delay,
            "callback": {"request_type": "POST", "url": self._url},
        }
        _, body = self._deployment.post("submitBatch", json={"messages": [item] * 5})
        ids = [result["msgId"] for result in body["result"] or [] if result["ec"] == 200]
        self.accepted.update(dict.fromkeys(ids, before + delay))
        if ids and delay and self._random.random() < 0.3:
            self._cancel(ids[0])

    def _cancel(self, msg_id: str) -> None:
        _, body = self._deployment.post(
            "cancel", json={"topic_name": self._topic, "msg_id": msg_id}
        )
        if body["ec"] == 200:
            self.cancelled.add(msg_id)


def _verify(load: Load, sink: Sink, timeout_s: float) -> None:
    """All that was accepted is called, not early; nothing cancelled is."""
    expected = set(load.accepted) - load.cancelled
    assert len(expected) > 100
    # a cancel whose answer was lost in the crash may have held: then the message says so
    called: Callable[[], set[str]] = lambda: {call.msg_id for call in sink.calls}  # noqa: E731
    wait_until(
        lambda: not _missing(load, expected - called()),
        timeout_s,
        lambda: f"{len(expected - called())} of {len(expected)} not called",
    )
    assert not called() & load.cancelled
    early = [c for c in sink.calls if c.at < max(c.due_at, load.accepted.get(c.msg_id, 0))]
    assert early == []


def _missing(load: Load, candidates: set[str]) -> set[str]:
    if len(candidates) > 50:
        return candidates
    deployment = load._deployment
    return {msg_id for msg_id in candidates if deployment.state(msg_id) != "cancelled"}


def test_standalone_killed_twenty_times_under_load(tmp_path: Path, sink: Sink) -> None:
    deployment = Standalone(tmp_path)
    chance = random.Random(20)
    try:
        deployment.start()
        load = Load(deployment, deployment.new_topic(), sink, seed=1)
        for _ in range(20):
            gevent.sleep(chance.uniform(0.2, 1.5))
            deployment.processes["standalone"].kill()
            deployment.start()
        load.stop()
        _verify(load, sink, timeout_s=60)
    finally:
        deployment.close()


@pytest.fixture
def cluster(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Cluster]:
    made = Cluster(tmp_path, cluster_addresses(request), workers=2, centers=2)
    try:
        made.start()
        yield made
    finally:
        made.close()


@pytest.mark.parametrize("victim", ["center0", "worker0", "receive"])
def test_a_role_killed_and_restarted_under_load(
    cluster: Cluster, sink: Sink, victim: str
) -> None:
    load = Load(cluster, cluster.new_topic(), sink, seed=2)
    for _ in range(2):
        gevent.sleep(2)
        cluster.processes[victim].kill()
        gevent.sleep(1)
        cluster.processes[victim].start()
        cluster.wait_ready()
    gevent.sleep(1)
    load.stop()
    _verify(load, sink, timeout_s=60)


def test_one_of_two_workers_killed_for_good(cluster: Cluster, sink: Sink) -> None:
    load = Load(cluster, cluster.new_topic(), sink, seed=3)
    gevent.sleep(2)
    cluster.processes["worker0"].kill()
    gevent.sleep(2)
    load.stop()
    _verify(load, sink, timeout_s=60)


def test_everything_killed_and_started_again(cluster: Cluster, sink: Sink) -> None:
    load = Load(cluster, cluster.new_topic(), sink, seed=4)
    gevent.sleep(2)
    for process in cluster.processes.values():
        process.kill()
    for process in cluster.processes.values():
        process.start()
    cluster.wait_ready()
    gevent.sleep(1)
    load.stop()
    _verify(load, sink, timeout_s=90)


def test_messages_accepted_while_no_worker_lives_wait_for_one(
    cluster: Cluster, sink: Sink
) -> None:
    for name in ("worker0", "worker1"):
        cluster.processes[name].kill()
    topic = cluster.new_topic()
    ids = [cluster.submit(topic, sink.url("/waits"), delay_time=10) for _ in range(20)]
    for msg_id in ids:
        cluster.wait_state(msg_id, "pending")
    cluster.processes["worker1"].start()
    for msg_id in ids:
        sink.wait(msg_id, timeout_s=30)


def test_sigterm_drains(cluster: Cluster, sink: Sink) -> None:
    from tests.acceptance.sink import Answer

    sink.answer("/slow", Answer(wait_s=1.5))
    topic = cluster.new_topic()
    ids = [
        cluster.submit(topic, sink.url("/slow"), delay_time=0, ttr=5000) for _ in range(4)
    ]
    for msg_id in ids:
        sink.wait(msg_id)
    started = time.monotonic()
    codes: dict[str, Any] = {
        name: cluster.processes[name].stop() for name in ("worker0", "worker1")
    }
    assert codes == {"worker0": 0, "worker1": 0}
    assert time.monotonic() - started < 15
    for msg_id in ids:
        assert cluster.state(msg_id) == "succeeded"
        assert len(sink.of(msg_id)) == 1
    assert cluster.processes["center0"].stop() == 0
    assert cluster.processes["receive"].stop() == 0
