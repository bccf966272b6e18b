"""Real servers for tests, as lazy session fixtures over `dev/stack`.

`redis_server`, `kafka_server` and `zookeeper_server` are one private server each,
`redis_tls_server`, `kafka_tls_server` and `zookeeper_tls_server` the same with TLS, users and
certificates; `full_stack` has all of the plain ones and nginx. They live on free ports below
pytest's temporary directory and start when the first test asks for them. Without the program a
test is skipped, or fails when CI is set.

A test that takes a server away must bring it back for the others: `with server.outage(): ...`.
"""

import contextlib
import json
import os
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from dev.stacklib import secured
from soraka.config import TlsConfig

STACK = Path(__file__).resolve().parents[1] / "dev" / "stack"
NOT_INSTALLED = 3
USER, PASSWORD = secured.USER, secured.PASSWORD
"""Of the servers with TLS; that of Redis has the user `operator` too, who may do all."""
URLS = {
    "redis-tls": f"rediss://{USER}:{PASSWORD}@{{}}:{{}}/0",
    "kafka-tls": "{}:{}",
    "zookeeper-tls": "{}:{}",
    "redis": "redis://{}:{}/0",
    "kafka": "{}:{}",
    "zookeeper": "{}:{}",
    "nginx": "http://{}:{}",
}
# Ends the stack when its standard input does, however pytest ends: a timeout or a SIGKILL runs no
# finalizer.
GUARD = "import subprocess, sys; sys.stdin.read(); sys.exit(subprocess.call(sys.argv[1:]))"


@dataclass(frozen=True)
class Server:
    """One server of a private stack. All methods return when what they name has happened."""

    name: str
    host: str
    port: int
    url: str
    dir: Path

    @property
    def pid(self) -> int | None:
        """The pid of the present process; None when it was stopped."""
        pid: int | None = _recorded(self.dir)["servers"][self.name]["pid"]
        return pid

    @property
    def tls(self) -> TlsConfig:
        """For clients of a server with TLS."""
        files = {"ca": "ca.pem", "certificate": "host.pem", "key": "host.key"}
        return TlsConfig(**{key: str(self.dir / "tls" / name) for key, name in files.items()})

    def start(self) -> None:
        """Start it again with the same port and data, and wait until it answers."""
        _stack("start", self.name, directory=self.dir)

    def stop(self) -> None:
        """End it with SIGTERM."""
        _stack("stop", self.name, directory=self.dir)

    def kill(self) -> None:
        """End it with SIGKILL."""
        _stack("stop", self.name, "--signal", "KILL", directory=self.dir)

    @contextlib.contextmanager
    def outage(self) -> Iterator[None]:
        """SIGKILL it for the length of the block, and start it again whatever happens there."""
        self.kill()
        try:
            yield
        finally:
            self.start()


@dataclass(frozen=True)
class FullStack:
    """All servers together; `config` is the soraka.toml for the roles.

    nginx (its own port for receive, `nginx_admin_port` for admin) passes requests on to
    `receive_port` and `admin_port`, both free when the stack began.
    """

    redis: Server
    kafka: Server
    zookeeper: Server
    nginx: Server
    nginx_admin_port: int
    receive_port: int
    admin_port: int
    config: Path
    dir: Path


@pytest.fixture(scope="session")
def redis_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """A Redis of our own; `url` is redis://..."""
    with _private(tmp_path_factory.mktemp("redis"), "redis") as directory:
        yield _server(directory, "redis")


@pytest.fixture(scope="session")
def kafka_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """A Kafka broker of our own; `url` is the bootstrap address. Topics must be created."""
    with _private(tmp_path_factory.mktemp("kafka"), "kafka") as directory:
        yield _server(directory, "kafka")


@pytest.fixture(scope="session")
def zookeeper_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """A ZooKeeper of our own; `url` is kazoo's hosts. Sessions may be as short as one second."""
    with _private(tmp_path_factory.mktemp("zookeeper"), "zookeeper") as directory:
        yield _server(directory, "zookeeper")


@pytest.fixture(scope="session")
def tls_stack(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """Where the servers with TLS live, which share a CA; they come when they are asked for."""
    directory = tmp_path_factory.mktemp("tls")
    with _guard(directory):
        yield directory


@pytest.fixture(scope="session")
def redis_tls_server(tls_stack: Path) -> Server:
    """`url` is rediss://USER:PASSWORD@..."""
    return _added(tls_stack, "redis-tls")


@pytest.fixture(scope="session")
def kafka_tls_server(tls_stack: Path) -> Server:
    """With SASL, SCRAM-SHA-512."""
    return _added(tls_stack, "kafka-tls")


@pytest.fixture(scope="session")
def zookeeper_tls_server(tls_stack: Path) -> Server:
    """Over TLS alone."""
    return _added(tls_stack, "zookeeper-tls")


@pytest.fixture(scope="session")
def full_stack(tmp_path_factory: pytest.TempPathFactory) -> Iterator[FullStack]:
    """Redis, Kafka, ZooKeeper and nginx, apart from those of the single fixtures."""
    with _private(tmp_path_factory.mktemp("stack")) as directory:
        ports = _recorded(directory)["ports"]
        yield FullStack(
            redis=_server(directory, "redis"),
            kafka=_server(directory, "kafka"),
            zookeeper=_server(directory, "zookeeper"),
            nginx=_server(directory, "nginx"),
            nginx_admin_port=ports["nginx_admin"],
            receive_port=ports["receive"],
            admin_port=ports["admin"],
            config=directory / "soraka.toml",
            dir=directory,
        )


def newest_aof(redis: Server) -> Path:
    """The file that Redis appends to. While it rewrites there are two, and killed then it keeps
    both."""

    def number(path: Path) -> int:
        return int(path.name.split(".")[-3])

    return max(redis.dir.rglob("appendonly.aof.*.incr.aof"), key=number)


@contextlib.contextmanager
def _private(directory: Path, *only: str) -> Iterator[Path]:
    """Run a stack in `directory` with the servers `only`, or all; the logs stay afterwards."""
    with _guard(directory):
        _up(directory, *only)
        yield directory


def _added(directory: Path, name: str) -> Server:
    """One more server of a stack."""
    _up(directory, name)
    return _server(directory, name)


def _up(directory: Path, *only: str) -> None:
    options = ["--only", ",".join(only)] if only else []
    try:
        _stack("up", "--ports", "auto", *options, directory=directory)
    except subprocess.CalledProcessError as error:
        if error.returncode == NOT_INSTALLED and not os.environ.get("CI"):
            pytest.skip(error.stderr)
        pytest.fail(error.stderr, pytrace=False)


@contextlib.contextmanager
def _guard(directory: Path) -> Iterator[None]:
    down = [sys.executable, str(STACK), "down", "--dir", str(directory)]
    guard = subprocess.Popen(
        [sys.executable, "-c", GUARD, *down],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        start_new_session=True,
        text=True,
    )
    try:
        yield
    finally:
        said, _ = guard.communicate()
    if guard.returncode:
        pytest.fail(f"the stack in {directory} did not end: {said}", pytrace=False)


def _stack(*arguments: str, directory: Path) -> None:
    command = [sys.executable, str(STACK), *arguments, "--dir", str(directory)]
    try:
        subprocess.run(command, check=True, capture_output=True, text=True)
    except subprocess.CalledProcessError as error:
        error.add_note(error.stderr)
        raise


def _server(directory: Path, name: str) -> Server:
    port = next(iter(_recorded(directory)["servers"][name]["ports"].values()))
    return Server(name, "127.0.0.1", port, URLS[name].format("127.0.0.1", port), directory)


def _recorded(directory: Path) -> dict[str, Any]:
    recorded: dict[str, Any] = json.loads((directory / "stack.json").read_text())
    return recorded
