"""Whether a claim still stands.

A store that was killed may come back without it. Then a cancel finds no lease, and is confirmed.
So before a call leaves, the server must have been seen, a moment ago at most, in the life in which
it gave the claim. Under load the claims that come all the time show that; else it is asked.
"""

import logging
import time

import gevent
from gevent.pool import Group

from soraka.errors import StoreUnavailable
from soraka.ports import Claim, FullStore

log = logging.getLogger(__name__)

SURE_S = 0.05
"""In so short a time no store has lost a claim, come back and confirmed a cancel. When half of it
has gone the question is asked, so that nobody need wait for the answer."""
LONGEST_S = 1.0
"""For an answer; whoever waits for one has a place at a gate."""
REMEMBERED = 64
"""Lives; each server has one at a time."""


class Standing:
    """When each life was seen last; of each one question is under way at a time.

    A life is that of a server, so one shard tells of all that live there."""

    def __init__(self, store: FullStore, greenlets: Group) -> None:
        self._store = store
        self._greenlets = greenlets
        self._seen: dict[str, float] = {}
        self._questions: dict[str, gevent.Greenlet[..., bool]] = {}

    def claimed(self, claim: Claim, asked: float) -> None:
        """A claim that came; `asked` for at that time, on the monotonic clock."""
        if claim.life:
            self._see(claim.life, asked)

    def stands(self, msg_id: str, claim: Claim, wait_s: float) -> bool:
        """False also when the store gives no answer in `wait_s`."""
        life = claim.life
        if not life:
            return True
        now = time.monotonic()
        if self._age_s(life, now) > SURE_S / 2:
            self._question(life, msg_id)
        until = now + min(wait_s, LONGEST_S)
        while self._age_s(life, now) > SURE_S:
            question = self._question(life, msg_id)
            question.join(timeout=max(0.0, until - time.monotonic()))
            if not question.value:
                return False
        return True

    def _age_s(self, life: str, now: float) -> float:
        return now - self._seen.get(life, 0.0)

    def _see(self, life: str, asked: float) -> None:
        if asked > self._seen.get(life, 0.0):
            self._seen.pop(life, None)
            self._seen[life] = asked
            if len(self._seen) > REMEMBERED:
                del self._seen[next(iter(self._seen))]

    def _question(self, life: str, msg_id: str) -> "gevent.Greenlet[..., bool]":
        if life not in self._questions:
            self._questions[life] = self._greenlets.spawn(self._ask, life, msg_id)
        return self._questions[life]

    def _ask(self, life: str, msg_id: str) -> bool:
        """Whether it is the present one."""
        asked = time.monotonic()
        try:
            present = self._store.life(msg_id)
            self._see(present, asked)
            return present == life
        except StoreUnavailable as exc:
            log.debug("standing.unknown", extra={"reason": str(exc)})
        except Exception:  # a defect; they are given back, and claimed again
            log.exception("standing.failed")
        finally:
            del self._questions[life]
        return False
