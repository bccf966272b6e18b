"""Which worker gets a message. Pure."""

import random
from collections.abc import Callable, Collection, Sequence
from itertools import count

from soraka.message import NO_OWNER, Topic


def candidates(topic: Topic | None, live: Collection[str]) -> list[str]:
    """The live workers that may hold messages of `topic`, in a fixed order.

    When none of the workers set for the topic lives, every live one may: a message on time
    with the wrong worker is better than a late one.
    """
    chosen = sorted(set(topic.workers).intersection(live)) if topic else []
    return chosen or sorted(live)


class Balancer:
    """Chooses by each topic's strategy. `pick` is a source of randomness, for tests."""

    def __init__(self, pick: Callable[[Sequence[str]], str] = random.choice) -> None:
        self._pick = pick
        self._turns: dict[str, count[int]] = {}

    def choose(self, name: str, topic: Topic | None, live: Collection[str]) -> str:
        """A worker's address for a message of the topic `name`; NO_OWNER when none lives.

        `topic` is None while its settings are not known here yet.
        """
        workers = candidates(topic, live)
        if not workers:
            return NO_OWNER
        if topic is not None and topic.balance == "random":
            return self._pick(workers)
        return workers[next(self._turns.setdefault(name, count())) % len(workers)]
