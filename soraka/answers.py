"""Answers of the HTTP APIs: {"ec", "em", "result"} with the fitting status.

Beyond the table in docs: a wrong Content-Type or Content-Encoding is ec 401, as are unknown
paths (HTTP 404), wrong methods (405) and a body that does not arrive in time (408).
"""

import json
from collections.abc import Callable
from typing import Any, NamedTuple

import msgspec
from flask import Response
from werkzeug.exceptions import HTTPException, MethodNotAllowed, NotFound
from werkzeug.http import HTTP_STATUS_CODES

from soraka.body import Environ, abandon
from soraka.errors import InvalidParams, SorakaError

SUCCESS = 200
SYSTEM_ERROR = "system error"

_encoder = msgspec.json.Encoder()


def encode(value: Any) -> bytes:
    """Plain values as JSON."""
    try:
        return _encoder.encode(value)
    except UnicodeEncodeError:  # half of a surrogate pair, in a name that a client gave
        return json.dumps(value, separators=(",", ":")).encode()


class Answer(NamedTuple):
    """Of JSON, as it goes out."""

    status: int
    body: bytes
    headers: tuple[tuple[str, str], ...]

    def sent(self, start_response: Callable[..., Any]) -> list[bytes]:
        """By WSGI, without Flask."""
        status = f"{self.status} {HTTP_STATUS_CODES[self.status]}"
        start_response(status, [("Content-Type", "application/json"), *self.headers])
        return [self.body]

    def response(self) -> Response:
        return Response(self.body, self.status, list(self.headers), content_type="application/json")


def answer(ec: int, em: str, result: Any, status: int = 200, **headers: str) -> Answer:
    """`headers` have underscores for dashes."""
    body = encode({"ec": ec, "em": em, "result": result})
    named = tuple((name.replace("_", "-"), value) for name, value in headers.items())
    return Answer(status, body, named)


def done(result: Any) -> Answer:
    return answer(SUCCESS, "success", result)


def refuse(exc: SorakaError) -> Answer:
    after = {"Retry_After": str(exc.retry_after_s)} if hasattr(exc, "retry_after_s") else {}
    return answer(exc.code, str(exc) or SYSTEM_ERROR, None, exc.status, **after)


def failed() -> Answer:
    """An error of ours, told to nobody."""
    return answer(SorakaError.code, SYSTEM_ERROR, None, SorakaError.status)


def refuse_http(exc: HTTPException, environ: Environ) -> Answer:
    """Flask's own: no such path, not this method."""
    abandon(environ)  # a body to nowhere may drip for ever
    em, headers = f"request: {exc.name}", {}
    if isinstance(exc, NotFound):
        em = "path: there is nothing here"
    if isinstance(exc, MethodNotAllowed):
        headers["Allow"] = ", ".join(sorted(exc.valid_methods or ()))
        em = f"method: must be {headers['Allow']}"
    return answer(InvalidParams.code, em, None, exc.code or 500, **headers)
