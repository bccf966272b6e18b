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

log = logging.getLogger(__name__)

BATCH = 200
LINGER_S = 0.005
"""More outcomes come together in this time; nobody waits for a settle."""


class Settling(NamedTuple):
    """An attempt that ended and is to be settled."""

    outcome: Outcome
    topic: str


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
    must neither block nor raise.
    """

    def __init__(
        self,
        store: Store,
        settled: Callable[[list[Settling], list[bool]], None],
        turned: Callable[[], None],
    ) -> None:
        self._store = store
        self._settled = settled
        self._turned = turned
        self._waiting: list[Settling] = []
        self._under_way = 0
        self._filled = Event()
        self._back_off = BackOff("settle")

    def __len__(self) -> int:
        return len(self._waiting) + self._under_way

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
            gevent.sleep(LINGER_S)
            batch, self._waiting = self._waiting[:BATCH], self._waiting[BATCH:]
            if not self._waiting:
                self._filled.clear()
            self._under_way = len(batch)
            answers = self._settle([settling.outcome for settling in batch])
            self._under_way = 0
            try:
                self._settled(batch, answers)
            except Exception:  # the edge of a process: later outcomes must be settled still
                log.exception("settler.failed")

    def _settle(self, outcomes: list[Outcome]) -> list[bool]:
        try:
            return self._taken(outcomes)
        except Exception:  # a defect; it must not cost the others their outcomes
            log.exception("settle.failed", extra={"outcomes": len(outcomes)})
        return [self._settle_alone(outcome) for outcome in outcomes]

    def _settle_alone(self, outcome: Outcome) -> bool:
        try:
            return self._taken([outcome])[0]
        except Exception:  # its lease will run out, and it is called again
            log.exception("settle.dropped", extra={"msg_id": outcome.msg_id})
            return False

    def _taken(self, outcomes: list[Outcome]) -> list[bool]:
        """The store's answers, once it has given them."""
        while True:
            try:
                answers = self._store.settle(outcomes)
            except StoreUnavailable as exc:  # a repetition changes nothing more
                self._back_off.failed(exc)
                gevent.sleep(self._back_off.left_s())
                self._turned()
            else:
                self._back_off.worked()
                return answers
