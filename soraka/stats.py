"""Counts by minute, for the charts: kept in memory by topic, taken out as samples. Pure.

Series are "all" and "topic:<name>" by minute, "hour:all" and "hour:topic:<name>" by hour, for
what looks back over days, and "workers" by day (UTC), where the values are the callbacks of each
worker by its address. The values of the others:
accepted, cancelled, postponed (receive; a command sent again to another process counts again);
called, which is succeeded and failed, and of the failed those that were the last, dead (worker);
late_ms, callback_ms, flow_ms, their sums, where flow is from the due time to the callback's end;
late_le_<ms> and late_le_inf, how many were late by up to so much and more than the bucket before:
not cumulative.
"""

from bisect import bisect_left
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping

from soraka.limits import DAY_MS
from soraka.ports import Ended, Sample

MINUTE_MS = 60_000
HOUR_MS = 60 * MINUTE_MS
HOURLY = "hour:"
"""In front of the name of a series by minute: the same by hour."""
WORKERS = "workers"
LATE_MS = (1, 2, 5, 10, 20, 50, 100, 200, 500, 1000, 5000, 60_000)
MAX_TOPICS = 1000
"""In one minute; those beyond are counted in "all" alone."""
MAX_KEPT = 20_000
"""Samples kept while the store is away; the oldest go first."""
_LATE = (*(f"late_le_{ms}" for ms in LATE_MS), "late_le_inf")
_ENDED = {
    Ended.SUCCEEDED: ("succeeded",),
    Ended.RETRY: ("failed",),
    Ended.DEAD: ("failed", "dead"),
}
Counted = Callable[[str, str, int], None]
"""Topic, name of the value, how many."""
_Counts = defaultdict[str, int]


class Tally:
    """What one process counts. `worker` is the address of the worker it is of, if it is of one."""

    def __init__(self, worker: str = "") -> None:
        self._worker = worker
        self._minute = 0
        self._next = 0
        self._topics: dict[str, _Counts] = {}
        self._past: dict[int, dict[str, _Counts]] = {}
        self._kept: dict[tuple[str, int], dict[str, int]] = {}

    def add(self, topic: str, now: int, name: str, count: int = 1) -> None:
        """Counts something of `topic` at `now` by the store's clock."""
        self._of(topic, now)[name] += count

    def counter(self, now_ms: Callable[[], int]) -> Counted:
        """Counts as `add` does, at the time of each call."""

        def counted(topic: str, name: str, count: int) -> None:
            self.add(topic, now_ms(), name, count)

        return counted

    def called(
        self, topic: str, now: int, ended: Ended, *, late_ms: int, callback_ms: int, flow_ms: int
    ) -> None:
        """An attempt ended; not one that was released."""
        counts = self._of(topic, now)
        counts["called"] += 1
        for name in _ENDED[ended]:
            counts[name] += 1
        counts["late_ms"] += late_ms
        counts["callback_ms"] += callback_ms
        counts["flow_ms"] += flow_ms
        counts[_LATE[bisect_left(LATE_MS, late_ms)]] += 1

    def take(self) -> list[Sample]:
        """What was counted since the last time, and what was put back."""
        for minute, topics in self._past.items():
            self._merge(self._samples(minute, topics))
        self._past, self._topics, self._next = {}, {}, 0
        kept, self._kept = self._kept, {}
        return [Sample(series, minute, values) for (series, minute), values in kept.items()]

    def put_back(self, samples: Iterable[Sample]) -> int:
        """They could not be written: they come with the next. How many old ones were dropped."""
        self._merge(samples)
        over = len(self._kept) - MAX_KEPT
        if over <= 0:
            return 0
        oldest = sorted(self._kept, key=lambda key: key[1])[:over]
        for key in oldest:
            del self._kept[key]
        return over

    def _of(self, topic: str, now: int) -> _Counts:
        if not self._minute <= now < self._next:
            self._minute = now - now % MINUTE_MS
            self._next = self._minute + MINUTE_MS
            self._topics = self._past.setdefault(self._minute, {})
        counts = self._topics.get(topic)
        if counts is None:
            if len(self._topics) >= MAX_TOPICS:
                topic = ""
            counts = self._topics.setdefault(topic, defaultdict(int))
        return counts

    def _samples(self, minute: int, topics: Mapping[str, Mapping[str, int]]) -> Iterable[Sample]:
        hour, day = minute - minute % HOUR_MS, minute - minute % DAY_MS
        for topic, counts in topics.items():
            for series in ("all", f"topic:{topic}") if topic else ("all",):
                yield Sample(series, minute, counts)
                yield Sample(HOURLY + series, hour, counts)
            if self._worker and counts.get("called"):
                yield Sample(WORKERS, day, {self._worker: counts["called"]})

    def _merge(self, samples: Iterable[Sample]) -> None:
        for series, minute, values in samples:
            whole = self._kept.setdefault((series, minute), {})
            for name, value in values.items():
                whole[name] = whole.get(name, 0) + value
