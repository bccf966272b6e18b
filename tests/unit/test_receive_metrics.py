"""/metrics of a receive with two processes: the sum of both, whichever answers."""

import os
import re
import signal
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path
from typing import ClassVar

import psutil
import pytest
import requests
from prometheus_client.parser import text_string_to_metric_families

from tests.unit.test_receive_process import Receive

# the log and store of SQLite are of one process; what is counted here needs neither
PROGRAM = """
import os
from receive_app.wsgi import ReceiveServer
from soraka import config, launch
launch.Background._come_up = lambda self: None
ReceiveServer(config.load(None, os.environ)).run()
"""
COUNTED = "soraka_requests_total"


class TwoProcesses(Receive):
    program = PROGRAM
    settings: ClassVar = {"RECEIVE_PROCESSES": 2}

    def __init__(self, folder: Path) -> None:
        self.folder = folder / "tmp"
        self.folder.mkdir()
        self.environ = {"TMPDIR": str(self.folder)}
        super().__init__(folder)

    @property
    def pids(self) -> set[int]:
        """Of the processes that serve."""
        children = psutil.Process(self.process.pid).children()
        return {child.pid for child in children if child.status() != psutil.STATUS_ZOMBIE}

    def submit(self) -> None:
        """Answered 503, and counted: it has no log."""
        body = {"topic_name": "t", "msg_id": "0"}
        answer = requests.post(self._url("/sorakaq/msg/cancel"), json=body, timeout=5)
        assert answer.status_code == 503

    def exposition(self) -> tuple[float, str]:
        """How many were counted, and the text, asked on a connection of its own."""
        headers = {"Connection": "close"}
        answer = requests.get(self._url("/metrics"), headers=headers, timeout=5)
        families = text_string_to_metric_families(answer.text)
        samples = [s for family in families for s in family.samples if s.name == COUNTED]
        return sum(sample.value for sample in samples), answer.text

    def _url(self, path: str) -> str:
        return f"http://127.0.0.1:{self.http[1]}{path}"


@pytest.fixture
def receive(tmp_path: Path) -> Iterator[TwoProcesses]:
    with closing(TwoProcesses(tmp_path)) as made:
        until(lambda: len(made.pids) == 2 and all_serve(made))
        yield made


def until(condition: Callable[[], object], limit_s: float = 20) -> None:
    deadline = time.monotonic() + limit_s
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.05)


def test_any_process_tells_for_all_and_nothing_counted_is_lost_with_one(
    receive: TwoProcesses,
) -> None:
    for _ in range(40):
        receive.submit()
    assert {receive.exposition()[0] for _ in range(12)} == {40}
    for killed in sorted(receive.pids):
        os.kill(killed, signal.SIGKILL)
        until(lambda gone=killed: gone not in receive.pids and len(receive.pids) == 2)
    until(lambda: all_serve(receive))
    for _ in range(10):
        receive.submit()
    assert {receive.exposition()[0] for _ in range(12)} == {50}
    text = receive.exposition()[1]
    assert not re.search(r"\bpid=", text)
    assert text.count("soraka_clock_skew_seconds ") == 3  # HELP, TYPE and one value
    live = [file.name for file in receive.folder.glob("*/gauge_live*")]
    assert {int(re.findall(r"_(\d+)\.db", name)[0]) for name in live} <= receive.pids
    receive.process.send_signal(signal.SIGTERM)
    assert receive.process.wait(20) == 0
    assert list(receive.folder.iterdir()) == []


def all_serve(receive: TwoProcesses) -> bool:
    try:
        receive.exposition()
    except requests.RequestException:
        return False
    return True
