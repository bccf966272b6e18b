"""Messages of paused topics: where they wait, and how they go out again."""

import time
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import replace
from pathlib import Path

import pytest

from center import resume
from center.rebalance import Rebalance
from center.resume import Resume
from soraka.errors import StoreUnavailable
from soraka.message import Topic, parked_owner
from soraka.ports import Move
from soraka.rate import BURST_MS
from tests.unit.test_center import DAY_MS, TOPIC, Rig

A, B = "127.0.0.1:2", "127.0.0.1:3"
PARKED = parked_owner(TOPIC)


@pytest.fixture
def rig(tmp_path: Path) -> Iterator[Rig]:
    made = Rig(tmp_path)
    yield made
    made.close()


def resuming(rig: Rig, per_second: int = 100_000) -> Resume:
    return Resume(
        store=rig.store,
        registry=rig.registry,
        workers=rig.workers,
        moves=rig.moves,
        metrics=rig.metrics,
        per_second=per_second,
    )


def pause(rig: Rig, paused: bool = True, **settings: int) -> None:
    topic = rig.registry.topics()[TOPIC]
    rig.registry.put_topic(replace(topic, paused=paused, **settings), was=topic)


def parked(rig: Rig, count: int, *, due_in_ms: int = 0) -> list[str]:
    pause(rig)
    ids = rig.append(count, due_in_ms=due_in_ms)
    rig.read()
    return ids


def turn_until(rig: Rig, made: Resume, ids: Sequence[str], limit_s: float = 10) -> None:
    """Until none is parked."""
    deadline = time.monotonic() + limit_s
    while PARKED in rig.owners_of(ids):
        assert time.monotonic() < deadline, Counter(rig.owners_of(ids))
        made.turn()
        time.sleep(0.01)


def test_new_messages_of_a_paused_topic_are_parked_and_stay(rig: Rig) -> None:
    rig.worker(A)
    ids = parked(rig, 5) + parked(rig, 5, due_in_ms=DAY_MS)
    for _ in range(3):
        rig.reconcile.turn()
        resuming(rig).turn()
    assert set(rig.owners_of(ids)) == {PARKED}
    assert rig.metrics.to_move._value.get() == 0


@pytest.mark.parametrize("how", ["resumed", "deleted"])
def test_they_go_out_when_the_topic_is(rig: Rig, how: str) -> None:
    for address in (A, B):
        rig.worker(address)
    ids = parked(rig, 1200)
    if how == "resumed":
        pause(rig, False)
    else:
        rig.registry.delete_topic(TOPIC)
    turn_until(rig, resuming(rig), ids)
    assert Counter(rig.owners_of(ids)) == {A: 600, B: 600}
    assert rig.metrics.resumed._value.get() == 1200


@pytest.mark.parametrize("whose", ["topic", "config"])
def test_the_rate_is_kept_and_the_soonest_go_first(rig: Rig, whose: str) -> None:
    rig.worker(A)
    late, soon = parked(rig, 100, due_in_ms=DAY_MS), parked(rig, 100)
    pause(rig, False, max_dispatches_per_second=200 if whose == "topic" else 0)
    made = resuming(rig, 1 if whose == "topic" else 200)
    began = time.monotonic()
    while PARKED in rig.owners_of(late + soon):
        made.turn()
        out = 200 - rig.owners_of(late + soon).count(PARKED)
        assert out <= 200 * (time.monotonic() - began + BURST_MS / 1000) + 1
        assert rig.owners_of(late).count(A) <= max(0, out - 100)
        time.sleep(0.01)
    # a second, on a machine with nothing else to do; at the other rate, minutes
    assert time.monotonic() - began < 30


def test_paused_again_in_the_middle_the_rest_stays(rig: Rig) -> None:
    rig.worker(A)
    ids = parked(rig, 500)
    pause(rig, False)
    made = resuming(rig, per_second=400)
    made.turn()
    pause(rig)
    out = rig.owners_of(ids).count(A)
    assert 0 < out < 500
    for _ in range(10):
        made.turn()
        time.sleep(0.01)
    assert rig.owners_of(ids).count(A) == out
    pause(rig, False)
    again = resuming(rig)
    turn_until(rig, again, ids)


def test_two_centers_that_both_do_it_lose_nothing(
    rig: Rig, monkeypatch: pytest.MonkeyPatch
) -> None:
    def had(_name: str) -> AbstractContextManager[bool]:
        return nullcontext(True)

    monkeypatch.setattr(rig.registry, "lock", had)
    rig.worker(A)
    ids = parked(rig, 900)
    pause(rig, False)
    one, two = resuming(rig, 2000), resuming(rig, 2000)
    while PARKED in rig.owners_of(ids):
        one.turn()
        two.turn()
        time.sleep(0.01)
    assert set(rig.owners_of(ids)) == {A}
    assert rig.metrics.resumed._value.get() == 900


def test_a_center_that_has_not_the_lock_takes_over_when_nothing_moves(
    rig: Rig, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(resume, "FORSAKEN_S", 0.1)
    monkeypatch.setattr(resume, "LOOK_EVERY_S", 0.02)
    rig.worker(A)
    ids = parked(rig, 10)
    pause(rig, False)
    made = resuming(rig)
    with rig.registry.lock(PARKED) as had:
        assert had
        made.turn()
        assert set(rig.owners_of(ids)) == {PARKED}
        turn_until(rig, made, ids)


def test_a_store_that_fails_in_the_middle_costs_time_alone(
    rig: Rig, monkeypatch: pytest.MonkeyPatch
) -> None:
    rig.worker(A)
    ids = parked(rig, 800)
    pause(rig, False)
    made, assign, failures = resuming(rig), rig.store.assign, iter(range(100))

    def failing(moves: Sequence[Move]) -> list[int | None]:
        answers = assign(moves)
        if moves and next(failures) % 2 == 0:
            raise StoreUnavailable("the answer was lost")
        return answers

    monkeypatch.setattr(rig.store, "assign", failing)
    deadline = time.monotonic() + 10
    while PARKED in rig.owners_of(ids):
        assert time.monotonic() < deadline
        try:
            made.turn()
        except StoreUnavailable:
            continue
        time.sleep(0.01)
    assert set(rig.owners_of(ids)) == {A}


def test_without_workers_they_wait(rig: Rig) -> None:
    ids = parked(rig, 3)
    pause(rig, False)
    made = resuming(rig)
    made.turn()
    assert set(rig.owners_of(ids)) == {PARKED}
    rig.worker(A)
    turn_until(rig, resuming(rig), ids)


def test_those_of_a_worker_that_is_gone_are_parked(rig: Rig) -> None:
    gone = rig.worker(A)
    rig.worker(B)
    rig.registry.put_topic(Topic(name="other"), was=None)
    topic = rig.registry.topics()[TOPIC]
    rig.registry.put_topic(replace(topic, workers=(A,)), was=topic)
    ids = rig.append(30)
    rig.read()
    pause(rig)
    rig.registry.unregister(gone)
    rig.reconcile._absent_since[A] = time.monotonic() - 1
    rig.reconcile.turn()
    assert set(rig.owners_of(ids)) == {PARKED}


def test_a_worker_offers_a_retry_of_a_paused_topic_and_it_is_parked(rig: Rig) -> None:
    rig.worker(A)
    ids = rig.append(2)
    rig.read()
    pause(rig)
    rows = rig.store.due(A, 1 << 52, 10)
    moved = rig.reconcile.hand_back(A, [(TOPIC, row) for row in rows])
    assert sorted(moved) == sorted(ids)
    assert set(rig.owners_of(ids)) == {PARKED}


def test_a_rebalance_leaves_them_alone(rig: Rig) -> None:
    for address in (A, B):
        rig.worker(address)
    ids = parked(rig, 10)
    pause(rig, False)
    cursor, turns = "", 0
    made = Rebalance(store=rig.store, workers=rig.workers, moves=rig.moves)
    while turns == 0 or cursor:
        _, _, cursor = made.page(TOPIC, cursor)
        turns += 1
    assert set(rig.owners_of(ids)) == {PARKED}
