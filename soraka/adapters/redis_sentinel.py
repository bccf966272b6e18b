"""One master that sentinels watch over, wherever it is now."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from redis.exceptions import AuthenticationError, MovedError, RedisError
from redis.exceptions import ConnectionError as RedisConnectionError

from soraka.adapters.redis_lookup import Lookup, first_answer
from soraka.adapters.redis_node import Limits, Node, Options

FRESH_S = 0.5


class SentinelTopology:
    """Asks the sentinels at the first use, after each failure, and now and then: when they are told
    to change masters, the old one goes on for some 10 s, and what it takes is lost after all.

    Every new connection is asked for its role, since the address that a sentinel names may be
    that of a master no more. A master cut off from its sentinels, with clients on its side, goes on
    answering them: `min-replicas-to-write 1` on the servers bounds that.
    """

    together = True

    def __init__(
        self, sentinels: Sequence[Options], master: str, options: Options, limits: Limits
    ) -> None:
        self._sentinels = [
            Node(each, Limits(timeout_ms=limits.timeout_ms, max_connections=4))
            for each in sentinels
        ]
        self._master = master
        self._options = {**options, "redis_connect_func": _connect_to_master}
        self._limits = limits
        self._node: Node | None = None
        self._lookup = Lookup(self._look, FRESH_S)

    def locate(self, shards: Iterable[int]) -> Mapping[int, Node]:
        self._lookup.ensure()
        return {} if self._node is None else dict.fromkeys(shards, self._node)

    def moved(self, shard: int, by: Node, error: MovedError) -> None:
        pass

    def look_again(self) -> None:
        self._lookup.expire()

    def close(self) -> None:
        for node in (*self._sentinels, *filter(None, [self._node])):
            node.close()

    def _look(self) -> None:
        command = ("SENTINEL", "GET-MASTER-ADDR-BY-NAME", self._master)
        try:
            host, port = first_answer(self._sentinels, command, self._read)
        except AuthenticationError as exc:
            raise RedisError(
                f"store.sentinel_user, store.sentinel_password: not those of the sentinels: {exc}"
            ) from exc
        if self._node is not None and self._node.address == f"{host}:{port}":
            return
        if self._node is not None:
            self._node.close()
        self._node = Node({**self._options, "host": host, "port": port}, self._limits)

    def _read(self, _node: Node, reply: Any) -> tuple[str, int]:
        if reply is None:
            raise RedisError(f"knows no master named {self._master}: store.sentinel_master")
        host, port = reply
        return host.decode(), int(port)


def _connect_to_master(connection: Any) -> None:
    connection.on_connect()
    connection.send_command("ROLE")
    role = connection.read_response()[0]
    if role != b"master":
        raise RedisConnectionError(f"{connection.host}:{connection.port} is no master")
