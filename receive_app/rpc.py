"""The Thrift edge: the public service of `idl/soraka.thrift`.

thriftpy2 leaves None where a required field is missing and bytes where a string is not UTF-8;
both are refused here. An error of ours is logged and answered as Unavailable: the IDL has no
other word for "not known whether it took effect", and the ids make a repetition safe.
"""

import logging
from collections import Counter
from collections.abc import Callable, Sequence
from typing import Any, TypeVar

from gevent.local import local

import idl
from receive_app import rules
from receive_app.access import Access, Caller
from receive_app.ingress import Ingress
from receive_app.pace import parsed
from soraka.config import ReceiveConfig
from soraka.errors import PLAIN, InvalidParams, SorakaError, Unavailable
from soraka.limits import DEFAULT_TTR_MS
from soraka.message import Callback, Method, State, Stored, Submission

log = logging.getLogger(__name__)

T = TypeVar("T")
SUCCESS = 200
_t = idl.soraka
_STATES = {state: getattr(_t.MessageState, state.name) for state in State}
_METHODS: dict[int, Method] = {_t.RequestType.GET: "GET", _t.RequestType.POST: "POST"}
_METHOD_CODES = {name: code for code, name in _METHODS.items()}
_PLAIN = {kind: getattr(_t, kind.__name__) for kind in PLAIN}


class Handler:
    """Raises only what the IDL declares. `count` gets (operation, ec, how many).

    A connection is served by a greenlet of its own, so what is local to that is the connection's.
    """

    def __init__(
        self,
        ingress: Ingress,
        access: Access,
        *,
        limits: ReceiveConfig,
        count: Callable[[str, int, int], None] = lambda _operation, _ec, _n: None,
    ) -> None:
        self._ingress = ingress
        self._access = access
        self._limits = limits
        self._count = count
        self._connection: Any = local()

    def authenticate(self, token: Any) -> None:
        def act() -> None:
            self._access.caller(_text("token", token))
            self._connection.token = token

        self._answer("authenticate", act)

    def submit(self, submission: Any) -> str:
        def act() -> str:
            return self._ingress.submit(self._parsed(submission), self._caller())

        return self._answer("submit", act)

    def submitBatch(self, submissions: Any) -> list[Any]:  # noqa: N802 as in the IDL
        answers = self._answer(
            "submit_batch", lambda: self._submit_batch(submissions), counted=False
        )
        codes = Counter(SUCCESS if isinstance(a, str) else a.code for a in answers)
        for code, n in codes.items():
            self._count("submit_batch", code, n)
        return [_result(answer) for answer in answers]

    def cancel(self, topic_name: Any, msg_id: Any, command_id: Any) -> bool:
        def act() -> None:
            self._ingress.cancel(*_ids(topic_name, msg_id, command_id), self._caller())

        self._answer("cancel", act)
        return True

    def addTime(  # noqa: N802 as in the IDL
        self, topic_name: Any, msg_id: Any, add_time: Any, command_id: Any
    ) -> bool:
        def act() -> None:
            topic, message, command = _ids(topic_name, msg_id, command_id)
            added = _given("add_time", add_time)
            self._ingress.add_time(topic, message, added, command, self._caller())

        self._answer("add_time", act)
        return True

    def get(self, msg_id: Any) -> Any:
        def act() -> Stored:
            return self._ingress.get(_text("msg_id", msg_id), self._caller())

        return _info(self._answer("get", act))

    def _caller(self) -> Caller:
        """Asked anew for each call: a token may have been removed meanwhile."""
        return self._access.caller(getattr(self._connection, "token", None))

    def _submit_batch(self, submissions: Any) -> list[str | SorakaError]:
        caller = self._caller()
        items: Sequence[Any] = _given("submissions", submissions)
        rules.check_batch_size("submissions", len(items), self._limits)
        return self._ingress.submit_batch(parsed(self._parsed, items), caller)

    def _parsed(self, struct: Any) -> Submission:
        return _submission(struct, self._limits.max_params_bytes)

    def _answer(self, operation: str, act: Callable[[], T], *, counted: bool = True) -> T:
        try:
            result = act()
        except SorakaError as exc:
            self._count(operation, exc.code, 1)
            raise _thrift_error(exc) from exc
        except Exception as exc:
            log.exception("thrift.failed", extra={"operation": operation})
            self._count(operation, SorakaError.code, 1)
            raise _t.Unavailable(em="system error", retry_after=_retry_after_ms()) from exc
        if counted:
            self._count(operation, SUCCESS, 1)
        return result


def _thrift_error(exc: SorakaError) -> Exception:
    found: Exception
    if isinstance(exc, InvalidParams):
        field = _field(exc.field)
        found = _t.InvalidRequest(ec=exc.code, em=f"{field}: {exc.reason}", field=field)
    elif type(exc) in _PLAIN:
        found = _PLAIN[type(exc)](em=str(exc))
    else:
        found = _t.Unavailable(em=str(exc), retry_after=_retry_after_ms())
    return found


def no_room() -> Exception:
    """What a call gets for which there is no room now."""
    return _t.Unavailable(em="too many bytes are being read", retry_after=_retry_after_ms())  # type: ignore[no-any-return]


def _retry_after_ms() -> int:
    return Unavailable.retry_after_s * 1000


def _field(name: str) -> str:
    """The IDL's name of a field."""
    head, dot, rest = name.partition(".")
    return f"retry_delays{dot}{rest}" if head == "retry" else name


def _result(answer: str | SorakaError) -> Any:
    if isinstance(answer, str):
        return _t.SubmitResult(ec=SUCCESS, em="success", msg_id=answer)
    em = _thrift_error(answer).em if isinstance(answer, InvalidParams) else str(answer)  # type: ignore[attr-defined]
    return _t.SubmitResult(ec=answer.code, em=em)


def _submission(struct: Any, max_params_bytes: int) -> Submission:
    _given("submission", struct)
    retry = struct.retry_delays
    return Submission(
        topic=_text("topic_name", struct.topic_name),
        callback=_callback(_given("callback", struct.callback), max_params_bytes),
        delay_ms=struct.delay_time,
        deliver_at=struct.deliver_at,
        ttr_ms=DEFAULT_TTR_MS if struct.ttr is None else struct.ttr,
        retry_ms=None if retry is None else tuple(retry),
        msg_id=_text_or_none("msg_id", struct.msg_id),
        idempotency_key=_text_or_none("idempotency_key", struct.idempotency_key),
    )


def _callback(struct: Any, max_params_bytes: int) -> Callback:
    _given("callback.request_type", struct.request_type)
    _text("callback.url", struct.url)
    params = _text_or_none("callback.params", struct.params)
    try:
        method = _METHODS[struct.request_type]
    except KeyError as exc:
        raise InvalidParams("callback.request_type", "must be GET or POST") from exc
    text = rules.params_text(params, method, max_params_bytes)
    return Callback(method=method, url=struct.url, params=text)


def _ids(topic_name: Any, msg_id: Any, command_id: Any) -> tuple[str, str, str | None]:
    command = _text_or_none("command_id", command_id)
    return _text("topic_name", topic_name), _text("msg_id", msg_id), command


def _given(field: str, value: Any) -> Any:
    if value is None:
        raise InvalidParams(field, "is missing")
    return value


def _text(field: str, value: Any) -> str:
    if not isinstance(_given(field, value), str):
        raise InvalidParams(field, "is not UTF-8")
    return str(value)


def _text_or_none(field: str, value: Any) -> str | None:
    return None if value is None else _text(field, value)


def _info(stored: Stored) -> Any:
    message = stored.message
    return _t.MessageInfo(
        msg_id=message.msg_id,
        topic_name=message.topic,
        state=_STATES[stored.state],
        created_at=message.created_at,
        due_at=stored.due_at,
        attempt=stored.attempt,
        owner=stored.owner,
        ttr=message.ttr_ms,
        callback=_t.Callback(
            request_type=_METHOD_CODES[message.callback.method],
            url=message.callback.url,
            params=message.callback.params,
        ),
        lease_until=stored.lease_until or None,
        finished_at=stored.finished_at or None,
        reason=stored.reason or None,
    )
