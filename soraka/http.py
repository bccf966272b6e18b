"""HTTP servers on gevent.pywsgi, which by itself waits for ever: for a request's head, for the
rest of a body nobody read, and for a peer to take its answer."""

import errno
import socket
from collections.abc import Callable
from functools import partial
from typing import Any

import gevent
from gevent.pool import Pool
from gevent.pywsgi import Input, WSGIHandler, WSGIServer

from soraka.connections import SPARE, WAITING, Connections

# the stubs leave out what pywsgi calls in its own classes
_WSGIHandler: Any = WSGIHandler
_Input: Any = Input

IDLE_S = 15.0
"""A connection on which no next request comes is closed."""


def make_server(
    listener: socket.socket,
    app: Callable[..., Any],
    *,
    max_connections: int = 100,
    read_timeout_ms: int = 10_000,
) -> WSGIServer:
    """Not started. For one over `max_connections` the one that waits longest is closed.
    `read_timeout_ms` is for each of: a head to arrive, a piece of an answer to be taken, the rest
    of a body to be thrown away."""

    class Handler(_Handler):
        limit_s = read_timeout_ms / 1000
        connections = Connections(max_connections)

    pool = Pool(max_connections + SPARE)
    return WSGIServer(listener, app, log=None, spawn=pool, handler_class=Handler)


class _Handler(_WSGIHandler):  # type: ignore[misc]
    limit_s: float
    connections: Connections

    def handle(self) -> None:
        with self.connections.open(self.socket):
            super().handle()

    def read_requestline(self) -> str:
        """Empty when none comes in time: the connection is closed without a word."""
        first = self.requestline is None
        with (
            self.connections.waiting(self.socket),
            gevent.Timeout(self.limit_s if first else IDLE_S, _Late),
        ):
            line: str = super().read_requestline()
        return line

    def read_request(self, raw_requestline: str) -> Any:
        with self.connections.waiting(self.socket), gevent.Timeout(self.limit_s, _Late):
            return super().read_request(raw_requestline)

    def get_environ(self) -> dict[str, Any]:
        environ: dict[str, Any] = super().get_environ()
        self.wsgi_input = environ["wsgi.input"] = _Body(self, environ["wsgi.input"])
        environ[WAITING] = partial(self.connections.waiting, self.socket)
        return environ

    def _sendall(self, data: bytes) -> None:
        with gevent.Timeout(self.limit_s, _Late):
            super()._sendall(data)

    def _handle_client_error(self, ex: Exception) -> Any:
        """None closes the connection without a word."""
        gone = isinstance(ex, _Late) or self.connections.was_cut(self.socket)
        return None if gone else super()._handle_client_error(ex)


class _Body(_Input):  # type: ignore[misc]
    """The body of a request; what the application left of it is read within the limit."""

    def __init__(self, handler: _Handler, made: Any) -> None:
        super().__init__(made.rfile, made.content_length, made.socket, made.chunked_input)
        self._handler = handler

    def _discard(self) -> None:
        if self.position >= (self.content_length or 0) and not self.chunked_input:
            return
        try:
            with gevent.Timeout(self._handler.limit_s, _Late):
                super()._discard()
        except _Late:
            self._handler.close_connection = True


class _Late(BrokenPipeError):
    """An error that pywsgi takes for a peer that has gone."""

    def __init__(self) -> None:
        super().__init__(errno.EPIPE, "the peer is too slow")
