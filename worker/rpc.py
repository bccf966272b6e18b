"""The Thrift service of a worker."""

from typing import Any

import idl
from worker.loop import Loop


class Handler:
    """Serves `Worker` of idl/worker.thrift."""

    def __init__(self, incarnation: str, loop: Loop) -> None:
        self._incarnation = incarnation
        self._loop = loop

    def deliver(self, incarnation: str | None, messages: list[Any] | None) -> int:
        """How many were new. A caller that means another process gets WrongIncarnation."""
        if incarnation != self._incarnation:
            raise idl.worker.WrongIncarnation(incarnation=self._incarnation)
        # thriftpy2 leaves None where a required field is missing
        return self._loop.deliver(
            [
                (due.msg_id, due.due_at)
                for due in messages or ()
                if due.msg_id is not None and due.due_at is not None
            ]
        )
