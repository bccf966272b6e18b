"""What soraka/ports.py says of StoreTail and `scan`, on SQLite and in each mode of Redis."""

from collections import Counter

import pytest
import redis

from soraka.errors import StoreUnavailable
from soraka.message import State
from soraka.ports import ClaimKind, Ended, FullStore, Move, Outcome
from tests.contract.store_kit import (
    OTHER,
    OWNER,
    TurnedClock,
    add_time,
    cancel,
    entry,
    message,
    put,
    redis_store,
)
from tests.servers import Server


def all_of(store: FullStore, owner: str, limit: int) -> Counter[str]:
    """Every id that a scan gives, and how often."""
    seen: Counter[str] = Counter()
    cursor = ""
    for _ in range(10_000):
        found, cursor = store.scan(owner, cursor, limit)
        seen.update(due.msg_id for due in found)
        if not cursor:
            return seen
    raise AssertionError("a scan without an end")


# --------------------------------------------------------------------------- adopt


def test_a_store_without_positions_adopts(store: FullStore) -> None:
    shards = len(store.positions("p"))
    assert store.adopt({"p": 41, "q": 7}) == shards
    assert store.positions("p") == (41,) * shards
    assert store.positions("q") == (7,) * shards
    assert store.positions("r") == (-1,) * shards


def test_a_store_that_has_read_adopts_nothing(store: FullStore, clock: TurnedClock) -> None:
    standing = put(store, message(clock.now))
    assert store.adopt({"p": 41, "q": 7}) == 0
    assert store.positions("p") == standing
    assert store.positions("q") == (-1,) * len(standing)


def test_adopting_nothing_leaves_the_store_able_to_adopt(store: FullStore) -> None:
    assert store.adopt({}) == 0
    assert store.adopt({"p": 0}) == len(store.positions("p"))


def test_after_adopting_reading_goes_on_behind(store: FullStore, clock: TurnedClock) -> None:
    store.adopt({"p": 41})
    known = store.positions("p")
    skipped, new = message(clock.now), message(clock.now)
    store.schedule("p", known, 42, [entry(41, skipped), entry(42, new)])
    assert [s is not None for s in store.get([skipped.msg_id, new.msg_id])] == [False, True]


def test_redis_a_shard_that_lost_everything_adopts_alone(
    redis_server: Server, clock: TurnedClock
) -> None:
    with redis_store(redis_server.url, shards=3, now_ms=clock) as store:
        standing = put(store, *(message(clock.now) for _ in range(9)))
        with redis.Redis.from_url(redis_server.url) as client:
            client.delete(*client.keys("{1}:*"))
        assert store.adopt({"p": 5}) == 1
        assert store.positions("p") == (standing[0], 5, standing[2])


# --------------------------------------------------------------------------- out of turn


def test_records_out_of_turn_mark_nothing(store: FullStore, clock: TurnedClock) -> None:
    standing = put(store, message(clock.now))
    unread = (-1,) * len(standing)
    old, gone = message(clock.now), message(clock.now)
    entries = [entry(3, old), entry(4, gone), entry(9, cancel(gone.msg_id))]
    for _ in range(2):  # safe to repeat
        assert store.schedule("again", unread, -1, entries) == unread
    assert store.positions("again") == unread
    assert store.positions("p") == standing
    states = [s.state.value for s in store.get([old.msg_id, gone.msg_id]) if s is not None]
    assert states == ["pending", "cancelled"]


# --------------------------------------------------------------------------- vouch


def test_a_store_that_is_vouched_for_answers_claims(store: FullStore, clock: TurnedClock) -> None:
    store.vouch(store.restarts())
    assert store.restarts() == frozenset()
    due = message(clock.now)
    put(store, due)
    assert store.claim([due.msg_id])[0].kind is ClaimKind.FIRE


def test_vouching_for_what_is_not_there_does_nothing(store: FullStore) -> None:
    store.vouch(store.restarts())
    store.vouch(frozenset({"127.0.0.1:1/no-such-process"}))
    assert store.restarts() == frozenset()


def test_redis_that_was_killed_answers_no_claim_until_vouched_for(
    redis_server: Server, clock: TurnedClock
) -> None:
    with redis_store(redis_server.url, now_ms=clock) as store:
        store.vouch(store.restarts())
        due = message(clock.now)
        put(store, due)
        with redis_server.outage():
            pass
        (before,) = store.restarts()
        with pytest.raises(StoreUnavailable, match="vouched"):
            store.claim([due.msg_id])
        assert store.get([due.msg_id])[0] is not None  # the rest goes on
        assert store.command([cancel(message(clock.now).msg_id)])
        with redis_server.outage():
            pass
        store.vouch(frozenset({before}))  # it has ended: its successor is another one
        (after,) = store.restarts()
        assert after != before
        with pytest.raises(StoreUnavailable, match="vouched"):
            store.claim([due.msg_id])
        store.vouch(frozenset({after}))
        assert store.claim([due.msg_id])[0].kind is ClaimKind.FIRE


@pytest.mark.parametrize("lost_its_tail", [True, False])
def test_redis_a_confirmed_command_read_again_holds_before_a_lease_of_before(
    redis_server: Server, clock: TurnedClock, lost_its_tail: bool
) -> None:
    """Claimed, ended, then cancelled or postponed; and all but the claim was lost. When nothing was
    lost, a command that is in the log while a call is under way comes too late."""
    with redis_store(redis_server.url, now_ms=clock) as store:
        store.vouch(store.restarts())
        cancelled, postponed = message(clock.now), message(clock.now)
        put(store, cancelled, postponed)
        ids = [cancelled.msg_id, postponed.msg_id]
        assert [claim.kind for claim in store.claim(ids)] == [ClaimKind.FIRE] * 2
        if lost_its_tail:
            with redis_server.outage():
                pass
        put(store, cancel(ids[0]), add_time(ids[1], 60_000))
        if not lost_its_tail:
            assert [s and s.state for s in store.get(ids)] == [State.PENDING] * 2
            assert [claim.kind for claim in store.claim(ids)] == [ClaimKind.BUSY] * 2
            return
        store.vouch(store.restarts())
        gone, later = store.claim(ids)
        assert gone.kind is ClaimKind.GONE
        assert (later.kind, later.at) == (ClaimKind.LATER, postponed.due_at + 60_000)
        assert [s and s.state for s in store.get(ids)] == [State.CANCELLED, State.PENDING]


# --------------------------------------------------------------------------- scan


@pytest.mark.parametrize("limit", [1, 7, 1000])
def test_scan_gives_what_an_owner_has(store: FullStore, clock: TurnedClock, limit: int) -> None:
    store.vouch(store.restarts())
    mine = [message(clock.now + n % 3) for n in range(60)]
    others = [message(clock.now) for _ in range(30)]
    put(store, *mine)
    put(store, *others, owner=OTHER)
    finished, leased = mine[0], mine[3]
    claims = store.claim([finished.msg_id, leased.msg_id])
    store.settle([Outcome(finished.msg_id, claims[0].lease, Ended.SUCCEEDED)])
    assert set(all_of(store, OWNER, limit)) == {m.msg_id for m in mine[1:]}
    assert set(all_of(store, OTHER, limit)) == {m.msg_id for m in others}
    assert all_of(store, "10.0.0.9:1", limit) == Counter()


def test_scan_while_messages_leave(store: FullStore, clock: TurnedClock) -> None:
    """Those that stay are given at least once, whatever leaves meanwhile."""
    messages = [message(clock.now + 1000 * n) for n in range(200)]
    put(store, *messages)
    stay = {m.msg_id for m in messages[::2]}
    seen: set[str] = set()
    cursor = ""
    while True:
        found, cursor = store.scan(OWNER, cursor, 20)
        seen |= {due.msg_id for due in found}
        leaving = [Move(i, OWNER, OTHER) for i in seen - stay]
        store.assign(leaving)
        if not cursor:
            break
    assert stay <= seen


def test_scan_tells_when_to_look(store: FullStore, clock: TurnedClock) -> None:
    due = message(clock.now + 5000)
    put(store, due)
    found, _ = store.scan(OWNER, "", 1000)
    assert [tuple(d) for d in found] == [(clock.now + 5000, due.msg_id)]
