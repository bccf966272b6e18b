"""Every owner is alive, or soon will be: messages of absent owners go to live ones.

Serves worker death and removal, a restart of everything, messages accepted while no worker
lived, a worker that drains, and one that lives but does not work. Any center may run it at any
time; moving a message twice does no harm, and a lease stays with its message.
"""

import logging
import time
from collections.abc import Callable, Collection, Mapping, Sequence
from contextlib import ExitStack

from center.moves import PAGE, Moves
from center.takeover import FOREVER, Takeover
from center.workers import Workers
from soraka.errors import StoreUnavailable
from soraka.message import NO_OWNER, parked_topic
from soraka.metrics import Metrics
from soraka.ports import Clock, DueId, FullStore, Registry

log = logging.getLogger(__name__)

LOOK_EVERY_S = 1.0
"""While messages are moved: who else has left meanwhile, and who has come back."""


class Reconcile:
    """`absent_ms`: an owner that restarts at its address within this keeps its own.
    `sweep_ms`: what a live owner has not claimed for so long goes to others."""

    def __init__(
        self,
        *,
        store: FullStore,
        registry: Registry,
        workers: Workers,
        moves: Moves,
        clock: Clock,
        metrics: Metrics,
        absent_ms: int,
        sweep_ms: int,
        turned: Callable[[], object],
    ) -> None:
        self._store = store
        self._registry = registry
        self._workers = workers
        self._moves = moves
        self._clock = clock
        self._metrics = metrics
        self._absent_ms = absent_ms
        self._sweep_ms = sweep_ms
        self._turned = turned
        self._absent_since: dict[str, float] = {}
        self._left_to_others: dict[str, tuple[list[DueId], float]] = {}
        self._rests_until: dict[str, float] = {}
        self._takeovers: dict[str, Takeover] = {}

    def turn(self) -> None:
        """One look, and all that is to be done then: a step for each owner that has left, until
        none has messages. Raises StoreUnavailable; the next turn goes on."""
        try:
            self._look()
            looked = time.monotonic()
            while self._takeovers:
                self._step()
                if time.monotonic() - looked >= LOOK_EVERY_S:
                    self._look()
                    looked = time.monotonic()
        finally:
            for owner in list(self._takeovers):
                self._end(owner)
            self._metrics.to_move.set(0)

    def hand_back(self, owner: str, messages: Sequence[tuple[str, DueId]]) -> list[str]:
        """Balances (topic, message) pairs of a live worker anew; the ids that went to another."""
        return self._moves.move(owner, [(self._workers.choose(t), due) for t, due in messages])

    def _look(self) -> None:
        # those who keep messages of paused topics are nobody's to take over: see `resume`
        owners = {owner for owner in self._store.owners() if parked_topic(owner) is None}
        leaving = self._leaving(owners)
        for owner in self._takeovers.keys() - leaving.keys():
            self._end(owner)
        for owner in self._left_to_others.keys() - leaving.keys():
            del self._left_to_others[owner]
        pending = self._pending() if leaving else {}
        for owner, why in leaving.items():
            if owner not in self._takeovers:
                self._begin(owner, why, pending.get(owner))
        self._metrics.to_move.set(sum(pending.get(owner, 0) for owner in self._takeovers))
        self._sweep(owners.intersection(self._workers.pulses()) - leaving.keys())

    def _leaving(self, owners: Collection[str]) -> dict[str, str]:
        """Owners whose messages are to go to others now, and why."""
        pulses = self._workers.pulses()
        leaving = dict.fromkeys(self._absent_long_enough(set(owners).difference(pulses)), "absent")
        for owner in sorted(set(owners).intersection(pulses)):
            if pulses[owner].draining or pulses[owner].stuck:
                leaving[owner] = "draining" if pulses[owner].draining else "stuck"
        return {owner: why for owner, why in leaving.items() if self._can_go(owner, why)}

    def _can_go(self, owner: str, why: str) -> bool:
        """Whether there is someone to take its messages: from one that is there, a good one."""
        others = self._workers.others(owner)
        return any(other.good for other in others) or bool(others and why == "absent")

    def _absent_long_enough(self, absent: Collection[str]) -> list[str]:
        now = time.monotonic()
        self._absent_since = {owner: self._absent_since.get(owner, now) for owner in absent}
        return [
            owner
            for owner, since in sorted(self._absent_since.items())
            if owner == NO_OWNER or (now - since) * 1000 >= self._absent_ms
        ]

    def _pending(self) -> Mapping[str, int]:
        """For people; empty while part of the store is away, which stops nothing."""
        try:
            return self._store.totals().pending
        except StoreUnavailable:
            return {}

    # ------------------------------------------------------------------ take over

    def _begin(self, owner: str, why: str, pending: int | None) -> None:
        self._turned()
        with ExitStack() as lock:
            had = lock.enter_context(self._registry.lock(owner))
            if not had and not self._is_forsaken(owner):
                return
            self._left_to_others.pop(owner, None)
            self._takeovers[owner] = Takeover(
                store=self._store,
                moves=self._moves,
                clock=self._clock,
                owner=owner,
                why=why,
                lock=lock.pop_all(),
            )
            self._takeovers[owner].began(pending)

    def _is_forsaken(self, owner: str) -> bool:
        """Whether nothing has moved since a look a while ago, though another center has the lock:
        it has died, or there is no registry to ask. The lock only saves double work."""
        soonest = self._store.due(owner, FOREVER, 1)
        now = time.monotonic()
        was, since = self._left_to_others.get(owner, ([], now))
        if soonest != was:
            self._left_to_others[owner] = soonest, now
            return False
        return now - since >= LOOK_EVERY_S / 2

    def _step(self) -> None:
        for owner, takeover in list(self._takeovers.items()):
            moved = takeover.step()
            self._metrics.reassigned.inc(moved)
            self._turned()
            if not moved:
                self._end(owner)

    def _end(self, owner: str) -> None:
        self._takeovers.pop(owner).close()

    # ------------------------------------------------------------------ sweep

    def _sweep(self, owners: Collection[str]) -> None:
        """A page of what has been due for long at each owner that seems alive. Bounded, for it may
        also be that all have too much to do: who was given such messages keeps them for a while,
        or two would hand them to and fro."""
        now = time.monotonic()
        self._rests_until = {o: until for o, until in self._rests_until.items() if until > now}
        swept = {owner: self._left_undone(owner) for owner in sorted(owners)}
        for owner, page in swept.items():
            if not page:
                continue
            chosen = self._moves.choose(page, owner)
            moved = len(self._moves.move(owner, chosen))
            for target, _ in chosen:
                self._rests_until[target] = now + self._sweep_ms / 1000
            if moved:
                log.warning("owner.swept", extra={"owner": owner, "messages": moved})
                self._metrics.reassigned.inc(moved)

    def _left_undone(self, owner: str) -> list[DueId]:
        if owner in self._rests_until:
            return []
        if not any(other.good for other in self._workers.others(owner)):
            return []
        return self._store.due(owner, self._clock.now_ms() - self._sweep_ms, PAGE)
