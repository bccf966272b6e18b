"""Whether a call may begin: the circuit of its host, the rate of its topic, and the gates of host
and topic."""

import logging
import time
from dataclasses import dataclass
from enum import StrEnum

from worker.breaker import Breakers, Ticket
from worker.crowd import Crowd
from worker.gates import Full, Gates
from worker.judge import Answer, Failure
from worker.rates import Rates
from worker.request import Origin

log = logging.getLogger(__name__)


MAX_RELEASES = 10
"""One that was given back so often is called though the circuit of its host be open: retries and
dead letters must come to those for a host that is gone, too."""


class Why(StrEnum):
    """Why a claim was given back."""

    HOST = "host"
    TOPIC = "topic"
    RATE = "rate"
    PAUSED = "paused"
    CIRCUIT = "circuit"
    LEASE = "lease"
    CLAIM = "claim"
    DRAIN = "drain"


@dataclass(frozen=True, slots=True)
class Refusal:
    """`delay_ms` is when to try again; `reason` is for people."""

    why: Why
    delay_ms: int
    reason: str


class Admission:
    """Every call goes through here, into a circuit and two gates, and out again."""

    def __init__(self, gates: Gates, breakers: Breakers, rates: Rates) -> None:
        self._gates = gates
        self._breakers = breakers
        self._rates = rates
        self._crowd = Crowd(gates)

    def bounded(self, claims: int) -> int:
        """How many of so many claims to make now."""
        return self._crowd.bounded(claims)

    @property
    def waiting(self) -> int:
        """Calls that wait at a gate."""
        return self._gates.waiting

    @property
    def open_circuits(self) -> int:
        return self._breakers.open

    def enter(
        self, host: Origin, topic: str, *, ttr_ms: int, wait_s: float, releases: int
    ) -> Ticket | Refusal:
        """A ticket, after up to `wait_s`; then `leave` must follow. `releases`: how often it was
        sent away before. After MAX_RELEASES no open circuit stops it; the gates do."""
        forced = releases >= MAX_RELEASES
        if self._breakers.open and not forced:
            delay_ms = self._breakers.wait_ms(host, _now_ms())
            if delay_ms:
                return _circuit_open(host, delay_ms)
        # before the gates, where those over the rate would take the room of others
        if delay_ms := self._rates.refused_ms(topic, _now_ms(), came_back=releases > 0):
            return _over_rate(delay_ms)
        if full := self._gates.enter(host, topic, wait_s):
            self._crowd.turned_away(host, topic, full)
            return self._full(host, topic, full)
        now = _now_ms()
        # and after them, for it may have waited there
        if delay_ms := self._rates.refused_ms(topic, now, came_back=True):
            self._gates.leave(host, topic)
            return _over_rate(delay_ms)
        if ticket := self._breakers.begin(host, now, ttr_ms, forced=forced):
            self._rates.take(topic, now)
            self._crowd.let_in(host)
            return ticket
        self._gates.leave(host, topic)  # opened while this one waited
        return _circuit_open(host, self._breakers.wait_ms(host, now))

    def leave(self, ticket: Ticket, topic: str, result: Answer | Failure | None) -> None:
        """The call ended with `result`; None when it was not made, or how it ended is unknown."""
        now = _now_ms()
        self._gates.leave(ticket.host, topic, None if result is None else now - ticket.began)
        if isinstance(result, Answer):
            if self._breakers.answered(ticket, now):
                self._gates.came_back(ticket.host)
                log.info("circuit.closed", extra={"host": ticket.host.url()})
        elif result is not None and result.unanswered and self._breakers.failed(ticket, now):
            log.warning(
                "circuit.opened", extra={"host": ticket.host.url(), "reason": result.reason}
            )

    def close(self) -> None:
        """Lets nobody in any more; those who wait are sent away."""
        self._gates.close()

    def _full(self, host: Origin, topic: str, full: Full) -> Refusal:
        delay_ms = self._gates.come_back_ms(host, topic, full)
        match full:
            case Full.HOST:
                return Refusal(Why.HOST, delay_ms, "too many calls to this host")
            case Full.TOPIC:
                return Refusal(Why.TOPIC, delay_ms, "too many calls of this topic")
            case Full.CLOSED:
                return Refusal(Why.DRAIN, delay_ms, "the worker is leaving")


def _over_rate(delay_ms: int) -> Refusal:
    return Refusal(Why.RATE, delay_ms, "too many calls of this topic per second")


def _circuit_open(host: Origin, delay_ms: int) -> Refusal:
    return Refusal(Why.CIRCUIT, delay_ms, f"circuit of {host.url()} is open")


def _now_ms() -> float:
    return time.monotonic() * 1000
