"""All roles in one process, on SQLite: the embedded default. The role code is the same."""

import json
import logging
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, cast

from admin_app.server import Admin, make_first_account
from center.main import Center
from receive_app.service import Service
from soraka import launch, process
from soraka.address import at
from soraka.config import EVERYWHERE, Config, override
from soraka.http import make_server
from soraka.metrics import Metrics
from soraka.wiring import Parts
from worker.main import Worker

log = logging.getLogger(__name__)

SWITCH_S = 0.0005
"""How long Python lets one thread run while another wants to. Those of SQLite let others run with
each statement, and by default may go on after 5 ms; all the rest is on one other thread."""
PORTS_FILE = "ports.json"
"""Beside the store: {"worker": its Thrift port}."""


class Receive:
    """A `process.Role`: receive without gunicorn. `healthy` is of the whole process."""

    name = "receive"

    def __init__(
        self, parts: Parts, metrics: Metrics, healthy: Callable[[], tuple[bool, dict[str, Any]]]
    ) -> None:
        config = parts.config.receive
        self._config = config
        self._registry = parts.registry
        http = process.listen(config.host, config.port, "receive.port")
        thrift = process.listen(config.host, config.thrift_port, "receive.thrift_port")
        self._service = Service(parts.config, metrics, thrift, healthy)
        self._service.open(parts)
        self._http = make_server(
            http,
            self._service.app,
            max_connections=self._service.max_connections,
            read_timeout_ms=config.read_timeout_ms,
        )

    def start(self) -> None:
        self._http.start()
        self._service.thrift.start()
        self._instance = process.new_instance("receive", self._config.host, self.port)
        process.announce(self._registry, self._instance)

    @property
    def port(self) -> int:
        return int(self._http.server_port or 0)

    @property
    def thrift_port(self) -> int:
        return self._service.thrift.port

    def drain(self, limit_s: float) -> bool:
        self._registry.unregister(self._instance)
        self._http.close()
        self._service.thrift.stop(limit_s)
        self._http.stop(timeout=min(limit_s, 1.0))
        return True

    def stop(self) -> None:
        self._http.stop(timeout=0)
        self._service.thrift.stop(0)
        self._service.close()

    def turn_ages_ms(self) -> dict[str, int]:
        return {}

    def down(self) -> list[str]:
        return []


class AdminRole:
    """A `process.Role`: admin without gunicorn. `healthy` is of the whole process."""

    name = "admin"

    def __init__(
        self, parts: Parts, metrics: Metrics, healthy: Callable[[], tuple[bool, dict[str, Any]]]
    ) -> None:
        config = parts.config.admin
        self._config = config
        self._registry = parts.registry
        listener = process.listen(config.host, config.port, "admin.port")
        make_first_account(config)
        self._admin = Admin(parts.config, metrics, healthy)
        self._admin.open(parts)
        self._http = make_server(
            listener,
            self._admin.app,
            max_connections=config.max_connections,
            read_timeout_ms=config.read_timeout_ms,
        )

    def start(self) -> None:
        self._http.start()
        host = self._config.advertise or self._config.host
        self._instance = process.new_instance("admin", host, self.port)
        process.announce(self._registry, self._instance)

    @property
    def port(self) -> int:
        return int(self._http.server_port or 0)

    def drain(self, limit_s: float) -> bool:
        self._registry.unregister(self._instance)
        self._admin.close()
        self._http.stop(timeout=min(limit_s, 1.0))
        return True

    def stop(self) -> None:
        self._admin.close()
        self._http.stop(timeout=0)

    def turn_ages_ms(self) -> dict[str, int]:
        return {}

    def down(self) -> list[str]:
        return []


def run(config: Config) -> None:
    """Runs until a signal. Raises ConfigError; OSError when a port is taken."""
    sys.setswitchinterval(SWITCH_S)
    launch.run(config, _roles, up=lambda roles: _greet(config, roles))


def _roles(parts: Parts, metrics: Metrics) -> list[process.Role]:
    roles: list[process.Role] = []
    center = Center(parts, metrics)  # first: it may have to wait for Kafka, and be made again
    receive = Receive(parts, metrics, lambda: process.turning(roles))
    admin = AdminRole(parts, metrics, lambda: process.turning(roles))
    roles += [receive, admin, center, _worker(parts, metrics)]
    return roles


def _worker(parts: Parts, metrics: Metrics) -> Worker:
    """A worker at the address it had last time, whenever that is free.

    Its port is any, so that two standalones do not collide. But the address is what owns the
    messages: at another one they would first have to be taken over from the old.
    """
    config = parts.config
    if config.worker.thrift_port or config.store.adapter != "sqlite":
        return Worker(parts, metrics)
    memory = Path(config.store.path).with_name(PORTS_FILE)
    port = _free_again(config.worker.host, _remembered(memory))
    parts.config = override(config, {"worker": {"thrift_port": port}})
    worker = Worker(parts, metrics)
    _remember(memory, int(worker.instance.address.rpartition(":")[2]))
    return worker


def _remembered(memory: Path) -> int:
    """0 for none."""
    try:
        port = json.loads(memory.read_bytes())["worker"]
    except (OSError, ValueError, LookupError, TypeError):
        return 0
    return port if type(port) is int and 0 < port < 65536 else 0


def _remember(memory: Path, port: int) -> None:
    try:
        memory.write_text(json.dumps({"worker": port}))
    except OSError as exc:  # the next start takes the messages over, which is slower only
        log.warning("ports.not_kept", extra={"path": str(memory), "reason": str(exc)})


def _free_again(host: str, port: int) -> int:
    """`port`; 0 when another process has it by now."""
    try:
        process.listen(host, port).close()
    except OSError:
        return 0
    return port


def _greet(config: Config, roles: Sequence[process.Role]) -> None:
    receive, admin = cast(Receive, roles[0]), cast(AdminRole, roles[1])
    print(greeting(config, receive.port, receive.thrift_port, admin.port), flush=True)


def greeting(config: Config, port: int, thrift_port: int, admin_port: int) -> str:
    """What is where, and a first command to try."""
    host, admin_host = reachable(config.receive.host), reachable(config.admin.host)
    http = f"http://{at(host, port)}"
    return f"""\
soraka standalone, everything in {config.store.path.rpartition("/")[0] or "."}
  HTTP    {http}   (OpenAPI: {http}/openapi.json)
  Thrift  {at(host, thrift_port)}
  Admin   http://{at(admin_host, admin_port)}
Try it: a POST to http://127.0.0.1:8000/hello in 3 seconds
  curl {"-g " if ":" in host else ""}{http}/sorakaq/msg/submit \\
    -H 'Content-Type: application/json' -d '{{
    "topic_name": "greetings", "delay_time": 3000,
    "callback": {{"request_type": "POST", "url": "http://127.0.0.1:8000/hello",
                 "params": {{"name": "soraka"}}}}}}'"""


def reachable(host: str) -> str:
    """Where a process on this machine reaches what listens on `host`."""
    return "127.0.0.1" if host in EVERYWHERE else host
