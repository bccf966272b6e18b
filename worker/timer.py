"""Which messages are due, and when to look again. Pure: the caller has the clock and sleeps."""

from heapq import heapify, heappop, heappush
from itertools import islice

CAPACITY = 100_000
_SAMPLE = 1024
_SPARE = 64
"""Superseded entries always tolerated, so that a small timer is not compacted at every turn."""

Entry = tuple[int, int, str]
"""Due time, order of arrival, message id."""


class Timer:
    """At most `capacity` message ids by due time; a heap, and a dict of the entries that hold.

    Moving and discarding leave the old entry in the heap, to be skipped when it comes up; they
    are swept out when they outnumber those that hold.

    Full, it refuses an id that is due no earlier than all it holds, and for an earlier one it
    forgets about the latest eighth at once: finding the single latest in a heap costs as much.
    What is forgotten is due no earlier than what is kept. It comes again, as the refused does,
    when the owner's index is next paged; the earliest come first there too.
    """

    def __init__(self, capacity: int = CAPACITY) -> None:
        if capacity < 1:
            raise ValueError(f"capacity {capacity}: must be at least 1")
        self._capacity = capacity
        self._heap: list[Entry] = []
        self._entries: dict[str, Entry] = {}
        self._arrivals = 0
        self._latest = 0  # no entry that holds is due later

    def push(self, msg_id: str, due_at: int) -> bool:
        """True if it is new or moved. False if it was there with that due time, or is refused.

        Among equal due times, those pushed first come first; moving counts as arriving.
        """
        known = self._entries.get(msg_id)
        if known is not None and known[0] == due_at:
            return False
        full = known is None and len(self._entries) >= self._capacity
        if full and not self._make_room(due_at):
            return False
        entry = (due_at, self._arrivals, msg_id)
        self._arrivals += 1
        self._latest = max(self._latest, due_at)
        self._entries[msg_id] = entry
        heappush(self._heap, entry)
        self._compact()
        return True

    def discard(self, msg_id: str) -> bool:
        """Whether it was there."""
        found = self._entries.pop(msg_id, None) is not None
        self._compact()
        return found

    def pop_due(self, now_ms: int, limit: int) -> list[str]:
        """Takes out what is due at or before `now_ms`, earliest first, at most `limit`."""
        due: list[str] = []
        while len(due) < limit:
            next_ms = self.next_due_ms()
            if next_ms is None or next_ms > now_ms:
                break
            msg_id = heappop(self._heap)[2]
            del self._entries[msg_id]
            due.append(msg_id)
        return due

    def next_due_ms(self) -> int | None:
        """The earliest due time; None when empty."""
        heap = self._heap
        while heap and self._entries.get(heap[0][2]) is not heap[0]:
            heappop(heap)
        return heap[0][0] if heap else None

    def __len__(self) -> int:
        return len(self._entries)

    def __contains__(self, msg_id: object) -> bool:
        return msg_id in self._entries

    def _make_room(self, due_at: int) -> bool:
        if due_at < self._latest:
            # too high since a discard, perhaps: then an earlier one would go for a later one
            self._latest = max(entry[0] for entry in self._entries.values())
        if due_at >= self._latest:
            return False
        self._forget_latest()
        return True

    def _forget_latest(self) -> None:
        # A sample says where the latest eighth begins. Sorting everything would be exact, and
        # stop the process for 60 ms at 100,000; the element it falls on goes in any case.
        stride = len(self._entries) // _SAMPLE + 1
        sample = sorted(islice(self._entries.values(), 0, None, stride))
        first = sample[len(sample) * 7 // 8]
        for entry in [entry for entry in self._entries.values() if entry >= first]:
            del self._entries[entry[2]]

    def _compact(self) -> None:
        if len(self._heap) > 2 * len(self._entries) + _SPARE:
            self._heap = list(self._entries.values())
            heapify(self._heap)
