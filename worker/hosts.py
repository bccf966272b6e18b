"""Connections to callback hosts: opened, kept alive, used again, closed.

Each call has a connection of its own, so one that hangs hurts no other. Between calls it lies
idle here, per origin, the last used first; what lies too long is closed.
"""

import select
import socket
import time
from collections import OrderedDict
from contextlib import suppress

import gevent
from gevent import monkey

from soraka.destinations import Destinations
from worker.dns import Address, Resolver
from worker.request import Origin
from worker.trust import Trust

# the plain one: it asks and never waits; gevent's makes watchers, select() fails past fd 1023
_Poll = monkey.get_original("select", "poll")


class Denied(Exception):
    """Nothing may be called there; the text is for people."""


class _Idle:
    __slots__ = ("sock", "until")

    def __init__(self, sock: socket.socket, until: float) -> None:
        self.sock = sock
        self.until = until


class Hosts:
    """`destinations` says where to, `trust` whom to believe under TLS. Seconds throughout."""

    def __init__(
        self,
        *,
        resolver: Resolver,
        destinations: Destinations,
        trust: Trust,
        max_idle: int = 1000,
        max_hosts: int = 500,
        reap_every_s: float = 5.0,
    ) -> None:
        self._resolver = resolver
        self._destinations = destinations
        self._trust = trust
        self._max_idle = max_idle
        self._max_hosts = max_hosts
        self._reap_every_s = reap_every_s
        self._idle: OrderedDict[Origin, list[_Idle]] = OrderedDict()
        self._count = 0
        self._reaper: gevent.Greenlet[..., None] | None = None
        self._closed = False

    @property
    def idle(self) -> int:
        """Connections that lie here."""
        return self._count

    def take(self, origin: Origin) -> socket.socket | None:
        """An idle connection, unless none is left that the server has not closed."""
        idles = self._idle.get(origin)
        now = time.monotonic()
        while idles:
            idle = idles.pop()
            self._count -= 1
            if idle.until > now and _is_quiet(idle.sock):
                return idle.sock
            _close(idle.sock)
        return None

    def give(self, origin: Origin, sock: socket.socket, keep_s: float) -> None:
        """Lays a connection by, for at most `keep_s`; closes it when that is not more than 0."""
        if keep_s <= 0 or self._closed:
            _close(sock)
            return
        self._idle.setdefault(origin, []).append(_Idle(sock, time.monotonic() + keep_s))
        self._idle.move_to_end(origin)
        self._count += 1
        while len(self._idle) > self._max_hosts or self._count > self._max_idle:
            self._forget_oldest_host()
        if self._reaper is None:
            self._reaper = gevent.spawn(self._reap)

    def open(self, origin: Origin, limit_s: float) -> socket.socket:
        """A new connection. Raises Denied, OSError, ssl.SSLError too.

        Tries one address after the other, each for its share of `limit_s`; as a look-up and a
        handshake have no limit of their own, call it under a timeout.
        """
        addresses = self._allowed(origin.host)
        deadline = time.monotonic() + limit_s
        sock = _connect(addresses, origin.port, deadline)
        return self._secured(sock, origin.host) if origin.scheme == "https" else sock

    def close(self) -> None:
        """Closes what lies idle, and what is laid by from now on. Safe to repeat."""
        self._closed = True
        while self._idle:
            self._forget_oldest_host()
        if self._reaper is not None:
            self._reaper.kill()

    def _allowed(self, host: str) -> list[Address]:
        """Looked up once: these are checked and connected to, whatever the next answer will be."""
        rules = self._destinations
        if why := rules.why_host_denied(host):
            raise Denied(why)
        found = self._resolver.addresses(host)
        whys = [rules.why_address_denied(address[0]) for _, address in found]
        allowed = [address for address, why in zip(found, whys, strict=True) if why is None]
        if not allowed:
            raise Denied(f"{whys[0]}: address of {host}")
        return allowed

    def _secured(self, sock: socket.socket, host: str) -> socket.socket:
        try:
            secured = self._trust.context(host).wrap_socket(
                sock, server_hostname=host, do_handshake_on_connect=False
            )
        except BaseException:
            _close(sock)
            raise
        try:
            secured.do_handshake()
        except BaseException:
            _close(secured)
            raise
        return secured

    def _forget_oldest_host(self) -> None:
        _, idles = self._idle.popitem(last=False)
        self._count -= len(idles)
        for idle in idles:
            _close(idle.sock)

    def _reap(self) -> None:
        while self._idle:
            gevent.sleep(self._reap_every_s)
            now = time.monotonic()
            for origin, idles in list(self._idle.items()):
                kept = [idle for idle in idles if idle.until > now]
                for idle in idles:
                    if idle.until <= now:
                        _close(idle.sock)
                self._count -= len(idles) - len(kept)
                if kept:
                    self._idle[origin] = kept
                else:
                    del self._idle[origin]
        self._reaper = None


def _connect(addresses: list[Address], port: int, deadline: float) -> socket.socket:
    error: OSError = OSError("no address")
    for left, (family, address) in zip(range(len(addresses), 0, -1), addresses, strict=True):
        sock = socket.socket(family, socket.SOCK_STREAM)
        try:
            # the last one may take what is left: the timeout of the call ends it
            sock.settimeout(max(deadline - time.monotonic(), 0.001) / left if left > 1 else None)
            sock.connect((address[0], port, *address[2:]))
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            sock.settimeout(None)
            return sock
        except OSError as exc:
            _close(sock)
            error = exc
        except BaseException:
            _close(sock)
            raise
    raise error


def _is_quiet(sock: socket.socket) -> bool:
    """Nothing to read, so neither closed by the server nor left with bytes of an old answer."""
    poll = _Poll()
    poll.register(sock.fileno(), select.POLLIN | select.POLLHUP | select.POLLERR)
    return not poll.poll(0)


def _close(sock: socket.socket) -> None:
    with suppress(OSError):
        sock.close()
