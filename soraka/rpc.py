"""Thrift between processes: framed transport, binary protocol, gevent.

Whole frames are read under a size limit and a deadline, and skimmed, before thriftpy2 sees a
byte, so an oversized, malformed or dripping peer costs its own connection and nothing else. With
a TLS context the same holds of the handshake, which keeps no one else waiting.
"""

import logging
import socket
import ssl
import struct
from collections.abc import Callable
from contextlib import closing
from typing import Any

import gevent
from gevent.pool import Pool
from gevent.server import StreamServer
from thriftpy2.protocol import TCyBinaryProtocol
from thriftpy2.thrift import TProcessor
from thriftpy2.transport import TCyMemoryBuffer

from soraka import skim, thrift_call, tls
from soraka.address import at
from soraka.budget import ReadingBudget, Share
from soraka.connections import SPARE, Connections, cut
from soraka.errors import PeerUnavailable, Unavailable

log = logging.getLogger(__name__)

_LENGTH = struct.Struct("!I")
_STEP = 64 << 10
MAX_READING_BYTES = 64 << 20
_OF_TLS = (b"\x15\x03", b"\x16\x03")
"""How an alert and a handshake begin."""


class BadFrame(Exception):
    """The peer broke the protocol; its connection is closed."""


class _NoRoom(Exception):
    """A frame that does not fit the budget was read and thrown away. `call` is its beginning."""

    def __init__(self, call: bytes) -> None:
        super().__init__("too many bytes of other calls are being read")
        self.call = call


def _read_exactly(sock: socket.socket, size: int, share: Share | None = None) -> bytes:
    """`size` bytes, or fewer when the peer closed. Raises _NoRoom."""
    chunks = bytearray()
    while len(chunks) < size:
        chunk = sock.recv(min(size - len(chunks), _STEP))
        if not chunk:
            break
        if share is not None and not _fits(share, len(chunk)):
            begin, left = bytes(chunks[:_STEP]) or chunk, size - len(chunks) - len(chunk)
            del chunks, chunk  # others have the room from now on
            share.release()
            _skip(sock, left)
            raise _NoRoom(begin)
        chunks += chunk
    return bytes(chunks)


def _fits(share: Share, size: int) -> bool:
    try:
        share.take(size)
    except Unavailable:
        return False
    return True


def _skip(sock: socket.socket, size: int) -> None:
    while size > 0 and (chunk := sock.recv(min(size, _STEP))):
        size -= len(chunk)


def _read_frame(sock: socket.socket, first: bytes, limit: int, share: Share | None = None) -> bytes:
    head = first + _read_exactly(sock, _LENGTH.size - len(first))
    if len(head) < _LENGTH.size:
        raise BadFrame("closed in the middle of a frame")
    (size,) = _LENGTH.unpack(head)
    if head.startswith(_OF_TLS):
        raise BadFrame("it speaks TLS (tls.thrift)")
    if not 0 < size <= limit:
        raise BadFrame(f"a frame of {size} bytes; the limit is {limit}")
    frame = _read_exactly(sock, size, share)
    if len(frame) < size:
        raise BadFrame("closed in the middle of a frame")
    return frame


def _frame(payload: bytes) -> bytes:
    return _LENGTH.pack(len(payload)) + payload


class RpcServer:
    """Serves one Thrift service on a listening socket.

    `max_items` bounds the fields and container elements of a call, of any size: each costs
    thriftpy2 up to 1.2 µs and 140 bytes, and nothing else runs meanwhile. `budget` bounds the
    bytes of calls being read and answered; to a call that finds no room `no_room` is answered,
    and the connection is closed when the IDL declares no such exception for it. For one
    connection over `max_connections` the one that waits longest for its peer is closed. With
    `secured` all of it is over TLS; a handshake has the time of a call to be read.
    """

    def __init__(
        self,
        service: Any,
        handler: object,
        listener: socket.socket,
        *,
        max_frame_bytes: int = 8 << 20,
        max_items: int = 50_000,
        read_timeout_ms: int = 10_000,
        idle_timeout_ms: int = 300_000,
        max_connections: int = 1000,
        budget: ReadingBudget | None = None,
        no_room: Callable[[], Exception] = lambda: Unavailable("busy"),
        secured: tls.Context | None = None,
    ) -> None:
        self._service = service
        self._processor = TProcessor(service, handler)
        self._budget = budget or ReadingBudget(MAX_READING_BYTES)
        self._no_room = no_room
        self._secured = secured
        self._connections = Connections(max_connections)
        self._limit = max_frame_bytes
        self._max_items = max_items
        self._read_timeout_s = read_timeout_ms / 1000
        self._idle_timeout_s = idle_timeout_ms / 1000
        self._idle: set[socket.socket] = set()
        self._stopping = False
        pool = Pool(max_connections + SPARE)
        self._server = StreamServer(listener, self._serve_connection, spawn=pool)

    def start(self) -> None:
        """Begins to serve, in the background."""
        self._server.start()

    @property
    def port(self) -> int:
        return int(self._server.server_port or 0)

    def stop(self, limit_s: float) -> None:
        """Takes no new connection, closes idle ones, waits for calls under way. Repeatable."""
        self._stopping = True
        self._server.close()
        for sock in list(self._idle):
            cut(sock)
        self._server.stop(timeout=limit_s)

    def _serve_connection(self, accepted: socket.socket, peer: Any) -> None:
        accepted.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        try:
            with closing(self._wrapped(accepted)) as sock, self._connections.open(sock):
                if self._shake_hands(sock, peer):
                    self._serve_calls(sock)
        except gevent.Timeout:
            log.warning("rpc.frame_timeout", extra={"peer": str(peer)})
        except BadFrame as exc:
            log.warning("rpc.bad_frame", extra={"peer": str(peer), "reason": str(exc)})
        except OSError as exc:
            log.debug("rpc.connection_lost", extra={"peer": str(peer), "reason": str(exc)})

    def _wrapped(self, sock: socket.socket) -> socket.socket:
        """Waits for nothing."""
        if self._secured is None:
            return sock
        return self._secured.wrap_socket(sock, server_side=True, do_handshake_on_connect=False)

    def _shake_hands(self, sock: socket.socket, peer: Any) -> bool:
        """Whether the peer is let in; if not, it was told why."""
        if not isinstance(sock, tls.Socket):
            return True
        with self._connections.waiting(sock), gevent.Timeout(self._read_timeout_s):
            try:
                sock.do_handshake()
            except ssl.SSLEOFError:
                raise
            except ssl.SSLError as exc:
                reason = sock.context.told(exc)
                log.warning("rpc.handshake_failed", extra={"peer": str(peer), "reason": reason})
                tls.refuse(sock, exc)
                return False
        return True

    def _serve_calls(self, sock: socket.socket) -> None:
        while not self._stopping and (first := self._wait(sock)):
            self._serve_call(sock, first)

    def _wait(self, sock: socket.socket) -> bytes:
        """The first byte of the next call; empty when the peer is done or idle too long."""
        self._idle.add(sock)
        try:
            with self._connections.waiting(sock):
                return gevent.with_timeout(self._idle_timeout_s, sock.recv, 1, timeout_value=b"")
        finally:
            self._idle.discard(sock)

    def _serve_call(self, sock: socket.socket, first: bytes) -> None:
        with self._budget.share() as share:
            try:
                with self._connections.waiting(sock), gevent.Timeout(self._read_timeout_s):
                    frame = _read_frame(sock, first, self._limit, share)
            except _NoRoom as exc:
                payload = self._refused(exc)
            else:
                payload = self._answer(frame)
        if payload:
            with gevent.Timeout(self._read_timeout_s):
                sock.sendall(_frame(payload))

    def _answer(self, frame: bytes) -> bytes:
        """Empty for none. Raises BadFrame."""
        answer = TCyMemoryBuffer()
        try:
            skim.check_call(frame, self._max_items)
            self._processor.process(thrift_call.reader(frame), TCyBinaryProtocol(answer))
        except OSError:
            raise
        except Exception as exc:  # the parser's errors on garbage are not documented
            log.debug("rpc.call_failed", exc_info=True)
            raise BadFrame(f"{type(exc).__name__}: {exc}") from exc
        return bytes(answer.getvalue())

    def _refused(self, exc: _NoRoom) -> bytes:
        """The answer to a call of which only the beginning is known. Raises BadFrame."""
        answer = TCyMemoryBuffer()
        try:
            method, _, sequence = thrift_call.reader(exc.call).read_message_begin()
            result = getattr(self._service, f"{method}_result")()
        except Exception as error:
            raise BadFrame(str(exc)) from error
        if not self._processor.handle_exception(self._no_room(), result):
            raise BadFrame(str(exc))
        self._processor.send_result(TCyBinaryProtocol(answer), method, result, sequence)
        return bytes(answer.getvalue())


class RpcClient:
    """Calls one peer over one connection at a time; any failure closes the connection.

    thriftpy2 does not check sequence ids: after a failure the next answer on the same
    connection could be that of the failed call.
    """

    def __init__(
        self,
        service: Any,
        address: tuple[str, int],
        *,
        timeout_ms: int,
        max_frame_bytes: int = 8 << 20,
        secured: tls.Context | None = None,
    ) -> None:
        self._service = service
        self._address = address
        self._secured = secured
        self._timeout_s = timeout_ms / 1000
        self._limit = max_frame_bytes
        self._free: list[socket.socket] = []

    def call(self, method: str, **arguments: Any) -> Any:
        """The answer. Raises the typed exceptions of the IDL, and PeerUnavailable."""
        request = thrift_call.request(self._service, method, arguments)
        return thrift_call.answer(self._service, method, self._exchange(_frame(request)))

    def close(self) -> None:
        """Safe to repeat."""
        while self._free:
            self._free.pop().close()

    def _exchange(self, request: bytes) -> bytes:
        reused = bool(self._free)
        sock: socket.socket | None = self._free.pop() if reused else None
        try:
            with gevent.Timeout(self._timeout_s):
                if sock is None:
                    sock = _connected(self._address)
                    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                    if self._secured is not None:
                        sock = tls.connected(sock, self._secured, self._address[0])
                sock.sendall(request)
                answer = _read_frame(sock, b"", self._limit)
        except (OSError, BadFrame, gevent.Timeout) as exc:
            if sock is not None:
                sock.close()
            if reused and not isinstance(exc, gevent.Timeout):
                # closed while it lay idle; every internal call may be repeated
                self.close()
                return self._exchange(request)
            raise PeerUnavailable(self._said(exc)) from exc
        except BaseException:
            if sock is not None:
                sock.close()
            raise
        self._free.append(sock)
        return answer

    def _said(self, exc: BaseException) -> str:
        host, port = self._address
        reason = getattr(exc, "strerror", None) or str(exc)
        if self._secured is not None:
            reason = self._secured.why(exc) or reason
        if isinstance(exc, gevent.Timeout):
            reason = f"no answer within {self._timeout_s:g} s"
        return f"{at(host, port)}: {reason}"


def _connected(address: tuple[str, int]) -> socket.socket:
    """As `socket.create_connection`, which leaves its socket behind when it is broken off."""
    failed: OSError | None = None
    for family, kind, protocol, _, place in socket.getaddrinfo(*address, type=socket.SOCK_STREAM):
        sock = socket.socket(family, kind, protocol)
        try:
            sock.connect(place)
        except OSError as exc:
            sock.close()
            failed = exc
        except BaseException:
            sock.close()
            raise
        else:
            return sock
    raise failed or OSError(f"no address of {address[0]}")


def parse_address(address: str) -> tuple[str, int]:
    """("10.0.0.1", 30002) of "10.0.0.1:30002"."""
    host, _, port = address.rpartition(":")
    return host, int(port)
