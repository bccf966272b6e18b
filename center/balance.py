"""Which worker gets a message. Pure.

`Balancer.choose` runs once per message: it costs 1 to 4 µs. What depends on the workers and the
settings alone is worked out once per topic, in a plan, which lasts until one of them changes; what
changes with each heartbeat is read off the pulses.
"""

import random
from collections import defaultdict
from collections.abc import Callable, Collection, Iterable, Sequence
from itertools import accumulate, count

from center.pulse import Pulse
from soraka.message import NO_OWNER, Topic

Weigh = Callable[[Pulse], float]
Choice = Callable[[], Pulse]


def candidates(topic: Topic | None, workers: Iterable[Pulse]) -> list[Pulse]:
    """Those that may get messages of `topic` now, in a fixed order.

    None that drains or has the weight 0 (unless all have). The good ones of the topic's own
    workers; else any good one; else those that have missed heartbeats, the topic's own first:
    a message on time with the wrong worker is better than a late one, and one whose heartbeats
    do not reach us may work all the same.
    """
    takers = sorted((w for w in workers if not w.draining), key=lambda w: w.address)
    takers = [w for w in takers if w.weight > 0] or takers
    good = [w for w in takers if w.good]
    own = set(topic.workers) if topic else ()
    return (
        [w for w in good if w.address in own]
        or good
        or [w for w in takers if w.address in own]
        or takers
    )


def weigh(topic: Topic | None) -> Weigh:
    """How the weighted strategies of `topic` weigh a worker; above 0."""
    if topic is not None and topic.weigh_by == "load":
        return lambda worker: worker.capacity
    return lambda worker: float(worker.weight or 1)


def shares(topic: Topic | None, workers: Iterable[Pulse]) -> dict[str, float]:
    """What part of the messages of `topic` each worker should have, by address; 1 in sum."""
    chosen = candidates(topic, workers)
    measure: Weigh = lambda _: 1.0  # noqa: E731
    if topic is not None and topic.balance.startswith("weighted"):
        measure = weigh(topic)
    elif topic is not None and topic.balance == "least_loaded":
        measure = lambda worker: (worker.weight or 1) / worker.slowness  # noqa: E731
    weights = {worker.address: measure(worker) for worker in chosen}
    whole = sum(weights.values())
    return {address: weight / whole for address, weight in weights.items()}


class _Plan:
    """The choice for one topic, with the settings it was made for."""

    __slots__ = ("next", "topic")

    def __init__(self, topic: Topic | None, next: Choice | None) -> None:
        self.topic = topic
        self.next = next


class Balancer:
    """Chooses by each topic's strategy. `source` is of randomness, for tests."""

    def __init__(self, source: random.Random | None = None) -> None:
        self._random = (source or random.Random()).random
        self._workers: tuple[Pulse, ...] = ()
        self._plans: dict[tuple[str, str] | str, _Plan] = {}
        self._turns: dict[str, count[int]] = {}
        self._credits: dict[str, dict[str, float]] = defaultdict(dict)

    def follow(self, workers: Collection[Pulse]) -> None:
        """From now on chooses among these. To be told again when one of them turns good or bad,
        begins to drain or gets another weight."""
        self._workers = tuple(workers)
        self._plans.clear()

    def choose(self, name: str, topic: Topic | None, excluded: str = "") -> str:
        """A worker's address for a message of the topic `name`, not `excluded`; NO_OWNER when
        there is none.

        `topic` is None while its settings are not known here yet.
        """
        plan = self._plans.get((name, excluded) if excluded else name)
        if plan is None or plan.topic is not topic:
            plan = self._make_plan(name, topic, excluded)
        if plan.next is None:
            return NO_OWNER
        worker = plan.next()
        worker.assigned += 1
        return worker.address

    def others(self, excluded: str) -> list[Pulse]:
        """Who takes messages of topics without workers of their own, but for `excluded`."""
        return candidates(None, (w for w in self._workers if w.address != excluded))

    def shares(self, topic: Topic | None) -> dict[str, float]:
        return shares(topic, self._workers)

    def _make_plan(self, name: str, topic: Topic | None, excluded: str) -> _Plan:
        workers = candidates(topic, (w for w in self._workers if w.address != excluded))
        plan = _Plan(topic, self._strategy(name, topic, workers) if workers else None)
        self._plans[(name, excluded) if excluded else name] = plan
        return plan

    def _strategy(self, name: str, topic: Topic | None, workers: Sequence[Pulse]) -> Choice:
        match topic.balance if topic else "":
            case _ if len(workers) == 1:
                return lambda: workers[0]
            case "random":
                return _at_random(workers, self._random)
            case "weighted_random":
                return _weighted_random(workers, weigh(topic), self._random)
            case "weighted_round_robin":
                return _smooth_round_robin(workers, weigh(topic), self._credits[name])
            case "least_loaded":
                return _less_loaded_of_two(workers, self._random)
        return _in_turn(workers, self._turns.setdefault(name, count()))


def _in_turn(workers: Sequence[Pulse], turns: "count[int]") -> Choice:
    size = len(workers)
    return lambda: workers[next(turns) % size]


def _at_random(workers: Sequence[Pulse], number: Callable[[], float]) -> Choice:
    size = len(workers)
    return lambda: workers[int(number() * size)]


def _weighted_random(
    workers: Sequence[Pulse], weight: Weigh, number: Callable[[], float]
) -> Choice:
    last = workers[-1]

    def choose() -> Pulse:
        sums = list(accumulate(map(weight, workers)))
        at = number() * sums[-1]
        for worker, limit in zip(workers, sums, strict=True):
            if at < limit:
                return worker
        return last  # by rounding

    return choose


def _smooth_round_robin(
    workers: Sequence[Pulse], weight: Weigh, credits: dict[str, float]
) -> Choice:
    """As nginx does: each gets its weight as credit, the richest is chosen and pays the sum. So
    one of a weight of 5 beside 1 and 1 comes five times in seven, but not five times running."""
    for gone in credits.keys() - {worker.address for worker in workers}:
        del credits[gone]
    accounts = [(worker, worker.address) for worker in workers]

    def choose() -> Pulse:
        whole, richest, most = 0.0, workers[0], float("-inf")
        for worker, address in accounts:
            earned = weight(worker)
            whole += earned
            has = credits[address] = credits.get(address, 0.0) + earned
            if has > most:
                richest, most = worker, has
        credits[richest.address] = most - whole
        return richest

    return choose


def _less_loaded_of_two(workers: Sequence[Pulse], number: Callable[[], float]) -> Choice:
    """Of two at random the one with less to do. The least of all would get everything from each
    center until its next heartbeat."""
    size = len(workers)

    def choose() -> Pulse:
        first = int(number() * size)
        second = int(number() * (size - 1))
        a, b = workers[first], workers[second + (second >= first)]
        return b if b.busy() < a.busy() else a

    return choose
