"""gunicorn's gevent worker, with what it lacks towards peers that are idle, slow or deaf.

A drain does not wait for idle connections: gunicorn lets each wait for its next request until the
drain is over, ten seconds with a balancer in front, and then breaks it off with a traceback.
Meanwhile the port is taken. Connections over the limit are not left in the queue for as long as
others do nothing. A peer that does not take its answer is cut; gunicorn waits for it for ever.
"""

import socket
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any

import gevent
from gunicorn.http.unreader import SocketUnreader
from gunicorn.workers.base_async import AsyncWorker
from gunicorn.workers.ggevent import GeventWorker

from soraka.connections import SPARE, WAITING, Connections

IDLE_S = 0.5
"""Shorter ones may have a request on its way: gunicorn accepts for up to a second after it was
told to end."""
LOOK_S = 0.1

# what it reads ahead of a body, 1 MB by itself, no budget of ours counts
SocketUnreader.max_body_chunk = 16 << 10


class DrainingWorker(GeventWorker):  # type: ignore[misc]
    """`close_idle` is for a greenlet, started when the worker is told to end. `send_limit_s` must
    be longer than any wait for a peer to send, which it would cut as well."""

    send_limit_s = 30.0
    wsgi: Any

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._clients: dict[Any, socket.socket] = {}
        self._connections = Connections(self.worker_connections)
        self.worker_connections += SPARE

    def load_wsgi(self) -> None:
        super().load_wsgi()
        app = self.wsgi

        def told(environ: dict[str, Any], start_response: Any) -> Any:
            environ[WAITING] = partial(self._connections.waiting, environ["gunicorn.socket"])
            return app(environ, start_response)

        self.wsgi = told

    def handle(self, listener: Any, client: socket.socket, addr: Any) -> None:
        me = gevent.getcurrent()
        self._clients[me] = client
        # in the place of gevent's, which sets no limit
        client.settimeout(self.send_limit_s)
        try:
            with self._connections.open(client):
                AsyncWorker.handle(self, listener, client, addr)
        finally:
            del self._clients[me]

    def handle_request(self, listener_name: Any, req: Any, sock: Any, addr: Any) -> None:
        try:
            super().handle_request(listener_name, req, sock, addr)
        except TimeoutError as exc:
            raise StopIteration from exc  # gunicorn's word for the end of a connection

    @contextmanager
    def timeout_ctx(self) -> Iterator[None]:
        """Around the wait for the next request of a connection, to the end of its head."""
        client = self._clients[gevent.getcurrent()]
        try:
            with self._connections.waiting(client), super().timeout_ctx():
                yield
        except OSError:
            if not self._connections.was_cut(client):
                raise

    def close_idle(self) -> None:
        """Never returns."""
        while True:
            self._connections.cut_waiting(IDLE_S)
            gevent.sleep(LOOK_S)
