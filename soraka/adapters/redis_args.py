"""Arguments and replies of the scripts in `lua/`. Pure."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from soraka.adapters.redis_history import note_of
from soraka.adapters.redis_node import Arg
from soraka.adapters.redis_record import new_record
from soraka.message import Command, id_time_ms
from soraka.ports import DueId, NewCommand, NewMessage, Outcome

REASON_CHARS = 1000


def message_args(entry: NewMessage) -> tuple[Arg, ...]:
    message = entry.message
    head = ("message", entry.position, message.msg_id, entry.owner, message.due_at)
    return (*head, message.topic, new_record(entry))


def logged_args(entry: NewCommand) -> tuple[Arg, ...]:
    c = entry.command
    return (c.kind.value, entry.position, c.msg_id, c.command_id, c.add_ms, c.topic, "")


def command_args(c: Command) -> tuple[Arg, ...]:
    made = id_time_ms(c.msg_id)
    return (
        c.msg_id,
        -1 if made is None else made,
        c.command_id,
        c.kind.value,
        c.add_ms,
        c.topic,
    )


def outcome_args(o: Outcome) -> tuple[Arg, ...]:
    reason = o.reason[:REASON_CHARS]
    return (o.msg_id, *o.lease, o.ended.value, o.delay_ms, reason, note_of(o))


def pairs(reply: Sequence[Any]) -> Iterable[tuple[Any, Any]]:
    return zip(reply[::2], reply[1::2], strict=True)


def triples(reply: Sequence[Any]) -> Iterable[tuple[Any, Any, Any]]:
    return zip(reply[::3], reply[1::3], reply[2::3], strict=True)


def scored(reply: Sequence[bytes]) -> Iterable[DueId]:
    """Source: ZRANGE WITHSCORES."""
    return (DueId(int(float(score)), member.decode()) for member, score in pairs(reply))


def in_order(by_shard: Mapping[int, Sequence[int]], replies: Sequence[Sequence[Any]]) -> list[Any]:
    """Replies per shard, one for each of its indexes, in the order of the indexes."""
    ordered: list[Any] = [None] * sum(map(len, by_shard.values()))
    for at, reply in zip(by_shard.values(), replies, strict=True):
        for index, answer in zip(at, reply, strict=True):
            ordered[index] = answer
    return ordered
