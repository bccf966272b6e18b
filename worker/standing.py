"""Whether a claim that was made a while ago still stands.

A store that was killed may come back without it. Then a cancel finds no lease, and is confirmed.
"""

import logging
import time
from typing import NamedTuple

from gevent.event import AsyncResult
from gevent.pool import Group

from soraka.errors import StoreUnavailable
from soraka.message import State, Stored
from soraka.ports import Claim, FullStore
from worker.again import shard_of

log = logging.getLogger(__name__)

BATCH = 100
LONGEST_S = 1.0
"""For an answer; whoever waits for one has a place at a gate."""


class _Question(NamedTuple):
    msg_id: str
    until: float
    answer: "AsyncResult[Stored | None]"


class Standing:
    """Asks the store, about many at a time, and each of its shards apart from the others."""

    def __init__(self, store: FullStore, shards: int, greenlets: Group) -> None:
        self._shards = [_Shard(store, greenlets) for _ in range(shards)]

    def stands(self, msg_id: str, claim: Claim, wait_s: float) -> bool:
        """False also when the store gives no answer in `wait_s`."""
        shard = self._shards[shard_of(msg_id, len(self._shards))]
        answer = shard.ask(msg_id, min(wait_s, LONGEST_S))
        # `at` is the end of no other lease: each was taken later than the one before
        return (
            answer is not None and answer.state is State.PENDING and answer.lease_until == claim.at
        )


class _Shard:
    """One question to it is under way at a time; the next is about all who wait by then."""

    def __init__(self, store: FullStore, greenlets: Group) -> None:
        self._store = store
        self._greenlets = greenlets
        self._waiting: list[_Question] = []
        self._asking = False

    def ask(self, msg_id: str, wait_s: float) -> Stored | None:
        """None when it is not there, or no answer came in time."""
        question = _Question(msg_id, time.monotonic() + wait_s, AsyncResult())
        self._waiting.append(question)
        if not self._asking:
            self._asking = True
            self._greenlets.spawn(self._run)
        question.answer.wait(timeout=max(0.0, wait_s))
        return question.answer.value

    def _run(self) -> None:
        try:
            while self._waiting:
                batch, self._waiting = self._waiting[:BATCH], self._waiting[BATCH:]
                now = time.monotonic()
                if batch := [question for question in batch if question.until > now]:
                    self._answer(batch)
        finally:
            self._asking = False

    def _answer(self, batch: list[_Question]) -> None:
        found: list[Stored | None] = [None] * len(batch)
        try:
            found = self._store.get([question.msg_id for question in batch])
        except StoreUnavailable as exc:
            log.debug("standing.unknown", extra={"reason": str(exc)})
        except Exception:  # a defect; they are given back, and claimed again
            log.exception("standing.failed", extra={"messages": len(batch)})
        for question, stored in zip(batch, found, strict=True):
            question.answer.set(stored)
