"""Claims that came before their time, until that has come. Pure: the caller has the clock."""

from heapq import heappop, heappush
from itertools import count

from soraka.ports import Claim

SPACING_S = 0.004
"""Between two looks: what falls due meanwhile goes together, what comes alone goes at once."""


class Early:
    """Times are on the monotonic clock."""

    def __init__(self) -> None:
        self._heap: list[tuple[float, int, str, Claim]] = []
        self._arrivals = count()
        self._not_before = 0.0

    def __len__(self) -> int:
        return len(self._heap)

    def put(self, msg_id: str, claim: Claim, at: float) -> None:
        """`at` is when its call may leave."""
        heappush(self._heap, (at, next(self._arrivals), msg_id, claim))

    def take(self, now: float) -> list[tuple[str, Claim]]:
        """Those whose time has come, in its order."""
        heap = self._heap
        if not heap or heap[0][0] > now or self._not_before > now:
            return []
        self._not_before = now + SPACING_S
        due = []
        while heap and heap[0][0] <= now:
            _, _, msg_id, claim = heappop(heap)
            due.append((msg_id, claim))
        return due

    def wait_s(self, now: float) -> float | None:
        """When to look again; None when there is none."""
        if not self._heap:
            return None
        return max(0.0, self._heap[0][0] - now, self._not_before - now)
