"""Asks several servers where things are."""

import math
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import Any, TypeVar

import gevent
from gevent.lock import BoundedSemaphore
from redis.exceptions import AuthenticationError, RedisError

from soraka.adapters.redis_node import Command, Node

T = TypeVar("T")
SECONDS_BETWEEN = 0.1


class Lookup:
    """Calls `look` when what it found is stale: once for all who wait, and not too often.

    What is older than `fresh_s` is looked for again behind the back of the caller, who goes on with
    what is known, also when that look fails.
    """

    def __init__(self, look: Callable[[], None], fresh_s: float = math.inf) -> None:
        self._look = look
        self._fresh_s = fresh_s
        self._refreshing = False
        self._lock = BoundedSemaphore(1)
        self._stale = True
        self._found = False
        self._looked = float("-inf")
        self._error: RedisError | None = None

    def expire(self) -> None:
        self._stale = True

    def ensure(self) -> None:
        """Raises what the last look raised, if nothing has been found since."""
        if self._must_look():
            with self._lock:
                if self._must_look() and time.monotonic() - self._looked > SECONDS_BETWEEN:
                    self._try()
        elif not self._refreshing and time.monotonic() - self._looked > self._fresh_s:
            self._refreshing = True
            gevent.spawn(self._refresh)
        if self._error is not None:
            raise self._error

    def _must_look(self) -> bool:
        return self._stale or not self._found

    def _refresh(self) -> None:
        try:
            with suppress(RedisError):
                self._look()
        finally:
            self._looked = time.monotonic()
            self._refreshing = False

    def _try(self) -> None:
        self._stale, self._error = False, None  # what makes it stale during the look counts
        try:
            self._look()
            self._found = True
        except RedisError as exc:
            self._stale, self._error = True, exc
        except BaseException:  # cut short: the caller's time is up, or it is ended
            self._stale = True
            raise
        finally:
            self._looked = time.monotonic()


def first_answer(
    nodes: Sequence[Node],
    command: Command,
    read: Callable[[Node, Any], T],
    share: Callable[[T], float] = lambda _: 1.0,
) -> T:
    """Asks all at once and takes the first answer that `read` finds good, so that one which is
    silent delays nothing. `read` raises RedisError for the others. Raises the last of those.

    `share` says how much of the whole an answer has, 0 to 1: without one that has all, the fullest
    is taken, once all have answered.

    The slower ones end by themselves, within their timeouts: to be ended in the middle would cost
    each of them its connection.
    """
    asking = [gevent.spawn(_ask, node, command, read) for node in nodes]
    error = RedisError("no server to ask")
    partial: list[T] = []
    for one in gevent.iwait(asking):
        answer = one.get()
        if isinstance(answer, RedisError):
            error = answer
        elif share(answer) >= 1:
            return answer
        else:
            partial.append(answer)
    if partial:
        return max(partial, key=share)
    raise error


def _ask(node: Node, command: Command, read: Callable[[Node, Any], T]) -> T | RedisError:
    try:
        (reply,) = node.send([command])
        if isinstance(reply, RedisError):
            raise reply
        return read(node, reply)
    except AuthenticationError as exc:
        return AuthenticationError(f"{node.address}: {exc}")
    except RedisError as exc:
        return RedisError(f"{node.address}: {exc}")
    except OSError as exc:
        return RedisError(f"{node.address}: {exc}")
