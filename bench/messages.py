"""Submissions as bytes, built once; only the due times are filled in per request."""

import json
import struct
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from thriftpy2.protocol import TCyBinaryProtocol
from thriftpy2.thrift import TClient
from thriftpy2.transport import TCyMemoryBuffer

import idl

# Stand in the place of a due time, and occur nowhere else. Digits: as many as epoch ms have.
_HTTP_MARK = 1_111_222_233_334
_THRIFT_MARK = 0x7A7B_7C7D_7E7F_7071
PARAMS = {
    "order_id": 20_481_024,
    "action": "close-unpaid",
    "shop": "main street 12",
    "customer": "k-1200345",
}


@dataclass(frozen=True)
class Template:
    """A request with `batch` due times to fill in; of fixed length."""

    parts: tuple[bytes, ...]
    thrift: bool

    @property
    def batch(self) -> int:
        return len(self.parts) - 1

    def fill(self, dues: Sequence[int]) -> bytes:
        """The request for these due times, epoch ms, `batch` of them."""
        pieces = [b""] * (2 * len(self.parts) - 1)
        pieces[::2] = self.parts
        if self.thrift:
            pieces[1::2] = [struct.pack("!q", due) for due in dues]
        else:
            pieces[1::2] = [b"%d" % due for due in dues]
        return b"".join(pieces)


def template(protocol: str, *, topic: str, url: str, batch: int) -> Template:
    """`protocol` is http or thrift; or bare, of a server that knows no messages. A batch of 1 is a
    single submit."""
    if protocol == "bare":
        return Template((b"GET /?due=", b" HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n"), thrift=False)
    if protocol == "thrift":
        return _thrift(topic, url, batch)
    return _http(topic, url, batch)


def _http(topic: str, url: str, batch: int) -> Template:
    message = {
        "topic_name": topic,
        "deliver_at": _HTTP_MARK,
        "callback": {"request_type": "POST", "url": url, "params": PARAMS},
    }
    path = "submit" if batch == 1 else "submitBatch"
    body = json.dumps(message if batch == 1 else {"messages": [message] * batch}).encode()
    head = (
        f"POST /sorakaq/msg/{path} HTTP/1.1\r\nHost: 127.0.0.1\r\n"
        f"Content-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n"
    )
    return _split(head.encode() + body, b"%d" % _HTTP_MARK, batch, thrift=False)


def _thrift(topic: str, url: str, batch: int) -> Template:
    t = idl.soraka
    submission = t.Submission(
        topic_name=topic,
        deliver_at=_THRIFT_MARK,
        callback=t.Callback(
            request_type=t.RequestType.POST,
            url=url,
            params=json.dumps(PARAMS, separators=(",", ":")),
        ),
    )
    if batch == 1:
        payload = thrift_call("submit", submission=submission)
    else:
        payload = thrift_call("submitBatch", submissions=[submission] * batch)
    return _split(payload, struct.pack("!q", _THRIFT_MARK), batch, thrift=True)


def thrift_call(method: str, **arguments: Any) -> bytes:
    """A framed call of the public service."""
    buffer = TCyMemoryBuffer()
    client = TClient(t_service(), TCyBinaryProtocol(buffer))
    client._send(method, **arguments)
    payload = bytes(buffer.getvalue())
    return struct.pack("!I", len(payload)) + payload


def t_service() -> Any:
    return idl.soraka.Soraka


def _split(request: bytes, mark: bytes, batch: int, *, thrift: bool) -> Template:
    parts = tuple(request.split(mark))
    assert len(parts) == batch + 1, "the mark occurs elsewhere too"
    return Template(parts, thrift)
