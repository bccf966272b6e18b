"""An HTTP/1.1 server for WSGI applications, on gevent: that of all roles, in gunicorn and without.

Those of gunicorn and gevent take 90 to 130 µs for a request, most of it in a parser in Python,
and send each answer in two pieces; and both wait for ever: for the head of a request, for the rest
of a body that nobody read, for a peer to take its answer. Answers are sent whole: an application
that yields without end is not served here.
"""

import json
import logging
import socket
import sys
import time
from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from email.utils import formatdate
from functools import lru_cache
from typing import Any

import gevent
from gevent.pool import Pool
from gevent.server import StreamServer

from soraka.connections import SPARE, Connections
from soraka.errors import InvalidParams, SorakaError
from soraka.http_request import MUST_CLOSE, Body, Reader, Request

log = logging.getLogger(__name__)

Environ = dict[str, Any]
WsgiApp = Callable[[Environ, Callable[..., Any]], Iterable[bytes]]

IDLE_S = 15.0
"""A connection on which no next request comes is closed."""
STEP_BYTES = 16 << 10
ANSWERS = 10
"""To one connection until others run, whether it had to be waited for or not."""
_JSON = [("Content-Type", "application/json")]
_CONTINUE = b"HTTP/1.1 100 Continue\r\n\r\n"


def make_server(
    listener: socket.socket,
    app: WsgiApp,
    *,
    max_connections: int = 100,
    read_timeout_ms: int = 10_000,
) -> StreamServer:
    """Not started. For one over `max_connections` the one that waits longest is closed.
    `read_timeout_ms` is for each of: a head to arrive, an answer to be taken, the rest of a body
    to be thrown away."""
    door = Door(app, Connections(max_connections), read_timeout_ms / 1000)
    return StreamServer(listener, door.handle, spawn=Pool(max_connections + SPARE))


class Door:
    """Serves connections. While `is_closing()` each gets one more answer, and is closed."""

    def __init__(
        self,
        app: WsgiApp,
        connections: Connections,
        limit_s: float,
        is_closing: Callable[[], bool] = lambda: False,
    ) -> None:
        self.app = app
        self.connections = connections
        self.limit_s = limit_s
        self.is_closing = is_closing

    def handle(self, sock: Any, address: Any) -> None:
        """To its end. Of a gevent server."""
        with self.connections.open(sock), suppress(OSError):
            _Connection(self, sock, address).serve()
        _close(sock)


class _Connection:
    def __init__(self, door: Door, sock: Any, address: Any) -> None:
        self._door = door
        self._sock = sock
        self._reader = Reader()
        self._answered = 0
        sock.settimeout(None)
        self._common = _common(sock, address)

    def serve(self) -> None:
        """Until it ends or is of no more use. Raises OSError: a peer that is gone, or too slow."""
        until = time.monotonic() + self._door.limit_s
        while (request := self._next(until)) is not None:
            if not self._answer(request):
                return
            self._let_others_run()
            until = time.monotonic() + IDLE_S

    def _let_others_run(self) -> None:
        """Where requests come faster than they are answered, neither reading nor sending waits."""
        self._answered += 1
        if self._reader.requests or self._answered % ANSWERS == 0:
            gevent.sleep(0)

    # ------------------------------------------------------------------ reading

    def _next(self, until: float) -> Request | None:
        """The next request; None when there is none."""
        reader, has_begun = self._reader, False
        while not reader.requests:
            if reader.refused:
                self._refuse(reader.refused)
                return None
            if reader.has_begun and not has_begun:
                has_begun, until = True, time.monotonic() + self._door.limit_s
            if not self._receive(until):
                return None
        return reader.requests.popleft()

    def _receive(self, until: float) -> bool:
        """Some bytes; False at the end, or when its time is up."""
        with self._door.connections.waiting(self._sock, until):
            data = self._sock.recv(STEP_BYTES)
        if not data or self._door.connections.was_cut(self._sock):
            return False  # it could not be told what became of a request
        self._reader.feed(data)
        return True

    def _refuse(self, why: str) -> None:
        """What is no request."""
        body = _told(InvalidParams.code, f"request: is not HTTP/1.1: {why}")
        self._send("400 Bad Request", _JSON, body, is_last=True)

    def _more(self) -> bool:
        """Bytes of a body, for as long as its reader waits; False when none will come."""
        return not self._reader.refused and self._receive(time.monotonic() + 2 * IDLE_S)

    def _throw_away(self, request: Request) -> bool:
        """Whether the whole rest of its body has come, and another request may follow."""
        until = time.monotonic() + self._door.limit_s
        while not request.is_whole:
            request.body.clear()
            if self._reader.refused or not self._receive(until):
                return False
        return True

    # ------------------------------------------------------------------ answering

    def _answer(self, request: Request) -> bool:
        """Whether the connection may serve on."""
        environ = request.environ(self._common)
        environ["wsgi.input"] = Body(request, self._more)
        if "HTTP_EXPECT" in environ and not request.is_whole:
            self._greet(environ)
        status, headers, body = self._applied(environ)
        is_last = (
            request.is_last
            or MUST_CLOSE in environ
            or self._door.is_closing()
            or bool(self._reader.refused)
        )
        self._send(status, headers, body, is_last=is_last, request=request)
        return not is_last and (request.is_whole or self._throw_away(request))

    def _greet(self, environ: Environ) -> None:
        if environ["HTTP_EXPECT"].lower() == "100-continue":
            self._put(_CONTINUE)

    def _applied(self, environ: Environ) -> tuple[str, Sequence[tuple[str, str]], bytes]:
        started: list[Any] = []
        parts: list[bytes] = []

        def start_response(status: str, headers: Any, _exc_info: Any = None) -> Any:
            started[:] = status, headers
            return parts.append

        try:
            result = self._door.app(environ, start_response)
            try:
                parts += result
            finally:
                if hasattr(result, "close"):
                    result.close()
            return started[0], started[1], b"".join(parts)
        except Exception:
            log.exception("http.application_failed", extra={"path": environ["PATH_INFO"]})
            environ[MUST_CLOSE] = True
            body = _told(SorakaError.code, "system error")
            return "500 Internal Server Error", _JSON, body

    def _send(
        self,
        status: str,
        headers: Sequence[tuple[str, str]],
        body: bytes,
        *,
        is_last: bool,
        request: Request | None = None,
    ) -> None:
        lines = [f"HTTP/1.1 {status}", f"Date: {_date(int(time.time()))}"]
        names = set()
        for name, value in headers:
            names.add(name.lower())
            lines.append(f"{name}: {value}")
        if "content-length" not in names and status[:3] not in ("204", "304"):
            lines.append(f"Content-Length: {len(body)}")
        if "connection" not in names:
            if is_last:
                lines.append("Connection: close")
            elif request is not None and request.version == "1.0":
                lines.append("Connection: keep-alive")
        head = "\r\n".join(lines).encode("latin-1") + b"\r\n\r\n"
        if request is not None and request.method == "HEAD":
            body = b""
        self._put(head + body)

    def _put(self, data: bytes) -> None:
        """As sendall, which takes 4 µs more. Raises TimeoutError: the peer does not take it."""
        self._sock.settimeout(self._door.limit_s)
        sent = self._sock.send(data)
        if sent < len(data):
            self._sock.sendall(memoryview(data)[sent:])
        self._sock.settimeout(None)


def _told(ec: int, em: str) -> bytes:
    """As the answers of the applications are."""
    return json.dumps({"ec": ec, "em": em, "result": None}).encode()


def _common(sock: Any, address: Any) -> Environ:
    """What is the same in the environs of a connection."""
    host, port = sock.getsockname()[:2]
    return {
        "SCRIPT_NAME": "",
        "SERVER_NAME": host,
        "SERVER_PORT": str(port),
        "REMOTE_ADDR": address[0],
        "REMOTE_PORT": str(address[1]),
        "wsgi.version": (1, 0),
        "wsgi.url_scheme": "http",
        "wsgi.errors": sys.stderr,
        "wsgi.multithread": True,
        "wsgi.multiprocess": True,
        "wsgi.run_once": False,
    }


@lru_cache(maxsize=1)
def _date(second: int) -> str:
    return formatdate(second, usegmt=True)


def _close(sock: Any) -> None:
    """What it has sent and nobody read is read first, or the end would overtake our answer."""
    with suppress(OSError):
        sock.settimeout(0)
        sock.recv(STEP_BYTES)
    sock.close()
