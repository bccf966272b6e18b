"""The real servers killed under load, with soraka's processes going on."""

import os
from collections.abc import Iterator
from pathlib import Path

import gevent
import pytest
import requests

from tests.acceptance.deployments import Cluster
from tests.acceptance.load import Load
from tests.acceptance.sink import Sink, wait_until
from tests.servers import FullStack, Server

pytestmark = pytest.mark.timeout(300)
CUT_BYTES = 64 << 10


@pytest.fixture
def cluster(full_stack: FullStack, tmp_path: Path) -> Iterator[Cluster]:
    """On a stack of its own: others would suffer from what happens here."""
    made = Cluster(
        tmp_path,
        {
            "redis": full_stack.redis.url,
            "kafka": full_stack.kafka.url,
            "zookeeper": full_stack.zookeeper.url,
        },
        {"SORAKA_RECEIVE_PORT": str(full_stack.receive_port)},
        centers=2,
    )
    try:
        made.start()
        yield made
    finally:
        made.close()


def _cut_tail(redis: Server, size: int) -> None:
    """As if the machine had lost what was not yet written to its disk."""
    (newest,) = redis.dir.rglob("*.incr.aof")
    os.truncate(newest, max(0, newest.stat().st_size - size))


def test_redis_killed_and_its_aof_tail_cut_loses_nothing(
    cluster: Cluster, full_stack: FullStack, sink: Sink
) -> None:
    # without cancels: one that stood in the lost tail is read up again, but maybe too late
    load = Load(cluster, cluster.new_topic(), sink, seed=5, cancelled_share=0)
    for _ in range(3):
        flowing = len(sink.calls) + 300  # what the cut takes must have been read by center
        wait_until(lambda flowing=flowing: len(sink.calls) > flowing, 60, lambda: "calls flow")
        full_stack.redis.kill()
        _cut_tail(full_stack.redis, CUT_BYTES)
        full_stack.redis.start()
    gevent.sleep(2)
    load.stop()
    load.verify(timeout_s=60)
    gaps = sum("store.gap" in cluster.processes[f"center{i}"].output() for i in range(2))
    assert gaps, "the store was never behind: the test has shown nothing"


def test_kafka_away_means_503_and_works_again_by_itself(
    cluster: Cluster, full_stack: FullStack, sink: Sink
) -> None:
    load = Load(cluster, cluster.new_topic(), sink, seed=6)
    gevent.sleep(2)
    accepted = len(load.accepted)
    with full_stack.kafka.outage():
        wait_until(lambda: load.refused > 0, 20, lambda: "a submit is refused with 503")
        gevent.sleep(6)  # longer than the append deadline
    wait_until(lambda: len(load.accepted) > accepted + 500, 40, lambda: "submits accepted again")
    load.stop()
    load.verify(timeout_s=60)


def test_zookeeper_away_for_longer_than_its_sessions_changes_nothing(
    cluster: Cluster, full_stack: FullStack, sink: Sink
) -> None:
    load = Load(cluster, cluster.new_topic(), sink, seed=7)
    gevent.sleep(1)
    with full_stack.zookeeper.outage():
        gevent.sleep(10)
    gevent.sleep(2)
    load.stop()
    assert load.refused == 0
    load.verify(timeout_s=60)


def test_behind_nginx(cluster: Cluster, full_stack: FullStack, sink: Sink) -> None:
    topic = cluster.new_topic()
    message = {
        "topic_name": topic,
        "delay_time": 0,
        "callback": {"request_type": "POST", "url": sink.url("/nginx")},
    }
    answer = requests.post(f"{full_stack.nginx.url}/sorakaq/msg/submit", json=message, timeout=5)
    assert answer.status_code == 200
    sink.wait(answer.json()["result"]["msgId"])
