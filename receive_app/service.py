"""Receive, put together from the adapters of a process: what both servers of it serve."""

import socket
from collections.abc import Callable
from typing import Any

from gevent.socket import socket as gevent_socket
from uuid_utils import uuid7

import idl
from receive_app.app import create_app
from receive_app.ingress import Ingress
from receive_app.rpc import Handler
from soraka import process, wire
from soraka.config import Config
from soraka.message import Instance
from soraka.metrics import Metrics
from soraka.rpc import RpcServer
from soraka.wiring import Parts


class Service:
    """`app` is the WSGI application, `thrift` the public Thrift server (not started)."""

    def __init__(self, parts: Parts, metrics: Metrics, listener: socket.socket) -> None:
        limits = parts.config.receive

        def count(operation: str, ec: int, n: int) -> None:
            metrics.requests.labels(operation, ec).inc(n)

        ingress = Ingress(
            log=parts.log,
            store=parts.store,
            reader=parts.store,
            topics=parts.topics.get,
            known_topics=parts.topics.find,
            clock=parts.clock,
            encode=wire.encode,
            new_id=lambda: str(uuid7()),
            limits=limits,
            early_ms=parts.config.store.early_ms,
        )
        self.app: Any = create_app(
            ingress,
            limits=limits,
            ready=lambda: process.unreachable(parts.store, parts.log),
            metrics=metrics.render,
            count=count,
        )
        self.thrift = RpcServer(
            idl.soraka.Soraka,
            Handler(ingress, limits=limits, count=count),
            listener,
            max_frame_bytes=limits.max_frame_bytes,
            read_timeout_ms=limits.read_timeout_ms,
            idle_timeout_ms=limits.idle_timeout_ms,
            max_connections=limits.max_connections,
        )


def start(
    config: Config, instance: Instance, listener: socket.socket
) -> tuple[Any, Callable[[], None]]:
    """In a gunicorn worker: the WSGI application, and what to call when the worker ends.

    `listener` was bound by the master; the workers share it.
    """
    process.configure_logging(config.process)
    parts = Parts(config)
    process.follow_clock(parts.clock.sync)
    thrift_socket = gevent_socket(listener.family, listener.type, fileno=listener.detach())
    service = Service(parts, Metrics(), thrift_socket)
    service.thrift.start()
    process.announce(parts.registry, instance)

    def stop() -> None:
        parts.registry.unregister(instance)
        service.thrift.stop(config.process.drain_ms / 1000)
        parts.close()

    return service.app, stop
