"""HTTP servers for tests of callbacks: real sockets on loopback, scripted to the byte."""

import socket
import ssl
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import gevent
from gevent.server import StreamServer


@dataclass
class Seen:
    """One request as it came in. `at` is time.time() in ms; `connection` counts from 1."""

    method: str
    uri: str
    headers: dict[str, str]
    body: bytes
    at: float
    connection: int


Reply = Callable[[socket.socket, Seen], bool | None]
"""Answers on the socket; True closes the connection after it."""


def ok(body: bytes = b"{}", *, status: str = "200 OK", extra: str = "") -> Reply:
    """The usual answer."""

    def reply(sock: socket.socket, seen: Seen) -> None:
        head = f"HTTP/1.1 {status}\r\nContent-Length: {len(body)}\r\n{extra}\r\n"
        sock.sendall(head.encode() + body)

    return reply


def raw(data: bytes, *, close: bool = True) -> Reply:
    """Just these bytes."""

    def reply(sock: socket.socket, seen: Seen) -> bool:
        sock.sendall(data)
        return close

    return reply


@dataclass
class Sink:
    """`reply` may be changed at any time; `seen` are the requests read whole."""

    reply: Reply = field(default_factory=ok)
    seen: list[Seen] = field(default_factory=list)
    connections: int = 0
    open_now: int = 0
    at_once: int = 0
    """The most requests that were being answered at the same time."""
    port: int = 0
    scheme: str = "http"
    _answering: int = 0

    @property
    def url(self) -> str:
        return f"{self.scheme}://127.0.0.1:{self.port}/hook"

    def serve(self, sock: socket.socket, peer: Any) -> None:
        self.connections += 1
        self.open_now += 1
        number = self.connections
        try:
            while (seen := _read_request(sock, number)) is not None:
                self.seen.append(seen)
                if self._answer(sock, seen):
                    return
        except OSError:
            pass
        finally:
            self.open_now -= 1

    def _answer(self, sock: socket.socket, seen: Seen) -> bool | None:
        self._answering += 1
        self.at_once = max(self.at_once, self._answering)
        try:
            return self.reply(sock, seen)
        finally:
            self._answering -= 1


def _read_request(sock: socket.socket, connection: int) -> Seen | None:
    data = b""
    while b"\r\n\r\n" not in data:
        chunk = sock.recv(65536)
        if not chunk:
            return None
        data += chunk
    head, _, body = data.partition(b"\r\n\r\n")
    first, *lines = head.decode("latin-1").split("\r\n")
    method, uri, _ = first.split(" ")
    headers = {k.lower(): v for k, v in (line.split(": ", 1) for line in lines)}
    while len(body) < int(headers.get("content-length", 0)):
        chunk = sock.recv(65536)
        if not chunk:
            return None
        body += chunk
    return Seen(method, uri, headers, body, time.time() * 1000, connection)


@contextmanager
def sink(reply: Reply | None = None, *, tls: ssl.SSLContext | None = None) -> Iterator[Sink]:
    """A running Sink."""
    made = Sink(reply=reply or ok(), scheme="https" if tls else "http")
    options: dict[str, Any] = {"ssl_context": tls} if tls else {}
    server = StreamServer(("127.0.0.1", 0), made.serve, spawn=10_000, backlog=2048, **options)
    server.start()
    made.port = server.server_port or 0
    try:
        yield made
    finally:
        server.stop(timeout=0.1)


def eventually(what: Callable[[], Any], limit_s: float = 5.0) -> Any:
    """Waits until `what()` is true, and returns it."""
    deadline = time.monotonic() + limit_s
    while not (found := what()):
        assert time.monotonic() < deadline, "did not come true in time"
        gevent.sleep(0.005)
    return found
