"""Lua scripts and plain commands on Redis, one round trip for all shards of a call."""

import hashlib
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from redis import BlockingConnectionPool, Redis
from redis.backoff import NoBackoff
from redis.exceptions import NoScriptError, RedisError, ResponseError
from redis.retry import Retry

from soraka.errors import StoreUnavailable

_LUA = Path(__file__).parent / "lua"
# Each script, whether it may run when Redis is full, and what is sent in front of it.
_PARTS = {
    "schedule": ("#!lua", ("common", "apply")),
    "command": ("#!lua flags=allow-oom", ("common", "apply")),
    "claim": ("#!lua flags=allow-oom", ("common",)),
    "settle": ("#!lua flags=allow-oom", ("common",)),
    "assign": ("#!lua flags=allow-oom", ("common",)),
    "rewind": ("#!lua flags=allow-oom", ("common",)),
    "owners": ("#!lua flags=allow-oom", ("common",)),
}
Arg = str | bytes | int


def load_scripts(directory: Path = _LUA) -> dict[str, str]:
    """The sources as they are sent, by name."""
    return {
        name: "\n".join([shebang, *((directory / f"{p}.lua").read_text() for p in (*parts, name))])
        for name, (shebang, parts) in _PARTS.items()
    }


class RedisScripts:
    """A pool of connections, and the scripts. Whatever Redis refuses is StoreUnavailable."""

    def __init__(
        self, *, url: str, timeout_ms: int, max_connections: int, sources: Mapping[str, str]
    ) -> None:
        self._sources = sources
        self._shas = {
            name: hashlib.sha1(source.encode(), usedforsecurity=False).hexdigest()
            for name, source in sources.items()
        }
        pool = BlockingConnectionPool.from_url(
            url,
            max_connections=max_connections,
            timeout=timeout_ms / 1000,
            socket_timeout=timeout_ms / 1000,
            socket_connect_timeout=timeout_ms / 1000,
            # A claim sent twice answers BUSY to its own lease, so nothing is repeated here. A
            # connection that the server closed is seen when it is taken from the pool.
            retry=Retry(NoBackoff(), 0),
            protocol=2,
        )
        self._redis = Redis(connection_pool=pool)

    def run(self, name: str, calls: Sequence[tuple[str, Sequence[Arg]]]) -> list[Any]:
        """Runs a script once per (key prefix, arguments); one reply each, in order.

        Those that found the script missing (a restart, a fail-over) did nothing; they alone are
        sent again with the script.
        """
        with store_errors():
            replies = self._send([("EVALSHA", self._shas[name], 1, *_flat(c)) for c in calls])
            missing = [i for i, r in enumerate(replies) if isinstance(r, NoScriptError)]
            if missing:
                source = self._sources[name]
                again = self._send([("EVAL", source, 1, *_flat(calls[i])) for i in missing])
                for i, reply in zip(missing, again, strict=True):
                    replies[i] = reply
            return _checked(replies)

    def read(self, commands: Sequence[tuple[Arg, ...]]) -> list[Any]:
        """Plain commands, one reply each."""
        with store_errors():
            return _checked(self._send(commands))

    def close(self) -> None:
        self._redis.close()
        self._redis.connection_pool.disconnect()

    def _send(self, commands: Sequence[tuple[Arg, ...]]) -> list[Any]:
        if not commands:
            return []
        pipe = self._redis.pipeline(transaction=False)
        for command in commands:
            pipe.execute_command(*command)
        return pipe.execute(raise_on_error=False)


@contextmanager
def store_errors() -> Iterator[None]:
    try:
        yield
    except (RedisError, OSError) as exc:
        raise StoreUnavailable(f"redis: {exc}") from exc


def _flat(call: tuple[str, Sequence[Arg]]) -> Sequence[Arg]:
    prefix, args = call
    return (prefix, *args)


def _checked(replies: list[Any]) -> list[Any]:
    for reply in replies:
        if isinstance(reply, ResponseError):
            raise reply
    return replies
