"""The programs of `examples/`, by language, as they are run there."""

import os
import subprocess
from collections.abc import Mapping
from pathlib import Path

EXAMPLES = Path(__file__).parents[2] / "examples"
_CLASSES = f"{EXAMPLES}/java/target/classes:{EXAMPLES}/java/target/lib/*"
_PYTHON = f"{EXAMPLES}/python/build/venv/bin/python"
CLIENTS = {
    "cpp": [f"{EXAMPLES}/cpp/build/client"],
    "go": [f"{EXAMPLES}/go/build/client"],
    "java": ["java", "-cp", _CLASSES, "example.Client"],
    "nodejs": ["node", f"{EXAMPLES}/nodejs/client.js"],
    "python": [_PYTHON, f"{EXAMPLES}/python/client.py"],
}
RECEIVERS = {
    "cpp": [f"{EXAMPLES}/cpp/build/receiver"],
    "go": [f"{EXAMPLES}/go/build/receiver"],
    "java": ["java", "-cp", _CLASSES, "example.Receiver"],
    "nodejs": ["node", f"{EXAMPLES}/nodejs/receiver.js"],
    "python": [_PYTHON, f"{EXAMPLES}/python/receiver.py"],
}
LANGUAGES = sorted(CLIENTS)


class Program:
    """One that runs, and is spoken to by lines."""

    def __init__(self, command: list[str], environ: Mapping[str, str], log: Path) -> None:
        self._log = log
        with log.open("wb") as errors:
            self._process = subprocess.Popen(
                command,
                env={**os.environ, "PYTHONPATH": f"{EXAMPLES}/python/build/gen", **environ},
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=errors,
                text=True,
            )
        assert self._process.stdin
        assert self._process.stdout
        self._input, self._output = self._process.stdin, self._process.stdout

    @property
    def has_ended(self) -> bool:
        return self._process.poll() is not None

    @property
    def errors(self) -> str:
        return self._log.read_text()

    def say(self, line: str) -> None:
        self._input.write(f"{line}\n")
        self._input.flush()

    def line(self) -> str:
        """The next one that it prints. Fails when there is none any more."""
        line = self._output.readline()
        assert line, f"it ended: {self.errors}"
        return line.rstrip("\n")

    def end(self) -> int:
        """Of its input; the exit code."""
        self._input.close()
        return self._process.wait(20)

    def close(self) -> None:
        self._process.kill()
        self._process.wait(10)
        self._input.close()
        self._output.close()
