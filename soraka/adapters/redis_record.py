"""A record of the Redis store as bytes; the layout is that of `lua/common.lua`. Pure."""

import struct

from soraka.adapters.redis_history import history_of
from soraka.errors import DecodeError
from soraka.message import Attempt, State, Stored
from soraka.ports import Claim, ClaimKind, NewMessage
from soraka.wire import decode_message

# layout, state, due_at, not_before, lease_until, attempt, tries, releases, finished_at, ttr_ms, and
# the sizes of what follows: owner, topic, commands, reason, body; the history is the rest
HEAD = struct.Struct("<BBQQQIIHQQHIIII")
LAYOUT = 4
"""Another number for each layout there was; 0 to 3 began records that had none."""
STATES = (State.PENDING, State.SUCCEEDED, State.CANCELLED, State.DEAD)
_KINDS = (ClaimKind.GONE, ClaimKind.LATER, ClaimKind.BUSY)
_FIRE = 3
_EMPTY = Claim(ClaimKind.GONE)


def new_record(new: NewMessage) -> bytes:
    """The record of a message never claimed."""
    message = new.message
    owner, topic = new.owner.encode(), message.topic.encode()
    sizes = (len(owner), len(topic), 0, 0, len(new.body))
    head = HEAD.pack(LAYOUT, 0, message.due_at, 0, 0, 0, 0, 0, 0, message.ttr_ms, *sizes)
    return b"".join((head, owner, topic, new.body))


def claim_of(kind: int, rest: int | bytes, life: str, free_at: int) -> Claim:
    """Source: a pair of `lua/claim.lua`, and the era that it begins with. `free_at` is when a lease
    would end that begins now, of a message without a ttr."""
    if kind == _FIRE:
        return _fire(bytes(rest), life, free_at)
    return Claim(_KINDS[kind], int(rest)) if kind else _EMPTY


def stored_of(raw: bytes) -> Stored:
    """Source: the value of a record's key. Raises DecodeError."""
    _check_layout(raw)
    _, state, due, not_before, lease, _, tries, _, finished, *_ = HEAD.unpack_from(raw)
    owner, _, _, reason, body, _ = _parts(raw)
    return Stored(
        message=decode_message(body),
        state=STATES[state],
        owner=owner.decode(),
        due_at=due,
        not_before=not_before,
        attempt=tries,
        lease_until=lease,
        finished_at=finished,
        reason=reason.decode(),
    )


def place_of(raw: bytes) -> tuple[bytes, State]:
    """Topic and state of a record. Raises DecodeError."""
    _check_layout(raw)
    return _parts(raw)[1], STATES[raw[1]]


def history_in(raw: bytes) -> list[Attempt]:
    """Raises DecodeError."""
    _check_layout(raw)
    return history_of(_parts(raw)[-1])


def _fire(raw: bytes, life: str, free_at: int) -> Claim:
    _, _, due, _, lease, attempt, tries, releases, _, ttr_ms, *sizes = HEAD.unpack_from(raw)
    body = raw[HEAD.size + sum(sizes[:-1]) :]
    early_ms = lease - ttr_ms - free_at
    return Claim(ClaimKind.FIRE, lease, attempt, due, body, tries, releases, life, early_ms)


def _check_layout(raw: bytes) -> None:
    if raw[0] != LAYOUT:
        raise DecodeError(f"layout {raw[0]}, this version of soraka reads {LAYOUT}", raw)


def _parts(raw: bytes) -> tuple[bytes, ...]:
    """Owner, topic, commands, reason, body, history."""
    parts, at = [], HEAD.size
    for size in HEAD.unpack_from(raw)[-5:]:
        parts.append(raw[at : at + size])
        at += size
    return (*parts, raw[at:])
