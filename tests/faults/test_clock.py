"""Hosts whose clocks are off by an hour, or jump: all is on time by the store's clock.

Redis and the test have the true clock, each role another one.
"""

import math
import os
import subprocess
import sys
from collections.abc import Iterator
from email.utils import formatdate
from pathlib import Path

import pytest
import requests

from tests.acceptance.conftest import cluster_addresses
from tests.acceptance.deployments import Cluster, free_port, now_ms
from tests.acceptance.sink import Answer, Call, Sink, wait_until
from tests.faults.faketime import WallClock

pytestmark = pytest.mark.timeout(180)

OFFSETS_S = {"receive": -3600, "center0": 3600, "worker0": 37 * 60}
CLOCK_MS = 2
"""As exactly as a process knows the store's clock."""
LATE_MS = 1000
"""Of the 99th of a hundred, on a busy machine; what would go wrong is a thousand times more."""


class Skewed(Cluster):
    """One process of each role; `clocks` are their wall clocks, `shown` where their metrics are."""

    def __init__(self, folder: Path, servers: dict[str, str]) -> None:
        center, worker = free_port(), free_port()
        settings = {
            "SORAKA_CENTER_HEALTH_PORT": str(center),
            "SORAKA_WORKER_HEALTH_PORT": str(worker),
        }
        super().__init__(folder, servers, settings, workers=1, centers=1)
        self.shown = {"receive": self.http_port, "center0": center, "worker0": worker}
        self.clocks = {name: WallClock(folder / f"{name}.time", s) for name, s in OFFSETS_S.items()}
        for name, clock in self.clocks.items():
            self.processes[name].environ.update(clock.environ)

    def skew_s(self, role: str) -> float:
        """The metric."""
        text = requests.get(f"http://127.0.0.1:{self.shown[role]}/metrics", timeout=5).text
        (line,) = [x for x in text.splitlines() if x.startswith("soraka_clock_skew_seconds ")]
        return float(line.split()[1])

    def shows_its_clock(self, role: str) -> bool:
        return abs(self.skew_s(role) - self.clocks[role].offset_s) < 1

    def said(self, role: str, event: str) -> int:
        return self.processes[role].output().count(f'"{event}"')


@pytest.fixture(scope="module")
def cluster(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Skewed]:
    made = Skewed(tmp_path_factory.mktemp("skewed"), cluster_addresses(request))
    try:
        made.start()
        yield made
    finally:
        made.close()


@pytest.fixture(scope="module")
def topic(cluster: Skewed) -> str:
    made = cluster.new_topic()
    sink = Sink()
    sink.wait(cluster.submit(made, sink.url("/first"), delay_time=0))
    sink.close()
    return made


@pytest.fixture
def sink() -> Iterator[Sink]:
    made = Sink()
    yield made
    made.close()


def submitted(cluster: Skewed, topic: str, url: str, delays_ms: list[int]) -> dict[str, int]:
    """The least due times, by the true clock, by id."""
    items = [
        {"topic_name": topic, "delay_time": d, "callback": {"request_type": "GET", "url": url}}
        for d in delays_ms
    ]
    before = now_ms()
    status, answer = cluster.post("submitBatch", json={"messages": items})
    assert status == 200
    assert {result["ec"] for result in answer["result"]} == {200}
    return {
        result["msgId"]: before + delay
        for result, delay in zip(answer["result"], delays_ms, strict=True)
    }


def check_on_time(sink: Sink, due: dict[str, int]) -> None:
    """Waits for one call of each."""
    wait_until(
        lambda: len(sink.calls) >= len(due),
        30,
        lambda: f"{len(due)} calls, but {len(sink.calls)}",
    )
    assert sorted(call.msg_id for call in sink.calls) == sorted(due)
    assert [call for call in sink.calls if call.at < call.due_at] == []
    assert [call for call in sink.calls if call.at < due[call.msg_id] - CLOCK_MS] == []
    late = sorted(call.at - due[call.msg_id] for call in sink.calls)
    assert late[math.ceil(len(late) * 0.99) - 1] < LATE_MS


def test_all_is_on_time_by_the_clock_of_the_store(cluster: Skewed, topic: str, sink: Sink) -> None:
    due: dict[str, int] = {}
    for _ in range(10):
        due |= submitted(cluster, topic, sink.url("/"), [i * 100 for i in range(40)])
    check_on_time(sink, due)


def test_a_due_time_given_as_a_moment_is_of_the_store(
    cluster: Skewed, topic: str, sink: Sink
) -> None:
    moment = now_ms() + 1500
    (call,) = sink.wait(cluster.submit(topic, sink.url("/"), deliver_at=moment))
    assert call.due_at == moment
    assert 0 <= call.at - moment < LATE_MS


def test_a_cancel_right_after_the_submit_holds(cluster: Skewed, topic: str, sink: Sink) -> None:
    """Also on a message that the store does not know yet, which is judged by the time of its id."""
    for _ in range(50):
        msg_id = cluster.submit(topic, sink.url("/cancelled"), delay_time=1000)
        status, answer = cluster.post("cancel", json={"topic_name": topic, "msg_id": msg_id})
        assert (status, answer["ec"]) == (200, 200), answer
    sink.wait(cluster.submit(topic, sink.url("/after"), delay_time=1500))
    assert [call.path for call in sink.calls] == ["/after"]


def test_an_added_time_is_kept(cluster: Skewed, topic: str, sink: Sink) -> None:
    before = now_ms()
    msg_id = cluster.submit(topic, sink.url("/"), delay_time=700)
    status, answer = cluster.post(
        "addTime", json={"topic_name": topic, "msg_id": msg_id, "add_time": 1300}
    )
    assert (status, answer["ec"]) == (200, 200), answer
    (call,) = sink.wait(msg_id)
    assert -CLOCK_MS <= call.at - before - 2000 < LATE_MS


def test_retries_are_on_time(cluster: Skewed, topic: str, sink: Sink) -> None:
    sink.answer("/", lambda call: Answer(500 if call.attempt < 3 else 200))
    msg_id = cluster.submit(topic, sink.url("/"), delay_time=0, retry=[500, 1500])
    first, second, third = sink.wait(msg_id, 3)
    assert 500 - CLOCK_MS <= second.at - first.at < 500 + LATE_MS
    assert 1500 - CLOCK_MS <= third.at - second.at < 1500 + LATE_MS
    cluster.wait_state(msg_id, "succeeded")


def test_a_server_that_names_the_moment_of_the_next_attempt_is_heeded(
    cluster: Skewed, topic: str, sink: Sink
) -> None:
    asked: list[int] = []

    def answer(call: Call) -> Answer:
        if call.attempt > 1:
            return Answer()
        asked.append(now_ms() // 1000 + 3)
        return Answer(503, headers={"Retry-After": formatdate(asked[0], usegmt=True)})

    sink.answer("/", answer)
    _, second = sink.wait(cluster.submit(topic, sink.url("/"), delay_time=0, retry=[100]), 2)
    assert -CLOCK_MS <= second.at - asked[0] * 1000 < LATE_MS


@pytest.mark.parametrize("role", OFFSETS_S)
def test_the_skew_is_a_metric_and_a_warning(cluster: Skewed, role: str) -> None:
    assert cluster.shows_its_clock(role)
    assert cluster.said(role, "clock.skewed") >= 1
    assert '"clock.moved"' not in cluster.processes[role].output()


@pytest.mark.parametrize("role", ["worker0", "center0", "receive"])
def test_a_clock_that_jumps_while_messages_flow_moves_none(
    cluster: Skewed, topic: str, sink: Sink, role: str
) -> None:
    clock, due = cluster.clocks[role], dict[str, int]()
    for jump_s in (-3600, 7200, -3600):
        due |= submitted(cluster, topic, sink.url("/"), [i * 50 for i in range(60)])
        clock.set(clock.offset_s + jump_s)
        wait_until(lambda: cluster.shows_its_clock(role), 10, lambda: f"{role} jumped")
        due |= submitted(cluster, topic, sink.url("/"), [i * 50 for i in range(40)])
    check_on_time(sink, due)
    assert not cluster.processes[role].has_ended


def test_a_clock_that_is_set_right_ends_the_warning(cluster: Skewed) -> None:
    clock = cluster.clocks["worker0"]
    was, over = clock.offset_s, cluster.said("worker0", "clock.skew_over")
    clock.set(0)
    wait_until(lambda: cluster.said("worker0", "clock.skew_over") > over, 15)
    warned = cluster.said("worker0", "clock.skewed")
    clock.set(was)
    wait_until(lambda: cluster.said("worker0", "clock.skewed") > warned, 15)


# ---------------------------------------------------------------------- the store's own clock


class OwnRedis:
    """A server whose wall clock can be set."""

    def __init__(self, folder: Path) -> None:
        self.port = free_port()
        self.offset_s = 0
        self._file = folder / "redis.time"
        self.set_clock(0)
        shim = folder / "settable_clock.so"
        source = Path(__file__).with_name("settable_clock.c")
        subprocess.run(["cc", "-shared", "-fPIC", "-O1", "-o", shim, source], check=True)
        self._process = subprocess.Popen(
            ["redis-server", "--port", str(self.port), "--save", "", "--dir", str(folder)],
            env={**os.environ, "LD_PRELOAD": str(shim), "WALL_CLOCK": str(self._file)},
            stdout=subprocess.DEVNULL,
        )

    def set_clock(self, offset_s: int) -> None:
        """Seconds ahead of the true clock; negative: behind. At once."""
        self.offset_s = offset_s
        with self._file.open("r+b" if self._file.exists() else "wb") as file:
            file.write(offset_s.to_bytes(8, sys.byteorder, signed=True))

    def now_ms(self) -> int:
        return now_ms() + self.offset_s * 1000

    def close(self) -> None:
        self._process.kill()
        self._process.wait(10)


@pytest.fixture
def own_redis(tmp_path: Path) -> Iterator[OwnRedis]:
    made = OwnRedis(tmp_path)
    yield made
    made.close()


def test_a_store_whose_clock_is_set_is_followed(
    request: pytest.FixtureRequest, tmp_path: Path, own_redis: OwnRedis, sink: Sink
) -> None:
    """Nothing is early by its clock; by it all is on time again once each process has asked."""
    servers = {**cluster_addresses(request), "redis": f"redis://127.0.0.1:{own_redis.port}/0"}
    cluster = Cluster(tmp_path, servers, workers=1, centers=1)
    try:
        cluster.start()
        topic = cluster.new_topic()
        sink.wait(cluster.submit(topic, sink.url("/"), delay_time=0))
        in_that_hour = cluster.submit(topic, sink.url("/"), delay_time=1_800_000)
        cluster.wait_state(in_that_hour, "pending")

        for offset_s in (3600, 0, -3600):
            moved = {name: _moves(cluster, name) for name in cluster.processes}
            own_redis.set_clock(offset_s)
            wait_until(
                lambda moved=moved: all(_moves(cluster, n) > m for n, m in moved.items()), 15
            )
            before = own_redis.now_ms()
            msg_id = cluster.submit(topic, sink.url("/"), delay_time=1000)
            gone = cluster.submit(topic, sink.url("/"), delay_time=500)
            assert cluster.post("cancel", json={"topic_name": topic, "msg_id": gone})[0] == 200
            (call,) = sink.wait(msg_id)
            assert abs(call.due_at - before - 1000) < LATE_MS
            assert -CLOCK_MS <= own_redis.now_ms() - call.due_at < 2 * LATE_MS
            assert sink.of(gone) == []
            if offset_s > 0:
                assert len(sink.wait(in_that_hour)) == 1
    finally:
        cluster.close()


def _moves(cluster: Cluster, name: str) -> int:
    return cluster.processes[name].output().count('"clock.moved"')
