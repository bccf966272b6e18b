"""What falls due soon, read from the store again and again.

Whatever a worker was not told of, or lost, comes up here: its memory is a hint.
"""

import logging
import time
from collections.abc import Callable, Sequence

import gevent
from gevent.event import Event

from soraka.config import WorkerConfig
from soraka.errors import StoreUnavailable
from soraka.ports import DueId, Move, Store
from worker.settle import BackOff

log = logging.getLogger(__name__)

PAGE = 5000
"""Rows read at once, those held already among them: what is behind them comes up as they go."""
FULL_PAGE = 500
"""With the memory nearly full: enough to see what is overdue and was never told of."""
PAGE_SPACING_S = 0.02
PAGE_YIELD = 500
LOW_WATER = 1000
"""With fewer held and more in the store, the pager need not wait for its time."""


class Pager:
    """`hold` gets the rows that fall due before `horizon()`, `held` says how many there are."""

    def __init__(
        self,
        *,
        owner: str,
        store: Store,
        config: WorkerConfig,
        horizon: Callable[[], int],
        hold: Callable[[Sequence[tuple[str, int]], int], object],
        held: Callable[[], int],
        turned: Callable[[], None],
    ) -> None:
        self._owner = owner
        self._store = store
        self._config = config
        self._horizon = horizon
        self._hold = hold
        self._held = held
        self._turned = turned
        self._back_off = BackOff("page")
        self._gone: set[str] = set()  # answers to claims since the last page
        self._more = False
        self._low_water = min(LOW_WATER, config.max_held // 2)
        self._now = Event()
        self.stopped = False
        """Turns, and reads no more."""
        self.reading = False
        self._read_at = time.monotonic()

    def overdue_ms(self) -> int:
        """By how much the last page that was read is older than it should be."""
        age_ms = (time.monotonic() - self._read_at) * 1000
        return max(0, int(age_ms) - self._config.page_ms)

    def run(self) -> None:
        """Body of a greenlet; ends only when killed."""
        while True:
            self._turned()
            self._now.clear()
            self.reading = not self.stopped
            try:
                if self.reading:
                    self._page()
            except StoreUnavailable as exc:
                self._back_off.failed(exc)
            except Exception:  # the edge of a process: one bad turn must not end the loop
                log.exception("pager.failed")
            else:
                self._read_at = time.monotonic()
                self._back_off.worked()
            self.reading = False
            if self._now.wait(self._config.page_ms / 1000):
                gevent.sleep(PAGE_SPACING_S)

    def look(self) -> None:
        """Reads soon when little is held and more is there. Never blocks."""
        if self._more and self._held() < self._low_water:
            self._now.set()

    def gone(self, msg_id: str) -> None:
        """The store knows no such message."""
        if len(self._gone) < self._config.max_held:
            self._gone.add(msg_id)

    def _page(self) -> None:
        limit = FULL_PAGE if self._held() > self._config.max_held * 7 // 8 else PAGE
        until = self._horizon()
        rows = self._store.due(self._owner, until, limit)
        more = len(rows) >= limit
        rows = self._without_dead(rows)
        for start in range(0, len(rows), PAGE_YIELD):
            if start:
                gevent.sleep(0)  # a long page must not make others late
            self._hold([(r.msg_id, r.due_at) for r in rows[start : start + PAGE_YIELD]], until)
            more = more or self._held() >= self._config.max_held
        self._more = more

    def _without_dead(self, rows: list[DueId]) -> list[DueId]:
        """Has the store forget the entries of our index behind which there is no message.

        They are those that come up again after a claim was answered GONE: their record was lost.
        To give one to ourselves takes a false entry away and leaves a true one.
        """
        gone, self._gone = self._gone, set()
        dead = [row.msg_id for row in rows if row.msg_id in gone]
        for start in range(0, len(dead), PAGE_YIELD):
            part = dead[start : start + PAGE_YIELD]
            self._store.assign([Move(i, self._owner, self._owner) for i in part])
        # one that was read from the log again meanwhile is in the next page
        return [row for row in rows if row.msg_id not in gone] if dead else rows
