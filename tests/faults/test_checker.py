"""The checker sees what is broken, and nothing where nothing is: one rule at a time, then good
histories that are broken in each way."""

from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from tests.faults.checker import Checker, check
from tests.faults.history import (
    Answer,
    Call,
    Command,
    Event,
    Fault,
    Final,
    History,
    Submit,
    read,
)
from tests.faults.rules import CLOCK_MS, RULES, SETTLE_MS, SLACK_MS

MARGIN_MS = 1000
TTR_MS = 2000
T = 1_000_000.0
"""When everything begins."""


def submit(
    at: float = 0, *, delay: int = 1000, answer: Answer = Answer.OK, ec: int = 200, id: str = "m"
) -> Submit:
    return Submit(
        begin=T + at,
        end=T + at + 10,
        msg_id=id,
        answer=answer,
        ec=ec,
        delay_ms=delay,
        ttr_ms=TTR_MS,
        retry_ms=(500, 500),
        via="http",
    )


def call(
    at: float, *, attempt: int = 1, due: float | None = None, status: int = 200, took: float = 20
) -> Call:
    return Call(
        begin=T + at,
        end=T + at + took,
        msg_id="m",
        attempt=attempt,
        due_at=int(T + (at - 5 if due is None else due)),
        status=status,
    )


def command(
    at: float, *, add: int = 0, answer: Answer = Answer.OK, ec: int = 200, took: float = 10
) -> Command:
    return Command(
        begin=T + at,
        end=T + at + took,
        msg_id="m",
        answer=answer,
        ec=ec,
        command_id=f"c{at}",
        add_ms=add,
        via="http",
    )


def final(state: str, *, at: float = 60_000, reason: str = "", due: float = 0) -> Final:
    return Final(at=T + at, msg_id="m", state=state, due_at=int(T + due), reason=reason)


def fault(at: float, *, until: float | None = None, lost: int = 0, repeats: bool = True) -> Fault:
    end = T + (at if until is None else until)
    return Fault(
        number=1,
        name="f",
        begin=T + at,
        end=end,
        strikes_until=end,
        may_repeat=repeats or lost > 0,
        lost_ms=lost,
    )


REFUSED, UNKNOWN = Answer.REFUSED, Answer.UNKNOWN


def too_late(at: float, *, add: int = 0) -> Command:
    return command(at, add=add, answer=REFUSED, ec=409)


DONE = final("succeeded")
FAR = 30_000
BROKEN: dict[str, tuple[str, list[Event]]] = {
    "a good submit refused": (
        "good_requests_are_not_refused",
        [submit(answer=REFUSED, ec=401)],
    ),
    "a cancel of an accepted message not found": (
        "good_requests_are_not_refused",
        [submit(), command(50, answer=REFUSED, ec=405), call(1010), DONE],
    ),
    "a command refused as invalid": (
        "good_requests_are_not_refused",
        [submit(), command(50, add=5, answer=REFUSED, ec=401), call(1010), DONE],
    ),
    "too late long before the call": (
        "too_late_is_true",
        [submit(delay=FAR), too_late(50), call(FAR + 10), DONE],
    ),
    "too late and never called": (
        "too_late_is_true",
        [submit(delay=FAR), too_late(50), final("pending", at=10_000, due=FAR)],
    ),
    "too late, a fault elsewhere": (
        "too_late_is_true",
        [fault(20_000), submit(delay=FAR), too_late(50), call(FAR + 10), DONE],
    ),
    "called, never submitted": ("nothing_unknown_is_called", [call(1010)]),
    "called, though refused": (
        "nothing_unknown_is_called",
        [submit(answer=REFUSED, ec=407), call(1010)],
    ),
    "early by the submit": ("nothing_is_called_early", [submit(), call(990, due=980), DONE]),
    "early by its own header": ("nothing_is_called_early", [submit(), call(1010, due=1020), DONE]),
    "a header before the due time": (
        "nothing_is_called_early",
        [submit(), call(1500, due=900), DONE],
    ),
    "early by a confirmed added time": (
        "nothing_is_called_early",
        [submit(), command(100, add=500), call(1490, due=1480), DONE],
    ),
    "early by the second of two added times": (
        "nothing_is_called_early",
        [
            submit(),
            command(100, add=500),
            command(200, add=500),
            call(1700, due=1600),
            DONE,
        ],
    ),
    "early though the store lost its tail": (
        "nothing_is_called_early",
        [fault(900, lost=2000), submit(), command(100, add=500), call(1100, due=1010), DONE],
    ),
    "a retry before its delay": (
        "retries_keep_their_delay",
        [submit(), call(1010, status=500), call(1400, attempt=2), DONE],
    ),
    "a retry before its added time": (
        "retries_keep_their_delay",
        [
            submit(),
            call(1010, status=500),
            command(1100, add=1000),
            call(1700, attempt=2),
            DONE,
        ],
    ),
    "an added time counted twice": (
        "added_times_count_once",
        [submit(), command(100, add=500), call(2020, due=2010), DONE],
    ),
    "the second of two added times counted twice": (
        "added_times_count_once",
        [submit(), command(100, add=500), command(300, add=70), call(1655, due=1645), DONE],
    ),
    "two calls at once": (
        "no_two_calls_at_once",
        [submit(), call(1010, took=500), call(1300, attempt=2), DONE],
    ),
    "two calls at once in a fault that excuses repeats alone": (
        "no_two_calls_at_once",
        [fault(1200), submit(), call(1010, took=500), call(1300, attempt=2), DONE],
    ),
    "two calls at once that are not neighbours": (
        "no_two_calls_at_once",
        [
            submit(),
            call(1010, took=1500),
            call(1050, attempt=2, took=10),
            call(1900, attempt=3),
            DONE,
        ],
    ),
    "again before the lease ended": (
        "no_two_calls_at_once",
        [fault(1040), submit(), call(1010), call(1500, attempt=2), DONE],
    ),
    "one attempt twice": (
        "an_attempt_is_called_once",
        [fault(1040), submit(), call(1010), call(4100), DONE],
    ),
    "again without a fault": (
        "what_succeeded_is_not_called_again",
        [submit(), call(1010), call(4100, attempt=2), DONE],
    ),
    "again after a fault that excuses nothing": (
        "what_succeeded_is_not_called_again",
        [fault(1000, until=5000, repeats=False), submit(), call(1010), call(4100, attempt=2), DONE],
    ),
    "again long before a fault": (
        "what_succeeded_is_not_called_again",
        [
            fault(1031 + SETTLE_MS, until=9000),
            submit(),
            call(1010),
            call(4100, attempt=2),
            DONE,
        ],
    ),
    "again long after the fault had struck": (
        "what_succeeded_is_not_called_again",
        [fault(0, until=1000), submit(), call(1010), call(4100, attempt=2), DONE],
    ),
    "again, the second time without a fault": (
        "what_succeeded_is_not_called_again",
        [
            fault(1040),
            submit(),
            call(1010),
            call(4100, attempt=2),
            call(8100, attempt=3),
            DONE,
        ],
    ),
    "called after a confirmed cancel": (
        "what_is_cancelled_is_not_called",
        [submit(), command(500), call(1010), final("cancelled")],
    ),
    "called after a confirmed cancel, whatever broke": (
        "what_is_cancelled_is_not_called",
        [fault(0, until=5000, lost=2000), submit(), command(500), call(1010), final("cancelled")],
    ),
    "called and then confirmed": (
        "what_is_cancelled_is_not_called",
        [submit(), call(1010), command(1500), final("cancelled")],
    ),
    "confirmed in the middle of a call": (
        "what_is_cancelled_is_not_called",
        [submit(), call(1010, took=500, status=500), command(1100), final("cancelled")],
    ),
    "never called": ("what_is_accepted_ends", [submit()]),
    "not known to the API": ("what_is_accepted_ends", [submit(), final("absent")]),
    "pending for ever": ("what_is_accepted_ends", [submit(), final("pending", due=1000)]),
    "pending for ever, though unknown whether accepted": (
        "what_is_accepted_ends",
        [submit(answer=UNKNOWN, ec=0), final("pending", due=1000)],
    ),
    "cancelled, yet pending": (
        "what_is_accepted_ends",
        [submit(delay=90_000), command(50), final("pending", due=90_000)],
    ),
    "succeeded without a call": ("the_state_is_what_happened", [submit(), DONE]),
    "succeeded on a failure": (
        "the_state_is_what_happened",
        [submit(), call(1010, status=500), DONE],
    ),
    "cancelled by nobody": ("the_state_is_what_happened", [submit(), final("cancelled")]),
    "cancelled too late, and no store has forgotten it": (
        "the_state_is_what_happened",
        [
            fault(4000, lost=1000),
            submit(),
            call(1010, status=500),
            too_late(1015),
            final("cancelled"),
        ],
    ),
    "cancelled too late, never called, and no store has forgotten it": (
        "too_late_is_true",
        [fault(4000, lost=1000), submit(), too_late(1015), final("cancelled")],
    ),
    "cancelled after it succeeded": (
        "the_state_is_what_happened",
        [submit(), call(1010), command(1200, answer=UNKNOWN, ec=0), final("cancelled")],
    ),
    "succeeded though cancelled": ("the_state_is_what_happened", [submit(), command(50), DONE]),
    "dead too soon": (
        "the_state_is_what_happened",
        [submit(), call(1010, status=500), final("dead", reason="500")],
    ),
    "dead without a reason": (
        "the_state_is_what_happened",
        [
            submit(),
            call(1010, status=500),
            call(1600, attempt=2, status=500),
            call(2200, attempt=3, status=500),
            final("dead"),
        ],
    ),
    "dead after a success": (
        "the_state_is_what_happened",
        [submit(), call(1010), call(4010, attempt=3, status=500), final("dead", reason="500")],
    ),
}
FINE: dict[str, list[Event]] = {
    "too late, and that claim was never called": [
        submit(),
        too_late(985),
        call(1000 + TTR_MS + MARGIN_MS + 900, due=1000, attempt=2),
        DONE,
    ],
    "called at its time": [submit(), call(1010), DONE],
    "called to the clock's tolerance": [submit(), call(1000 - CLOCK_MS, due=999), DONE],
    "sent again, the first one counts": [
        submit(0, answer=UNKNOWN, ec=0),
        submit(400),
        call(1005),
        DONE,
    ],
    "unknown and never heard of": [submit(answer=UNKNOWN, ec=503), final("absent")],
    "unknown and called": [submit(answer=UNKNOWN, ec=0), call(1010), DONE],
    "cancelled": [submit(), command(500), final("cancelled")],
    "cancelled between two attempts": [
        submit(),
        call(1010, status=500),
        command(1200),
        final("cancelled"),
    ],
    "cancelled when the lease of a lost call had ended": [
        fault(1025),
        submit(),
        call(1010),
        command(5000),
        final("cancelled"),
    ],
    "an unknown cancel that held": [
        submit(),
        command(500, answer=UNKNOWN, ec=503),
        final("cancelled"),
    ],
    "an unknown cancel that did not": [
        submit(),
        command(500, answer=UNKNOWN, ec=503),
        call(1010),
        DONE,
    ],
    "too late, being called": [submit(), too_late(1000), call(1012), DONE],
    "too late, it came a little later": [
        submit(),
        too_late(1000),
        call(1400, due=1005),
        DONE,
    ],
    "too late, its worker died then": [
        fault(1020),
        submit(),
        too_late(1005),
        call(4600, due=1005, attempt=2),
        DONE,
    ],
    "too late, cancelled before": [
        submit(),
        command(100, answer=UNKNOWN, ec=0),
        too_late(300),
        final("cancelled"),
    ],
    "postponed": [submit(), command(100, add=500), call(1510, due=1505), DONE],
    "postponed, and not known whether": [
        submit(),
        command(100, add=500, answer=UNKNOWN, ec=0),
        call(1010),
        DONE,
    ],
    "postponed, and not known whether, it did": [
        submit(),
        command(100, add=500, answer=UNKNOWN, ec=0),
        call(1510),
        DONE,
    ],
    "postponed by a sending that was not confirmed": [
        submit(),
        replace(command(100, add=500, answer=UNKNOWN, ec=503), command_id="c"),
        call(1510, status=500),
        replace(command(1700, add=500), command_id="c"),
        call(2040, attempt=2),
        DONE,
    ],
    "postponed too late": [submit(), too_late(1015, add=500), call(1010, took=30), DONE],
    "postponed too late for a claim that was given back, and cancelled": [
        submit(),
        too_late(1015, add=500),
        command(1200),
        final("cancelled"),
    ],
    "put off by its host": [submit(), command(100, add=500), call(1800), DONE],
    "cancelled too late, and read again by a store that has forgotten the call": [
        fault(1100, lost=1000),
        submit(),
        call(1010),
        too_late(1015),
        final("cancelled"),
    ],
    "cancelled too late, and read again by a store that has forgotten the claim": [
        fault(1100, lost=1000),
        submit(),
        too_late(1015),
        too_late(1900, add=500),
        final("cancelled"),
    ],
    "cancelled too late, and read again by a store that has forgotten that it said so": [
        fault(1100, lost=80),
        submit(),
        call(1010, status=500),
        too_late(1030),
        final("cancelled"),
    ],
    "retried": [submit(), call(1010, status=500), call(1540, attempt=2), DONE],
    "dead": [
        submit(),
        call(1010, status=500),
        call(1600, attempt=2, status=500),
        call(2200, attempt=3, status=500),
        final("dead", reason="HTTP 500"),
    ],
    "again, its worker died in mid-call, and we saw the call a moment later": [
        fault(1000),
        submit(),
        replace(call(1010), lag_ms=20.0),
        call(4000, attempt=2),
        DONE,
    ],
    "again, its worker died in mid-call": [
        fault(1020),
        submit(),
        call(1010),
        call(4100, attempt=2),
        DONE,
    ],
    "again, its worker died before it settled": [
        fault(1030 + SETTLE_MS),
        submit(),
        call(1010),
        call(4100, attempt=2),
        DONE,
    ],
    "again, the store lost it": [
        fault(2000, lost=1000),
        submit(),
        call(1010),
        call(2100),
        DONE,
    ],
    "two at once, the store lost the lease": [
        fault(1100, lost=1000),
        submit(),
        call(1010, took=500),
        call(1200),
        DONE,
    ],
    "our own process was far behind": [
        submit(),
        replace(call(1500), lag_ms=TTR_MS / 2),
        call(1900, attempt=2),
        DONE,
    ],
    "our own process was slow to answer": [
        submit(),
        call(1010, took=TTR_MS - SLACK_MS + 1),
        call(3600, attempt=2),
        DONE,
    ],
    "far away": [submit(delay=90_000), final("pending", due=90_000)],
}


@pytest.mark.parametrize("name", BROKEN)
def test_what_is_broken_is_seen(name: str) -> None:
    rule, events = BROKEN[name]
    seen = {violation.rule for violation in check(events, MARGIN_MS).violations}
    assert rule in seen


@pytest.mark.parametrize("name", FINE)
def test_what_is_fine_passes(name: str) -> None:
    assert check(FINE[name], MARGIN_MS).violations == []


def test_every_rule_is_seen_broken() -> None:
    assert {rule for rule, _ in BROKEN.values()} == {rule.__name__ for rule in RULES}


@pytest.mark.parametrize("name", FINE)
def test_the_order_in_which_events_are_heard_does_not_matter(name: str) -> None:
    assert check(reversed(FINE[name]), MARGIN_MS).violations == []


def test_duplicates_are_counted() -> None:
    assert check(FINE["again, the store lost it"], MARGIN_MS).counts["duplicates"] == 1
    assert check(FINE["retried"], MARGIN_MS).counts["duplicates"] == 0


def test_a_call_after_a_message_was_closed_is_seen() -> None:
    checker = Checker(MARGIN_MS)
    for event in FINE["called at its time"]:
        checker.add(event)
    checker.close("m")
    assert checker.report.violations == []
    checker.add(call(90_000, attempt=2))
    assert [v.rule for v in checker.report.violations] == ["closed"]


def test_a_history_is_read_as_it_was_written(tmp_path: Path) -> None:
    events = [event for each in FINE.values() for event in each]
    events.append(Fault(number=9, name="still on", begin=T))
    heard: list[Event] = []
    history = History(tmp_path / "history.jsonl", heard.append)
    history.note(seed=1)
    for event in events:
        history.add(event)
    history.close()
    assert list(read(history.path)) == heard == events


# --------------------------------------------------------------------------- good ones broken


@st.composite
def good_lives(draw: st.DrawFn) -> list[Event]:
    """One message as soraka may treat it when nothing breaks."""
    delay = draw(st.integers(0, 5000))
    sent = draw(st.integers(0, 1000))
    events: list[Event] = [submit(sent, delay=delay)]
    # made by receive somewhere between the two moments of the client
    due: float = sent + draw(st.integers(0, 10)) + delay
    for _ in range(draw(st.integers(0, 2))):
        at = draw(st.integers(sent + 11, sent + 4000))
        if at + 10 < due and all(c.end < T + at for c in _commands_of(events)):
            add = draw(st.integers(1, 2000))
            events.append(command(at, add=add))
            due += add
    if draw(st.booleans()):
        cancel = command(due - 20 if due - 20 > sent + 10 else sent + 11)
        if cancel.end < T + due:
            return [*events, cancel, final("cancelled")]
    return [*events, *_calls(draw, due)]


def _calls(draw: st.DrawFn, due: float) -> list[Event]:
    failures = draw(st.integers(0, 3))
    events: list[Event] = []
    for attempt in range(1, 4):
        at = due + draw(st.integers(1, 300))
        took = draw(st.integers(1, 1500))
        fails = attempt <= failures
        events.append(call(at, attempt=attempt, due=due, took=took, status=500 if fails else 200))
        if not fails:
            return [*events, DONE]
        due = at + took + 500 + draw(st.integers(1, 50))
    return [*events, final("dead", reason="500")]


def _commands_of(events: Sequence[Event]) -> list[Command]:
    return [event for event in events if isinstance(event, Command)]


def _calls_of(events: Sequence[Event]) -> list[Call]:
    return [event for event in events if isinstance(event, Call)]


def _without_its_last_call(events: list[Event]) -> list[Event]:
    calls = _calls_of(events)
    assume(calls)
    return [event for event in events if event is not calls[-1]]


def _called_too_soon(events: list[Event]) -> list[Event]:
    calls = _calls_of(events)
    assume(calls)
    first = calls[0]
    asked = next(e for e in events if isinstance(e, Submit)).begin
    added = sum(e.add_ms for e in events if isinstance(e, Command) and e.end < first.begin)
    due = asked + added + next(e for e in events if isinstance(e, Submit)).delay_ms
    early = due - CLOCK_MS - 1
    assume(all(not isinstance(e, Command) or e.end < early for e in events))
    return [
        replace(e, begin=early, end=early + 1, due_at=int(early)) if e is first else e
        for e in events
    ]


def _called_once_more(events: list[Event]) -> list[Event]:
    calls = [c for c in _calls_of(events) if c.succeeded]
    assume(calls and calls[-1].end - calls[-1].begin <= TTR_MS - SLACK_MS)
    last = calls[-1]
    return [*events, replace(last, begin=last.end + 9000, end=last.end + 9001, attempt=9)]


def _cancelled_and_called(events: list[Event]) -> list[Event]:
    cancels = [e for e in events if isinstance(e, Command) and not e.add_ms]
    assume(cancels)
    late = cancels[-1].end - T + 5000
    return [*events, call(late)]


def _two_at_once(events: list[Event]) -> list[Event]:
    calls = [c for c in _calls_of(events) if c.end - c.begin > 10]
    assume(calls)
    other = replace(calls[0], begin=calls[0].begin + 5, attempt=9)
    return [*events, other]


def _never_ended(events: list[Event]) -> list[Event]:
    return [replace(e, state="pending") if isinstance(e, Final) else e for e in events]


def _forgotten(events: list[Event]) -> list[Event]:
    return [replace(e, state="absent") if isinstance(e, Final) else e for e in events]


def _another_state(events: list[Event]) -> list[Event]:
    others = {"succeeded": "cancelled", "cancelled": "succeeded", "dead": "succeeded"}
    return [replace(e, state=others[e.state]) if isinstance(e, Final) else e for e in events]


def _nobody_submitted_it(events: list[Event]) -> list[Event]:
    assume(_calls_of(events))
    return [e for e in events if not isinstance(e, Submit)]


BREAKS: tuple[Callable[[list[Event]], list[Event]], ...] = (
    _without_its_last_call,
    _called_too_soon,
    _called_once_more,
    _cancelled_and_called,
    _two_at_once,
    _never_ended,
    _forgotten,
    _another_state,
    _nobody_submitted_it,
)


@given(good_lives())
def test_good_histories_pass(events: list[Event]) -> None:
    assert check(events, MARGIN_MS).violations == []


@pytest.mark.parametrize("break_it", BREAKS)
@given(events=good_lives())
@settings(max_examples=60)
def test_a_good_history_that_is_broken_fails(
    break_it: Callable[[list[Event]], list[Event]], events: list[Event]
) -> None:
    assert check(break_it(events), MARGIN_MS).violations
