"""What was kept while its topic was paused goes out again, soonest first, at a limited rate.

A message has one owner in the store all the while, so a center that dies, another that does the
same, or a topic that is paused anew leaves each message with the one or the other. The lock saves
double work, and keeps the rate: a center that does not get it leaves the topic alone, unless
nothing has moved for a while. Then its holder has died, or there is no registry to ask.
"""

import logging
import time
from contextlib import ExitStack

from center.moves import PAGE, Moves
from center.workers import Workers
from soraka.message import parked_topic
from soraka.metrics import Metrics
from soraka.ports import DueId, FullStore, Registry
from soraka.rate import Rate

log = logging.getLogger(__name__)

FOREVER = 1 << 52
LOOK_EVERY_S = 1.0
FORSAKEN_S = 3.0


class Resume:
    """`per_second` is the rate for topics that have none of their own."""

    def __init__(
        self,
        *,
        store: FullStore,
        registry: Registry,
        workers: Workers,
        moves: Moves,
        metrics: Metrics,
        per_second: int,
    ) -> None:
        self._store = store
        self._registry = registry
        self._workers = workers
        self._moves = moves
        self._metrics = metrics
        self._per_second = per_second
        self._looked_at = float("-inf")
        self._going: dict[str, _Going] = {}
        self._left_to_others: dict[str, tuple[list[DueId], float]] = {}

    def turn(self) -> None:
        """One step for each topic that goes on. Raises StoreUnavailable; the next turn goes on."""
        now = time.monotonic()
        if now - self._looked_at >= LOOK_EVERY_S:
            self._look()
            self._looked_at = now
        for owner, going in list(self._going.items()):
            if self._is_paused(going.topic) or self._step(owner, going) == 0:
                self._end(owner)

    def close(self) -> None:
        """Leaves what is under way to others. Safe to repeat."""
        for owner in list(self._going):
            self._end(owner)

    def _look(self) -> None:
        waiting = {}
        for owner in self._store.owners():
            topic = parked_topic(owner)
            if topic is not None and not self._is_paused(topic):
                waiting[owner] = topic
        for owner in self._left_to_others.keys() - waiting.keys():
            del self._left_to_others[owner]
        for owner in waiting.keys() - self._going.keys():
            self._begin(owner, waiting[owner])

    def _is_paused(self, name: str) -> bool:
        """One that was deleted is not."""
        topic = self._registry.topics().get(name)
        return topic is not None and topic.paused

    def _begin(self, owner: str, topic: str) -> None:
        if not self._workers.others(owner):
            return
        with ExitStack() as lock:
            if not lock.enter_context(self._registry.lock(owner)) and not self._is_forsaken(owner):
                return
            self._left_to_others.pop(owner, None)
            self._going[owner] = _Going(topic, self._rate_of(topic), lock.pop_all())
        log.info("topic.resuming", extra={"topic": topic})

    def _is_forsaken(self, owner: str) -> bool:
        soonest, now = self._store.due(owner, FOREVER, 1), time.monotonic()
        was, since = self._left_to_others.get(owner, ([], now))
        if soonest != was:
            self._left_to_others[owner] = soonest, now
            return False
        return now - since >= FORSAKEN_S

    def _step(self, owner: str, going: "_Going") -> int | None:
        """How many were moved; None when it is too soon for one."""
        now = time.monotonic() * 1000
        going.rate.per_second = self._rate_of(going.topic)
        size = min(PAGE, going.rate.fitting(now))
        if not size:
            return None
        rows = self._store.due(owner, FOREVER, size)
        # before they are moved: a call that fails may have moved them
        going.rate.take(now, len(rows))
        chosen = [(self._workers.choose(going.topic), row) for row in rows]
        moved = len(self._moves.move(owner, chosen))
        going.moved += moved
        self._metrics.resumed.inc(moved)
        return moved

    def _rate_of(self, name: str) -> int:
        topic = self._registry.topics().get(name)
        return (topic.max_dispatches_per_second if topic else 0) or self._per_second

    def _end(self, owner: str) -> None:
        going = self._going.pop(owner)
        going.lock.close()
        log.info("topic.resumed", extra={"topic": going.topic, "messages": going.moved})


class _Going:
    """A topic whose messages go out. `lock` is released at the end."""

    def __init__(self, topic: str, per_second: float, lock: ExitStack) -> None:
        self.topic = topic
        self.rate = Rate(per_second)
        self.lock = lock
        self.moved = 0
