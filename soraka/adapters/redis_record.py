"""A record of the Redis store as bytes; the layout is that of `lua/common.lua`. Pure.

The body is what neither Lua nor the head of the record needs, as an array of MessagePack.
"""

import struct

import msgspec

from soraka.adapters.redis_history import history_of
from soraka.errors import DecodeError
from soraka.message import Attempt, Callback, Message, Method, State, Stored
from soraka.ports import Claim, ClaimKind, NewMessage

# layout, state, due_at, a moment, attempt, tries, releases, ttr_ms, and the sizes of what follows:
# owner, topic, commands, reason, body; the history is the rest
HEAD = struct.Struct("<BBQQIHHIHHHHI")
LAYOUT = 5
"""Another number for each layout there was; 0 to 3 began records that had none."""
STATES = (State.PENDING, State.SUCCEEDED, State.CANCELLED, State.DEAD)
_LEASED = 4
"""The state of one that is pending; the moment is then the end of the lease. Of others that are
pending it is `not_before`, of the rest `finished_at`."""
_KINDS = (ClaimKind.GONE, ClaimKind.LATER, ClaimKind.BUSY)
_FIRE = 3
_EMPTY = Claim(ClaimKind.GONE)
UNSAID_RETRY_MS = (1_000, 10_000, 60_000, 300_000, 3_000_000)
"""What most messages have is not written. For good, whatever the default becomes: there are
records that say it by saying nothing."""


class _Body(msgspec.Struct, frozen=True, array_like=True, forbid_unknown_fields=True, gc=False):
    """`delay_ms` is from when the message was made until it was due at first."""

    created_at: int
    delay_ms: int
    is_post: bool
    url: str
    params: str | None
    retry_ms: tuple[int, ...] | None


_encode = msgspec.msgpack.Encoder().encode
_decoder = msgspec.msgpack.Decoder(_Body)


def new_record(new: NewMessage) -> bytes:
    """The record of a message never claimed."""
    message = new.message
    owner, topic, body = new.owner.encode(), message.topic.encode(), _body_of(message)
    sizes = (len(owner), len(topic), 0, 0, len(body))
    head = HEAD.pack(LAYOUT, 0, message.due_at, 0, 0, 0, 0, message.ttr_ms, *sizes)
    return b"".join((head, owner, topic, body))


def claim_of(msg_id: str, kind: int, rest: int | bytes, life: str, free_at: int) -> Claim:
    """Source: a pair of `lua/claim.lua`, and the era that it begins with. `free_at` is when a lease
    would end that begins now, of a message without a ttr."""
    if kind == _FIRE:
        return _fire(msg_id, bytes(rest), life, free_at)
    return Claim(_KINDS[kind], int(rest)) if kind else _EMPTY


def stored_of(msg_id: str, raw: bytes) -> Stored:
    """Source: the value of a record's key. Raises DecodeError."""
    _check_layout(raw)
    _, number, due, moment, _, tries, *_ = HEAD.unpack_from(raw)
    state, is_leased = _state_of(number), number == _LEASED
    is_pending = state is State.PENDING
    owner, _, _, reason, _, _ = _parts(raw)
    return Stored(
        message=_message_in(msg_id, raw),
        state=state,
        owner=owner.decode(),
        due_at=due,
        not_before=moment if is_pending and not is_leased else 0,
        attempt=tries,
        lease_until=moment if is_leased else 0,
        finished_at=0 if is_pending else moment,
        reason=reason.decode(),
    )


def place_of(raw: bytes) -> tuple[bytes, State]:
    """Topic and state of a record. Raises DecodeError."""
    _check_layout(raw)
    return _parts(raw)[1], _state_of(raw[1])


def history_in(raw: bytes) -> list[Attempt]:
    """Raises DecodeError."""
    _check_layout(raw)
    return history_of(_parts(raw)[-1])


def wrong_layout(layout: int) -> str:
    """What is wrong with a record of another layout."""
    return f"layout {layout}, this version of soraka reads {LAYOUT}"


def _fire(msg_id: str, raw: bytes, life: str, free_at: int) -> Claim:
    _, _, due, lease, attempt, tries, releases, ttr_ms, *_ = HEAD.unpack_from(raw)
    message: Message | str
    try:
        message = _message_in(msg_id, raw)
    except DecodeError as exc:
        message = str(exc)
    early_ms = lease - ttr_ms - free_at
    return Claim(ClaimKind.FIRE, lease, attempt, due, message, tries, releases, life, early_ms)


def _body_of(message: Message) -> bytes:
    delay_ms = message.due_at - message.created_at
    callback, retry_ms = message.callback, message.retry_ms
    said = None if retry_ms == UNSAID_RETRY_MS else retry_ms
    body = _Body(
        message.created_at, delay_ms, callback.method == "POST", callback.url, callback.params, said
    )
    return _encode(body)


def _message_in(msg_id: str, raw: bytes) -> Message:
    """Raises DecodeError."""
    *_, ttr_ms, owner, topic, commands, reason, size = HEAD.unpack_from(raw)
    topic_at = HEAD.size + owner
    at = topic_at + topic + commands + reason
    try:
        body = _decoder.decode(raw[at : at + size])
        method: Method = "POST" if body.is_post else "GET"
        return Message(
            msg_id=msg_id,
            topic=raw[topic_at : topic_at + topic].decode(),
            created_at=body.created_at,
            due_at=body.created_at + body.delay_ms,
            ttr_ms=ttr_ms,
            callback=Callback(method=method, url=body.url, params=body.params),
            retry_ms=UNSAID_RETRY_MS if body.retry_ms is None else body.retry_ms,
        )
    except (msgspec.DecodeError, UnicodeDecodeError) as exc:
        raise DecodeError(f"not the body of a message: {exc}", raw) from exc


def _state_of(number: int) -> State:
    return State.PENDING if number == _LEASED else STATES[number]


def _check_layout(raw: bytes) -> None:
    if raw[0] != LAYOUT:
        raise DecodeError(wrong_layout(raw[0]), raw)


def _parts(raw: bytes) -> tuple[bytes, ...]:
    """Owner, topic, commands, reason, body, history."""
    parts, at = [], HEAD.size
    for size in HEAD.unpack_from(raw)[-5:]:
        parts.append(raw[at : at + size])
        at += size
    return (*parts, raw[at:])
