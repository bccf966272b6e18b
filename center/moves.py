"""Moving messages from one worker to others: whom to, and telling them.

Moving twice does no harm: the owner alone changes, and only if `source` still has the message. A
lease stays with its message, so what the old owner has in memory is answered BUSY or GONE.
"""

from collections import defaultdict
from collections.abc import Collection, Sequence

from center.workers import Workers
from soraka.message import NO_OWNER
from soraka.ports import Clock, DueId, FullStore, Move

PAGE = 500
"""Messages moved in one atomic batch."""
Chosen = tuple[str, DueId]
"""The new owner of a message."""


class Moves:
    """`horizon_ms`: the new owner is told of what falls due sooner than that; the rest it pages."""

    def __init__(
        self, *, store: FullStore, workers: Workers, clock: Clock, horizon_ms: int
    ) -> None:
        self._store = store
        self._workers = workers
        self._clock = clock
        self._horizon_ms = horizon_ms

    def choose(self, page: Sequence[DueId], excluded: str) -> list[Chosen]:
        """A new owner for each; also for ids without a record, which the store then drops."""
        return [
            (self._workers.choose(topic, excluded), due)
            for topic, due in zip(self._topics(page), page, strict=True)
        ]

    def _topics(self, page: Sequence[DueId]) -> Sequence[str]:
        """Of each, or any that is balanced in the same way: reading the messages costs more than
        moving them."""
        if (one_for_all := self._workers.one_for_all()) is not None:
            return [one_for_all] * len(page)
        found = self._store.get([due.msg_id for due in page])
        return [stored.message.topic if stored else "" for stored in found]

    def move(self, source: str, chosen: Collection[Chosen]) -> list[str]:
        """The ids that went to another owner."""
        moves = [
            Move(due.msg_id, source, target)
            for target, due in chosen
            if target not in (source, NO_OWNER)
        ]
        until = self._clock.now_ms() + self._horizon_ms
        near: dict[str, list[DueId]] = defaultdict(list)
        moved = []
        for move, due_at in zip(moves, self._store.assign(moves), strict=True):
            if due_at is not None:
                moved.append(move.msg_id)
                if due_at < until:
                    near[move.target].append(DueId(due_at, move.msg_id))
        self._workers.deliver(near)
        return moved
