"""Messages of paused topics that have fallen due go to an owner that calls none."""

import logging
from collections import defaultdict
from collections.abc import Mapping, Sequence
from itertools import islice

import gevent
from gevent.event import Event

from soraka.errors import StoreUnavailable
from soraka.message import parked_owner
from soraka.ports import Move, Store
from worker.again import shard_of
from worker.settle import BATCH, LINGER_S, BackOff, Settling

log = logging.getLogger(__name__)


class Parking:
    """Keeps up to `capacity` messages until the store has moved them from `owner`; those beyond
    come up again in the next page."""

    def __init__(self, store: Store, owner: str, capacity: int, shards: int) -> None:
        self._store = store
        self._owner = owner
        self._capacity = capacity
        self._shards = shards
        self._topics: dict[str, str] = {}
        self._filled = Event()
        self._back_off = BackOff("park")

    def __contains__(self, msg_id: str) -> bool:
        return msg_id in self._topics

    def __len__(self) -> int:
        return len(self._topics)

    def put(self, settled: Sequence[Settling]) -> None:
        """Their claims were given back. Never blocks."""
        for settling in settled:
            if len(self._topics) < self._capacity:
                self._topics[settling.outcome.msg_id] = settling.topic
        self._filled.set()

    def run(self) -> None:
        """Body of a greenlet; ends only when killed."""
        while True:
            self._filled.wait()
            gevent.sleep(LINGER_S)
            self._park(dict(islice(self._topics.items(), BATCH)))
            if not self._topics:
                self._filled.clear()
            gevent.sleep(self._back_off.left_s())

    def _park(self, batch: Mapping[str, str]) -> None:
        if self._move(batch):
            self._back_off.worked()
            return
        # of those that failed together, a shard that is away must not hold up the others
        for group in self._by_shard(batch):
            if not self._move(group):
                for msg_id, topic in group.items():  # to the end of the line
                    del self._topics[msg_id]
                    self._topics[msg_id] = topic

    def _move(self, batch: Mapping[str, str]) -> bool:
        """False when the store, or a part of it, did not answer. A repetition does no harm."""
        moves = [Move(i, self._owner, parked_owner(topic)) for i, topic in batch.items()]
        try:
            self._store.assign(moves)
        except StoreUnavailable as exc:
            self._back_off.failed(exc)
            return False
        except Exception:  # a defect; they come up again in the next page
            log.exception("park.failed", extra={"messages": len(moves)})
        for msg_id in batch:
            del self._topics[msg_id]
        return True

    def _by_shard(self, batch: Mapping[str, str]) -> Sequence[Mapping[str, str]]:
        groups: dict[int, dict[str, str]] = defaultdict(dict)
        for msg_id, topic in batch.items():
            groups[shard_of(msg_id, self._shards)][msg_id] = topic
        return list(groups.values())
