"""The live workers as center sees them: whom to choose, and a line to each."""

import logging
from collections.abc import Collection, Mapping, Sequence

import gevent
from gevent.event import Event
from thriftpy2.thrift import TException

import idl
from center.balance import Balancer
from soraka.errors import PeerUnavailable
from soraka.message import Instance
from soraka.ports import DueId, Registry
from soraka.rpc import RpcClient, parse_address

log = logging.getLogger(__name__)

MAX_WAITING = 50_000
CALL_SIZE = 1000


class _Line:
    """Hints on their way to one worker: a bounded queue and one greenlet that empties it."""

    def __init__(self, instance: Instance, timeout_ms: int) -> None:
        self.instance = instance
        self._client = RpcClient(
            idl.worker.Worker, parse_address(instance.address), timeout_ms=timeout_ms
        )
        self._waiting: list[DueId] = []
        self._more = Event()
        self._sender = gevent.spawn(self._send_forever)

    def put(self, messages: Sequence[DueId]) -> None:
        room = MAX_WAITING - len(self._waiting)
        self._waiting.extend(messages[:room])
        self._more.set()

    def close(self) -> None:
        self._sender.kill()
        self._client.close()

    def _send_forever(self) -> None:
        while True:
            self._more.wait()
            batch, self._waiting = self._waiting[:CALL_SIZE], self._waiting[CALL_SIZE:]
            if not self._waiting:
                self._more.clear()
            if batch:
                self._send(batch)

    def _send(self, batch: Sequence[DueId]) -> None:
        """A hint that is lost costs a moment: the worker pages its own due index too."""
        try:
            self._client.call(
                "deliver",
                incarnation=self.instance.incarnation,
                messages=[idl.worker.Due(msg_id=m.msg_id, due_at=m.due_at) for m in batch],
            )
        except (PeerUnavailable, TException) as exc:  # WrongIncarnation is one
            log.warning(
                "deliver.failed",
                extra={"worker": self.instance.address, "messages": len(batch), "reason": str(exc)},
            )
            gevent.sleep(0.2)


class Workers:
    """Follows the registry. Correct with a stale view: the store decides, hints are hints."""

    def __init__(self, registry: Registry, *, rpc_timeout_ms: int) -> None:
        self._registry = registry
        self._timeout_ms = rpc_timeout_ms
        self._balancer = Balancer()
        self._lines: dict[str, _Line] = {}

    def live(self) -> Collection[str]:
        return self._registry.live("worker").keys()

    def choose(self, topic: str, excluded: str = "") -> str:
        """An address, not that of `excluded`; or NO_OWNER."""
        live = [address for address in self.live() if address != excluded]
        return self._balancer.choose(topic, self._registry.topics().get(topic), live)

    def deliver(self, messages: Mapping[str, Sequence[DueId]]) -> None:
        """Tells each worker of messages it owns now. Does not wait."""
        live = self._registry.live("worker")
        for address in [a for a in self._lines if a not in live]:
            self._lines.pop(address).close()
        for address, dues in messages.items():
            if address in live:
                self._line(live[address]).put(dues)

    def close(self) -> None:
        while self._lines:
            self._lines.popitem()[1].close()

    def _line(self, instance: Instance) -> _Line:
        line = self._lines.get(instance.address)
        if line is None or line.instance.incarnation != instance.incarnation:
            if line is not None:
                line.close()
            line = self._lines[instance.address] = _Line(instance, self._timeout_ms)
        return line
