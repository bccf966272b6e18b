"""Lua scripts and plain commands on the shards, one round trip per server for a call."""

import hashlib
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import msgspec
from redis.exceptions import (
    AskError,
    AuthenticationError,
    ClusterCrossSlotError,
    MovedError,
    NoPermissionError,
    NoScriptError,
    RedisError,
    ResponseError,
    TryAgainError,
)

from soraka.adapters.redis_ids import full, short
from soraka.adapters.redis_node import Arg, Command, Topology
from soraka.adapters.redis_record import wrong_layout
from soraka.adapters.redis_send import send
from soraka.errors import StoreUnavailable

OwnArg = str | int | msgspec.Raw
"""Bytes as `as_text`."""
OwnArgs = Mapping[int, Sequence[OwnArg]]
"""Shard -> arguments for it alone; not empty."""
_Call = tuple[Sequence[int], Sequence[Arg]]
"""Shards of one server, and all arguments."""
_LUA = Path(__file__).parent / "lua"
# Each script, whether it may run when Redis is full, and what is sent in front of it.
_PARTS = {
    "schedule": ("#!lua", ("common", "shards", "era", "apply")),
    "command": ("#!lua flags=allow-oom", ("common", "shards", "apply")),
    "claim": ("#!lua flags=allow-oom", ("common", "shards", "era")),
    "settle": ("#!lua flags=allow-oom", ("common", "shards")),
    "assign": ("#!lua flags=allow-oom", ("common", "shards")),
    "rewind": ("#!lua flags=allow-oom", ("common",)),
    "adopt": ("#!lua flags=allow-oom", ("common",)),
    "life": ("#!lua flags=allow-oom", ("common", "era")),
    "vouch": ("#!lua flags=allow-oom", ("common", "era")),
    "owners": ("#!lua flags=allow-oom", ("common",)),
    "search": ("#!lua flags=allow-oom", ("common",)),
    "correct": ("#!lua flags=allow-oom", ("common", "listing")),
    "tidy": ("#!lua flags=allow-oom", ("common", "listing")),
    "counts": ("#!lua flags=allow-oom", ("common",)),
    "backlog": ("#!lua flags=allow-oom", ("common",)),
    "keep": ("#!lua flags=allow-oom", ("common",)),
    "keep_keys": ("#!lua", ("common", "shards")),
    "add_stats": ("#!lua", ("common",)),
    "scan": ("#!lua flags=allow-oom", ("common", "era")),
}


def load_scripts(directory: Path = _LUA) -> dict[str, str]:
    """The sources as they are sent, by name."""
    return {
        name: "\n".join([shebang, *((directory / f"{p}.lua").read_text() for p in (*parts, name))])
        for name, (shebang, parts) in _PARTS.items()
    }


def prefix(shard: int) -> str:
    """Of all keys of a shard; its braces keep them in one slot of a cluster."""
    return f"{{{shard}}}:"


def records(shard: int, msg_ids: Iterable[str]) -> tuple[int, Command]:
    """What reads the records of messages of that shard."""
    return shard, ("MGET", *[b"{%d}:m:%b" % (shard, short(msg_id)) for msg_id in msg_ids])


def as_text(data: bytes) -> msgspec.Raw:
    """The cmsgpack of Redis reads texts, but no binaries."""
    size = len(data)
    if size < 1 << 8:
        return msgspec.Raw(b"\xd9%c%b" % (size, data))
    if size < 1 << 16:
        return msgspec.Raw(b"\xda" + size.to_bytes(2) + data)
    return msgspec.Raw(b"\xdb" + size.to_bytes(4) + data)


_pack = msgspec.msgpack.Encoder().encode


class RedisScripts:
    """Runs scripts and commands. Whatever Redis refuses is StoreUnavailable."""

    def __init__(self, topology: Topology, sources: Mapping[str, str]) -> None:
        self._topology = topology
        self._sources = sources
        self._shas = {
            name: hashlib.sha1(source.encode(), usedforsecurity=False).hexdigest()
            for name, source in sources.items()
        }

    def run(self, name: str, calls: Sequence[tuple[int, Sequence[Arg]]]) -> list[Any]:
        """Runs a script once per (shard, arguments); one reply each, in order. Raises
        StoreUnavailable when one of them failed; the others may have had their effect."""
        return _all(self._run(name, _alone(calls)))

    def run_some(self, name: str, calls: Sequence[tuple[int, Sequence[Arg]]]) -> list[Any]:
        """As `run`, with None for those that failed; raises StoreUnavailable when all did."""
        return _some(self._run(name, _alone(calls)))

    def attempt(self, name: str, calls: Sequence[tuple[int, Sequence[Arg]]]) -> list[Any]:
        """As `run`, with a RedisError or an OSError for those that failed."""
        return self._run(name, _alone(calls))

    def run_each(self, name: str, common: Sequence[Arg], own: OwnArgs) -> list[Any]:
        """As `run`, for a script with `lua/shards.lua`: `common` arguments and each shard's own.
        One reply for each shard; but one call for all of them, where they may share one."""
        return _all(self._run_each(name, common, own))

    def run_each_some(self, name: str, common: Sequence[Arg], own: OwnArgs) -> list[Any]:
        """As `run_some`."""
        return _some(self._run_each(name, common, own))

    def read(self, commands: Sequence[tuple[int, Command]]) -> list[Any]:
        """Plain commands, each on its shard; one reply each. Raises as `run`."""
        return _all(send(self._topology, commands))

    def read_some(self, commands: Sequence[tuple[int, Command]]) -> list[Any]:
        """As `run_some`."""
        return _some(send(self._topology, commands))

    def addresses(self, shards: Sequence[int]) -> list[str]:
        """Where these shards were last known to be; '' for those that are nowhere."""
        try:
            where = self._topology.locate(shards)
        except (RedisError, OSError) as exc:
            raise _unavailable(exc) from exc
        return [where[shard].address if shard in where else "" for shard in shards]

    def close(self) -> None:
        self._topology.close()

    def _run_each(self, name: str, common: Sequence[Arg], own: OwnArgs) -> list[Any]:
        shards = list(own)
        groups = [shards] if self._topology.together else [[shard] for shard in shards]
        replies = self._run_groups(name, common, own, groups)
        if len(groups) == 1 and len(shards) > 1 and _is_of_a_record(replies[0]):
            # the others need not fail with the shard that has it
            replies = self._run_groups(name, common, own, [[shard] for shard in shards])
        return replies

    def _run_groups(
        self, name: str, common: Sequence[Arg], own: OwnArgs, groups: Sequence[Sequence[int]]
    ) -> list[Any]:
        calls: list[_Call] = [
            (group, [*common, *(_pack(own[shard]) for shard in group)]) for group in groups
        ]
        replies: list[Any] = []
        for group, reply in zip(groups, self._run(name, calls), strict=True):
            replies += [reply] * len(group) if isinstance(reply, Exception) else reply
        return replies

    def _run(self, name: str, calls: Sequence[_Call]) -> list[Any]:
        """Those that found the script missing (a restart, a fail-over) did nothing; they alone
        are sent again with the script."""
        sha, source = self._shas[name], self._sources[name]
        replies = self._send("EVALSHA", sha, calls)
        missing = [i for i, reply in enumerate(replies) if isinstance(reply, NoScriptError)]
        if missing:
            again = self._send("EVAL", source, [calls[i] for i in missing])
            for i, reply in zip(missing, again, strict=True):
                replies[i] = reply
        return replies

    def _send(self, how: str, script: str, calls: Sequence[_Call]) -> list[Any]:
        commands = [
            (shards[0], (how, script, len(shards), *map(prefix, shards), *args))
            for shards, args in calls
        ]
        return send(self._topology, commands)


def _is_of_a_record(reply: object) -> bool:
    """Whether a script failed because it cannot read one."""
    return isinstance(reply, ResponseError) and str(reply).startswith("LAYOUT ")


def _alone(calls: Sequence[tuple[int, Sequence[Arg]]]) -> list[_Call]:
    return [((shard,), args) for shard, args in calls]


def _all(replies: list[Any]) -> list[Any]:
    for reply in replies:
        if isinstance(reply, Exception):
            raise _unavailable(reply) from reply
    return replies


def _some(replies: list[Any]) -> list[Any]:
    failed = [reply for reply in replies if isinstance(reply, Exception)]
    if not failed:
        return replies
    if len(failed) == len(replies):
        raise _unavailable(failed[0]) from failed[0]
    return [None if isinstance(reply, Exception) else reply for reply in replies]


def _unavailable(error: Exception) -> StoreUnavailable:
    if isinstance(error, MovedError | ClusterCrossSlotError):
        return StoreUnavailable(f"redis: {error}; for a cluster store.redis_mode must say so")
    if isinstance(error, AskError | TryAgainError):
        return StoreUnavailable("redis: a shard is just being moved to another server")
    if isinstance(error, AuthenticationError):
        return StoreUnavailable(f"redis: the user or password of store.url: {error}")
    if isinstance(error, NoPermissionError):
        return StoreUnavailable(f"redis: the user of store.url may not do all it has to: {error}")
    if _is_of_a_record(error):
        # Redis adds which script it was
        _, layout, short_id = str(error).partition(" script: ")[0].split(" ", 2)
        told = f"{full(short_id.encode())} has {wrong_layout(int(layout))}"
        return StoreUnavailable(f"redis: the record of message {told}")
    return StoreUnavailable(f"redis: {error}")
