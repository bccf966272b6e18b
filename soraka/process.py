"""The life of a process: logs, health, signals, drain.

SIGTERM or SIGINT drains: each role stops taking, finishes what is in flight up to the limit,
then stops; the process ends with 0. A second signal ends it at once.
"""

import json
import logging
import signal
import socket
import sys
import time
import uuid
from collections.abc import Callable, Iterable, Sequence
from typing import Any, Protocol

import gevent
from gevent.event import Event
from gevent.pywsgi import WSGIServer
from pythonjsonlogger.json import JsonFormatter

from soraka import __version__
from soraka.config import ProcessConfig
from soraka.errors import Unavailable
from soraka.message import Instance
from soraka.metrics import Metrics
from soraka.ports import Log, Registry, StoreReader

log = logging.getLogger(__name__)

Step = Callable[[], object]
STALE_TURN_MS = 10_000
"""A loop that has not turned for so long is not alive."""

_STANDARD = frozenset(vars(logging.makeLogRecord({}))) | {"message", "asctime", "taskName"}


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


class _TextFormatter(logging.Formatter):
    """A line for people: time, level, event, key=value."""

    def format(self, record: logging.LogRecord) -> str:
        extra = "".join(f" {k}={v}" for k, v in vars(record).items() if k not in _STANDARD)
        return f"{super().format(record)}{extra}"


def configure_logging(config: ProcessConfig) -> None:
    """Logs to stderr, a line per event."""
    handler = logging.StreamHandler(sys.stderr)
    if config.log_format == "json":
        handler.setFormatter(
            JsonFormatter(
                "{levelname}{name}{message}",
                style="{",
                rename_fields={"levelname": "level", "name": "logger", "message": "event"},
                timestamp=True,
            )
        )
    else:
        handler.setFormatter(_TextFormatter("%(asctime)s %(levelname)-7s %(message)s"))
    logging.basicConfig(level=config.log_level.upper(), handlers=[handler], force=True)
    for chatty in ("kafka", "kazoo", "urllib3"):
        logging.getLogger(chatty).setLevel(logging.ERROR)


def listen(host: str, port: int) -> socket.socket:
    """A listening TCP socket. Raises OSError, with the address, when the port is taken."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    sock = socket.socket(family, socket.SOCK_STREAM)
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    # inherited by what it accepts; pywsgi sends head and body apart, 40 ms apart without this
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    try:
        sock.bind((host, port))
    except OSError as exc:
        sock.close()
        raise OSError(exc.errno, f"{host}:{port}: {exc.strerror}") from exc
    sock.listen(2048)
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


def follow_clock(sync: Callable[[], float], every_s: float = 5.0) -> None:
    """Reads the store's clock, as soon as it can be had; then again and again, in the
    background."""
    _until_available(sync, "store")
    gevent.spawn(_keep_synced, sync, every_s)


def _keep_synced(sync: Callable[[], float], every_s: float) -> None:
    while True:
        gevent.sleep(every_s)
        try:
            moved_ms = sync()
        except Unavailable as exc:
            log.warning("clock.unavailable", extra={"reason": str(exc)})
        else:
            if abs(moved_ms) > 50:
                log.warning("clock.moved", extra={"ms": round(moved_ms)})


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


def _until_available(action: Step, what: str) -> None:
    """Runs `action`, again and again while its server is away: servers may start after us."""
    while True:
        try:
            action()
            return
        except Unavailable as exc:
            log.warning("start.waiting", extra={"for": what, "reason": str(exc)})
            gevent.sleep(1)


def health_app(roles: Iterable[Role], metrics: Metrics) -> Callable[..., Iterable[bytes]]:
    """WSGI: /healthz, /readyz, /metrics."""

    def app(environ: dict[str, Any], start_response: Callable[..., Any]) -> Iterable[bytes]:
        path = environ["PATH_INFO"]
        if path == "/metrics":
            body, kind = metrics.render()
            start_response("200 OK", [("Content-Type", kind)])
            return [body]
        ages = {role.name: role.turn_ages_ms() for role in roles}
        if path == "/healthz":
            ok = all(age < STALE_TURN_MS for loops in ages.values() for age in loops.values())
            report: dict[str, Any] = {"ok": ok, "last_turn_ms": ages}
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


def serve_health(roles: Sequence[Role], metrics: Metrics, host: str, port: int) -> WSGIServer:
    """Starts the health server; raises OSError when the port is taken."""
    server = WSGIServer(listen(host, port), health_app(roles, metrics), log=None)
    server.start()
    log.info("health.listening", extra={"address": f"{host}:{server.server_port}"})
    return server


def announce(registry: Registry, instance: Instance) -> None:
    """Tells the registry, and the log, that an instance is up."""
    registry.register(instance)
    log.info("role.started", extra={"role": instance.service, "address": instance.address})


def wait_for_signal() -> None:
    """Returns at the first SIGTERM or SIGINT; the second ends the process."""
    asked = Event()

    def ask() -> None:
        if asked.is_set():
            sys.exit(1)
        asked.set()

    for number in (signal.SIGTERM, signal.SIGINT):
        gevent.signal_handler(number, ask)
    asked.wait()


def run(roles: Sequence[Role], config: ProcessConfig) -> None:
    """Runs until a signal, then drains in the order given and stops in the reverse."""
    try:
        wait_for_signal()
        log.info("process.draining")
        deadline = time.monotonic() + config.drain_ms / 1000
        for role in roles:
            if not role.drain(max(0.0, deadline - time.monotonic())):
                log.warning("process.drain_incomplete", extra={"role": role.name})
    finally:
        for role in reversed(roles):
            role.stop()
    log.info("process.stopped")
