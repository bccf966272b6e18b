"""Which fault strikes what, when and for how long: a function of the seed. Pure."""

import random
from collections.abc import Iterator
from dataclasses import dataclass

KINDS: dict[str, tuple[tuple[str, ...], int]] = {
    # kind: what it may strike, and how many seconds it lasts at most
    "kill": (("worker0", "worker1", "far", "center0", "center1", "receive", "receive1"), 8),
    "stop": (("worker0", "worker1", "far", "center0", "center1"), 30),
    "drain": (("worker0", "worker1", "center0", "center1"), 4),
    "redis loses its tail": (("redis",), 3),
    "outage": (("kafka", "zookeeper"), 10),
    "cut": (("far redis", "far zookeeper"), 10),
    "frozen": (("far redis", "far zookeeper"), 10),
    "poison": (("the log",), 0),
}
OVERLAP = 0.3
"""How often a fault begins while the one before is on."""
CALM_S = (2, 12)
RECOVERY_S = 15
"""A target is left alone for so long after it was struck."""


@dataclass(frozen=True, slots=True)
class Strike:
    """`at_s` counts from the begin of the load."""

    at_s: float
    kind: str
    target: str
    lasts_s: float


def schedule(seed: int, until_s: float) -> Iterator[Strike]:
    """The strikes of a run, those that begin before `until_s`."""
    chance = random.Random(f"{seed}:faults")
    at_s = 5.0
    free_at: dict[str, float] = {}
    while at_s < until_s:
        kind = chance.choice(sorted(KINDS))
        targets, longest_s = KINDS[kind]
        target = chance.choice(targets)
        lasts_s = round(chance.uniform(0, 1) ** 2 * longest_s, 1)
        calm_s = chance.uniform(*CALM_S)
        overlaps = chance.random() < OVERLAP
        process = target.split()[0]  # a link of a worker and the worker are one target
        if free_at.get(process, 0.0) > at_s:
            continue
        yield Strike(at_s, kind, target, lasts_s)
        free_at[process] = at_s + lasts_s + RECOVERY_S
        at_s += lasts_s / 2 if overlaps else lasts_s + calm_s
