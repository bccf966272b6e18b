"""A TCP proxy that can be cut and frozen: a server out of reach for one process alone."""

import contextlib
import socket
from collections.abc import Iterator

import gevent
from gevent.event import Event
from gevent.server import StreamServer


class Proxy:
    """Passes connections on to a server on loopback, until told otherwise."""

    def __init__(self, port: int) -> None:
        self._target = ("127.0.0.1", port)
        self._flowing = Event()
        self._flowing.set()
        self._cut = False
        self._open: set[socket.socket] = set()
        self._server = StreamServer(("127.0.0.1", 0), self._serve)
        self._server.start()

    @property
    def port(self) -> int:
        return int(self._server.server_port or 0)

    @contextlib.contextmanager
    def cut(self) -> Iterator[None]:
        """Every connection is reset, new ones at once."""
        self._cut = True
        self._reset_all()
        try:
            yield
        finally:
            self._cut = False

    @contextlib.contextmanager
    def frozen(self) -> Iterator[None]:
        """Not a byte passes and nobody is told; what was sent meanwhile arrives afterwards."""
        self._flowing.clear()
        try:
            yield
        finally:
            self._flowing.set()

    def close(self) -> None:
        self._flowing.set()
        self._server.stop(timeout=0)
        self._reset_all()

    def _serve(self, near: socket.socket, _peer: object) -> None:
        if self._cut:
            near.close()
            return
        self._flowing.wait()
        try:
            far = socket.create_connection(self._target)
        except OSError:
            near.close()
            return
        for sock in (near, far):
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        ends = {near, far}
        self._open |= ends
        back = gevent.spawn(self._pump, far, near)
        try:
            self._pump(near, far)
        finally:
            back.kill()
            self._open -= ends
            for sock in ends:
                sock.close()

    def _pump(self, source: socket.socket, target: socket.socket) -> None:
        with contextlib.suppress(OSError):
            while data := source.recv(1 << 16):
                self._flowing.wait()
                target.sendall(data)
        for sock in (source, target):
            with contextlib.suppress(OSError):
                sock.shutdown(socket.SHUT_RDWR)

    def _reset_all(self) -> None:
        for sock in list(self._open):
            with contextlib.suppress(OSError):
                sock.shutdown(socket.SHUT_RDWR)
