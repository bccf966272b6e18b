"""Receive, put together from the adapters of a process: what both servers of it serve."""

import logging
import socket
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, cast

import gevent
from gevent.socket import socket as gevent_socket

import idl
from receive_app.app import create_app
from receive_app.ids import Ids
from receive_app.ingress import Ingress
from receive_app.rpc import Handler, no_room
from soraka import logs, process, wire
from soraka.budget import ReadingBudget
from soraka.config import Config
from soraka.connections import fitting
from soraka.errors import ConfigError, Unavailable
from soraka.flusher import Flusher
from soraka.launch import come_up_parts
from soraka.message import Instance
from soraka.metrics import Metrics, share
from soraka.ports import Log
from soraka.rpc import RpcServer
from soraka.stats import Tally
from soraka.wiring import Parts

log = logging.getLogger(__name__)

ITEMS_OF_A_MESSAGE = 50
"""Fields and list items of a Submission: 44 with everything in it and 32 delays."""
ITEMS_OF_A_CALL = 100
REFUSED = 4
"""Exit code of a gunicorn worker after which its master ends too."""


class _LateIngress:
    """In the place of Ingress: Unavailable until the real one is there."""

    def __init__(self) -> None:
        self.ingress: Ingress | None = None
        self.waits_for = "start"

    def __getattr__(self, name: str) -> Any:
        if self.ingress is None:
            raise Unavailable(f"starting: waiting for the {self.waits_for}")
        return getattr(self.ingress, name)


class Service:
    """`app` is the WSGI application, `thrift` the public Thrift server (not started).
    `max_connections` is how many each of the two may have in this process.

    Both can serve at once, and answer Unavailable until `open`.
    """

    def __init__(
        self,
        config: Config,
        metrics: Metrics,
        listener: socket.socket,
        healthy: Callable[[], tuple[bool, dict[str, Any]]] = lambda: process.turning(()),
    ) -> None:
        limits = config.receive
        self.metrics = metrics
        self._late = _LateIngress()
        self._parts: Parts | None = None
        self._flusher: Flusher | None = None
        ingress = cast(Ingress, self._late)
        self.max_connections = fitting(limits.max_connections, 2, "receive.max_connections")
        budget = ReadingBudget(limits.max_reading_bytes)

        def count(operation: str, ec: int, n: int) -> None:
            metrics.requests.labels(operation, ec).inc(n)

        self.app: Any = create_app(
            ingress,
            limits=limits,
            ready=self.down,
            metrics=metrics.render,
            count=count,
            healthy=healthy,
            budget=budget,
        )
        self.thrift = RpcServer(
            idl.soraka.Soraka,
            Handler(ingress, limits=limits, count=count),
            listener,
            max_frame_bytes=limits.max_frame_bytes,
            max_items=ITEMS_OF_A_CALL + ITEMS_OF_A_MESSAGE * limits.max_batch,
            read_timeout_ms=limits.read_timeout_ms,
            idle_timeout_ms=limits.idle_timeout_ms,
            max_connections=self.max_connections,
            budget=budget,
            no_room=no_room,
        )

    def open(self, parts: Parts) -> None:
        """From now on it accepts. The clock of `parts` must be known."""
        self._parts = parts
        self.metrics.show_skew(parts.clock.skew_ms)
        tally = Tally()

        def counted(topic: str, name: str, count: int) -> None:
            tally.add(topic, parts.clock.now_ms(), name, count)

        self._flusher = Flusher(parts.store, tally)
        self._flusher.start()
        self._late.ingress = Ingress(
            log=parts.log,
            store=parts.store,
            reader=parts.store,
            topics=parts.topics.get,
            known_topics=parts.topics.find,
            clock=parts.clock,
            encode=wire.encode,
            new_id=Ids(parts.clock.now_ms),
            limits=parts.config.receive,
            early_ms=parts.config.store.early_ms,
            counted=counted,
        )

    def close(self) -> None:
        """Writes the last of its statistics, while the parts are open. Safe to repeat."""
        if self._flusher is not None:
            self._flusher.stop()

    def waiting_for(self, port: str) -> None:
        self._late.waits_for = port

    def down(self) -> list[str]:
        """What it needs and cannot reach now."""
        if self._parts is None:
            return [self._late.waits_for]
        return log_down(self._parts.log)


def log_down(journal: Log) -> list[str]:
    """["log"] when it does not answer.

    Submits need nothing else. Were the store asked too, its absence would take every receiver
    out of the balancer, though only commands cannot be answered without it.
    """
    try:
        journal.check()
    except Unavailable:
        return ["log"]
    return []


def start(
    config: Config, instance: Instance, listener: socket.socket, shared: Path | None
) -> tuple[Any, Callable[[], None], Callable[[], None]]:
    """In a gunicorn worker: the WSGI application, what to call when the worker is told to end,
    and what to call when it has.

    `listener` was bound by the master; the workers share it, and what they count in the folder
    `shared`.
    """
    logs.configure(config.process)
    thrift_socket = gevent_socket(listener.family, listener.type, fileno=listener.detach())
    if shared is not None:
        share(shared)
    service = Service(config, Metrics(shared), thrift_socket)
    service.thrift.start()
    opened: list[Parts] = []
    coming = gevent.spawn(_come_up, config, service, instance, opened)

    def drain() -> None:
        log.info("process.draining")
        coming.kill()
        # apart: a registry that is away takes its time
        leaving = [gevent.spawn(parts.registry.unregister, instance) for parts in opened]
        service.thrift.stop(config.process.drain_ms / 1000)
        gevent.joinall(leaving, timeout=1)

    def close() -> None:
        service.close()
        for parts in opened:
            parts.close()
        log.info("process.stopped")

    return service.app, drain, close


def _come_up(config: Config, service: Service, instance: Instance, opened: list[Parts]) -> None:
    """In the background: a server that is away must not keep us from saying so."""
    try:
        parts = come_up_parts(config, service.metrics, service.waiting_for)
    except (ConfigError, OSError) as exc:
        print(f"Error: {exc}", file=sys.stderr, flush=True)
        sys.exit(REFUSED)
    opened.append(parts)
    service.open(parts)
    process.announce(parts.registry, instance)
