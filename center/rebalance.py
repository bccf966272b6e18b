"""Balancing the pending messages of a topic anew, a page at a call.

Twice over all owners: first the messages of the topic are counted, then those with more than
their share give the surplus to those with less. Nothing is moved twice, and no message that may
stay is moved. All that is known is in the cursor, so any center can serve the next page.
"""

import json
from collections import Counter, deque
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from center.moves import PAGE, Chosen, Moves
from center.workers import Workers
from soraka.errors import InvalidParams
from soraka.message import parked_topic
from soraka.ports import DueId, FullStore

LOOKED_AT_ONCE = 1000


@dataclass(slots=True)
class _State:
    """`owners` are those not yet done; of the first, the store goes on at `at`. `spare` is None
    while they are counted; then it says how many each has too much (above 0) or too little."""

    owners: list[str]
    at: str = ""
    counts: Counter[str] = field(default_factory=Counter)
    spare: dict[str, int] | None = None

    def next_owner(self) -> None:
        self.owners, self.at = self.owners[1:], ""


class Rebalance:
    def __init__(self, *, store: FullStore, workers: Workers, moves: Moves) -> None:
        self._store = store
        self._workers = workers
        self._moves = moves

    def page(self, topic: str, cursor: str) -> tuple[int, int, str]:
        """How many messages were looked at and moved, and the cursor to go on with; '' at the end.

        A page that is asked for again moves up to as many again. Raises InvalidParams for what is
        no cursor, StoreUnavailable.
        """
        state = _decode(cursor) if cursor else _State(self._owners())
        looked_at = moved = 0
        if state.owners:
            owner = state.owners[0]
            rows, state.at = self._store.scan(owner, state.at, LOOKED_AT_ONCE)
            looked_at = len(rows)
            moved = self._do(topic, state, owner, rows)
            if not state.at or (state.spare is not None and state.spare[owner] <= 0):
                state.next_owner()
        if not state.owners and state.spare is None:
            self._weigh(topic, state)
        return looked_at, moved, _encode(state) if state.owners else ""

    def _owners(self) -> list[str]:
        return sorted(owner for owner in self._store.owners() if parked_topic(owner) is None)

    def _do(self, topic: str, state: _State, owner: str, rows: Sequence[DueId]) -> int:
        of_topic = [
            row
            for row, stored in zip(rows, self._store.get([r.msg_id for r in rows]), strict=True)
            if stored is not None and stored.message.topic == topic
        ]
        if state.spare is None:
            state.counts[owner] += len(of_topic)
            return 0
        chosen = list(_spread(of_topic[: state.spare[owner]], state.spare))
        moved = 0
        for start in range(0, len(chosen), PAGE):
            moved += len(self._moves.move(owner, chosen[start : start + PAGE]))
        state.spare[owner] -= len(chosen)
        return moved

    def _weigh(self, topic: str, state: _State) -> None:
        state.spare = surplus(state.counts, self._workers.shares(topic))
        state.owners = sorted(owner for owner, spare in state.spare.items() if spare > 0)


def surplus(counts: Mapping[str, int], shares: Mapping[str, float]) -> dict[str, int]:
    """How many messages each has above its share, or below; 0 in sum.

    Who has no share gives all. Without any shares nobody gives anything.
    """
    if not shares:
        return {}
    whole = sum(counts.values())
    exact = {owner: whole * share for owner, share in shares.items()}
    wanted = {owner: int(messages) for owner, messages in exact.items()}
    # what rounding left over, to those it took most from
    by_loss = sorted(exact, key=lambda owner: (wanted[owner] - exact[owner], owner))
    for owner in by_loss[: whole - sum(wanted.values())]:
        wanted[owner] += 1
    everyone = sorted({*counts, *wanted})
    return {owner: counts.get(owner, 0) - wanted.get(owner, 0) for owner in everyone}


def _spread(rows: Iterable[DueId], spare: dict[str, int]) -> Iterable[Chosen]:
    """Gives rows to those that have too little, in turns; notes it in `spare`."""
    takers = deque(owner for owner, messages in spare.items() if messages < 0)
    for row in rows:
        if not takers:
            return
        taker = takers.popleft()
        spare[taker] += 1
        if spare[taker] < 0:
            takers.append(taker)
        yield taker, row


def _encode(state: _State) -> str:
    counted = state.counts if state.spare is None else state.spare
    return json.dumps([state.spare is not None, state.owners, state.at, counted])


def _decode(cursor: str) -> _State:
    try:
        weighed, owners, at, counted = json.loads(cursor)
        numbers = {str(owner): int(number) for owner, number in counted.items()}
        state = _State([str(owner) for owner in owners], str(at))
    except (ValueError, TypeError, AttributeError) as exc:
        raise InvalidParams("cursor", f"was not given by a center: {exc}") from exc
    if weighed and not numbers.keys() >= set(state.owners):
        raise InvalidParams("cursor", "was not given by a center")
    if weighed:
        state.spare = numbers
    else:
        state.counts = Counter(numbers)
    return state
