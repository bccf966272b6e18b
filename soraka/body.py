"""Reading a request body: bounded in bytes and in time, then JSON or a form as a dict.

Raises InvalidParams, BodyTooLarge, or Unavailable when too many bytes are being read. After a body
that was not read to its end the connection is unusable, and the server told so.
"""

import re
from collections.abc import Callable
from contextlib import suppress
from typing import Any
from urllib.parse import parse_qsl

import gevent
from werkzeug.http import parse_options_header

from soraka.budget import Share
from soraka.errors import BodyTooLarge, InvalidParams, Unavailable
from soraka.http_request import MUST_CLOSE, Body
from soraka.strict_json import GivenTwice, lenient_decode, unique_keys

Environ = dict[str, Any]

_STEP = 16 << 10
_MAX_FORM_FIELDS = 64
_INTEGER = re.compile(r"-?[0-9]{1,25}")
Shape = Callable[[dict[str, str], int], dict[str, Any]]
"""From the fields of a form to those of the JSON, with at most so many JSON values."""


class BodyLate(InvalidParams):
    status = 408


def abandon(environ: Environ) -> None:
    """Keeps the server from reading on to the end of the body, for however long it takes."""
    environ[MUST_CLOSE] = True


def read_object(
    environ: Environ, *, limit: int, timeout_ms: int, max_values: int, share: Share, shape: Shape
) -> dict[str, Any]:
    """The fields of a JSON or form body. A form comes in the nesting of the JSON."""
    # read before anything is refused: the next request comes after it on the connection
    body = read(environ, limit=limit, timeout_ms=timeout_ms, share=share)
    return parse(environ, body, max_values=max_values, shape=shape)


def parse(environ: Environ, body: bytes, *, max_values: int, shape: Shape) -> dict[str, Any]:
    """The fields of a body that was read."""
    _check_encoding(environ)
    kind = _content_type(environ)
    try:
        text = body.decode()
    except UnicodeDecodeError as exc:
        raise InvalidParams("body", f"is not UTF-8: the byte at {exc.start}") from exc
    if kind == "application/json":
        return _object(json_value("body", text, max_values), "body")
    return shape(_form(text), max_values)


def _check_encoding(environ: Environ) -> None:
    encoding = environ.get("HTTP_CONTENT_ENCODING", "")
    if encoding.lower() not in ("", "identity"):
        raise InvalidParams("Content-Encoding", "compressed bodies are not accepted")


def _content_type(environ: Environ) -> str:
    header = environ.get("CONTENT_TYPE", "")
    if header == "application/json":
        return "application/json"
    kind, options = parse_options_header(header.lower())
    if kind not in ("application/json", "application/x-www-form-urlencoded"):
        raise InvalidParams(
            "Content-Type", "must be application/json or application/x-www-form-urlencoded"
        )
    if options.get("charset", "utf-8") not in ("utf-8", "utf8", "us-ascii"):
        raise InvalidParams("Content-Type", "the charset must be utf-8")
    return kind


def read(environ: Environ, *, limit: int, timeout_ms: int, share: Share) -> bytes:
    """The whole body, as it came."""
    announced = _announced(environ)
    if announced is None or announced <= limit:
        size = limit + 1 if announced is None else announced
        try:
            body = _arrived(environ, size, timeout_ms, share)
        except Unavailable:
            share.release()
            skip(environ, limit, timeout_ms)
            raise
        if announced is not None and len(body) < announced:
            abandon(environ)
            raise InvalidParams("body", f"ended after {len(body)} of {announced} bytes")
        if len(body) <= limit:
            return body
    skip(environ, limit, timeout_ms)
    raise BodyTooLarge("body", f"must be at most {limit} bytes")


def _announced(environ: Environ) -> int | None:
    """The length of the body; None when it comes in chunks."""
    coding = environ.get("HTTP_TRANSFER_ENCODING")
    if coding is not None:
        if coding.strip().lower() != "chunked":
            abandon(environ)
            raise InvalidParams("Transfer-Encoding", "must be chunked")
        return None
    length = environ.get("CONTENT_LENGTH") or "0"
    if not (length.isascii() and length.isdigit()):
        abandon(environ)
        raise InvalidParams("Content-Length", "must be a number")
    return int(length)


def _arrived(environ: Environ, size: int, timeout_ms: int, share: Share) -> bytes:
    """Up to `size` bytes of the body; fewer when it ends."""
    stream = environ["wsgi.input"]
    if size <= _STEP and type(stream) is Body and stream.has_come(size):
        share.take(size)
        return stream.read(size)
    late = BodyLate("body", f"did not arrive within {timeout_ms} ms")
    try:
        with gevent.Timeout(timeout_ms / 1000, late):
            return _take(environ, size, share)
    except BodyLate:
        abandon(environ)
        raise
    except Unavailable:
        raise
    except Exception as exc:  # each server has its own errors for a malformed body
        abandon(environ)
        raise InvalidParams("body", "is malformed or ended too early") from exc


def _take(environ: Environ, size: int, share: Share) -> bytes:
    stream, parts = environ["wsgi.input"], bytearray()
    while len(parts) < size:
        step = min(size - len(parts), _STEP)
        share.take(step)  # before: the server has them in its buffer until the step is whole
        more = stream.read(step)
        if not more:
            break
        parts += more
    return bytes(parts)


def skip(environ: Environ, limit: int, timeout_ms: int) -> None:
    """Reads on a little, so that a client that only then reads its answer gets it."""
    left = 2 * limit
    with suppress(Exception), gevent.Timeout(timeout_ms / 1000, BodyLate("body", "late")):
        while left > 0:
            data = environ["wsgi.input"].read(min(left, _STEP))
            if not data:
                return
            left -= len(data)
    abandon(environ)


def json_value(field: str, text: str, max_values: int) -> Any:
    """What a JSON text holds. Raises InvalidParams."""
    # one for each value at least, also inside of texts; counting takes 1 ms for a MB
    if text.count(",") + text.count("{") + text.count("[") > max_values:
        raise InvalidParams(field, f"must hold at most {max_values} values")
    try:
        return lenient_decode(text)
    except RecursionError as exc:
        raise InvalidParams(field, "is nested too deeply") from exc
    except GivenTwice as exc:
        raise InvalidParams(exc.name, "is given twice") from exc
    except ValueError as exc:  # also integers of more than 4300 digits
        raise InvalidParams(field, f"is not JSON: {str(exc)[:100]}") from exc


def _object(value: Any, field: str) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise InvalidParams(field, "must be a JSON object")
    return value


def _form(text: str) -> dict[str, str]:
    """Fields left blank count as absent."""
    try:
        pairs = parse_qsl(
            text, keep_blank_values=True, errors="strict", max_num_fields=_MAX_FORM_FIELDS
        )
        fields = unique_keys(pairs)
    except GivenTwice as exc:
        raise InvalidParams(exc.name, "is given twice") from exc
    except UnicodeDecodeError as exc:
        raise InvalidParams("body", "is not UTF-8 once percent-decoded") from exc
    except ValueError as exc:
        raise InvalidParams("body", f"must be at most {_MAX_FORM_FIELDS} fields") from exc
    return {name: value for name, value in fields.items() if value}


def integer(text: str) -> int | str:
    """The integer; anything else stays as it is, for the schema to refuse."""
    return int(text) if _INTEGER.fullmatch(text) else text
