"""The HTTP edge."""

import logging
from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from functools import cache
from typing import Any

from flask import Flask, Response, request
from werkzeug.exceptions import HTTPException

from receive_app import rules, schemas
from receive_app.access import Access, Caller
from receive_app.forms import nested
from receive_app.ingress import Ingress
from receive_app.openapi import document
from receive_app.pace import parsed
from receive_app.shown import shown
from soraka.answers import SUCCESS, Answer, done, encode, failed, refuse, refuse_http
from soraka.body import Environ, read_object, skip
from soraka.budget import ReadingBudget
from soraka.config import ReceiveConfig
from soraka.errors import InvalidParams, NotAuthenticated, SorakaError, Unavailable
from soraka.message import Submission

log = logging.getLogger(__name__)

Count = Callable[[str, int, int], None]
"""(operation, ec, how many)."""

Operation = Callable[[Environ], Answer]

_KEY = "HTTP_IDEMPOTENCY_KEY"
_INSTEAD = {
    "submit_batch": "each message of a batch has a field idempotency_key",
    "cancel": "commands have a field command_id",
    "add_time": "commands have a field command_id",
}

Healthy = Callable[[], tuple[bool, dict[str, Any]]]


def create_app(
    ingress: Ingress,
    access: Access,
    *,
    limits: ReceiveConfig,
    ready: Callable[[], list[str]],
    metrics: Callable[[], tuple[bytes, str]],
    count: Count = lambda _operation, _ec, _n: None,
    healthy: Healthy = lambda: (True, {"last_turn_ms": {}}),
    budget: ReadingBudget | None = None,
) -> Flask:
    """`ready` names what does not answer now; `metrics` gives the exposition and its type;
    `healthy` tells whether all loops of this process turn, with their ages. `budget` may be shared
    with others; without one it is that of `limits`."""
    app = Flask(__name__, static_folder=None)
    app.config["PROVIDE_AUTOMATIC_OPTIONS"] = False
    app.url_map.merge_slashes = False
    operations: dict[str, Operation] = {}
    api = _Api(ingress, access, limits, count, budget or ReadingBudget(limits.max_reading_bytes))
    for path, operation, act in (
        ("submit", "submit", api.submit),
        ("submitBatch", "submit_batch", api.submit_batch),
        ("cancel", "cancel", api.cancel),
        ("addTime", "add_time", api.add_time),
        ("get", "get", api.get),
    ):
        operations[f"/sorakaq/msg/{path}"] = api.operation(operation, act)
        # for Flask to tell other methods
        app.add_url_rule(f"/sorakaq/msg/{path}", operation, methods=["POST"])
    _add_operations(app, limits, ready, metrics, healthy)
    app.register_error_handler(HTTPException, _refused_http)
    app.register_error_handler(Exception, _unexpected)
    app.wsgi_app = _ShortWay(operations, app.wsgi_app)  # type: ignore[method-assign]
    return app


class _ShortWay:
    """WSGI: the operations past Flask, which takes 80 µs for a request; the rest is Flask's."""

    def __init__(self, operations: Mapping[str, Operation], flask: Callable[..., Any]) -> None:
        self._operations = operations
        self._flask = flask

    def __call__(self, environ: Environ, start_response: Callable[..., Any]) -> Any:
        operation = self._operations.get(environ["PATH_INFO"])
        if operation is None or environ["REQUEST_METHOD"] != "POST":
            return self._flask(environ, start_response)
        return operation(environ).sent(start_response)


def _add_operations(
    app: Flask,
    limits: ReceiveConfig,
    ready: Callable[[], list[str]],
    metrics: Callable[[], tuple[bytes, str]],
    healthy: Healthy,
) -> None:
    @app.get("/healthz")
    def healthz() -> Response:
        ok, report = healthy()
        if not ok:
            return refuse(Unavailable(f"a loop stands still: {encode(report).decode()}")).response()
        return done(report).response()

    @app.get("/readyz")
    def readyz() -> Response:
        down = ready()
        if down:
            return refuse(Unavailable(f"no answer from: {', '.join(down)}")).response()
        return done(True).response()

    @app.get("/metrics")
    def exposition() -> Response:
        body, kind = metrics()
        return Response(body, content_type=kind)

    @cache
    def openapi_text() -> bytes:
        return encode(document(limits))

    @app.get("/openapi.json")
    def openapi() -> Response:
        return Response(openapi_text(), content_type="application/json")


class _Api:
    """The operations: from the fields of a body, and who sent it, to the `result`."""

    def __init__(
        self,
        ingress: Ingress,
        access: Access,
        limits: ReceiveConfig,
        count: Count,
        budget: ReadingBudget,
    ) -> None:
        self._ingress = ingress
        self._access = access
        self._limits = limits
        self._count = count
        self._budget = budget

    def operation(self, name: str, act: Callable[[dict[str, Any], Caller], Any]) -> Operation:
        """Counts its answers."""
        limit, timeout_ms = self._limits.max_body_bytes, self._limits.read_timeout_ms
        max_values = rules.max_values(self._limits)

        def acted(environ: Environ) -> Any:
            caller = self._caller(environ)
            with self._budget.share() as share:
                data = read_object(
                    environ,
                    limit=limit,
                    timeout_ms=timeout_ms,
                    max_values=max_values,
                    share=share,
                    shape=nested,
                )
                _take_key(name, data, environ)
                return act(data, caller)

        def operation(environ: Environ) -> Answer:
            try:
                result = acted(environ)
            except SorakaError as exc:
                self._count(name, exc.code, 1)
                return _refused(exc)
            except Exception:
                log.exception("http.failed", extra={"path": environ["PATH_INFO"]})
                self._count(name, SorakaError.code, 1)
                return failed()
            if name != "submit_batch":
                self._count(name, SUCCESS, 1)
            return done(result)

        return operation

    def submit(self, data: dict[str, Any], caller: Caller) -> dict[str, str]:
        return {"msgId": self._ingress.submit(self._parsed(data), caller)}

    def submit_batch(self, data: dict[str, Any], caller: Caller) -> list[dict[str, Any]]:
        """One answer each. Raises Unavailable when every one of them is to be sent again."""
        messages = schemas.BATCH.read(data).messages
        rules.check_batch_size("messages", len(messages), self._limits)
        answers = self._ingress.submit_batch(parsed(self._parsed, messages), caller)
        if all(isinstance(answer, Unavailable) for answer in answers):
            raise answers[0]  # type: ignore[misc]
        self._count_each(answers)
        return [_item(answer) for answer in answers]

    def cancel(self, data: dict[str, Any], caller: Caller) -> bool:
        got = schemas.CANCEL.read(data)
        self._ingress.cancel(got.topic_name, got.msg_id, got.command_id, caller)
        return True

    def add_time(self, data: dict[str, Any], caller: Caller) -> bool:
        got = schemas.ADD_TIME.read(data)
        order = (got.topic_name, got.msg_id, got.add_time, got.command_id)
        self._ingress.add_time(*order, caller)
        return True

    def get(self, data: dict[str, Any], caller: Caller) -> dict[str, Any]:
        return shown(self._ingress.get(schemas.GET.read(data).msg_id, caller))

    def _parsed(self, message: Any) -> Submission:
        return schemas.submission(message, self._limits.max_params_bytes)

    def _caller(self, environ: Environ) -> Caller:
        """Raises NotAuthenticated, before a budget is touched."""
        kind, _, given = environ.get("HTTP_AUTHORIZATION", "").partition(" ")
        try:
            return self._access.caller(given.strip() if kind.lower() == "bearer" else None)
        except NotAuthenticated:
            skip(environ, self._limits.max_body_bytes, self._limits.read_timeout_ms)
            raise

    def _count_each(self, answers: Iterable[str | SorakaError]) -> None:
        codes = Counter(SUCCESS if isinstance(a, str) else a.code for a in answers)
        for code, n in codes.items():
            self._count("submit_batch", code, n)


def _refused(exc: SorakaError) -> Answer:
    answer = refuse(exc)
    if isinstance(exc, NotAuthenticated):
        return answer._replace(headers=(*answer.headers, ("WWW-Authenticate", "Bearer")))
    return answer


def _refused_http(exc: HTTPException) -> Response:
    return refuse_http(exc, request.environ).response()


def _unexpected(exc: Exception) -> Response:
    log.error("http.failed", exc_info=exc, extra={"path": request.path})
    return failed().response()


def _take_key(operation: str, data: dict[str, Any], environ: Environ) -> None:
    """From the header into the field of that name. Quotes around it are not of the key. Ignored
    where it does nothing, it would be relied on in vain."""
    header = environ.get(_KEY)
    if header is None or operation == "get":
        return
    if instead := _INSTEAD.get(operation):
        raise InvalidParams("Idempotency-Key", f"is for single submits; {instead}")
    key = header[1:-1] if len(header) > 1 and header[0] == header[-1] == '"' else header
    if data.get("idempotency_key") not in (None, key):
        raise InvalidParams("idempotency_key", "differs from the header Idempotency-Key")
    data["idempotency_key"] = key


def _item(answer: str | SorakaError) -> dict[str, Any]:
    if isinstance(answer, str):
        return {"ec": SUCCESS, "em": "success", "msgId": answer}
    return {"ec": answer.code, "em": str(answer), "msgId": ""}
