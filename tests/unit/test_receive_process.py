"""receive as a real process: what SIGTERM does to what is under way."""

import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, suppress
from pathlib import Path

import pytest
import requests

import idl
from soraka import thrift_call
from tests.unit.receive_kit import uuid7
from tests.unit.test_skim import encoded

DRAIN_S = 4
# the command refuses adapters that are of one process
PROGRAM = """
import os
from receive_app.wsgi import ReceiveServer
from soraka import config
ReceiveServer(config.load(None, os.environ)).run()
"""


def free_port() -> int:
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        return int(sock.getsockname()[1])


class Receive:
    program = PROGRAM
    settings: Mapping[str, object] = {}
    environ: Mapping[str, str] = {}

    def __init__(self, folder: Path) -> None:
        self.http, self.thrift = ("127.0.0.1", free_port()), ("127.0.0.1", free_port())
        settings = {
            "LOG_PATH": folder / "log.db",
            "STORE_PATH": folder / "store.db",
            "REGISTRY_PATH": folder / "topics.json",
            "RECEIVE_PORT": self.http[1],
            "RECEIVE_THRIFT_PORT": self.thrift[1],
            "PROCESS_DRAIN_MS": DRAIN_S * 1000,
            **self.settings,
        }
        environ = {f"SORAKA_{key}": str(value) for key, value in settings.items()}
        self.journal = folder / "log.db-wal"
        self._log = (folder / "receive.log").open("w+")
        self.process = subprocess.Popen(
            [sys.executable, "-c", self.program],
            env={**os.environ, **environ, **self.environ},
            stdout=self._log,
            stderr=self._log,
            start_new_session=True,
        )

    def wait_ready(self) -> None:
        deadline = time.monotonic() + 20
        while not self._ready():
            assert time.monotonic() < deadline, self.output()
            time.sleep(0.05)

    def _ready(self) -> bool:
        with suppress(requests.RequestException):
            url = f"http://127.0.0.1:{self.http[1]}/readyz"
            return requests.get(url, timeout=2, headers={"Connection": "close"}).ok
        return False

    def output(self) -> str:
        self._log.seek(0)
        return self._log.read()

    def ended_in_order(self) -> bool:
        """With 0, and the log closed: SQLite then removes its journal."""
        return self.process.wait(2 * DRAIN_S) == 0 and not self.journal.exists()

    def close(self) -> None:
        with suppress(ProcessLookupError):
            os.killpg(self.process.pid, signal.SIGKILL)
        self.process.wait(5)
        self._log.close()


@pytest.fixture
def receive(tmp_path: Path) -> Iterator[Receive]:
    made = Receive(tmp_path)
    try:
        made.wait_ready()
        yield made
    finally:
        made.close()


def get_call() -> bytes:
    """A frame that asks for an unknown message."""
    arguments = encoded(idl.soraka.Soraka.get_args(msg_id=uuid7(1)))
    payload = b"\x80\x01\x00\x01\x00\x00\x00\x03get\x00\x00\x00\x00" + arguments
    return len(payload).to_bytes(4, "big") + payload


def test_on_sigterm_a_call_is_finished_and_idle_connections_are_closed(receive: Receive) -> None:
    frame = get_call()
    with ExitStack() as stack:
        idle, slow = (
            stack.enter_context(socket.create_connection(receive.thrift, timeout=10))
            for _ in range(2)
        )
        # an idle HTTP connection: gunicorn waits for it as long as it may
        http = stack.enter_context(socket.create_connection(receive.http, timeout=10))
        http.sendall(b"GET /healthz HTTP/1.1\r\nHost: a\r\n\r\n")
        assert http.recv(1000).startswith(b"HTTP/1.1 200")
        idle.sendall(frame)
        assert idle.recv(1000)
        slow.sendall(frame[:20])
        time.sleep(0.3)  # for its first bytes to be read; nothing shows that they were
        assert receive.journal.exists()
        receive.process.send_signal(signal.SIGTERM)
        told = time.monotonic()
        assert idle.recv(1) == b""
        assert time.monotonic() - told < DRAIN_S / 2
        time.sleep(max(0.0, told + DRAIN_S / 2 - time.monotonic()))
        slow.sendall(frame[20:])
        size = int.from_bytes(slow.recv(4), "big")
        answer = idl.soraka.Soraka.get_result()
        protocol = thrift_call.reader(slow.recv(size))
        assert protocol.read_message_begin()[0] == "get"
        protocol.read_struct(answer)
        assert answer.missing is not None
        assert slow.recv(1) == b""
        assert receive.ended_in_order()
        assert time.monotonic() - told < DRAIN_S + 4


def test_on_sigterm_a_call_that_never_comes_whole_is_given_up(receive: Receive) -> None:
    with socket.create_connection(receive.thrift, timeout=10) as slow:
        slow.sendall(get_call()[:20])
        time.sleep(0.3)  # as above
        assert receive.journal.exists()
        receive.process.send_signal(signal.SIGTERM)
        told = time.monotonic()
        assert receive.ended_in_order()
        assert DRAIN_S - 1 < time.monotonic() - told < DRAIN_S + 4
    assert "Traceback" not in receive.output()
