"""Answers of the HTTP APIs: {"ec", "em", "result"} with the fitting status.

Beyond the table in docs: a wrong Content-Type or Content-Encoding is ec 401, as are unknown
paths (HTTP 404), wrong methods (405) and a body that does not arrive in time (408).
"""

import json
from collections.abc import Mapping
from typing import Any

from flask import Response, request
from werkzeug.exceptions import HTTPException, MethodNotAllowed, NotFound

from soraka.body import abandon, must_close
from soraka.errors import InvalidParams, SorakaError

SUCCESS = 200
SYSTEM_ERROR = "system error"

encode = json.JSONEncoder(separators=(",", ":")).encode


def reply(
    ec: int, em: str, result: Any, status: int = 200, headers: Mapping[str, str] | None = None
) -> Response:
    return Response(
        encode({"ec": ec, "em": em, "result": result}),
        status,
        headers,
        content_type="application/json",
    )


def done(result: Any) -> Response:
    return reply(SUCCESS, "success", result)


def refuse(exc: SorakaError) -> Response:
    headers = {}
    if hasattr(exc, "retry_after_s"):
        headers["Retry-After"] = str(exc.retry_after_s)
    if must_close(request.environ):
        headers["Connection"] = "close"
    return reply(exc.code, str(exc) or SYSTEM_ERROR, None, exc.status, headers)


def refuse_http(exc: HTTPException) -> Response:
    """Flask's own: no such path, not this method."""
    status, headers = exc.code or 500, {"Connection": "close"}
    abandon(request.environ)  # a body to nowhere may drip for ever
    em = f"request: {exc.name}"
    if isinstance(exc, NotFound):
        em = "path: there is nothing here"
    if isinstance(exc, MethodNotAllowed):
        headers["Allow"] = ", ".join(sorted(exc.valid_methods or ()))
        em = f"method: must be {headers['Allow']}"
    return reply(InvalidParams.code, em, None, status, headers)
