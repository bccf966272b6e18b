"""Which worker gets a message."""

from collections import Counter

import pytest

from center.balance import Balancer, candidates
from soraka.message import NO_OWNER, Topic

LIVE = {"b:1", "a:1", "c:1"}


def test_every_live_worker_may_hold_a_topic_without_workers_of_its_own() -> None:
    assert candidates(Topic(name="t"), LIVE) == ["a:1", "b:1", "c:1"]
    assert candidates(None, LIVE) == ["a:1", "b:1", "c:1"]


def test_a_topic_keeps_to_its_workers_while_one_lives() -> None:
    assert candidates(Topic(name="t", workers=("c:1", "x:1")), LIVE) == ["c:1"]
    assert candidates(Topic(name="t", workers=("x:1",)), LIVE) == ["a:1", "b:1", "c:1"]


def test_no_worker_no_owner() -> None:
    assert Balancer().choose("t", Topic(name="t"), set()) == NO_OWNER


def test_round_robin_takes_turns_per_topic() -> None:
    balancer = Balancer()
    t, u = Topic(name="t"), Topic(name="u")
    assert [balancer.choose("t", t, LIVE) for _ in range(4)] == ["a:1", "b:1", "c:1", "a:1"]
    assert balancer.choose("u", u, LIVE) == "a:1"
    assert balancer.choose("t", t, {"z:1"}) == "z:1"


def test_random_reaches_all() -> None:
    balancer = Balancer()
    topic = Topic(name="t", balance="random")
    seen = Counter(balancer.choose("t", topic, LIVE) for _ in range(600))
    assert seen.keys() == LIVE
    assert min(seen.values()) > 100


@pytest.mark.parametrize("balance", ["random", "round_robin"])
def test_one_worker_gets_all(balance: str) -> None:
    topic = Topic(name="t", balance=balance)
    assert {Balancer().choose("t", topic, {"a:1"}) for _ in range(5)} == {"a:1"}
