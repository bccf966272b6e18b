"""The live workers as center sees them: whom to choose, and a line to each."""

import logging
from collections.abc import Callable, Mapping, Sequence

import gevent
from gevent.event import Event
from thriftpy2.thrift import TException

import idl
from center.balance import Balancer
from center.heartbeat import Heartbeats
from center.pulse import Pulse
from soraka.errors import PeerUnavailable
from soraka.message import Instance, Topic, parked_owner
from soraka.ports import DueId, Registry
from soraka.rpc import RpcClient, parse_address
from soraka.tls import Context

log = logging.getLogger(__name__)

MAX_WAITING = 50_000
CALL_SIZE = 1000


class _Line:
    """Hints on their way to one worker: a bounded queue and one greenlet that empties it."""

    def __init__(self, instance: Instance, timeout_ms: int, secured: Context | None) -> None:
        self.instance = instance
        self._client = RpcClient(
            idl.worker.Worker,
            parse_address(instance.address),
            timeout_ms=timeout_ms,
            secured=secured,
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
    """Follows the registry, and the heartbeats from `start` on. Correct with a stale view: the
    store decides, hints are hints."""

    def __init__(
        self,
        registry: Registry,
        *,
        rpc_timeout_ms: int,
        beats: Heartbeats | None = None,
        secured: Context | None = None,
    ) -> None:
        self._registry = registry
        self._secured = secured
        self._timeout_ms = rpc_timeout_ms
        self._beats = beats
        self._balancer = Balancer()
        self._seen: Mapping[str, Instance] = {}
        self._pulses: dict[str, Pulse] = {}
        self._topics_seen: Mapping[str, Topic] = {}
        self._one_for_all: str | None = None
        self._lines: dict[str, _Line] = {}

    def start(self, changed: Callable[[], object]) -> None:
        """Begins to ask for heartbeats. `changed` is called when the workers do; it must not
        block."""

        def follow() -> None:
            self._follow(self._registry.live("worker"))
            changed()

        if self._beats is not None:
            self._beats.start(follow)
        self._registry.watch(follow)
        follow()

    def pulses(self) -> Mapping[str, Pulse]:
        """Of the live workers, by address."""
        live = self._registry.live("worker")
        if live is not self._seen:
            self._follow(live)
        return self._pulses

    def choose(self, name: str, excluded: str = "") -> str:
        """An address for a message of the topic `name`, not that of `excluded`; or NO_OWNER. While
        the topic is paused, whoever keeps its messages."""
        topic = self._registry.topics().get(name)
        if topic is not None and topic.paused:
            return parked_owner(name)
        live = self._registry.live("worker")
        if live is not self._seen:
            self._follow(live)
        return self._balancer.choose(name, topic, excluded)

    def one_for_all(self) -> str | None:
        """A topic in whose place any other may stand, all having the same workers and balance and
        none being paused; None when they have not."""
        topics = self._registry.topics()
        if topics is not self._topics_seen:
            self._topics_seen, self._one_for_all = topics, _one_for_all(topics)
        return self._one_for_all

    def others(self, excluded: str) -> list[Pulse]:
        """Those to which the messages of `excluded` can go, good ones if there are any."""
        self.pulses()
        return self._balancer.others(excluded)

    def shares(self, name: str) -> dict[str, float]:
        """What part of the messages of the topic `name` each worker should have, by address."""
        self.pulses()
        return self._balancer.shares(self._registry.topics().get(name))

    def deliver(self, messages: Mapping[str, Sequence[DueId]]) -> None:
        """Tells each worker of messages it owns now. Does not wait."""
        live = self._registry.live("worker")
        for address in [a for a in self._lines if a not in live]:
            self._lines.pop(address).close()
        for address, dues in messages.items():
            if address in live:
                self._line(live[address]).put(dues)

    def close(self) -> None:
        if self._beats is not None:
            self._beats.close()
        while self._lines:
            self._lines.popitem()[1].close()

    def _follow(self, live: Mapping[str, Instance]) -> None:
        """What a worker has told is kept for as long as its incarnation lives."""
        pulses = {}
        for address, instance in live.items():
            known = self._pulses.get(address)
            if known is None or known.instance.incarnation != instance.incarnation:
                known = Pulse(instance)
            known.instance = instance
            pulses[address] = known
        self._seen, self._pulses = live, pulses
        self._balancer.follow(pulses.values())
        if self._beats is not None:
            self._beats.follow(pulses)

    def _line(self, instance: Instance) -> _Line:
        line = self._lines.get(instance.address)
        if line is None or line.instance.incarnation != instance.incarnation:
            if line is not None:
                line.close()
            line = self._lines[instance.address] = _Line(instance, self._timeout_ms, self._secured)
        return line


def _one_for_all(topics: Mapping[str, Topic]) -> str | None:
    kinds = {(topic.workers, topic.balance, topic.weigh_by) for topic in topics.values()}
    paused = any(topic.paused for topic in topics.values())
    return next(iter(topics)) if len(kinds) == 1 and not paused else None
