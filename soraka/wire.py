"""Records as bytes: one version byte, then the Thrift struct of `idl/record.thrift`.

The same bytes are the value in the log and the body in the store.
"""

from io import BytesIO
from typing import Any

from thriftpy2.protocol import TCyBinaryProtocol
from thriftpy2.transport import TCyBufferedTransport, TCyMemoryBuffer

import idl
from soraka import skim
from soraka.errors import DecodeError
from soraka.message import (
    DAY_MS,
    MAX_RETRIES,
    Callback,
    Command,
    CommandKind,
    Message,
)

VERSION = b"\x01"
MAX_NUMBER = 1 << 53
MAX_TTR_MS = DAY_MS
MAX_ITEMS = 1000
"""Fields and list items of a record; MAX_RETRIES and what else there is come to 50."""
UNSAID_RETRY_MS = (1_000, 10_000, 60_000, 300_000, 3_000_000)
"""What most messages have takes 48 bytes of each, in the log and in the store, when it is written.
For good, whatever the default becomes: there are messages that say it by saying nothing."""
_t = idl.record
_METHODS = {idl.soraka.RequestType.GET: "GET", idl.soraka.RequestType.POST: "POST"}
_METHOD_CODES = {name: code for code, name in _METHODS.items()}
_KIND_CODES = {kind: getattr(_t.CommandKind, kind.name) for kind in CommandKind}
_KINDS = {code: kind for kind, code in _KIND_CODES.items()}


def encode(record: Message | Command) -> bytes:
    """Bytes of a record, the current version."""
    if isinstance(record, Message):
        struct = _t.Record(message=_message_struct(record))
    else:
        struct = _t.Record(command=_command_struct(record))
    buffer = TCyMemoryBuffer()
    TCyBinaryProtocol(buffer).write_struct(struct)
    return VERSION + bytes(buffer.getvalue())


def decode(data: bytes) -> Message | Command:
    """The record in `data`. Raises DecodeError, with the bytes, when there is none."""
    if data[:1] != VERSION:
        raise DecodeError(f"unknown record version {data[:1]!r}", data)
    try:
        skim.check_struct(data, 1, MAX_ITEMS)
        struct = reader(data[1:]).read_struct(_t.Record())
        if struct.message is not None and struct.command is None:
            return _message(struct.message)
        if struct.command is not None and struct.message is None:
            return _command(struct.command)
    except Exception as exc:  # what the parser raises on garbage is not documented
        raise DecodeError(f"not a record: {exc!r}", data) from exc
    raise DecodeError("neither a message nor a command", data)


def reader(data: bytes) -> Any:
    """A protocol that reads `data` and raises at its end.

    Not TCyMemoryBuffer: that goes on past the end, with whatever lies in memory there.
    """
    return TCyBinaryProtocol(TCyBufferedTransport(BytesIO(data)))


def decode_message(data: bytes) -> Message:
    """As decode, for bytes that must be a message."""
    record = decode(data)
    if not isinstance(record, Message):
        raise DecodeError("a command where a message was expected", data)
    return record


def callback_struct(callback: Callback) -> Any:
    """The `Callback` of `idl/soraka.thrift`."""
    return idl.soraka.Callback(
        request_type=_METHOD_CODES[callback.method], url=callback.url, params=callback.params
    )


def callback_of(struct: Any) -> Callback:
    """Raises KeyError when `request_type` is neither GET nor POST."""
    return Callback(method=_METHODS[struct.request_type], url=struct.url, params=struct.params)


def _message_struct(m: Message) -> Any:
    return _t.Message(
        msg_id=m.msg_id,
        topic=m.topic,
        created_at=m.created_at,
        due_at=m.due_at,
        ttr_ms=m.ttr_ms,
        callback=callback_struct(m.callback),
        retry_ms=None if m.retry_ms == UNSAID_RETRY_MS else m.retry_ms,
    )


def _message(s: Any) -> Message:
    message = Message(
        msg_id=s.msg_id,
        topic=s.topic,
        created_at=s.created_at,
        due_at=s.due_at,
        ttr_ms=s.ttr_ms,
        callback=callback_of(s.callback),
        retry_ms=UNSAID_RETRY_MS if s.retry_ms is None else tuple(s.retry_ms),
    )
    _check(message, ("msg_id", "topic"), ("created_at", "due_at", "ttr_ms"))
    _check_limits(message)
    texts = ("url",) if message.callback.params is None else ("url", "params")
    _check(message.callback, texts, ())
    return message


def _check_limits(message: Message) -> None:
    """Other producers may write to the log; past these the store and the timers fail."""
    if message.ttr_ms > MAX_TTR_MS:
        raise ValueError(f"ttr_ms = {message.ttr_ms}: must be at most {MAX_TTR_MS}")
    if len(message.retry_ms) > MAX_RETRIES:
        raise ValueError(f"retry_ms: {len(message.retry_ms)} delays, at most {MAX_RETRIES}")
    if message.retry_ms is UNSAID_RETRY_MS:
        return
    for delay in message.retry_ms:
        if not 0 <= delay < MAX_NUMBER:
            raise ValueError(f"retry_ms: {delay} must be from 0 to {MAX_NUMBER - 1}")


def _command_struct(c: Command) -> Any:
    return _t.Command(
        command_id=c.command_id,
        msg_id=c.msg_id,
        topic=c.topic,
        kind=_KIND_CODES[c.kind],
        add_ms=c.add_ms,
    )


def _command(s: Any) -> Command:
    command = Command(
        command_id=s.command_id,
        msg_id=s.msg_id,
        topic=s.topic,
        kind=_KINDS[s.kind],
        add_ms=s.add_ms,
    )
    _check(command, ("command_id", "msg_id", "topic"), ("add_ms",))
    return command


def _check(record: object, texts: tuple[str, ...], numbers: tuple[str, ...]) -> None:
    """Refuses what thriftpy2 lets through: missing required fields come as None, texts that are
    not UTF-8 as bytes. Numbers stay below 2**53, where Redis still counts in whole milliseconds."""
    for name in texts:
        if not isinstance(getattr(record, name), str):
            raise TypeError(f"{name} is missing, or not UTF-8")
    for name in numbers:
        value = getattr(record, name)
        if value is None or not 0 <= value < MAX_NUMBER:
            raise ValueError(f"{name} = {value}: must be from 0 to {MAX_NUMBER - 1}")
