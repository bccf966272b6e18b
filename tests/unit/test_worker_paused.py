"""What a worker does with messages of topics that are paused, or have a rate."""

import time
from collections.abc import Iterator, Sequence
from typing import Any

import gevent
import pytest

from soraka.adapters.local_registry import LocalRegistry
from soraka.errors import StoreUnavailable
from soraka.message import Instance, State, Topic, parked_owner
from soraka.ports import Ended, Move
from tests.unit.sinks import Sink, eventually, ok, sink
from tests.unit.worker_kit import OWNER, Rig, Switched, after, calls
from worker.admission import Why
from worker.topics import TopicRules

PARKED = parked_owner("orders")


@pytest.fixture
def server() -> Iterator[Sink]:
    with sink(ok()) as made:
        yield made


def owners(rig: Rig, ids: Sequence[str]) -> set[str]:
    return {rig.stored(msg_id).owner for msg_id in ids}


class NoMoves(Switched):
    """Gives no message to another owner."""

    tried = 0

    def assign(self, moves: Sequence[Move]) -> list[int | None]:
        self.tried += 1
        raise StoreUnavailable("told so")


def test_due_messages_of_a_paused_topic_are_parked_and_no_others(rig: Rig, server: Sink) -> None:
    rig.loop(is_paused="orders".__eq__)
    due = rig.put(server.url, count=450)
    later = rig.put(server.url, in_ms=60_000)
    other = rig.put(server.url, topic="other", count=20)
    rig.all_end(other, State.SUCCEEDED)
    eventually(lambda: owners(rig, due) == {PARKED}, 10)
    assert owners(rig, later) == {OWNER}
    assert set(calls(server)) == set(other)
    assert {rig.stored(msg_id).attempt for msg_id in due} == {0}
    eventually(lambda: rig.loops[0].in_flight == 0)
    first = rig.stored(due[0])
    assert (first.state, first.due_at, first.lease_until) == (
        State.PENDING,
        first.message.due_at,
        0,
    )
    assert set(rig.released) == {Why.PAUSED}


def test_one_that_waits_at_a_gate_while_its_topic_is_paused_is_not_called(
    rig: Rig,
) -> None:
    paused = set[str]()
    with sink(after(0.3)) as server:
        rig.loop(is_paused=paused.__contains__, max_per_host=1)
        first, second = rig.put(server.url, count=2)
        eventually(lambda: len(server.seen) == 1)
        paused.add("orders")
        eventually(lambda: owners(rig, [first, second]) == {OWNER, PARKED})
        eventually(lambda: State.SUCCEEDED in {rig.stored(i).state for i in (first, second)})
        gevent.sleep(0.2)
        assert len(server.seen) == 1


def test_when_they_cannot_be_parked_they_are_not_claimed_again_and_again(
    rig: Rig, server: Sink
) -> None:
    store = NoMoves(rig.real)
    loop = rig.loop(store=store, is_paused="orders".__eq__, page_ms=1000)
    rig.put(server.url, count=50)
    eventually(lambda: store.tried >= 1)
    gevent.sleep(1.5)
    assert store.tried >= 2
    assert sum(store.claims) == 50
    assert server.seen == []
    loop.stop()


def test_parking_that_fails_holds_up_no_other_topic(rig: Rig, server: Sink) -> None:
    rig.loop(store=NoMoves(rig.real), is_paused="orders".__eq__, max_callbacks=10, max_per_host=10)
    rig.put(server.url, count=1000)
    other = rig.put(server.url, topic="other", count=50)
    rig.all_end(other, State.SUCCEEDED)


def test_a_topic_is_called_at_its_rate_and_another_at_once(rig: Rig, server: Sink) -> None:
    rates = {"orders": 50.0, "other": 0.0}
    rig.loop(topic_rate=rates.__getitem__)
    began = time.monotonic()
    ids = rig.put(server.url, count=120)
    other = rig.put(server.url, topic="other", count=120)
    rig.all_end(other, State.SUCCEEDED)
    assert State.PENDING in {rig.stored(msg_id).state for msg_id in ids}
    rig.all_end(ids, State.SUCCEEDED)
    assert time.monotonic() - began >= (120 - 11) / 50
    assert {rig.stored(msg_id).attempt for msg_id in ids} == {1}
    assert Why.RATE in rig.released
    # each is sent away once, or little more: nothing spins
    assert len(rig.released) < 2 * len(ids)


def test_what_a_rate_holds_back_is_late_from_its_due_time_on(rig: Rig, server: Sink) -> None:
    rig.loop(topic_rate=lambda _: 4.0)
    msg_ids = rig.put(server.url, count=6)
    eventually(lambda: any(rig.stored(msg_id).not_before for msg_id in msg_ids))
    assert rig.real.backlog(rig.now()).oldest_due_at == rig.stored(msg_ids[0]).message.due_at
    rig.all_end(msg_ids, State.SUCCEEDED)
    assert Why.RATE in rig.released
    due_at = str(rig.stored(msg_ids[0]).message.due_at)
    assert {seen.headers["soraka-due-at"] for seen in server.seen} == {due_at}
    assert max(late_ms for _, late_ms in rig.fired) >= 900


def test_the_workers_that_may_hold_a_topic_share_its_rate() -> None:
    registry = LocalRegistry(path=None)
    rules = TopicRules(registry, "a:1")
    assert rules.rate("t") == 0
    assert not rules.is_paused("t")
    registry.put_topic(Topic(name="t", max_dispatches_per_second=90), was=None)
    assert rules.rate("t") == 90
    for address in ("a:1", "b:1", "c:1"):
        registry.register(Instance(service="worker", address=address, incarnation=address))
    assert rules.rate("t") == 30
    topic = Topic(
        name="t", max_dispatches_per_second=90, workers=("a:1", "b:1", "gone:1"), paused=True
    )
    registry.put_topic(topic, was=registry.topics()["t"])
    assert rules.rate("t") == 45
    assert rules.is_paused("t")
    assert TopicRules(registry, "c:1").rate("t") == 30


def test_an_outcome_tells_when_from_where_and_how_it_was_called(rig: Rig, server: Sink) -> None:
    settled = []
    settle = rig.store.settle

    def noting(outcomes: Sequence[Any]) -> list[bool]:
        settled.extend(outcomes)
        return settle(outcomes)

    rig.store.settle = noting  # type: ignore[method-assign]
    rig.loop()
    before = rig.now()
    (good,) = rig.put(server.url)
    (bad,) = rig.put("http://127.0.0.1:1/")
    (none,) = rig.put("nonsense:")
    for msg_id in (good, bad, none):
        rig.ends(msg_id)
    found = {outcome.msg_id: outcome for outcome in settled}
    assert {outcome.worker for outcome in settled} == {OWNER}
    assert [found[i].status for i in (good, bad, none)] == [200, 0, 0]
    assert [found[i].ended for i in (good, bad, none)] == [Ended.SUCCEEDED, Ended.DEAD, Ended.DEAD]
    assert all(before <= outcome.started_at <= rig.now() for outcome in settled)
    assert 0 <= found[good].duration_ms < 5000
