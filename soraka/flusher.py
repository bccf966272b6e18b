"""Writes what a tally has counted to the store, now and then, beside everything else."""

import logging

import gevent
from gevent.event import Event

from soraka.errors import StoreUnavailable
from soraka.ports import NotAdded, StoreArchive
from soraka.stats import Tally

log = logging.getLogger(__name__)

EVERY_S = 5.0
LAST_S = 1.0
"""At the end, a store that does not answer is waited for no longer."""


class Flusher:
    """One greenlet from `start` on. What the store surely did not take is kept for the next time;
    what it may have taken is not, as it would be counted twice."""

    def __init__(self, store: StoreArchive, tally: Tally, every_s: float = EVERY_S) -> None:
        self._store = store
        self._tally = tally
        self._every_s = every_s
        self._stopping = Event()
        self._greenlet: gevent.Greenlet[..., None] | None = None
        self._failing = False

    def start(self) -> None:
        """Once only."""
        self._greenlet = gevent.spawn(self._run)

    def stop(self) -> None:
        """Writes what there is, and ends. Safe to repeat."""
        self._stopping.set()
        if self._greenlet is not None:
            self._greenlet.join(timeout=LAST_S)
            self._greenlet.kill()
            self._greenlet = None

    def _run(self) -> None:
        while not self._stopping.wait(self._every_s):
            self._flush()
        self._flush()

    def _flush(self) -> None:
        samples = self._tally.take()
        if not samples:
            return
        try:
            left = self._store.add_stats(samples)
        except StoreUnavailable as exc:
            left = NotAdded(lost=len(samples), reason=str(exc))
        except Exception:  # a defect in what is written must not end the counting
            log.exception("stats.failed", extra={"samples": len(samples)})
            return
        dropped = left.lost + self._tally.put_back(left.again)
        failing = bool(left.again or left.lost)
        if failing and not self._failing:
            log.warning("stats.not_written", extra={"reason": left.reason, "dropped": dropped})
        self._failing = failing
