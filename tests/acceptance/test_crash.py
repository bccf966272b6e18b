"""Processes killed without warning while messages flow: nothing accepted is lost, nothing is
called early, nothing confirmed as cancelled is called."""

import random
import time
from collections.abc import Iterator
from pathlib import Path

import gevent
import pytest

from tests.acceptance.conftest import cluster_addresses
from tests.acceptance.deployments import Cluster, Standalone
from tests.acceptance.load import Load
from tests.acceptance.sink import Answer, Sink

pytestmark = pytest.mark.timeout(420)


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
        load.verify(timeout_s=60)
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
def test_a_role_killed_and_restarted_under_load(cluster: Cluster, sink: Sink, victim: str) -> None:
    load = Load(cluster, cluster.new_topic(), sink, seed=2)
    for _ in range(2):
        gevent.sleep(2)
        cluster.processes[victim].kill()
        gevent.sleep(1)
        cluster.processes[victim].start()
        cluster.wait_ready()
    gevent.sleep(1)
    load.stop()
    load.verify(timeout_s=60)


def test_one_of_two_workers_killed_for_good(cluster: Cluster, sink: Sink) -> None:
    load = Load(cluster, cluster.new_topic(), sink, seed=3)
    gevent.sleep(2)
    cluster.processes["worker0"].kill()
    gevent.sleep(2)
    load.stop()
    load.verify(timeout_s=60)


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
    load.verify(timeout_s=90)


def test_messages_accepted_while_no_worker_lives_wait_for_one(cluster: Cluster, sink: Sink) -> None:
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
    sink.answer("/slow", Answer(wait_s=1.5))
    topic = cluster.new_topic()
    ids = [cluster.submit(topic, sink.url("/slow"), delay_time=0, ttr=5000) for _ in range(4)]
    for msg_id in ids:
        sink.wait(msg_id)
    started = time.monotonic()
    codes = {name: cluster.processes[name].stop() for name in ("worker0", "worker1")}
    assert codes == {"worker0": 0, "worker1": 0}
    assert time.monotonic() - started < 15
    for msg_id in ids:
        assert cluster.state(msg_id) == "succeeded"
        assert len(sink.of(msg_id)) == 1
    assert cluster.processes["center0"].stop() == 0
    assert cluster.processes["receive"].stop() == 0
