"""The store on Redis: one Lua script per call and shard, see `lua/common.lua` for the keys."""

from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from itertools import chain
from typing import Any, TypeVar

import gevent

from soraka.adapters.redis_archive import RedisArchive
from soraka.adapters.redis_args import (
    claim_args,
    command_args,
    in_order,
    logged_args,
    message_args,
    move_args,
    outcome_args,
    pairs,
    scored,
)
from soraka.adapters.redis_keys import RedisKeys
from soraka.adapters.redis_node import Arg, Limits
from soraka.adapters.redis_record import claim_of, stored_of
from soraka.adapters.redis_scripts import OwnArg, RedisScripts, load_scripts, records
from soraka.adapters.redis_topology import open_topology
from soraka.errors import Gap, StoreUnavailable
from soraka.message import ID_AHEAD_MS, Command, Stored
from soraka.ports import (
    DOOR_MS,
    MAX_WAITING,
    Claim,
    ClaimKind,
    DueId,
    Entry,
    Move,
    NewMessage,
    Outcome,
    Totals,
    Verdict,
)
from soraka.tls import Context

T = TypeVar("T")
DUE_STEP = 1000
"""Rows of `due` read in one round trip."""
REST_MS = 1000
"""A server of a cluster that did not answer in time is left alone for so long."""
_VERDICTS = {verdict.value.encode(): verdict for verdict in Verdict}
_FULL = b"full"
_UNKNOWN = Claim(ClaimKind.UNKNOWN)


class RedisStore(RedisArchive, RedisKeys):
    """Implements FullStore. Safe for use by many greenlets.

    `mode` is single, sentinel or cluster; see `redis_topology` for what `url` is in each. `secured`
    is for a rediss:// URL, which without it is secured by the CAs of the system. Raises
    ValueError for one that cannot be right; connects at the first use. A shard whose server has
    restarted answers no claims until `vouch`; see `lua/era.lua`.

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
        secured: Context | None = None,
        mode: str = "single",
        sentinel_master: str = "",
        sentinel_user: str = "",
        sentinel_password: str = "",
        door_ms: int = DOOR_MS,
        max_waiting: int = MAX_WAITING,
        timeout_ms: int = 2000,
        max_connections: int = 50,
        now_ms: Callable[[], int] | None = None,
        scripts: Mapping[str, str] | None = None,
    ) -> None:
        topology = open_topology(
            mode,
            url,
            secured=secured,
            sentinel_master=sentinel_master,
            sentinel_user=sentinel_user,
            sentinel_password=sentinel_password,
            limits=Limits(
                timeout_ms=timeout_ms,
                max_connections=max_connections,
                rest_ms=REST_MS if mode == "cluster" else 0,
            ),
        )
        super().__init__(RedisScripts(topology, scripts or load_scripts()), shards, now_ms)
        self._retention_ms = retention_ms
        self._dead_retention_ms = dead_retention_ms
        self._lease_margin_ms = lease_margin_ms
        self._early_ms = early_ms
        self._door_ms = door_ms
        self._max_waiting = max_waiting

    def positions(self, partition: str) -> tuple[int, ...]:
        replies = self._redis.read(self._everywhere("HGET", "hw", partition))
        return tuple(-1 if reply is None else int(reply) for reply in replies)

    def schedule(
        self, partition: str, previous: tuple[int, ...], last: int, entries: Sequence[Entry]
    ) -> tuple[int, ...]:
        own: dict[int, list[OwnArg]] = {
            shard: [position] for shard, position in zip(self._shards, previous, strict=True)
        }
        for entry in entries:
            if isinstance(entry, NewMessage):
                own[self._shard_of(entry.message.msg_id)] += message_args(entry)
            else:
                own[self._shard_of(entry.command.msg_id)] += logged_args(entry)
        common = (self._clock(), partition, last, self._retention_ms)
        replies = self._redis.run_each("schedule", common, own)
        positions = tuple(position for _, position in replies)
        if not all(applied for applied, _ in replies):
            raise Gap(partition, positions)
        return positions

    def rewind(self, partition: str, position: int) -> None:
        self._redis.run("rewind", self._on_all(self._clock(), partition, position))

    def adopt(self, positions: Mapping[str, int]) -> int:
        if not positions:
            return 0
        call: list[Arg] = [self._clock()]
        for partition, position in positions.items():
            call += [partition, position]
        return sum(self._redis.run("adopt", self._on_all(*call)))

    def restarts(self) -> frozenset[str]:
        """Of the servers within reach, as '<address>/<era>'; the address is for people."""
        eras = self._redis.run_some("vouch", self._on_all(self._clock()))
        addresses = self._redis.addresses(self._shards)
        return frozenset(
            f"{address}/{era.decode()}" for era, address in zip(eras, addresses, strict=True) if era
        )

    def vouch(self, processes: frozenset[str]) -> None:
        """What is out of reach is left out, and still among `restarts` when it is back."""
        if processes:
            eras = (process.rpartition("/")[2] for process in processes)
            self._redis.run_some("vouch", self._on_all(self._clock(), *eras))

    def command(self, commands: Sequence[Command]) -> list[Verdict]:
        names, head = [command.msg_id for command in commands], self._command_head()
        replies = self._each("command", head, commands, names, command_args)
        if _FULL in replies:
            raise StoreUnavailable("too many commands wait for messages not yet here")
        return [_VERDICTS[reply] for reply in replies]

    def claim(self, msg_ids: Sequence[str], ahead_ms: int = 0) -> list[Claim]:
        if not msg_ids:
            return []
        by_shard = self._by_shard(msg_ids)
        own = {shard: claim_args([msg_ids[i] for i in at]) for shard, at in by_shard.items()}
        common = (self._clock(), self._lease_margin_ms, ahead_ms)
        replies = self._redis.run_each_some("claim", common, own)
        claims = [
            _claims(reply, [msg_ids[i] for i in at], self._lease_margin_ms)
            for reply, at in zip(replies, by_shard.values(), strict=True)
        ]
        return in_order(by_shard, claims)

    def life(self, msg_id: str) -> str:
        (era,) = self._redis.run("life", [(self._shard_of(msg_id), ())])
        return str(era.decode())

    def settle(self, outcomes: Sequence[Outcome]) -> list[bool]:
        head = (self._clock(), self._retention_ms, self._dead_retention_ms)
        names = [outcome.msg_id for outcome in outcomes]
        replies = self._each("settle", head, outcomes, names, outcome_args)
        return [bool(reply) for reply in replies]

    def due(self, owner: str, until: int, limit: int, since: int = 0) -> list[DueId]:
        quota = self._quota(limit)
        found = self._due_of(owner, (since, until), quota)
        # Of a shard that gave all it was asked for, nothing is known beyond its last row.
        ends = [rows[-1] for rows in found if quota <= len(rows) and quota < limit]
        rows = sorted(chain.from_iterable(found))[:limit]
        if ends and (len(rows) < limit or rows[-1] > min(ends)):
            rows = sorted(chain.from_iterable(self._due_of(owner, (since, until), limit)))
        return rows[:limit]

    def _due_of(self, owner: str, span: tuple[int, int], limit: int) -> list[list[DueId]]:
        """Per shard within reach, the soonest. In steps, with the other greenlets in between:
        reading 10,000 rows takes some 40 ms."""
        if limit <= 0:
            return []
        since, until = span
        rest = (since, f"({until}", "BYSCORE", "LIMIT", 0, limit, "WITHSCORES")
        commands = self._everywhere("ZRANGE", f"o:{owner}", *rest)
        at_once = max(1, DUE_STEP // limit)
        found: list[list[DueId]] = []
        failed: StoreUnavailable | None = None
        for start in range(0, len(commands), at_once):
            try:
                replies = self._redis.read_some(commands[start : start + at_once])
            except StoreUnavailable as exc:
                failed = exc
                continue
            for reply in replies:
                if reply is not None:
                    found.append(list(scored(reply)))
                    gevent.sleep(0)
        if failed is not None and not found:
            raise failed
        return found

    def assign(self, moves: Sequence[Move]) -> list[int | None]:
        names = [move.msg_id for move in moves]
        replies = self._each("assign", (self._clock(),), moves, names, move_args)
        return [None if at < 0 else at for at in replies]

    def close(self) -> None:
        self._redis.close()

    def now_ms(self) -> int:
        if self._now_ms is not None:
            return self._now_ms()
        # One server's clock: those of a cluster must be kept together by NTP.
        replies = self._redis.read_some([(shard, ("TIME",)) for shard in self._shards])
        seconds, micros = next(reply for reply in replies if reply is not None)
        return int(seconds) * 1000 + int(micros) // 1000

    def owners(self) -> set[str]:
        return set(_by_owner(self._redis.run_some("owners", self._on_all(""))))

    def scan(self, owner: str, cursor: str, limit: int) -> tuple[list[DueId], str]:
        """The cursor is '<shard>:<era>:<cursor of ZSCAN>'."""
        shard, era, inner = cursor.split(":") if cursor else ("0", "", "0")
        at = int(shard)
        found: list[DueId] = []
        while at < len(self._shards) and len(found) < limit:
            call = (self._clock(), owner, max(1, limit), inner, era)
            following, present, rows = self._redis.run("scan", [(at, call)])[0]
            found += scored(rows)
            inner, era = following.decode(), present.decode()
            if inner == "0":
                at, era = at + 1, ""
        return found, f"{at}:{era}:{inner}" if at < len(self._shards) else ""

    def get(self, msg_ids: Sequence[str]) -> list[Stored | None]:
        by_shard = self._by_shard(msg_ids)
        commands = [records(shard, [msg_ids[i] for i in at]) for shard, at in by_shard.items()]
        raws = in_order(by_shard, self._redis.read(commands))
        return [
            None if raw is None else stored_of(msg_id, raw)
            for msg_id, raw in zip(msg_ids, raws, strict=True)
        ]

    def totals(self) -> Totals:
        counts = Counter[str]()
        for reply in self._redis.read(self._everywhere("HGETALL", "n")):
            for name, value in pairs(reply):
                counts[name.decode()] += int(value)
        return Totals(
            pending=_by_owner(self._redis.run("owners", self._on_all(""))),
            scheduled=counts["scheduled"],
            succeeded=counts["succeeded"],
            cancelled=counts["cancelled"],
            dead=counts["dead"],
            attempts=counts["attempts"],
            redriven=counts["redriven"],
        )

    def _command_head(self) -> tuple[Arg, ...]:
        return (
            self._clock(),
            self._retention_ms,
            self._early_ms,
            ID_AHEAD_MS,
            self._door_ms,
            self._max_waiting,
        )


def _claims(reply: list[Any] | None, msg_ids: Sequence[str], margin_ms: int) -> list[Claim]:
    """Source: a reply of `claim`; None when the shard did not answer."""
    if reply is None:
        return [_UNKNOWN] * len(msg_ids)
    life, free_at = reply[0].decode(), reply[1] + margin_ms
    return [
        claim_of(msg_id, kind, rest, life, free_at)
        for msg_id, (kind, rest) in zip(msg_ids, pairs(reply[2:]), strict=True)
    ]


def _by_owner(replies: Iterable[Sequence[Any] | None]) -> dict[str, int]:
    """Source: replies of `owners`."""
    pending = Counter[str]()
    for reply in replies:
        for owner, count in pairs(reply or ()):
            pending[owner.decode()] += count
    return dict(pending)
