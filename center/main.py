"""The center process."""

import gevent
from gevent.event import Event

import idl
from center.consume import Consume
from center.reconcile import Reconcile
from center.rpc import Handler
from center.workers import Workers
from soraka import launch, process
from soraka.config import Config
from soraka.metrics import Metrics
from soraka.rpc import RpcServer
from soraka.wiring import Parts


class Center:
    """A `process.Role`."""

    name = "center"

    def __init__(self, parts: Parts, metrics: Metrics) -> None:
        config = parts.config
        self._parts = parts
        self._config = config.center
        self._turns = process.Turns("consume", "reconcile")
        self._workers = Workers(parts.registry, rpc_timeout_ms=config.center.rpc_timeout_ms)
        self._consumer = parts.log.consumer(config.log.group)
        self._consume = Consume(
            log=parts.log,
            consumer=self._consumer,
            store=parts.store,
            workers=self._workers,
            clock=parts.clock,
            metrics=metrics,
            horizon_ms=config.worker.horizon_ms,
        )
        self._reconcile = Reconcile(
            store=parts.store,
            workers=self._workers,
            clock=parts.clock,
            metrics=metrics,
            horizon_ms=config.worker.horizon_ms,
            absent_ms=config.center.absent_ms,
            sweep_ms=config.center.sweep_ms,
            turned=lambda: self._turns.turn("reconcile"),
        )
        self._server = RpcServer(
            idl.center.Center,
            Handler(self._reconcile),
            process.listen(
                config.center.host,
                config.center.thrift_port,
                "center.thrift_port",
                patience_s=process.TAKEN_PORT_S,
            ),
        )
        self._changed = Event()
        self._stopping = Event()
        self._greenlets: list[gevent.Greenlet[..., None]] = []

    def start(self) -> None:
        self._server.start()
        host = self._config.advertise or self._config.host
        self.instance = process.new_instance("center", host, self._server.port)
        self._parts.registry.watch(self._changed.set)
        process.announce(self._parts.registry, self.instance)
        self._greenlets = [
            gevent.spawn(self._loop, "consume", self._consume.turn, 0.0),
            gevent.spawn(
                self._loop, "reconcile", self._reconcile.turn, self._config.reconcile_ms / 1000
            ),
        ]

    def drain(self, limit_s: float) -> bool:
        self._stopping.set()
        self._changed.set()
        self._parts.registry.unregister(self.instance)
        done = gevent.joinall(self._greenlets, timeout=limit_s)
        return len(done) == len(self._greenlets)

    def stop(self) -> None:
        gevent.killall(self._greenlets)
        self._server.stop(0)
        self._consume.commit()
        self._consumer.close()
        self._workers.close()

    def turn_ages_ms(self) -> dict[str, int]:
        return self._turns.ages_ms()

    def down(self) -> list[str]:
        return process.unreachable(self._parts.store, self._parts.log)

    def _loop(self, name: str, turn: process.Step, pause_s: float) -> None:
        process.loop(
            turn,
            stopping=self._stopping,
            turned=lambda: self._turns.turn(name),
            pause=lambda: self._pause(pause_s),
        )

    def _pause(self, pause_s: float) -> None:
        if pause_s:
            self._changed.wait(pause_s)
            self._changed.clear()


def run(config: Config) -> None:
    """Runs a center until a signal."""
    center = config.center
    launch.run(
        config,
        lambda parts, metrics: [Center(parts, metrics)],
        health=(center.host, center.health_port, "center.health_port"),
    )
