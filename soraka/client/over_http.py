"""The HTTP API as a client calls it, on the standard library's connections, kept alive."""

import json
from functools import partial
from http.client import HTTPConnection, HTTPException, HTTPSConnection
from typing import Any

from soraka.client.endpoint import Endpoint
from soraka.client.failures import Again, error_of
from soraka.client.messages import Fields
from soraka.client.pool import Pool
from soraka.errors import BodyTooLarge, SorakaError

MAX_ANSWER_BYTES = 16 << 20
SUCCESS = 200


class HttpTransport:
    """`path` comes in front of those of the API."""

    def __init__(self, server: Endpoint, path: str) -> None:
        self._path = f"{path}/sorakaq/msg/"
        self._headers = {"Content-Type": "application/json"}
        if server.token is not None:
            self._headers["Authorization"] = f"Bearer {server.token}"
        self._pool = Pool(partial(_connection, server))

    def call(self, operation: str, fields: Fields) -> Any:
        """The `result`. Raises SorakaError; Again when it is not known."""
        body = json.dumps(fields, ensure_ascii=False, separators=(",", ":")).encode()
        try:
            return _result(*self._pool.use(partial(self._exchange, operation, body)))
        except HTTPException as exc:
            raise Again(f"not HTTP: {exc!r}") from exc
        except OSError as exc:
            raise Again(str(exc) or repr(exc)) from exc

    def close(self) -> None:
        self._pool.close()

    def _exchange(
        self, operation: str, body: bytes, connection: HTTPConnection
    ) -> tuple[int, str | None, bytes]:
        """Status, Retry-After, body."""
        connection.request("POST", self._path + operation, body, self._headers)
        answer = connection.getresponse()
        data = answer.read(MAX_ANSWER_BYTES + 1)
        if len(data) > MAX_ANSWER_BYTES:
            raise HTTPException(f"an answer of more than {MAX_ANSWER_BYTES} bytes")
        return answer.status, answer.headers.get("Retry-After"), data


def _connection(server: Endpoint) -> HTTPConnection:
    host, port, _, timeout_s, tls = server
    if tls is None:
        return HTTPConnection(host, port, timeout=timeout_s)
    return HTTPSConnection(host, port, timeout=timeout_s, context=tls)


def _result(status: int, retry_after: str | None, body: bytes) -> Any:
    try:
        answer = json.loads(body)
        ec, em, result = answer["ec"], answer["em"], answer["result"]
    except (ValueError, TypeError, LookupError) as exc:
        raise _foreign(status, _seconds(retry_after)) from exc
    if ec != SUCCESS:
        raise error_of(ec, em, _seconds(retry_after))
    return result


def _foreign(status: int, wait_s: float) -> SorakaError:
    """For an answer that is not in soraka's words: a proxy's, or another server's."""
    told = f"HTTP {status}, and no answer of soraka"
    if status >= 500 or status in (408, 429):
        return Again(told, wait_s)
    return BodyTooLarge("body", told) if status == 413 else SorakaError(told)


def _seconds(retry_after: str | None) -> float:
    return float(retry_after) if retry_after and retry_after.isdecimal() else 0.0
