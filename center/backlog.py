"""How many messages wait, and for how long: asked now and then, for the metrics of this center."""

from soraka.message import parked_topic
from soraka.metrics import Metrics
from soraka.ports import Clock, FullStore


class BacklogFigures:
    """Every center shows the same, those of the whole store."""

    def __init__(self, *, store: FullStore, clock: Clock, metrics: Metrics) -> None:
        self._store = store
        self._clock = clock
        self._metrics = metrics

    def turn(self) -> None:
        """One look. Raises StoreUnavailable, and the figures stay as they were."""
        now = self._clock.now_ms()
        found = self._store.backlog(now)
        pending = self._store.totals().pending
        self._metrics.pending.set(sum(pending.values()))
        self._metrics.parked.set(sum(n for o, n in pending.items() if parked_topic(o) is not None))
        self._metrics.overdue.set(found.overdue)
        oldest = now if found.oldest_due_at is None else found.oldest_due_at
        self._metrics.oldest_overdue.set(max(0, now - oldest) / 1000)
