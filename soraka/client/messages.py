"""What a client submits and gets to see, in Python's own types, and as fields of the API."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any, NamedTuple

from soraka.errors import SorakaError
from soraka.message import State

Fields = dict[str, Any]
"""As the HTTP API names them; params as JSON text."""
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_MS = timedelta(milliseconds=1)
_encode = json.JSONEncoder(ensure_ascii=False, allow_nan=False, separators=(",", ":")).encode


@dataclass(frozen=True, slots=True, kw_only=True)
class NewMessage:
    """A callback to make. It is due after `delay`, or at the moment `at`, or now.

    `at` must have a time zone. `params` is the body of a POST, the query of a GET. `ttr` is the
    deadline of the whole call, by default a second; `retry` the delays between attempts, by
    default the topic's. With a `msg_id` or an `idempotency_key` of its own the message may be
    submitted again, by this process or another, and is still one. Without, the client makes one.
    """

    topic: str
    url: str
    delay: timedelta | None = None
    at: datetime | None = None
    params: Mapping[str, Any] | None = None
    method: str = "POST"
    ttr: timedelta | None = None
    retry: Sequence[timedelta] | None = None
    msg_id: str | None = None
    idempotency_key: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class MessageInfo:
    """A message and where it is.

    `due_at` is when it falls due next; `attempt` counts those begun so far; `owner` is the worker
    that holds it, "-" while there is none. `lease_until` is until when a call of it may be under
    way, None when none is; `finished_at` is None while it is pending. `reason` is the outcome of
    the last attempt, in words.
    """

    msg_id: str
    topic: str
    state: State
    created_at: datetime
    due_at: datetime
    attempt: int
    owner: str
    ttr: timedelta
    method: str
    url: str
    params: Mapping[str, Any] | None = None
    lease_until: datetime | None = None
    finished_at: datetime | None = None
    reason: str = ""


class Submitted(NamedTuple):
    """What became of one message of a batch: its id, or why it was refused. An Unavailable means
    that it is not known."""

    msg_id: str
    error: SorakaError | None = None


def fields_of(message: NewMessage) -> Fields:
    """Raises ValueError, TypeError for what cannot be said to soraka at all."""
    callback: Fields = {"request_type": message.method, "url": message.url}
    if message.params is not None:
        callback["params"] = _encode(message.params)
    fields: Fields = {"topic_name": message.topic, **_due(message), "callback": callback}
    if message.ttr is not None:
        fields["ttr"] = milliseconds(message.ttr)
    if message.retry is not None:
        fields["retry"] = [milliseconds(delay) for delay in message.retry]
    for name in ("msg_id", "idempotency_key"):
        if (value := getattr(message, name)) is not None:
            fields[name] = value
    return fields


def _due(message: NewMessage) -> Fields:
    if message.at is None:
        return {"delay_time": milliseconds(message.delay or timedelta())}
    if message.delay is not None:
        raise ValueError("give delay or at, not both")
    if message.at.utcoffset() is None:
        raise ValueError("at: must have a time zone, such as datetime.now(UTC) has")
    return {"deliver_at": max(0, milliseconds(message.at - _EPOCH))}


def milliseconds(duration: timedelta) -> int:
    """Rounded up: nothing is to be early."""
    return -(-duration // _MS)


def info_of(fields: Mapping[str, Any]) -> MessageInfo:
    """Of the answer to `get`."""
    callback = fields["callback"]
    return MessageInfo(
        msg_id=fields["msg_id"],
        topic=fields["topic_name"],
        state=State(fields["state"]),
        created_at=_moment(fields["created_at"]),
        due_at=_moment(fields["due_at"]),
        attempt=fields["attempt"],
        owner=fields["owner"],
        ttr=fields["ttr"] * _MS,
        method=callback["request_type"],
        url=callback["url"],
        params=callback.get("params"),
        lease_until=_moment_or_none(fields.get("lease_until")),
        finished_at=_moment_or_none(fields.get("finished_at")),
        reason=fields.get("reason") or "",
    )


def _moment(epoch_ms: int) -> datetime:
    return _EPOCH + epoch_ms * _MS


def _moment_or_none(epoch_ms: int | None) -> datetime | None:
    return None if epoch_ms is None else _moment(epoch_ms)
