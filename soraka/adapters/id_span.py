"""A Query as a range of ids. Pure.

Ids are UUIDv7: in their order as text they are in the order of their times.
"""

from typing import NamedTuple

from soraka.ports import Query

LAST = "\U0010ffff"
"""After every id, and after all that begin alike."""


class IdSpan(NamedTuple):
    """From `low` on and before `high`."""

    low: str
    high: str

    @property
    def empty(self) -> bool:
        return self.low >= self.high


def id_span(query: Query, cursor: str) -> IdSpan:
    """`cursor` is the last id of the page before, or ''."""
    low, high = [query.prefix], [query.prefix + LAST]
    if query.since > 0:
        low.append(_begin(query.since))
    if query.until < 1 << 48:
        high.append(_begin(query.until))
    if cursor:
        high.append(cursor)
    return IdSpan(max(low), min(high))


def _begin(at: int) -> str:
    """How ids of that moment begin. Those before it are less."""
    digits = f"{max(0, min(at, (1 << 48) - 1)):012x}"
    return f"{digits[:8]}-{digits[8:]}"
