"""Taking all messages of one owner over, soonest first, some thousands at a step."""

import logging
import time
from contextlib import ExitStack

import gevent

from center.moves import PAGE, Chosen, Moves
from soraka.errors import StoreUnavailable
from soraka.ports import Clock, FullStore

log = logging.getLogger(__name__)

STEP = 4 * PAGE
FOREVER = 1 << 52
TELL_EVERY_S = 5.0


class Takeover:
    """`why` is for people. `lock` is released at the end."""

    def __init__(
        self,
        *,
        store: FullStore,
        moves: Moves,
        clock: Clock,
        owner: str,
        why: str,
        lock: ExitStack,
    ) -> None:
        self._store = store
        self._moves = moves
        self._clock = clock
        self._owner = owner
        self._why = why
        self._lock = lock
        self._began = self._told = time.monotonic()
        self._overdue = 0
        self.moved = 0

    def began(self, pending: int | None) -> None:
        """`pending`: how many there are; None when the store cannot tell now."""
        log.info("owner.takeover_began", extra={**self._about(), "pending": pending})

    def step(self) -> int:
        """Moves what falls due next; how many those were. 0: nothing is left, or another center
        is at it, or there is nobody to move to. Raises StoreUnavailable."""
        rows = self._store.due(self._owner, FOREVER, STEP)
        now = self._clock.now_ms()
        moving: list[gevent.Greenlet[..., list[str] | StoreUnavailable]] = []
        try:
            for start in range(0, len(rows), PAGE):
                # the topics of one page are read while the store moves the page before
                chosen = self._moves.choose(rows[start : start + PAGE], self._owner)
                moving.append(gevent.spawn(self._move, chosen))
        finally:
            gevent.joinall(moving)
        moved = 0
        for page in moving:
            ids = page.get()
            if isinstance(ids, StoreUnavailable):
                raise ids
            moved += len(ids)
        self._overdue += min(moved, sum(row.due_at < now for row in rows))
        self.moved += moved
        self._tell_now_and_then()
        return moved

    def _move(self, chosen: list[Chosen]) -> list[str] | StoreUnavailable:
        """With the error as a value: gevent would print it."""
        try:
            return self._moves.move(self._owner, chosen)
        except StoreUnavailable as exc:
            return exc

    def close(self) -> None:
        self._lock.close()
        if self.moved:
            log.info("owner.taken_over", extra=self._progress())

    def _tell_now_and_then(self) -> None:
        if time.monotonic() - self._told >= TELL_EVERY_S:
            self._told = time.monotonic()
            log.info("owner.takeover_goes_on", extra=self._progress())

    def _about(self) -> dict[str, object]:
        return {"owner": self._owner, "why": self._why}

    def _progress(self) -> dict[str, object]:
        return {
            **self._about(),
            "messages": self.moved,
            "overdue": self._overdue,
            "seconds": round(time.monotonic() - self._began, 1),
        }
