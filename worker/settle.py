"""Writing outcomes to the store, many at a time, until it has taken them."""

import logging
import random
import time
from collections.abc import Callable
from typing import NamedTuple

import gevent
from gevent.event import Event

from soraka.errors import StoreUnavailable
from soraka.ports import Outcome, Store
from worker.again import shard_of

log = logging.getLogger(__name__)

BATCH = 200
LINGER_S = 0.02
"""More outcomes come together in this time; nobody waits for a settle."""


class Settling(NamedTuple):
    """An attempt that ended and is to be settled. `park`: then the message is to be parked."""

    outcome: Outcome
    topic: str
    park: bool = False


class BackOff:
    """How long to leave the store alone: doubles with each failure in a row, with jitter."""

    FIRST_S = 0.05
    LONGEST_S = 2.0

    def __init__(self, what: str) -> None:
        self._what = what
        self._failures = 0
        self._until = 0.0

    def failed(self, exc: StoreUnavailable) -> None:
        """Logs the first failure of an outage."""
        if not self._failures:
            log.warning("store.unavailable", extra={"doing": self._what, "reason": str(exc)})
        delay_s = min(self.LONGEST_S, self.FIRST_S * 2 ** min(self._failures, 16))
        self._failures += 1
        self._until = time.monotonic() + delay_s * random.uniform(0.5, 1)

    def worked(self) -> None:
        """Ends the outage."""
        if self._failures:
            log.info("store.back", extra={"doing": self._what, "failures": self._failures})
            self._failures = 0
            self._until = 0.0

    def left_s(self) -> float:
        """How long still; 0 when it may be asked."""
        return max(0.0, self._until - time.monotonic()) if self._failures else 0.0


class Settler:
    """Keeps outcomes until settled; whoever fills it looks at `len` first.

    `settled` gets each batch with the store's answers, False for an outcome that was dropped; it
    must neither block nor raise. Outcomes for a shard that does not answer are set apart, so that
    they hold up no others; of a batch that failed nobody knows which those are, so all are.
    """

    def __init__(
        self,
        store: Store,
        settled: Callable[[list[Settling], list[bool]], None],
        turned: Callable[[], None],
        shards: int = 1,
    ) -> None:
        self._store = store
        self._settled = settled
        self._turned = turned
        self._shards = shards
        self._waiting: list[Settling] = []
        self._under_way = 0
        self._filled = Event()
        self._apart: dict[int, list[Settling]] = {}
        self._set_apart = Event()
        self._back_off = BackOff("settle")

    def __len__(self) -> int:
        return len(self._waiting) + self._under_way + sum(map(len, self._apart.values()))

    def put(self, settling: Settling) -> None:
        """Never blocks."""
        self._waiting.append(settling)
        self._filled.set()

    def run(self) -> None:
        """Body of a greenlet; ends only when killed."""
        while True:
            self._turned()
            if not self._filled.wait(timeout=1):
                continue
            if len(self._waiting) < BATCH:
                gevent.sleep(LINGER_S)
            batch, self._waiting = self._waiting[:BATCH], self._waiting[BATCH:]
            if not self._waiting:
                self._filled.clear()
            if self._apart:
                batch = self._without_apart(batch)
            if not batch:
                continue
            self._under_way = len(batch)
            if not self._settle(batch):
                self._put_apart(batch)
            self._under_way = 0

    def run_apart(self) -> None:
        """Body of another: tries those set apart until they are settled."""
        while True:
            self._set_apart.wait()
            for shard in list(self._apart):
                while self._settle_first(shard):
                    pass
            if not self._apart:
                self._set_apart.clear()
                self._back_off.worked()
            gevent.sleep(self._back_off.left_s())

    def _settle_first(self, shard: int) -> bool:
        """A batch of those set apart, which stay in their place until they are settled. Whether
        there may be more to do."""
        group = self._apart[shard][:BATCH]
        if not self._settle(group):
            return False
        del self._apart[shard][: len(group)]
        if not self._apart[shard]:
            del self._apart[shard]
        return shard in self._apart

    def _put_apart(self, batch: list[Settling]) -> None:
        for settling in batch:
            shard = shard_of(settling.outcome.msg_id, self._shards)
            self._apart.setdefault(shard, []).append(settling)
        self._set_apart.set()

    def _without_apart(self, batch: list[Settling]) -> list[Settling]:
        """Those of shards that answered last time; the others line up behind theirs."""
        free: list[Settling] = []
        for settling in batch:
            shard = shard_of(settling.outcome.msg_id, self._shards)
            self._apart.get(shard, free).append(settling)
        return free

    def _settle(self, batch: list[Settling]) -> bool:
        """False when the store, or a part of it, did not answer. A repetition changes nothing."""
        try:
            answers = self._store.settle([settling.outcome for settling in batch])
        except StoreUnavailable as exc:
            self._back_off.failed(exc)
            return False
        except Exception:  # a defect; it must not cost the others their outcomes
            log.exception("settle.failed", extra={"outcomes": len(batch)})
            for settling in batch:
                self._settle_alone(settling)
        else:
            self._tell(batch, answers)
        return True

    def _settle_alone(self, settling: Settling) -> None:
        try:
            answers = self._store.settle([settling.outcome])
        except StoreUnavailable:
            self._put_apart([settling])
        except Exception:  # its lease will run out, and it is called again
            log.exception("settle.dropped", extra={"msg_id": settling.outcome.msg_id})
            self._tell([settling], [False])
        else:
            self._tell([settling], answers)

    def _tell(self, batch: list[Settling], answers: list[bool]) -> None:
        try:
            self._settled(batch, answers)
        except Exception:  # the edge of a process: later outcomes must be settled still
            log.exception("settler.failed")
