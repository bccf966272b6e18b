"""How many calls run at once: of the worker, per callback host, per topic.

A host may have `per_host` calls, but no more than there are places free: k hosts that hang come to
rest with a (k+1)th of the places each, and another host finds as many free. That holds once their
calls end; hosts that come to hang one after the other halve at first what the one before has left.
So a fifth of all places is set aside, of which each host may have a few. A topic may have what its
settings say.

A few of those beyond wait, claimed, while their lease leaves time; the rest are told when to come
back: each gets the next place in a line that moves as fast as the host, or the topic, has been
answering. So a slow host is asked for again about when it can serve, and holds up no other.
"""

import time
from collections import OrderedDict, deque
from collections.abc import Callable
from dataclasses import dataclass
from enum import StrEnum
from typing import NamedTuple

from gevent.event import AsyncResult

from worker.request import Origin

MAX_GATES = 10_000
MIN_DELAY_MS = 20
MAX_DELAY_MS = 60_000
"""A host that recovers is tried again with everything within this time."""
RAMP = 8
"""Calls at once to a host that was away and answers again; one more with each that ends."""
SURE_SHARE = 100
"""One place in so many is sure for each host, while places are set aside for it,"""
SURE_HOSTS = 20
"""which are enough for so many hosts."""
LANES_LOOKED_AT = 16
"""When a call ends: so many that may not go yet are passed over. Others' turns come."""
_FIRST_GUESS_MS = 20.0
_WEIGHT = 0.2


class Full(StrEnum):
    """What let one not in."""

    HOST = "host"
    TOPIC = "topic"
    CLOSED = "closed"


@dataclass(slots=True)
class _Gate:
    """Of a host or of a topic. `mean_ms` is the moving mean of durations, `known` when a call has
    ended; `line_end` when the last sent away comes back.

    `moved` is when a call last entered or left: all that run are at least that old. `most` is
    the limit of a host that has just come back.
    """

    running: int = 0
    waiting: int = 0
    mean_ms: float = _FIRST_GUESS_MS
    known: bool = False
    line_end: float = 0.0
    moved: float = 0.0
    most: int | None = None

    def call_ms(self, now: float) -> float:
        """How long a call takes, or has taken without an end in sight."""
        return max(self.mean_ms, now - self.moved if self.running else 0)


class _Lane(NamedTuple):
    """Those in one lane wait for the same, and go in their order."""

    host: Origin
    topic: str


class Gates:
    """`total` calls run, as many wait; `parked` is told when one begins to. `topic_limit` is asked
    each time; 0 is no limit."""

    def __init__(
        self,
        total: int,
        per_host: int,
        topic_limit: Callable[[str], int] = lambda _topic: 0,
        parked: Callable[[], object] = lambda: None,
    ) -> None:
        self._total = total
        self._per_host = per_host
        self._sure = total // SURE_SHARE
        self._set_aside = SURE_HOSTS * self._sure
        self._topic_limit = topic_limit
        self._parked = parked
        self._gates: OrderedDict[Origin | str, _Gate] = OrderedDict()
        self._lanes: OrderedDict[_Lane, deque[AsyncResult[bool]]] = OrderedDict()
        self._closed = False
        self._hosts = 0  # with calls under way
        self.running = 0
        self.waiting = 0
        """Calls at all gates that wait to be let in."""

    def full(self, host: Origin, topic: str) -> Full | None:
        """Why `enter` would wait or refuse; None when it would not."""
        if self._closed:
            return Full.CLOSED
        gate = self._gates.get(host)
        if (gate.running if gate else 0) >= self._places(gate):
            return Full.HOST
        limit = self._topic_limit(topic)
        if limit and (gate := self._gates.get(topic)) and gate.running >= limit:
            return Full.TOPIC
        return None

    def enter(self, host: Origin, topic: str, wait_s: float) -> Full | None:
        """None when the call may begin; then `leave` must follow. Waits up to `wait_s`."""
        full = self.full(host, topic)
        if full is None:
            self._take(host, topic)
            return None
        if full is Full.CLOSED or wait_s <= 0 or not self._may_wait(host, topic):
            return full
        if self._wait(_Lane(host, topic), wait_s):
            return None
        return Full.CLOSED if self._closed else full

    def leave(self, host: Origin, topic: str, duration_ms: float | None = None) -> None:
        """A call ended, or never began: then it tells nothing of durations. Others go in."""
        of_host, of_topic = self._gates[host], self._gates[topic]
        self.running -= 1
        self._hosts -= of_host.running == 1
        now = _now_ms()
        for gate in (of_host, of_topic):
            gate.running -= 1
            gate.moved = now
            if duration_ms is not None:
                gate.mean_ms += _WEIGHT * (duration_ms - gate.mean_ms)
                gate.known = True
        if of_host.most is not None and duration_ms is not None:
            of_host.most = of_host.most + 1 if of_host.most < self._per_host else None
        if self._lanes:
            self._let_in(_Lane(host, topic))

    def came_back(self, host: Origin) -> None:
        """A host that was away answers: begin with a few calls."""
        self._gate(host).most = RAMP

    def come_back_ms(self, host: Origin, topic: str, full: Full) -> int:
        """For one that was not let in: after what time to try again."""
        if full is Full.CLOSED:
            return 0
        gate = self._gate(host if full is Full.HOST else topic)
        places = self._share() if full is Full.HOST else self._topic_limit(topic)
        places = max(1, places, gate.running)
        now = _now_ms()
        call_ms = gate.call_ms(now)
        soonest = now + max(MIN_DELAY_MS, call_ms * (1 + gate.waiting / places))
        gate.line_end = max(gate.line_end, soonest) + call_ms / places
        gate.line_end = min(gate.line_end, now + MAX_DELAY_MS)
        return int(gate.line_end - now)

    def is_fast(self, host: Origin, per_second: float) -> bool:
        """Whether it is known to take so many calls."""
        gate = self._gate(host)
        return gate.known and gate.call_ms(_now_ms()) * per_second <= 1000 * self._per_host

    def room_before(self, host: Origin) -> tuple[int, int]:
        """How many more may wait for it, and how many of them are worth a claim."""
        return self._room(host), max(1, self._per_host // 8)

    def _room(self, host: Origin) -> int:
        return max(0, self._most(self._total - self.waiting) - self._gate(host).waiting)

    def close(self) -> None:
        """Lets nobody in any more; those who wait are sent away."""
        self._closed = True
        for lane in list(self._lanes):
            while lane in self._lanes:
                self._first_of(lane).set(False)

    def _share(self) -> int:
        """What a host comes to have when all that are called now want more than they get."""
        fair = (self._total - self._set_aside) // (self._hosts + 1)
        return min(self._per_host, max(self._sure, fair))

    def _places(self, gate: _Gate | None) -> int:
        """Of a host, those it has among them."""
        most = self._most(self._total - self.running)
        return most if gate is None or gate.most is None else min(most, gate.most)

    def _most(self, free: int) -> int:
        return min(self._per_host, max(self._sure if free else 0, free - self._set_aside))

    def _may_wait(self, host: Origin, topic: str) -> bool:
        """Hosts that hang must not take all room to wait either."""
        limit = self._topic_limit(topic)
        if limit and self._gate(topic).waiting >= limit:
            return False
        return self._room(host) > 0

    def _take(self, host: Origin, topic: str) -> None:
        of_host, of_topic = self._gate(host), self._gate(topic)
        self.running += 1
        self._hosts += of_host.running == 0
        now = _now_ms()
        for gate in (of_host, of_topic):
            gate.running += 1
            gate.moved = now

    def _wait(self, lane: _Lane, wait_s: float) -> bool:
        place: AsyncResult[bool] = AsyncResult()
        self._lanes.setdefault(lane, deque()).append(place)
        self._count_waiting(lane, 1)
        self._parked()
        try:
            place.wait(timeout=wait_s)
        except BaseException:
            self._withdraw(lane, place)
            raise
        # let in at the very moment the time ran out: the place is ours all the same
        if not place.ready():
            self._withdraw(lane, place)
        return bool(place.value)

    def _withdraw(self, lane: _Lane, place: "AsyncResult[bool]") -> None:
        if place.ready():
            if place.value:
                self.leave(*lane)
            return
        self._lanes[lane].remove(place)
        if not self._lanes[lane]:
            del self._lanes[lane]
        self._count_waiting(lane, -1)

    def _first_of(self, lane: _Lane) -> "AsyncResult[bool]":
        """Takes it out."""
        place = self._lanes[lane].popleft()
        if not self._lanes[lane]:
            del self._lanes[lane]
        self._count_waiting(lane, -1)
        return place

    def _count_waiting(self, lane: _Lane, more: int) -> None:
        self.waiting += more
        self._gate(lane.host).waiting += more
        self._gate(lane.topic).waiting += more

    def _let_in(self, own: _Lane) -> None:
        """One place is free, in that lane if nowhere else."""
        passed_over = 0
        while passed_over < min(len(self._lanes), LANES_LOOKED_AT):
            lane = next(iter(self._lanes))
            self._lanes.move_to_end(lane)
            passed_over += not self._may_go(lane)
        if len(self._lanes) > LANES_LOOKED_AT and own in self._lanes:
            self._may_go(own)

    def _may_go(self, lane: _Lane) -> bool:
        """Lets the first of a lane go, if it may."""
        if self.full(*lane) is not None:
            return False
        self._take(*lane)
        self._first_of(lane).set(True)
        return True

    def _gate(self, name: Origin | str) -> _Gate:
        gate = self._gates.get(name)
        if gate is None:
            gate = self._gates[name] = _Gate()
            self._forget_idle()
        else:
            self._gates.move_to_end(name)
        return gate

    def _forget_idle(self) -> None:
        """Drops gates used longest ago, but none in use; how many those are is bounded."""
        for _ in range(2 * (len(self._gates) - MAX_GATES)):
            name, gate = self._gates.popitem(last=False)
            if gate.running or gate.waiting:
                self._gates[name] = gate


def _now_ms() -> float:
    return time.monotonic() * 1000
