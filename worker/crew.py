"""Greenlets that are used again.

A new one costs 11 us, most of it for the memory of its frames, which Python maps and unmaps for
each.
"""

import logging
from collections.abc import Callable
from typing import Any

from gevent.pool import Group
from gevent.queue import SimpleQueue

log = logging.getLogger(__name__)

SPARE = 100
"""So many wait for something to do; those beyond end."""


class Crew:
    """Runs tasks in greenlets of `group`, at once and any number beside one another."""

    def __init__(self, group: Group) -> None:
        self._group = group
        self._tasks: SimpleQueue[tuple[Callable[..., object], tuple[Any, ...]]] = SimpleQueue()
        self._idle = 0

    def run(self, task: Callable[..., object], *args: Any) -> None:
        """Never blocks."""
        self._tasks.put((task, args))
        if self._tasks.qsize() > self._idle:
            self._idle += 1
            self._group.spawn(self._work)

    def _work(self) -> None:
        try:
            while self._idle <= SPARE or not self._tasks.empty():
                task, args = self._tasks.get()
                self._idle -= 1
                try:
                    task(*args)
                except Exception:  # the edge of a process: the next task is another's
                    log.exception("task.failed")
                finally:
                    self._idle += 1
        finally:
            self._idle -= 1
