"""Series by minute or hour, as people look at them. Ports only."""

from collections import Counter
from collections.abc import Callable, Collection, Mapping
from typing import NamedTuple

from soraka.errors import InvalidParams
from soraka.limits import DAY_MS
from soraka.ports import STATS_MS, Registry, StoreArchive
from soraka.stats import HOURLY, MINUTE_MS, WORKERS
from soraka.topics import check_name

ALL = "all"
DAYS = 7
LAST_MS = 1 << 48
LATE_MS = (1, 2, 5, 10, 20, 50, 100, 200, 500, 1000, 5000, 60_000)
"""Upper ends of the lateness buckets; one more has what is later."""
_LATE: dict[str, int | None] = {f"late_le_{ms}": ms for ms in LATE_MS} | {"late_le_inf": None}
FLOW = ("called", "flow_ms", "callback_ms")
COUNTS = ("accepted", "called", "succeeded", "failed", "dead", "cancelled", "postponed")


class MinutePoint(NamedTuple):
    """`counts` has each of COUNTS. `minute` is the first ms of a minute, or of an hour."""

    minute: int
    counts: Mapping[str, int]


class FlowPoint(NamedTuple):
    """Averages of a minute (or hour) in ms: from the due time to the end of the callback, and of
    the callback alone; None when nothing was called."""

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


class Calls(NamedTuple):
    """Of one time, all that is known of its callbacks."""

    flow: list[FlowPoint]
    lateness: Lateness


class Monitor:
    def __init__(
        self, archive: StoreArchive, registry: Registry, now_ms: Callable[[], int]
    ) -> None:
        self._archive = archive
        self._registry = registry
        self._now_ms = now_ms

    def minutes(
        self, since: int, until: int, topic: str = "", step_ms: int = MINUTE_MS
    ) -> list[MinutePoint]:
        """Every minute from `since` to `until`, in order, or every hour, as `step_ms` is; hours
        cost a sixtieth. No topic: of all. Raises InvalidParams, StoreUnavailable."""
        values = self._stats(topic, since, until, step_ms, COUNTS)
        return [
            MinutePoint(minute, {name: got.get(name, 0) for name in COUNTS})
            for minute, got in values.items()
        ]

    def calls(self, since: int, until: int, topic: str = "", step_ms: int = MINUTE_MS) -> Calls:
        """`flow` and `lateness`, read once. As `minutes`."""
        values = self._stats(topic, since, until, step_ms)
        return Calls([_flow(minute, got) for minute, got in values.items()], _lateness(values))

    def flow(self, since: int, until: int, topic: str = "") -> list[FlowPoint]:
        """As `minutes`."""
        values = self._stats(topic, since, until, MINUTE_MS, FLOW)
        return [_flow(minute, got) for minute, got in values.items()]

    def lateness(self, since: int, until: int, topic: str = "") -> Lateness:
        """Over all of those minutes. Raises as `minutes`."""
        return _lateness(self._stats(topic, since, until, MINUTE_MS, _LATE))

    def worker_days(self) -> list[WorkerDays]:
        """Of each live worker, the last seven days, today the last. Raises StoreUnavailable."""
        today = self._now_ms() // DAY_MS * DAY_MS
        days = [today - back * DAY_MS for back in reversed(range(DAYS))]
        called = {
            day: self._archive.stats(WORKERS, day, day + MINUTE_MS).get(day, {}) for day in days
        }
        return [
            WorkerDays(worker, tuple((day, called[day].get(worker, 0)) for day in days))
            for worker in sorted(self._registry.live("worker"))
        ]

    def now_ms(self) -> int:
        """The store's clock."""
        return self._now_ms()

    def _stats(
        self, topic: str, since: int, until: int, step_ms: int, names: Collection[str] = ()
    ) -> dict[int, Mapping[str, int]]:
        """Every minute (or hour) has its values, be it none."""
        series = _series(topic) if step_ms == MINUTE_MS else HOURLY + _series(topic)
        first = since // step_ms * step_ms
        if first < 0 or until > LAST_MS or not first < until <= first + STATS_MS + DAY_MS:
            raise InvalidParams(
                "until", f"must be after since, by at most 8 days, and at most {LAST_MS}"
            )
        got = self._archive.stats(series, first, until, names)
        return {begin: got.get(begin, {}) for begin in range(first, until, step_ms)}


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


def _lateness(values: Mapping[int, Mapping[str, int]]) -> Lateness:
    totals: Counter[str] = Counter()
    for got in values.values():
        for name in _LATE.keys() & got.keys():
            totals[name] += got[name]
    buckets = [(ms, totals[name]) for name, ms in _LATE.items()]
    return Lateness(tuple(buckets), _quantile(buckets, 0.5), _quantile(buckets, 0.99))


def _quantile(buckets: list[tuple[int | None, int]], share: float) -> int | None:
    total = sum(n for _, n in buckets)
    seen = 0
    for upper, n in buckets:
        seen += n
        if n and seen >= share * total:
            return LATE_MS[-1] if upper is None else upper
    return None
