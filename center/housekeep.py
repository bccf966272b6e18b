"""Keeps the store in order: how long it keeps what ended well, and an index without leavings."""

import time
from collections.abc import Callable

from soraka.ports import FullStore, Registry

TELL_AGAIN_S = 60.0
"""A store that was emptied has forgotten it."""


class Housekeep:
    """`clock_s` replaces the monotonic clock in tests."""

    def __init__(
        self,
        *,
        store: FullStore,
        registry: Registry,
        clock_s: Callable[[], float] = time.monotonic,
    ) -> None:
        self._store = store
        self._registry = registry
        self._clock_s = clock_s
        self._told: dict[str, int] = {}
        self._told_at = float("-inf")

    def turn(self) -> None:
        """Tells the store the retentions of the topics, when they have changed and once a minute;
        then one step of tidying. Raises StoreUnavailable."""
        wanted = {t.name: t.retention_ms for t in self._registry.topics().values()}
        now_s = self._clock_s()
        if wanted != self._told or now_s - self._told_at >= TELL_AGAIN_S:
            self._store.keep(wanted)
            self._told, self._told_at = wanted, now_s
        self._store.tidy()
