"""Balancing a topic anew, on both stores."""

from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from center import rebalance as module
from center.moves import Moves
from center.rebalance import Rebalance, surplus
from center.workers import Workers
from soraka.adapters.local_registry import LocalRegistry
from soraka.clock import StoreClock
from soraka.errors import InvalidParams
from soraka.message import NO_OWNER, Instance, Topic
from soraka.ports import ClaimKind, FullStore
from tests.contract.store_kit import HOUR, TOPIC, message, put, redis_store, sqlite_store

A, B, C, GONE = (f"127.0.1.{n}:1" for n in (1, 2, 3, 9))


@pytest.fixture(params=["sqlite", "redis"])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[FullStore]:
    if request.param == "sqlite":
        with sqlite_store(tmp_path / "store.db") as made:
            yield made
    else:
        with redis_store(request.getfixturevalue("redis_server").url) as on_redis:
            yield on_redis


class Centers:
    """Two of them, that serve the pages in turns."""

    def __init__(self, store: FullStore, topic: Topic, weights: dict[str, int]) -> None:
        self.registry = LocalRegistry(path=None)
        self.registry.put_topic(topic, was=None)
        for address, weight in weights.items():
            self.registry.register(
                Instance(service="worker", address=address, incarnation="1", weight=weight)
            )
        self._both = [self._center(store), self._center(store)]
        self.largest_page = 0

    def _center(self, store: FullStore) -> Rebalance:
        clock = StoreClock(store)
        clock.sync()
        workers = Workers(self.registry, rpc_timeout_ms=100)
        moves = Moves(store=store, workers=workers, clock=clock, horizon_ms=0)
        return Rebalance(store=store, workers=workers, moves=moves)

    def run(self, topic: str = TOPIC, *, lost: int = -1) -> tuple[int, int]:
        """How many were looked at and moved. The answer of the page `lost` gets lost."""
        looked_at = moved = 0
        cursor = ""
        for number in range(1000):
            if number == lost:
                self._both[1].page(topic, cursor)
            looked, now_moved, cursor = self._both[0].page(topic, cursor)
            looked_at, moved = looked_at + looked, moved + now_moved
            self.largest_page = max(self.largest_page, looked)
            self._both.reverse()
            if not cursor:
                return looked_at, moved
        raise AssertionError("no end after 1,000 pages")


@pytest.fixture(autouse=True)
def _small_pages(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "LOOKED_AT_ONCE", 40)


def fill(store: FullStore, owner: str, count: int, topic: str = TOPIC) -> list[str]:
    due = store.now_ms() + HOUR
    messages = [message(due + i, topic=topic) for i in range(count)]
    put(store, *messages, owner=owner)
    return [m.msg_id for m in messages]


def owners_of(store: FullStore, ids: Sequence[str]) -> Counter[str]:
    return Counter(stored.owner for stored in store.get(ids) if stored)


def test_new_workers_get_their_share_and_no_more_is_moved_than_that_takes(
    store: FullStore,
) -> None:
    ids = fill(store, A, 200) + fill(store, B, 100)
    other = fill(store, A, 50, topic="other")
    centers = Centers(store, Topic(name=TOPIC), {A: 100, B: 100, C: 100})
    _, moved = centers.run()
    assert owners_of(store, ids) == {A: 100, B: 100, C: 100}
    assert moved == 100
    assert owners_of(store, other) == {A: 50}
    assert centers.run()[1] == 0


def test_shares_are_those_of_the_topic(store: FullStore) -> None:
    ids = fill(store, A, 100)
    weighted = Topic(name=TOPIC, balance="weighted_round_robin", workers=(A, B))
    Centers(store, weighted, {A: 10, B: 30, C: 60}).run()
    assert owners_of(store, ids) == {A: 25, B: 75}


def test_those_that_may_not_hold_it_give_all_away(store: FullStore) -> None:
    ids = fill(store, GONE, 60) + fill(store, NO_OWNER, 30) + fill(store, C, 10)
    Centers(store, Topic(name=TOPIC), {A: 100, B: 100, C: 0}).run()
    assert owners_of(store, ids) == {A: 50, B: 50}


def test_without_a_worker_nothing_is_moved(store: FullStore) -> None:
    ids = fill(store, A, 60)
    assert Centers(store, Topic(name=TOPIC), {}).run()[1] == 0
    assert owners_of(store, ids) == {A: 60}


def test_an_empty_store_and_an_unknown_topic_end_at_once(store: FullStore) -> None:
    centers = Centers(store, Topic(name=TOPIC), {A: 100})
    assert centers.run() == (0, 0)
    fill(store, A, 5)
    assert centers.run("unknown")[1] == 0


@pytest.mark.parametrize("lost", [0, 4, 9, 10])
def test_a_page_whose_answer_got_lost_is_asked_for_again(store: FullStore, lost: int) -> None:
    ids = fill(store, A, 300)
    centers = Centers(store, Topic(name=TOPIC), {A: 100, B: 100, C: 100})
    centers.run(lost=lost)
    found = owners_of(store, ids)
    assert found.total() == 300
    # Redis gives all of a small shard at once, more than it was asked for
    assert centers.largest_page < 150
    assert all(abs(found[worker] - 100) <= centers.largest_page for worker in (A, B, C))


def test_what_is_being_called_keeps_its_lease(store: FullStore) -> None:
    due = message(store.now_ms())
    put(store, due, owner=A)
    (claim,) = store.claim([due.msg_id])
    assert claim.kind is ClaimKind.FIRE
    Centers(store, Topic(name=TOPIC), {B: 100}).run()
    assert owners_of(store, [due.msg_id]) == {B: 1}
    assert store.claim([due.msg_id])[0].kind is ClaimKind.BUSY


@pytest.mark.parametrize(
    "cursor", ["x", "1", "[]", '[true, ["a"], "", {}]', '[false, 3, "", {}]', '[true, [], "", 1]']
)
def test_what_is_no_cursor_is_refused(store: FullStore, cursor: str) -> None:
    (center, _) = Centers(store, Topic(name=TOPIC), {A: 100})._both
    with pytest.raises(InvalidParams, match="cursor"):
        center.page(TOPIC, cursor)


@given(
    st.dictionaries(st.sampled_from("abcdef"), st.integers(0, 10_000)),
    st.dictionaries(st.sampled_from("abcdef"), st.floats(0.01, 1), min_size=1),
)
def test_the_surplus_is_zero_in_sum_and_leaves_each_its_share(
    counts: dict[str, int], weights: dict[str, float]
) -> None:
    whole = sum(weights.values())
    shares = {owner: weight / whole for owner, weight in weights.items()}
    spare = surplus(counts, shares)
    assert sum(spare.values()) == 0
    for owner, much in spare.items():
        wanted = sum(counts.values()) * shares.get(owner, 0)
        assert abs(counts.get(owner, 0) - much - wanted) < 1 + 1e-6
