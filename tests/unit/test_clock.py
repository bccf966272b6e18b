"""The store's clock as a process reckons it, and how far the wall clock is off."""

import logging
import time
from collections.abc import Callable

import gevent
import pytest

from soraka import process
from soraka.clock import SKEWED_MS, SkewWatch, StoreClock
from soraka.errors import StoreUnavailable
from soraka.metrics import Metrics
from tests.acceptance.sink import wait_until

HOUR_MS = 3_600_000


class Store:
    """Its clock is ours and `ahead_ms`; takes `wait_s` to answer."""

    def __init__(self, ahead_ms: int = 0) -> None:
        self.ahead_ms = ahead_ms
        self.wait_s = 0.0
        self.down = False

    def now_ms(self) -> int:
        if self.down:
            raise StoreUnavailable("down")
        now = int(time.time() * 1000) + self.ahead_ms
        gevent.sleep(self.wait_s)
        return now


def synced(store: Store, wall_s: Callable[[], float] = time.time) -> StoreClock:
    clock = StoreClock(store, wall_s)
    clock.sync()
    return clock


@pytest.mark.parametrize("ahead_ms", [HOUR_MS, 0, -HOUR_MS])
def test_it_tells_the_time_of_the_store_whatever_ours_is(ahead_ms: int) -> None:
    clock = synced(Store(ahead_ms))
    assert abs(clock.now_ms() - time.time() * 1000 - ahead_ms) < 20
    assert abs(clock.skew_ms() + ahead_ms) < 20


def test_a_step_of_the_wall_clock_moves_the_skew_alone() -> None:
    step_s = 0.0
    clock = synced(Store(), lambda: time.time() + step_s)
    before = clock.now_ms()
    step_s = -3600.0
    assert 0 <= clock.now_ms() - before < 100
    assert abs(clock.skew_ms() + HOUR_MS) < 100


def test_a_step_of_the_store_is_followed_at_the_next_sync() -> None:
    store = Store()
    clock = synced(store)
    store.ahead_ms = HOUR_MS
    assert abs(clock.sync() - HOUR_MS) < 20
    assert abs(clock.skew_ms() + HOUR_MS) < 20


def test_before_it_knows_the_store_there_is_no_skew() -> None:
    assert StoreClock(Store()).skew_ms() == 0


def test_a_slow_answer_moves_nothing() -> None:
    store = Store()
    clock = synced(store)
    store.wait_s = 0.5  # after it has read its clock: by the middle it seems 250 ms behind
    assert clock.sync() == 0


@pytest.mark.parametrize("way", [1, -1])
def test_a_word_when_a_skew_begins_changes_much_and_is_over(way: int) -> None:
    watch = SkewWatch()
    told = [(0, None), (SKEWED_MS, None), (SKEWED_MS + 1, True), (SKEWED_MS + 2, None)]
    told += [(HOUR_MS, True), (HOUR_MS + 5000, None), (2 * HOUR_MS, True), (HOUR_MS + 5000, None)]
    told += [(HOUR_MS, True), (0, False), (0, None), (-HOUR_MS, True), (HOUR_MS, True)]
    assert [watch.judge(way * skew_ms) for skew_ms, _ in told] == [word for _, word in told]


def test_the_log_tells_of_a_skew_and_of_its_end(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    def names() -> list[str]:
        return [record.message for record in caplog.records]

    store = Store(-HOUR_MS)
    started: list[gevent.Greenlet] = []
    monkeypatch.setattr(
        process.gevent, "spawn", lambda *args: started.append(gevent.Greenlet.spawn(*args))
    )
    with caplog.at_level(logging.INFO, "soraka.process"):
        process.keep_clock(synced(store), every_s=0.01)
        try:
            wait_until(lambda: "clock.skewed" in names())
            assert abs(vars(caplog.records[0])["ms"] - HOUR_MS) < 1000
            assert "set the clock" in vars(caplog.records[0])["remedy"]
            store.down = True
            wait_until(lambda: "clock.unavailable" in names())
            store.down, store.ahead_ms = False, 0
            wait_until(lambda: "clock.skew_over" in names())
            assert "clock.moved" in names()
            assert names().count("clock.skewed") == 1
        finally:
            gevent.killall(started)


def test_the_metric_is_of_the_moment() -> None:
    store, metrics = Store(-HOUR_MS), Metrics()
    clock = synced(store)
    metrics.show_skew(clock.skew_ms)

    def shown() -> float:
        lines = metrics.render()[0].decode().splitlines()
        (line,) = [line for line in lines if line.startswith("soraka_clock_skew_seconds ")]
        return float(line.split()[1])

    assert abs(shown() - 3600) < 1
    store.ahead_ms = 0
    clock.sync()
    assert abs(shown()) < 1
