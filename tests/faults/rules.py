"""What must hold for each message, whatever broke. Pure: a message's life and the faults go in,
what was broken comes out.

A rule is excused by a fault only where the fault says so, and only for a message that was in
flight when it struck. The rules know the tolerances below, in ms, and no others.
"""

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field

from tests.faults.history import Answer, Call, Command, Fault, Final, Submit

CLOCK_MS = 4
"""As exactly as receive knows the store's clock: both are cut to whole ms, and how long an answer
took on a busy machine is not known better."""
SETTLE_MS = 1000
"""After its call a message may be in flight for so long still, on a busy machine."""
SLACK_MS = 400
"""A call may be seen so much later than it was sent: ours is a busy process, too."""
NARROW_MS = 50
"""A due time known less exactly than that tells nothing of how often a time was added to it."""
TOO_LATE, NOT_FOUND = 409, 405


@dataclass(slots=True)
class Life:
    """All that is known of one message."""

    msg_id: str
    submits: list[Submit] = field(default_factory=list)
    commands: list[Command] = field(default_factory=list)
    calls: list[Call] = field(default_factory=list)
    final: Final | None = None

    @property
    def accepted(self) -> bool:
        return any(submit.answer is Answer.OK for submit in self.submits)

    @property
    def cancels(self) -> list[Command]:
        """Those that hold or may hold."""
        return [c for c in self.commands if not c.add_ms and c.answer is not Answer.REFUSED]

    @property
    def cancelled(self) -> bool:
        return any(cancel.answer is Answer.OK for cancel in self.cancels)

    @property
    def attempts(self) -> int:
        return 1 + len(self.submits[0].retry_ms)

    @property
    def ttr_ms(self) -> int:
        return self.submits[0].ttr_ms

    @property
    def least_due(self) -> float:
        """As submitted, by the client's clock before the answer; without added times."""
        return min(submit.begin + submit.delay_ms for submit in self.submits)

    def was_in_time(self, call: Call) -> bool:
        """The worker surely had the answer before its deadline."""
        return call.end - call.begin <= self.ttr_ms - SLACK_MS - 2 * call.lag_ms

    def succeeded(self, call: Call) -> bool:
        return call.succeeded and self.was_in_time(call)

    def ran_until(self, call: Call) -> float:
        return min(call.end, self.least_lease_end(call))

    def least_lease_end(self, call: Call) -> float:
        """The lease lasts for the whole call, if it ends at its deadline."""
        return call.begin + self.ttr_ms - SLACK_MS - call.lag_ms

    def added(self, *, since: float, until: float) -> int:
        """Added times begun and confirmed between the two moments. One command may be sent
        several times and counts once; it may hold from its first sending on."""
        first: dict[str, float] = {}
        confirmed: dict[str, int] = {}
        for c in self.commands:
            first[c.command_id] = min(c.begin, first.get(c.command_id, c.begin))
            if c.answer is Answer.OK and c.end <= until:
                confirmed[c.command_id] = c.add_ms
        return sum(add_ms for command, add_ms in confirmed.items() if first[command] >= since)


@dataclass(frozen=True, slots=True)
class Case:
    """A life, the faults around it, and what the deployment was set to."""

    life: Life
    faults: Sequence[Fault]
    lease_margin_ms: int

    def may_repeat(self, call: Call) -> bool:
        """Its outcome may have been lost."""
        return any(f.may_repeat and _in_flight(call, f) for f in self.faults)

    def was_forgotten(self, call: Call) -> bool:
        """The store may have lost that it was claimed."""
        return any(f.lost_ms and _in_flight(call, f) for f in self.faults)

    def was_unsaid(self, command: Command) -> bool:
        """The store may have lost that it answered, and with it why."""
        return any(
            f.lost_ms and f.begin - f.lost_ms <= command.end and command.begin <= f.strikes_until
            for f in self.faults
        )

    @property
    def held_after_all(self) -> bool:
        """A cancel that came too late is in the log, and may hold when that is read again by a
        store that has lost its answer, and the claim with it."""
        unsaid = any(not c.add_ms and self.was_unsaid(c) for c in self.life.commands)
        return unsaid and _is(self.life.final, "cancelled")


def _is(final: Final | None, state: str) -> bool:
    return final is not None and final.state == state


def _in_flight(call: Call, fault: Fault) -> bool:
    sent = call.begin - call.lag_ms - CLOCK_MS
    return sent <= fault.strikes_until and fault.begin - fault.lost_ms <= call.end + SETTLE_MS


# --------------------------------------------------------------------------- answers


def good_requests_are_not_refused(case: Case) -> Iterator[str]:
    life = case.life
    for submit in life.submits:
        if submit.answer is Answer.REFUSED:
            yield f"a good submit was refused with {submit.ec}"
    known_since = min((s.end for s in life.submits if s.answer is Answer.OK), default=math.inf)
    for command in life.commands:
        if command.answer is not Answer.REFUSED or command.ec == TOO_LATE:
            continue
        if command.ec != NOT_FOUND or command.begin >= known_since:
            yield f"a good command was refused with {command.ec}"


def too_late_is_true(case: Case) -> Iterator[str]:
    life = case.life
    lease_ms = life.ttr_ms + case.lease_margin_ms if life.submits else 0
    for command in life.commands:
        if command.answer is not Answer.REFUSED or command.ec != TOO_LATE:
            continue
        called = any(call.begin <= command.end + lease_ms for call in life.calls)
        # a timer that gets stuck keeps what it has claimed: that attempt is never called
        uncalled = any(call.attempt > n for n, call in enumerate(life.calls, start=1))
        claim_lost = any(
            f.may_repeat and f.begin - lease_ms <= command.end and command.begin <= f.end + lease_ms
            for f in case.faults
        )
        # a claim may be given back, and the message cancelled before the next one
        ended_otherwise = life.cancels or case.held_after_all or _is(life.final, "dead")
        if not called and not uncalled and not ended_otherwise and not (claim_lost and life.calls):
            yield "'too late' was said of a message neither called, cancelled nor dead"


# --------------------------------------------------------------------------- calls


def nothing_unknown_is_called(case: Case) -> Iterator[str]:
    life = case.life
    if life.calls and not life.submits:
        yield "called, but never submitted"
    if life.calls and life.submits and all(s.answer is Answer.REFUSED for s in life.submits):
        yield "called, but refused"


def nothing_is_called_early(case: Case) -> Iterator[str]:
    life = case.life
    for call in life.calls:
        if call.begin < call.due_at - CLOCK_MS:
            yield f"called {call.due_at - call.begin:.1f} ms before its own Soraka-Due-At"
    if not life.calls or not life.submits:
        return
    first = life.calls[0]
    due = life.least_due + life.added(since=-math.inf, until=first.begin)
    if first.begin < due - CLOCK_MS:
        yield f"first called {due - first.begin:.1f} ms early"
    if first.due_at < due - CLOCK_MS:
        yield f"Soraka-Due-At is {due - first.due_at:.1f} ms early"


def retries_keep_their_delay(case: Case) -> Iterator[str]:
    life = case.life
    for call, later in _pairs(life):
        if call.succeeded or not life.was_in_time(call) or case.may_repeat(call):
            continue
        retry_ms = (*life.submits[0].retry_ms, 0)[min(call.attempt, life.attempts) - 1]
        due = call.end + retry_ms + life.added(since=call.end, until=later.begin)
        if later.begin < due - CLOCK_MS:
            yield f"attempt {later.attempt} came {due - later.begin:.1f} ms early"


def added_times_count_once(case: Case) -> Iterator[str]:
    """Where the due time is known from both sides: one sending, accepted, and the first call.

    A call put off because its host is busy gets a later due time, too. So only that is wrong
    which is off by just the time added.
    """
    life = case.life
    if len(life.submits) != 1 or not life.accepted or not life.calls:
        return
    (submit,), first = life.submits, life.calls[0]
    adds = {c.command_id: c.add_ms for c in life.commands if c.answer is not Answer.REFUSED}
    least = life.least_due + life.added(since=-math.inf, until=first.begin)
    latest = submit.end + submit.delay_ms + sum(adds.values())
    if submit.end - submit.begin > NARROW_MS:
        return
    for add_ms in set(adds.values()):
        due = first.due_at - add_ms
        if first.attempt == 1 and least - CLOCK_MS <= due <= latest + CLOCK_MS < first.due_at:
            yield f"Soraka-Due-At is {add_ms} ms too late, as if that was added twice"


def no_two_calls_at_once(case: Case) -> Iterator[str]:
    """Nor one more while the lease of an earlier call runs whose outcome was lost."""
    life = case.life
    for index, call in enumerate(life.calls):
        for later in life.calls[index + 1 :]:
            if later.begin < life.ran_until(call) and not case.was_forgotten(call):
                yield f"two calls at once, of attempts {call.attempt} and {later.attempt}"
    for call, later in _pairs(life):
        unsettled = life.succeeded(call) or case.may_repeat(call)
        lease_ends = life.least_lease_end(call)
        settled_by = call.end + min(life.submits[0].retry_ms, default=0)
        ends = lease_ends if call.succeeded else min(lease_ends, settled_by)
        if unsettled and later.begin < ends and not case.was_forgotten(call):
            yield f"called again {ends - later.begin:.0f} ms before the lease can have ended"


def an_attempt_is_called_once(case: Case) -> Iterator[str]:
    seen: dict[int, Call] = {}
    for call in case.life.calls:
        before = seen.setdefault(call.attempt, call)
        if before is not call and not case.was_forgotten(before):
            yield f"attempt {call.attempt} came twice"


def what_succeeded_is_not_called_again(case: Case) -> Iterator[str]:
    for call in case.life.calls[:-1]:
        if case.life.succeeded(call) and not case.may_repeat(call):
            yield f"called again after attempt {call.attempt} had succeeded; no fault excuses it"


# --------------------------------------------------------------------------- cancels


def what_is_cancelled_is_not_called(case: Case) -> Iterator[str]:
    life = case.life
    for cancel in life.cancels:
        if cancel.answer is not Answer.OK:
            continue
        for call in life.calls:
            if call.begin > cancel.end:
                yield f"called {call.begin - cancel.end:.1f} ms after its cancel was confirmed"
            elif life.succeeded(call) and not case.may_repeat(call):
                yield "its cancel was confirmed although a call had succeeded"
            elif (
                call.begin < cancel.begin
                and cancel.end < life.ran_until(call)
                and not case.was_forgotten(call)
            ):
                yield "its cancel was confirmed in the middle of a call"


# --------------------------------------------------------------------------- ends


def what_is_accepted_ends(case: Case) -> Iterator[str]:
    life, final = case.life, case.life.final
    if final is None:
        if life.accepted and not life.cancelled and not any(c.succeeded for c in life.calls):
            yield "accepted and never called"
        return
    if final.state == "absent" and life.accepted:
        yield "accepted, and the API does not know it"
    if final.state == "pending" and life.least_due <= final.at:
        yield f"still pending, {final.at - life.least_due:.0f} ms after it was due"
    if final.state == "pending" and life.cancelled:
        yield "cancelled, and still pending"


def the_state_is_what_happened(case: Case) -> Iterator[str]:
    life, final = case.life, case.life.final
    if final is None or final.state in ("pending", "absent"):
        return
    called = any(call.succeeded for call in life.calls)
    excused = any(life.succeeded(c) and case.may_repeat(c) for c in life.calls)
    surely = any(life.succeeded(c) for c in life.calls) and not excused
    if final.state == "succeeded":
        if not called:
            yield "succeeded, and no call was answered with success"
        if life.cancelled:
            yield "succeeded, though its cancel was confirmed"
    elif final.state == "cancelled":
        if not life.cancels and not case.held_after_all:
            yield "cancelled, but nobody cancelled it"
        if surely:
            yield "cancelled, though a call had succeeded"
    else:
        yield from _dead(life, final, surely=surely)


def _dead(life: Life, final: Final, *, surely: bool) -> Iterator[str]:
    if life.cancelled:
        yield "dead, though its cancel was confirmed"
    if surely:
        yield "dead, though a call had succeeded"
    if not final.reason:
        yield "dead without a reason"
    last = max((call.attempt for call in life.calls), default=0)
    if last < life.attempts:
        yield f"dead after attempt {last} of {life.attempts}"


def _pairs(life: Life) -> Iterator[tuple[Call, Call]]:
    return zip(life.calls, life.calls[1:], strict=False)


RULES: tuple[Callable[[Case], Iterator[str]], ...] = (
    good_requests_are_not_refused,
    too_late_is_true,
    nothing_unknown_is_called,
    nothing_is_called_early,
    retries_keep_their_delay,
    added_times_count_once,
    no_two_calls_at_once,
    an_attempt_is_called_once,
    what_succeeded_is_not_called_again,
    what_is_cancelled_is_not_called,
    what_is_accepted_ends,
    the_state_is_what_happened,
)
