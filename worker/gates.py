"""At most so many callbacks to one host at once, and what becomes of those beyond.

A few wait at the gate of their host, claimed, while their lease leaves time. The rest are told
when to come back: each gets the next place in a line that moves as fast as the host has been
answering. So a slow host is asked for again about when it can serve, and holds up no other.
"""

import time
from collections import OrderedDict, deque
from dataclasses import dataclass, field

from gevent.event import AsyncResult

from worker.request import Origin

MAX_HOSTS = 10_000
MIN_DELAY_MS = 20
MAX_DELAY_MS = 60_000
"""A host that recovers is tried again with everything within this time."""
_FIRST_GUESS_MS = 20.0
_WEIGHT = 0.2


@dataclass(slots=True)
class _Gate:
    """`mean_ms` is the moving mean of durations; `line_end` when the last sent away comes back.

    `moved` is when a call last entered or left: all that run are at least that old.
    """

    running: int = 0
    waiting: "deque[AsyncResult[bool]]" = field(default_factory=deque)
    mean_ms: float = _FIRST_GUESS_MS
    line_end: float = 0.0
    moved: float = 0.0


class Gates:
    """`limit` calls per host run, as many wait."""

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._gates: OrderedDict[Origin, _Gate] = OrderedDict()
        self._closed = False
        self.waiting = 0
        """Calls at all gates that wait to be let in."""

    def is_full(self, host: Origin) -> bool:
        """Whether `enter` would wait or refuse."""
        gate = self._gates.get(host)
        return gate is not None and gate.running >= self._limit

    def enter(self, host: Origin, wait_s: float) -> bool:
        """Whether the call may begin; then `leave` must follow. Waits up to `wait_s`."""
        gate = self._gate(host)
        if self._closed:
            return False
        if gate.running < self._limit:
            gate.running += 1
            gate.moved = _now_ms()
            return True
        if wait_s <= 0 or len(gate.waiting) >= self._limit:
            return False
        place: AsyncResult[bool] = AsyncResult()
        gate.waiting.append(place)
        self.waiting += 1
        try:
            place.wait(timeout=wait_s)
        except BaseException:
            self._withdraw(gate, place)
            raise
        # let in at the very moment the time ran out: the place is ours all the same
        if not place.ready():
            self._withdraw(gate, place)
        return bool(place.value)

    def leave(self, host: Origin, duration_ms: float) -> None:
        """A call ended; the next that waits takes its place."""
        gate = self._gates[host]
        gate.mean_ms += _WEIGHT * (duration_ms - gate.mean_ms)
        gate.moved = _now_ms()
        self._next(gate)

    def come_back_ms(self, host: Origin) -> int:
        """For one that was not let in: after what time to try again."""
        gate = self._gate(host)
        now = _now_ms()
        call_ms = max(gate.mean_ms, now - gate.moved if gate.running else 0)
        soonest = now + max(MIN_DELAY_MS, call_ms * (1 + len(gate.waiting) / self._limit))
        gate.line_end = max(gate.line_end, soonest) + call_ms / self._limit
        gate.line_end = min(gate.line_end, now + MAX_DELAY_MS)
        return int(gate.line_end - now)

    def close(self) -> None:
        """Lets nobody in any more; those who wait are sent away."""
        self._closed = True
        for gate in self._gates.values():
            while gate.waiting:
                self.waiting -= 1
                gate.waiting.popleft().set(False)

    def _withdraw(self, gate: _Gate, place: "AsyncResult[bool]") -> None:
        if not place.ready():
            self.waiting -= 1
            gate.waiting.remove(place)
        elif place.value:
            self._next(gate)

    def _next(self, gate: _Gate) -> None:
        if gate.waiting:
            self.waiting -= 1
            gate.waiting.popleft().set(True)
        else:
            gate.running -= 1

    def _gate(self, host: Origin) -> _Gate:
        gate = self._gates.get(host)
        if gate is None:
            gate = self._gates[host] = _Gate()
            self._forget_idle()
        else:
            self._gates.move_to_end(host)
        return gate

    def _forget_idle(self) -> None:
        """Drops gates used longest ago, but none in use; how many those are is bounded."""
        for _ in range(2 * (len(self._gates) - MAX_HOSTS)):
            host, gate = self._gates.popitem(last=False)
            if gate.running:
                self._gates[host] = gate


def _now_ms() -> float:
    return time.monotonic() * 1000
