"""Every owner is alive, or soon will be: messages of absent owners go to live ones.

Serves worker death and removal, a restart of everything, and messages accepted while no worker
lived. Any center may run it at any time; moving a message twice does no harm, and a lease
stays with its message.
"""

import logging
from collections import defaultdict
from collections.abc import Collection, Sequence

import gevent

from center.workers import Workers
from soraka.message import NO_OWNER
from soraka.metrics import Metrics
from soraka.ports import Clock, DueId, FullStore, Move

log = logging.getLogger(__name__)

PAGE = 500
FOREVER = 1 << 52


class Reconcile:
    def __init__(
        self,
        *,
        store: FullStore,
        workers: Workers,
        clock: Clock,
        metrics: Metrics,
        horizon_ms: int,
    ) -> None:
        self._store = store
        self._workers = workers
        self._clock = clock
        self._metrics = metrics
        self._horizon_ms = horizon_ms
        self._absent_before: set[str] = set()

    def turn(self) -> None:
        """One look. An owner must be absent twice running: one that restarts at the same
        address keeps its own. Raises StoreUnavailable; the next turn goes on."""
        live = self._workers.live()
        absent = self._store.owners().difference(live)
        if live:
            for owner in sorted(absent & (self._absent_before | {NO_OWNER})):
                self._take_over(owner)
        self._absent_before = absent

    def hand_back(self, owner: str, messages: Sequence[tuple[str, DueId]]) -> int:
        """Balances (topic, message) pairs of a live worker anew; returns how many moved."""
        return self._move(owner, [(self._workers.choose(topic), due) for topic, due in messages])

    def _take_over(self, owner: str) -> None:
        moved = 0
        while page := self._store.due(owner, FOREVER, PAGE):
            now_moved = self._move(owner, self._chosen(page))
            if not now_moved:
                break  # another center is at it, or no worker lives any more
            moved += now_moved
            gevent.sleep(0)
        if moved:
            log.info("owner.taken_over", extra={"owner": owner, "messages": moved})
            self._metrics.reassigned.inc(moved)

    def _chosen(self, page: Sequence[DueId]) -> list[tuple[str, DueId]]:
        stored = self._store.get([due.msg_id for due in page])
        return [
            (self._workers.choose(s.message.topic), due)
            for s, due in zip(stored, page, strict=True)
            if s is not None
        ]

    def _move(self, source: str, chosen: Collection[tuple[str, DueId]]) -> int:
        moves = [
            Move(due.msg_id, source, target)
            for target, due in chosen
            if target not in (source, NO_OWNER)
        ]
        until = self._clock.now_ms() + self._horizon_ms
        near: dict[str, list[DueId]] = defaultdict(list)
        moved = 0
        for move, due_at in zip(moves, self._store.assign(moves), strict=True):
            if due_at is not None:
                moved += 1
                if due_at < until:
                    near[move.target].append(DueId(due_at, move.msg_id))
        self._workers.deliver(near)
        return moved
