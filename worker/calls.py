"""From a claim to an outcome: one claimed message, its place at the gate, its call."""

import logging
import time
from collections.abc import Callable

from soraka import wire
from soraka.errors import DecodeError, InvalidParams
from soraka.message import Message
from soraka.ports import Claim, Clock, Ended, Outcome
from worker.gates import Gates
from worker.judge import Answer, Failure, Ruling, judge
from worker.request import Request, build
from worker.settle import Settling

log = logging.getLogger(__name__)

Call = Callable[[Request], Answer | Failure]
OnFire = Callable[[str, int], None]
"""Topic, lateness in ms: a request is about to leave."""
OnDone = Callable[[str, Ended, int, str], None]
"""Topic, how it ended, duration of the call in ms (0 when none was made), reason."""

GATE_SHARE = 0.9
"""Of what a lease leaves beyond the call, the part that may be spent at the gate."""


class Calls:
    """Turns claims into outcomes, a greenlet each. `parked` is told before one waits at a gate."""

    def __init__(
        self,
        *,
        clock: Clock,
        call: Call,
        max_per_host: int,
        parked: Callable[[], None],
        on_fire: OnFire,
        on_done: OnDone,
    ) -> None:
        self._clock = clock
        self._call = call
        self._gates = Gates(max_per_host)
        self._parked = parked
        self._on_fire = on_fire
        self._on_done = on_done
        self._closed = False

    @property
    def waiting(self) -> int:
        """Of those that run, how many wait at a gate."""
        return self._gates.waiting

    def run(self, msg_id: str, claim: Claim) -> Settling:
        """Makes the call if host and lease allow it. Raises nothing of the outside world."""
        try:
            message = wire.decode_message(claim.body)
        except DecodeError as exc:
            return self._done(msg_id, "", claim, Ruling(Ended.DEAD, reason=str(exc)), 0)
        return self._with(message, claim)

    def close(self) -> None:
        """Lets no further call begin; what is under way goes on."""
        self._closed = True
        self._gates.close()

    def _with(self, message: Message, claim: Claim) -> Settling:
        started = time.monotonic()
        try:
            request = build(message, attempt=claim.tries, due_at=claim.due_at)
        except InvalidParams as exc:
            return self._ended(message, claim, Failure(str(exc), final=True), started)
        if not self._enter(request, claim):
            delay_ms = 0 if self._closed else self._gates.come_back_ms(request.origin)
            ruling = Ruling(Ended.RELEASED, delay_ms, "too many calls to this host")
            return self._done(message.msg_id, message.topic, claim, ruling, 0)
        started = time.monotonic()
        try:
            result = self._within_lease(message, request, claim)
        finally:
            self._gates.leave(request.origin, (time.monotonic() - started) * 1000)
        if result is None:
            ruling = Ruling(Ended.RELEASED, 0, "too little of the lease was left")
            return self._done(message.msg_id, message.topic, claim, ruling, 0)
        return self._ended(message, claim, result, started)

    def _enter(self, request: Request, claim: Claim) -> bool:
        if self._gates.is_full(request.origin):
            self._parked()
        return self._gates.enter(request.origin, self._spare_ms(request, claim) * GATE_SHARE / 1000)

    def _within_lease(
        self, message: Message, request: Request, claim: Claim
    ) -> Answer | Failure | None:
        """None when the call might outlast the lease: someone else could be calling by then."""
        if self._spare_ms(request, claim) < 0:
            return None
        self._on_fire(message.topic, self._clock.now_ms() - claim.due_at)
        return self._call(request)

    def _spare_ms(self, request: Request, claim: Claim) -> int:
        return claim.at - self._clock.now_ms() - request.ttr_ms

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
