"""Whether a claim still stands.

A store that was killed may come back without it. Then a cancel finds no lease, and is confirmed.
So before a call leaves, the server must have been seen, a moment ago at most, in the life in which
it gave the claim. Under load the claims that come all the time show that; else it is asked.
"""

import logging
import time
from typing import NamedTuple

import gevent
from gevent.pool import Group

from soraka.errors import StoreUnavailable
from soraka.ports import Claim, FullStore
from worker.again import shard_of

log = logging.getLogger(__name__)

SURE_S = 0.02
"""In so short a time no store has lost a claim, come back and confirmed a cancel."""
LONGEST_S = 1.0
"""For an answer; whoever waits for one has a place at a gate."""


class _Seen(NamedTuple):
    """A life of a shard's server, in which it was at some time after `asked`."""

    life: str
    asked: float


class Standing:
    """What is known of each shard, and the questions to it: one is under way at a time."""

    def __init__(self, store: FullStore, shards: int, greenlets: Group) -> None:
        self._shards = [_Shard(store, greenlets) for _ in range(shards)]

    def claimed(self, msg_id: str, claim: Claim, asked: float) -> None:
        """A claim that came; `asked` for at that time, on the monotonic clock."""
        if claim.life:
            self._shard(msg_id).see(claim.life, asked)

    def stands(self, msg_id: str, claim: Claim, wait_s: float) -> bool:
        """False also when the store gives no answer in `wait_s`."""
        if not claim.life:
            return True
        return self._shard(msg_id).life(msg_id, min(wait_s, LONGEST_S)) == claim.life

    def _shard(self, msg_id: str) -> "_Shard":
        return self._shards[shard_of(msg_id, len(self._shards))]


class _Shard:
    def __init__(self, store: FullStore, greenlets: Group) -> None:
        self._store = store
        self._greenlets = greenlets
        self._seen = _Seen("", 0.0)
        self._question: gevent.Greenlet[..., bool] | None = None

    def see(self, life: str, asked: float) -> None:
        if asked > self._seen.asked:
            self._seen = _Seen(life, asked)

    def life(self, msg_id: str, wait_s: float) -> str | None:
        """As seen a moment before now, or later; None when no answer came in time."""
        now = time.monotonic()
        while self._seen.asked < now - SURE_S:
            if self._question is None:
                self._question = self._greenlets.spawn(self._ask, msg_id)
            question = self._question
            question.join(timeout=max(0.0, now + wait_s - time.monotonic()))
            if not question.value:
                return None
        return self._seen.life

    def _ask(self, msg_id: str) -> bool:
        asked = time.monotonic()
        try:
            self.see(self._store.life(msg_id), asked)
            return True
        except StoreUnavailable as exc:
            log.debug("standing.unknown", extra={"reason": str(exc)})
        except Exception:  # a defect; they are given back, and claimed again
            log.exception("standing.failed")
        finally:
            self._question = None
        return False
