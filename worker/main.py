"""The worker process."""

import dataclasses
import logging
import time
from collections.abc import Callable

import gevent
from gevent.event import Event

import idl
from soraka import launch, process
from soraka.config import Config
from soraka.errors import RegistryUnavailable
from soraka.flusher import Flusher
from soraka.metrics import Metrics
from soraka.ports import Ended
from soraka.rpc import RpcServer
from soraka.stats import Tally
from soraka.wiring import Parts
from worker.admission import Why
from worker.callback import Caller
from worker.calls import Done
from worker.centers import Centers
from worker.failing import Failing
from worker.leave import handed_over
from worker.loop import Loop
from worker.rpc import Handler
from worker.topics import TopicRules
from worker.trust import Trust

log = logging.getLogger(__name__)

TELL_EVERY_S = 10.0
HAND_OVER_SHARE = 0.8
"""Of the time to drain, for what waits to go to others; the rest is for calls under way."""


class Worker:
    """A `process.Role`. Its address is known, and taken, from the start. `leave` ends the process;
    None when it is not the worker's alone."""

    name = "worker"

    def __init__(
        self, parts: Parts, metrics: Metrics, leave: Callable[[], object] | None = None
    ) -> None:
        config, outbound = parts.config.worker, parts.config.outbound
        self._parts = parts
        self._metrics = metrics
        listener = process.listen(
            config.host,
            config.thrift_port,
            "worker.thrift_port",
            patience_s=process.TAKEN_PORT_S,
        )
        self.instance = dataclasses.replace(
            process.new_instance(
                "worker", config.advertise or config.host, listener.getsockname()[1]
            ),
            weight=config.weight,
        )
        self._caller = Caller(
            max_response_bytes=config.max_response_bytes,
            destinations=outbound.destinations(),
            trust=Trust(outbound.ca_files, outbound.client_certificates),
        )
        self._centers = Centers(
            parts.registry,
            self.instance.address,
            rpc_timeout_ms=config.rpc_timeout_ms,
            secured=parts.peers_tls,
        )
        self._failing = Failing()
        self._tally = Tally(self.instance.address)
        self._flusher = Flusher(parts.store, self._tally)
        self._teller: gevent.Greenlet[..., None] | None = None
        rules = TopicRules(parts.registry, self.instance.address)
        self._loop = Loop(
            owner=self.instance.address,
            store=parts.store,
            clock=parts.clock,
            call=self._caller,
            config=config,
            shards=parts.config.store.shards,
            hand_back=self._centers.hand_back,
            topic_limit=rules.limit,
            topic_rate=rules.rate,
            is_paused=rules.is_paused,
            signer=rules.signer,
            on_fire=self._fired,
            on_done=self._done,
            on_release=self._released,
        )
        handler = Handler(
            self.instance.incarnation, self._loop, skew_ms=parts.clock.skew_ms, leave=leave
        )
        self._server = RpcServer(idl.worker.Worker, handler, listener, secured=parts.role_tls)
        metrics.held.set_function(lambda: self._loop.held)
        metrics.in_flight.set_function(lambda: self._loop.in_flight)
        metrics.open_circuits.set_function(lambda: self._loop.open_circuits)

    def start(self) -> None:
        self._loop.start()
        self._server.start()
        self._teller = gevent.spawn(self._tell_forever)
        self._flusher.start()
        process.announce(self._parts.registry, self.instance)

    def drain(self, limit_s: float) -> bool:
        """First what waits goes to others, if there are any, while all that falls due is called
        still; then what is under way is finished."""
        deadline = time.monotonic() + limit_s
        self._loop.refuse()
        self._announce_leaving()
        over = handed_over(
            self.instance, self._parts.registry, self._parts.store, limit_s * HAND_OVER_SHARE
        )
        finished = self._loop.drain(max(0.0, deadline - time.monotonic()))
        self._parts.registry.unregister(self.instance)
        self._server.stop(1)
        self._flusher.stop()
        return over and finished

    def stop(self) -> None:
        self._loop.stop()
        self._server.stop(0)
        self._flusher.stop()
        self._centers.close()
        self._caller.close()
        if self._teller is not None:
            self._teller.kill()
        self._tell()

    def turn_ages_ms(self) -> dict[str, int]:
        return self._loop.turn_ages_ms()

    def down(self) -> list[str]:
        return process.unreachable(self._parts.store)

    def _announce_leaving(self) -> None:
        registry = self._parts.registry
        try:
            registry.register(dataclasses.replace(self.instance, draining=True))
        except RegistryUnavailable as exc:  # then it is missed when it has gone
            log.warning("drain.not_announced", extra={"reason": str(exc)})

    def _fired(self, _topic: str, lateness_ms: int) -> None:
        self._metrics.lateness.observe(lateness_ms / 1000)

    def _done(self, done: Done) -> None:
        self._failing.add(done.topic, done.ended, done.reason)
        self._metrics.callbacks.inc(done.ended)
        if done.ended is Ended.RELEASED:  # no call was made
            return
        self._metrics.callback_seconds.observe(done.duration_ms / 1000)
        self._metrics.flow_seconds.observe(done.flow_ms / 1000)
        self._tally.called(
            done.topic,
            self._parts.clock.now_ms(),
            done.ended,
            late_ms=done.late_ms,
            callback_ms=done.duration_ms,
            flow_ms=done.flow_ms,
        )

    def _released(self, why: Why) -> None:
        self._metrics.released.labels(why.value).inc()

    def _tell_forever(self) -> None:
        while True:
            gevent.sleep(TELL_EVERY_S)
            self._tell()

    def _tell(self) -> None:
        if failed := self._failing.take():
            log.warning("callbacks.failing", extra=failed)


def run(config: Config) -> None:
    """Runs a worker until a signal, or until it is asked to leave."""
    worker, asked = config.worker, Event()
    launch.run(
        config,
        lambda parts, metrics: [Worker(parts, metrics, asked.set)],
        health=(worker.host, worker.health_port, "worker.health_port"),
        asked=asked,
    )
