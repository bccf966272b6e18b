"""The worker process."""

import idl
from soraka import process
from soraka.config import Config
from soraka.metrics import Metrics
from soraka.ports import Ended
from soraka.rpc import RpcServer
from soraka.wiring import Parts
from worker.callback import Caller
from worker.centers import Centers
from worker.loop import Loop
from worker.rpc import Handler


class Worker:
    """A `process.Role`. Its address is known, and taken, from the start."""

    name = "worker"

    def __init__(self, parts: Parts, metrics: Metrics) -> None:
        config = parts.config.worker
        self._parts = parts
        self._metrics = metrics
        listener = process.listen(config.host, config.thrift_port)
        self.instance = process.new_instance(
            "worker", config.advertise or config.host, listener.getsockname()[1]
        )
        self._caller = Caller(max_response_bytes=config.max_response_bytes)
        self._centers = Centers(
            parts.registry, self.instance.address, rpc_timeout_ms=config.rpc_timeout_ms
        )
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

    def turn_ages_ms(self) -> dict[str, int]:
        return self._loop.turn_ages_ms()

    def down(self) -> list[str]:
        return process.unreachable(self._parts.store)

    def _fired(self, _topic: str, lateness_ms: int) -> None:
        self._metrics.lateness.observe(lateness_ms / 1000)

    def _done(self, _topic: str, ended: Ended, duration_ms: int, _reason: str) -> None:
        self._metrics.callbacks.labels(ended.value).inc()
        if ended is not Ended.RELEASED:  # no call was made
            self._metrics.callback_seconds.observe(duration_ms / 1000)


def run(config: Config) -> None:
    """Runs a worker until a signal."""
    process.configure_logging(config.process)
    parts, metrics = Parts(config), Metrics()
    try:
        process.follow_clock(parts.clock.sync)
        role = Worker(parts, metrics)
        role.start()
        process.serve_health([role], metrics, config.worker.host, config.worker.health_port)
        process.run([role], config.process)
    finally:
        parts.close()
