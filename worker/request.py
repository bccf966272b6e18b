"""The HTTP request of a callback, as bytes. Pure.

A POST carries `params` as its body; a GET adds them to the query of the url: lists repeat
their name, booleans are `true` and `false`, null is empty, anything deeper is JSON text.
Whatever is not visible ASCII is percent-encoded, so nothing breaks out of its line.
"""

import json
import re
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, NamedTuple
from urllib.parse import SplitResult, quote, urlencode, urlsplit

from soraka import __version__
from soraka.address import at
from soraka.errors import InvalidParams
from soraka.message import Message
from soraka.signing import Signer

_VISIBLE = re.compile(r"[\x21-\x7e]*")
_URL_SAFE = "%/:=&?+!$,;'@()*[]~#|^`{}\"<>\\"
_DEFAULT_PORTS = {"http": 80, "https": 443}


class Origin(NamedTuple):
    """Whom a connection leads to. `host` is ASCII; an IPv6 address has no brackets."""

    scheme: str
    host: str
    port: int

    def url(self) -> str:
        """For people; the port is always told."""
        return f"{self.scheme}://{at(self.host, self.port)}"


@dataclass(frozen=True, slots=True)
class Request:
    """`data` is head and body, which begins at `body_at`; `ttr_ms` the deadline of the whole
    call."""

    origin: Origin
    data: bytes
    ttr_ms: int
    body_at: int


class _Target(NamedTuple):
    origin: Origin
    path: str
    query: str
    fixed: str
    """The header lines all requests to it have in common."""


def build(message: Message, *, attempt: int, due_at: int) -> Request:
    """Raises InvalidParams when the url or the params are of no use, now and ever."""
    callback = message.callback
    target = _target(callback.url)
    lines = (
        f"{target.fixed}Soraka-Message-Id: {_visible(message.msg_id)}\r\n"
        f"Soraka-Topic: {_visible(message.topic)}\r\n"
        f"Soraka-Attempt: {attempt}\r\nSoraka-Due-At: {due_at}\r\n"
    )
    if callback.method == "POST":
        body = (callback.params or "").encode("utf-8", "replace")
        kind = "Content-Type: application/json\r\n" if body else ""
        head = f"POST {_uri(target.path, target.query)} HTTP/1.1\r\n{lines}{kind}"
        data = f"{head}Content-Length: {len(body)}\r\n\r\n".encode("ascii") + body
    else:
        body = b""
        uri = _uri(target.path, target.query, _params_query(callback.params))
        data = f"GET {uri} HTTP/1.1\r\n{lines}\r\n".encode("ascii")
    return Request(target.origin, data, message.ttr_ms, len(data) - len(body))


def signed(request: Request, signer: Signer, msg_id: str, now_ms: int) -> Request:
    """With a signature over its body, its id and the time."""
    data, body_at = request.data, request.body_at
    lines = signer.headers(_visible(msg_id), now_ms, data[body_at:])
    end = body_at - len(b"\r\n")
    data = data[:end] + lines + data[end:]
    return Request(request.origin, data, request.ttr_ms, body_at + len(lines))


@lru_cache(maxsize=1024)
def _target(url: str) -> _Target:
    try:
        parts = urlsplit(url)
        origin = Origin(parts.scheme, _host(parts), _port(parts))
    except ValueError as exc:  # UnicodeError too
        raise InvalidParams("callback.url", str(exc)) from None
    host = f"[{origin.host}]" if ":" in origin.host else origin.host
    port = "" if origin.port == _DEFAULT_PORTS[origin.scheme] else f":{origin.port}"
    fixed = f"Host: {host}{port}\r\nUser-Agent: soraka/{__version__}\r\nAccept: */*\r\n"
    return _Target(origin, _escaped(parts.path) or "/", _escaped(parts.query), fixed)


def _host(parts: SplitResult) -> str:
    host = parts.hostname
    if not host or "@" in parts.netloc:
        raise ValueError("must have a host, and no credentials")
    if not host.isascii():
        host = host.encode("idna").decode("ascii")
    if not re.fullmatch(r"[0-9A-Za-z_.:-]+", host):
        raise ValueError("not a host name")
    return host


def _port(parts: SplitResult) -> int:
    if parts.scheme not in _DEFAULT_PORTS:
        raise ValueError("must begin with http:// or https://")
    port = _DEFAULT_PORTS[parts.scheme] if parts.port is None else parts.port
    if port == 0:
        raise ValueError("port 0")
    return port


def _uri(path: str, *queries: str) -> str:
    query = "&".join(filter(None, queries))
    return f"{path}?{query}" if query else path


def _params_query(params: str | None) -> str:
    if not params:
        return ""
    try:
        values = json.loads(params)
    except (ValueError, RecursionError):
        values = None
    if not isinstance(values, dict):
        raise InvalidParams("callback.params", "not a JSON object")
    pairs = [(name, _text(item)) for name, value in values.items() for item in _items(value)]
    return urlencode(pairs, errors="replace")


def _items(value: Any) -> list[Any]:
    return value if isinstance(value, list) else [value]


def _text(value: Any) -> str:
    if isinstance(value, str):
        return value
    return "" if value is None else json.dumps(value, separators=(",", ":"))


def _escaped(text: str) -> str:
    return text if _VISIBLE.fullmatch(text) else quote(text, safe=_URL_SAFE, errors="replace")


def _visible(text: str) -> str:
    """A header value."""
    return text if _VISIBLE.fullmatch(text) else quote(text, safe="", errors="replace")
