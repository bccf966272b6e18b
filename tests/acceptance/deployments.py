"""soraka as real processes: standalone, and the roles apart on the real servers."""

import os
import signal
import subprocess
import sys
import time
import uuid
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

import requests

import idl
from dev.stacklib import ports
from soraka import tls
from soraka.rpc import RpcClient
from tests.acceptance.sink import wait_until

JsonObject = dict[str, Any]


def free_port() -> int:
    """A port that was free just now, and is none that the system gives to whoever connects.
    Fixed, since a process that restarts must keep its own."""
    return ports.pick(())


class Process:
    """One soraka process; can be killed and started again. `module` is what Python runs."""

    def __init__(
        self,
        arguments: list[str],
        environ: Mapping[str, str],
        log: Path,
        *,
        module: str = "soraka",
    ) -> None:
        self.arguments = arguments
        self._module = module
        self.environ = {**os.environ, **environ}
        self._log = log
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def pid(self) -> int:
        assert self._process is not None
        return self._process.pid

    def start(self) -> None:
        with self._log.open("ab") as log:
            self._process = subprocess.Popen(
                [sys.executable, "-m", self._module, *self.arguments],
                env=self.environ,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )

    @property
    def is_running(self) -> bool:
        """Started, and neither ended by us nor by itself."""
        return self._process is not None and not self.has_ended

    @property
    def has_ended(self) -> bool:
        """By itself."""
        return self._process is not None and self._process.poll() is not None

    def send(self, number: signal.Signals) -> None:
        """To it and the processes it has forked."""
        os.killpg(self.pid, number)

    def kill(self) -> None:
        """SIGKILL, with the processes it has forked."""
        self._end(signal.SIGKILL)

    def stop(self) -> int:
        """SIGTERM; the exit code."""
        return self._end(signal.SIGTERM)

    def _end(self, number: signal.Signals) -> int:
        if self._process is None:
            return 0
        with suppress(ProcessLookupError):
            if number == signal.SIGKILL:
                os.killpg(self._process.pid, number)
            else:
                self._process.send_signal(number)
        try:
            return self._process.wait(20)
        finally:
            with suppress(ProcessLookupError):
                os.killpg(self._process.pid, signal.SIGKILL)
            self._process.wait(5)
            self._process = None

    def output(self) -> str:
        """What it has logged so far, over all its starts."""
        return self._log.read_text(errors="replace") if self._log.exists() else ""


class Deployment:
    """What the tests talk to. `processes` by role name; `secured` if Thrift is over TLS."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.http_port = free_port()
        self.thrift_port = free_port()
        self.admin_port = free_port()
        self.processes: dict[str, Process] = {}
        self.secured: tls.Context | None = None
        self._session = requests.Session()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.http_port}"

    @property
    def receives(self) -> list[tuple[str, int, int]]:
        """Host, HTTP and Thrift port of each receive."""
        return [("127.0.0.1", self.http_port, self.thrift_port)]

    def start(self) -> None:
        for process in self.processes.values():
            process.start()
        self.wait_ready()

    def wait_ready(self, timeout_s: float = 40.0) -> None:
        wait_until(self._ready, timeout_s, lambda: f"ready\n{self.output()}")

    def _ready(self) -> bool:
        ended = [name for name, process in self.processes.items() if process.has_ended]
        assert not ended, f"{ended} ended\n{self.output()}"
        try:
            return requests.get(f"{self.url}/readyz", timeout=2).status_code == 200
        except requests.RequestException:
            return False

    def close(self) -> None:
        for process in self.processes.values():
            with suppress(subprocess.TimeoutExpired):
                process.kill()
        self._session.close()

    def output(self) -> str:
        return "\n".join(
            f"== {name}\n{process.output()[-3000:]}" for name, process in self.processes.items()
        )

    def new_topic(self) -> str:
        raise NotImplementedError

    def post(self, path: str, **given: Any) -> tuple[int, JsonObject]:
        """Status and body of a POST."""
        answer = self._session.post(f"{self.url}/sorakaq/msg/{path}", timeout=15, **given)
        return answer.status_code, answer.json()

    def submit(self, topic: str, url: str, **fields: Any) -> str:
        """Submits, and returns the id."""
        callback = {"request_type": "POST", "url": url, **fields.pop("callback", {})}
        status, body = self.post(
            "submit", json={"topic_name": topic, "callback": callback, **fields}
        )
        assert (status, body["ec"]) == (200, 200), body
        return str(body["result"]["msgId"])

    def call(self, method: str, **arguments: Any) -> Any:
        """A call of the public Thrift service."""
        address = ("127.0.0.1", self.thrift_port)
        client = RpcClient(idl.soraka.Soraka, address, timeout_ms=10_000, secured=self.secured)
        try:
            return client.call(method, **arguments)
        finally:
            client.close()

    def state(self, msg_id: str) -> str:
        """pending, succeeded, cancelled, dead; or absent."""
        try:
            info = self.call("get", msg_id=msg_id)
        except idl.soraka.MessageNotFound:
            return "absent"
        return str(idl.soraka.MessageState._VALUES_TO_NAMES[info.state]).lower()

    def wait_state(self, msg_id: str, state: str, timeout_s: float = 15.0) -> None:
        wait_until(
            lambda: self.state(msg_id) == state,
            timeout_s,
            lambda: f"{msg_id} is {state}, but {self.state(msg_id)}",
        )


class Standalone(Deployment):
    def __init__(self, folder: Path, settings: Mapping[str, str] | None = None) -> None:
        super().__init__(folder)
        self.processes["standalone"] = Process(
            [
                "standalone",
                f"--data-dir={folder / 'data'}",
                f"--receive-port={self.http_port}",
                f"--admin-port={self.admin_port}",
                f"--thrift-port={self.thrift_port}",
            ],
            {
                "SORAKA_CENTER_THRIFT_PORT": str(free_port()),
                "SORAKA_WORKER_THRIFT_PORT": str(free_port()),
                **(settings or {}),
            },
            folder / "standalone.log",
        )

    def new_topic(self) -> str:
        return f"topic-{uuid.uuid4().hex[:12]}"


class Cluster(Deployment):
    """The roles as processes, on servers shared with other tests but with names of its own."""

    def __init__(
        self,
        folder: Path,
        servers: Mapping[str, str],
        settings: Mapping[str, str] | None = None,
        *,
        workers: int = 2,
        centers: int = 1,
    ) -> None:
        """`servers` are the addresses of kafka, redis (URL) and zookeeper."""
        super().__init__(folder)
        name = uuid.uuid4().hex[:8]
        self.environ = {
            "SORAKA_LOG_ADAPTER": "kafka",
            "SORAKA_LOG_BOOTSTRAP": servers["kafka"],
            "SORAKA_LOG_TOPIC_PREFIX": f"{name}.topic.",
            "SORAKA_LOG_DEAD_LETTER_TOPIC": f"{name}.dead-letter",
            "SORAKA_LOG_GROUP": f"{name}-center",
            "SORAKA_STORE_ADAPTER": "redis",
            "SORAKA_STORE_URL": servers["redis"],
            "SORAKA_REGISTRY_ADAPTER": "zookeeper",
            "SORAKA_REGISTRY_HOSTS": servers["zookeeper"],
            "SORAKA_REGISTRY_ROOT": f"/{name}",
            "SORAKA_RECEIVE_PORT": str(self.http_port),
            "SORAKA_RECEIVE_THRIFT_PORT": str(self.thrift_port),
            **(settings or {}),
        }
        self.http_port = int(self.environ["SORAKA_RECEIVE_PORT"])
        self.processes["receive"] = Process(["receive"], self.environ, folder / "receive.log")
        for i in range(centers):
            self.add("center", f"center{i}")
        for i in range(workers):
            self.add("worker", f"worker{i}")

    def add(
        self,
        role: str,
        name: str,
        settings: Mapping[str, str] | None = None,
        *,
        module: str = "soraka",
    ) -> Process:
        """One more process, not yet started, at an address of its own that it keeps."""
        address = {f"SORAKA_{role.upper()}_THRIFT_PORT": str(free_port())}
        if role == "receive":
            address["SORAKA_RECEIVE_PORT"] = str(free_port())
        if role == "admin":  # it has no Thrift
            address = {"SORAKA_ADMIN_PORT": str(free_port())}
        self.processes[name] = Process(
            [role],
            {**self.environ, **address, **(settings or {})},
            self.folder / f"{name}.log",
            module=module,
        )
        return self.processes[name]

    @property
    def receives(self) -> list[tuple[str, int, int]]:
        return [
            (
                "127.0.0.1",
                int(process.environ["SORAKA_RECEIVE_PORT"]),
                int(process.environ["SORAKA_RECEIVE_THRIFT_PORT"]),
            )
            for process in self.processes.values()
            if process.arguments == ["receive"]
        ]

    def new_topic(self) -> str:
        """Made as an operator does."""
        topic = f"topic-{uuid.uuid4().hex[:12]}"
        self.soraka("topic", "add", topic)
        wait_until(lambda: self._knows(topic), 10, lambda: f"receive knows {topic}")
        return topic

    def soraka(self, *arguments: str) -> str:
        """Output of a soraka command that must succeed."""
        done = subprocess.run(
            [sys.executable, "-m", "soraka", *arguments],
            env={**os.environ, **self.environ},
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
        assert done.returncode == 0, done.stderr
        return done.stdout

    def _knows(self, topic: str) -> bool:
        # a cancel of a bogus id tells whether the topic is known: 405, not 407
        _, body = self.post("cancel", json={"topic_name": topic, "msg_id": str(uuid.uuid4())})
        return int(body["ec"]) != 407


def now_ms() -> int:
    return int(time.time() * 1000)
