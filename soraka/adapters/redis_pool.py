"""Connections to one Redis server, made and spoken to with those of redis-py.

Its own pool and pipeline take 60 us of each round trip, which is as much as a batch of claims.
"""

import select
from collections.abc import Callable, Sequence
from typing import Any

from gevent import monkey
from gevent.lock import BoundedSemaphore
from redis.connection import AbstractConnection
from redis.exceptions import ConnectionError as RedisConnectionError
from redis.exceptions import ResponseError

# the plain one: it asks and never waits; gevent's makes watchers, select() fails past fd 1023
_Poll = monkey.get_original("select", "poll")


class Pool:
    """At most `most`; one call at a time on each, the last used first. A call waits up to
    `timeout_s` for one."""

    def __init__(self, make: Callable[[], AbstractConnection], most: int, timeout_s: float) -> None:
        self._make = make
        self._timeout_s = timeout_s
        self._places = BoundedSemaphore(most)
        self._free: list[AbstractConnection] = []
        self._all: list[AbstractConnection] = []

    def ask(self, commands: Sequence[Sequence[Any]]) -> list[Any]:
        """One reply each, in one round trip; a ResponseError where the server refused. Raises
        RedisError or OSError."""
        if not self._places.acquire(timeout=self._timeout_s):
            raise RedisConnectionError("all connections are in use")
        try:
            connection = self._free.pop() if self._free else self._new()
            try:
                return _ask(connection, commands)
            except BaseException:  # an answer may be on its way that nobody reads
                connection.disconnect()
                raise
            finally:
                self._free.append(connection)
        finally:
            self._places.release()

    def retire(self) -> None:
        """Calls under way go on; those that come later connect anew."""
        for connection in self._free:
            connection.disconnect()

    def close(self) -> None:
        """Calls under way fail. Safe to repeat."""
        for connection in self._all:
            connection.disconnect()

    def _new(self) -> AbstractConnection:
        connection = self._make()
        self._all.append(connection)
        return connection


def _ask(connection: AbstractConnection, commands: Sequence[Sequence[Any]]) -> list[Any]:
    if _is_left(connection):
        connection.disconnect()
    connection.connect()  # unless it is
    connection.send_packed_command(connection.pack_commands(commands))
    return [_reply(connection) for _ in commands]


def _is_left(connection: AbstractConnection) -> bool:
    """Closed by the server, or with something to read that nobody waits for."""
    sock = connection._sock
    if sock is None:
        return False
    poll = _Poll()
    poll.register(sock.fileno(), select.POLLIN | select.POLLHUP | select.POLLERR)
    return bool(poll.poll(0))


def _reply(connection: AbstractConnection) -> Any:
    try:
        return connection.read_response()
    except ResponseError as exc:
        return exc
