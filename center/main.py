"""The center process."""

import gevent
from gevent.event import Event

import idl
from center.backlog import BacklogFigures
from center.consume import Consume
from center.heartbeat import Heartbeats
from center.housekeep import Housekeep
from center.moves import Moves
from center.rebalance import Rebalance
from center.reconcile import Reconcile
from center.resume import Resume
from center.rpc import Handler
from center.vouch import Vouch
from center.workers import Workers
from soraka import launch, process
from soraka.config import Config
from soraka.metrics import Metrics
from soraka.rpc import RpcServer
from soraka.wiring import Parts, masters_apart_s

VOUCH_EVERY_S = 0.2
RESUME_EVERY_S = 0.05
BACKLOG_EVERY_S = 5.0
HOUSEKEEP_EVERY_S = 1.0


class Center:
    """A `process.Role`."""

    name = "center"

    def __init__(self, parts: Parts, metrics: Metrics) -> None:
        config = parts.config
        self._parts = parts
        self._config = config.center
        self._turns = process.Turns(
            "consume", "reconcile", "resume", "vouch", "housekeep", "backlog"
        )
        self._workers = Workers(
            parts.registry,
            rpc_timeout_ms=config.center.rpc_timeout_ms,
            beats=Heartbeats(
                every_ms=config.center.heartbeat_ms,
                timeout_ms=config.center.rpc_timeout_ms,
                metrics=metrics,
                secured=parts.peers_tls,
            ),
            secured=parts.peers_tls,
        )
        self._consumer = parts.log.consumer(config.log.group)
        self._consume = Consume(
            log=parts.log,
            group=config.log.group,
            consumer=self._consumer,
            store=parts.store,
            workers=self._workers,
            clock=parts.clock,
            metrics=metrics,
            horizon_ms=config.worker.horizon_ms,
        )
        self._vouch = Vouch(
            log=parts.log,
            store=parts.store,
            metrics=metrics,
            look_again=self._consume.look_again,
            apart_s=masters_apart_s(parts.config),
        )
        moves = Moves(
            store=parts.store,
            workers=self._workers,
            clock=parts.clock,
            horizon_ms=config.worker.horizon_ms,
        )
        self._reconcile = Reconcile(
            store=parts.store,
            registry=parts.registry,
            workers=self._workers,
            moves=moves,
            clock=parts.clock,
            metrics=metrics,
            absent_ms=config.center.absent_ms,
            sweep_ms=config.center.sweep_ms,
            turned=lambda: self._turns.turn("reconcile"),
        )
        self._backlog = BacklogFigures(store=parts.store, clock=parts.clock, metrics=metrics)
        self._resume = Resume(
            store=parts.store,
            registry=parts.registry,
            workers=self._workers,
            moves=moves,
            metrics=metrics,
            per_second=config.center.resume_per_second,
        )
        self._housekeep = Housekeep(store=parts.store, registry=parts.registry)
        self._server = RpcServer(
            idl.center.Center,
            Handler(
                self._reconcile,
                Rebalance(store=parts.store, workers=self._workers, moves=moves),
            ),
            process.listen(
                config.center.host,
                config.center.thrift_port,
                "center.thrift_port",
                patience_s=process.TAKEN_PORT_S,
            ),
            secured=parts.role_tls,
        )
        self._changed = Event()
        self._stopping = Event()
        self._greenlets: list[gevent.Greenlet[..., None]] = []

    def start(self) -> None:
        self._server.start()
        host = self._config.advertise or self._config.host
        self.instance = process.new_instance("center", host, self._server.port)
        self._workers.start(self._changed.set)
        process.announce(self._parts.registry, self.instance)
        self._greenlets = [
            gevent.spawn(self._loop, "consume", self._consume.turn, lambda: None),
            gevent.spawn(self._loop, "vouch", self._vouch.turn, self._wait(VOUCH_EVERY_S)),
            gevent.spawn(self._loop, "resume", self._resume.turn, self._wait(RESUME_EVERY_S)),
            gevent.spawn(self._loop, "backlog", self._backlog.turn, self._wait(BACKLOG_EVERY_S)),
            gevent.spawn(self._loop, "reconcile", self._reconcile.turn, self._until_changed),
            gevent.spawn(
                self._loop, "housekeep", self._housekeep.turn, self._wait(HOUSEKEEP_EVERY_S)
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
        self._resume.close()
        self._server.stop(0)
        self._consume.commit()
        self._consumer.close()
        self._workers.close()

    def turn_ages_ms(self) -> dict[str, int]:
        return self._turns.ages_ms()

    def down(self) -> list[str]:
        return process.unreachable(self._parts.store, self._parts.log)

    def _loop(self, name: str, turn: process.Step, pause: process.Step) -> None:
        process.loop(
            turn,
            stopping=self._stopping,
            turned=lambda: self._turns.turn(name),
            pause=pause,
        )

    def _wait(self, seconds: float) -> process.Step:
        return lambda: self._stopping.wait(seconds)

    def _until_changed(self) -> None:
        self._changed.wait(self._config.reconcile_ms / 1000)
        self._changed.clear()


def run(config: Config) -> None:
    """Runs a center until a signal."""
    center = config.center
    launch.run(
        config,
        lambda parts, metrics: [Center(parts, metrics)],
        health=(center.host, center.health_port, "center.health_port"),
    )
