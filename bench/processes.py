"""Child processes that end with us, however we end, and what they use.

One guard process lists the children; when its input ends (also by SIGKILL of the benchmark) it
kills those that still live, each by its process group, takes the server stacks down and removes
the temporary folders.
"""

import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import psutil

ROOT = Path(__file__).resolve().parents[1]
STACK = ROOT / "dev" / "stack"
_GUARD = """
import os, shutil, signal, subprocess, sys
live = {}
for line in sys.stdin:
    sign, kind, what = line.rstrip("\\n").split(" ", 2)
    live.pop((kind, what), None) if sign == "-" else live.setdefault((kind, what))
for kind, what in live:
    if kind == "group":
        try: os.killpg(int(what), signal.SIGKILL)
        except ProcessLookupError: pass
    elif kind == "stack":
        subprocess.run([sys.executable, sys.argv[1], "down", "--wipe", "--dir", what])
for kind, what in live:
    if kind == "folder": shutil.rmtree(what, ignore_errors=True)
"""


class Guard:
    """Use as a context: at its end nothing that was started lives."""

    def __enter__(self) -> "Guard":
        self._process = subprocess.Popen(
            [sys.executable, "-c", _GUARD, str(STACK)],
            stdin=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
            text=True,
        )
        return self

    def __exit__(self, *exc: object) -> None:
        self._process.communicate(timeout=60)

    def add(self, kind: str, what: object) -> None:
        self._say(f"+ {kind} {what}")

    def remove(self, kind: str, what: object) -> None:
        self._say(f"- {kind} {what}")

    def _say(self, line: str) -> None:
        assert self._process.stdin is not None
        self._process.stdin.write(line + "\n")
        self._process.stdin.flush()


@contextmanager
def temporary_folder(guard: Guard) -> Iterator[Path]:
    """An empty folder, removed at the end."""
    with tempfile.TemporaryDirectory(prefix="soraka-bench-") as folder:
        guard.add("folder", folder)
        yield Path(folder)
    guard.remove("folder", folder)


class Process:
    """`python ARGUMENTS` in a process group of its own; output goes to the file `log`."""

    def __init__(
        self,
        guard: Guard,
        arguments: Sequence[str],
        *,
        log: Path,
        environ: Mapping[str, str] | None = None,
        pipes: bool = False,
    ) -> None:
        self._guard = guard
        self.log = log
        with log.open("ab") as output:
            self._popen = subprocess.Popen(
                [sys.executable, *arguments],
                cwd=ROOT,
                env={**os.environ, **(environ or {})},
                stdin=subprocess.PIPE if pipes else subprocess.DEVNULL,
                stdout=subprocess.PIPE if pipes else output,
                stderr=output,
                start_new_session=True,
                text=True,
            )
        guard.add("group", self._popen.pid)

    @property
    def pid(self) -> int:
        return self._popen.pid

    def say(self, line: str) -> None:
        """Writes a line to its input (with `pipes`)."""
        assert self._popen.stdin is not None
        self._popen.stdin.write(line + "\n")
        self._popen.stdin.flush()

    def hear(self) -> Any:
        """The next line of its output, from JSON. Raises RuntimeError when it has ended."""
        assert self._popen.stdout is not None
        line = self._popen.stdout.readline()
        if not line:
            raise RuntimeError(f"{self._popen.args!r} ended:\n{self.output()}")
        return json.loads(line)

    def check(self) -> None:
        """Raises RuntimeError when it has ended."""
        if self._popen.poll() is not None:
            raise RuntimeError(
                f"{self._popen.args!r} ended with {self._popen.returncode}:\n{self.output()}"
            )

    def output(self) -> str:
        return self.log.read_text(errors="replace")[-4000:]

    def stop(self, limit_s: float = 15.0) -> None:
        """SIGTERM, then SIGKILL to its group. Safe to repeat."""
        self._popen.terminate()
        with suppress(subprocess.TimeoutExpired):
            self._popen.wait(limit_s)
        with suppress(ProcessLookupError):
            os.killpg(self.pid, signal.SIGKILL)
        self._popen.wait(10)
        self._guard.remove("group", self.pid)
        for pipe in (self._popen.stdin, self._popen.stdout):
            if pipe:
                with suppress(OSError):
                    pipe.close()


def wait_until(
    condition: Callable[[], object], limit_s: float, what: str, *, every_s: float = 0.05
) -> None:
    """Returns when `condition` holds; raises TimeoutError at the limit."""
    deadline = time.monotonic() + limit_s
    while not condition():
        if time.monotonic() > deadline:
            raise TimeoutError(f"after {limit_s} s still not: {what}")
        time.sleep(every_s)


class Usage:
    """CPU and memory of named processes, with their children, from the making of this on."""

    def __init__(self, pids: Mapping[str, int]) -> None:
        self._pids = pids
        self._machine = _machine_s()
        self._cpu = self._cpus()
        self._began = time.monotonic()

    def read(self) -> dict[str, dict[str, float]]:
        """Per name `cpu_s` since the making and `rss_mb` now; `machine`: `cpu_s` and `wall_s`."""
        wall = time.monotonic() - self._began
        found = {
            name: {"cpu_s": cpu - self._cpu.get(name, 0.0), "rss_mb": self.rss_mb(name)}
            for name, cpu in self._cpus().items()
        }
        found["machine"] = {"cpu_s": _machine_s() - self._machine, "wall_s": wall}
        return found

    def rss_mb(self, name: str) -> float:
        return sum(p.memory_info().rss for p in _family(self._pids[name])) / 1e6

    def _cpus(self) -> dict[str, float]:
        return {name: sum(map(_cpu_s, _family(pid))) for name, pid in self._pids.items()}


def _family(pid: int) -> list[psutil.Process]:
    process = psutil.Process(pid)
    return [process, *process.children(recursive=True)]


def _cpu_s(process: psutil.Process) -> float:
    times = process.cpu_times()
    return float(times.user + times.system)


def _machine_s() -> float:
    times = psutil.cpu_times()
    return float(sum(times) - times.idle - getattr(times, "iowait", 0.0))
