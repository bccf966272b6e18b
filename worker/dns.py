"""Host names to addresses, remembered, with few look-ups under way.

gevent looks names up on the ten threads of its hub, which everything in the process shares: a
few slow names would stall all else. So answers are kept, an old one is used while a new one is
fetched, callers of one name share a look-up, and look-ups take at most eight of the threads.
"""

import socket
import time
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass
from ipaddress import ip_address
from typing import Any

import gevent
from gevent.event import AsyncResult
from gevent.lock import Semaphore

Address = tuple[int, tuple[Any, ...]]
"""Family and socket address, the port in it 0."""
LookUp = Callable[..., list[tuple[Any, ...]]]

MAX_ADDRESSES = 4
MAX_WAITING = 1000


@dataclass(slots=True)
class _Known:
    """`error` instead of addresses for a name that is not there. Times are monotonic seconds."""

    addresses: list[Address]
    error: OSError | None
    fresh_until: float
    stale_until: float


@dataclass(slots=True)
class _Asked:
    result: "AsyncResult[list[Address]]"
    waiting: int = 0


class Resolver:
    """Times in seconds. `look_up` has the form of socket.getaddrinfo."""

    def __init__(
        self,
        *,
        look_up: LookUp = socket.getaddrinfo,
        ttl_s: float = 30,
        stale_s: float = 300,
        negative_s: float = 1.5,
        max_names: int = 2000,
        max_in_flight: int = 8,
    ) -> None:
        self._look_up = look_up
        self._ttl_s = ttl_s
        self._stale_s = stale_s
        self._negative_s = negative_s
        self._max_names = max_names
        self._free = Semaphore(max_in_flight)
        self._known: OrderedDict[str, _Known] = OrderedDict()
        self._asked: dict[str, _Asked] = {}

    def addresses(self, host: str) -> list[Address]:
        """At least one address. Raises OSError (gaierror) when there is none.

        Waits without a limit of its own: call it under a timeout.
        """
        if (literal := _literal(host)) is not None:
            return [literal]
        now = time.monotonic()
        known = self._known.get(host)
        if known is None or now >= known.stale_until:
            return self._ask(host)
        self._known.move_to_end(host)
        if now >= known.fresh_until and host not in self._asked:
            self._start(host).waiting += 1  # nobody waits, but it is wanted
        if known.error is not None:
            # a fresh instance: one raised in many greenlets would grow its traceback for ever
            raise type(known.error)(*known.error.args)
        return known.addresses

    def _ask(self, host: str) -> list[Address]:
        asked = self._asked.get(host) or self._start(host)
        asked.waiting += 1
        try:
            return asked.result.get() or []
        finally:
            asked.waiting -= 1

    def _start(self, host: str) -> _Asked:
        if len(self._asked) >= MAX_WAITING:
            raise OSError("too many look-ups are under way")
        asked = self._asked[host] = _Asked(AsyncResult())
        gevent.spawn(self._fetch, host, asked)
        return asked

    def _fetch(self, host: str, asked: _Asked) -> None:
        with self._free:
            # all who asked may have run out of time while this one queued
            known = self._fetched(host) if asked.waiting else None
        del self._asked[host]
        if known is None:
            asked.result.set_exception(OSError("given up"))
        elif known.error is None:
            asked.result.set(known.addresses)
        else:
            asked.result.set_exception(known.error)

    def _fetched(self, host: str) -> _Known:
        try:
            rows = self._look_up(host, 0, 0, socket.SOCK_STREAM)
            error = None if rows else OSError("no address")
        except (OSError, UnicodeError) as exc:
            rows, error = [], exc if isinstance(exc, OSError) else OSError(str(exc))
        now = time.monotonic()
        old = self._known.get(host)
        if error is not None and old is not None and old.error is None and now < old.stale_until:
            old.fresh_until = now + self._negative_s
            return old
        known = self._made(rows, error, now)
        self._known[host] = known
        while len(self._known) > self._max_names:
            self._known.popitem(last=False)
        return known

    def _made(self, rows: list[tuple[Any, ...]], error: OSError | None, now: float) -> _Known:
        if error is not None:
            return _Known([], error, now + self._negative_s, now + self._negative_s)
        addresses = [(row[0], row[4]) for row in rows[:MAX_ADDRESSES]]
        fresh_until = now + self._ttl_s
        return _Known(addresses, None, fresh_until, fresh_until + self._stale_s)


def _literal(host: str) -> Address | None:
    if not (host[0].isdigit() or ":" in host):
        return None
    try:
        ip = ip_address(host)
    except ValueError:
        return None
    if ip.version == 4:
        return socket.AF_INET, (host, 0)
    return socket.AF_INET6, (host, 0, 0, 0)
