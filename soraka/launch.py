"""How a process comes up: it heeds signals and shows its health, waits for the servers it needs,
and then works. Servers may start after us: none of them ends a process by being away."""

import logging
from collections.abc import Callable, Sequence
from contextlib import ExitStack

from gevent.event import Event

from soraka import logs, process
from soraka.config import Config
from soraka.metrics import Metrics
from soraka.wiring import Parts

log = logging.getLogger(__name__)

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
    return roles
