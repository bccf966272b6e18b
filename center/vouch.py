"""Vouches for a store that has restarted, once it has been read up.

A Redis that was killed comes back without its last second. What stood there is in the log and is
read up again, but until then a message may seem to be due whose cancel was confirmed. So a process
of the store that has just started answers no claims until a center has seen that every partition,
those of other centers too, is read up to where it ended after the start. Any number of centers may
do this at once.
"""

import logging
import time
from collections.abc import Callable

from soraka.metrics import Metrics
from soraka.ports import FullStore, LogReader

log = logging.getLogger(__name__)

TOLD_EVERY_S = 5.0
LOOK_EVERY_S = 3.0
"""While something is unread, the ends of the log are read again: it may never come."""


class Vouch:
    """`look_again` has the consumer look at the positions at once.

    The ends of the log are read once the restarts have stood unchanged for `apart_s`: so long
    after a fail-over others may still go to the old master, which confirms cancels.
    """

    def __init__(
        self,
        *,
        log: LogReader,
        store: FullStore,
        metrics: Metrics,
        look_again: Callable[[], None],
        apart_s: float = 0,
    ) -> None:
        self._log = log
        self._store = store
        self._metrics = metrics
        self._look_again = look_again
        self._apart_s = apart_s
        self._restarts: frozenset[str] = frozenset()
        self._unread: dict[str, int] | None = None
        self._began_at = self._looked_at = self._told_at = 0.0

    def turn(self) -> None:
        """One look. Raises Unavailable; the next turn begins anew with what is known then."""
        restarts = self._store.restarts()
        if restarts != self._restarts:
            self._begin(restarts)
        if not restarts or time.monotonic() - self._began_at < self._apart_s:
            return
        if not self._is_read_up():
            self._tell()
            return
        self._store.vouch(restarts)
        self._metrics.vouched.inc(len(restarts))
        log.info("store.vouched", extra={"processes": sorted(restarts)})

    def _begin(self, restarts: frozenset[str]) -> None:
        if restarts:
            log.warning("store.restarted", extra={"processes": sorted(restarts)})
            self._look_again()
        self._restarts, self._unread = restarts, None
        self._began_at = self._told_at = time.monotonic()

    def _is_read_up(self) -> bool:
        unread = self._to_read()
        for partition, last in list(unread.items()):
            if min(self._store.positions(partition)) >= last:
                del unread[partition]
        return not unread

    def _to_read(self) -> dict[str, int]:
        """Partition -> last position that must have been read.

        The ends are read after the restarts were seen: what was confirmed before lies before. Later
        they only come down: topics are deleted, records expire, a log may lose its tail.
        """
        if self._unread is None:
            self._unread = self._ends()
        elif time.monotonic() - self._looked_at >= LOOK_EVERY_S:
            ends = self._ends()
            self._unread = {p: min(n, ends[p]) for p, n in self._unread.items() if p in ends}
        return self._unread

    def _ends(self) -> dict[str, int]:
        """Partition -> its last position; without those that are empty."""
        spans = self._log.spans()
        self._looked_at = time.monotonic()
        return {p: end - 1 for p, (oldest, end) in spans.items() if end > oldest}

    def _tell(self) -> None:
        if time.monotonic() - self._told_at >= TOLD_EVERY_S:
            self._told_at = time.monotonic()
            log.warning("store.reading_up", extra={"partitions_to_go": len(self._unread or ())})
