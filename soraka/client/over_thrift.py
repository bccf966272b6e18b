"""The Thrift service as a client calls it, on the standard library's sockets."""

import json
import socket
import struct
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

from thriftpy2.thrift import TApplicationException, TException

import idl
from soraka import thrift_call
from soraka.client.endpoint import Endpoint
from soraka.client.failures import Again, error_of
from soraka.client.messages import Fields
from soraka.client.pool import Pool
from soraka.errors import PLAIN, PeerUnavailable, SorakaError

MAX_ANSWER_BYTES = 16 << 20
SUCCESS = 200
_t = idl.soraka
_LENGTH = struct.Struct("!I")
_PLAIN = {getattr(_t, kind.__name__): kind for kind in PLAIN}


class ThriftTransport:
    def __init__(self, server: Endpoint) -> None:
        self._pool = Pool(partial(_Connection, server))

    def call(self, operation: str, fields: Fields) -> Any:
        """As the `result` of the HTTP API. Raises SorakaError; Again when it is not known."""
        arguments, shaped = _SHAPES[operation]
        given = arguments(fields)
        try:
            answer = self._pool.use(lambda connection: connection.outcome(operation, given))
            if isinstance(answer, TException):
                raise answer
            return shaped(answer)
        except TException as exc:
            raise _error(exc) from exc
        except PeerUnavailable as exc:
            raise Again(str(exc)) from exc
        except OSError as exc:
            raise Again(str(exc) or repr(exc)) from exc

    def close(self) -> None:
        self._pool.close()


class _Connection:
    """Says who it is before anything else."""

    def __init__(self, server: Endpoint) -> None:
        self._sock = socket.create_connection((server.host, server.port), server.timeout_s)
        try:
            self._sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            if server.tls is not None:
                self._sock = server.tls.wrap_socket(self._sock, server_hostname=server.host)
            if server.token is not None:
                self.call("authenticate", {"token": server.token})
        except BaseException:
            self._sock.close()
            raise

    def outcome(self, method: str, arguments: Mapping[str, Any]) -> Any:
        """The answer, or the exception that is one: the connection is as good as before."""
        try:
            return self.call(method, arguments)
        except TException as exc:
            return exc

    def call(self, method: str, arguments: Mapping[str, Any]) -> Any:
        payload = thrift_call.request(_t.Soraka, method, arguments)
        self._sock.sendall(_LENGTH.pack(len(payload)) + payload)
        (size,) = _LENGTH.unpack(self._read(_LENGTH.size))
        if size > MAX_ANSWER_BYTES:
            raise OSError(f"no answer of Thrift ({size} bytes); over TLS the URL is thrifts://")
        return thrift_call.answer(_t.Soraka, method, self._read(size))

    def close(self) -> None:
        self._sock.close()

    def _read(self, size: int) -> bytes:
        data = bytearray()
        while len(data) < size:
            more = self._sock.recv(size - len(data))
            if not more:
                raise ConnectionError("the server closed the connection")
            data += more
        return bytes(data)


def _error(exc: TException) -> SorakaError:
    if isinstance(exc, _t.InvalidRequest):
        return error_of(exc.ec, exc.em)
    if isinstance(exc, _t.Unavailable):
        return Again(exc.em, exc.retry_after / 1000, answered=True)
    if isinstance(exc, TApplicationException):
        return SorakaError(f"the server does not know this call: {exc.message}")
    kind = _PLAIN.get(type(exc), SorakaError)
    return kind(getattr(exc, "em", None) or str(exc))


def _submission(fields: Fields) -> Any:
    callback, renamed = fields["callback"], dict(fields)
    method = callback["request_type"].upper()
    renamed["callback"] = _t.Callback(
        # another method is refused by the server, by name
        request_type=_t.RequestType._NAMES_TO_VALUES.get(method, 0),
        url=callback["url"],
        params=callback.get("params"),
    )
    if "retry" in renamed:
        renamed["retry_delays"] = renamed.pop("retry")
    return _t.Submission(**renamed)


def _submissions(fields: Fields) -> Fields:
    return {"submissions": [_submission(one) for one in fields["messages"]]}


def _results(results: list[Any]) -> list[Fields]:
    return [{"ec": r.ec, "em": r.em, "msgId": r.msg_id or ""} for r in results]


def _info(info: Any) -> Fields:
    fields = {name: value for name, value in vars(info).items() if value is not None}
    callback = info.callback
    fields["state"] = _t.MessageState._VALUES_TO_NAMES[info.state].lower()
    fields["callback"] = {
        "request_type": _t.RequestType._VALUES_TO_NAMES[callback.request_type],
        "url": callback.url,
        "params": None if callback.params is None else json.loads(callback.params),
    }
    return fields


def _same(value: Any) -> Any:
    return value


_SHAPES: dict[str, tuple[Callable[[Fields], Fields], Callable[[Any], Any]]] = {
    "submit": (lambda f: {"submission": _submission(f)}, lambda msg_id: {"msgId": msg_id}),
    "submitBatch": (_submissions, _results),
    "cancel": (_same, _same),
    "addTime": (_same, _same),
    "get": (_same, _info),
}
