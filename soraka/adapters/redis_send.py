"""Sends commands to the servers of their shards."""

from collections.abc import Iterable, Sequence
from typing import Any

import gevent
from redis.exceptions import (
    BusyLoadingError,
    ClusterDownError,
    MovedError,
    ReadOnlyError,
    RedisError,
)

from soraka.adapters.redis_node import Command, Node, Resting, Topology


class Nowhere(RedisError):
    """No server has the shard, as far as is known: nothing was sent."""


MOVES = 5
"""How often a command follows its shard from server to server."""
_LOST = (ReadOnlyError, ClusterDownError)
_AWAY = (Nowhere, Resting, BusyLoadingError, MovedError, ClusterDownError)


def send(topology: Topology, commands: Sequence[tuple[int, Command]]) -> list[Any]:
    """Sends each command to the server of its shard: one round trip per server, all servers at
    once. One reply each, or what went wrong: a RedisError or an OSError.

    MOVED means that it was not executed, so it alone goes on to where the shard is now. ASK,
    which is said of a shard that is just being moved, stays an error: a script would find a part
    of its keys at either server, and take the others for lacking.
    """
    sending = _Sending(topology, commands)
    left: Sequence[int] = range(len(commands))
    for _ in range(MOVES):
        sending.once(left)
        left = [i for i in left if isinstance(sending.replies[i], MovedError)]
        if not left:
            return sending.replies
    topology.look_again()
    return sending.replies


def surely_not_run(error: Exception) -> bool:
    """Of an error that `send` gave: whether the server never began with that command because it
    is away. False also when it cannot be told."""
    return isinstance(error, _AWAY) or isinstance(error.__context__, ConnectionRefusedError)


class _Sending:
    def __init__(self, topology: Topology, commands: Sequence[tuple[int, Command]]) -> None:
        self.replies: list[Any] = [None] * len(commands)
        self._topology = topology
        self._commands = commands

    def once(self, which: Iterable[int]) -> None:
        groups = self._by_node(which)
        if len(groups) == 1:
            self._ask(*groups.popitem())
            return
        asking = [gevent.spawn(self._ask, node, at) for node, at in groups.items()]
        try:
            gevent.joinall(asking, raise_error=True)
        finally:
            # Those left when the caller gives up: nobody will read their answers.
            gevent.killall(asking, block=False)

    def _by_node(self, which: Iterable[int]) -> dict[Node, list[int]]:
        """Node -> indexes of its commands."""
        groups: dict[Node, list[int]] = {}
        try:
            where = self._topology.locate({self._commands[i][0] for i in which})
        except (RedisError, OSError) as exc:
            self._put(which, Nowhere(str(exc)))
            return groups
        for i in which:
            shard = self._commands[i][0]
            if shard in where:
                groups.setdefault(where[shard], []).append(i)
            else:
                self.replies[i] = Nowhere(f"no server has shard {shard}")
                self._topology.look_again()
        return groups

    def _ask(self, node: Node, at: Sequence[int]) -> None:
        try:
            answers = node.send([self._commands[i][1] for i in at])
        except (RedisError, OSError) as exc:
            self._put(at, exc)
            self._topology.look_again()
            return
        for i, answer in zip(at, answers, strict=True):
            self.replies[i] = answer
            if isinstance(answer, MovedError):
                self._topology.moved(self._commands[i][0], node, answer)
            elif isinstance(answer, _LOST):
                self._topology.look_again()

    def _put(self, at: Iterable[int], error: Exception) -> None:
        for i in at:
            self.replies[i] = error
