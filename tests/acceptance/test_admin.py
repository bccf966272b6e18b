"""admin as real processes: under gunicorn with several workers, and in standalone."""

import os
import re
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path

import pytest
import requests

from tests.acceptance.deployments import Standalone, free_port, wait_until

# the command refuses adapters that are of one process
PROGRAM = """
import os
from admin_app.wsgi import AdminServer
from soraka import config
AdminServer(config.load(None, os.environ)).run()
"""


class Browser:
    """Logged in by the form, as people are."""

    def __init__(self, url: str, password: str) -> None:
        self._url = url
        self._session = requests.Session()
        page = self._session.get(f"{url}/login", timeout=10).text
        token = re.search(r'name="csrf_token" value="([^"]+)"', page)
        assert token, page
        form = {"name": "admin", "password": password, "csrf_token": token[1]}
        answer = self._session.post(f"{url}/login", form, allow_redirects=False, timeout=20)
        assert answer.status_code == 303, answer.text
        csrf = self.get("/account/me")["csrf_token"]
        self._session.headers["X-CSRFToken"] = csrf

    def get(self, path: str) -> dict[str, str]:
        answer = self._session.get(f"{self._url}/sorakaq{path}", timeout=10)
        assert answer.status_code == 200, answer.text
        return dict(answer.json()["result"])

    def post(self, path: str, **fields: object) -> requests.Response:
        return self._session.post(f"{self._url}/sorakaq{path}", json=fields, timeout=10)


class Admin:
    """Two gunicorn workers over one folder."""

    def __init__(self, folder: Path) -> None:
        self.url = f"http://127.0.0.1:{free_port()}"
        settings = {
            "LOG_PATH": folder / "log.db",
            "STORE_PATH": folder / "store.db",
            "REGISTRY_PATH": folder / "topics.json",
            "ADMIN_PORT": self.url.rpartition(":")[2],
            "ADMIN_ACCOUNTS": folder / "admin.json",
            "ADMIN_AUDIT": folder / "audit.jsonl",
            "PROCESS_DRAIN_MS": 2000,
        }
        environ = {f"SORAKA_{key}": str(value) for key, value in settings.items()}
        self._log = (folder / "admin.log").open("w+")
        self.process = subprocess.Popen(
            [sys.executable, "-c", PROGRAM],
            env={**os.environ, **environ},
            stdout=self._log,
            stderr=self._log,
            start_new_session=True,
        )

    def output(self) -> str:
        self._log.seek(0)
        return self._log.read()

    def ready(self) -> bool:
        with suppress(requests.RequestException):
            return requests.get(f"{self.url}/readyz", timeout=2).ok
        return False

    def password(self) -> str:
        (found,) = re.findall(r"as 'admin' with the password (\S+)", self.output())
        return str(found)

    def close(self) -> None:
        with suppress(ProcessLookupError):
            os.killpg(self.process.pid, signal.SIGKILL)
        self.process.wait(5)
        self._log.close()


@pytest.fixture
def admin(tmp_path: Path) -> Iterator[Admin]:
    made = Admin(tmp_path)
    try:
        yield made
    finally:
        made.close()


def test_under_gunicorn_people_log_in_and_sigterm_ends_it_in_order(admin: Admin) -> None:
    wait_until(admin.ready, 30, admin.output)
    browser = Browser(admin.url, admin.password())
    assert browser.get("/account/me")["name"] == "admin"
    assert browser.post("/topic/add", topic_name="orders").json()["ec"] == 200
    assert requests.get(f"{admin.url}/sorakaq/topic/list", timeout=5).status_code == 401
    admin.process.send_signal(signal.SIGTERM)
    assert admin.process.wait(15) == 0, admin.output()
    assert "Traceback" not in admin.output()


def test_a_slow_or_huge_body_costs_its_own_connection(admin: Admin) -> None:
    wait_until(admin.ready, 30, admin.output)
    host, port = "127.0.0.1", int(admin.url.rpartition(":")[2])
    with socket.create_connection((host, port), timeout=10) as sock:
        head = "POST /login HTTP/1.1\r\nHost: x\r\nContent-Length: 9999999999\r\n\r\n"
        sock.sendall(head.encode() + b"x" * 1000)
        sock.shutdown(socket.SHUT_WR)
        answer = sock.recv(65536)
    assert b" 413 " in answer.split(b"\r\n")[0]
    assert admin.ready()


def test_standalone_serves_admin_from_submit_to_cancel(tmp_path: Path) -> None:
    running = Standalone(tmp_path)
    try:
        running.start()
        said = running.processes["standalone"].output
        wait_until(lambda: "with the password" in said(), 10, said)
        (password,) = re.findall(r"as 'admin' with the password (\S+)", said())
        browser = Browser(f"http://127.0.0.1:{running.admin_port}", password)
        _, body = running.post(
            "submit",
            json={
                "topic_name": "orders",
                "delay_time": 60_000,
                "callback": {"request_type": "POST", "url": "http://127.0.0.1:9/x"},
            },
        )
        msg_id = body["result"]["msgId"]
        running.wait_state(msg_id, "pending")
        found = browser.post("/msg/query", topics=["orders"]).json()["result"]["list"]
        assert [message["msg_id"] for message in found] == [msg_id]
        assert browser.post("/msg/addTime", msg_id=msg_id, add_time=5).json()["ec"] == 200
        assert browser.post("/msg/cancel", msg_id=msg_id).json()["ec"] == 200
        running.wait_state(msg_id, "cancelled")
        overview = browser.get("/monitor/overview")
        assert overview["ports"] == {"log": "", "store": "", "registry": ""}
        _every_role_is_shown(lambda: browser.get("/monitor/overview"))
        assert running.processes["standalone"].stop() == 0
    finally:
        running.close()


def _every_role_is_shown(overview: Callable[[], dict[str, object]]) -> None:
    deadline = time.monotonic() + 10
    while True:
        roles: object = overview()["roles"]
        assert isinstance(roles, list)
        if all(role["live"] == 1 for role in roles):
            return
        assert time.monotonic() < deadline, roles
        time.sleep(0.1)
