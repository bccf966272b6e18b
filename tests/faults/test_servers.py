"""Kafka, Redis and ZooKeeper killed, cut off, filled and fed rubbish while messages flow."""

import json
from collections.abc import Iterator
from contextlib import suppress
from typing import Any

import gevent
import pytest
import redis as redis_py
import requests

from tests.acceptance.deployments import Cluster, Process
from tests.faults.conftest import PARTITIONS, SETTINGS, Shared, start
from tests.faults.history import now_ms
from tests.faults.proxy import Proxy
from tests.faults.reach import AofTail, append_raw, memory_of
from tests.faults.run import LEASE_MARGIN_MS, Run
from tests.faults.test_processes import LEASE_S, SESSION_S
from tests.servers import FullStack

pytestmark = pytest.mark.timeout(300)
APPEND_TIMEOUT_S = int(SETTINGS["SORAKA_LOG_APPEND_TIMEOUT_MS"]) / 1000
MAX_INFLIGHT_BYTES = int(SETTINGS["SORAKA_LOG_MAX_INFLIGHT_BYTES"])
LOST_S = 1.0


# --------------------------------------------------------------------------- Redis


def test_redis_killed_without_its_last_second(
    run: Run, cluster: Cluster, full_stack: FullStack
) -> None:
    """Nothing is lost, and nothing called whose cancel was confirmed in that second."""
    redis = full_stack.redis
    tail = AofTail(redis)
    try:
        for _ in range(3):
            run.flow()
            tail.wait_known(LOST_S)
            with run.fault("redis killed", lost_ms=int(LOST_S * 1000) + 200) as fault:
                with redis.outage():
                    assert tail.cut(LOST_S) > 0
                    fault.struck(LEASE_MARGIN_MS)  # what was claimed may be called yet
                run.flow()
    finally:
        tail.close()
    run.verify()
    gaps = sum("store.gap" in cluster.processes[f"center{i}"].output() for i in range(2))
    assert gaps, "the store was never behind: the test has shown nothing"


def test_redis_full(run: Run, full_stack: FullStack) -> None:
    """New messages wait in the log; what the store has goes out."""
    with redis_py.Redis.from_url(full_stack.redis.url) as client:
        run.flow()
        with run.fault("redis full"):
            client.config_set("maxmemory", "1mb")
            try:
                run.flow(50)
                gevent.sleep(4)
            finally:
                client.config_set("maxmemory", 0)
            run.flow()
    run.verify()


# --------------------------------------------------------------------------- Kafka


def test_kafka_killed_and_restarted(run: Run, full_stack: FullStack) -> None:
    run.flow()
    with run.fault("kafka killed"):
        full_stack.kafka.kill()
        full_stack.kafka.start()
        run.flow()
    run.verify()


def test_kafka_away_beyond_the_append_timeout(
    run: Run, cluster: Cluster, shared: Shared, full_stack: FullStack
) -> None:
    """503 with Retry-After, at a bounded cost in memory, and it works again by itself."""
    run.flow()
    receive = cluster.processes["receive"]
    with run.fault("kafka away"):
        with full_stack.kafka.outage():
            flood = [gevent.spawn(_flood, cluster, shared.topic) for _ in range(4)]
            try:
                answer = _submit(cluster, shared.topic)
                assert (answer.status_code, answer.json()["ec"]) == (503, 503)
                assert int(answer.headers["Retry-After"]) > 0
                first, second = (_most_memory(receive, 2 * APPEND_TIMEOUT_S) for _ in range(2))
            finally:
                gevent.killall(flood)
        run.flow()
    # full after the first append timeout: from there on it grows no more
    assert second - first < MAX_INFLIGHT_BYTES, f"{first >> 20}, then {second >> 20} MiB"
    run.verify()


def _most_memory(process: Process, seconds: float) -> int:
    most, until = 0, now_ms() + seconds * 1000
    while now_ms() < until:
        most = max(most, memory_of(process))
        gevent.sleep(0.1)
    return most


def _submit(cluster: Cluster, topic: str) -> requests.Response:
    return requests.post(f"{cluster.url}/sorakaq/msg/submit", json=_never(topic), timeout=15)


def _never(topic: str, **callback: Any) -> dict[str, Any]:
    """A submit of what does not fall due in this test."""
    return {
        "topic_name": topic,
        "delay_time": 6 * 24 * 3600 * 1000,
        "callback": {"request_type": "POST", "url": "http://127.0.0.1:9/never", **callback},
    }


def _flood(cluster: Cluster, topic: str) -> None:
    """3 MB at a time."""
    body = json.dumps({"messages": [_never(topic, params={"padding": "x" * 60_000})] * 50})
    while True:
        with suppress(requests.RequestException):
            requests.post(
                f"{cluster.url}/sorakaq/msg/submitBatch",
                data=body,
                headers={"Content-Type": "application/json"},
                timeout=15,
            )
        gevent.sleep(0.3)


def test_a_poison_record_in_every_partition(
    run: Run, cluster: Cluster, shared: Shared, full_stack: FullStack
) -> None:
    run.flow()
    kafka_topic = cluster.environ["SORAKA_LOG_TOPIC_PREFIX"] + shared.topic
    said = [len(cluster.processes[f"center{i}"].output()) for i in range(2)]
    with run.fault("poison"):
        append_raw(full_stack.kafka, kafka_topic, [b"", b"\x01", b"\x01\x0c\x00\x01garbage"], 4)
        run.flow(500)
    undecodable = sum(
        cluster.processes[f"center{i}"].output()[said[i] :].count('"record.undecodable"')
        for i in range(2)
    )
    assert undecodable == 3 * PARTITIONS
    run.verify()


# --------------------------------------------------------------------------- ZooKeeper


def test_zookeeper_away_beyond_its_sessions(run: Run, full_stack: FullStack) -> None:
    run.flow()
    before = run.refused_for_now()
    with run.fault("zookeeper away"):
        with full_stack.zookeeper.outage():
            gevent.sleep(2 * SESSION_S)
        run.flow()
    assert run.refused_for_now() == before
    report = run.verify()
    assert report.counts["duplicates"] == 0


# --------------------------------------------------------------------------- cut off alone


@pytest.fixture
def proxies(full_stack: FullStack) -> Iterator[dict[str, Proxy]]:
    made = {name: Proxy(getattr(full_stack, name).port) for name in ("redis", "zookeeper")}
    yield made
    for proxy in made.values():
        proxy.close()


@pytest.fixture
def far_worker(cluster: Cluster, proxies: dict[str, Proxy], run: Run) -> Process:
    """A third worker, which reaches Redis and ZooKeeper through proxies."""
    worker = cluster.add(
        "worker",
        "far",
        {
            "SORAKA_STORE_URL": f"redis://127.0.0.1:{proxies['redis'].port}/0",
            "SORAKA_REGISTRY_HOSTS": f"127.0.0.1:{proxies['zookeeper'].port}",
        },
    )
    start(worker)
    run.flow()
    return worker


@pytest.mark.parametrize("how", ["cut", "frozen"])
def test_a_worker_without_zookeeper(
    run: Run, far_worker: Process, proxies: dict[str, Proxy], how: str
) -> None:
    """Its messages go to others; what it does meanwhile, it does under leases."""
    with run.fault(f"a worker's zookeeper {how}"):
        with getattr(proxies["zookeeper"], how)():
            gevent.sleep(SESSION_S + 4)
        run.flow()
    report = run.verify()
    assert report.counts["duplicates"] == 0


@pytest.mark.parametrize("how", ["cut", "frozen"])
def test_a_worker_without_redis(
    run: Run, far_worker: Process, proxies: dict[str, Proxy], how: str
) -> None:
    """It cannot settle what it was calling: that is called again. Others do its work."""
    with run.fault(f"a worker's redis {how}", may_repeat=True) as fault:
        with getattr(proxies["redis"], how)():
            fault.struck(LEASE_MARGIN_MS)  # what it had claimed it may call yet
            gevent.sleep(2 * LEASE_S)
        run.flow()
    run.verify()
