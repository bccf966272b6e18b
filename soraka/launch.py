"""How a process comes up: it heeds signals and shows its health, waits for the servers it needs,
and then works. Servers may start after us: none of them ends a process by being away."""

import atexit
import gc
import logging
import sys
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from typing import Any

import gevent
from gevent.event import Event

from soraka import logs, process
from soraka.config import Config
from soraka.errors import ConfigError, Unavailable
from soraka.message import Instance
from soraka.metrics import Metrics
from soraka.wiring import Parts

log = logging.getLogger(__name__)

REFUSED = 4
"""Exit code of a gunicorn worker after which its master ends too."""
Make = Callable[[Parts, Metrics], Sequence[process.Role]]


def run(
    config: Config,
    make: Make,
    *,
    health: tuple[str, int, str] | None = None,
    up: Callable[[Sequence[process.Role]], None] = lambda _roles: None,
    asked: Event | None = None,
) -> None:
    """Runs the roles that `make` makes until a signal, or until `asked` is set, which is the same.

    They drain in their order, start and stop in its reverse; `up` is called once they run.
    `health` is the address, port and setting of a health server, which is there from the start.
    Raises ConfigError for a wrong setting, OSError for a port that is taken.
    """
    logs.configure(config.process)
    signals, metrics, starting = process.Signals(asked), Metrics(), process.Starting()
    shown: list[process.Role] = [starting]
    with ExitStack() as closing:
        if health is not None:
            host, port, setting = health
            listener = process.listen(host, port, setting, patience_s=process.TAKEN_PORT_S)
            server = process.serve_health(shown, metrics, listener, host)
            closing.callback(server.stop, timeout=0)
        roles = signals.cut(lambda: _come_up(config, make, metrics, starting, closing))
        if roles is not None:
            shown[:] = roles
            up(roles)
            process.run(roles, config.process, signals.asked)
    log.info("process.stopped")


def come_up_parts(config: Config, metrics: Metrics, waiting_for: Callable[[str], object]) -> Parts:
    """The parts, and their clock known. Waits for servers; closes what it has when cut off."""
    parts = process.until_available(lambda: Parts(config, metrics.store_timer), waiting_for)
    try:
        process.until_available(parts.clock.sync, waiting_for)
    except BaseException:
        parts.close()
        raise
    process.keep_clock(parts.clock)
    return parts


class Late:
    """In the place of what needs servers that may be away: Unavailable until `is_` there."""

    def __init__(self) -> None:
        self._made: Any = None
        self.waits_for = "start"

    def is_(self, made: object) -> None:
        self._made = made

    def waiting_for(self, port: str) -> None:
        self.waits_for = port

    def __getattr__(self, name: str) -> Any:
        if self._made is None:
            raise Unavailable(f"starting: waiting for the {self.waits_for}")
        found = getattr(self._made, name)
        setattr(self, name, found)  # the next time it is found at once
        return found


class Background:
    """Comes up in a greenlet of a gunicorn worker: a server that is away must not keep it from
    saying so. `open_` gets the parts once they are there; then the instance is announced.
    `metrics` are those of the process."""

    def __init__(
        self,
        config: Config,
        instance: Instance,
        metrics: Metrics,
        waiting_for: Callable[[str], object],
        open_: Callable[[Parts], object],
    ) -> None:
        self._config = config
        self._instance = instance
        self._metrics = metrics
        self._waiting_for = waiting_for
        self._open = open_
        self._parts: Parts | None = None
        self._coming = gevent.spawn(self._come_up)

    def leave(self, stop: Callable[[], object] = lambda: None) -> None:
        """Withdraws the announcement, beside `stop`: a registry that is away takes its time."""
        log.info("process.draining")
        self._coming.kill()
        leaving = []
        if self._parts is not None:
            leaving.append(gevent.spawn(self._parts.registry.unregister, self._instance))
        stop()
        gevent.joinall(leaving, timeout=1)

    def close(self, last: Callable[[], object] = lambda: None) -> None:
        """Closes the parts, after `last`."""
        last()
        if self._parts is not None:
            self._parts.close()
        log.info("process.stopped")

    def _come_up(self) -> None:
        try:
            self._parts = parts = come_up_parts(self._config, self._metrics, self._waiting_for)
        except (ConfigError, OSError) as exc:
            print(f"Error: {exc}", file=sys.stderr, flush=True)
            sys.exit(REFUSED)
        self._open(parts)
        process.announce(parts.registry, self._instance)
        _forget_what_stays()


def _come_up(
    config: Config,
    make: Make,
    metrics: Metrics,
    starting: process.Starting,
    closing: ExitStack,
) -> Sequence[process.Role]:
    parts = come_up_parts(config, metrics, starting.waiting_for)
    closing.callback(parts.close)
    metrics.show_skew(parts.clock.skew_ms)
    roles = process.until_available(lambda: make(parts, metrics), starting.waiting_for)
    for role in roles:
        closing.callback(role.stop)
    for role in reversed(roles):
        role.start()
    _look_for_garbage_seldom()
    return roles


def _look_for_garbage_seldom() -> None:
    """Next to nothing here is in cycles; looking for them after each 700 objects, and at all that
    was made so far, takes 3 % of a busy process. Not for those that hold bodies of megabytes."""
    _forget_what_stays()
    gc.set_threshold(20_000, 20, 20)


def _forget_what_stays() -> None:
    """For the search for garbage."""
    gc.collect()
    gc.freeze()
    atexit.register(gc.unfreeze)  # or at the end all that goes last, and calls what is gone already
