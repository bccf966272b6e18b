"""Claims that come to nothing, kept few.

Which host a message is for is seen only when it is claimed. Of a burst for one host, which answers
as fast as it can, most would be claimed only to be given back, and claimed again: work that makes a
busy worker slower, and the crowd larger.
"""

import time

from worker.gates import Full, Gates
from worker.request import Origin

SHARE = 0.1
"""So many may be turned away for each one let in."""
MOST = 200.0
FAST_PER_SECOND = 1000.0
"""Hosts that take fewer do not count: who comes for them is sent away for long, and those behind
must be found."""
LOOK_S, LOOK = 0.1, 50
"""So often so many are claimed all the same, to find those for other hosts;"""
LONGEST_LOOK_S = 0.8
"""and less and less often while there are none."""


class Crowd:
    """At the gate of the host that turned somebody away last."""

    def __init__(self, gates: Gates) -> None:
        self._gates = gates
        self._credit = MOST
        self._before: tuple[Origin, str] | None = None
        self._look_at = 0.0
        self._look_s = LOOK_S

    def let_in(self, host: Origin) -> None:
        self._credit = min(MOST, self._credit + SHARE)
        if self._before is not None and host != self._before[0]:
            self._look_s = LOOK_S

    def turned_away(self, host: Origin, topic: str, full: Full) -> None:
        if full is Full.HOST and self._gates.is_fast(host, FAST_PER_SECOND):
            self._credit = max(-MOST, self._credit - 1)
            self._before = (host, topic)

    def bounded(self, claims: int) -> int:
        """How many of so many claims to make now: before a fast host that is full, without credit,
        what there is room for, if that is worth a claim."""
        if self._credit > 0 or self._before is None or claims <= 0:
            return claims
        host, topic = self._before
        if self._gates.full(host, topic) is not Full.HOST:
            return claims
        if not self._gates.is_fast(host, FAST_PER_SECOND):
            return claims
        room, worth = self._gates.room_before(host)
        if room >= worth:
            return min(claims, room)
        now = time.monotonic()
        if now < self._look_at:
            return 0
        self._look_at = now + self._look_s
        self._look_s = min(LONGEST_LOOK_S, 2 * self._look_s)
        return min(claims, LOOK)
