"""Series by minute, as people look at them. Ports only."""

from collections import Counter
from collections.abc import Callable, Mapping
from typing import NamedTuple

from soraka.errors import InvalidParams
from soraka.message import DAY_MS
from soraka.ports import STATS_MS, Registry, StoreArchive
from soraka.topics import check_name

ALL = "all"
MINUTE_MS = 60_000
DAYS = 7
LAST_MS = 1 << 48
LATE_MS = (1, 2, 5, 10, 20, 50, 100, 200, 500, 1000, 5000, 60_000)
"""Upper ends of the lateness buckets; one more has what is later."""
COUNTS = ("accepted", "called", "succeeded", "failed", "dead", "cancelled", "postponed")
SETTLED_MS = 10 * MINUTE_MS
"""What workers tell of comes later than it happened."""


class MinutePoint(NamedTuple):
    """`counts` has each of COUNTS."""

    minute: int
    counts: Mapping[str, int]


class FlowPoint(NamedTuple):
    """Averages of a minute in ms: from the due time to the end of the callback, and of the
    callback alone; None when nothing was called."""

    minute: int
    called: int
    flow_ms: float | None
    callback_ms: float | None


class WorkerDays(NamedTuple):
    """Callbacks by day (its first ms, UTC), the oldest first."""

    worker: str
    days: tuple[tuple[int, int], ...]


class Lateness(NamedTuple):
    """Callbacks by lateness: (upper end in ms, how many), the last with None for no end. The
    quantiles are upper ends too; None when nothing was called. Over the last end they are it."""

    buckets: tuple[tuple[int | None, int], ...]
    p50_ms: int | None
    p99_ms: int | None


class Monitor:
    def __init__(
        self, archive: StoreArchive, registry: Registry, now_ms: Callable[[], int]
    ) -> None:
        self._archive = archive
        self._registry = registry
        self._now_ms = now_ms
        self._past: dict[tuple[str, int], int] = {}

    def minutes(self, since: int, until: int, topic: str = "") -> list[MinutePoint]:
        """Every minute from `since` to `until`, in order. No topic: of all. Raises InvalidParams,
        StoreUnavailable."""
        values = self._stats(_series(topic), since, until)
        return [
            MinutePoint(minute, {name: got.get(name, 0) for name in COUNTS})
            for minute, got in values.items()
        ]

    def flow(self, since: int, until: int, topic: str = "") -> list[FlowPoint]:
        """As `minutes`."""
        return [_flow(m, got) for m, got in self._stats(_series(topic), since, until).items()]

    def lateness(self, since: int, until: int, topic: str = "") -> Lateness:
        """Over all of those minutes. Raises as `minutes`."""
        totals: Counter[str] = Counter()
        for got in self._stats(_series(topic), since, until).values():
            totals.update(got)
        buckets: list[tuple[int | None, int]] = [(ms, totals[f"late_le_{ms}"]) for ms in LATE_MS]
        buckets.append((None, totals["late_le_inf"]))
        return Lateness(tuple(buckets), _quantile(buckets, 0.5), _quantile(buckets, 0.99))

    def worker_days(self) -> list[WorkerDays]:
        """Of each live worker, the last seven days, today the last. Raises StoreUnavailable."""
        today = self._now_ms() // DAY_MS * DAY_MS
        days = [today - back * DAY_MS for back in reversed(range(DAYS))]
        workers = sorted(self._registry.live("worker"))
        self._past = {
            (worker, day): n
            for (worker, day), n in self._past.items()
            if worker in workers and day >= days[0]
        }
        return [
            WorkerDays(worker, tuple((day, self._called(worker, day)) for day in days))
            for worker in workers
        ]

    def now_ms(self) -> int:
        """The store's clock."""
        return self._now_ms()

    def _called(self, worker: str, day: int) -> int:
        """Of a day that is over, and told of by all, the store is asked once."""
        known = self._past.get((worker, day))
        if known is not None:
            return known
        stats = self._archive.stats(f"worker:{worker}", day, day + DAY_MS)
        called = sum(values.get("called", 0) for values in stats.values())
        if self._now_ms() >= day + DAY_MS + SETTLED_MS:
            self._past[worker, day] = called
        return called

    def _stats(self, series: str, since: int, until: int) -> dict[int, Mapping[str, int]]:
        """Every minute has its values, be it none."""
        first = since // MINUTE_MS * MINUTE_MS
        if first < 0 or until > LAST_MS or not first < until <= first + STATS_MS + DAY_MS:
            raise InvalidParams(
                "until", f"must be after since, by at most 8 days, and at most {LAST_MS}"
            )
        got = self._archive.stats(series, first, until)
        return {minute: got.get(minute, {}) for minute in range(first, until, MINUTE_MS)}


def _series(topic: str) -> str:
    if not topic:
        return ALL
    check_name(topic)
    return f"topic:{topic}"


def _flow(minute: int, got: Mapping[str, int]) -> FlowPoint:
    called = got.get("called", 0)
    if not called:
        return FlowPoint(minute, 0, None, None)
    flow, callback = got.get("flow_ms", 0) / called, got.get("callback_ms", 0) / called
    return FlowPoint(minute, called, round(flow, 1), round(callback, 1))


def _quantile(buckets: list[tuple[int | None, int]], share: float) -> int | None:
    total = sum(n for _, n in buckets)
    seen = 0
    for upper, n in buckets:
        seen += n
        if n and seen >= share * total:
            return LATE_MS[-1] if upper is None else upper
    return None
