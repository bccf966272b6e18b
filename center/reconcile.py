"""Every owner is alive, or soon will be: messages of absent owners go to live ones.

Serves worker death and removal, a restart of everything, messages accepted while no worker
lived, and a worker that lives but does not work. Any center may run it at any time; moving a
message twice does no harm, and a lease stays with its message.
"""

import logging
import time
from collections import defaultdict
from collections.abc import Callable, Collection, Sequence

import gevent

from center.workers import Workers
from soraka.message import NO_OWNER
from soraka.metrics import Metrics
from soraka.ports import Clock, DueId, FullStore, Move

log = logging.getLogger(__name__)

PAGE = 500
FOREVER = 1 << 52


class Reconcile:
    """`absent_ms`: an owner that restarts at its address within this keeps its own.
    `sweep_ms`: what a live owner has not claimed for so long goes to others."""

    def __init__(
        self,
        *,
        store: FullStore,
        workers: Workers,
        clock: Clock,
        metrics: Metrics,
        horizon_ms: int,
        absent_ms: int,
        sweep_ms: int,
        turned: Callable[[], object],
    ) -> None:
        self._store = store
        self._workers = workers
        self._clock = clock
        self._metrics = metrics
        self._horizon_ms = horizon_ms
        self._absent_ms = absent_ms
        self._sweep_ms = sweep_ms
        self._turned = turned
        self._absent_since: dict[str, float] = {}

    def turn(self) -> None:
        """One look. Raises StoreUnavailable; the next turn goes on."""
        live = self._workers.live()
        owners = self._store.owners()
        for owner in self._absent_long_enough(owners.difference(live)):
            if live:
                self._take_over(owner)
        if len(live) > 1:
            for owner in sorted(owners.intersection(live)):
                self._sweep(owner)

    def hand_back(self, owner: str, messages: Sequence[tuple[str, DueId]]) -> list[str]:
        """Balances (topic, message) pairs of a live worker anew; the ids that went to another."""
        chosen = [(self._workers.choose(topic), due) for topic, due in messages]
        return self._move(owner, chosen)

    def _absent_long_enough(self, absent: Collection[str]) -> list[str]:
        now = time.monotonic()
        self._absent_since = {owner: self._absent_since.get(owner, now) for owner in absent}
        return [
            owner
            for owner, since in sorted(self._absent_since.items())
            if owner == NO_OWNER or (now - since) * 1000 >= self._absent_ms
        ]

    def _take_over(self, owner: str) -> None:
        moved = 0
        while page := self._store.due(owner, FOREVER, PAGE):
            now_moved = len(self._move(owner, self._chosen(page)))
            if not now_moved:
                break  # another center is at it, or no worker lives any more
            moved += now_moved
            self._turned()
            gevent.sleep(0)
        if moved:
            log.info("owner.taken_over", extra={"owner": owner, "messages": moved})
            self._metrics.reassigned.inc(moved)

    def _sweep(self, owner: str) -> None:
        """A page of what has been due for long at an owner that seems alive: its timer may be
        stuck. Bounded, for it may also be that all have too much to do."""
        page = self._store.due(owner, self._clock.now_ms() - self._sweep_ms, PAGE)
        moved = len(self._move(owner, self._chosen(page, excluded=owner))) if page else 0
        if moved:
            log.warning("owner.swept", extra={"owner": owner, "messages": moved})
            self._metrics.reassigned.inc(moved)

    def _chosen(self, page: Sequence[DueId], excluded: str = "") -> list[tuple[str, DueId]]:
        """With a target for each; also for ids without a record, which the store then drops."""
        stored = self._store.get([due.msg_id for due in page])
        return [
            (self._workers.choose(s.message.topic if s else "", excluded), due)
            for s, due in zip(stored, page, strict=True)
        ]

    def _move(self, source: str, chosen: Collection[tuple[str, DueId]]) -> list[str]:
        moves = [
            Move(due.msg_id, source, target)
            for target, due in chosen
            if target not in (source, NO_OWNER)
        ]
        until = self._clock.now_ms() + self._horizon_ms
        near: dict[str, list[DueId]] = defaultdict(list)
        moved = []
        for move, due_at in zip(moves, self._store.assign(moves), strict=True):
            if due_at is not None:
                moved.append(move.msg_id)
                if due_at < until:
                    near[move.target].append(DueId(due_at, move.msg_id))
        self._workers.deliver(near)
        return moved
