"""How much this process uses, as the system counts."""

import os
import time
from collections import deque
from pathlib import Path

WINDOW_S = 2.0
_STATM = Path("/proc/self/statm")
_PAGE_BYTES = os.sysconf("SC_PAGE_SIZE")


class Cpu:
    """Share of one core, over about the last two seconds when it is asked every second."""

    def __init__(self) -> None:
        self._samples = deque([_sample()])

    def share(self) -> float:
        """1.0 is all of one core. Since the last time asked, if that is longer ago."""
        now, used = _sample()
        while len(self._samples) > 1 and self._samples[1][0] <= now - WINDOW_S:
            self._samples.popleft()
        since, before = self._samples[0]
        self._samples.append((now, used))
        return (used - before) / (now - since) if now > since else 0.0


def memory_bytes() -> int:
    """Resident memory; 0 where the system does not say."""
    try:
        return int(_STATM.read_text().split()[1]) * _PAGE_BYTES
    except (OSError, ValueError, IndexError):
        return 0


def _sample() -> tuple[float, float]:
    return time.monotonic(), time.process_time()
