"""Which message is sent when, how, and what else is done to it: a function of seed and number."""

import random
from dataclasses import dataclass

BLOCK = 10
"""Messages with consecutive numbers that go the same way; a batch is one block."""
TTR_MS = 2000
FAR_MS = 1_800_000
"""Beyond the end of any test: such a message is cancelled."""
WAYS = ("http", "http batch", "thrift", "thrift batch")
GIVEN_UP = 99
"""So many failures are more than any message has attempts."""


@dataclass(frozen=True, slots=True)
class Plan:
    """One message. `cancel_ms` and the first of each of `adds` count from when its submit was
    answered; the first `failures` attempts are answered with 500, each after `wait_ms`."""

    number: int
    via: str
    method: str
    delay_ms: int
    retry_ms: tuple[int, ...]
    failures: int
    wait_ms: int
    cancel_ms: int | None
    adds: tuple[tuple[int, int], ...]


def plan(seed: int, number: int) -> Plan:
    """The same for the same seed and number."""
    chance = random.Random(f"{seed}:{number}")
    delay_ms = _delay(chance)
    failures = chance.choices((0, 1, 2, GIVEN_UP), (86, 8, 3, 3))[0]
    far = delay_ms == FAR_MS
    return Plan(
        number=number,
        via=random.Random(f"{seed}:block:{number // BLOCK}").choice(WAYS),
        method=chance.choice(("GET", "POST")),
        delay_ms=delay_ms,
        retry_ms=(300, 300) if failures == GIVEN_UP else (400, 700, 1000, 1500, 3000),
        failures=failures,
        wait_ms=chance.choices((0, 100, 300), (80, 15, 5))[0],
        cancel_ms=_cancel(chance, delay_ms) if far or chance.random() < 0.18 else None,
        adds=() if far or chance.random() < 0.85 else _adds(chance, delay_ms),
    )


def _delay(chance: random.Random) -> int:
    least, most = chance.choices(
        ((0, 0), (1, 300), (300, 1500), (1500, 3500), (3500, 6000), (FAR_MS, FAR_MS)),
        (25, 20, 25, 18, 9, 3),
    )[0]
    return chance.randint(least, most)


def _cancel(chance: random.Random, delay_ms: int) -> int:
    """At once, some time before, or right when it falls due."""
    if delay_ms == FAR_MS:
        return chance.randint(0, 3000)
    return chance.choice((0, delay_ms // 2, max(0, delay_ms - 30), delay_ms))


def _adds(chance: random.Random, delay_ms: int) -> tuple[tuple[int, int], ...]:
    """One or two, so that the sum of all delays stays a few seconds."""
    return tuple(
        (chance.randint(0, delay_ms), chance.randint(1, 1500)) for _ in range(chance.randint(1, 2))
    )
