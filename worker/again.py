"""When to ask the store again about what it did not answer, or not as expected. Pure."""

from binascii import crc32
from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import islice

LONGEST_PACE_MS = 64
FIRST_MS = 10
LONGEST_MS = 500
PROBE = 10
"""So many are asked about while no answer comes."""


class Paces:
    """For messages that should be due and are not yet: our clock is ahead of the store's."""

    def __init__(self, capacity: int) -> None:
        self._capacity = capacity
        self._paces: dict[str, int] = {}

    def not_before(self, msg_id: str, at: int, now: int) -> int:
        """`at`; or a little after now when that has passed, each time a little more."""
        if at > now:
            self.forget(msg_id)
            return at
        if len(self._paces) > self._capacity:
            self._paces.clear()
        pace_ms = self._paces[msg_id] = min(LONGEST_PACE_MS, 2 * self._paces.get(msg_id, 1))
        return now + pace_ms

    def forget(self, msg_id: str) -> None:
        self._paces.pop(msg_id, None)


@dataclass(slots=True)
class _Shard:
    """Its messages in their order. One question to it is under way at a time."""

    ids: dict[str, None] = field(default_factory=dict)
    asking: bool = False
    pace_ms: int = FIRST_MS
    not_before: int = 0

    def is_ready(self, now: int) -> bool:
        return bool(self.ids) and not self.asking and now >= self.not_before


class Unanswered:
    """Messages whose shard does not answer claims, apart from others and from other shards'.

    While a shard does not answer, a few of its messages are asked about, less and less often;
    once it does, the rest follows quickly.
    """

    def __init__(self, capacity: int, shards: int) -> None:
        self._capacity = capacity
        self._shards = [_Shard() for _ in range(shards)]
        self._next = 0
        self._count = 0

    def __len__(self) -> int:
        return self._count

    def __contains__(self, msg_id: str) -> bool:
        return self._count > 0 and msg_id in self._shard(msg_id).ids

    def put(self, msg_id: str, now: int) -> None:
        """One that was asked about with others. Beyond the capacity it is left to the next page."""
        shard = self._shard(msg_id)
        if not shard.ids and not shard.asking:
            shard.pace_ms = FIRST_MS
            shard.not_before = now + FIRST_MS
        if self._count < self._capacity:
            self._keep(shard, msg_id)

    def take(self, now: int, limit: int) -> list[str]:
        """Those of one shard to ask about now; `asked` must follow unless there are none."""
        if not self._count:
            return []
        for _ in self._shards:
            self._next = (self._next + 1) % len(self._shards)
            shard = self._shards[self._next]
            if shard.is_ready(now):
                return self._take(shard, limit)
        return []

    def asked(self, taken: Sequence[str], unknown: Sequence[str], now: int) -> None:
        """What came of those taken: `unknown` were asked about in vain."""
        shard = self._shard(taken[0])
        shard.asking = False
        answered = len(unknown) < len(taken)
        shard.pace_ms = FIRST_MS if answered else min(LONGEST_MS, 2 * shard.pace_ms)
        shard.not_before = now + shard.pace_ms
        for msg_id in unknown:
            self._keep(shard, msg_id)

    def next_ms(self) -> int | None:
        """When to look again; None when nothing waits."""
        if not self._count:
            return None
        times = (shard.not_before for shard in self._shards if shard.ids and not shard.asking)
        return min(times, default=None)

    def _take(self, shard: _Shard, limit: int) -> list[str]:
        size = limit if shard.pace_ms == FIRST_MS else min(limit, PROBE)
        taken = list(islice(shard.ids, size))
        for msg_id in taken:
            del shard.ids[msg_id]
        self._count -= len(taken)
        shard.asking = bool(taken)
        return taken

    def _keep(self, shard: _Shard, msg_id: str) -> None:
        self._count += msg_id not in shard.ids
        shard.ids[msg_id] = None

    def _shard(self, msg_id: str) -> _Shard:
        return self._shards[shard_of(msg_id, len(self._shards))]


def shard_of(msg_id: str, shards: int) -> int:
    """As `ports.Store` has it."""
    return crc32(msg_id.encode()) % shards
