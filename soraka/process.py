"""The life of a process: sockets, health, signals, drain. `launch` puts them together.

SIGTERM or SIGINT drains: each role stops taking, finishes what is in flight up to the limit,
then stops; the process ends with 0. A second signal ends it at once.
"""

import errno
import json
import logging
import signal
import socket
import sys
import time
import uuid
from collections.abc import Callable, Iterable, Sequence
from typing import Any, Protocol, TypeVar

import gevent
from gevent.event import Event
from gevent.server import StreamServer

from soraka import __version__
from soraka.address import at
from soraka.clock import SkewWatch, StoreClock
from soraka.config import ProcessConfig
from soraka.errors import LogUnavailable, RegistryUnavailable, StoreUnavailable, Unavailable
from soraka.http import make_server
from soraka.message import Instance
from soraka.metrics import Metrics
from soraka.ports import Log, Registry, StoreReader

log = logging.getLogger(__name__)

T = TypeVar("T")
Step = Callable[[], object]
PORTS = {LogUnavailable: "log", StoreUnavailable: "store", RegistryUnavailable: "registry"}
TRY_AGAIN_S = 1.0
TAKEN_PORT_S = 3.0
"""A role that is restarted finds its port still taken for a moment."""
STALE_TURN_MS = 10_000
"""A loop that has not turned for so long is not alive."""


class Role(Protocol):
    """A part of soraka that runs in a process."""

    name: str

    def start(self) -> None:
        """Begins to work, in the background."""

    def drain(self, limit_s: float) -> bool:
        """Takes nothing new, waits for what is in flight; False when the limit came first."""

    def stop(self) -> None:
        """Ends at once. Safe to repeat."""

    def turn_ages_ms(self) -> dict[str, int]:
        """Per loop, how long ago it last turned."""

    def down(self) -> list[str]:
        """What it needs and cannot reach now."""


class Turns:
    """When each loop of a role last turned."""

    def __init__(self, *loops: str) -> None:
        now = time.monotonic()
        self._last = dict.fromkeys(loops, now)

    def turn(self, loop: str) -> None:
        self._last[loop] = time.monotonic()

    def ages_ms(self) -> dict[str, int]:
        now = time.monotonic()
        return {loop: int((now - last) * 1000) for loop, last in self._last.items()}


def listen(host: str, port: int, setting: str = "", *, patience_s: float = 0.0) -> socket.socket:
    """A listening TCP socket.

    A port that is taken is tried again for `patience_s`: its last owner may be about to end.
    Raises OSError that names the address, and the `setting` it comes from.
    """
    deadline = time.monotonic() + patience_s
    said = False
    while True:
        try:
            return _bound(host, port)
        except OSError as exc:
            if exc.errno != errno.EADDRINUSE or time.monotonic() > deadline:
                named = f"{setting} = {port}: " if setting else ""
                reason = exc.strerror or str(exc)
                raise OSError(f"{named}{at(host, port)}: {reason}") from exc
        if not said:
            log.info("port.taken", extra={"address": at(host, port), "for_up_to_s": patience_s})
            said = True
        time.sleep(0.1)


def _bound(host: str, port: int) -> socket.socket:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    sock = socket.socket(family, socket.SOCK_STREAM)
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    # inherited by what it accepts: an answer of several packets takes 40 ms more without this
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    try:
        sock.bind((host, port))
        sock.listen(2048)
    except OSError:
        sock.close()
        raise
    sock.setblocking(False)
    return sock


def new_instance(service: str, host: str, port: int) -> Instance:
    """How this process announces itself; a new incarnation each time."""
    return Instance(
        service=service,
        address=f"{host}:{port}",
        incarnation=uuid.uuid4().hex,
        started_at=int(time.time() * 1000),
        version=__version__,
    )


CLOCK_EVERY_S = 2.0
SKEWED = "set the clock of this host (chrony, ntpd); messages are on time, log lines are not"


def keep_clock(clock: StoreClock, every_s: float = CLOCK_EVERY_S) -> None:
    """Reads the store's clock again and again, in the background. It must be known by now."""
    gevent.spawn(_keep_synced, clock, every_s)


def _keep_synced(clock: StoreClock, every_s: float) -> None:
    watch = SkewWatch()
    while True:
        _tell_skew(clock.skew_ms(), watch)
        gevent.sleep(every_s)
        try:
            moved_ms = clock.sync()
        except Unavailable as exc:
            log.warning("clock.unavailable", extra={"reason": str(exc)})
        else:
            if abs(moved_ms) > 50:
                log.warning("clock.moved", extra={"ms": round(moved_ms)})


def _tell_skew(skew_ms: int, watch: SkewWatch) -> None:
    verdict = watch.judge(skew_ms)
    if verdict:
        log.warning("clock.skewed", extra={"ms": skew_ms, "remedy": SKEWED})
    elif verdict is False:
        log.info("clock.skew_over", extra={"ms": skew_ms})


BACK_OFF_S = 1.0


def loop(turn: Step, *, stopping: Event, turned: Step, pause: Step) -> None:
    """Body of a role's greenlet: turns until `stopping`, whatever a turn raises.

    One that fails for a reason of its own has not turned: a loop that always does is not alive.
    """
    while not stopping.is_set():
        try:
            turn()
        except Unavailable as exc:
            log.warning("loop.unavailable", extra={"reason": f"{type(exc).__name__}: {exc}"})
            stopping.wait(BACK_OFF_S)
        except Exception:  # the edge of a process: one bad turn must not end the loop
            log.exception("loop.failed")
            stopping.wait(BACK_OFF_S)
            continue
        turned()
        if not stopping.is_set():
            pause()


def unreachable(store: StoreReader, journal: Log | None = None) -> list[str]:
    """Names of the ports that do not answer now."""
    checks: list[tuple[str, Step]] = [("store", store.now_ms)]
    if journal is not None:
        checks.append(("log", journal.check))
    down = []
    for name, check in checks:
        try:
            check()
        except Unavailable:
            down.append(name)
    return down


def until_available(action: Callable[[], T], waiting_for: Callable[[str], object]) -> T:
    """What `action` gives, tried again and again while its server is away: servers may start
    after us. `waiting_for` is told which port it waits for."""
    while True:
        try:
            return action()
        except Unavailable as exc:
            port = PORTS.get(type(exc), "server")
            waiting_for(port)
            log.warning("start.waiting", extra={"for": port, "reason": str(exc)})
            gevent.sleep(TRY_AGAIN_S)


class Starting:
    """The `Role` of a process that is not up yet: alive, and not ready."""

    name = "starting"

    def __init__(self) -> None:
        self.waits_for = "start"

    def waiting_for(self, port: str) -> None:
        self.waits_for = port

    def start(self) -> None: ...

    def drain(self, limit_s: float) -> bool:
        return limit_s >= 0

    def stop(self) -> None: ...

    def turn_ages_ms(self) -> dict[str, int]:
        return {}

    def down(self) -> list[str]:
        return [self.waits_for]


def turning(roles: Iterable[Role]) -> tuple[bool, dict[str, Any]]:
    """Whether every loop turns, and how long ago each of them last did."""
    ages = {role.name: role.turn_ages_ms() for role in roles}
    ok = all(age < STALE_TURN_MS for loops in ages.values() for age in loops.values())
    return ok, {"last_turn_ms": ages}


def health_app(roles: Iterable[Role], metrics: Metrics) -> Callable[..., Iterable[bytes]]:
    """WSGI: /healthz, /readyz, /metrics."""

    def app(environ: dict[str, Any], start_response: Callable[..., Any]) -> Iterable[bytes]:
        path = environ["PATH_INFO"]
        if path == "/metrics":
            body, kind = metrics.render()
            start_response("200 OK", [("Content-Type", kind)])
            return [body]
        if path == "/healthz":
            ok, ages = turning(roles)
            report: dict[str, Any] = {"ok": ok, **ages}
        elif path == "/readyz":
            down = sorted({name for role in roles for name in role.down()})
            ok, report = not down, {"ok": not down, "down": down}
        else:
            start_response("404 Not Found", [("Content-Type", "text/plain")])
            return [b"not found\n"]
        status = "200 OK" if ok else "503 Service Unavailable"
        start_response(status, [("Content-Type", "application/json")])
        return [json.dumps(report).encode() + b"\n"]

    return app


def serve_health(
    roles: Sequence[Role], metrics: Metrics, listener: socket.socket, host: str
) -> StreamServer:
    """Starts the health server; it shows the roles that `roles` holds at each request."""
    server = make_server(listener, health_app(roles, metrics))
    server.start()
    log.info("health.listening", extra={"address": at(host, int(server.server_port or 0))})
    return server


def announce(registry: Registry, instance: Instance) -> None:
    """Tells the registry, and the log, that an instance is up."""
    registry.register(instance)
    log.info("role.started", extra={"role": instance.service, "address": instance.address})


class Signals:
    """SIGTERM and SIGINT from now on: the first sets `asked`, the second ends the process."""

    def __init__(self, asked: Event | None = None) -> None:
        self.asked = asked or Event()
        numbers = (signal.SIGTERM, signal.SIGINT)
        self._handlers = [gevent.signal_handler(number, self._ask) for number in numbers]

    def close(self) -> None:
        """Heeds them no more."""
        for handler in self._handlers:
            handler.cancel()

    def cut(self, action: Callable[[], T]) -> T | None:
        """What `action` gives; None when a signal came first, which ends it where it waits."""
        doing = gevent.spawn(_outcome, action)
        either: list[Any] = [doing, self.asked]
        gevent.wait(either, count=1)
        if not doing.ready():
            doing.kill()
            return None
        result, error = doing.get()
        if error is not None:
            raise error
        return result

    def _ask(self) -> None:
        if self.asked.is_set():
            sys.exit(1)
        self.asked.set()


def _outcome(action: Callable[[], T]) -> tuple[T | None, Exception | None]:
    """With the error as a value: gevent would print it."""
    try:
        return action(), None
    except Exception as exc:
        return None, exc


def run(roles: Sequence[Role], config: ProcessConfig, asked: Event) -> None:
    """Runs until `asked` to end, then drains in the order given."""
    asked.wait()
    log.info("process.draining")
    deadline = time.monotonic() + config.drain_ms / 1000
    for role in roles:
        if not role.drain(max(0.0, deadline - time.monotonic())):
            log.warning("process.drain_incomplete", extra={"role": role.name})
