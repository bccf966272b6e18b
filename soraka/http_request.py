"""Requests as they come over a connection, read by Node's parser (httptools), and their WSGI
environs. It refuses what two servers could read in two ways. No I/O."""

from collections import deque
from collections.abc import Callable
from typing import Any
from urllib.parse import unquote_to_bytes

from httptools import HttpParserError, HttpParserUpgrade, HttpRequestParser, parse_url

MUST_CLOSE = "soraka.must_close"
"""In an environ: set by an application that did not read the body to its end, and will not."""
MAX_HEAD_BYTES = 32 << 10
MAX_WAITING = 32
"""Requests sent before the answers to those before."""
MAX_FRAMING_BYTES = 8 << 10
"""Of a chunked body, without a byte of it, from one piece of it to the next."""
_CODING = ("HTTP_TRANSFER_ENCODING", "Transfer-Encoding")
_COMMON = {
    name.encode(): "HTTP_" + name.upper().replace("-", "_")
    for name in (
        *("Host", "User-Agent", "Accept", "Accept-Encoding", "Connection", "Authorization"),
        *("X-Forwarded-For", "X-Forwarded-Proto", "X-Real-IP", "X-Request-ID", "Idempotency-Key"),
    )
} | {
    b"Content-Type": "CONTENT_TYPE",
    b"content-type": "CONTENT_TYPE",
    b"Content-Length": "CONTENT_LENGTH",
    b"content-length": "CONTENT_LENGTH",
}


_ONCE = {"HTTP_HOST", "CONTENT_TYPE", "HTTP_AUTHORIZATION", "HTTP_IDEMPOTENCY_KEY"}
"""Given twice they mean different things to different readers."""


class Request:
    """One whose head has come. `body` is what has come of its body and was not taken yet."""

    def __init__(
        self, method: str, target: bytes, version: str, headers: dict[str, str], *, is_last: bool
    ) -> None:
        self.method = method
        self.path, _, self.query = _origin(target).decode("latin-1").partition("?")
        self.version = version
        self.headers = headers
        self.is_last = is_last
        """Its connection serves no other."""
        self.is_whole = False
        self.body = bytearray()

    def environ(self, common: dict[str, Any]) -> dict[str, Any]:
        """What WSGI says of it, over what is the same for its connection."""
        path = self.path
        return {
            **common,
            **self.headers,
            "REQUEST_METHOD": self.method,
            "PATH_INFO": unquote_to_bytes(path).decode("latin-1") if "%" in path else path,
            "QUERY_STRING": self.query,
            "SERVER_PROTOCOL": "HTTP/" + self.version,
        }


class Reader:
    """Bytes in, `requests` out, in their order. `refused` tells why no more can be read."""

    def __init__(self) -> None:
        self.requests: deque[Request] = deque()
        self.refused = ""
        self._parser = HttpRequestParser(self)
        self._url = b""
        self._headers: dict[str, str] = {}
        self._reading: Any = None
        """The Request whose body comes now, or None."""
        self._asking: Request | None = None
        """Whose body another parser reads."""
        self._bytes = 0
        """Since the beginning of a head, or since something came of a body; what came in one piece
        with that is not counted."""

    @property
    def has_begun(self) -> bool:
        """Whether a part of a head has come."""
        return self._reading is None and self._bytes > 0

    def feed(self, data: bytes) -> None:
        self._bytes += len(data)
        try:
            self._parser.feed_data(data)
        except HttpParserUpgrade as exc:
            self._read_on(data[exc.args[0] :])
        except HttpParserError as exc:
            self.refused = str(exc.__context__ or exc) or "malformed"
        if self._bytes > (MAX_HEAD_BYTES if self._reading is None else MAX_FRAMING_BYTES):
            self.refused = self.refused or "too long"

    def _read_on(self, rest: bytes) -> None:
        """Of a request for another protocol, which we do not speak: what follows is its body, and
        the parser leaves that unread. So another parser gets it, with a head that says no more
        than how it is framed."""
        asking = self.requests[-1]
        for key, name in (("CONTENT_LENGTH", "Content-Length"), _CODING):
            if key in asking.headers:
                asking.is_whole, self._asking = False, asking
                self._parser = HttpRequestParser(self)
                framing = f"POST / HTTP/1.1\r\n{name}: {asking.headers[key]}\r\n\r\n"
                self.feed(framing.encode("latin-1") + rest)
                return

    # ------------------------------------------------------------------ called by the parser

    def on_message_begin(self) -> None:
        self._url, self._headers = b"", {}

    def on_url(self, url: bytes) -> None:
        self._url += url

    def on_header(self, name: bytes, value: bytes) -> None:
        if self._reading is not None:
            return  # behind a chunked body: may not add to what was decided by its head
        key = _COMMON.get(name) or _key(name)
        if key is None:
            return
        text = value.decode("latin-1")
        if (before := self._headers.get(key)) is not None:
            if key in _ONCE:
                raise ValueError(f"{name.decode('latin-1')} is given twice")
            text = f"{before}{'; ' if key == 'HTTP_COOKIE' else ','}{text}"
        self._headers[key] = text

    def on_headers_complete(self) -> None:
        parser = self._parser
        self._bytes = 0
        if self._asking is not None:
            self._reading, self._asking = self._asking, None
            return
        if len(self.requests) >= MAX_WAITING:
            raise ValueError("too many requests at once")
        version = parser.get_http_version()
        # of a client that knows no chunks, what is between us may see another end of the body
        is_odd = version != "1.1" and "HTTP_TRANSFER_ENCODING" in self._headers
        self._reading = Request(
            parser.get_method().decode(),
            self._url,
            version,
            self._headers,
            is_last=is_odd or not parser.should_keep_alive() or parser.should_upgrade(),
        )
        self.requests.append(self._reading)

    def on_body(self, data: bytes) -> None:
        self._bytes = 0
        self._reading.body += data

    def on_message_complete(self) -> None:
        self._reading.is_whole = True
        self._reading, self._bytes = None, 0


class Body:
    """`wsgi.input`. `more` waits for bytes of the connection; False at its end."""

    def __init__(self, request: Request, more: Callable[[], bool]) -> None:
        self._request = request
        self._more = more

    def has_come(self, size: int) -> bool:
        """Whether `read(size)` would not wait."""
        return self._request.is_whole or len(self._request.body) >= size

    def read(self, size: int = -1) -> bytes:
        """`size` bytes, all of them with -1; fewer at the end. Raises OSError when the connection
        ended before, and on what is not HTTP."""
        request = self._request
        while not request.is_whole and not 0 <= size <= len(request.body):
            if not self._more():
                raise OSError("the body ended early, or is malformed")
        taken = bytes(request.body if size < 0 else request.body[:size])
        del request.body[: len(taken)]
        return taken

    def readline(self, size: int = -1) -> bytes:
        """To the next line feed; reads the whole body first."""
        everything = self.read()
        end = everything.find(b"\n") + 1 or len(everything)
        if 0 <= size < end:
            end = size
        self._request.body += everything[end:]
        return everything[:end]

    def readlines(self, _hint: int = -1) -> list[bytes]:
        return list(self)

    def __iter__(self) -> "Body":
        return self

    def __next__(self) -> bytes:
        if line := self.readline():
            return line
        raise StopIteration


def _key(name: bytes) -> str | None:
    """Of the environ; None for names that another one could pass itself off as."""
    if b"_" in name:
        return None
    text = name.decode("latin-1").upper().replace("-", "_")
    return text if text in ("CONTENT_TYPE", "CONTENT_LENGTH") else f"HTTP_{text}"


def _origin(target: bytes) -> bytes:
    """Of http://host/path, as proxies are asked, its path and query."""
    if not target.lower().startswith((b"http://", b"https://")):
        return target
    url = parse_url(target)
    return (url.path or b"/") + (b"?" + url.query if url.query else b"")
