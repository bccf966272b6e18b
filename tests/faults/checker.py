"""From a history to what was broken in it, and to figures. Pure: events in, a report out.

A message may be closed as soon as it has ended; its life is judged and dropped then, so a run of
any length needs memory only for what is under way, and the bare ids of the last `REMEMBERED`.
"""

import math
from array import array
from collections import Counter
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass, field

from tests.faults import rules
from tests.faults.history import Answer, Call, Command, Event, Fault, Submit
from tests.faults.rules import Case, Life

REMEMBERED = 300_000
KEPT_VIOLATIONS = 200
FAULT_MEMORY_MS = 600_000
"""Faults that ended so long before the newest are dropped: no open life reaches back so far."""


@dataclass(frozen=True, slots=True)
class Violation:
    rule: str
    msg_id: str
    what: str

    def __str__(self) -> str:
        return f"{self.msg_id}: {self.what} [{self.rule}]"


@dataclass(slots=True)
class Report:
    """`counts`: operations by kind and answer, messages by state, calls, duplicates (a call after
    one that had succeeded; excused by a fault, or a violation too). Lateness in ms, of all calls
    but duplicates, and of those that fell due during a fault."""

    violations: list[Violation] = field(default_factory=list)
    counts: Counter[str] = field(default_factory=Counter)
    lateness: "array[float]" = field(default_factory=lambda: array("d"))
    lateness_in_fault: "array[float]" = field(default_factory=lambda: array("d"))

    @property
    def operations(self) -> int:
        return self.counts["submit"] + self.counts["command"]


def percentiles(values: Sequence[float]) -> tuple[float, float, float]:
    """The median, the 99th percentile and the largest; zeros of nothing."""
    if not values:
        return 0.0, 0.0, 0.0
    ranked = sorted(values)
    return ranked[len(ranked) // 2], ranked[int(len(ranked) * 0.99)], ranked[-1]


class Checker:
    """Hears events in any order; `lease_margin_ms` is what the store was set to."""

    def __init__(self, lease_margin_ms: int) -> None:
        self._lease_margin_ms = lease_margin_ms
        self._lives: dict[str, Life] = {}
        self._faults: dict[int, Fault] = {}
        self._closed: dict[str, None] = {}
        self.report = Report()

    def add(self, event: Event) -> None:
        if isinstance(event, Fault):
            self._add_fault(event)
            return
        self.report.counts[event.kind] += 1
        if event.msg_id in self._closed:
            self._after_the_end(event)
            return
        life = self._lives.setdefault(event.msg_id, Life(event.msg_id))
        if isinstance(event, Submit):
            life.submits.append(event)
        elif isinstance(event, Command):
            life.commands.append(event)
        elif isinstance(event, Call):
            life.calls.append(event)
        else:
            life.final = event
        if isinstance(event, Submit | Command):
            self.report.counts[f"{event.kind} {event.answer}"] += 1

    def lives(self) -> Collection[Life]:
        """Those not yet closed."""
        return self._lives.values()

    def close(self, msg_id: str) -> None:
        """Judges a message and forgets it: nothing more may happen to it."""
        life = self._lives.pop(msg_id)
        life.calls.sort(key=lambda call: call.begin)
        self._judge(life)
        self._count(life)
        self._closed[msg_id] = None
        if len(self._closed) > REMEMBERED:
            del self._closed[next(iter(self._closed))]

    def finish(self) -> Report:
        """Closes all; the report."""
        for msg_id in list(self._lives):
            self.close(msg_id)
        return self.report

    def _add_fault(self, fault: Fault) -> None:
        self._faults[fault.number] = fault
        self.report.counts["faults"] = len(self._faults)
        for number, old in list(self._faults.items()):
            if old.end < fault.begin - FAULT_MEMORY_MS:
                del self._faults[number]

    def _after_the_end(self, event: Event) -> None:
        if isinstance(event, Call):
            self._violated("closed", event.msg_id, "called long after it had ended")

    def _judge(self, life: Life) -> None:
        case = Case(life, tuple(self._faults.values()), self._lease_margin_ms)
        judged = rules.RULES if life.submits else (rules.nothing_unknown_is_called,)
        for rule in judged:
            for what in rule(case):
                self._violated(rule.__name__, life.msg_id, what)

    def _violated(self, rule: str, msg_id: str, what: str) -> None:
        self.report.counts["violations"] += 1
        if len(self.report.violations) < KEPT_VIOLATIONS:
            self.report.violations.append(Violation(rule, msg_id, what))

    def _count(self, life: Life) -> None:
        counts = self.report.counts
        if not life.submits:
            return
        counts["accepted"] += life.accepted
        counts["unknown whether accepted"] += not life.accepted
        counts[f"ended {life.final.state if life.final else 'unasked'}"] += 1
        succeeded = False
        for call in life.calls:
            counts["calls answered too slowly"] += not life.was_in_time(call)
            counts["duplicates"] += succeeded
            if not succeeded:
                self._note_lateness(life, call)
            succeeded = succeeded or life.succeeded(call)

    def _note_lateness(self, life: Life, call: Call) -> None:
        due: float = call.due_at
        if call is life.calls[0]:  # a call put off has a later due time in its header
            sent = max((s.begin for s in life.submits if s.answer is Answer.OK), default=math.inf)
            asked = sent + life.submits[0].delay_ms
            due = min(due, asked + life.added(since=-math.inf, until=call.begin))
        self.report.lateness.append(call.begin - due)
        if any(f.begin <= due <= f.end for f in self._faults.values()):
            self.report.lateness_in_fault.append(call.begin - due)


def check(events: Iterable[Event], lease_margin_ms: int) -> Report:
    """Of a whole history. All it needs to judge must be in it."""
    checker = Checker(lease_margin_ms)
    for event in events:
        checker.add(event)
    return checker.finish()


def has_ended(life: Life) -> bool:
    """As far as the answers and calls tell: nothing more should happen to it."""
    if life.cancelled or any(call.succeeded for call in life.calls):
        return True
    last = max((call.attempt for call in life.calls), default=0)
    return bool(life.submits) and last >= life.attempts
