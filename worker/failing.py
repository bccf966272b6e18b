"""What is told of failing callbacks: a count now and then, not a line for each. Pure."""

from collections import Counter
from typing import Any

from soraka.ports import Ended

MAX_TOPICS = 20
"""Told apart; the rest is counted together."""


class Failing:
    """Failed attempts since the last `take`."""

    def __init__(self) -> None:
        self._begin()

    def _begin(self) -> None:
        self._retried: Counter[str] = Counter()
        self._dead: Counter[str] = Counter()
        self._example = ""

    def add(self, topic: str, ended: Ended, reason: str) -> None:
        if ended not in (Ended.RETRY, Ended.DEAD):
            return
        counts = self._dead if ended is Ended.DEAD else self._retried
        counts[topic if topic in counts or len(counts) < MAX_TOPICS else "(others)"] += 1
        self._example = f"{topic}: {reason}"

    def take(self) -> dict[str, Any] | None:
        """What to tell, and begins anew; None when nothing failed."""
        if not self._example:
            return None
        told = {
            "retried": dict(self._retried),
            "dead": dict(self._dead),
            "example": self._example[:300],
        }
        self._begin()
        return told
