"""The first page: how the whole fares, also when some of it does not answer."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple, TypeVar

from admin_app.instances import SERVICES
from admin_app.monitor import Lateness, MinutePoint, Monitor
from soraka.errors import Unavailable
from soraka.ports import Backlog, Clock, FullStore, Log, Registry, Totals
from soraka.stats import MINUTE_MS

T = TypeVar("T")
SHOWN_MINUTES = 60
LATENESS_MINUTES = 15


class Role(NamedTuple):
    """Live instances of a service, and how many of them drain."""

    service: str
    live: int
    draining: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Overview:
    """`ports` has log, store and registry: empty when it answers, else why not. What the store
    would have told is None when it does not answer. `minutes` are the last 60, the running one
    the last; `lateness` is of the last 15. `pending` is of all owners."""

    now_ms: int
    roles: tuple[Role, ...]
    ports: dict[str, str]
    minutes: list[MinutePoint] | None
    lateness: Lateness | None
    totals: Totals | None
    pending: int | None
    backlog: Backlog | None


class Overviews:
    def __init__(
        self, log: Log, store: FullStore, registry: Registry, monitor: Monitor, clock: Clock
    ) -> None:
        self._log = log
        self._store = store
        self._registry = registry
        self._monitor = monitor
        self._clock = clock

    def get(self) -> Overview:
        """Never raises Unavailable."""
        now = self._clock.now_ms()
        since = now - (SHOWN_MINUTES - 1) * MINUTE_MS
        recent = now - (LATENESS_MINUTES - 1) * MINUTE_MS
        totals = _or_none(self._store.totals)
        return Overview(
            now_ms=now,
            roles=tuple(self._role(service) for service in SERVICES),
            ports=self.ports(),
            minutes=_or_none(lambda: self._monitor.minutes(since, now + 1)),
            lateness=_or_none(lambda: self._monitor.lateness(recent, now + 1)),
            totals=totals,
            pending=None if totals is None else sum(totals.pending.values()),
            backlog=_or_none(lambda: self._store.backlog(now)),
        )

    def ports(self) -> dict[str, str]:
        """Log, store, registry: empty when it answers, else why not."""
        centers = self._registry.live("center")
        return {
            "log": _trouble(self._log.check),
            "store": _trouble(self._store.now_ms),
            "registry": "" if centers else "no center is registered",
        }

    def _role(self, service: str) -> Role:
        live = self._registry.live(service).values()
        return Role(service, len(live), sum(instance.draining for instance in live))


def _or_none(action: Callable[[], T]) -> T | None:
    try:
        return action()
    except Unavailable:
        return None


def _trouble(check: Callable[[], object]) -> str:
    try:
        check()
    except Unavailable as exc:
        return str(exc) or type(exc).__name__
    return ""
