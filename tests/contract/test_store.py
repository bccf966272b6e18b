"""What soraka/ports.py says of Store and StoreReader, on SQLite and in each mode of Redis."""

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import gevent
import pytest

from soraka.errors import Gap, StoreUnavailable
from soraka.limits import DAY_MS, MAX_DELAY_MS
from soraka.message import Callback, Command, State
from soraka.ports import (
    DOOR_MS,
    Claim,
    ClaimKind,
    DueId,
    Ended,
    FullStore,
    Lease,
    Move,
    Outcome,
    Query,
    Totals,
    Verdict,
)
from tests.contract.store_kit import (
    EARLY,
    HOUR,
    LEASE,
    OTHER,
    OWNER,
    Open,
    TurnedClock,
    add_time,
    cancel,
    end,
    entry,
    fire,
    fire_now,
    message,
    put,
    redis_prefix,
    spoil,
    sqlite_store,
    uuid7,
    wait_for,
)

LATER, BUSY, GONE, FIRE = ClaimKind.LATER, ClaimKind.BUSY, ClaimKind.GONE, ClaimKind.FIRE
APPLIED, TOO_LATE = Verdict.APPLIED, Verdict.TOO_LATE
WAITS, NOT_FOUND = Verdict.EARLY, Verdict.NOT_FOUND
FINISHED = [Ended.SUCCEEDED, Ended.DEAD]


def kinds(claims: list[Claim]) -> list[ClaimKind]:
    return [claim.kind for claim in claims]


def state(store: FullStore, msg_id: str) -> State:
    (stored,) = store.get([msg_id])
    assert stored is not None
    return stored.state


def ids(store: FullStore, owner: str = OWNER) -> list[str]:
    return [due.msg_id for due in store.due(owner, 1 << 52, 100)]


# ------------------------------------------------------------------- positions and schedule


def test_positions_of_a_partition_never_read_are_minus_one(store: FullStore) -> None:
    assert set(store.positions("p")) == {-1}


def test_schedule_marks_every_shard_up_to_last(store: FullStore, clock: TurnedClock) -> None:
    every = store.positions("p")
    after = store.schedule("p", every, 7, [entry(3, message(clock.now))])
    assert after == store.positions("p") == tuple(7 for _ in every)
    assert set(store.positions("q")) == {-1}


def test_schedule_without_entries_marks_all_the_same(store: FullStore) -> None:
    after = store.schedule("p", store.positions("p"), 41, [])
    assert set(after) == set(store.positions("p")) == {41}


def test_a_scheduled_message_is_pending_as_it_was_given(
    store: FullStore, clock: TurnedClock
) -> None:
    m = message(clock.now + 50)
    put(store, m)
    (stored,) = store.get([m.msg_id])
    assert stored is not None
    assert (stored.message, stored.state, stored.owner) == (m, State.PENDING, OWNER)
    assert (stored.due_at, stored.attempt, stored.lease_until) == (m.due_at, 0, 0)
    assert (stored.finished_at, stored.reason) == (0, "")


@pytest.mark.parametrize(
    "other",
    [
        {"msg_id": "of another kind", "topic": "ü" * 200},
        {"msg_id": "01890A5D-AC96-774B-BCCE-B302099A8057"},
        {"msg_id": ""},
        {"created_at": 5, "due_at": 3, "ttr_ms": DAY_MS},
        {"created_at": 0, "due_at": 0, "ttr_ms": 0},
        {"callback": Callback(method="GET", url="x" * 5000)},
        {"callback": Callback(method="POST", url="", params="ü" * 40_000)},
        {"retry_ms": ()},
        {"retry_ms": ((1 << 53) - 1,) * 32},
    ],
    ids=lambda other: ",".join(other),
)
def test_a_message_is_kept_as_it_is(
    store: FullStore, clock: TurnedClock, other: dict[str, Any]
) -> None:
    m = message(**{"due_at": clock.now, **other})
    put(store, m, owner="o" * 300)
    assert [stored.message for stored in store.get([m.msg_id]) if stored] == [m]
    assert fire(store, m.msg_id).message == m
    assert store.due("o" * 300, 1 << 52, 9)[0].msg_id == m.msg_id
    assert [s.message for s in store.search(Query([m.topic], list(State)), "", 9)[0]] == [m]


def test_what_cannot_be_read_is_given_to_who_claims_without_its_message(
    store: FullStore, clock: TurnedClock
) -> None:
    m = message(clock.now)
    put(store, m)
    spoil(store, m.msg_id)
    claim = fire(store, m.msg_id)
    assert isinstance(claim.message, str)
    assert store.settle([Outcome(m.msg_id, claim.lease, Ended.DEAD)]) == [True]


def test_a_batch_applied_twice_has_no_further_effect(store: FullStore, clock: TurnedClock) -> None:
    m = message(clock.now)
    before = store.positions("p")
    entries = [entry(0, m), entry(1, add_time(m.msg_id, 10))]
    first = store.schedule("p", before, 1, entries)
    totals = store.totals()
    assert store.schedule("p", before, 1, entries) == first
    assert store.totals() == totals
    assert store.due(OWNER, 1 << 52, 9) == [DueId(m.due_at + 10, m.msg_id)]


def test_what_a_shard_has_read_already_is_skipped(store: FullStore, clock: TurnedClock) -> None:
    start = store.positions("p")
    store.schedule("p", start, 5, [])
    old, new = message(clock.now), message(clock.now)
    after = store.schedule("p", start, 6, [entry(5, old), entry(6, new)])
    assert set(after) == {6}
    assert ids(store) == [new.msg_id]


def test_positions_never_go_back(store: FullStore, clock: TurnedClock) -> None:
    start = store.positions("p")
    store.schedule("p", start, 9, [])
    late = message(clock.now)
    assert set(store.schedule("p", start, 4, [entry(4, late)])) == {9}
    assert set(store.positions("p")) == {9}
    assert store.get([late.msg_id]) == [None]


def test_rewind_takes_positions_back_and_nothing_else(store: FullStore, clock: TurnedClock) -> None:
    kept, late = message(clock.now), message(clock.now)
    store.schedule("p", store.positions("p"), 9, [entry(5, kept)])
    store.rewind("p", 12)
    assert set(store.positions("p")) == {9}
    store.rewind("p", 4)
    assert set(store.positions("p")) == {4}
    store.schedule("p", store.positions("p"), 5, [entry(5, late)])
    assert all(store.get([kept.msg_id, late.msg_id]))
    store.rewind("p", -1)
    assert set(store.positions("p")) == {-1}


def test_a_shard_before_its_previous_is_a_gap_and_changes_nothing(
    store: FullStore, clock: TurnedClock
) -> None:
    store.schedule("p", store.positions("p"), 3, [])
    m = message(clock.now)
    with pytest.raises(Gap) as caught:
        store.schedule("p", tuple(8 for _ in store.positions("p")), 9, [entry(9, m)])
    assert caught.value.partition == "p"
    assert caught.value.positions == store.positions("p")
    assert set(store.positions("p")) == {3}
    assert store.get([m.msg_id]) == [None]
    assert store.owners() == set()


def test_only_the_shards_that_lost_their_tail_are_left_out(
    store: FullStore, clock: TurnedClock
) -> None:
    count = len(store.positions("p"))
    messages = [message(clock.now) for _ in range(30)]
    entries = [entry(i, m) for i, m in enumerate(messages)]
    lost = [5, *(-1 for _ in range(count - 1))]
    with pytest.raises(Gap) as caught:
        store.schedule("p", tuple(lost), 29, entries)
    assert caught.value.positions == (-1, *(29 for _ in range(count - 1)))
    there = [m.msg_id for m in messages if redis_prefix(m.msg_id, count) != "{0}:"]
    assert sorted(ids(store)) == sorted(there)
    store.schedule("p", caught.value.positions, 29, entries)
    assert sorted(ids(store)) == sorted(m.msg_id for m in messages)
    assert store.totals().scheduled == 30


def test_previous_must_name_every_shard(store: FullStore) -> None:
    with pytest.raises(ValueError, match=r"argument|values"):
        store.schedule("p", (*store.positions("p"), -1), 0, [])


def test_a_known_message_is_left_as_it_is(store: FullStore, clock: TurnedClock) -> None:
    m = message(clock.now + 10)
    put(store, m)
    again = message(clock.now + 999, msg_id=m.msg_id)
    put(store, again, owner=OTHER)
    (stored,) = store.get([m.msg_id])
    assert stored is not None
    assert (stored.owner, stored.due_at, stored.message) == (OWNER, m.due_at, m)
    assert store.owners() == {OWNER}
    assert store.totals().scheduled == 1


def test_a_message_known_and_claimed_is_not_due_anew(store: FullStore, clock: TurnedClock) -> None:
    m = message(clock.now)
    put(store, m)
    claim = fire(store, m.msg_id)
    put(store, m)
    assert store.due(OWNER, 1 << 52, 9) == [DueId(claim.at, m.msg_id)]
    end(store, m.msg_id, claim.lease, Ended.SUCCEEDED)
    put(store, m)
    assert state(store, m.msg_id) is State.SUCCEEDED
    assert ids(store) == []


def test_commands_of_the_log_are_applied_in_order(store: FullStore, clock: TurnedClock) -> None:
    moved, gone = message(clock.now), message(clock.now)
    put(store, moved, gone, add_time(moved.msg_id, 70), cancel(gone.msg_id))
    assert store.due(OWNER, 1 << 52, 9) == [DueId(moved.due_at + 70, moved.msg_id)]
    assert state(store, gone.msg_id) is State.CANCELLED


def test_a_logged_command_for_an_unknown_message_is_dropped(
    store: FullStore, clock: TurnedClock
) -> None:
    m = message(clock.now)
    put(store, cancel(m.msg_id))
    put(store, m)
    assert state(store, m.msg_id) is State.PENDING


def test_a_large_batch(store: FullStore, clock: TurnedClock) -> None:
    messages = [message(clock.now - i) for i in range(3000)]
    put(store, *messages)
    assert store.totals().pending == {OWNER: 3000}
    wanted = [m.msg_id for m in reversed(messages)]
    assert [d.msg_id for d in store.due(OWNER, clock.now + 1, 3000)] == wanted
    assert kinds(store.claim(wanted)) == [FIRE] * 3000


# ------------------------------------------------------------------- commands


def test_cancel_finishes_a_pending_message(store: FullStore, clock: TurnedClock) -> None:
    m = message(clock.now)
    put(store, m)
    assert store.command([cancel(m.msg_id)]) == [APPLIED]
    (stored,) = store.get([m.msg_id])
    assert stored is not None
    assert (stored.state, stored.finished_at) == (State.CANCELLED, clock.now)
    assert kinds(store.claim([m.msg_id])) == [GONE]
    assert ids(store) == []


def test_add_time_moves_the_due_time(store: FullStore, clock: TurnedClock) -> None:
    m = message(clock.now)
    put(store, m)
    assert store.command([add_time(m.msg_id, 40), add_time(m.msg_id, 2)]) == [APPLIED, APPLIED]
    assert store.claim([m.msg_id]) == [Claim(LATER, m.due_at + 42)]
    assert store.due(OWNER, 1 << 52, 9) == [DueId(m.due_at + 42, m.msg_id)]
    clock.turn(42)
    assert fire(store, m.msg_id).due_at == m.due_at + 42


def test_a_command_id_counts_once_wherever_it_comes_from(
    store: FullStore, clock: TurnedClock
) -> None:
    m = message(clock.now)
    put(store, m)
    late, kill = add_time(m.msg_id, 40), cancel(m.msg_id)
    assert store.command([late, late]) == [APPLIED, APPLIED]
    put(store, late)
    assert store.due(OWNER, 1 << 52, 9) == [DueId(m.due_at + 40, m.msg_id)]
    assert store.command([kill]) == [APPLIED]
    put(store, kill)
    assert store.command([late, kill]) == [APPLIED, APPLIED]
    assert store.totals().cancelled == 1


@pytest.mark.parametrize("make", [cancel, lambda i: add_time(i, 5)])
def test_too_late_while_a_lease_runs_and_that_is_remembered(
    store: FullStore, clock: TurnedClock, make: Callable[[str], Command]
) -> None:
    m = message(clock.now)
    put(store, m)
    claim = fire(store, m.msg_id)
    command = make(m.msg_id)
    assert store.command([command]) == [TOO_LATE]
    assert end(store, m.msg_id, claim.lease, Ended.RETRY, delay_ms=100)
    put(store, command)
    assert store.command([command]) == [TOO_LATE]
    assert state(store, m.msg_id) is State.PENDING
    assert store.due(OWNER, 1 << 52, 9) == [DueId(clock.now + 100, m.msg_id)]


def test_a_logged_command_is_too_late_while_a_lease_runs(
    store: FullStore, clock: TurnedClock
) -> None:
    m = message(clock.now)
    put(store, m)
    claim = fire(store, m.msg_id)
    command = cancel(m.msg_id)
    put(store, command)
    end(store, m.msg_id, claim.lease, Ended.RETRY)
    assert store.command([command]) == [TOO_LATE]
    assert state(store, m.msg_id) is State.PENDING


@pytest.mark.parametrize("ended", FINISHED)
def test_too_late_when_finished(store: FullStore, clock: TurnedClock, ended: Ended) -> None:
    m = message(clock.now)
    put(store, m)
    end(store, m.msg_id, fire(store, m.msg_id).lease, ended)
    assert store.command([cancel(m.msg_id), add_time(m.msg_id, 5)]) == [TOO_LATE, TOO_LATE]
    assert state(store, m.msg_id).value == ended.value


def test_a_second_cancel_is_too_late(store: FullStore, clock: TurnedClock) -> None:
    m = message(clock.now)
    put(store, m)
    assert store.command([cancel(m.msg_id), cancel(m.msg_id)]) == [APPLIED, TOO_LATE]


def test_cancel_after_the_lease_ran_out(store: FullStore, clock: TurnedClock) -> None:
    m = message(clock.now)
    put(store, m)
    claim = fire(store, m.msg_id)
    clock.turn(LEASE)
    assert store.command([cancel(m.msg_id)]) == [APPLIED]
    assert not end(store, m.msg_id, claim.lease, Ended.SUCCEEDED)
    assert state(store, m.msg_id) is State.CANCELLED


def test_time_added_after_the_lease_ran_out_is_not_swallowed(
    store: FullStore, clock: TurnedClock
) -> None:
    m = message(clock.now)
    put(store, m)
    claim = fire(store, m.msg_id)
    clock.turn(LEASE)
    assert store.command([add_time(m.msg_id, HOUR)]) == [APPLIED]
    assert store.due(OWNER, 1 << 52, 9) == [DueId(m.due_at + HOUR, m.msg_id)]
    for ended in Ended:
        assert not end(store, m.msg_id, claim.lease, ended)
    assert store.claim([m.msg_id]) == [Claim(LATER, m.due_at + HOUR)]
    clock.turn(HOUR)
    assert fire(store, m.msg_id).attempt > claim.attempt


def test_another_topic_is_not_found(store: FullStore, clock: TurnedClock) -> None:
    m = message(clock.now)
    put(store, m)
    strange = cancel(m.msg_id, topic="other")
    assert store.command([strange]) == [NOT_FOUND]
    put(store, strange)
    assert state(store, m.msg_id) is State.PENDING


def test_the_verdicts_come_in_order(store: FullStore, clock: TurnedClock) -> None:
    there, leased = message(clock.now), message(clock.now)
    put(store, there, leased)
    fire(store, leased.msg_id)
    commands = [cancel("bogus"), cancel(there.msg_id), cancel(leased.msg_id)]
    commands.append(cancel(uuid7(clock.now)))
    assert store.command(commands) == [NOT_FOUND, APPLIED, TOO_LATE, WAITS]
    assert store.command([]) == []


def test_at_least_the_last_hundred_command_ids_are_remembered(
    store: FullStore, clock: TurnedClock
) -> None:
    m = message(clock.now)
    put(store, m)
    commands = [add_time(m.msg_id, 1) for _ in range(300)]
    store.command(commands)
    store.command(commands[-100:])
    assert store.claim([m.msg_id]) == [Claim(LATER, m.due_at + 300)]


def test_one_command_id_is_not_mistaken_for_another(store: FullStore, clock: TurnedClock) -> None:
    m = message(clock.now)
    put(store, m)
    names = ["ab", "b", "a", "abc", "bc", "a-b", "applied", "."]
    assert store.command([add_time(m.msg_id, 1, name) for name in names]) == [APPLIED] * 8
    assert store.claim([m.msg_id]) == [Claim(LATER, m.due_at + 8)]


# ------------------------------------------------------------------- at the door


def test_an_early_cancel_holds(store: FullStore, clock: TurnedClock) -> None:
    m = message(clock.now)
    command = cancel(m.msg_id)
    assert store.command([command]) == [WAITS]
    put(store, m)
    assert state(store, m.msg_id) is State.CANCELLED
    assert kinds(store.claim([m.msg_id])) == [GONE]
    assert (ids(store), store.owners()) == ([], set())
    put(store, command)
    assert store.command([command]) == [APPLIED]
    assert store.totals().cancelled == 1


def test_early_commands_are_folded_in_in_their_order(store: FullStore, clock: TurnedClock) -> None:
    m = message(clock.now)
    first, kill, after = add_time(m.msg_id, 10), cancel(m.msg_id), add_time(m.msg_id, 100)
    assert store.command([first, kill, after]) == [WAITS] * 3
    put(store, m)
    (stored,) = store.get([m.msg_id])
    assert stored is not None
    assert (stored.state, stored.due_at) == (State.CANCELLED, m.due_at + 10)
    assert store.command([first, kill, after]) == [APPLIED, APPLIED, TOO_LATE]


def test_an_early_command_id_waits_once(store: FullStore, clock: TurnedClock) -> None:
    m = message(clock.now)
    late = add_time(m.msg_id, 10)
    assert store.command([late, late]) == [WAITS] * 2
    assert store.command([late]) == [WAITS]
    put(store, m, late)
    assert store.claim([m.msg_id]) == [Claim(LATER, m.due_at + 10)]


def test_an_early_command_sent_again_takes_no_room(store: FullStore, clock: TurnedClock) -> None:
    m = message(clock.now)
    assert set(store.command([add_time(m.msg_id, 10, "same")] * 200)) == {WAITS}
    assert store.command([add_time(m.msg_id, 5)]) == [WAITS]


def test_an_early_command_for_another_topic_is_dropped(
    store: FullStore, clock: TurnedClock
) -> None:
    m = message(clock.now)
    assert store.command([cancel(m.msg_id, topic="other")]) == [WAITS]
    put(store, m)
    assert state(store, m.msg_id) is State.PENDING
    assert store.command([cancel(m.msg_id)]) == [APPLIED]


def test_a_folded_door_is_cleared(store: FullStore, clock: TurnedClock) -> None:
    m, other = message(clock.now), message(clock.now)
    store.command([add_time(m.msg_id, 10), cancel(other.msg_id)])
    put(store, m)
    put(store, m)
    assert store.due(OWNER, 1 << 52, 9) == [DueId(m.due_at + 10, m.msg_id)]
    put(store, other)
    assert state(store, other.msg_id) is State.CANCELLED


@pytest.mark.parametrize(
    ("age", "verdict"),
    [
        (EARLY, WAITS),
        (EARLY + 1, NOT_FOUND),
        (-60_000, WAITS),
        (-60_001, NOT_FOUND),
    ],
)
def test_the_early_window(store: FullStore, clock: TurnedClock, age: int, verdict: Verdict) -> None:
    assert store.command([cancel(uuid7(clock.now - age))]) == [verdict]


def test_what_waits_outlasts_the_early_window(open_store: Open) -> None:
    store = open_store(early_ms=100)
    m = message(store.now_ms())
    assert store.command([cancel(m.msg_id)]) == [WAITS]
    past = store.now_ms() + 200
    wait_for(lambda: store.now_ms() > past)
    put(store, m)
    assert state(store, m.msg_id) is State.CANCELLED


def test_the_door_outlasts_the_log(clock: TurnedClock, tmp_path: Path) -> None:
    """On SQLite alone: what expires on Redis does so on the clock of Redis."""
    assert DOOR_MS > MAX_DELAY_MS
    with sqlite_store(tmp_path / "s.db", now_ms=clock) as store:
        m = message(clock.now)
        store.command([cancel(m.msg_id)])
        clock.turn(DOOR_MS - 1)
        put(store, m)
        assert state(store, m.msg_id) is State.CANCELLED


def test_commands_at_all_doors_are_bounded(open_store: Open, clock: TurnedClock) -> None:
    store = open_store(now_ms=clock, max_waiting=3, door_ms=5_000, shards=1)
    first, second = message(clock.now), message(clock.now)
    kept = [add_time(first.msg_id, 10), add_time(first.msg_id, 20), cancel(second.msg_id)]
    assert store.command(kept) == [WAITS] * 3
    for other in (cancel(first.msg_id), cancel(uuid7(clock.now))):
        with pytest.raises(StoreUnavailable):
            store.command([other])
    assert store.command(kept) == [WAITS] * 3
    put(store, first)
    assert store.command([cancel(uuid7(clock.now)), cancel(uuid7(clock.now))]) == [WAITS] * 2
    with pytest.raises(StoreUnavailable):
        store.command([cancel(uuid7(clock.now))])
    clock.turn(5_000)
    assert store.command([cancel(uuid7(clock.now)) for _ in range(3)]) == [WAITS] * 3


@pytest.mark.parametrize("bogus", ["", "x", "6ba7b810-9dad-41d1-80b4-00c04fd430c8"])
def test_an_id_that_is_no_uuid7_is_not_found(store: FullStore, bogus: str) -> None:
    assert store.command([cancel(bogus)]) == [NOT_FOUND]


def test_what_waits_too_long_at_the_door_is_forgotten(open_store: Open) -> None:
    store = open_store(door_ms=300)
    m = message(store.now_ms())
    assert store.command([cancel(m.msg_id)]) == [WAITS]
    gone_at = store.now_ms() + 300
    wait_for(lambda: store.now_ms() > gone_at)
    put(store, m)
    assert state(store, m.msg_id) is State.PENDING


def test_the_door_is_bounded_but_takes_a_cancel(store: FullStore, clock: TurnedClock) -> None:
    m = message(clock.now)
    verdicts = store.command([add_time(m.msg_id, 1) for _ in range(200)])
    assert verdicts == [WAITS] * 128 + [NOT_FOUND] * 72
    assert store.command([cancel(m.msg_id), cancel(m.msg_id)]) == [WAITS, NOT_FOUND]
    put(store, m)
    (stored,) = store.get([m.msg_id])
    assert stored is not None
    assert (stored.state, stored.due_at) == (State.CANCELLED, m.due_at + 128)


# ------------------------------------------------------------------- claim and settle


def test_claims_come_in_order(store: FullStore, clock: TurnedClock) -> None:
    due, later, leased = message(clock.now), message(clock.now + 9), message(clock.now)
    put(store, due, later, leased)
    lease = fire(store, leased.msg_id)
    answers = store.claim([leased.msg_id, "unknown", due.msg_id, later.msg_id])
    assert answers == [
        Claim(BUSY, lease.at),
        Claim(GONE),
        Claim(FIRE, clock.now + LEASE, 1, due.due_at, due, 1, 0, store.life(due.msg_id)),
        Claim(LATER, later.due_at),
    ]
    assert store.claim([]) == []


def test_a_claim_repeated_answers_busy(store: FullStore, clock: TurnedClock) -> None:
    m = message(clock.now)
    put(store, m)
    assert kinds(store.claim([m.msg_id, m.msg_id])) == [FIRE, BUSY]
    clock.turn(LEASE - 1)
    assert store.claim([m.msg_id]) == [Claim(BUSY, clock.now + 1)]


def test_not_before_the_due_time_to_the_millisecond(store: FullStore, clock: TurnedClock) -> None:
    m = message(clock.now + 1)
    put(store, m)
    assert kinds(store.claim([m.msg_id])) == [LATER]
    clock.turn(1)
    assert kinds(store.claim([m.msg_id])) == [FIRE]


def test_ahead_of_its_due_time_a_claim_tells_how_long_to_wait(
    store: FullStore, clock: TurnedClock
) -> None:
    due, soon, later = (message(clock.now + ms) for ms in (-5, 25, 26))
    put(store, due, soon, later)
    claims = store.claim([due.msg_id, soon.msg_id, later.msg_id], 25)
    assert kinds(claims) == [FIRE, FIRE, LATER]
    assert [claim.early_ms for claim in claims] == [0, 25, 0]
    assert [claim.at for claim in claims] == [
        clock.now + LEASE,
        clock.now + 25 + LEASE,
        later.due_at,
    ]
    assert claims[1].due_at == soon.due_at
    assert store.command([cancel(soon.msg_id)]) == [Verdict.TOO_LATE]
    assert end(store, soon.msg_id, claims[1].lease, Ended.SUCCEEDED)


def test_ahead_of_the_end_of_being_held_back_likewise(store: FullStore, clock: TurnedClock) -> None:
    m = message(clock.now)
    put(store, m)
    assert end(store, m.msg_id, fire(store, m.msg_id).lease, Ended.RELEASED, delay_ms=70)
    assert kinds(store.claim([m.msg_id], 69)) == [LATER]
    (claim,) = store.claim([m.msg_id], 70)
    assert (claim.kind, claim.early_ms, claim.due_at) == (FIRE, 70, m.due_at)
    assert claim.at == clock.now + 70 + LEASE


def test_a_lease_that_ran_out_is_given_anew(store: FullStore, clock: TurnedClock) -> None:
    m = message(clock.now)
    put(store, m)
    first = fire(store, m.msg_id)
    clock.turn(LEASE)
    second = fire(store, m.msg_id)
    assert second.at == clock.now + LEASE
    assert (second.attempt != first.attempt, second.tries) == (True, 2)
    assert second.due_at == m.due_at
    assert not end(store, m.msg_id, first.lease, Ended.SUCCEEDED)
    assert end(store, m.msg_id, second.lease, Ended.SUCCEEDED)


def test_the_index_shows_the_end_of_a_lease(store: FullStore, clock: TurnedClock) -> None:
    m = message(clock.now)
    put(store, m)
    claim = fire(store, m.msg_id)
    assert store.due(OWNER, 1 << 52, 9) == [DueId(claim.at, m.msg_id)]
    assert store.due(OWNER, claim.at, 9) == []
    (stored,) = store.get([m.msg_id])
    assert stored is not None
    assert (stored.lease_until, stored.attempt, stored.state) == (claim.at, 1, State.PENDING)


@pytest.mark.parametrize("ended", FINISHED)
def test_settle_finishes(store: FullStore, clock: TurnedClock, ended: Ended) -> None:
    m = message(clock.now)
    put(store, m)
    claim = fire(store, m.msg_id)
    clock.turn(5)
    assert end(store, m.msg_id, claim.lease, ended, reason="sé")
    (stored,) = store.get([m.msg_id])
    assert stored is not None
    assert (stored.state.value, stored.finished_at) == (ended.value, clock.now)
    assert (stored.lease_until, stored.reason, stored.attempt) == (0, "sé", 1)
    assert stored.message == m
    assert kinds(store.claim([m.msg_id])) == [GONE]
    assert ids(store) == []
    for again in Ended:
        assert not end(store, m.msg_id, claim.lease, again)
    assert state(store, m.msg_id).value == ended.value


def test_retry_waits_its_delay_from_now(store: FullStore, clock: TurnedClock) -> None:
    m = message(clock.now)
    put(store, m)
    claim = fire(store, m.msg_id)
    clock.turn(5)
    assert end(store, m.msg_id, claim.lease, Ended.RETRY, delay_ms=100, reason="HTTP 500")
    (stored,) = store.get([m.msg_id])
    assert stored is not None
    assert (stored.state, stored.due_at) == (State.PENDING, clock.now + 100)
    assert (stored.lease_until, stored.reason) == (0, "HTTP 500")
    assert store.due(OWNER, 1 << 52, 9) == [DueId(clock.now + 100, m.msg_id)]
    assert store.claim([m.msg_id]) == [Claim(LATER, clock.now + 100)]
    clock.turn(100)
    second = fire(store, m.msg_id)
    assert (second.due_at, second.tries, second.message) == (clock.now, 2, m)
    assert end(store, m.msg_id, second.lease, Ended.SUCCEEDED)


def test_a_settle_repeated_changes_nothing(store: FullStore, clock: TurnedClock) -> None:
    m = message(clock.now)
    put(store, m)
    claim = fire(store, m.msg_id)
    assert end(store, m.msg_id, claim.lease, Ended.RETRY, delay_ms=100)
    clock.turn(50)
    assert not end(store, m.msg_id, claim.lease, Ended.RETRY, delay_ms=100)
    assert not end(store, m.msg_id, claim.lease, Ended.SUCCEEDED)
    assert store.due(OWNER, 1 << 52, 9) == [DueId(clock.now + 50, m.msg_id)]


def test_released_is_pending_at_once_and_does_not_count(
    store: FullStore, clock: TurnedClock
) -> None:
    m = message(clock.now)
    put(store, m)
    first = fire(store, m.msg_id)
    clock.turn(5)
    assert end(store, m.msg_id, first.lease, Ended.RELEASED)
    assert store.due(OWNER, 1 << 52, 9) == [DueId(m.due_at, m.msg_id)]
    assert store.totals().attempts == 0
    second = fire(store, m.msg_id)
    assert (second.tries, second.due_at) == (1, m.due_at)
    assert second.attempt != first.attempt
    assert not end(store, m.msg_id, first.lease, Ended.SUCCEEDED)
    assert end(store, m.msg_id, second.lease, Ended.SUCCEEDED)
    (stored,) = store.get([m.msg_id])
    assert stored is not None
    assert stored.attempt == 1


def test_a_settle_for_a_lease_that_ends_otherwise_is_stale(
    store: FullStore, clock: TurnedClock
) -> None:
    m = message(clock.now)
    put(store, m)
    lease = fire(store, m.msg_id).lease
    for until in (lease.until - 1, lease.until + 1, 0):
        for ended in Ended:
            assert not end(store, m.msg_id, lease._replace(until=until), ended)
    assert end(store, m.msg_id, lease, Ended.SUCCEEDED)


def test_a_claim_tells_how_often_it_was_released(store: FullStore, clock: TurnedClock) -> None:
    m = message(clock.now)
    put(store, m)
    for releases in range(3):
        claim = fire(store, m.msg_id)
        assert (claim.tries, claim.releases) == (1, releases)
        assert end(store, m.msg_id, claim.lease, Ended.RELEASED)
    assert end(store, m.msg_id, fire(store, m.msg_id).lease, Ended.RETRY)
    claim = fire(store, m.msg_id)
    assert (claim.tries, claim.releases) == (2, 3)


def test_released_with_a_delay_waits_for_it(store: FullStore, clock: TurnedClock) -> None:
    m = message(clock.now)
    put(store, m)
    claim = fire(store, m.msg_id)
    assert end(store, m.msg_id, claim.lease, Ended.RELEASED, delay_ms=70)
    assert store.due(OWNER, 1 << 52, 9) == [DueId(clock.now + 70, m.msg_id)]
    assert store.claim([m.msg_id]) == [Claim(LATER, clock.now + 70)]
    clock.turn(70)
    assert fire(store, m.msg_id).tries == 1


def held_back(store: FullStore, clock: TurnedClock, ms: int = 70) -> str:
    m = message(clock.now - 30)
    put(store, m)
    assert end(store, m.msg_id, fire(store, m.msg_id).lease, Ended.RELEASED, delay_ms=ms)
    return m.msg_id


def test_held_back_it_keeps_its_due_time(store: FullStore, clock: TurnedClock) -> None:
    due_at = clock.now - 30
    msg_id = held_back(store, clock)
    (stored,) = store.get([msg_id])
    assert stored is not None
    assert (stored.due_at, stored.not_before) == (due_at, clock.now + 70)
    clock.turn(70)
    claim = fire(store, msg_id)
    assert claim.due_at == due_at
    (stored,) = store.get([msg_id])
    assert stored is not None
    assert (stored.due_at, stored.not_before) == (due_at, 0)
    assert end(store, msg_id, claim.lease, Ended.RETRY, delay_ms=5)
    assert store.claim([msg_id]) == [Claim(LATER, clock.now + 5)]


@pytest.mark.parametrize(("make", "at"), [(fire_now, -30), (lambda i: add_time(i, 40), 10)])
def test_a_new_due_time_ends_being_held_back(
    store: FullStore, clock: TurnedClock, make: Callable[[str], Command], at: int
) -> None:
    msg_id = held_back(store, clock)
    assert store.command([make(msg_id)]) == [APPLIED]
    assert store.due(OWNER, 1 << 52, 9) == [DueId(clock.now + at, msg_id)]
    clock.turn(10)
    assert fire(store, msg_id).due_at == clock.now - 10 + at


def test_moved_it_is_still_held_back_but_not_parked(store: FullStore, clock: TurnedClock) -> None:
    msg_id = held_back(store, clock)
    assert store.assign([Move(msg_id, OWNER, OTHER)]) == [clock.now + 70]
    assert store.claim([msg_id]) == [Claim(LATER, clock.now + 70)]
    assert store.assign([Move(msg_id, OTHER, "~orders")]) == [clock.now - 30]
    assert store.assign([Move(msg_id, "~orders", OWNER)]) == [clock.now - 30]
    assert fire(store, msg_id).due_at == clock.now - 30


def test_a_settle_after_the_lease_ran_out_counts_while_nobody_claimed(
    store: FullStore, clock: TurnedClock
) -> None:
    m = message(clock.now)
    put(store, m)
    claim = fire(store, m.msg_id)
    clock.turn(LEASE + HOUR // 4)
    assert end(store, m.msg_id, claim.lease, Ended.SUCCEEDED)


def test_settle_answers_in_order(store: FullStore, clock: TurnedClock) -> None:
    a, b = message(clock.now), message(clock.now)
    put(store, a, b)
    first, second = (claim.lease for claim in store.claim([a.msg_id, b.msg_id]))
    outcomes = [
        Outcome("unknown", first, Ended.SUCCEEDED),
        Outcome(b.msg_id, second, Ended.SUCCEEDED),
        Outcome(a.msg_id, first._replace(attempt=9), Ended.SUCCEEDED),
        Outcome(a.msg_id, first, Ended.DEAD),
    ]
    assert store.settle(outcomes) == [False, True, False, True]
    assert store.settle([]) == []


def test_a_message_never_claimed_cannot_be_settled(store: FullStore, clock: TurnedClock) -> None:
    m = message(clock.now)
    put(store, m)
    assert not end(store, m.msg_id, Lease(0, 0), Ended.SUCCEEDED)
    assert state(store, m.msg_id) is State.PENDING


def test_a_reason_is_cut(store: FullStore, clock: TurnedClock) -> None:
    m = message(clock.now)
    put(store, m)
    end(store, m.msg_id, fire(store, m.msg_id).lease, Ended.DEAD, reason="x" * 100_000)
    (stored,) = store.get([m.msg_id])
    assert stored is not None
    assert stored.reason == "x" * 1000


def test_of_many_claims_at_once_one_fires(store: FullStore, clock: TurnedClock) -> None:
    m = message(clock.now)
    put(store, m)
    claimers = [gevent.spawn(store.claim, [m.msg_id]) for _ in range(40)]
    gevent.joinall(claimers, timeout=20, raise_error=True)
    assert sorted(kinds([c.get()[0] for c in claimers])) == [BUSY] * 39 + [FIRE]


# ------------------------------------------------------------------- due and assign


def test_due_gives_the_soonest_before_until(store: FullStore, clock: TurnedClock) -> None:
    messages = [message(clock.now + i) for i in (5, 3, 9, 1, 7)]
    put(store, *messages)
    put(store, message(clock.now), owner=OTHER)
    soonest = sorted(DueId(m.due_at, m.msg_id) for m in messages)
    assert store.due(OWNER, clock.now + 9, 10) == soonest[:4]
    assert store.due(OWNER, clock.now + 10, 3) == soonest[:3]
    assert store.due(OWNER, clock.now + 10, 0) == []
    assert store.due("nobody", clock.now + 10, 10) == []


def test_assign_changes_the_owner_and_nothing_else(store: FullStore, clock: TurnedClock) -> None:
    m = message(clock.now + 70)
    put(store, m)
    store.command([add_time(m.msg_id, 5)])
    (before,) = store.get([m.msg_id])
    assert store.assign([Move(m.msg_id, OWNER, OTHER)]) == [m.due_at + 5]
    (after,) = store.get([m.msg_id])
    assert before is not None
    assert after is not None
    assert (before.owner, after.owner) == (OWNER, OTHER)
    assert (after.due_at, after.state, after.message) == (before.due_at, before.state, m)
    assert (ids(store), ids(store, OTHER)) == ([], [m.msg_id])
    assert store.owners() == {OTHER}


def test_assign_leaves_lease_and_attempt(store: FullStore, clock: TurnedClock) -> None:
    m = message(clock.now)
    put(store, m)
    claim = fire(store, m.msg_id)
    command = cancel(m.msg_id)
    store.command([command])
    assert store.assign([Move(m.msg_id, OWNER, OTHER)]) == [claim.at]
    assert store.due(OTHER, 1 << 52, 9) == [DueId(claim.at, m.msg_id)]
    assert store.claim([m.msg_id]) == [Claim(BUSY, claim.at)]
    assert store.command([command]) == [TOO_LATE]
    assert end(store, m.msg_id, claim.lease, Ended.RETRY, delay_ms=9, reason="r")
    assert store.due(OTHER, 1 << 52, 9) == [DueId(clock.now + 9, m.msg_id)]
    assert ids(store) == []
    assert store.command([command]) == [TOO_LATE]


def test_assign_answers_none_for_what_it_did_not_move(store: FullStore, clock: TurnedClock) -> None:
    mine, done = message(clock.now), message(clock.now)
    put(store, mine, done)
    store.command([cancel(done.msg_id)])
    moves = [
        Move("unknown", OWNER, OTHER),
        Move(mine.msg_id, OTHER, "third"),
        Move(done.msg_id, OWNER, OTHER),
        Move(mine.msg_id, OWNER, OTHER),
        Move(mine.msg_id, OWNER, "third"),
    ]
    assert store.assign(moves) == [None, None, None, mine.due_at, None]
    assert store.owners() == {OTHER}
    assert store.assign([Move(mine.msg_id, OTHER, OTHER)]) == [mine.due_at]
    assert ids(store, OTHER) == [mine.msg_id]
    assert store.assign([]) == []


# ------------------------------------------------------------------- readers


def test_get_answers_in_order(store: FullStore, clock: TurnedClock) -> None:
    messages = [message(clock.now + i) for i in range(20)]
    put(store, *messages)
    wanted = [m.msg_id for m in reversed(messages)]
    found = store.get([*wanted, "unknown"])
    assert [s and s.message.msg_id for s in found] == [*wanted, None]
    assert store.get([]) == []


def test_owners_are_those_with_unfinished_messages(store: FullStore, clock: TurnedClock) -> None:
    assert store.owners() == set()
    a, b, c = (message(clock.now) for _ in range(3))
    put(store, a, owner="-")
    put(store, b, c, owner=OTHER)
    assert store.owners() == {"-", OTHER}
    store.command([cancel(a.msg_id)])
    claim = fire(store, b.msg_id)
    assert store.owners() == {OTHER}
    end(store, b.msg_id, claim.lease, Ended.SUCCEEDED)
    end(store, c.msg_id, fire(store, c.msg_id).lease, Ended.DEAD)
    assert store.owners() == set()
    put(store, message(clock.now), owner="-")
    assert store.owners() == {"-"}


def test_totals(store: FullStore, clock: TurnedClock) -> None:
    assert store.totals() == Totals({}, 0, 0, 0, 0, 0)
    messages = [message(clock.now) for _ in range(8)]
    put(store, *messages)
    fired = store.claim([m.msg_id for m in messages[:5]])
    ways = [Ended.SUCCEEDED, Ended.SUCCEEDED, Ended.DEAD, Ended.RETRY, Ended.RELEASED]
    store.settle(
        [Outcome(m.msg_id, c.lease, w) for m, c, w in zip(messages, fired, ways, strict=False)]
    )
    store.command([cancel(messages[5].msg_id)])
    store.assign([Move(messages[6].msg_id, OWNER, OTHER)])
    assert store.totals() == Totals({OWNER: 3, OTHER: 1}, 8, 2, 1, 1, 4)


@pytest.mark.parametrize("how", ["cancelled", *FINISHED])
def test_a_finished_message_is_kept_for_its_retention(open_store: Open, how: str) -> None:
    store = open_store(retention_ms=400, dead_retention_ms=400)
    m = message(store.now_ms())
    put(store, m)
    kill = cancel(m.msg_id)
    if how == "cancelled":
        store.command([kill])
    else:
        end(store, m.msg_id, fire(store, m.msg_id).lease, Ended(how))
    assert state(store, m.msg_id).value == how
    assert store.command([cancel(m.msg_id)]) == [TOO_LATE]
    put(store, m, kill)
    wait_for(lambda: store.get([m.msg_id]) == [None])
    assert kinds(store.claim([m.msg_id])) == [GONE]
    put(store, m)
    assert state(store, m.msg_id) is State.PENDING


def test_dead_letters_have_a_retention_of_their_own(open_store: Open) -> None:
    store = open_store(retention_ms=200, dead_retention_ms=HOUR)
    dead, done = message(store.now_ms()), message(store.now_ms())
    put(store, dead, done)
    end(store, done.msg_id, fire(store, done.msg_id).lease, Ended.SUCCEEDED)
    end(store, dead.msg_id, fire(store, dead.msg_id).lease, Ended.DEAD)
    wait_for(lambda: store.get([done.msg_id]) == [None])
    assert state(store, dead.msg_id) is State.DEAD


def test_pending_messages_do_not_expire(open_store: Open) -> None:
    store = open_store(retention_ms=100, dead_retention_ms=100, early_ms=100_000)
    m, other = message(store.now_ms()), message(store.now_ms())
    store.command([add_time(m.msg_id, 1)])
    put(store, m, other)
    wait_for(lambda: store.now_ms() > m.due_at)
    claim = fire(store, m.msg_id)
    store.assign([Move(m.msg_id, OWNER, OTHER)])
    end(store, m.msg_id, claim.lease, Ended.RETRY, delay_ms=9, reason="r")
    end(store, other.msg_id, fire(store, other.msg_id).lease, Ended.SUCCEEDED)
    wait_for(lambda: store.get([other.msg_id]) == [None])
    assert state(store, m.msg_id) is State.PENDING


def test_the_store_has_a_clock_of_its_own(open_store: Open) -> None:
    store = open_store()
    before = time.time_ns() // 1_000_000
    now = store.now_ms()
    assert before - 5 <= now <= time.time_ns() // 1_000_000 + 5
    m = message(now + 150)
    put(store, m)
    assert store.claim([m.msg_id]) == [Claim(LATER, now + 150)]
    wait_for(lambda: kinds(store.claim([m.msg_id])) == [FIRE])
    assert now + 150 <= store.now_ms() < now + 150 + 2_000
    (stored,) = store.get([m.msg_id])
    assert stored is not None
    assert now + 150 + LEASE <= stored.lease_until <= store.now_ms() + LEASE


def test_what_was_written_is_there_when_opened_again(open_store: Open, clock: TurnedClock) -> None:
    first = open_store(now_ms=clock)
    m = message(clock.now)
    positions = put(first, m)
    first.close()
    again = open_store(now_ms=clock, **({"flush": False} if len(positions) > 1 else {}))
    assert again.positions("p") == positions
    assert kinds(again.claim([m.msg_id])) == [FIRE]


def test_close_is_safe_to_repeat(store: FullStore) -> None:
    store.close()
    store.close()
