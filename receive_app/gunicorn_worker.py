"""gunicorn's gevent worker, but a drain does not wait for connections that are idle.

gunicorn lets each wait for its next request until the drain is over, ten seconds with a balancer
in front, and then breaks it off with a traceback. Meanwhile the port is taken.
"""

import socket
import time
import weakref
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Any

import gevent
from gunicorn.workers.ggevent import GeventWorker

IDLE_S = 0.5
"""Shorter ones may have a request on its way: gunicorn accepts for up to a second after it was
told to end."""
LOOK_S = 0.1


class DrainingWorker(GeventWorker):  # type: ignore[misc]
    """`close_idle` is for a greenlet, started when the worker is told to end."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._clients: dict[Any, socket.socket] = {}
        self._idle_since: dict[socket.socket, float] = {}
        self._cut: weakref.WeakSet[socket.socket] = weakref.WeakSet()

    def handle(self, listener: Any, client: socket.socket, addr: Any) -> None:
        me = gevent.getcurrent()
        self._clients[me] = client
        try:
            super().handle(listener, client, addr)
        finally:
            del self._clients[me]

    @contextmanager
    def timeout_ctx(self) -> Iterator[None]:
        """Around the wait for the next request of a connection."""
        client = self._clients[gevent.getcurrent()]
        self._idle_since[client] = time.monotonic()
        try:
            with super().timeout_ctx():
                yield
        except OSError:
            if client not in self._cut:
                raise
        finally:
            del self._idle_since[client]

    def close_idle(self) -> None:
        """Never returns."""
        while True:
            before = time.monotonic() - IDLE_S
            for client in [c for c, at in self._idle_since.items() if at < before]:
                self._cut.add(client)
                with suppress(OSError):
                    client.shutdown(socket.SHUT_RD)  # gevent raises where it waits to read
            gevent.sleep(LOOK_S)
