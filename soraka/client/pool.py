"""Idle connections to one server, each used by one caller at a time."""

from collections.abc import Callable
from ssl import SSLEOFError, SSLZeroReturnError
from typing import Generic, Protocol, TypeVar

MAX_IDLE = 32
_CLOSED = (ConnectionError, SSLEOFError, SSLZeroReturnError)
"""What a connection gives that the server has closed; those of ssl are no ConnectionErrors."""
T = TypeVar("T")


class Closable(Protocol):
    def close(self) -> object: ...


C = TypeVar("C", bound=Closable)


class Pool(Generic[C]):
    """Safe for use by threads and greenlets. After any failure the connection is closed: the next
    answer on it could be that of the call that failed."""

    def __init__(self, connect: Callable[[], C]) -> None:
        self._connect = connect
        self._idle: list[C] = []

    def use(self, act: Callable[[C], T]) -> T:
        """What `act` gives. It is called twice when an idle connection turns out to have been
        closed by the server: what it sends must be fit to be sent again."""
        while True:
            connection, reused = self._take()
            try:
                answer = act(connection)
            except BaseException as exc:
                connection.close()
                if reused and isinstance(exc, _CLOSED):
                    continue
                raise
            self._give_back(connection)
            return answer

    def close(self) -> None:
        """Safe to repeat."""
        while self._idle:
            self._idle.pop().close()

    def _take(self) -> tuple[C, bool]:
        try:
            return self._idle.pop(), True
        except IndexError:
            return self._connect(), False

    def _give_back(self, connection: C) -> None:
        if len(self._idle) < MAX_IDLE:
            self._idle.append(connection)
        else:
            connection.close()
