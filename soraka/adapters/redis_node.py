"""One Redis server, and which server holds a shard."""

import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from redis.backoff import NoBackoff
from redis.connection import AbstractConnection, Connection, SSLConnection
from redis.exceptions import ConnectionError as RedisConnectionError
from redis.exceptions import MovedError
from redis.exceptions import TimeoutError as RedisTimeoutError
from redis.retry import Retry

from soraka.adapters.redis_pool import Pool
from soraka.tls import Context, connected

Arg = str | bytes | int
Command = Sequence[Arg]
Options = dict[str, Any]
"""What a connection of redis-py is made with; and `secured`, the context of TLS."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """Of one server. A call waits up to `timeout_ms` for each of: a connection of the pool, to
    connect, an answer. One that gave none in time is not asked again for `rest_ms`, so that it
    delays only a few of the calls that go to others as well."""

    timeout_ms: int
    max_connections: int
    rest_ms: int = 0

    def options(self) -> Options:
        return {
            "socket_timeout": self.timeout_ms / 1000,
            "socket_connect_timeout": self.timeout_ms / 1000,
            # A claim sent twice answers BUSY to its own lease, so nothing is repeated here. A
            # connection that the server closed is seen when it is taken from the pool.
            "retry": Retry(NoBackoff(), 0),
            "protocol": 2,
        }


class _Secured(SSLConnection):
    """redis-py's own makes a context for each connection, which takes long, and which trusts the
    CAs of the system beside the one it is given."""

    def __init__(self, *, secured: Context, **options: Any) -> None:
        self._secured = secured
        super().__init__(**options)

    def _wrap_socket_with_ssl(self, sock: Any) -> Any:
        return connected(sock, self._secured, self.host)


class Resting(RedisTimeoutError):
    """It gave no answer a moment ago, and was not asked."""


class Node:
    """A server and its connections; connects at the first use."""

    def __init__(self, options: Options, limits: Limits) -> None:
        self.host = str(options.get("host", "localhost"))
        self.address = str(options.get("path") or f"{self.host}:{options.get('port', 6379)}")
        self._secured: Context | None = options.get("secured")
        kind, given = _connection(options)
        given = {**limits.options(), **given}
        self._pool = Pool(lambda: kind(**given), limits.max_connections, limits.timeout_ms / 1000)
        self._rest_s = limits.rest_ms / 1000
        self._rests_until = float("-inf")

    @property
    def resting(self) -> bool:
        return time.monotonic() < self._rests_until

    def send(self, commands: Sequence[Command]) -> list[Any]:
        """One reply each, in one round trip; a ResponseError where the server refused. Raises
        RedisError or OSError."""
        if self.resting:
            raise Resting(f"{self.address} did not answer a moment ago")
        try:
            return self._send(commands)
        except RedisTimeoutError:
            self._rests_until = time.monotonic() + self._rest_s
            raise

    def _send(self, commands: Sequence[Command]) -> list[Any]:
        try:
            return self._pool.ask(commands)
        except ValueError as exc:  # so gevent says that a socket was closed under its reader
            raise RedisConnectionError(f"{self.address} was left: {exc}") from exc
        except (RedisConnectionError, RedisTimeoutError) as exc:
            if self._secured is not None and (why := self._secured.why(exc)):
                raise type(exc)(f"{self.address}: {why}") from exc
            raise

    def retire(self) -> None:
        """Calls under way go on; those that come later connect anew."""
        self._pool.retire()

    def close(self) -> None:
        """Calls under way fail. Safe to repeat."""
        self._pool.close()


def _connection(options: Options) -> tuple[type[AbstractConnection], Options]:
    """Of which kind, and what it is made with."""
    if options.get("secured") is not None:
        return _Secured, {k: v for k, v in options.items() if k != "connection_class"}
    kind: type[AbstractConnection] = options.get("connection_class", Connection)
    return kind, {k: v for k, v in options.items() if k not in ("connection_class", "secured")}


class Topology(Protocol):
    """Which server holds a shard now. `together`: one script may work on several shards, for all
    are at one server."""

    together: bool

    def locate(self, shards: Iterable[int]) -> Mapping[int, Node]:
        """Those that are known. Raises RedisError or OSError when there is no knowing."""

    def moved(self, shard: int, by: Node, error: MovedError) -> None:
        """`by` says that the shard is elsewhere."""

    def look_again(self) -> None:
        """A server did not answer, or is no master: before the next call."""

    def close(self) -> None:
        """Safe to repeat."""


class OneNode:
    """The topology of a single server."""

    together = True

    def __init__(self, node: Node) -> None:
        self._node = node

    def locate(self, shards: Iterable[int]) -> Mapping[int, Node]:
        return dict.fromkeys(shards, self._node)

    def moved(self, shard: int, by: Node, error: MovedError) -> None:
        pass

    def look_again(self) -> None:
        pass

    def close(self) -> None:
        self._node.close()
