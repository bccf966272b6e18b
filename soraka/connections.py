"""The open connections of a listener. Over the limit the one that waits longest for its peer goes,
so those that do nothing, or little, keep nobody out."""

import errno
import fcntl
import logging
import math
import resource
import socket
import struct
import termios
import time
from collections import OrderedDict
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, suppress

import gevent

log = logging.getLogger(__name__)

SPARE = 16
"""Accepted beyond the limit, until those that went for them have ended."""
LOOKED_AT = 16
OTHER_FILES = 256
"""Open files of a process beside its clients: servers, peers, logs, the library's own."""
WARN_EVERY_S = 10.0
WATCH_EVERY_S = 0.2
_COUNT = struct.Struct("i")
_Waits = OrderedDict[socket.socket, tuple[float, float]]
"""Since when and until when, those that have waited longest first."""


class Connections:
    """Sockets are of gevent: one that is shut down wakes the greenlet that waits on it."""

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._open = 0
        self._watched = False
        self._waiting: _Waits = OrderedDict()
        self._cut: set[socket.socket] = set()
        self._evicted = 0
        self._warned_at = -WARN_EVERY_S

    @contextmanager
    def open(self, sock: socket.socket) -> Iterator[None]:
        """For the life of a connection. Another may go for it."""
        self._open += 1
        if not self._watched:
            self._watched = True
            gevent.spawn(self._watch)
        try:
            if self._open - len(self._cut) > self._limit:
                self._make_room()
            yield
        finally:
            self._open -= 1
            self._cut.discard(sock)

    def waiting(self, sock: socket.socket, until: float = math.inf) -> AbstractContextManager[None]:
        """While the peer is to send: its next request, or the rest of one. It is cut when it has
        not at that moment (of `time.monotonic`), or up to WATCH_EVERY_S later. A timeout for
        each costs 5 µs."""
        return _Waiting(self._waiting, sock, until)

    def was_cut(self, sock: socket.socket) -> bool:
        return sock in self._cut

    def cut_waiting(self, for_s: float) -> None:
        """Closes those that have waited for so long."""
        before = time.monotonic() - for_s
        for sock in [sock for sock, (since, _) in self._waiting.items() if since < before]:
            self._end(sock)

    def _watch(self) -> None:
        """For as long as there are any."""
        try:
            while self._open:
                gevent.sleep(WATCH_EVERY_S)
                self._cut_late()
        finally:
            self._watched = False

    def _cut_late(self) -> None:
        now = time.monotonic()
        late = [sock for sock, (_, until) in self._waiting.items() if until < now]
        for sock in late:
            if _unread(sock) == 0:  # or it came in time, and we are late ourselves
                self._end(sock)

    def _make_room(self) -> None:
        """One whose bytes have come, and who only waits for us, is left alone. When there are
        only such, and others being served, the new one is one more than the limit; at SPARE of
        those no more are accepted until one ends, and each has its deadline."""
        for _, sock in zip(range(LOOKED_AT), self._waiting, strict=False):
            if _unread(sock) == 0:
                self._end(sock)
                self._evicted += 1
                break
        self._warn()

    def _end(self, sock: socket.socket) -> None:
        self._waiting.pop(sock, None)
        self._cut.add(sock)
        cut(sock)

    def _warn(self) -> None:
        now = time.monotonic()
        if now - self._warned_at > WARN_EVERY_S:
            self._warned_at = now
            log.warning("connections.full", extra={"limit": self._limit, "closed": self._evicted})
            self._evicted = 0


class _Waiting(AbstractContextManager[None]):
    """With `contextmanager` it would take 2 µs of each request."""

    def __init__(self, those: _Waits, sock: socket.socket, until: float) -> None:
        self._those = those
        self._sock = sock
        self._until = until

    def __enter__(self) -> None:
        self._those[self._sock] = time.monotonic(), self._until

    def __exit__(self, *_: object) -> None:
        self._those.pop(self._sock, None)


def cut(sock: socket.socket) -> None:
    """Wakes whoever waits on it, as if the peer had closed. A TLS socket's own shutdown would take
    its state away while it is being read, and what comes then would be read as plain text."""
    with suppress(OSError):
        socket.socket.shutdown(sock, socket.SHUT_RDWR)


def _unread(sock: socket.socket) -> int:
    """Bytes that have come and were not read."""
    try:
        answer = fcntl.ioctl(sock.fileno(), termios.FIONREAD, _COUNT.pack(0))
    except OSError as exc:
        if exc.errno not in (errno.EBADF, errno.ENOTCONN):
            raise
        return 0
    return int(_COUNT.unpack(answer)[0])


def fitting(wanted: int, listeners: int, setting: str) -> int:
    """How many connections each of `listeners` can have: `wanted`, or fewer when the process may
    not open so many files. Raises its soft limit first, as far as it is allowed to."""
    need = listeners * (wanted + SPARE) + OTHER_FILES
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft != resource.RLIM_INFINITY and soft < need:
        soft = need if hard == resource.RLIM_INFINITY else min(need, hard)
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    if soft == resource.RLIM_INFINITY or soft >= need:
        return wanted
    fits = max(1, (soft - OTHER_FILES) // listeners - SPARE)
    log.warning(
        "connections.fewer_than_set",
        extra={
            "setting": setting,
            "wanted": wanted,
            "fits": fits,
            "open_files": soft,
            "remedy": f"allow {need} open files (LimitNOFILE of systemd, ulimit -n)",
        },
    )
    return fits
