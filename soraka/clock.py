"""The store's clock, as this process reckons it.

The store decides every due time, so each process keeps its offset to the store's clock. It is
kept against the monotonic clock: a step of the local wall clock changes nothing.
"""

import time
from typing import Protocol

SAMPLES = 3


class _HasClock(Protocol):
    def now_ms(self) -> int: ...


def _monotonic_ms() -> float:
    return time.monotonic() * 1000


class StoreClock:
    """Milliseconds since the epoch. Call `sync` once before use and now and then after."""

    def __init__(self, store: _HasClock) -> None:
        self._store = store
        self._offset_ms = 0.0

    def now_ms(self) -> int:
        return int(_monotonic_ms() + self._offset_ms)

    def sync(self) -> float:
        """Reads the store's clock; returns by how many ms it had moved against ours.

        The quickest of a few readings counts. It may be wrong by half of what it took: an offset
        that lies within that is kept, so a slow answer does not make due times early. Raises
        StoreUnavailable, keeping the old offset.
        """
        before = self._offset_ms
        took_ms, offset_ms = min(self._reading() for _ in range(SAMPLES))
        if abs(offset_ms - before) > took_ms / 2 + 0.5:
            self._offset_ms = offset_ms
        return self._offset_ms - before

    def _reading(self) -> tuple[float, float]:
        start = _monotonic_ms()
        # + 0.5: the store tells whole milliseconds, rounded down
        store_ms = self._store.now_ms() + 0.5
        end = _monotonic_ms()
        return end - start, store_ms - (start + end) / 2
