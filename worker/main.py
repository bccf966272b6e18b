"""The worker process."""

import logging

import gevent

import idl
from soraka import launch, process
from soraka.config import Config
from soraka.metrics import Metrics
from soraka.ports import Ended
from soraka.rpc import RpcServer
from soraka.wiring import Parts
from worker.callback import Caller
from worker.centers import Centers
from worker.failing import Failing
from worker.loop import Loop
from worker.rpc import Handler

log = logging.getLogger(__name__)

TELL_EVERY_S = 10.0


class Worker:
    """A `process.Role`. Its address is known, and taken, from the start."""

    name = "worker"

    def __init__(self, parts: Parts, metrics: Metrics) -> None:
        config = parts.config.worker
        self._parts = parts
        self._metrics = metrics
        listener = process.listen(
            config.host,
            config.thrift_port,
            "worker.thrift_port",
            patience_s=process.TAKEN_PORT_S,
        )
        self.instance = process.new_instance(
            "worker", config.advertise or config.host, listener.getsockname()[1]
        )
        self._caller = Caller(max_response_bytes=config.max_response_bytes)
        self._centers = Centers(
            parts.registry, self.instance.address, rpc_timeout_ms=config.rpc_timeout_ms
        )
        self._failing = Failing()
        self._teller: gevent.Greenlet[..., None] | None = None
        self._loop = Loop(
            owner=self.instance.address,
            store=parts.store,
            clock=parts.clock,
            call=self._caller,
            config=config,
            hand_back=self._centers.hand_back,
            on_fire=self._fired,
            on_done=self._done,
        )
        self._server = RpcServer(
            idl.worker.Worker, Handler(self.instance.incarnation, self._loop), listener
        )
        metrics.held.set_function(lambda: self._loop.held)
        metrics.in_flight.set_function(lambda: self._loop.in_flight)

    def start(self) -> None:
        self._loop.start()
        self._server.start()
        self._teller = gevent.spawn(self._tell_forever)
        process.announce(self._parts.registry, self.instance)

    def drain(self, limit_s: float) -> bool:
        self._parts.registry.unregister(self.instance)
        self._server.stop(1)
        return self._loop.drain(limit_s)

    def stop(self) -> None:
        self._loop.stop()
        self._server.stop(0)
        self._centers.close()
        self._caller.close()
        if self._teller is not None:
            self._teller.kill()
        self._tell()

    def turn_ages_ms(self) -> dict[str, int]:
        return self._loop.turn_ages_ms()

    def down(self) -> list[str]:
        return process.unreachable(self._parts.store)

    def _fired(self, _topic: str, lateness_ms: int) -> None:
        self._metrics.lateness.observe(lateness_ms / 1000)

    def _done(self, topic: str, ended: Ended, duration_ms: int, reason: str) -> None:
        self._failing.add(topic, ended, reason)
        self._metrics.callbacks.labels(ended.value).inc()
        if ended is not Ended.RELEASED:  # no call was made
            self._metrics.callback_seconds.observe(duration_ms / 1000)

    def _tell_forever(self) -> None:
        while True:
            gevent.sleep(TELL_EVERY_S)
            self._tell()

    def _tell(self) -> None:
        if failed := self._failing.take():
            log.warning("callbacks.failing", extra=failed)


def run(config: Config) -> None:
    """Runs a worker until a signal."""
    worker = config.worker
    launch.run(
        config,
        lambda parts, metrics: [Worker(parts, metrics)],
        health=(worker.host, worker.health_port, "worker.health_port"),
    )
