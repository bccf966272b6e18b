"""What is measured, as real processes: soraka standalone, and soraka's roles on real servers."""

import json
import os
import signal
import subprocess
import sys
import urllib.error
import urllib.request
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import redis

from bench.ports import free_port
from bench.processes import STACK, Guard, Process, temporary_folder, wait_until

READY_S = 60.0
SHARDS = 8


@dataclass(frozen=True, kw_only=True)
class Scale:
    """How many processes of each role, on the real servers."""

    receive: int = 1
    centers: int = 1
    workers: int = 1
    callbacks: int = 1000
    """Under way at once, of each worker."""


class Soraka:
    """`pids` by role and server name. `http_port` and `thrift_port` are those of receive."""

    name = ""

    def __init__(self, guard: Guard, folder: Path) -> None:
        self._guard = guard
        self.folder = folder
        self.http_port, self.thrift_port = free_port(), free_port()
        self.pids: dict[str, int] = {}
        self._processes: list[Process] = []

    def new_topic(self, *_settings: str) -> str:
        """`_settings` are options of `soraka topic add`, on servers."""
        return f"bench-{uuid.uuid4().hex[:8]}"

    def sizes_mb(self) -> dict[str, float]:
        """What the log and the store hold, MB by name."""
        raise NotImplementedError

    def check(self) -> None:
        """Raises RuntimeError when a process has ended."""
        for process in self._processes:
            process.check()

    def output(self) -> str:
        """The last words of each process."""
        return "\n".join(f"== {p.log.stem}\n{p.output()}" for p in self._processes)

    def close(self) -> None:
        for process in reversed(self._processes):
            process.stop()

    def _start(self, name: str, arguments: list[str], environ: dict[str, str]) -> None:
        process = Process(
            self._guard,
            ["-m", "soraka", *arguments],
            log=self.folder / f"{name}.log",
            environ=environ,
        )
        self._processes.append(process)
        self.pids[name] = process.pid

    def _wait_ready(self) -> None:
        wait_until(self._ready, READY_S, f"{self.name} is ready")

    def _ready(self) -> bool:
        self.check()
        try:
            url = f"http://127.0.0.1:{self.http_port}/readyz"
            with urllib.request.urlopen(url, timeout=2) as answer:
                return bool(answer.status == 200)
        except OSError:
            return False


class Standalone(Soraka):
    """The embedded default: one process, SQLite."""

    name = "standalone"

    def start(self) -> None:
        environ = {
            "SORAKA_CENTER_THRIFT_PORT": str(free_port()),
            "SORAKA_WORKER_THRIFT_PORT": str(free_port()),
            "SORAKA_ADMIN_PORT": str(free_port()),
        }
        arguments = [
            "standalone",
            f"--data-dir={self.folder / 'data'}",
            f"--receive-port={self.http_port}",
            f"--thrift-port={self.thrift_port}",
        ]
        self._start("standalone", arguments, environ)
        self._wait_ready()

    def sizes_mb(self) -> dict[str, float]:
        files = (self.folder / "data").glob("*.db*")
        return {file.name: file.stat().st_size / 1e6 for file in files}


class Servers(Soraka):
    """The roles as processes, over Kafka, Redis and ZooKeeper of a private `dev/stack`."""

    name = "servers"

    def __init__(self, guard: Guard, folder: Path, scale: Scale) -> None:
        super().__init__(guard, folder)
        self._scale = scale

    def start(self) -> None:
        self._stack = self.folder / "stack"
        ports = start_stack(self._guard, self._stack, "redis,kafka,zookeeper", self.pids)
        self.redis_url = f"redis://127.0.0.1:{ports['redis']}/0"
        self.zookeeper = f"127.0.0.1:{ports['zookeeper']}"
        self.addresses: dict[str, str] = {}
        self._environ = {
            "SORAKA_LOG_ADAPTER": "kafka",
            "SORAKA_LOG_BOOTSTRAP": f"127.0.0.1:{ports['kafka']}",
            "SORAKA_STORE_ADAPTER": "redis",
            "SORAKA_STORE_URL": self.redis_url,
            "SORAKA_STORE_SHARDS": str(SHARDS),
            "SORAKA_REGISTRY_ADAPTER": "zookeeper",
            "SORAKA_REGISTRY_HOSTS": self.zookeeper,
            "SORAKA_RECEIVE_PORT": str(self.http_port),
            "SORAKA_RECEIVE_THRIFT_PORT": str(self.thrift_port),
            "SORAKA_RECEIVE_PROCESSES": str(self._scale.receive),
            "SORAKA_WORKER_MAX_CALLBACKS": str(self._scale.callbacks),
        }
        self._start("receive", ["receive"], self._environ)
        for role, number in (("center", self._scale.centers), ("worker", self._scale.workers)):
            for i in range(number):
                self.add(role, f"{role}{i}")
        self._wait_ready()

    def add(self, role: str, name: str) -> None:
        """Starts one more center or worker; its address is in `addresses`."""
        self._start_at(str(free_port()), role, name)

    def kill(self, name: str) -> None:
        """SIGKILL."""
        process = self._taken(name)
        os.killpg(process.pid, signal.SIGKILL)
        process.stop()

    @contextmanager
    def stopped(self, name: str) -> Iterator[None]:
        """By SIGTERM; at the end it is started again, at the same address."""
        role, port = name.rstrip("0123456789"), self.addresses[name].rpartition(":")[2]
        self._taken(name).stop()
        yield
        self._start_at(port, role, name)

    def _start_at(self, port: str, role: str, name: str) -> None:
        self._start(name, [role], self._environ | {f"SORAKA_{role.upper()}_THRIFT_PORT": port})
        self.addresses[name] = f"127.0.0.1:{port}"

    def _taken(self, name: str) -> Process:
        """One that is to end."""
        pid = self.pids.pop(name)
        (process,) = [p for p in self._processes if p.pid == pid]
        self._processes.remove(process)
        return process

    def new_topic(self, *settings: str) -> str:
        """Made as an operator does."""
        topic = super().new_topic()
        process = Process(
            self._guard,
            ["-m", "soraka", "topic", "add", topic, *settings],
            log=self.folder / "topic.log",
            environ=self._environ,
        )
        try:
            wait_until(lambda: self._known(topic), 30, f"{topic} known\n{process.output()}")
        finally:
            process.stop()
        return topic

    def _known(self, topic: str) -> bool:
        """Whether receive knows it: a cancel of a bogus id is then answered 405, not 407."""
        body = json.dumps({"topic_name": topic, "msg_id": str(uuid.uuid4())}).encode()
        request = urllib.request.Request(
            f"http://127.0.0.1:{self.http_port}/sorakaq/msg/cancel",
            body,
            {"Content-Type": "application/json"},
        )
        try:
            urllib.request.urlopen(request, timeout=5).close()
        except urllib.error.HTTPError as error:
            with error:
                return bool(json.load(error)["ec"] == 405)
        return False

    def sizes_mb(self) -> dict[str, float]:
        with redis.Redis.from_url(self.redis_url) as client:
            used = client.info("memory")["used_memory"] / 1e6
        kafka = sum(f.stat().st_size for f in self._stack.rglob("*.log")) / 1e6
        return {"redis used_memory": used, "kafka log": kafka}

    def close(self) -> None:
        super().close()
        stop_stack(self._guard, self._stack)


def start_stack(guard: Guard, folder: Path, names: str, pids: dict[str, int]) -> dict[str, int]:
    """Starts servers of `dev/stack` on free ports; adds to `pids`. Returns the ports."""
    guard.add("stack", folder)
    command = [sys.executable, str(STACK), "up", "--ports", "auto", "--only", names]
    done = subprocess.run(
        [*command, "--dir", str(folder)], capture_output=True, text=True, timeout=180, check=False
    )
    if done.returncode:
        raise RuntimeError(done.stderr)
    recorded = json.loads((folder / "stack.json").read_text())
    pids |= {name: server["pid"] for name, server in recorded["servers"].items()}
    return dict(recorded["ports"])


def stop_stack(guard: Guard, folder: Path) -> None:
    command = [sys.executable, str(STACK), "down", "--wipe", "--dir", str(folder)]
    subprocess.run(command, capture_output=True, timeout=120, check=False)
    guard.remove("stack", folder)


@contextmanager
def running(guard: Guard, name: str, scale: Scale) -> Iterator[Soraka]:
    """A fresh soraka of that name, in a temporary directory."""
    with temporary_folder(guard) as folder:
        system: Standalone | Servers = (
            Standalone(guard, folder) if name == "standalone" else Servers(guard, folder, scale)
        )
        try:
            system.start()
            yield system
        except Exception:
            print(system.output(), file=sys.stderr)  # the folder goes
            raise
        finally:
            system.close()
