"""From a claim to an outcome: one claimed message, its admission, its call."""

import time
from collections.abc import Callable
from typing import NamedTuple

from soraka.errors import InvalidParams
from soraka.message import Message
from soraka.ports import Claim, Clock, Ended, Outcome
from soraka.signing import Signer
from worker.admission import Admission, Refusal, Why
from worker.judge import Answer, Failure, judge
from worker.request import Request, build, signed
from worker.settle import Settling
from worker.standing import Standing

Call = Callable[[Request, float], Answer | Failure]
"""With its deadline on the monotonic clock."""
OnFire = Callable[[str, int], None]
"""Topic, lateness in ms: a request is about to leave."""


class Done(NamedTuple):
    """An attempt that ended. Of the call, when one was made: when it left by the store's clock,
    how long it took and its HTTP status. `late_ms` counts from the due time to its start, `flow_ms`
    to its end."""

    topic: str
    ended: Ended
    reason: str
    started_at: int = 0
    duration_ms: int = 0
    status: int = 0
    late_ms: int = 0
    flow_ms: int = 0


OnDone = Callable[[Done], None]
OnRelease = Callable[[Why], None]

GATE_SHARE = 0.8
"""Of what a lease leaves beyond the call, the part that may be spent at the gate."""
_PAUSED = Refusal(Why.PAUSED, 0, "the topic is paused")


class Calls:
    """Turns claims into outcomes, a greenlet each. `worker` is where the calls come from.
    `is_paused` and `signer` are asked of a topic before each; they must not block."""

    def __init__(
        self,
        *,
        worker: str,
        clock: Clock,
        call: Call,
        admission: Admission,
        standing: Standing,
        is_paused: Callable[[str], bool],
        signer: Callable[[str], Signer | None],
        on_fire: OnFire,
        on_done: OnDone,
        on_release: OnRelease,
    ) -> None:
        self._worker = worker
        self._clock = clock
        self._call = call
        self._admission = admission
        self._standing = standing
        self._is_paused = is_paused
        self._signer = signer
        self._on_fire = on_fire
        self._on_done = on_done
        self._on_release = on_release

    def run(self, msg_id: str, claim: Claim) -> Settling:
        """Makes the call if host, topic and lease allow it. Raises nothing of the outside world."""
        if not isinstance(claim.message, Message):
            reason = f"what the store has of {msg_id} cannot be read: {claim.message}"
            return self._done(msg_id, claim, Done("", Ended.DEAD, reason), 0)
        return self._with(claim.message, claim)

    def _with(self, message: Message, claim: Claim) -> Settling:
        if self._is_paused(message.topic):
            return self._released(message, claim, _PAUSED)
        try:
            request = build(message, attempt=claim.tries, due_at=claim.due_at)
        except InvalidParams as exc:
            now = self._clock.now_ms()
            return self._ended(message, claim, Failure(str(exc), final=True), now, 0)
        ticket = self._admission.enter(
            request.origin,
            message.topic,
            ttr_ms=request.ttr_ms,
            wait_s=self._spare_ms(request, claim) * GATE_SHARE / 1000,
            releases=claim.releases,
        )
        if isinstance(ticket, Refusal):
            return self._released(message, claim, ticket)
        result: Answer | Failure | Refusal | None = None
        try:
            result = self._lost(message, request, claim)
            began, started_at = time.monotonic(), self._clock.now_ms()
            result = result or self._within_lease(message, request, claim)
        finally:
            made = None if isinstance(result, Refusal) else result
            self._admission.leave(ticket, message.topic, made)
        if isinstance(result, Refusal):
            return self._released(message, claim, result)
        duration_ms = int((time.monotonic() - began) * 1000)
        return self._ended(message, claim, result, started_at, duration_ms)

    def _lost(self, message: Message, request: Request, claim: Claim) -> Refusal | None:
        """Why the claim may stand no more."""
        wait_s = self._spare_ms(request, claim) / 1000
        if wait_s < 0:
            return None
        if self._standing.stands(message.msg_id, claim, wait_s):
            return None
        return Refusal(Why.CLAIM, 0, "the store does not say that the claim stands")

    def _within_lease(
        self, message: Message, request: Request, claim: Claim
    ) -> Answer | Failure | Refusal:
        """A refusal when the call might outlast the lease, since someone else could be calling by
        then, or when the topic was paused while it waited."""
        # after the wait: those who are called refuse signatures of some minutes ago
        if signer := self._signer(message.topic):
            request = signed(request, signer, message.msg_id, self._clock.now_ms())
        # before the look at the lease: should this process be stopped between the two, or any
        # time after, then the call's deadline lies within the lease all the same
        deadline = time.monotonic() + request.ttr_ms / 1000
        if self._spare_ms(request, claim) < 0:
            return Refusal(Why.LEASE, 0, "too little of the lease was left")
        if self._is_paused(message.topic):
            return _PAUSED
        self._on_fire(message.topic, self._clock.now_ms() - claim.due_at)
        return self._call(request, deadline)

    def _spare_ms(self, request: Request, claim: Claim) -> int:
        return claim.at - self._clock.now_ms() - request.ttr_ms

    def _released(self, message: Message, claim: Claim, refusal: Refusal) -> Settling:
        self._on_release(refusal.why)
        done = Done(message.topic, Ended.RELEASED, refusal.reason)
        settling = self._done(message.msg_id, claim, done, refusal.delay_ms)
        return settling._replace(park=True) if refusal.why is Why.PAUSED else settling

    def _ended(
        self,
        message: Message,
        claim: Claim,
        result: Answer | Failure,
        started_at: int,
        duration_ms: int,
    ) -> Settling:
        now = self._clock.now_ms()
        ruling = judge(result, attempt=claim.tries, retry_ms=message.retry_ms, now_ms=now)
        done = Done(
            message.topic,
            ruling.ended,
            ruling.reason,
            started_at,
            duration_ms,
            result.status if isinstance(result, Answer) else 0,
            late_ms=max(0, started_at - claim.due_at),
            flow_ms=max(0, now - claim.due_at),
        )
        return self._done(message.msg_id, claim, done, ruling.delay_ms)

    def _done(self, msg_id: str, claim: Claim, done: Done, delay_ms: int) -> Settling:
        self._on_done(done)
        outcome = Outcome(
            msg_id,
            claim.lease,
            done.ended,
            delay_ms,
            done.reason,
            done.started_at,
            done.duration_ms,
            self._worker,
            done.status,
        )
        return Settling(outcome, done.topic)
