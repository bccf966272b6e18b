"""An HTTP server that records the callbacks it gets and answers as it is told."""

import json
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import parse_qs

import gevent
from gevent.pywsgi import WSGIServer


@dataclass(frozen=True)
class Call:
    """One callback. `at` is when it came, epoch ms; `query` has the first value of each key."""

    at: float
    method: str
    path: str
    query: dict[str, str]
    headers: dict[str, str]
    body: bytes

    @property
    def msg_id(self) -> str:
        return self.headers["Soraka-Message-Id"]

    @property
    def attempt(self) -> int:
        return int(self.headers["Soraka-Attempt"])

    @property
    def due_at(self) -> int:
        return int(self.headers["Soraka-Due-At"])

    def json(self) -> Any:
        return json.loads(self.body)


@dataclass
class Answer:
    """What the sink says: after `wait_s`, the status, headers and body."""

    status: int = 200
    body: bytes = b"{}"
    headers: dict[str, str] = field(default_factory=dict)
    wait_s: float = 0.0


class Sink:
    def __init__(self) -> None:
        self.calls: list[Call] = []
        self._answers: dict[str, Callable[[Call], Answer]] = {}
        self._server = WSGIServer(("127.0.0.1", 0), self._app, log=None, error_log=None)
        self._server.start()

    def url(self, path: str) -> str:
        return f"http://127.0.0.1:{self._server.server_port}{path}"

    def answer(self, path: str, answer: Answer | Callable[[Call], Answer]) -> None:
        self._answers[path] = answer if callable(answer) else lambda _call: answer

    def of(self, msg_id: str) -> list[Call]:
        return [call for call in self.calls if call.msg_id == msg_id]

    def wait(self, msg_id: str, count: int = 1, timeout_s: float = 15.0) -> list[Call]:
        """The calls of a message, once there are `count`. Fails at the deadline."""
        wait_until(
            lambda: len(self.of(msg_id)) >= count,
            timeout_s,
            lambda: f"{msg_id}: {len(self.of(msg_id))} of {count} calls",
        )
        return self.of(msg_id)

    def close(self) -> None:
        self._server.stop(timeout=1)

    def _app(self, environ: dict[str, Any], start_response: Any) -> list[bytes]:
        at = time.time() * 1000
        call = Call(
            at=at,
            method=environ["REQUEST_METHOD"],
            path=environ["PATH_INFO"],
            query={k: v[0] for k, v in parse_qs(environ["QUERY_STRING"]).items()},
            headers={
                key[5:].replace("_", "-").title(): value
                for key, value in environ.items()
                if key.startswith("HTTP_")
            }
            | {"Content-Type": environ.get("CONTENT_TYPE", "")},
            body=environ["wsgi.input"].read(),
        )
        self.calls.append(call)
        answer = self._answers.get(call.path, lambda _call: Answer())(call)
        if answer.wait_s:
            gevent.sleep(answer.wait_s)
        start_response(f"{answer.status} status", list(answer.headers.items()))
        return [answer.body]


def wait_until(
    condition: Callable[[], object],
    timeout_s: float = 15.0,
    what: Callable[[], str] = lambda: "condition",
) -> None:
    """Returns when `condition` holds; fails at the deadline."""
    deadline = time.monotonic() + timeout_s
    while not condition():
        if time.monotonic() > deadline:
            raise AssertionError(f"after {timeout_s} s still not: {what()}")
        gevent.sleep(0.01)
