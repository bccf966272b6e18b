"""What others on this machine take away, for tests that measure time."""

import time
from bisect import bisect_left, bisect_right
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import gevent

EVERY_S = 0.01


class Withheld:
    """For how long threads of this process were ready to run and had no CPU."""

    def __init__(self) -> None:
        self._times: list[float] = []
        self._sums: list[float] = []
        self._note()

    def between(self, start: float, end: float) -> float:
        """In ms; the times are ms since the epoch. Nothing where the system does not tell."""
        self._note()
        first = max(0, bisect_right(self._times, start) - 1)
        last = min(len(self._times) - 1, bisect_left(self._times, end))
        return max(0.0, self._sums[last] - self._sums[first])

    def note_forever(self) -> None:
        while True:
            gevent.sleep(EVERY_S)
            self._note()

    def _note(self) -> None:
        self._times.append(time.time() * 1000)
        self._sums.append(_withheld_ms())


@contextmanager
def withheld() -> Iterator[Withheld]:
    """Notes it for the length of the block."""
    made = Withheld()
    noting = gevent.spawn(made.note_forever)
    try:
        yield made
    finally:
        noting.kill()


def _withheld_ms() -> float:
    """Since its threads began, as Linux tells it."""
    total_ns = 0
    for file in Path("/proc/self/task").glob("*/schedstat"):
        with suppress(OSError):  # a thread that has just ended
            total_ns += int(file.read_text().split()[1])
    return total_ns / 1e6
