"""Receive, put together from the adapters of a process: what both servers of it serve."""

import socket
from collections.abc import Callable
from functools import cache
from typing import Any, cast

from gevent.socket import socket as gevent_socket

import idl
from receive_app.access import access_of
from receive_app.app import create_app
from receive_app.ids import Ids
from receive_app.ingress import Ingress
from receive_app.keys import Keys, longest_window_ms
from receive_app.rpc import Handler, no_room
from soraka import logs, process, tls, wire
from soraka.budget import ReadingBudget
from soraka.config import Config
from soraka.connections import fitting
from soraka.errors import Unavailable
from soraka.flusher import Flusher
from soraka.launch import Background, Late
from soraka.message import Instance
from soraka.metrics import Metrics
from soraka.ports import Log
from soraka.rpc import RpcServer
from soraka.stats import Tally
from soraka.wiring import Parts

ITEMS_OF_A_MESSAGE = 50
"""Fields and list items of a Submission: 44 with everything in it and 32 delays."""
ITEMS_OF_A_CALL = 100


class Service:
    """`app` is the WSGI application, `thrift` the public Thrift server (not started).
    `max_connections` is how many each of the two may have in this process.

    Both can serve at once, and answer Unavailable until `open`. Raises ConfigError.
    """

    def __init__(
        self,
        config: Config,
        metrics: Metrics,
        listener: socket.socket,
        healthy: Callable[[], tuple[bool, dict[str, Any]]] = lambda: process.turning(()),
    ) -> None:
        limits = config.receive
        self._metrics = metrics
        self._late = Late()
        self._parts: Parts | None = None
        self._flusher: Flusher | None = None
        ingress = cast(Ingress, self._late)
        self.max_connections = fitting(limits.max_connections, 2, "receive.max_connections")
        budget = ReadingBudget(limits.max_reading_bytes)
        access = access_of(limits)

        counter = cache(metrics.requests.labels)

        def count(operation: str, ec: int, n: int) -> None:
            counter(operation, ec).inc(n)

        self.app: Any = create_app(
            ingress,
            access,
            limits=limits,
            ready=self.down,
            metrics=metrics.render,
            count=count,
            healthy=healthy,
            budget=budget,
        )
        self.thrift = RpcServer(
            idl.soraka.Soraka,
            Handler(ingress, access, limits=limits, count=count),
            listener,
            max_frame_bytes=limits.max_frame_bytes,
            max_items=ITEMS_OF_A_CALL + ITEMS_OF_A_MESSAGE * limits.max_batch,
            read_timeout_ms=limits.read_timeout_ms,
            idle_timeout_ms=limits.idle_timeout_ms,
            max_connections=self.max_connections,
            budget=budget,
            no_room=no_room,
            secured=_secured(config),
        )

    def open(self, parts: Parts) -> None:
        """From now on it accepts. The clock of `parts` must be known."""
        self._parts = parts
        self._metrics.show_skew(parts.clock.skew_ms)
        tally = Tally()
        self._flusher = Flusher(parts.store, tally)
        self._flusher.start()
        self._late.is_(
            Ingress(
                log=parts.log,
                store=parts.store,
                reader=parts.store,
                keys=Keys(parts.store, parts.store, longest_window_ms(parts.config)),
                topics=parts.topics.get,
                known_topics=parts.topics.find,
                clock=parts.clock,
                encode=wire.encode,
                new_id=Ids(),
                limits=parts.config.receive,
                early_ms=parts.config.store.early_ms,
                why_denied=parts.config.outbound.destinations().why_host_denied,
                counted=tally.counter(parts.clock.now_ms),
            )
        )

    def close(self) -> None:
        """Writes the last of its statistics, while the parts are open. Safe to repeat."""
        if self._flusher is not None:
            self._flusher.stop()

    def waiting_for(self, port: str) -> None:
        self._late.waiting_for(port)

    def down(self) -> list[str]:
        """What it needs and cannot reach now."""
        if self._parts is None:
            return [self._late.waits_for]
        return log_down(self._parts.log)


def _secured(config: Config) -> tls.Context | None:
    """Of the public Thrift port: clients show no certificate, as they need none for HTTP."""
    return tls.server(config.tls, "tls.thrift", mutual=False) if config.tls.thrift else None


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
    config: Config, instance: Instance, metrics: Metrics, listener: socket.socket
) -> tuple[Any, Callable[[], None], Callable[[], None]]:
    """In a gunicorn worker: the WSGI application, what to call when the worker is told to end,
    and what to call when it has.

    `listener` was bound by the master; the workers share it.
    """
    logs.configure(config.process)
    thrift_socket = gevent_socket(listener.family, listener.type, fileno=listener.detach())
    service = Service(config, metrics, thrift_socket)
    service.thrift.start()
    coming = Background(config, instance, metrics, service.waiting_for, service.open)
    drain_s = config.process.drain_ms / 1000

    def drain() -> None:
        coming.leave(lambda: service.thrift.stop(drain_s))

    return service.app, drain, lambda: coming.close(service.close)
