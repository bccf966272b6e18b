"""Heartbeats: each live worker is asked how it fares, on a line of its own.

Not on the line of the hints: behind thousands of those an answer would say how long the queue is.
"""

import logging
import random
import time
from collections.abc import Callable, Mapping
from typing import Any

import gevent
from thriftpy2.thrift import TException

import idl
from center.pulse import Load, Pulse
from soraka.errors import PeerUnavailable
from soraka.metrics import Metrics
from soraka.rpc import RpcClient, parse_address
from soraka.tls import Context

log = logging.getLogger(__name__)

JITTER = 0.25
"""Or a worker that stands still for a part of each second is always asked in the same part."""


class Heartbeats:
    """One greenlet per worker, from `start` on. `changed` is called when a pulse turns good or
    bad, stuck, or begins to drain; it must not block."""

    def __init__(
        self, *, every_ms: int, timeout_ms: int, metrics: Metrics, secured: Context | None = None
    ) -> None:
        self._every_s = every_ms / 1000
        self._timeout_ms = timeout_ms
        self._metrics = metrics
        self._secured = secured
        self._asking: dict[str, tuple[Pulse, gevent.Greenlet[..., None]]] = {}
        self._changed: Callable[[], None] = lambda: None
        self._running = False

    def start(self, changed: Callable[[], None]) -> None:
        self._changed = changed
        self._running = True

    def follow(self, pulses: Mapping[str, Pulse]) -> None:
        """Asks these, by address, and no others any more."""
        if not self._running:
            return
        for address, (pulse, _) in list(self._asking.items()):
            if pulses.get(address) is not pulse:
                self._forget(address)
        for address in pulses.keys() - self._asking.keys():
            pulse = pulses[address]
            self._asking[address] = pulse, gevent.spawn(self._ask_forever, pulse)

    def close(self) -> None:
        """Safe to repeat."""
        self._running = False
        for address in list(self._asking):
            self._forget(address)

    def _forget(self, address: str) -> None:
        self._asking.pop(address)[1].kill(block=False)
        self._metrics.workers.remove(address)

    def _ask_forever(self, pulse: Pulse) -> None:
        client = RpcClient(
            idl.worker.Worker,
            parse_address(pulse.address),
            timeout_ms=self._timeout_ms,
            secured=self._secured,
        )
        try:
            while True:
                began = time.monotonic()
                self._ask(client, pulse)
                pause_s = self._every_s * random.uniform(1 - JITTER, 1 + JITTER)
                gevent.sleep(max(0.0, began + pause_s - time.monotonic()))
        finally:
            client.close()

    def _ask(self, client: RpcClient, pulse: Pulse) -> None:
        before = pulse.good, pulse.stuck, pulse.draining
        pulse.asked()
        began = time.monotonic()
        try:
            answer = client.call("heartbeat", incarnation=pulse.instance.incarnation)
            pulse.answered(_load(answer), _ms_since(began))
        except (PeerUnavailable, TException) as exc:  # WrongIncarnation is one
            pulse.silent(_ms_since(began))
            log.debug("heartbeat.failed", extra={"worker": pulse.address, "reason": str(exc)})
        if self._asking.get(pulse.address, (None,))[0] is not pulse:
            return  # given up meanwhile
        self._metrics.workers.set(pulse.address, _figures(pulse))
        if (pulse.good, pulse.stuck, pulse.draining) != before:
            _tell(pulse, was_good=before[0])
            self._changed()


def _ms_since(began: float) -> float:
    return (time.monotonic() - began) * 1000


def _load(answer: Any) -> Load:
    """Raises PeerUnavailable when a required field is missing: thriftpy2 leaves None there."""
    values: list[Any] = [getattr(answer, name, None) for name in Load._fields]
    if None in values:
        raise PeerUnavailable(f"not a load: {answer!r}")
    return Load(*values)


def _figures(pulse: Pulse) -> dict[str, float]:
    figures: dict[str, float] = {"missed": pulse.missed, "lag_s": pulse.lag_ms / 1000}
    if (load := pulse.load) is not None:
        figures |= {
            "held": load.held,
            "in_flight": load.in_flight,
            "cpu": load.cpu,
            "memory_bytes": load.memory_bytes,
            "skew_s": load.clock_skew_ms / 1000,
        }
    return figures


def _tell(pulse: Pulse, *, was_good: bool) -> None:
    extra = {"worker": pulse.address, "missed": pulse.missed}
    if was_good and not pulse.good:
        log.warning(_what_is_wrong(pulse), extra=extra)
    elif pulse.good and not was_good:
        log.info("worker.back", extra=extra)


def _what_is_wrong(pulse: Pulse) -> str:
    if pulse.stuck:
        return "worker.stuck"
    return "worker.blind" if pulse.blind else "worker.silent"
