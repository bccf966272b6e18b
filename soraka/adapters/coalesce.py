"""Calling someone back without waiting for it, and not more often than it can take."""

from collections.abc import Callable

import gevent


class Coalesced:
    """Calls `function` in a greenlet of its own; requests during a call make one more call."""

    def __init__(self, function: Callable[[], None]) -> None:
        self._function = function
        self._asked = False
        self._greenlet: gevent.Greenlet[..., None] | None = None

    def ask(self) -> None:
        """Never blocks. What `function` raises is printed by gevent; the next call comes anyway."""
        self._asked = True
        if self._greenlet is None or self._greenlet.dead:
            self._greenlet = gevent.spawn(self._run)

    def _run(self) -> None:
        while self._asked:
            self._asked = False
            self._function()
