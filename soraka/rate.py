"""So many per second, and no more: the generic cell rate algorithm. Pure."""

BURST_MS = 200
"""What was not used may be made up for over so long; at least one goes at any time."""


class Rate:
    """Lets `per_second` through on average; in any stretch of time T no more than
    `per_second` * (T + BURST_MS) and one more. Times are ms on any clock that does not go back."""

    __slots__ = ("_line_end", "_next", "per_second")

    def __init__(self, per_second: float) -> None:
        self.per_second = per_second
        self._next = float("-inf")  # when one more is due, had all gone evenly
        self._line_end = float("-inf")

    def wait_ms(self, now: float) -> float:
        """Until one may go; 0 when it may now."""
        return max(0.0, self._next - BURST_MS - now)

    def take(self, now: float, count: int = 1) -> None:
        """So many go now."""
        self._next = max(self._next, now) + count * 1000 / self.per_second

    def fitting(self, now: float) -> int:
        """How many may go at once."""
        if self.wait_ms(now):
            return 0
        left_ms = now + BURST_MS - max(self._next, now)
        return 1 + int(left_ms * self.per_second / 1000)

    def has_line(self, now: float) -> bool:
        """Whether some were told to come back that have not yet been due."""
        return self._line_end > now

    def line_up(self, now: float) -> float:
        """The next place in the line: in how many ms to come back."""
        soonest = now + max(self.wait_ms(now), 1.0)
        self._line_end = max(self._line_end, soonest) + 1000 / self.per_second
        return self._line_end - now

    def cut_line(self, now: float, longest_ms: float) -> None:
        """Nobody waits longer than that."""
        self._line_end = min(self._line_end, now + longest_ms)
