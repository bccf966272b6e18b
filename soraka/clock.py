"""The store's clock, as this process reckons it.

The store decides every due time, so each process keeps its offset to the store's clock. It is
kept against the monotonic clock: a step of the local wall clock changes nothing.

When the store's own clock steps (its host's time is set), each process follows at its next sync,
within `process.CLOCK_EVERY_S`; until then due times are computed with the old one. Forward by an
hour: what falls due in that hour is called at once, each worker beginning at its sync, and leases
that would have run out in it do so, so that a call under way may be made a second time. Back by
an hour: all that is pending is called an hour later by any other clock, and workers ask the store
too early until their sync, which answers "later"; a message of a dead worker waits for its
lease an hour longer. Early by the store's clock nothing is, since it is looked at in each claim.
Ids made up to the sync after a step back by more than ID_AHEAD_MS are refused as from the future.
"""

import time
from collections.abc import Callable
from typing import Protocol

SAMPLES = 3
SKEWED_MS = 1000
"""The wall clock of a host may be off by this before it is said. Nothing rests on it but log
lines, and what people compare with them."""


class _HasClock(Protocol):
    def now_ms(self) -> int: ...


def _monotonic_ms() -> float:
    return time.monotonic() * 1000


class StoreClock:
    """Milliseconds since the epoch. Call `sync` once before use and now and then after."""

    def __init__(self, store: _HasClock, wall_s: Callable[[], float] = time.time) -> None:
        self._store = store
        self._wall_s = wall_s
        self._offset_ms = 0.0
        self._known = False

    def now_ms(self) -> int:
        return int(_monotonic_ms() + self._offset_ms)

    def skew_ms(self) -> int:
        """By how much the wall clock of this host is ahead of the store's; 0 before a sync."""
        return round(self._wall_s() * 1000) - self.now_ms() if self._known else 0

    def sync(self) -> float:
        """Reads the store's clock; returns by how many ms it had moved against ours.

        The quickest of a few readings counts. It may be wrong by half of what it took: an offset
        that lies within that is kept, so a slow answer does not make due times early; 1 ms more,
        as this reading and the one of before are rounded. Raises StoreUnavailable, keeping the
        old offset.
        """
        before = self._offset_ms
        took_ms, offset_ms = min(self._reading() for _ in range(SAMPLES))
        if abs(offset_ms - before) > took_ms / 2 + 1:
            self._offset_ms = offset_ms
        self._known = True
        return self._offset_ms - before

    def _reading(self) -> tuple[float, float]:
        start = _monotonic_ms()
        # + 0.5: the store tells whole milliseconds, rounded down
        store_ms = self._store.now_ms() + 0.5
        end = _monotonic_ms()
        return end - start, store_ms - (start + end) / 2


class SkewWatch:
    """Says when a skew is worth a word: it begins, has changed by half or more, is over."""

    def __init__(self) -> None:
        self._said_ms = 0

    def judge(self, skew_ms: int) -> bool | None:
        """True to warn of it, False when it is over, None for no word."""
        if abs(skew_ms) <= SKEWED_MS:
            was, self._said_ms = self._said_ms, 0
            return False if was else None
        if abs(skew_ms - self._said_ms) < max(SKEWED_MS, abs(self._said_ms) / 2):
            return None
        self._said_ms = skew_ms
        return True
