"""A record of the Redis store as bytes; the layout is that of `lua/common.lua`. Pure."""

import struct

from soraka.message import State, Stored
from soraka.ports import Claim, ClaimKind, NewMessage
from soraka.wire import decode_message

# state, due_at, lease_until, attempt, tries, finished_at, ttr_ms, and the sizes of what follows:
# owner, topic, commands, reason; the body is the rest
HEAD = struct.Struct("<BQQIIQQHIII")
STATES = (State.PENDING, State.SUCCEEDED, State.CANCELLED, State.DEAD)
_KINDS = (ClaimKind.GONE, ClaimKind.LATER, ClaimKind.BUSY)
_FIRE = 3
_EMPTY = Claim(ClaimKind.GONE)


def new_record(new: NewMessage) -> bytes:
    """The record of a message never claimed."""
    message = new.message
    owner, topic = new.owner.encode(), message.topic.encode()
    head = HEAD.pack(0, message.due_at, 0, 0, 0, 0, message.ttr_ms, len(owner), len(topic), 0, 0)
    return b"".join((head, owner, topic, new.body))


def claim_of(kind: int, rest: int | bytes) -> Claim:
    """Source: a pair of `lua/claim.lua`."""
    if kind == _FIRE:
        return _fire(bytes(rest))
    return Claim(_KINDS[kind], int(rest)) if kind else _EMPTY


def _fire(raw: bytes) -> Claim:
    _, due, lease, attempt, tries, _, _, owner, topic, commands, reason = HEAD.unpack_from(raw)
    body = raw[HEAD.size + owner + topic + commands + reason :]
    return Claim(ClaimKind.FIRE, lease, attempt, due, body, tries)


def stored_of(raw: bytes) -> Stored:
    """Source: the value of a record's key."""
    state, due, lease, _, tries, finished, _, *sizes = HEAD.unpack_from(raw)
    parts, at = [], HEAD.size
    for size in sizes:
        parts.append(raw[at : at + size])
        at += size
    owner, _, _, reason = parts
    return Stored(
        message=decode_message(raw[at:]),
        state=STATES[state],
        owner=owner.decode(),
        due_at=due,
        attempt=tries,
        lease_until=lease,
        finished_at=finished,
        reason=reason.decode(),
    )
