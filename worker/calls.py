"""From a claim to an outcome: one claimed message, its admission, its call."""

import logging
import time
from collections.abc import Callable

from soraka import wire
from soraka.errors import DecodeError, InvalidParams
from soraka.message import Message
from soraka.ports import Claim, Clock, Ended, Outcome
from worker.admission import Admission, Refusal, Why
from worker.judge import Answer, Failure, Ruling, judge
from worker.request import Request, build
from worker.settle import Settling
from worker.standing import Standing

log = logging.getLogger(__name__)

Call = Callable[[Request, float], Answer | Failure]
"""With its deadline on the monotonic clock."""
OnFire = Callable[[str, int], None]
"""Topic, lateness in ms: a request is about to leave."""
OnDone = Callable[[str, Ended, int, str], None]
"""Topic, how it ended, duration of the call in ms (0 when none was made), reason."""
OnRelease = Callable[[Why], None]

GATE_SHARE = 0.8
"""Of what a lease leaves beyond the call, the part that may be spent at the gate."""
SURE_S = 0.02
"""In so short a time no store has lost a claim, come back and confirmed a cancel."""
MAX_RELEASES = 10
"""One that was given back so often is called though the circuit of its host be open: retries and
dead letters must come to those for a host that is gone, too."""


class Calls:
    """Turns claims into outcomes, a greenlet each."""

    def __init__(
        self,
        *,
        clock: Clock,
        call: Call,
        admission: Admission,
        standing: Standing,
        on_fire: OnFire,
        on_done: OnDone,
        on_release: OnRelease,
    ) -> None:
        self._clock = clock
        self._call = call
        self._admission = admission
        self._standing = standing
        self._on_fire = on_fire
        self._on_done = on_done
        self._on_release = on_release

    def run(self, msg_id: str, claim: Claim, asked: float) -> Settling:
        """Makes the call if host, topic and lease allow it. Raises nothing of the outside world.

        `asked` is when the claim was asked for, on the monotonic clock."""
        try:
            message = wire.decode_message(claim.body)
        except DecodeError as exc:
            return self._done(msg_id, "", claim, Ruling(Ended.DEAD, reason=str(exc)), 0)
        return self._with(message, claim, asked)

    def _with(self, message: Message, claim: Claim, asked: float) -> Settling:
        started = time.monotonic()
        try:
            request = build(message, attempt=claim.tries, due_at=claim.due_at)
        except InvalidParams as exc:
            return self._ended(message, claim, Failure(str(exc), final=True), started)
        ticket = self._admission.enter(
            request.origin,
            message.topic,
            ttr_ms=request.ttr_ms,
            wait_s=self._spare_ms(request, claim) * GATE_SHARE / 1000,
            forced=claim.attempt - claim.tries >= MAX_RELEASES,
        )
        if isinstance(ticket, Refusal):
            return self._released(message, claim, ticket)
        started = time.monotonic()
        result: Answer | Failure | None = None
        try:
            lost = self._lost(message, request, claim, asked)
            result = None if lost else self._within_lease(message, request, claim)
        finally:
            self._admission.leave(ticket, message.topic, result)
        if lost:
            return self._released(message, claim, lost)
        if result is None:
            short = Refusal(Why.LEASE, 0, "too little of the lease was left")
            return self._released(message, claim, short)
        return self._ended(message, claim, result, started)

    def _lost(
        self, message: Message, request: Request, claim: Claim, asked: float
    ) -> Refusal | None:
        """Why the claim may stand no more; asked only of one that is not quite new."""
        wait_s = self._spare_ms(request, claim) / 1000
        if time.monotonic() - asked <= SURE_S or wait_s < 0:
            return None
        if self._standing.stands(message.msg_id, claim, wait_s):
            return None
        return Refusal(Why.CLAIM, 0, "the store does not say that the claim stands")

    def _within_lease(
        self, message: Message, request: Request, claim: Claim
    ) -> Answer | Failure | None:
        """None when the call might outlast the lease: someone else could be calling by then."""
        # before the look at the lease: should this process be stopped between the two, or any
        # time after, then the call's deadline lies within the lease all the same
        deadline = time.monotonic() + request.ttr_ms / 1000
        if self._spare_ms(request, claim) < 0:
            return None
        self._on_fire(message.topic, self._clock.now_ms() - claim.due_at)
        return self._call(request, deadline)

    def _spare_ms(self, request: Request, claim: Claim) -> int:
        return claim.at - self._clock.now_ms() - request.ttr_ms

    def _released(self, message: Message, claim: Claim, refusal: Refusal) -> Settling:
        self._on_release(refusal.why)
        ruling = Ruling(Ended.RELEASED, refusal.delay_ms, refusal.reason)
        return self._done(message.msg_id, message.topic, claim, ruling, 0)

    def _ended(
        self, message: Message, claim: Claim, result: Answer | Failure, started: float
    ) -> Settling:
        duration_ms = int((time.monotonic() - started) * 1000)
        ruling = judge(
            result,
            attempt=claim.tries,
            retry_ms=message.retry_ms,
            now_ms=self._clock.now_ms(),
        )
        return self._done(message.msg_id, message.topic, claim, ruling, duration_ms)

    def _done(
        self, msg_id: str, topic: str, claim: Claim, ruling: Ruling, duration_ms: int
    ) -> Settling:
        self._on_done(topic, ruling.ended, duration_ms, ruling.reason)
        return Settling(Outcome(msg_id, claim.attempt, *ruling), topic)
