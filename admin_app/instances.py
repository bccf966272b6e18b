"""Instances of all services; workers are asked how they fare, and to leave."""

import random
import time
from collections.abc import Sequence
from contextlib import closing
from dataclasses import dataclass
from typing import Any, NamedTuple

import gevent
from thriftpy2.thrift import TException

import idl
from soraka.errors import Conflict, InvalidParams, PeerUnavailable, StoreUnavailable, UnknownService
from soraka.message import Instance
from soraka.ports import Registry, StoreReader
from soraka.rpc import RpcClient, parse_address
from soraka.tls import Context

SERVICES = ("receive", "admin", "center", "worker")
ASKED_EVERY_S = 1.0
"""However many people look: a worker's answer is shown for so long."""


class Load(NamedTuple):
    """What a worker says of itself; see idl/worker.thrift."""

    held: int
    in_flight: int
    cpu: float
    memory_bytes: int
    last_turn_ms: int
    draining: bool
    clock_skew_ms: int
    blind_ms: int
    alone: bool


@dataclass(frozen=True, slots=True)
class InstanceView:
    """`load` is of workers alone; `trouble` says why there is none, or is empty. `pending` is how
    many unfinished messages it owns; None when the store does not say, or it is no worker."""

    instance: Instance
    load: Load | None = None
    trouble: str = ""
    pending: int | None = None


class Instances:
    def __init__(
        self,
        registry: Registry,
        store: StoreReader,
        *,
        rpc_timeout_ms: int,
        secured: Context | None = None,
    ) -> None:
        self._registry = registry
        self._secured = secured
        self._store = store
        self._timeout_ms = rpc_timeout_ms
        self._asked: dict[str, tuple[float, str, Load | str]] = {}

    def all(self, service: str = "all") -> list[InstanceView]:
        """By service and address. Raises UnknownService. Waits for workers at most as long as one
        of them may take."""
        services = _services(service)
        views = [
            InstanceView(instance)
            for name in services
            for _, instance in sorted(self._registry.live(name).items())
        ]
        workers = [view.instance for view in views if view.instance.service == "worker"]
        loads, pending = self._loads(workers), self._pending() if workers else None
        return [
            _worker_view(view.instance, loads[view.instance.address], pending)
            if view.instance.service == "worker"
            else view
            for view in views
        ]

    def absent(self) -> dict[str, int]:
        """Unfinished messages of owners that are no live worker, by owner, the most first. Those
        of paused topics, whose owners begin with '~', too. Raises StoreUnavailable."""
        live = self._registry.live("worker")
        pending = self._store.totals().pending
        absent = {owner: n for owner, n in pending.items() if n > 0 and owner not in live}
        return dict(sorted(absent.items(), key=lambda item: -item[1]))

    def drain(self, address: str) -> None:
        """Has a worker leave: its messages go to others, then it ends and is no longer listed.
        Returns when it has been told. Raises InvalidParams,
        Conflict of a standalone, PeerUnavailable."""
        instance = self._registry.live("worker").get(address)
        if instance is None:
            raise InvalidParams("instance", f"{address!r} is no live worker; only they drain")
        try:
            with closing(self._client(address)) as client:
                client.call("drain", incarnation=instance.incarnation)
        except idl.worker.NotAlone as exc:
            raise Conflict(f"instance: {exc.em}") from exc
        except idl.worker.WrongIncarnation as exc:
            raise PeerUnavailable(f"{address} has just been started anew; try again") from exc
        except TException as exc:
            raise PeerUnavailable(f"{address}: {exc}") from exc

    def choose(self, num: int, how: str) -> tuple[str, ...]:
        """That many live workers that do not drain; `how` is one of CHOICES: at random, or those
        with the least load. Raises InvalidParams."""
        live = [i for i in self._registry.live("worker").values() if not i.draining]
        if num > len(live):
            raise InvalidParams("worker_num", f"is {num}, but {len(live)} workers are live")
        random.shuffle(live)
        if how == "load":
            loads = self._loads(live)
            live.sort(key=lambda instance: _busy(loads[instance.address]))
        return tuple(sorted(instance.address for instance in live[:num]))

    def _pending(self) -> dict[str, int] | None:
        try:
            return dict(self._store.totals().pending)
        except StoreUnavailable:
            return None

    def _loads(self, workers: Sequence[Instance]) -> dict[str, Load | str]:
        """By address, the load or why there is none; asked all at once."""
        asking = {worker.address: gevent.spawn(self._load, worker) for worker in workers}
        return {address: greenlet.get() for address, greenlet in asking.items()}

    def _load(self, worker: Instance) -> Load | str:
        asked_at, incarnation, known = self._asked.get(worker.address, (0.0, "", ""))
        if incarnation == worker.incarnation and time.monotonic() - asked_at < ASKED_EVERY_S:
            return known
        answer = self._ask(worker)
        self._forget_old()
        self._asked[worker.address] = time.monotonic(), worker.incarnation, answer
        return answer

    def _forget_old(self) -> None:
        before = time.monotonic() - 10 * ASKED_EVERY_S
        for address in [a for a, known in self._asked.items() if known[0] < before]:
            del self._asked[address]

    def _ask(self, worker: Instance) -> Load | str:
        try:
            with closing(self._client(worker.address)) as client:
                answer: Any = client.call("heartbeat", incarnation=worker.incarnation)
        except (PeerUnavailable, TException) as exc:
            return f"no heartbeat: {exc}"
        values: list[Any] = [getattr(answer, name, None) for name in Load._fields]
        return "no heartbeat: not a load" if None in values else Load(*values)

    def _client(self, address: str) -> RpcClient:
        return RpcClient(
            idl.worker.Worker,
            parse_address(address),
            timeout_ms=self._timeout_ms,
            secured=self._secured,
        )


def _services(service: str) -> tuple[str, ...]:
    if service == "all":
        return SERVICES
    if service not in SERVICES:
        raise UnknownService("service_name", f"must be one of {', '.join(SERVICES)}, all")
    return (service,)


def _worker_view(
    instance: Instance, answer: Load | str, pending: dict[str, int] | None
) -> InstanceView:
    return InstanceView(
        instance,
        load=answer if isinstance(answer, Load) else None,
        trouble="" if isinstance(answer, Load) else answer,
        pending=None if pending is None else pending.get(instance.address, 0),
    )


def _busy(answer: Load | str) -> tuple[float, int]:
    """Least first; those that do not answer last."""
    if isinstance(answer, str):
        return float("inf"), 0
    return answer.cpu, answer.held + answer.in_flight
