"""Processes whose wall clock is wrong, by libfaketime: the monotonic clock stays as it is."""

import functools
import os
import subprocess
from collections.abc import Mapping
from pathlib import Path

import pytest

LIBRARY = "libfaketimeMT.so.1"
SLEEP = """
# libfaketime 0.9.10 gets clock_nanosleep wrong when told a moment, as time.sleep does
import select, time
time.sleep = lambda seconds: select.select([], [], [], seconds) and None
"""
FOLLOWS_S = 1.0
"""A process takes up a new offset after this at most."""


@functools.cache
def library() -> str:
    """Its path; skips the test without it, or fails when CI is set."""
    listed = subprocess.run(
        ["dpkg", "-L", "libfaketime"], capture_output=True, text=True, check=False
    )
    for path in listed.stdout.splitlines():
        if path.endswith(f"/{LIBRARY}"):
            return path
    if os.environ.get("CI"):
        pytest.fail("no libfaketime; run dev/stack install")
    pytest.skip("no libfaketime; run dev/stack install")


class WallClock:
    """The clock of one process, settable while it runs. `environ` is for its environment."""

    def __init__(self, file: Path, offset_s: int) -> None:
        self._file = file
        self._site = file.parent / "site"
        self._site.mkdir(exist_ok=True)
        (self._site / "sitecustomize.py").write_text(SLEEP)
        self.set(offset_s)

    def set(self, offset_s: int) -> None:
        """Seconds ahead of the true clock; negative: behind."""
        self.offset_s = offset_s
        new = self._file.with_suffix(".new")
        new.write_text(f"{offset_s:+d}\n")
        new.replace(self._file)  # never half written

    @property
    def environ(self) -> Mapping[str, str]:
        return {
            "LD_PRELOAD": library(),
            "FAKETIME_TIMESTAMP_FILE": str(self._file),
            "FAKETIME_CACHE_DURATION": str(int(FOLLOWS_S)),
            "FAKETIME_DONT_FAKE_MONOTONIC": "1",
            "NO_FAKE_STAT": "1",
            "PYTHONPATH": str(self._site),
        }
