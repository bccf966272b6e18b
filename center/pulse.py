"""What one center knows of one worker: its heartbeats, and what follows from them. Pure."""

from typing import NamedTuple

from soraka.message import Instance

MISSES = 3
"""Heartbeats missed in a row; then a worker gets nothing new until it answers again."""
STUCK_MS = 10_000
"""A loop of a worker that has not turned for so long does not work, though it may answer."""
BLIND_MS = 3_000
"""One that has not reached the store for so long gets nothing new; for STUCK_MS, it is stuck."""
SMOOTHING = 0.3
"""Weight of the last heartbeat. Load follows where messages go, and they go by load: with all of
the weight on the last one, two workers would be filled in turns."""
FADING = 0.8
"""Of a late answer, at each answer after it that came sooner."""
LAG_MS = 20.0
"""An answer that takes so long halves what a worker may get; it is our aim for lateness."""
HALF_MESSAGES = 10_000
HALF_BYTES = 1 << 30
LEAST = 0.01


class Load(NamedTuple):
    """What a worker says in its heartbeat; see `Load` in idl/worker.thrift."""

    held: int = 0
    in_flight: int = 0
    cpu: float = 0.0
    memory_bytes: int = 0
    last_turn_ms: int = 0
    draining: bool = False
    clock_skew_ms: int = 0
    blind_ms: int = 0


def slowness(lag_ms: float) -> float:
    """How many times over a message counts at a worker that takes `lag_ms` to answer; from 1.

    A worker that is starved of CPU, or stopped now and then, still calls everything, only late,
    so the messages it holds do not tell: it has claimed them when it is asked. That it answers
    late does, for its one loop makes the callbacks as well. The third power: below our aim for
    lateness it hardly counts, and at five times that a worker gets less than a hundredth, so
    that what it makes late is not in the 99th percentile any more.
    """
    return 1.0 + (lag_ms / LAG_MS) ** 3


def free_capacity(load: Load, lag_ms: float) -> float:
    """The weight of a worker by its load: 1 when it has nothing to do, and never less than LEAST.

    Falls with each of: CPU, messages (to a half at 10,000), memory (to a half at 1 GB), and the
    time it takes to answer.
    """
    cpu = max(0.0, 1.0 - load.cpu)
    messages = 1.0 / (1.0 + max(0, load.held + load.in_flight) / HALF_MESSAGES)
    memory = 1.0 / (1.0 + max(0, load.memory_bytes) / HALF_BYTES)
    return max(LEAST, cpu * messages * memory / slowness(lag_ms))


class Pulse:
    """One incarnation of a worker. Good until it has missed heartbeats.

    `assigned` counts what the balancer gave it; `weight` is the one set by hand, `capacity` the
    one by its load.
    """

    __slots__ = ("_known", "_mark", "address", "assigned", "capacity", "instance", "lag_ms", "load",
                 "missed", "slowness")  # fmt: skip

    def __init__(self, instance: Instance) -> None:
        self.instance = instance
        self.address = instance.address
        self.assigned = 0
        self.load: Load | None = None
        self.lag_ms = 0.0
        self.slowness = 1.0
        self.capacity = 1.0
        self.missed = 0
        self._known = 1
        self._mark = 0

    @property
    def weight(self) -> int:
        return self.instance.weight

    @property
    def good(self) -> bool:
        return self.missed < MISSES and not self.stuck and not self.blind

    @property
    def draining(self) -> bool:
        return self.instance.draining or (self.load is not None and self.load.draining)

    @property
    def stuck(self) -> bool:
        """By its own word: a loop of it stands still, or it does not reach the store."""
        if self.load is None:
            return False
        return max(self.load.last_turn_ms, self.load.blind_ms) >= STUCK_MS

    @property
    def blind(self) -> bool:
        """By its own word, it does not reach the store."""
        return self.load is not None and self.load.blind_ms >= BLIND_MS

    def busy(self) -> float:
        """What it has to do: messages at its last heartbeat and those assigned since, each as
        many times as it is slow, over its weight."""
        return (self._known + self.assigned) * self.slowness / (self.weight or 1)

    def asked(self) -> None:
        """A heartbeat leaves now: what was assigned before will be in its answer."""
        self._mark = self.assigned

    def answered(self, load: Load, took_ms: float) -> None:
        self._beat(load, took_ms)
        self.load = load
        # one more than there are, so that slowness counts without messages too
        self._known = max(0, load.held + load.in_flight) + 1
        self.assigned -= self._mark
        self._mark = 0
        self.missed = self.missed + 1 if self.stuck else 0

    def silent(self, waited_ms: float) -> None:
        """No answer, or not in time."""
        self._beat(self.load or Load(), waited_ms)
        self.missed += 1

    def _beat(self, load: Load, took_ms: float) -> None:
        """A late answer counts at once and is forgotten slowly: one that is stopped for most of
        the time answers quickly now and then."""
        first = self.load is None and not self.missed
        self.lag_ms = max(took_ms, FADING * self.lag_ms)
        self.slowness = slowness(self.lag_ms)
        share = 1.0 if first else SMOOTHING
        self.capacity += share * (free_capacity(load, self.lag_ms) - self.capacity)
