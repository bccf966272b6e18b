"""One shape for soraka and its peer: where to send load, and whose CPU to count."""

import dataclasses
import json
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Protocol

from bench.load import Result, Spec
from bench.ports import free_port
from bench.processes import ROOT, Guard, Process, temporary_folder, wait_until
from bench.systems import Soraka, start_stack, stop_stack

CELERY_CONCURRENCY = 200


class Target(Protocol):
    """`pids` by role and server name."""

    name: str
    pids: dict[str, int]

    def send(self, **spec: Any) -> Result:
        """Runs a load process with these fields of `Spec`; returns when it is done."""

    def check(self) -> None:
        """Raises RuntimeError when a process has ended."""


def _run_load(guard: Guard, module: str, spec: Spec, log: Path, environ: dict[str, str]) -> Result:
    process = Process(guard, ["-m", module], log=log, environ=environ, pipes=True)
    try:
        process.say(json.dumps(dataclasses.asdict(spec)))
        answer = process.hear()
    finally:
        process.stop()
    return Result(**answer)


class SorakaTarget:
    def __init__(self, guard: Guard, system: Soraka, url: str, topic: str = "") -> None:
        self._guard = guard
        self.system = system
        self.name = system.name
        self.pids = system.pids
        self._url = url
        self.topic = topic or system.new_topic()

    def send(self, *, protocol: str = "http", **fields: Any) -> Result:
        port = self.system.thrift_port if protocol == "thrift" else self.system.http_port
        spec = Spec(protocol=protocol, port=port, topic=self.topic, url=self._url, **fields)
        return _run_load(self._guard, "bench.load", spec, self.system.folder / "load.log", {})

    def check(self) -> None:
        self.system.check()


class BareTarget:
    """A bare Flask "ok" under gunicorn with gevent workers: how fast the machine is now. Use
    `bare_running`."""

    name = "bare Flask"

    def __init__(self, guard: Guard, folder: Path, workers: int) -> None:
        self._guard = guard
        self._folder = folder
        self._port = free_port()
        options = f"-k gevent -w {workers} -b 127.0.0.1:{self._port} --log-level warning"
        self.process = Process(
            guard,
            ["-m", "gunicorn", *options.split(), "--no-control-socket", "bench.bare:app"],
            log=folder / "bare.log",
        )
        self.pids = {"bare": self.process.pid}
        wait_until(self._ready, 30, "the bare Flask is ready")

    def _ready(self) -> bool:
        self.check()
        try:
            socket.create_connection(("127.0.0.1", self._port), timeout=1).close()
        except OSError:
            return False
        return True

    def send(self, **fields: Any) -> Result:
        """Requests of one kind, whatever `protocol` and `batch` say."""
        fields |= {"protocol": "bare", "batch": 1}
        spec = Spec(port=self._port, topic="", url="", **fields)
        return _run_load(self._guard, "bench.load", spec, self._folder / "load.log", {})

    def check(self) -> None:
        self.process.check()


@contextmanager
def bare_running(guard: Guard, workers: int) -> Iterator[BareTarget]:
    with temporary_folder(guard) as folder:
        target = BareTarget(guard, folder, workers)
        try:
            yield target
        finally:
            target.process.stop()


class CeleryTarget:
    """Celery workers, gevent pools, on a Redis of their own. Use `celery_running`."""

    name = "celery"

    def __init__(self, guard: Guard, folder: Path, url: str, workers: int) -> None:
        self._guard = guard
        self._folder = folder
        self._url = url
        self.pids: dict[str, int] = {}
        ports = start_stack(guard, folder / "stack", "redis", self.pids)
        self._environ = {"BENCH_BROKER": f"redis://127.0.0.1:{ports['redis']}/0"}
        self._workers = [self._start(f"worker{i}") for i in range(workers)]
        wait_until(self._ready, 30, "the Celery workers are ready")

    def _start(self, name: str) -> Process:
        options = f"-P gevent -c {CELERY_CONCURRENCY} -l warning --without-gossip --without-mingle"
        worker = Process(
            self._guard,
            ["-m", "celery", "-A", "bench.celery_app", "worker", "-n", name, *options.split()],
            log=self._folder / f"{name}.log",
            environ=self._environ,
        )
        self.pids[name] = worker.pid
        return worker

    def _ready(self) -> bool:
        self.check()
        return all("ready." in worker.output() for worker in self._workers)

    def send(self, **fields: Any) -> Result:
        """Ignores what Celery has not: a protocol, batches, connections."""
        known = {"count", "rate", "deliver_at", "lead_ms"}
        fields = {name: value for name, value in fields.items() if name in known}
        spec = Spec(protocol="celery", port=0, topic="", url=self._url, **fields)
        log = self._folder / "load.log"
        return _run_load(self._guard, "bench.celery_load", spec, log, self._environ)

    def check(self) -> None:
        for worker in self._workers:
            worker.check()

    def close(self) -> None:
        for worker in self._workers:
            worker.stop(5)
        stop_stack(self._guard, self._folder / "stack")


@contextmanager
def celery_running(guard: Guard, url: str, workers: int) -> Iterator[CeleryTarget]:
    with temporary_folder(guard) as folder:
        target = CeleryTarget(guard, folder, url, workers)
        try:
            yield target
        finally:
            target.close()


class SinkProcess:
    """`bench.sink`, from outside."""

    def __init__(self, guard: Guard, log: Path, delay_ms: int) -> None:
        arguments = ["-m", "bench.sink", str(delay_ms)]
        self._process = Process(guard, arguments, log=log, pipes=True)
        self.port = int(self._process.hear())
        self.url = f"http://127.0.0.1:{self.port}/callback"
        self.pid = self._process.pid

    def count(self) -> int:
        self._process.say("count")
        return int(self._process.hear())

    def take(self) -> list[tuple[str, int, float]]:
        """(id, due, arrival) of the calls since the last time; ms since the epoch."""
        self._process.say("take")
        return [tuple(row) for row in self._process.hear()]

    def close(self) -> None:
        self._process.stop(5)


@contextmanager
def sink_running(guard: Guard, delay_ms: int = 0) -> Iterator[SinkProcess]:
    """Each of its answers takes so long."""
    with temporary_folder(guard) as folder:
        sink = SinkProcess(guard, folder / "sink.log", delay_ms)
        try:
            yield sink
        finally:
            sink.close()


def versions() -> dict[str, str]:
    """Of what is compared."""
    from importlib.metadata import version

    git = subprocess.run(
        ["git", "rev-parse", "--short", "HEAD"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    return {
        "soraka": git.stdout.strip() or "unknown",
        "celery": version("celery"),
        "python": sys.version.split()[0],
    }
