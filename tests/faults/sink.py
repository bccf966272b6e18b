"""Where the callbacks go: a process of its own, whose calls come into the history."""

import json
import subprocess
import sys
from pathlib import Path

import gevent

from tests.faults.history import BASE_MS, Call, History

READ_EVERY_S = 0.05


class Sink:
    """Runs `tests.faults.callbacks` at `address`; its file is read as it grows."""

    def __init__(self, history: History, file: Path, address: str = "127.0.0.1") -> None:
        self._history = history
        self._address = address
        self.calls = 0
        self._process = subprocess.Popen(
            [sys.executable, "-m", "tests.faults.callbacks", str(file), repr(BASE_MS), address],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            start_new_session=True,
        )
        assert self._process.stdout is not None
        self._port = int(self._process.stdout.readline())
        self._lines = file.open()
        self._cut_off = ""
        self._reader = gevent.spawn(self._read_forever)

    @property
    def url(self) -> str:
        return f"http://{self._address}:{self._port}/call"

    def read(self) -> None:
        """Takes what it has written so far into the history."""
        for line in self._lines:
            line = self._cut_off + line
            if not line.endswith("\n"):
                self._cut_off = line
                return
            self._cut_off = ""
            fields = json.loads(line)
            del fields["kind"]
            self.calls += 1
            self._history.add(Call(**fields))

    def close(self) -> None:
        """Safe to repeat."""
        self._reader.kill()
        self._process.communicate(timeout=10)
        if not self._lines.closed:
            self.read()
            self._lines.close()

    def _read_forever(self) -> None:
        while True:
            gevent.sleep(READ_EVERY_S)
            self.read()
