"""Messages of paused topics, on both stores: commands reach them, and each goes out once."""

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path

import gevent
import pytest

from center.moves import Moves
from center.resume import Resume
from center.workers import Workers
from soraka.adapters.local_registry import LocalRegistry
from soraka.clock import StoreClock
from soraka.limits import DAY_MS
from soraka.message import Instance, State, Topic, parked_owner
from soraka.metrics import Metrics
from soraka.ports import ClaimKind, Ended, FullStore, Move, Outcome, Verdict
from soraka.stats import MINUTE_MS, Tally
from tests.contract.store_kit import (
    HOUR,
    OTHER,
    OWNER,
    TOPIC,
    add_time,
    cancel,
    fire_now,
    message,
    put,
    redis_store,
    sqlite_store,
    wait_for,
)
from worker.parking import Parking
from worker.settle import Settling

PARKED = parked_owner(TOPIC)


@pytest.fixture(params=["sqlite", "redis"])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[FullStore]:
    if request.param == "sqlite":
        with sqlite_store(tmp_path / "store.db") as made:
            yield made
    else:
        with redis_store(request.getfixturevalue("redis_server").url) as on_redis:
            yield on_redis


class Centers:
    """Any number of them, with one registry."""

    def __init__(self, store: FullStore, *workers: str) -> None:
        self.registry = LocalRegistry(path=None)
        self.topic = Topic(name=TOPIC, paused=True)
        self.registry.put_topic(self.topic, was=None)
        for address in workers:
            self.registry.register(Instance(service="worker", address=address, incarnation="1"))
        self._store = store

    def pause(self, paused: bool) -> None:
        was = self.registry.topics()[TOPIC]
        self.registry.put_topic(replace(self.topic, paused=paused), was=was)

    def one(self, per_second: int = 100_000) -> Resume:
        clock = StoreClock(self._store)
        clock.sync()
        workers = Workers(self.registry, rpc_timeout_ms=100)
        return Resume(
            store=self._store,
            registry=self.registry,
            workers=workers,
            moves=Moves(store=self._store, workers=workers, clock=clock, horizon_ms=0),
            metrics=Metrics(),
            per_second=per_second,
        )


def owners(store: FullStore, ids: Sequence[str]) -> Counter[str]:
    return Counter(stored.owner for stored in store.get(ids) if stored)


def test_a_claim_given_back_and_parked_counts_no_attempt_and_keeps_its_time(
    store: FullStore,
) -> None:
    due_at = store.now_ms() - 500
    found = [message(due_at) for _ in range(30)]
    put(store, *found)
    ids = [m.msg_id for m in found]
    outcomes = [
        Outcome(msg_id, claim.lease, Ended.RELEASED)
        for msg_id, claim in zip(ids, store.claim(ids), strict=True)
    ]
    assert store.settle(outcomes) == [True] * 30
    parking = Parking(store, OWNER, 1000, 4)
    greenlet = gevent.spawn(parking.run)
    parking.put([Settling(outcome, TOPIC, park=True) for outcome in outcomes])
    wait_for(lambda: gevent.sleep(0.01) or not len(parking))
    greenlet.kill()
    assert store.owners() == {PARKED}
    assert {(row.due_at, row.msg_id) for row in store.due(PARKED, 1 << 52, 100)} == {
        (due_at, msg_id) for msg_id in ids
    }
    assert {stored.attempt for stored in store.get(ids) if stored} == {0}
    assert store.history(ids[0]) == []
    backlog = store.backlog(store.now_ms())
    assert (backlog.overdue, backlog.oldest_due_at, backlog.parked) == (0, None, 30)


def test_commands_reach_parked_messages_and_those_still_wait_for_the_resume(
    store: FullStore,
) -> None:
    now = store.now_ms()
    dropped, later, sooner = message(now), message(now), message(now + HOUR)
    put(store, dropped, later, sooner, owner=PARKED)
    assert (
        store.command(
            [cancel(dropped.msg_id), add_time(later.msg_id, HOUR), fire_now(sooner.msg_id)]
        )
        == [Verdict.APPLIED] * 3
    )
    ids = [dropped.msg_id, later.msg_id, sooner.msg_id]
    centers = Centers(store, OWNER)
    centers.one().turn()
    first, second, third = store.get(ids)
    assert first
    assert second
    assert third
    assert first.state is State.CANCELLED
    assert (second.owner, second.due_at) == (PARKED, now + HOUR)
    assert third.owner == PARKED
    assert now <= third.due_at <= store.now_ms()
    centers.pause(False)
    centers.one().turn()
    assert owners(store, ids[1:]) == {OWNER: 2}
    assert [claim.kind for claim in store.claim(ids)] == [
        ClaimKind.GONE,
        ClaimKind.LATER,
        ClaimKind.FIRE,
    ]


def test_centers_that_die_in_the_middle_and_a_pause_in_the_middle_lose_nothing(
    store: FullStore,
) -> None:
    now = store.now_ms()
    found = [message(now) for _ in range(1500)]
    for start in range(0, len(found), 500):
        put(store, *found[start : start + 500], owner=PARKED)
    ids = [m.msg_id for m in found]
    centers = Centers(store, OWNER, OTHER)
    centers.pause(False)
    given_up = [centers.one(1500) for _ in range(3)]
    for center in given_up:  # each gets to do something, and is never asked again
        center.turn()
        center.close()
    assert 0 < owners(store, ids)[PARKED] < len(ids)
    centers.pause(True)
    # a worker that knows of the pause gives back what it got meanwhile
    rows = store.due(OWNER, 1 << 52, 5000)
    store.assign([Move(row.msg_id, OWNER, PARKED) for row in rows])
    centers.one().turn()
    assert owners(store, ids)[OWNER] == 0
    centers.pause(False)
    both = [centers.one(20_000), centers.one(20_000)]
    wait_for(
        lambda: [center.turn() for center in both] and not owners(store, ids)[PARKED],
    )
    assert owners(store, ids).total() == len(ids)
    claims = store.claim(ids)
    assert Counter(claim.kind for claim in claims) == {ClaimKind.FIRE: len(ids)}


def test_a_parked_message_that_has_a_lease_is_not_called_twice(store: FullStore) -> None:
    """The worker died between parking it and giving the claim back."""
    found = message(store.now_ms())
    put(store, found)
    (claim,) = store.claim([found.msg_id])
    store.assign([Move(found.msg_id, OWNER, PARKED)])
    centers = Centers(store, OTHER)
    centers.pause(False)
    centers.one().turn()
    assert owners(store, [found.msg_id]) == {OTHER: 1}
    (again,) = store.claim([found.msg_id])
    assert (again.kind, again.at) == (ClaimKind.BUSY, claim.at)


def test_the_statistics_of_two_processes_add_up(store: FullStore) -> None:
    now = store.now_ms()
    minute = now - now % MINUTE_MS
    for address in ("a:1", "b:1"):
        tally = Tally(address)
        for _ in range(3):
            tally.called(TOPIC, now, Ended.SUCCEEDED, late_ms=4, callback_ms=10, flow_ms=14)
        store.add_stats(tally.take())
    whole = store.stats("all", minute, minute + MINUTE_MS)[minute]
    assert whole == {
        "called": 6,
        "succeeded": 6,
        "late_ms": 24,
        "callback_ms": 60,
        "flow_ms": 84,
        "late_le_5": 6,
    }
    assert store.stats(f"topic:{TOPIC}", minute, minute + 1)[minute] == whole
    day = now - now % DAY_MS
    assert store.stats("workers", day, day + 1) == {day: {"a:1": 3, "b:1": 3}}
