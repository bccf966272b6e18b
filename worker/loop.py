"""The worker's loop: sleep until the next is due, claim, call, settle.

Greenlets share the state of `Loop`. The pager brings what falls due soon; the timer sleeps until
a little before the first of it is due and has it claimed, and with it what follows soon; a claim
asks for many at once, and the timer starts the call of each it gets when its time has come; the
settler writes what came of them. What is known in memory is a hint all the way: the claim alone
decides, and whatever gets lost here is paged again.

Nothing is early: a claim tells how long before its due time the store gave it, and for so long
after the answer has come the call waits, whatever our own clock says.
"""

import logging
import time
from collections.abc import Callable, Sequence

import gevent
from gevent.event import Event
from gevent.pool import Group

from soraka.config import WorkerConfig
from soraka.errors import StoreUnavailable
from soraka.ports import Claim, ClaimKind, Clock, DueId, Ended, FullStore
from soraka.process import Turns
from soraka.signing import Signer
from worker.admission import Admission
from worker.again import Paces, Unanswered
from worker.breaker import Breakers
from worker.calls import Call, Calls, OnDone, OnFire, OnRelease
from worker.crew import Crew
from worker.early import Early
from worker.gates import Gates
from worker.offers import HandBack, Offers
from worker.pager import Pager
from worker.parking import Parking
from worker.rates import Rates
from worker.settle import BackOff, Settler, Settling
from worker.standing import Standing
from worker.timer import Timer

log = logging.getLogger(__name__)

BATCH = 200
CLAIM_SPACING_S = 0.005
"""Between the starts of two claims: under load they come in batches, the first goes at once."""
LEAD_MS = 8
"""A claim is made so long before a due time: it takes as long on a busy machine."""
AHEAD_MS = 25
"""With it all is claimed that falls due so soon. In that time a cancel comes too late."""
LONGEST_NAP_S = 1.0
"""The timer turns at least so often, to show that it lives."""
STARVED_NAP_S = 0.1
"""Without a place; the end of a call wakes it earlier."""
AFTER_FAILURE_S = 0.1


def _ignore(*_: object) -> None:
    pass


class Loop:
    """Makes the callbacks of `owner` (ip:port). `clock` counts as the store does, which has so many
    `shards`. What is asked about topics must not block: `topic_limit` and `topic_rate` (calls at
    once and begun per second, here; 0 for no limit), `is_paused` and `signer`."""

    def __init__(
        self,
        *,
        owner: str,
        store: FullStore,
        clock: Clock,
        call: Call,
        config: WorkerConfig,
        shards: int = 1,
        hand_back: HandBack | None = None,
        topic_limit: Callable[[str], int] = lambda _topic: 0,
        topic_rate: Callable[[str], float] = lambda _topic: 0.0,
        is_paused: Callable[[str], bool] = lambda _topic: False,
        signer: Callable[[str], Signer | None] = lambda _topic: None,
        on_fire: OnFire = _ignore,
        on_done: OnDone = _ignore,
        on_release: OnRelease = _ignore,
    ) -> None:
        self._store = store
        self._clock = clock
        self._config = config
        self._greenlets = Group()
        self._crew = Crew(self._greenlets)
        self._timer = Timer(config.max_held)
        self._unanswered = Unanswered(config.max_held, shards)
        self._paces = Paces(config.max_held)
        self._early = Early()
        self._busy: set[str] = set()  # being claimed, called or settled
        self._claiming = 0
        self._calling = 0
        self._admission = Admission(
            Gates(config.max_callbacks, config.max_per_host, topic_limit, self._slot_freed),
            Breakers(config.breaker_failures, config.breaker_open_ms),
            Rates(topic_rate),
        )
        self._standing = Standing(store, self._greenlets)
        self._calls = Calls(
            worker=owner,
            clock=clock,
            call=call,
            admission=self._admission,
            standing=self._standing,
            is_paused=is_paused,
            signer=signer,
            on_fire=on_fire,
            on_done=on_done,
            on_release=on_release,
        )
        self._turns = Turns("pager", "timer", "settler")
        self._settler = Settler(store, self._settled, lambda: self._turns.turn("settler"), shards)
        self._parking = Parking(store, owner, config.max_held, shards)
        self._pager = Pager(
            owner=owner,
            store=store,
            config=config,
            horizon=self._horizon,
            hold=self._hold,
            held=lambda: len(self._timer),
            turned=lambda: self._turns.turn("pager"),
        )
        self._claim_back_off = BackOff("claim")
        self._wake = Event()
        self._starved = False
        self._asleep_until = 0
        self._next_claim = 0.0
        self._refusing = False
        self._draining = False
        # a busy one is not in the timer; its claim will tell
        self._offers = Offers(hand_back, self._timer.discard, self._greenlets)

    # ------------------------------------------------------------------ from outside

    def start(self) -> None:
        """Begins, in the background. Once only."""
        settler = self._settler
        for body in (
            self._pager.run,
            self._keep_time,
            settler.run,
            settler.run_apart,
            self._parking.run,
        ):
            self._greenlets.spawn(body)

    def deliver(self, messages: Sequence[tuple[str, int]]) -> int:
        """Takes hints: (msg_id, due_at). Returns how many were new; later ones are paged."""
        return 0 if self._refusing else self._hold(messages, self._horizon())

    def refuse(self) -> None:
        """Takes no hints any more; what is due and its own is paged and called still."""
        self._refusing = True

    def drain(self, limit_s: float) -> bool:
        """Claims no more, finishes what is under way; False when the limit came first."""
        self._refusing = self._draining = self._pager.stopped = True
        self._wake.set()
        deadline = time.monotonic() + limit_s
        # nobody else can call these on time
        while (self._early or self._claiming) and time.monotonic() < deadline:
            gevent.sleep(0.005)
        self._admission.close()
        while self._is_at_work() and time.monotonic() < deadline:
            gevent.sleep(0.01)
        return not self._busy

    def stop(self) -> None:
        """Ends at once; calls under way are cut off. Safe to repeat."""
        self._refusing = self._draining = self._pager.stopped = True
        self._greenlets.kill()

    def _is_at_work(self) -> bool:
        return bool(self._busy) or self._pager.reading

    @property
    def draining(self) -> bool:
        """Whether it takes nothing new."""
        return self._refusing

    @property
    def held(self) -> int:
        """Messages in memory that wait for their time."""
        return len(self._timer) + len(self._unanswered)

    @property
    def in_flight(self) -> int:
        """Messages being claimed, called or settled."""
        return len(self._busy)

    @property
    def open_circuits(self) -> int:
        """Callback hosts that are left alone for a while."""
        return self._admission.open_circuits

    def turn_ages_ms(self) -> dict[str, int]:
        """Per greenlet, how long ago it last turned."""
        return self._turns.ages_ms()

    def last_turn_ms(self) -> int:
        """How long ago the slowest of them turned."""
        return max(self.turn_ages_ms().values())

    def blind_ms(self) -> int:
        """For how long it has not seen what falls due, though it should have."""
        return self._pager.overdue_ms()

    # ------------------------------------------------------------------ what is known

    def _hold(self, messages: Sequence[tuple[str, int]], until: int) -> int:
        """Keeps what falls due by `until`, and wakes the timer for it; how many were new."""
        new = 0
        for msg_id, due_at in messages:
            if due_at <= until and not self._is_elsewhere(msg_id):
                new += self._timer.push(msg_id, due_at)
        self._nudge()
        return new

    def _is_elsewhere(self, msg_id: str) -> bool:
        return msg_id in self._busy or msg_id in self._unanswered or msg_id in self._parking

    def _horizon(self) -> int:
        return self._clock.now_ms() + self._config.horizon_ms

    # ------------------------------------------------------------------ timer

    def _keep_time(self) -> None:
        while True:
            self._turns.turn("timer")
            try:
                nap_s = self._turn()
            except Exception:  # the edge of a process: one bad turn must not end the loop
                log.exception("timer.failed")
                nap_s = AFTER_FAILURE_S
            self._pager.look()
            self._wake.clear()
            self._wake.wait(nap_s)

    def _turn(self) -> float:
        """Calls and claims what is to be called and claimed now; how long to sleep, in seconds."""
        now = time.monotonic()
        for msg_id, claim in self._early.take(now):
            self._crew.run(self._make_call, msg_id, claim)
        wait_s = self._early.wait_s(now)
        nap_s = self._claim_due()
        return nap_s if wait_s is None else min(nap_s, wait_s)

    def _claim_due(self) -> float:
        """Has claimed what is due soon and fits; how long to sleep then, in seconds."""
        wait_s = self._next_claim - time.monotonic()
        if wait_s > 0:
            return wait_s
        free = self._free_slots()
        self._starved = free <= 0
        if self._starved:
            return self._claim_back_off.left_s() or STARVED_NAP_S
        now = self._clock.now_ms()
        size = min(free, BATCH)
        if msg_ids := self._unanswered.take(now, size):
            return self._spawn_claim(self._claim_again, msg_ids)
        next_due = self._timer.next_due_ms()
        if next_due is not None and next_due <= now + LEAD_MS:
            msg_ids = self._timer.pop_due(now + AHEAD_MS, size)
            return self._spawn_claim(self._claim, msg_ids)
        return self._nap_s()

    def _spawn_claim(self, claim: Callable[[list[str]], object], msg_ids: list[str]) -> float:
        self._busy.update(msg_ids)
        self._claiming += len(msg_ids)
        self._crew.run(claim, msg_ids)
        self._next_claim = time.monotonic() + CLAIM_SPACING_S
        return CLAIM_SPACING_S

    def _nap_s(self) -> float:
        now = self._clock.now_ms()
        longest = now + int(LONGEST_NAP_S * 1000)
        self._asleep_until = min(self._next_due() or longest, longest)
        return max(1, self._asleep_until - now) / 1000

    def _next_due(self) -> int | None:
        """When to claim again."""
        due, unanswered = self._timer.next_due_ms(), self._unanswered.next_ms()
        if due is None:
            return unanswered
        return due - LEAD_MS if unanswered is None else min(due - LEAD_MS, unanswered)

    def _free_slots(self) -> int:
        """How many may be claimed: bounded are calls under way, and outcomes not yet settled.

        With few places left a batch may be claimed all the same. Which host a message is for is
        seen only then: behind many for hosts that hang are some for others, and places for them.
        """
        if self._draining or self._claim_back_off.left_s():
            return 0
        most = self._config.max_callbacks
        places = most - (self._calling - self._admission.waiting)
        free = min(
            max(places, min(most, BATCH)),
            # those that wait at a gate, which are as many at most, or for the settler are on top
            3 * most + BATCH - len(self._busy) + self._claiming,
        )
        return self._admission.bounded(free) - self._claiming

    def _nudge(self) -> None:
        """Wakes the timer when something falls due before it would wake."""
        next_due = self._next_due()
        if next_due is not None and next_due < self._asleep_until:
            self._wake.set()

    def _slot_freed(self) -> None:
        if self._starved:
            self._wake.set()

    # ------------------------------------------------------------------ claim and call

    def _claim(self, msg_ids: list[str]) -> None:
        unknown = self._claimed(msg_ids)
        now = self._clock.now_ms()
        for msg_id in unknown:
            self._unanswered.put(msg_id, now)
        if unknown:
            self._nudge()

    def _claim_again(self, msg_ids: list[str]) -> None:
        """For those whose shard did not answer."""
        unknown = self._claimed(msg_ids)
        self._unanswered.asked(msg_ids, unknown, self._clock.now_ms())
        self._nudge()

    def _claimed(self, msg_ids: list[str]) -> list[str]:
        """Claims, and acts on the answers; returns those to which there was none."""
        handed_over = 0
        asked = time.monotonic()
        try:
            claims = self._store.claim(msg_ids, AHEAD_MS)
            answered = time.monotonic()
            self._claim_back_off.worked()
            for msg_id, claim in zip(msg_ids, claims, strict=True):
                self._act_on(msg_id, claim, asked, answered)
                handed_over += 1
            if self._early:
                self._wake.set()
            return [i for i, c in zip(msg_ids, claims, strict=True) if c.kind is ClaimKind.UNKNOWN]
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
        return []

    def _act_on(self, msg_id: str, claim: Claim, asked: float, answered: float) -> None:
        if claim.kind is ClaimKind.FIRE:
            self._paces.forget(msg_id)
            self._calling += 1
            self._standing.claimed(claim, asked)
            if claim.early_ms:
                self._early.put(msg_id, claim, answered + claim.early_ms / 1000)
            else:
                self._crew.run(self._make_call, msg_id, claim)
            return
        self._busy.discard(msg_id)
        if claim.kind is ClaimKind.GONE:
            self._paces.forget(msg_id)
            self._pager.gone(msg_id)
        elif claim.kind is not ClaimKind.UNKNOWN and claim.at <= self._horizon():
            now = self._clock.now_ms()
            self._timer.push(msg_id, self._paces.not_before(msg_id, claim.at, now))

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
        to_park: list[Settling] = []
        for settling, current in zip(batch, answers, strict=True):
            outcome, topic, park = settling
            if not current or outcome.ended in (Ended.SUCCEEDED, Ended.DEAD):
                continue
            if park:
                to_park.append(settling)
                continue
            due_at = now + outcome.delay_ms
            self._hold([(outcome.msg_id, due_at)], now + self._config.horizon_ms)
            if outcome.ended is Ended.RETRY:
                retries.append((topic, DueId(due_at, outcome.msg_id)))
        self._slot_freed()
        self._offers.put(retries)
        if to_park:
            self._parking.put(to_park)
