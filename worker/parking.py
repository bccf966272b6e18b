"""Messages of paused topics that have fallen due go to an owner that calls none."""

import logging
from collections.abc import Callable, Sequence

import gevent
from gevent.event import Event

from soraka.errors import StoreUnavailable
from soraka.message import parked_owner
from soraka.ports import Move, Store
from worker.settle import BATCH, LINGER_S, BackOff, Settling

log = logging.getLogger(__name__)


class Parking:
    """`parked` is told of each batch that went, `failed` of each that may not have: to be claimed
    again, after a while. Neither may block or raise."""

    def __init__(
        self,
        store: Store,
        owner: str,
        parked: Callable[[Sequence[Settling]], None],
        failed: Callable[[Sequence[Settling]], None],
    ) -> None:
        self._store = store
        self._owner = owner
        self._parked = parked
        self._failed = failed
        self._waiting: list[Settling] = []
        self._filled = Event()
        self._back_off = BackOff("park")

    def put(self, settled: Sequence[Settling]) -> None:
        """Their claims were given back. Never blocks; whoever fills it bounds what is here."""
        self._waiting.extend(settled)
        self._filled.set()

    def run(self) -> None:
        """Body of a greenlet; ends only when killed."""
        while True:
            self._filled.wait()
            gevent.sleep(LINGER_S)
            batch, self._waiting = self._waiting[:BATCH], self._waiting[BATCH:]
            if not self._waiting:
                self._filled.clear()
            self._park(batch)

    def _park(self, batch: Sequence[Settling]) -> None:
        try:
            self._store.assign(
                [Move(s.outcome.msg_id, self._owner, parked_owner(s.topic)) for s in batch]
            )
        except StoreUnavailable as exc:
            self._back_off.failed(exc)
            self._failed(batch)
        except Exception:  # the edge of a process: later ones must be parked still
            log.exception("park.failed", extra={"messages": len(batch)})
            self._failed(batch)
        else:
            self._back_off.worked()
            self._parked(batch)
