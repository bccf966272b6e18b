"""Message ids: UUIDv7s with the time of the store's clock.

The store and other receivers judge an unknown id by its time. Made with the wall clock of a host
that is an hour behind, a cancel right after the submit would find no message.
"""

import os
from collections.abc import Callable, Iterator

BACK_MS = 10_000
"""When the clock is set back by more, so are the ids: too far ahead of it they are refused."""
_COUNTER_BITS = 12
_SEED_BITS = 11
_TAIL_BITS = 62
_BLOCK = 256
"""Random numbers for which the system is asked at once."""


class Ids:
    """Each call gives an id that is unique, and sorts after the one before (RFC 9562, 6.2,
    method 1: a counter behind the milliseconds that begins anywhere in its lower half)."""

    def __init__(self, now_ms: Callable[[], int]) -> None:
        self._now_ms = now_ms
        self._random = _numbers()
        self._ms = 0
        self._counter = 0

    def __call__(self) -> str:
        now = self._now_ms()
        if now > self._ms or now < self._ms - BACK_MS:
            self._ms, self._counter = now, self._bits(_SEED_BITS)
        else:
            self._counter += 1
            if self._counter >> _COUNTER_BITS:
                self._ms, self._counter = self._ms + 1, self._bits(_SEED_BITS)
        head = self._ms << 16 | 0x7 << 12 | self._counter
        text = f"{head << 64 | 0b10 << _TAIL_BITS | self._bits(_TAIL_BITS):032x}"
        return f"{text[:8]}-{text[8:12]}-{text[12:16]}-{text[16:20]}-{text[20:]}"

    def _bits(self, count: int) -> int:
        return next(self._random) >> (64 - count)


def _numbers() -> Iterator[int]:
    """Random ones of 64 bits."""
    while True:
        yield from memoryview(os.urandom(8 * _BLOCK)).cast("Q")
