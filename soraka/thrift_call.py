"""One call of a Thrift service as bytes: the request, and what its answer holds."""

from collections.abc import Mapping
from io import BytesIO
from typing import Any

from thriftpy2.protocol import TCyBinaryProtocol
from thriftpy2.protocol.exc import TProtocolException
from thriftpy2.thrift import TClient, TException
from thriftpy2.transport import TCyBufferedTransport, TCyMemoryBuffer, TTransportException

from soraka.errors import PeerUnavailable


def request(service: Any, method: str, arguments: Mapping[str, Any]) -> bytes:
    """The payload of a frame."""
    buffer = TCyMemoryBuffer()
    _Client(service, TCyBinaryProtocol(buffer)).begin(method, arguments)
    return bytes(buffer.getvalue())


def answer(service: Any, method: str, payload: bytes) -> Any:
    """Raises the typed exceptions of the IDL; PeerUnavailable when it is no answer."""
    return _Client(service, reader(payload)).finish(method)


def reader(data: bytes) -> Any:
    """A protocol that reads `data` and raises at its end.

    Not TCyMemoryBuffer: that goes on past the end, with whatever lies in memory there.
    """
    return TCyBinaryProtocol(TCyBufferedTransport(BytesIO(data)))


class _Client(TClient):
    """thriftpy2's client, with sending and receiving apart."""

    def __init__(self, service: Any, protocol: Any) -> None:
        super().__init__(service, protocol)

    def begin(self, method: str, arguments: Mapping[str, Any]) -> None:
        self._send(method, **arguments)

    def finish(self, method: str) -> Any:
        try:
            return self._recv(method)
        except (TTransportException, TProtocolException) as exc:
            raise PeerUnavailable(f"not an answer: {exc!r}") from exc
        except TException:
            raise
        except Exception as exc:  # the parser's errors on garbage are not documented
            raise PeerUnavailable(f"not an answer: {exc!r}") from exc
