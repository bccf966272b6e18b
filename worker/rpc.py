"""The Thrift service of a worker."""

import logging
from collections.abc import Callable
from typing import Any

import idl
from worker.load import Cpu, memory_bytes
from worker.loop import Loop

log = logging.getLogger(__name__)


class Handler:
    """Serves `Worker` of idl/worker.thrift. A caller that means another process gets
    WrongIncarnation. `leave` has the process end as SIGTERM does; None when it must not."""

    def __init__(
        self,
        incarnation: str,
        loop: Loop,
        *,
        skew_ms: Callable[[], int] = lambda: 0,
        leave: Callable[[], object] | None = None,
    ) -> None:
        self._incarnation = incarnation
        self._loop = loop
        self._skew_ms = skew_ms
        self._leave = leave
        self._cpu = Cpu()

    def deliver(self, incarnation: str | None, messages: list[Any] | None) -> int:
        """How many were new."""
        self._check(incarnation)
        # thriftpy2 leaves None where a required field is missing
        return self._loop.deliver(
            [
                (due.msg_id, due.due_at)
                for due in messages or ()
                if due.msg_id is not None and due.due_at is not None
            ]
        )

    def heartbeat(self, incarnation: str | None) -> Any:
        """The load, as the IDL has it."""
        self._check(incarnation)
        return idl.worker.Load(
            held=self._loop.held,
            in_flight=self._loop.in_flight,
            cpu=self._cpu.share(),
            memory_bytes=memory_bytes(),
            last_turn_ms=self._loop.last_turn_ms(),
            draining=self._loop.draining,
            clock_skew_ms=self._skew_ms(),
            blind_ms=self._loop.blind_ms(),
            alone=self._leave is not None,
        )

    def drain(self, incarnation: str | None) -> None:
        """Returns at once. NotAlone: ending the process would end other roles."""
        self._check(incarnation)
        if self._leave is None:
            raise idl.worker.NotAlone(em="standalone: end the process with SIGTERM")
        log.info("worker.asked_to_leave")
        self._leave()

    def _check(self, incarnation: str | None) -> None:
        if incarnation != self._incarnation:
            raise idl.worker.WrongIncarnation(incarnation=self._incarnation)
