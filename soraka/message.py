"""What travels through soraka: messages, commands on them, and where they are.

Moments are integer milliseconds since the epoch (`..._at`, `lease_until`), durations are
integer milliseconds (`..._ms`). Everything is frozen. Pure: no I/O.

Messages and commands are structs of msgspec, which makes, encodes and decodes them in a tenth of
the time that dataclasses take. In the log they are arrays of their fields (`soraka/wire.py`), so
the order of those is part of its format. What their types ask for is checked by decoding alone.
"""

import uuid
from binascii import crc32
from dataclasses import dataclass, field
from enum import StrEnum
from functools import lru_cache
from typing import Annotated, Literal

from msgspec import Meta, Struct

from soraka.limits import DAY_MS, DEFAULT_RETRY_MS, DEFAULT_TTR_MS, DEFAULT_WEIGHT, MAX_RETRIES

ID_LENGTH = 36
SLICE_MS = 32
"""See `part_of`."""
ID_AHEAD_MS = 60_000
"""How far ahead of our clock the time of a new msg_id may be: the clocks of submitters."""
NO_OWNER = "-"
"""Owner of messages accepted while no worker lived: always absent, so reconcile moves them."""
PARKED = "~"
"""Begins the owner of messages of a paused topic; see `parked_owner`."""
RESERVED_TOPICS = frozenset({"admin", "center", "worker", "receive", "lock", "iptopic"})


Name = Annotated[str, Meta(max_length=250)]
"""Other producers may write to the log. The store has 16 bits for how many bytes an id, a name, or
the 128 command ids that it remembers of a message take."""
Ms = Annotated[int, Meta(ge=0, lt=1 << 53)]
"""Below 2**53 Redis still counts in whole milliseconds."""


class State(StrEnum):
    PENDING = "pending"
    SUCCEEDED = "succeeded"
    CANCELLED = "cancelled"
    DEAD = "dead"


Method = Literal["GET", "POST"]


class Callback(
    Struct, frozen=True, kw_only=True, array_like=True, forbid_unknown_fields=True, gc=False
):
    """`params` is a JSON object as text, or None."""

    method: Method
    url: str
    params: str | None = None


class Message(
    Struct, frozen=True, kw_only=True, array_like=True, forbid_unknown_fields=True, gc=False, tag=1
):
    """One accepted message, as the log holds it.

    `retry_ms` are the delays before the second, third, ... attempt.
    """

    msg_id: Name
    topic: Name
    created_at: Ms
    due_at: Ms
    ttr_ms: Annotated[int, Meta(ge=0, le=DAY_MS)]
    callback: Callback
    retry_ms: Annotated[tuple[Ms, ...], Meta(max_length=MAX_RETRIES)] = DEFAULT_RETRY_MS


class CommandKind(StrEnum):
    CANCEL = "cancel"
    ADD_TIME = "add_time"
    FIRE_NOW = "fire_now"
    REDRIVE = "redrive"


class Command(
    Struct, frozen=True, kw_only=True, array_like=True, forbid_unknown_fields=True, gc=False, tag=2
):
    """`command_id` makes it idempotent: the record remembers the ids applied to it."""

    command_id: Annotated[str, Meta(max_length=100)]
    msg_id: Name
    topic: Name
    kind: CommandKind
    add_ms: Ms = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Attempt:
    """One attempt that ended. Source: the store's history of a message.

    `number` counts from 1, anew after a redrive. `started_at` is when the request left, by the
    store's clock; `status` the HTTP status, 0 when there was no answer; `next_at` when the next
    attempt is due, 0 when there is none.
    """

    number: int
    started_at: int
    duration_ms: int
    worker: str
    ended: str
    status: int = 0
    reason: str = ""
    next_at: int = 0


class Submission(Struct, frozen=True, kw_only=True, gc=False):
    """A request to call back, not yet accepted. Source: the HTTP and Thrift edges.

    Exactly one of `delay_ms` and `deliver_at` is set. With an `idempotency_key` the same
    submission, sent again, is one message.
    """

    topic: str
    callback: Callback
    delay_ms: int | None = None
    deliver_at: int | None = None
    ttr_ms: int = DEFAULT_TTR_MS
    retry_ms: tuple[int, ...] | None = None
    msg_id: str | None = None
    idempotency_key: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Stored:
    """A message and where it is. Source: the store.

    `due_at` is when it falls due next, with added times and retries; `message.due_at` is what
    was submitted. `attempt` counts the attempts begun, without those that were released.
    `not_before` is until when it is held back, beyond its due time: 0 when it is not.
    `lease_until` is 0 when no call is under way, `finished_at` 0 while pending.
    """

    message: Message
    state: State
    owner: str
    due_at: int
    attempt: int
    lease_until: int = 0
    finished_at: int = 0
    reason: str = ""
    not_before: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Topic:
    """Settings of a topic. Source: the registry.

    `workers` are the instances that may hold its messages; empty means every live one.
    `balance` is one of BALANCES, `weigh_by` one of WEIGHTS: weights set by hand at the instances,
    or what they report of their load. `max_concurrent_dispatches` bounds the callbacks of this
    topic under way at one worker; 0: only the worker's own limits do. `max_dispatches_per_second`
    bounds the callbacks of this topic begun per second by all workers together; 0: no limit.
    While it is `paused` its messages wait, owned by `parked_owner(name)`. `retention_ms` is how
    long succeeded and cancelled messages are kept; 0: as the store's configuration says. With each
    of its `secrets` (see soraka/signing.py), the newest first, its callbacks are signed; they are
    never shown.
    """

    name: str
    business: str = ""
    worker_num: int = 0
    workers: tuple[str, ...] = ()
    balance: str = "round_robin"
    weigh_by: str = "instance"
    max_concurrent_dispatches: int = 0
    max_dispatches_per_second: int = 0
    paused: bool = False
    retention_ms: int = 0
    retry_ms: tuple[int, ...] = DEFAULT_RETRY_MS
    secrets: tuple[str, ...] = field(default=(), repr=False)
    created_at: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Instance:
    """A live process of a service. `address` is ip:port; `incarnation` differs at each start.

    `weight` is its share of new messages beside the others, set by hand; 0 takes none. One that
    is `draining` takes nothing new and has what it holds taken over.
    """

    service: str
    address: str
    incarnation: str
    started_at: int = 0
    version: str = ""
    weight: int = DEFAULT_WEIGHT
    draining: bool = False


def parked_owner(topic: str) -> str:
    """Who owns the messages of a paused topic that have fallen due: nobody who calls them."""
    return PARKED + topic


def parked_topic(owner: str) -> str | None:
    """The topic whose parked messages are this owner's; None for one who calls."""
    return owner.removeprefix(PARKED) if owner.startswith(PARKED) else None


def id_time_ms(msg_id: str) -> int | None:
    """When a UUIDv7 in its canonical form was made; None when it is none.

    >>> id_time_ms("01890a5d-ac96-774b-bcce-b302099a8057")
    1688063454358
    """
    try:
        parsed = uuid.UUID(msg_id)
    except ValueError:
        return None
    if parsed.version != 7 or str(parsed) != msg_id:
        return None
    return parsed.int >> 80


def part_of(key: str, parts: int) -> int:
    """Which of `parts` a key is in. The ids made within SLICE_MS are in one, so that what comes
    together is written, read and stored together; the slices take turns."""
    of_id = _slice_of(key[:13]) if len(key) == ID_LENGTH else None
    return (crc32(key.encode()) if of_id is None else of_id) % parts


@lru_cache(256)
def _slice_of(digits: str) -> int | None:
    """By how an id begins."""
    try:
        return int(digits[:8] + digits[9:], 16) // SLICE_MS
    except ValueError:
        return None
