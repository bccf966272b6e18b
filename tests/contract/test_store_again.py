"""FIRE_NOW and REDRIVE, on SQLite and in each mode of Redis."""

import pytest

from soraka.message import State
from soraka.ports import Claim, ClaimKind, DueId, Ended, FullStore, Move, Totals, Verdict
from tests.contract.store_kit import (
    LEASE,
    OTHER,
    OWNER,
    Open,
    TurnedClock,
    add_time,
    cancel,
    end,
    fire,
    fire_now,
    message,
    put,
    redrive,
    uuid7,
    wait_for,
)

APPLIED, TOO_LATE, EARLY = Verdict.APPLIED, Verdict.TOO_LATE, Verdict.EARLY
FAR = 1 << 52


def dead(store: FullStore, clock: TurnedClock, reason: str = "HTTP 500") -> str:
    m = message(clock.now)
    put(store, m)
    assert end(store, m.msg_id, fire(store, m.msg_id).lease, Ended.DEAD, reason=reason)
    return m.msg_id


def test_fire_now_makes_a_message_due(store: FullStore, clock: TurnedClock) -> None:
    m = message(clock.now + 5000)
    put(store, m)
    clock.turn(7)
    assert store.command([fire_now(m.msg_id)]) == [APPLIED]
    assert store.due(OWNER, FAR, 9) == [DueId(clock.now, m.msg_id)]
    claim = fire(store, m.msg_id)
    assert (claim.due_at, claim.tries) == (clock.now, 1)


def test_what_is_due_already_stays_due_since_then(store: FullStore, clock: TurnedClock) -> None:
    m = message(clock.now - 5)
    put(store, m)
    assert store.command([fire_now(m.msg_id)]) == [APPLIED]
    assert store.due(OWNER, FAR, 9) == [DueId(clock.now - 5, m.msg_id)]


def test_fire_now_once_per_command_id(store: FullStore, clock: TurnedClock) -> None:
    m = message(clock.now + 5000)
    put(store, m)
    command = fire_now(m.msg_id)
    assert store.command([command, add_time(m.msg_id, 100), command]) == [APPLIED] * 3
    put(store, command)
    assert store.claim([m.msg_id]) == [Claim(ClaimKind.LATER, clock.now + 100)]


def test_fire_now_while_a_lease_runs_is_too_late(store: FullStore, clock: TurnedClock) -> None:
    m = message(clock.now)
    put(store, m)
    claim = fire(store, m.msg_id)
    command = fire_now(m.msg_id)
    assert store.command([command]) == [TOO_LATE]
    end(store, m.msg_id, claim.lease, Ended.RETRY, delay_ms=100)
    put(store, command)
    assert store.command([command]) == [TOO_LATE]
    assert store.command([fire_now(m.msg_id)]) == [APPLIED]
    assert fire(store, m.msg_id).tries == 2


def test_fire_now_gives_up_a_lease_that_ran_out(store: FullStore, clock: TurnedClock) -> None:
    m = message(clock.now)
    put(store, m)
    claim = fire(store, m.msg_id)
    clock.turn(LEASE)
    assert store.command([fire_now(m.msg_id)]) == [APPLIED]
    assert not end(store, m.msg_id, claim.lease, Ended.SUCCEEDED)
    assert fire(store, m.msg_id).attempt > claim.attempt


def test_an_early_fire_now_holds(store: FullStore, clock: TurnedClock) -> None:
    m = message(clock.now + 5000)
    assert store.command([fire_now(m.msg_id)]) == [EARLY]
    clock.turn(3)
    put(store, m)
    assert store.due(OWNER, FAR, 9) == [DueId(clock.now, m.msg_id)]


def test_a_redriven_message_is_due_with_all_its_retries(
    store: FullStore, clock: TurnedClock
) -> None:
    m = message(clock.now)
    put(store, m)
    for ended in (Ended.RELEASED, Ended.RETRY, Ended.DEAD):
        end(store, m.msg_id, fire(store, m.msg_id).lease, ended, reason="HTTP 500")
    assert store.owners() == set()
    clock.turn(50)
    assert store.command([redrive(m.msg_id)]) == [APPLIED]
    (stored,) = store.get([m.msg_id])
    assert stored is not None
    assert (stored.state, stored.due_at, stored.attempt) == (State.PENDING, clock.now, 0)
    assert (stored.finished_at, stored.reason, stored.owner) == (0, "HTTP 500", OWNER)
    assert store.owners() == {OWNER}
    assert store.due(OWNER, FAR, 9) == [DueId(clock.now, m.msg_id)]
    claim = fire(store, m.msg_id)
    assert (claim.attempt, claim.tries, claim.releases) == (4, 1, 0)
    assert not end(store, m.msg_id, claim.lease._replace(attempt=3), Ended.SUCCEEDED)
    assert end(store, m.msg_id, claim.lease, Ended.SUCCEEDED)


def test_only_the_dead_are_redriven(store: FullStore, clock: TurnedClock) -> None:
    waits, done, gone = (message(clock.now) for _ in range(3))
    put(store, waits, done, gone)
    end(store, done.msg_id, fire(store, done.msg_id).lease, Ended.SUCCEEDED)
    store.command([cancel(gone.msg_id)])
    verdicts = store.command([redrive(m.msg_id) for m in (waits, done, gone)])
    assert verdicts == [TOO_LATE] * 3
    assert store.totals().pending == {OWNER: 1}
    assert store.command([redrive(uuid7(clock.now)), redrive("bogus")]) == [Verdict.NOT_FOUND] * 2


def test_a_redrive_happens_once_per_command_id(store: FullStore, clock: TurnedClock) -> None:
    msg_id = dead(store, clock)
    command = redrive(msg_id)
    assert store.command([command, command, redrive(msg_id)]) == [APPLIED, APPLIED, TOO_LATE]
    end(store, msg_id, fire(store, msg_id).lease, Ended.DEAD)
    put(store, command)
    assert store.command([command]) == [APPLIED]
    (stored,) = store.get([msg_id])
    assert stored is not None
    assert stored.state is State.DEAD
    assert store.command([redrive(msg_id)]) == [APPLIED]


@pytest.mark.parametrize("make", [cancel, fire_now, lambda i: add_time(i, 5000)])
def test_a_command_refused_when_dead_is_refused_after_a_redrive(
    store: FullStore, clock: TurnedClock, make: object
) -> None:
    assert callable(make)
    msg_id = dead(store, clock)
    command = make(msg_id)
    assert store.command([command, redrive(msg_id)]) == [TOO_LATE, APPLIED]
    put(store, command)
    assert store.command([command]) == [TOO_LATE]
    assert fire(store, msg_id).tries == 1


def test_a_redrive_refused_while_pending_is_refused_when_dead(
    store: FullStore, clock: TurnedClock
) -> None:
    m = message(clock.now)
    command = redrive(m.msg_id)
    put(store, m)
    assert store.command([command]) == [TOO_LATE]
    end(store, m.msg_id, fire(store, m.msg_id).lease, Ended.DEAD)
    put(store, command)
    assert store.command([command]) == [TOO_LATE]
    assert store.totals().redriven == 0


def test_a_redrive_comes_by_the_log(store: FullStore, clock: TurnedClock) -> None:
    msg_id = dead(store, clock)
    put(store, redrive(msg_id))
    assert fire(store, msg_id).tries == 1


def test_a_redriven_message_may_be_cancelled_and_moved(
    store: FullStore, clock: TurnedClock
) -> None:
    first, second = dead(store, clock), dead(store, clock)
    store.command([redrive(first), redrive(second), cancel(first)])
    assert store.totals().pending == {OWNER: 1}
    (move,) = store.due(OWNER, FAR, 9)
    assert store.assign([Move(move.msg_id, OWNER, OTHER)]) == [clock.now]
    assert store.owners() == {OTHER}


def test_counters_do_not_go_back(store: FullStore, clock: TurnedClock) -> None:
    m = message(clock.now)
    put(store, m)
    for ended in (Ended.RETRY, Ended.RETRY, Ended.DEAD):
        end(store, m.msg_id, fire(store, m.msg_id).lease, ended)
    assert store.totals() == Totals({}, 1, 0, 0, 1, 3)
    store.command([redrive(m.msg_id)])
    assert store.totals() == Totals({OWNER: 1}, 1, 0, 0, 1, 3, 1)
    end(store, m.msg_id, fire(store, m.msg_id).lease, Ended.DEAD)
    assert store.totals() == Totals({}, 1, 0, 0, 2, 4, 1)


def test_what_was_redriven_does_not_expire(open_store: Open) -> None:
    store = open_store(retention_ms=300, dead_retention_ms=300)
    m, other = message(store.now_ms()), message(store.now_ms())
    put(store, m, other)
    for one in (m, other):
        end(store, one.msg_id, fire(store, one.msg_id).lease, Ended.DEAD)
    assert store.command([cancel(m.msg_id), redrive(m.msg_id)]) == [TOO_LATE, APPLIED]
    wait_for(lambda: store.get([other.msg_id]) == [None])
    assert fire(store, m.msg_id).tries == 1


def test_a_refused_command_leaves_the_retention(open_store: Open) -> None:
    store = open_store(dead_retention_ms=300)
    m = message(store.now_ms())
    put(store, m)
    end(store, m.msg_id, fire(store, m.msg_id).lease, Ended.DEAD)
    assert store.command([cancel(m.msg_id)]) == [TOO_LATE]
    wait_for(lambda: store.get([m.msg_id]) == [None])
