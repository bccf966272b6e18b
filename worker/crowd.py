"""Claims that come to nothing, kept few.

Which host a message is for is seen only when it is claimed. Of a burst for one host, which answers
as fast as it can, most would be claimed only to be given back, and claimed again: work that makes a
busy worker slower, and the crowd larger.
"""

from worker.gates import Full, Gates
from worker.request import Origin

SHARE = 0.1
"""So many may be turned away for each one let in: behind them may be some for other hosts."""
MOST = 200.0
FAST_MS = 100.0
"""Hosts whose calls take longer do not count, nor do the limits of topics: who comes for them is
sent away for long, and those behind must be found."""
LEAST = 20
"""Fewer are not worth a claim."""


class Crowd:
    """At the gate of the host that turned somebody away last."""

    def __init__(self, gates: Gates) -> None:
        self._gates = gates
        self._credit = MOST
        self._before: tuple[Origin, str] | None = None

    def let_in(self) -> None:
        self._credit = min(MOST, self._credit + SHARE)

    def turned_away(self, host: Origin, topic: str, full: Full) -> None:
        if full is Full.HOST and self._gates.is_fast(host, FAST_MS):
            self._credit = max(-MOST, self._credit - 1)
            self._before = (host, topic)

    def bounded(self, claims: int) -> int:
        """How many of so many claims to make now: without credit, what there is room for."""
        if self._credit > 0 or self._before is None:
            return claims
        host, topic = self._before
        if not self._gates.is_fast(host, FAST_MS):
            return claims
        room = self._gates.room(host, topic)
        return min(claims, room if room >= LEAST else 0)
