"""Reading one HTTP answer under limits, with the C parser of geventhttpclient.

Its own HTTPResponse takes heads of any size, and takes a second answer sent unasked for the
one awaited; so we sit on the parser below it.
"""

import re
import socket

from geventhttpclient.response import (  # type: ignore[attr-defined]
    HTTPParseError,
    HTTPResponseParser,
)

from worker.judge import Answer

MAX_HEAD_BYTES = 32 << 10
"""Of status line, headers and interim answers together."""
_received = memoryview(bytearray(16 << 10))
"""Of whichever greenlet reads: what it read is taken out before another runs. A buffer for each
read would be the largest thing that is allocated for a call."""
_KEPT_FIELDS = frozenset({"retry-after", "keep-alive"})


class BadAnswer(Exception):
    """No HTTP answer came back; the text is for people."""


class CutOff(BadAnswer):
    """The connection ended before the answer did."""


class _Parser(HTTPResponseParser):
    """The methods are called by the C code, in the order of the wire."""

    def __init__(self, max_body_bytes: int) -> None:
        super().__init__()
        self._limit = max_body_bytes
        self._field = ""
        self._ended = False
        self.fields: dict[str, str] = {}
        self.body = bytearray()
        self.status = 0
        """Of the final answer; 0 until its head is whole."""
        self.complete = False
        self.cut = False
        """The body is longer than the limit, or something follows the answer."""

    def _on_status(self, text: str) -> None:
        pass

    def _on_message_begin(self) -> None:
        if self.complete:
            self.cut = True

    def _on_header_field(self, text: str) -> None:
        if self._ended:
            self._field, self._ended = "", False
        self._field += text  # may come in pieces

    def _on_header_value(self, text: str) -> None:
        name = self._field.lower()
        if name in _KEPT_FIELDS and not self.status:
            self.fields[name] = self.fields[name] + text if self._ended else text
        self._ended = True

    def _on_headers_complete(self) -> bool:
        if not self.status and self.get_code() >= 200:
            self.status = self.get_code()
        return False

    def _on_body(self, data: bytes | bytearray | memoryview) -> None:
        if self.complete:
            return
        self.body += data
        if len(self.body) > self._limit:
            del self.body[self._limit :]
            self.cut = True

    def _on_message_complete(self) -> None:
        if self.status:
            self.complete = True
        else:  # an interim answer
            self.fields.clear()


class Received:
    """`keep_s` is how long the connection may serve again; 0 when it may not."""

    __slots__ = ("answer", "keep_s")

    def __init__(self, answer: Answer, keep_s: float) -> None:
        self.answer = answer
        self.keep_s = keep_s


def receive(sock: socket.socket, *, max_body_bytes: int, keep_s: float) -> Received:
    """Waits for the answer. A body longer than the limit is cut there: the status decides.

    Raises BadAnswer, and OSError as it comes from the socket.
    """
    parser = _Parser(max_body_bytes)
    _read(sock, parser, MAX_HEAD_BYTES, 2 * max_body_bytes)
    answer = Answer(parser.status, bytes(parser.body), parser.fields.get("retry-after"))
    if parser.cut or not parser.should_keep_alive():
        return Received(answer, 0)
    return Received(answer, _keep_s(parser.fields.get("keep-alive"), keep_s))


def _read(sock: socket.socket, parser: _Parser, max_head: int, max_rest: int) -> None:
    """Feeds the parser until the answer is there, or enough of it."""
    received = 0
    while not (parser.complete or (parser.status and parser.cut)):
        data = bytes(_received[: sock.recv_into(_received)])
        if not data and not received:
            raise CutOff("connection closed without an answer")
        received += len(data)
        _feed(parser, data)
        if not parser.status and received > max_head:
            raise BadAnswer(f"the head of the answer is over {max_head} bytes")
        if received > max_head + max_rest:  # a body in tiny chunks, or endless trailers
            parser.cut = True


def _feed(parser: _Parser, data: bytes) -> None:
    try:
        parser.feed(data)
    except HTTPParseError as exc:
        if parser.complete:  # what follows a whole answer is no part of it
            parser.cut = True
        elif not data:
            raise CutOff("connection closed in the middle of the answer") from None
        else:
            raise BadAnswer(f"not HTTP: {exc.args[0]}") from None
    else:
        if not data and not parser.complete:
            raise CutOff("connection closed in the middle of the answer")


def _keep_s(field: str | None, keep_s: float) -> float:
    """The server's `Keep-Alive: timeout=n` less a second, if that is shorter."""
    named = re.search(r"timeout\s*=\s*(\d{1,6})", field or "")
    return min(keep_s, int(named[1]) - 1) if named else keep_s
