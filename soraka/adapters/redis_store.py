"""The store on Redis: one Lua script per call and shard, see `lua/common.lua` for the keys."""

import math
from binascii import crc32
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from itertools import chain
from typing import Any, TypeVar

import gevent

from soraka.adapters.redis_record import claim_of, new_record, stored_of
from soraka.adapters.redis_scripts import Arg, RedisScripts, load_scripts
from soraka.errors import Gap, StoreUnavailable
from soraka.message import ID_AHEAD_MS, Command, Stored, id_time_ms
from soraka.ports import (
    DOOR_MS,
    MAX_WAITING,
    Claim,
    DueId,
    Entry,
    Move,
    NewCommand,
    NewMessage,
    Outcome,
    Totals,
    Verdict,
)

T = TypeVar("T")
REASON_CHARS = 1000
DUE_STEP = 1000
"""Rows of `due` read in one round trip."""
_VERDICTS = {verdict.value.encode(): verdict for verdict in Verdict}
_FULL = b"full"


class RedisStore:
    """Implements FullStore. Safe for use by many greenlets.

    `now_ms` replaces the clock of Redis in tests; `scripts` are the Lua sources by name.
    Retention runs on the clock of Redis in any case.
    """

    def __init__(
        self,
        *,
        url: str,
        shards: int,
        retention_ms: int,
        dead_retention_ms: int,
        lease_margin_ms: int,
        early_ms: int,
        door_ms: int = DOOR_MS,
        max_waiting: int = MAX_WAITING,
        timeout_ms: int = 2000,
        max_connections: int = 50,
        now_ms: Callable[[], int] | None = None,
        scripts: Mapping[str, str] | None = None,
    ) -> None:
        self._redis = RedisScripts(
            url=url,
            timeout_ms=timeout_ms,
            max_connections=max_connections,
            sources=scripts or load_scripts(),
        )
        self._prefixes = [f"{{{shard}}}:" for shard in range(shards)]
        self._retention_ms = retention_ms
        self._dead_retention_ms = dead_retention_ms
        self._lease_margin_ms = lease_margin_ms
        self._early_ms = early_ms
        self._door_ms = door_ms
        self._max_waiting = max_waiting
        self._now_ms = now_ms

    def positions(self, partition: str) -> tuple[int, ...]:
        replies = self._redis.read([("HGET", f"{p}hw", partition) for p in self._prefixes])
        return tuple(-1 if reply is None else int(reply) for reply in replies)

    def schedule(
        self, partition: str, previous: tuple[int, ...], last: int, entries: Sequence[Entry]
    ) -> tuple[int, ...]:
        calls: list[list[Arg]] = [
            [self._clock(), partition, position, last, self._retention_ms]
            for _, position in zip(self._prefixes, previous, strict=True)
        ]
        for entry in entries:
            if isinstance(entry, NewMessage):
                calls[self._shard(entry.message.msg_id)] += _message_args(entry)
            else:
                calls[self._shard(entry.command.msg_id)] += _logged_args(entry)
        replies = self._redis.run("schedule", list(zip(self._prefixes, calls, strict=True)))
        positions = tuple(position for _, position in replies)
        if not all(applied for applied, _ in replies):
            raise Gap(partition, positions)
        return positions

    def rewind(self, partition: str, position: int) -> None:
        call = (self._clock(), partition, position)
        self._redis.run("rewind", [(prefix, call) for prefix in self._prefixes])

    def command(self, commands: Sequence[Command]) -> list[Verdict]:
        replies = self._each("command", self._command_head(), commands, _command_args)
        if _FULL in replies:
            raise StoreUnavailable("too many commands wait for messages not yet here")
        return [_VERDICTS[reply] for reply in replies]

    def claim(self, msg_ids: Sequence[str]) -> list[Claim]:
        by_shard = self._by_shard(msg_ids)
        head: tuple[Arg, ...] = (self._clock(), self._lease_margin_ms)
        calls: list[tuple[str, Sequence[Arg]]] = [
            (self._prefixes[shard], [*head, *(msg_ids[i] for i in at)])
            for shard, at in by_shard.items()
        ]
        replies = self._redis.run("claim", calls)
        return _in_order(by_shard, [list(map(claim_of, r[::2], r[1::2])) for r in replies])

    def settle(self, outcomes: Sequence[Outcome]) -> list[bool]:
        head = (self._clock(), self._retention_ms, self._dead_retention_ms)
        return [bool(reply) for reply in self._each("settle", head, outcomes, _outcome_args)]

    def due(self, owner: str, until: int, limit: int) -> list[DueId]:
        # Ids fall evenly on the shards: each is asked for its share and a bit, not for everything.
        share = limit / len(self._prefixes)
        quota = min(limit, int(share + 4 * math.sqrt(max(0.0, share))) + 8)
        found = self._due_of(self._prefixes, owner, until, quota)
        # Of a shard that gave all it was asked for, nothing is known beyond its last row.
        ends = [rows[-1] for rows in found if quota <= len(rows) and quota < limit]
        rows = sorted(chain.from_iterable(found))[:limit]
        if ends and (len(rows) < limit or rows[-1] > min(ends)):
            rows = sorted(chain.from_iterable(self._due_of(self._prefixes, owner, until, limit)))
        return rows[:limit]

    def _due_of(
        self, prefixes: Sequence[str], owner: str, until: int, limit: int
    ) -> list[list[DueId]]:
        """Per prefix, the soonest. In steps, with the other greenlets in between: reading 10,000
        rows takes some 40 ms."""
        if limit <= 0:
            return []
        span = ("-inf", f"({until}", "BYSCORE", "LIMIT", 0, limit, "WITHSCORES")
        at_once = max(1, DUE_STEP // limit)
        found: list[list[DueId]] = []
        for start in range(0, len(prefixes), at_once):
            step = prefixes[start : start + at_once]
            replies = self._redis.read([("ZRANGE", f"{p}o:{owner}", *span) for p in step])
            for reply in replies:
                found.append(list(_scored(reply)))
                gevent.sleep(0)
        return found

    def assign(self, moves: Sequence[Move]) -> list[int | None]:
        replies = self._each("assign", (self._clock(),), moves, tuple)
        return [None if at < 0 else at for at in replies]

    def close(self) -> None:
        self._redis.close()

    def now_ms(self) -> int:
        if self._now_ms is not None:
            return self._now_ms()
        seconds, micros = self._redis.read([("TIME",)])[0]
        return int(seconds) * 1000 + int(micros) // 1000

    def owners(self) -> set[str]:
        return set(self._pending())

    def get(self, msg_ids: Sequence[str]) -> list[Stored | None]:
        by_shard = self._by_shard(msg_ids)
        commands = [
            ("MGET", *(f"{self._prefixes[shard]}m:{msg_ids[i]}" for i in at))
            for shard, at in by_shard.items()
        ]
        raws = _in_order(by_shard, self._redis.read(commands))
        return [None if raw is None else stored_of(raw) for raw in raws]

    def list_dead(self, until: int, limit: int) -> list[Stored]:
        if limit <= 0:
            return []
        span = (f"({until}", "-inf", "BYSCORE", "REV", "LIMIT", 0, limit, "WITHSCORES")
        replies = self._redis.read([("ZRANGE", f"{p}dead", *span) for p in self._prefixes])
        latest = sorted(chain.from_iterable(map(_scored, replies)), reverse=True)[:limit]
        return [stored for stored in self.get([d.msg_id for d in latest]) if stored is not None]

    def totals(self) -> Totals:
        counts = Counter[str]()
        for reply in self._redis.read([("HGETALL", f"{p}n") for p in self._prefixes]):
            for name, value in reply.items():
                counts[name.decode()] += int(value)
        return Totals(
            pending=self._pending(),
            scheduled=counts["scheduled"],
            succeeded=counts["succeeded"],
            cancelled=counts["cancelled"],
            dead=counts["dead"],
            attempts=counts["attempts"],
        )

    def _pending(self) -> dict[str, int]:
        pending = Counter[str]()
        for reply in self._redis.run("owners", [(prefix, ("",)) for prefix in self._prefixes]):
            for owner, count in _pairs(reply):
                pending[owner.decode()] += count
        return dict(pending)

    def _command_head(self) -> tuple[Arg, ...]:
        return (
            self._clock(),
            self._retention_ms,
            self._early_ms,
            ID_AHEAD_MS,
            self._door_ms,
            self._max_waiting,
        )

    def _clock(self) -> str:
        return "" if self._now_ms is None else str(self._now_ms())

    def _shard(self, msg_id: str) -> int:
        return crc32(msg_id.encode()) % len(self._prefixes)

    def _by_shard(self, msg_ids: Iterable[str]) -> dict[int, list[int]]:
        """Shard -> indexes of its ids."""
        by_shard: dict[int, list[int]] = {}
        for index, msg_id in enumerate(msg_ids):
            by_shard.setdefault(self._shard(msg_id), []).append(index)
        return by_shard

    def _each(
        self,
        script: str,
        head: Sequence[Arg],
        items: Sequence[T],
        args: Callable[[T], Iterable[Arg]],
    ) -> list[Any]:
        """Runs a script that answers once for each item; `args` begin with the message id."""
        rows = [tuple(args(item)) for item in items]
        by_shard = self._by_shard(str(row[0]) for row in rows)
        calls = [
            (self._prefixes[shard], [*head, *chain.from_iterable(rows[i] for i in at)])
            for shard, at in by_shard.items()
        ]
        return _in_order(by_shard, self._redis.run(script, calls))


def _message_args(entry: NewMessage) -> tuple[Arg, ...]:
    message = entry.message
    record = new_record(entry)
    return ("message", entry.position, message.msg_id, entry.owner, message.due_at, record)


def _logged_args(entry: NewCommand) -> tuple[Arg, ...]:
    c = entry.command
    return (c.kind.value, entry.position, c.msg_id, c.command_id, c.add_ms, c.topic)


def _command_args(c: Command) -> tuple[Arg, ...]:
    made = id_time_ms(c.msg_id)
    return (
        c.msg_id,
        -1 if made is None else made,
        c.command_id,
        c.kind.value,
        c.add_ms,
        c.topic,
    )


def _outcome_args(o: Outcome) -> tuple[Arg, ...]:
    return (o.msg_id, o.attempt, o.ended.value, o.delay_ms, o.reason[:REASON_CHARS])


def _pairs(reply: Sequence[Any]) -> Iterable[tuple[Any, Any]]:
    return zip(reply[::2], reply[1::2], strict=True)


def _scored(reply: Sequence[bytes]) -> Iterable[DueId]:
    """Source: ZRANGE WITHSCORES."""
    return (DueId(int(float(score)), member.decode()) for member, score in _pairs(reply))


def _in_order(by_shard: Mapping[int, Sequence[int]], replies: Sequence[Sequence[Any]]) -> list[Any]:
    """Replies per shard, one for each of its indexes, in the order of the indexes."""
    ordered: list[Any] = [None] * sum(map(len, by_shard.values()))
    for at, reply in zip(by_shard.values(), replies, strict=True):
        for index, answer in zip(at, reply, strict=True):
            ordered[index] = answer
    return ordered
