"""One HTTP callback: one request, one answer, one deadline over all of it.

A request is sent once for each claim. An idle connection is looked at before it is used, and
when the system takes not one byte of the request on it, a new connection is opened. Once a
byte has left, a connection that breaks is a failed attempt: the server may have begun to work.
Under TLS the first piece is one record: until the system has taken all of it, which is when
sending it returns, the server cannot decrypt a byte.
Redirects are not followed.

The deadline is that of the lease. Look-up, connecting and handshake come before it is looked at,
and nothing but the system's own call is between that look and the bytes. A process that is
stopped for longer than a lease, wherever it was, sends nothing more after it.
"""

import errno
import socket
import ssl
import time
from contextlib import suppress

import gevent

from soraka.destinations import Destinations
from worker.answer import BadAnswer, CutOff, Received, receive
from worker.dns import Resolver
from worker.hosts import Denied, Hosts
from worker.judge import Answer, Failure
from worker.request import Request
from worker.trust import Trust

KEEP_S = 30.0
FIRST_TLS_BYTES = 8 << 10
"""Fits in one record, of 16 KB at most. Sending more fails also when the first records arrived."""
PIECE_BYTES = 64 << 10
"""Of a large body, between two looks at the deadline."""
STOPPED_S = 0.5
"""A timeout that strikes so late says that this process stood still, and nothing of the host."""
_UNREACHABLE = frozenset(
    {errno.EHOSTUNREACH, errno.EHOSTDOWN, errno.ENETUNREACH, errno.ENETDOWN, errno.ETIMEDOUT}
)


class _TooLate(Exception):
    """The deadline has passed and not all of the request has left."""


class Caller:
    """Makes callbacks; safe for any number of greenlets. Without `destinations` and `trust` they
    are those of the default settings."""

    def __init__(
        self,
        *,
        max_response_bytes: int,
        max_idle: int = 1000,
        resolver: Resolver | None = None,
        destinations: Destinations | None = None,
        trust: Trust | None = None,
        keep_s: float = KEEP_S,
    ) -> None:
        self._limit = max_response_bytes
        self._keep_s = keep_s
        self._hosts = Hosts(
            resolver=resolver or Resolver(),
            destinations=destinations or Destinations(),
            trust=trust or Trust(),
            max_idle=max_idle,
            reap_every_s=min(5.0, keep_s),
        )

    def __call__(self, request: Request, deadline: float | None = None) -> Answer | Failure:
        """Returns by `deadline`, on the monotonic clock, or else within `request.ttr_ms`; what
        goes wrong outside is a Failure, not raised."""
        if deadline is None:
            deadline = time.monotonic() + request.ttr_ms / 1000
        timeout = gevent.Timeout(max(0.0, deadline - time.monotonic()))
        try:
            with timeout:
                return self._attempt(request, deadline)
        except gevent.Timeout as exc:
            if exc is not timeout:
                raise
            on_time = time.monotonic() < deadline + STOPPED_S
            return Failure(f"timeout after {request.ttr_ms} ms", unanswered=on_time)
        except _TooLate:
            return Failure("too late to send")
        except Denied as exc:
            return Failure(str(exc), final=True)
        except (OSError, BadAnswer) as exc:
            return Failure(_reason(exc), unanswered=_is_unanswered(exc))

    def close(self) -> None:
        """Closes idle connections. Safe to repeat."""
        self._hosts.close()

    def _attempt(self, request: Request, deadline: float) -> Answer:
        sock, sent = self._begin(request, deadline)
        try:
            received = self._finish(sock, request.data, sent, deadline)
        except BaseException:
            sock.close()
            raise
        self._hosts.give(request.origin, sock, received.keep_s)
        return received.answer

    def _begin(self, request: Request, deadline: float) -> tuple[socket.socket, int]:
        """Sends the first piece; the connection it went out on and its size."""
        if (sock := self._hosts.take(request.origin)) is not None:
            try:
                return sock, _first_piece(sock, request.data, deadline)
            except (ConnectionError, ssl.SSLError):
                sock.close()  # not one byte was taken: surely not received
            except BaseException:
                sock.close()
                raise
        sock = self._hosts.open(request.origin, deadline - time.monotonic())
        try:
            return sock, _first_piece(sock, request.data, deadline)
        except BaseException:
            sock.close()
            raise

    def _finish(self, sock: socket.socket, data: bytes, sent: int, deadline: float) -> Received:
        # a server may answer before it has read all, and close
        with suppress(ConnectionError):
            while sent < len(data):
                _look_at(deadline)
                sent += sock.send(memoryview(data)[sent : sent + PIECE_BYTES])
        return receive(sock, max_body_bytes=self._limit, keep_s=self._keep_s)


def _first_piece(sock: socket.socket, data: bytes, deadline: float) -> int:
    _look_at(deadline)
    if isinstance(sock, ssl.SSLSocket):
        data = data[:FIRST_TLS_BYTES]
    return sock.send(data)


def _look_at(deadline: float) -> None:
    """A process that was stopped and went on may get here before its timeout strikes."""
    if time.monotonic() >= deadline:
        raise _TooLate


def _is_unanswered(exc: OSError | BadAnswer) -> bool:
    """Not what is wrong on this side, like too many open files, nor what a server said."""
    if isinstance(exc, BadAnswer):
        return isinstance(exc, CutOff)
    host_errors = (ConnectionError, TimeoutError, ssl.SSLError, socket.gaierror)
    return isinstance(exc, host_errors) or exc.errno in _UNREACHABLE


def _reason(exc: OSError | BadAnswer) -> str:
    """Short words for people."""
    if isinstance(exc, BadAnswer):
        return str(exc)
    if isinstance(exc, ssl.SSLCertVerificationError):
        return f"TLS: {exc.verify_message}"
    if isinstance(exc, ssl.SSLError):
        return f"TLS: {(exc.reason or str(exc)).lower().replace('_', ' ')}"
    if isinstance(exc, socket.gaierror):
        return f"DNS: {(exc.strerror or str(exc)).lower()}"
    return (exc.strerror or str(exc) or type(exc).__name__).lower()
