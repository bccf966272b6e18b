"""How long the store takes, by operation: a thin wrapper around whichever there is."""

import time
from collections.abc import Callable
from typing import Any

from soraka.ports import FullStore

Observe = Callable[[float], object]
"""Gets seconds."""
OPERATIONS = frozenset(name for name in dir(FullStore) if not name.startswith("_")) - {"close"}


class TimedStore:
    """A FullStore. `timer` gives, for an operation, what is told how long each call of it took;
    it costs about 2 us a call."""

    def __init__(self, store: FullStore, timer: Callable[[str], Observe]) -> None:
        self._store = store
        self._timer = timer

    def __getattr__(self, name: str) -> Any:
        """At the first use; from then on it is an attribute like any other."""
        found = getattr(self._store, name)
        if name in OPERATIONS:
            found = _timed(found, self._timer(name))
            setattr(self, name, found)
        return found


def _timed(method: Callable[..., Any], observe: Observe) -> Callable[..., Any]:
    clock = time.monotonic

    def call(*args: Any, **named: Any) -> Any:
        began = clock()
        try:
            return method(*args, **named)
        finally:
            observe(clock() - began)

    return call
