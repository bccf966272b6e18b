"""Which callback hosts are left alone for a while: a circuit breaker for each. Pure.

Only calls that got no answer count, and of them only those during which the host answered nobody
else: many that hang at one path and end together say nothing against a host that serves its
others. So many in a row open the circuit. After a time one call goes through as a probe, one at
a time; an answer, to whichever call, closes the circuit, and a failed probe doubles the time.
"""

import random
from collections import OrderedDict
from dataclasses import dataclass
from typing import NamedTuple

from worker.request import Origin

MAX_HOSTS = 10_000
LONGEST_OPEN_MS = 60_000
JITTER = 0.2
"""Of the time a circuit stays open: many workers must not all probe at once."""
SPREAD = 0.1
"""Of that time, over which those sent away come back: the first of them is the probe, and most
of the others find out what it found."""


@dataclass(slots=True)
class _Circuit:
    """`open_ms` is 0 while it is closed. `until` is when a probe may begin, or, once one has
    begun, when that one has ended for certain."""

    failures: int = 0
    answered: float = float("-inf")
    open_ms: float = 0.0
    until: float = 0.0


class Ticket(NamedTuple):
    """A call that may begin. `began` is monotonic ms."""

    host: Origin
    began: float
    probe: bool


class Breakers:
    """`failures` in a row open the circuit of a host for `open_ms`; 0 failures: never.

    Times are monotonic ms, given by the caller.
    """

    def __init__(self, failures: int, open_ms: int) -> None:
        self._failures = failures
        self._open_ms = open_ms
        self._circuits: OrderedDict[Origin, _Circuit] = OrderedDict()
        self.open = 0
        """Circuits that are open, those being probed among them."""

    def wait_ms(self, host: Origin, now: float) -> int:
        """For how long a call had better not try; 0 when it may."""
        circuit = self._circuits.get(host)
        if circuit is None or not circuit.open_ms or now >= circuit.until:
            return 0
        return int(circuit.until - now + random.uniform(0, SPREAD) * circuit.open_ms) + 1

    def begin(
        self, host: Origin, now: float, ttr_ms: int, *, forced: bool = False
    ) -> Ticket | None:
        """A ticket; `answered` or `failed` should follow. None when the circuit is open, but not
        for a call that is `forced`. One that is free to probe is the probe."""
        circuit = self._circuit(host)
        if not circuit.open_ms:
            return Ticket(host, now, False)
        if now >= circuit.until:
            # a probe that is never heard of again must not close the way for ever
            circuit.until = now + ttr_ms
            return Ticket(host, now, True)
        return Ticket(host, now, False) if forced else None

    def answered(self, ticket: Ticket, now: float) -> bool:
        """The host answered. True when that closes the circuit."""
        circuit = self._circuit(ticket.host)
        circuit.answered = now
        circuit.failures = 0
        if not circuit.open_ms:
            return False
        circuit.open_ms = 0.0
        self.open -= 1
        return True

    def failed(self, ticket: Ticket, now: float) -> bool:
        """No answer came. True when that opens the circuit, which was closed."""
        circuit = self._circuit(ticket.host)
        if not self._failures or circuit.answered >= ticket.began:
            return False
        if circuit.open_ms:
            if ticket.probe:
                self._shut(circuit, min(2 * circuit.open_ms, LONGEST_OPEN_MS), now)
            return False
        circuit.failures += 1
        if circuit.failures < self._failures:
            return False
        self._shut(circuit, self._open_ms, now)
        self.open += 1
        return True

    def _shut(self, circuit: _Circuit, open_ms: float, now: float) -> None:
        circuit.open_ms = open_ms
        circuit.until = now + open_ms * random.uniform(1 - JITTER, 1 + JITTER)

    def _circuit(self, host: Origin) -> _Circuit:
        circuit = self._circuits.get(host)
        if circuit is not None:
            self._circuits.move_to_end(host)
            return circuit
        circuit = self._circuits[host] = _Circuit()
        if len(self._circuits) > MAX_HOSTS:
            _, forgotten = self._circuits.popitem(last=False)
            self.open -= bool(forgotten.open_ms)
        return circuit
