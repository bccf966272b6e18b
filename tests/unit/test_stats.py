"""What is counted by minute, how it is written, and what becomes of it while the store is away."""

import time
from collections import Counter
from collections.abc import Mapping, Sequence

import gevent
import pytest
from hypothesis import given
from hypothesis import strategies as st

from soraka import flusher
from soraka.errors import StoreUnavailable
from soraka.flusher import Flusher
from soraka.limits import DAY_MS
from soraka.ports import Ended, NotAdded, Sample
from soraka.stats import HOUR_MS, LATE_MS, MAX_KEPT, MAX_TOPICS, MINUTE_MS, Tally

NOW = 1_700_000_040_000
assert NOW % MINUTE_MS == 0


def by_series(samples: Sequence[Sample]) -> dict[tuple[str, int], Mapping[str, int]]:
    found = {(sample.series, sample.minute): dict(sample.values) for sample in samples}
    assert len(found) == len(samples)
    return found


def test_an_attempt_is_counted_in_all_its_topic_and_its_worker() -> None:
    tally = Tally("a:1")
    tally.called("t", NOW + 1, Ended.SUCCEEDED, late_ms=3, callback_ms=10, flow_ms=13)
    tally.called("t", NOW + 2, Ended.RETRY, late_ms=70_000, callback_ms=1, flow_ms=70_001)
    tally.called("t", NOW + 3, Ended.DEAD, late_ms=0, callback_ms=1, flow_ms=1)
    expected = {
        "called": 3,
        "succeeded": 1,
        "failed": 2,
        "dead": 1,
        "late_ms": 70_003,
        "callback_ms": 12,
        "flow_ms": 70_015,
        "late_le_1": 1,
        "late_le_5": 1,
        "late_le_inf": 1,
    }
    assert by_series(tally.take()) == {
        ("all", NOW): expected,
        ("topic:t", NOW): expected,
        ("hour:all", NOW - NOW % HOUR_MS): expected,
        ("hour:topic:t", NOW - NOW % HOUR_MS): expected,
        ("workers", NOW - NOW % DAY_MS): {"a:1": 3},
    }
    assert tally.take() == []


@given(st.integers(0, 200_000))
def test_each_lateness_falls_into_one_bucket(late_ms: int) -> None:
    tally = Tally()
    tally.called("t", NOW, Ended.DEAD, late_ms=late_ms, callback_ms=0, flow_ms=0)
    (values,) = [s.values for s in tally.take() if s.series == "all"]
    (bucket,) = [name for name in values if name.startswith("late_le_")]
    limit = bucket.removeprefix("late_le_")
    assert limit == next((str(ms) for ms in LATE_MS if late_ms <= ms), "inf")


def test_each_minute_is_its_own_also_when_the_clock_goes_back() -> None:
    tally = Tally()
    for now in (NOW, NOW + MINUTE_MS - 1, NOW + MINUTE_MS, NOW - 1, NOW + 5):
        tally.add("t", now, "accepted")
    counts = {
        minute: v["accepted"] for (s, minute), v in by_series(tally.take()).items() if s == "all"
    }
    assert counts == {NOW: 3, NOW + MINUTE_MS: 1, NOW - MINUTE_MS: 1}


def test_what_was_put_back_comes_with_the_next() -> None:
    tally = Tally()
    tally.add("t", NOW, "accepted", 2)
    assert tally.put_back(tally.take()) == 0
    tally.add("t", NOW, "accepted", 3)
    assert by_series(tally.take()) == {
        (series, start): {"accepted": 5}
        for name in ("all", "topic:t")
        for series, start in ((name, NOW), (f"hour:{name}", NOW - NOW % HOUR_MS))
    }


def test_topics_and_what_is_kept_are_bounded() -> None:
    tally = Tally()
    for number in range(MAX_TOPICS + 10):
        tally.add(f"t{number}", NOW, "accepted")
    samples = tally.take()
    assert len(samples) <= 2 * (MAX_TOPICS + 1)
    assert by_series(samples)["all", NOW] == {"accepted": MAX_TOPICS + 10}
    minutes = [Sample("all", NOW + i * MINUTE_MS, {"accepted": 1}) for i in range(MAX_KEPT + 7)]
    assert tally.put_back(minutes) == 7
    assert min(sample.minute for sample in tally.take()) == NOW + 7 * MINUTE_MS


def test_counting_costs_next_to_nothing() -> None:
    tally, number = Tally("a:1"), 20_000
    best = float("inf")
    for _ in range(5):
        began = time.process_time()
        for i in range(number):
            tally.called("t", NOW + i, Ended.SUCCEEDED, late_ms=3, callback_ms=10, flow_ms=13)
        best = min(best, time.process_time() - began)
    assert best / number < 5e-6  # 1 us on a machine with nothing else to do


class Archive:
    """Takes samples, unless it is away or hangs."""

    def __init__(self) -> None:
        self.counts: Counter[str] = Counter()
        self.away = False
        self.answers_late = False
        self.hangs_s = 0.0

    def add_stats(self, samples: Sequence[Sample]) -> NotAdded:
        gevent.sleep(self.hangs_s)
        if self.away:
            return NotAdded(samples, 0, "told so")
        for sample in samples:
            if sample.series == "all":
                self.counts.update(sample.values)
        if self.answers_late:
            raise StoreUnavailable("no answer")
        return NotAdded()


def test_nothing_is_lost_while_the_store_is_away_and_the_last_is_written_at_the_end() -> None:
    archive, tally = Archive(), Tally()
    writer = Flusher(archive, tally, every_s=0.01)  # type: ignore[arg-type]
    writer.start()
    for number in range(30):
        archive.away = 10 <= number < 20
        tally.add("t", NOW, "accepted")
        gevent.sleep(0.005)
    writer.stop()
    writer.stop()
    assert archive.counts == {"accepted": 30}


def test_what_may_have_been_written_is_not_written_again(
    caplog: pytest.LogCaptureFixture,
) -> None:
    archive, tally = Archive(), Tally()
    archive.answers_late = True
    writer = Flusher(archive, tally, every_s=0.01)  # type: ignore[arg-type]
    writer.start()
    tally.add("t", NOW, "accepted")
    gevent.sleep(0.05)
    tally.add("t", NOW, "accepted")
    gevent.sleep(0.05)
    writer.stop()
    assert archive.counts == {"accepted": 2}
    assert caplog.messages == ["stats.not_written"]


def test_a_store_that_hangs_holds_up_no_end(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(flusher, "LAST_S", 0.1)
    archive, tally = Archive(), Tally()
    archive.hangs_s = 30
    writer = Flusher(archive, tally)  # type: ignore[arg-type]
    writer.start()
    tally.add("t", NOW, "accepted")
    began = time.monotonic()
    writer.stop()
    assert time.monotonic() - began < 5
