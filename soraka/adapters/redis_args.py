"""Arguments and replies of the scripts in `lua/`. Pure."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from soraka.adapters.redis_history import note_of
from soraka.adapters.redis_ids import full, short
from soraka.adapters.redis_record import new_record
from soraka.adapters.redis_scripts import OwnArg, as_text
from soraka.message import Command, id_time_ms
from soraka.ports import DueId, Move, NewCommand, NewMessage, Outcome

REASON_CHARS = 1000


def message_args(entry: NewMessage) -> tuple[OwnArg, ...]:
    m = entry.message
    # where Lua only passes it on, a number costs it 1 us, a text nothing
    due = str(m.due_at)
    record = as_text(new_record(entry))
    return (entry.position, _short(m.msg_id), record, entry.owner, due, m.topic, "")


def logged_args(entry: NewCommand) -> tuple[OwnArg, ...]:
    c = entry.command
    return (entry.position, _short(c.msg_id), "", c.kind.value, c.add_ms, c.topic, c.command_id)


def command_args(c: Command) -> tuple[OwnArg, ...]:
    made = id_time_ms(c.msg_id)
    return (
        _short(c.msg_id),
        -1 if made is None else made,
        c.command_id,
        c.kind.value,
        c.add_ms,
        c.topic,
    )


def outcome_args(o: Outcome) -> tuple[OwnArg, ...]:
    reason, note = o.reason[:REASON_CHARS], as_text(note_of(o))
    return (_short(o.msg_id), *o.lease, o.ended.value, o.delay_ms, reason, note)


def move_args(move: Move) -> tuple[OwnArg, ...]:
    return (_short(move.msg_id), move.source, move.target)


def claim_args(msg_ids: Iterable[str]) -> list[OwnArg]:
    return list(map(_short, msg_ids))


def _short(msg_id: str) -> str:
    return short(msg_id).decode()


def pairs(reply: Sequence[Any]) -> Iterable[tuple[Any, Any]]:
    return zip(reply[::2], reply[1::2], strict=True)


def triples(reply: Sequence[Any]) -> Iterable[tuple[Any, Any, Any]]:
    return zip(reply[::3], reply[1::3], reply[2::3], strict=True)


def scored(reply: Sequence[bytes]) -> Iterable[DueId]:
    """Source: ZRANGE WITHSCORES."""
    return (DueId(int(float(score)), full(member)) for member, score in pairs(reply))


def in_order(by_shard: Mapping[int, Sequence[int]], replies: Sequence[Sequence[Any]]) -> list[Any]:
    """Replies per shard, one for each of its indexes, in the order of the indexes."""
    ordered: list[Any] = [None] * sum(map(len, by_shard.values()))
    for at, reply in zip(by_shard.values(), replies, strict=True):
        for index, answer in zip(at, reply, strict=True):
            ordered[index] = answer
    return ordered
