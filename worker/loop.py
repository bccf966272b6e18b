"""The worker's loop: page, sleep until the next is due, claim, call, settle.

Four kinds of greenlets share the state of `Loop`. The pager reads what falls due soon from the
store; the timer sleeps until the first of it is due and has it claimed; a claim asks for many at
once and starts a call for each it gets; the settler writes what came of them. What is known in
memory is a hint all the way: the claim alone decides, and whatever gets lost here is paged again.
They are in one module, though long, because they share that state and wake each other.
"""

import logging
import time
from collections.abc import Callable, Sequence

import gevent
from gevent.event import Event
from gevent.pool import Group

from soraka.config import WorkerConfig
from soraka.errors import SorakaError, StoreUnavailable
from soraka.ports import Claim, ClaimKind, Clock, DueId, Ended, Move, Store
from soraka.process import Turns
from worker.calls import Call, Calls, OnDone, OnFire
from worker.settle import BackOff, Settler, Settling
from worker.timer import Timer

log = logging.getLogger(__name__)

HandBack = Callable[[list[tuple[str, DueId]]], list[str]]
"""Offers (topic, message) pairs to a center; the ids that went to another worker. Blocks until it
answered. Best effort."""

BATCH = 200
CLAIM_SPACING_S = 0.005
"""Between the starts of two claims: under load they come in batches, the first goes at once."""
PAGE = 5000
"""Rows read at once, those held already among them: what is behind them comes up as they go."""
FULL_PAGE = 500
"""With the timer nearly full: enough to see what is overdue and was never told of."""
PAGE_SPACING_S = 0.02
PAGE_YIELD = 500
LOW_WATER = 1000
"""With fewer held and more in the store, the pager need not wait for its time."""
LONGEST_NAP_S = 1.0
"""The timer turns at least so often, to show that it lives."""
MAX_HAND_BACKS = 4
LONGEST_PACE_MS = 64
AFTER_FAILURE_S = 0.1


def _ignore(*_: object) -> None:
    pass


class Loop:
    """Makes the callbacks of `owner` (ip:port). `clock` counts as the store does."""

    def __init__(
        self,
        *,
        owner: str,
        store: Store,
        clock: Clock,
        call: Call,
        config: WorkerConfig,
        hand_back: HandBack | None = None,
        on_fire: OnFire = _ignore,
        on_done: OnDone = _ignore,
    ) -> None:
        self._owner = owner
        self._store = store
        self._clock = clock
        self._config = config
        self._hand_back = hand_back
        self._timer = Timer(config.max_held)
        self._busy: set[str] = set()  # being claimed, called or settled
        self._claiming = 0
        self._calling = 0
        self._paces: dict[str, int] = {}
        self._gone: set[str] = set()  # answers to claims since the last page
        self._calls = Calls(
            clock=clock,
            call=call,
            max_per_host=config.max_per_host,
            parked=self._slot_freed,
            on_fire=on_fire,
            on_done=on_done,
        )
        self._turns = Turns("pager", "timer", "settler")
        self._settler = Settler(store, self._settled, lambda: self._turns.turn("settler"))
        self._claim_back_off = BackOff("claim")
        self._page_back_off = BackOff("page")
        self._wake = Event()
        self._page_now = Event()
        self._more = False
        self._starved = False
        self._asleep_until = 0
        self._next_claim = 0.0
        self._hand_backs = 0
        self._draining = False
        self._greenlets = Group()

    # ------------------------------------------------------------------ from outside

    def start(self) -> None:
        """Begins, in the background. Once only."""
        for body in (self._keep_paging, self._keep_time, self._settler.run):
            self._greenlets.spawn(body)

    def deliver(self, messages: Sequence[tuple[str, int]]) -> int:
        """Takes hints: (msg_id, due_at). Returns how many were new; later ones are paged."""
        if self._draining:
            return 0
        new = self._hold(messages, self._horizon())
        self._nudge()
        return new

    def drain(self, limit_s: float) -> bool:
        """Claims no more, finishes what is under way; False when the limit came first."""
        self._draining = True
        self._calls.close()
        self._wake.set()
        deadline = time.monotonic() + limit_s
        while self._busy and time.monotonic() < deadline:
            gevent.sleep(0.01)
        return not self._busy

    def stop(self) -> None:
        """Ends at once; calls under way are cut off. Safe to repeat."""
        self._draining = True
        self._greenlets.kill()

    @property
    def held(self) -> int:
        """Messages in memory that wait for their time."""
        return len(self._timer)

    @property
    def in_flight(self) -> int:
        """Messages being claimed, called or settled."""
        return len(self._busy)

    def turn_ages_ms(self) -> dict[str, int]:
        """Per greenlet, how long ago it last turned."""
        return self._turns.ages_ms()

    def last_turn_ms(self) -> int:
        """How long ago the slowest of them turned."""
        return max(self.turn_ages_ms().values())

    # ------------------------------------------------------------------ pager

    def _keep_paging(self) -> None:
        while True:
            self._turns.turn("pager")
            self._page_now.clear()
            try:
                if not self._draining:
                    self._page()
            except StoreUnavailable as exc:
                self._page_back_off.failed(exc)
            except Exception:  # the edge of a process: one bad turn must not end the loop
                log.exception("pager.failed")
            else:
                self._page_back_off.worked()
            if self._page_now.wait(self._config.page_ms / 1000):
                gevent.sleep(PAGE_SPACING_S)

    def _page(self) -> None:
        limit = FULL_PAGE if len(self._timer) > self._config.max_held * 7 // 8 else PAGE
        until = self._horizon()
        rows = self._store.due(self._owner, until, limit)
        more = len(rows) >= limit
        rows = self._without_dead(rows)
        for start in range(0, len(rows), PAGE_YIELD):
            if start:
                gevent.sleep(0)  # a long page must not make others late
            self._hold([(r.msg_id, r.due_at) for r in rows[start : start + PAGE_YIELD]], until)
            self._nudge()
            more = more or len(self._timer) >= self._config.max_held
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

    def _hold(self, messages: Sequence[tuple[str, int]], until: int) -> int:
        new = 0
        for msg_id, due_at in messages:
            if due_at <= until and msg_id not in self._busy:
                new += self._timer.push(msg_id, due_at)
        return new

    def _horizon(self) -> int:
        return self._clock.now_ms() + self._config.horizon_ms

    # ------------------------------------------------------------------ timer

    def _keep_time(self) -> None:
        low_water = min(LOW_WATER, self._config.max_held // 2)
        while True:
            self._turns.turn("timer")
            try:
                nap_s = self._fire_due()
            except Exception:  # the edge of a process: one bad turn must not end the loop
                log.exception("timer.failed")
                nap_s = AFTER_FAILURE_S
            if self._more and len(self._timer) < low_water:
                self._page_now.set()
            self._wake.clear()
            self._wake.wait(nap_s)

    def _fire_due(self) -> float:
        """Has claimed what is due and fits; how long to sleep now, in seconds."""
        wait_s = self._next_claim - time.monotonic()
        if wait_s > 0:
            return wait_s
        free = self._free_slots()
        self._starved = free <= 0
        if self._starved:
            return self._claim_back_off.left_s() or LONGEST_NAP_S
        msg_ids = self._timer.pop_due(self._clock.now_ms(), min(free, BATCH))
        if msg_ids:
            self._busy.update(msg_ids)
            self._claiming += len(msg_ids)
            self._greenlets.spawn(self._claim, msg_ids)
            self._next_claim = time.monotonic() + CLAIM_SPACING_S
            return CLAIM_SPACING_S
        return self._nap_s()

    def _nap_s(self) -> float:
        next_due = self._timer.next_due_ms()
        now = self._clock.now_ms()
        longest = now + int(LONGEST_NAP_S * 1000)
        self._asleep_until = longest if next_due is None else min(next_due, longest)
        return max(1, self._asleep_until - now) / 1000

    def _free_slots(self) -> int:
        """How many may be claimed: bounded are calls under way, and outcomes not yet settled."""
        if self._draining or self._claim_back_off.left_s():
            return 0
        most = self._config.max_callbacks
        return min(
            most - self._claiming - (self._calling - self._calls.waiting),
            # those that wait at a gate or for the settler come on top
            3 * most + BATCH - len(self._busy),
        )

    def _nudge(self) -> None:
        """Wakes the timer when something falls due before it would wake."""
        next_due = self._timer.next_due_ms()
        if next_due is not None and next_due < self._asleep_until:
            self._wake.set()

    def _slot_freed(self) -> None:
        if self._starved:
            self._wake.set()

    # ------------------------------------------------------------------ claim and call

    def _claim(self, msg_ids: list[str]) -> None:
        handed_over = 0
        try:
            claims = self._store.claim(msg_ids)
            self._claim_back_off.worked()
            for msg_id, claim in zip(msg_ids, claims, strict=True):
                self._act_on(msg_id, claim)
                handed_over += 1
        except StoreUnavailable as exc:
            self._claim_back_off.failed(exc)
            self._put_back(msg_ids)
        except Exception:  # a defect; they are paged again, and BUSY for as long as a lease was had
            log.exception("claim.failed", extra={"messages": len(msg_ids) - handed_over})
        finally:
            self._claiming -= len(msg_ids)
            self._busy.difference_update(msg_ids[handed_over:])
            self._nudge()
            self._slot_freed()

    def _act_on(self, msg_id: str, claim: Claim) -> None:
        if claim.kind is ClaimKind.FIRE:
            self._paces.pop(msg_id, None)
            self._calling += 1
            self._greenlets.spawn(self._make_call, msg_id, claim)
            return
        self._busy.discard(msg_id)
        if claim.kind is ClaimKind.GONE:
            self._paces.pop(msg_id, None)
            if len(self._gone) < self._config.max_held:
                self._gone.add(msg_id)
        elif claim.at <= self._horizon():
            self._timer.push(msg_id, self._not_before(msg_id, claim.at))

    def _not_before(self, msg_id: str, at: int) -> int:
        """`at`; or a little after now when our clock is ahead, each time a little more."""
        now = self._clock.now_ms()
        if at > now:
            self._paces.pop(msg_id, None)
            return at
        if len(self._paces) > self._config.max_held:
            self._paces.clear()
        pace_ms = self._paces[msg_id] = min(LONGEST_PACE_MS, 2 * self._paces.get(msg_id, 1))
        return now + pace_ms

    def _put_back(self, msg_ids: list[str]) -> None:
        """Those the store could not be asked about: due still, and tried when it may be asked."""
        now = self._clock.now_ms()
        for msg_id in msg_ids:
            self._timer.push(msg_id, now)

    def _make_call(self, msg_id: str, claim: Claim) -> None:
        settling = None
        try:
            settling = self._calls.run(msg_id, claim)
        except Exception:  # a defect in one call
            log.exception("call.failed", extra={"msg_id": msg_id})
        finally:
            self._calling -= 1
            if settling is None:  # a bug or the end of the process: its lease will run out
                self._busy.discard(msg_id)
            else:
                self._settler.put(settling)
            self._slot_freed()

    # ------------------------------------------------------------------ after the settler

    def _settled(self, batch: list[Settling], answers: list[bool]) -> None:
        self._busy.difference_update(settling.outcome.msg_id for settling in batch)
        now = self._clock.now_ms()
        retries: list[tuple[str, DueId]] = []
        for (outcome, topic), current in zip(batch, answers, strict=True):
            if not current or outcome.ended in (Ended.SUCCEEDED, Ended.DEAD):
                continue
            due_at = now + outcome.delay_ms
            self._hold([(outcome.msg_id, due_at)], now + self._config.horizon_ms)
            if outcome.ended is Ended.RETRY:
                retries.append((topic, DueId(due_at, outcome.msg_id)))
        self._nudge()
        self._slot_freed()
        if retries and self._hand_back and self._hand_backs < MAX_HAND_BACKS:
            self._hand_backs += 1
            self._greenlets.spawn(self._offer, self._hand_back, retries)

    def _offer(self, hand_back: HandBack, retries: list[tuple[str, DueId]]) -> None:
        try:
            for msg_id in hand_back(retries):
                self._timer.discard(msg_id)  # a busy one is not there; its claim will tell
        except SorakaError as exc:
            log.debug("hand_back.failed", extra={"reason": str(exc)})
        except Exception:
            log.exception("hand_back.failed")
        finally:
            self._hand_backs -= 1
