"""Which worker gets a message, and how many each gets."""

import random
from collections import Counter

import pytest

from center.balance import Balancer, candidates, shares
from center.pulse import LEAST, MISSES, Load, Pulse, free_capacity, slowness
from soraka.limits import BALANCES
from soraka.message import NO_OWNER, Instance, Topic

BUSY = Load(held=5_000, in_flight=1_000, cpu=0.5, memory_bytes=100 << 20)


def worker(address: str, *, weight: int = 100, draining: bool = False) -> Pulse:
    return Pulse(
        Instance(
            service="worker", address=address, incarnation="1", weight=weight, draining=draining
        )
    )


def workers(*weights: int) -> list[Pulse]:
    return [worker(f"{chr(ord('a') + i)}:1", weight=weight) for i, weight in enumerate(weights)]


def silenced(pulse: Pulse) -> Pulse:
    for _ in range(MISSES):
        pulse.silent(1000)
    return pulse


def balancer(*members: Pulse, seed: int = 7) -> Balancer:
    made = Balancer(random.Random(seed))
    made.follow(members)
    return made


def names(found: list[Pulse]) -> str:
    return "".join(pulse.address[0] for pulse in found)


def dealt(made: Balancer, topic: Topic, times: int) -> str:
    """Whom it chooses, one letter each."""
    return "".join(made.choose("t", topic)[0] for _ in range(times))


# ---------------------------------------------------------------- candidates


def test_every_worker_may_hold_a_topic_without_workers_of_its_own() -> None:
    a, b, c = workers(100, 100, 100)
    assert names(candidates(Topic(name="t"), [c, a, b])) == "abc"
    assert names(candidates(None, [c, a, b])) == "abc"


def test_a_topic_keeps_to_its_workers_while_one_is_good() -> None:
    a, b, c = workers(100, 100, 100)
    topic = Topic(name="t", workers=("c:1", "b:1", "x:1"))
    assert names(candidates(topic, [a, b, c])) == "bc"
    silenced(c)
    assert names(candidates(topic, [a, b, c])) == "b"
    silenced(b)
    assert names(candidates(topic, [a, b, c])) == "a"
    silenced(a)
    assert names(candidates(topic, [a, b, c])) == "bc"
    assert names(candidates(Topic(name="t", workers=("x:1",)), [a, b, c])) == "abc"


def test_one_that_drains_gets_nothing_even_if_there_is_no_other() -> None:
    a, b = worker("a:1", draining=True), worker("b:1")
    assert names(candidates(None, [a, b])) == "b"
    b.answered(Load(draining=True), 1.0)
    assert candidates(None, [a, b]) == []
    assert balancer(a, b).choose("t", Topic(name="t")) == NO_OWNER


@pytest.mark.parametrize("balance", BALANCES)
def test_the_weight_0_takes_nothing_unless_all_have_it(balance: str) -> None:
    topic = Topic(name="t", balance=balance)
    assert set(dealt(balancer(*workers(0, 100, 50)), topic, 300)) == {"b", "c"}
    assert set(dealt(balancer(*workers(0, 0)), topic, 300)) == {"a", "b"}


# ---------------------------------------------------------------- the same for all strategies


@pytest.mark.parametrize("balance", BALANCES)
def test_no_worker_no_owner_and_one_worker_gets_all(balance: str) -> None:
    topic = Topic(name="t", balance=balance)
    made = balancer()
    assert made.choose("t", topic) == NO_OWNER
    made.follow(workers(100))
    assert dealt(made, topic, 5) == "aaaaa"
    assert made.choose("t", topic, excluded="a:1") == NO_OWNER


@pytest.mark.parametrize("balance", BALANCES)
def test_the_excluded_one_is_never_chosen(balance: str) -> None:
    topic = Topic(name="t", balance=balance)
    made = balancer(*workers(100, 100, 100))
    chosen = {made.choose("t", topic, excluded="b:1") for _ in range(200)}
    assert chosen == {"a:1", "c:1"}
    assert "b" in dealt(made, topic, 200)


@pytest.mark.parametrize("balance", BALANCES)
def test_new_settings_and_new_workers_count_from_the_next_choice_on(balance: str) -> None:
    a, b, c = workers(100, 100, 100)
    made = balancer(a, b)
    assert set(dealt(made, Topic(name="t", balance=balance), 200)) == {"a", "b"}
    own = Topic(name="t", balance=balance, workers=("b:1",))
    assert set(dealt(made, own, 20)) == {"b"}
    made.follow([a, c])
    assert set(dealt(made, own, 200)) == {"a", "c"}


# ---------------------------------------------------------------- strategies


def test_round_robin_takes_turns_per_topic() -> None:
    made = balancer(*workers(100, 1, 50))
    t, u = Topic(name="t"), Topic(name="u")
    assert dealt(made, t, 4) == "abca"
    assert made.choose("u", u) == "a:1"
    assert dealt(made, t, 2) == "bc"


def test_a_topic_not_known_yet_goes_in_turns() -> None:
    made = balancer(*workers(100, 100))
    assert [made.choose("t", None) for _ in range(3)] == ["a:1", "b:1", "a:1"]


def test_smooth_round_robin_is_exact_and_spreads() -> None:
    topic = Topic(name="t", balance="weighted_round_robin")
    made = balancer(*workers(5, 1, 1))
    assert dealt(made, topic, 7) == "aabacaa"
    assert dealt(made, topic, 7) == "aabacaa"


def test_smooth_round_robin_goes_on_when_the_workers_change() -> None:
    topic = Topic(name="t", balance="weighted_round_robin")
    a, b, c = workers(100, 100, 200)
    made = balancer(a, b, c)
    for _ in range(50):  # were it to begin anew each time, it would be c's turn each time
        made.follow([a, b, c])
        dealt(made, topic, 1)
    assert [p.assigned for p in (a, b, c)] == [pytest.approx(n, abs=1) for n in (12, 12, 25)]


def _chi_square(counts: Counter[str], expected: dict[str, float]) -> float:
    return sum((counts[name] - wanted) ** 2 / wanted for name, wanted in expected.items())


@pytest.mark.parametrize(
    ("balance", "expected"),
    [
        ("random", {"a": 3000, "b": 3000, "c": 3000}),
        ("weighted_random", {"a": 6000, "b": 2000, "c": 1000}),
    ],
)
def test_random_ones_follow_the_weights(balance: str, expected: dict[str, float]) -> None:
    topic = Topic(name="t", balance=balance)
    counts = Counter(dealt(balancer(*workers(60, 20, 10)), topic, 9000))
    assert _chi_square(counts, expected) < 13.8  # 2 degrees of freedom, one in a thousand


@pytest.mark.parametrize("balance", ["weighted_round_robin", "weighted_random"])
def test_weights_by_load_follow_each_heartbeat(balance: str) -> None:
    topic = Topic(name="t", balance=balance, weigh_by="load")
    a, b = members = workers(100, 1)
    made = balancer(*members)
    even = Counter(dealt(made, topic, 4000))
    assert even["a"] == pytest.approx(2000, rel=0.1)  # whatever was set by hand
    a.answered(BUSY, 1.0)
    b.answered(Load(), 1.0)
    counts = Counter(dealt(made, topic, 4000))
    assert counts["a"] / counts["b"] == pytest.approx(a.capacity / b.capacity, rel=0.15)
    assert 0.2 < a.capacity / b.capacity < 0.4


def test_least_loaded_shares_a_batch_between_two_heartbeats() -> None:
    """All 1,000 to the one that had least would be the old way to overload it."""
    topic = Topic(name="t", balance="least_loaded")
    a, b, c = members = workers(100, 100, 100)
    a.answered(Load(held=300), 1.0)
    b.answered(Load(held=0), 1.0)
    c.answered(Load(held=100, in_flight=50), 1.0)
    dealt(balancer(*members), topic, 1000)
    final = [p.assigned + p.load.held + p.load.in_flight for p in members if p.load]
    assert max(final) - min(final) < 30
    assert sum(p.assigned for p in members) == 1000


def test_least_loaded_heeds_weights() -> None:
    topic = Topic(name="t", balance="least_loaded")
    a, b, c = workers(300, 100, 100)
    dealt(balancer(a, b, c), topic, 5000)
    # the biggest one is among the two in two of three choices, and cannot get more than those
    assert a.assigned / 5000 == pytest.approx(3 / 5, abs=0.03)
    assert b.assigned == pytest.approx(c.assigned, rel=0.05)


def test_least_loaded_spares_one_that_answers_late() -> None:
    topic = Topic(name="t", balance="least_loaded")
    slow, fine, best = workers(100, 100, 100)
    slow.answered(Load(), 150.0)
    fine.answered(Load(), 2.0)
    best.answered(Load(), 2.0)
    counts = Counter(dealt(balancer(slow, fine, best), topic, 10_000))
    assert counts["a"] < 100
    assert counts["b"] == pytest.approx(counts["c"], rel=0.05)


def test_what_was_assigned_since_the_question_is_not_yet_in_the_answer() -> None:
    (a,) = workers(100)
    made = balancer(a)
    topic = Topic(name="t")
    dealt(made, topic, 10)
    a.asked()
    dealt(made, topic, 4)
    a.answered(Load(held=10), 1.0)
    assert a.assigned == 4
    a.asked()
    a.silent(1000)
    assert a.assigned == 4


# ---------------------------------------------------------------- heartbeats and weights


def test_a_worker_is_good_until_it_misses_three_and_again_when_it_answers() -> None:
    (a,) = workers(100)
    verdicts = []
    for _ in range(MISSES):
        a.silent(1000)
        verdicts.append(a.good)
    assert verdicts == [True, True, False]
    a.answered(Load(), 1.0)
    assert a.good


def test_one_whose_loop_stands_still_misses_though_it_answers() -> None:
    (a,) = workers(100)
    a.answered(Load(last_turn_ms=10_000), 1.0)
    assert a.stuck
    assert not a.good
    assert a.missed == 1
    a.answered(Load(last_turn_ms=9_999), 1.0)
    assert a.good
    assert not a.stuck


def test_capacity_falls_with_all_that_a_worker_has_to_do() -> None:
    idle = free_capacity(Load(), 0.0)
    assert idle == 1.0
    for more in (
        [Load(cpu=cpu) for cpu in (0.2, 0.5, 0.9)],
        [Load(held=held) for held in (100, 1_000, 40_000)],
        [Load(in_flight=busy) for busy in (100, 1_000, 40_000)],
        [Load(memory_bytes=used) for used in (1 << 20, 1 << 28, 1 << 32)],
    ):
        capacities = [idle, *(free_capacity(load, 0.0) for load in more)]
        assert capacities == sorted(capacities, reverse=True)
        assert len(set(capacities)) == 4
    assert free_capacity(Load(), 100.0) < free_capacity(Load(), 20.0) < idle
    assert free_capacity(Load(cpu=3.0, held=10**9, memory_bytes=1 << 40), 60_000) == LEAST


def test_capacity_is_smoothed() -> None:
    (a,) = workers(100)
    a.answered(Load(), 0.0)
    a.answered(Load(cpu=1.0), 0.0)
    assert a.capacity == pytest.approx(0.7, abs=0.01)
    for _ in range(20):
        a.answered(Load(cpu=1.0), 0.0)
    assert a.capacity == pytest.approx(LEAST, abs=0.01)


def test_slowness_begins_at_1_and_doubles_at_our_aim() -> None:
    assert slowness(0) == 1
    assert slowness(20) == 2
    assert slowness(5) < 1.02
    assert slowness(100) > 100


def test_a_late_answer_counts_at_once_and_fades() -> None:
    (a,) = workers(100)
    lags = []
    for took_ms in (5.0, 100.0, 5.0, 5.0, 5.0):
        a.answered(Load(), took_ms)
        lags.append(a.lag_ms)
    assert lags == [5.0, 100.0, *(pytest.approx(lag) for lag in (80.0, 64.0, 51.2))]


@pytest.mark.parametrize(
    ("topic", "wanted"),
    [
        (Topic(name="t"), [1 / 3, 1 / 3, 1 / 3]),
        (Topic(name="t", balance="weighted_random"), [0.6, 0.3, 0.1]),
        (Topic(name="t", balance="least_loaded"), [0.6, 0.3, 0.1]),
        (Topic(name="t", workers=("b:1",)), [0, 1, 0]),
    ],
)
def test_shares_are_what_the_strategy_gives_in_the_long_run(
    topic: Topic, wanted: list[float]
) -> None:
    found = shares(topic, workers(60, 30, 10))
    assert [found.get(f"{name}:1", 0) for name in "abc"] == pytest.approx(wanted)
    assert shares(topic, []) == {}
