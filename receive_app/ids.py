"""Message ids: UUIDv7s with the time of the store's clock.

The store and other receivers judge an unknown id by its time. Made with the wall clock of a host
that is an hour behind, a cancel right after the submit would find no message.
"""

import os

BACK_MS = 10_000
"""When the clock is set back by more, so are the ids: too far ahead of it they are refused."""
_COUNTER_BITS = 12
_SEED_BITS = 11
_VARIANTS = {f"{digit:x}": "89ab"[digit & 3] for digit in range(16)}
_BLOCK = 256
"""Ids for which the system is asked for random bits at once."""


class Ids:
    """Each call gives an id that is unique, and sorts after the one before (RFC 9562, 6.2,
    method 1: a counter behind the milliseconds that begins anywhere in its lower half). It is
    given the time, in ms since the epoch."""

    def __init__(self) -> None:
        self._tails: list[str] = []
        self._ms = 0
        self._counter = 0
        self._head = ""

    def __call__(self, now_ms: int) -> str:
        if now_ms > self._ms or now_ms < self._ms - BACK_MS:
            self._begin(now_ms)
        else:
            self._counter += 1
            if self._counter >> _COUNTER_BITS:
                self._begin(self._ms + 1)
        return f"{self._head}{self._counter:03x}{self._tail()}"

    def _tail(self) -> str:
        if not self._tails:
            self._tails = _tails()
        return self._tails.pop()

    def _begin(self, ms: int) -> None:
        digits = f"{ms:012x}"
        self._ms, self._head = ms, f"{digits[:8]}-{digits[8:]}-7"
        self._counter = int(self._tail()[-3:], 16) >> (12 - _SEED_BITS)


def _tails() -> list[str]:
    """Second halves of UUIDs, 62 bits of each random."""
    digits = os.urandom(8 * _BLOCK).hex()
    return [
        f"-{_VARIANTS[digits[at]]}{digits[at + 1 : at + 4]}-{digits[at + 4 : at + 16]}"
        for at in range(0, len(digits), 16)
    ]
