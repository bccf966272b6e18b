"""A worker leaves: beside another and a center, alone, in the middle of calls, told over Thrift."""

import dataclasses
import os
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import ExitStack, closing
from pathlib import Path
from typing import Any, TypeVar

import gevent
import pytest

import idl
from center.main import Center
from soraka.config import Config, override
from soraka.errors import PeerUnavailable, StoreUnavailable
from soraka.message import Callback, Message, State
from soraka.metrics import Metrics
from soraka.ports import DueId, NewMessage, Totals
from soraka.rpc import RpcClient, parse_address
from soraka.wiring import Parts
from tests.acceptance.deployments import free_port
from tests.contract.store_kit import uuid7
from tests.unit.sinks import Sink, eventually
from tests.unit.worker_kit import after, calls
from worker.leave import QUIET_S, handed_over
from worker.main import Worker

# Run without coverage, which would take most of the time that is measured here.
pytestmark = pytest.mark.timed

R = TypeVar("R", Worker, Center)
HOUR_MS = 3_600_000
WORKER = """
from gevent import monkey; monkey.patch_all()
import os
from soraka.config import load
from worker.main import run
run(load(None, os.environ))
"""


class House:
    """Roles of one process on SQLite, as standalone has them, with two workers."""

    def __init__(self, folder: Path) -> None:
        self.parts = Parts(
            override(
                Config(),
                {
                    "log": {"path": str(folder / "log.db")},
                    "store": {"path": str(folder / "store.db"), "lease_margin_ms": 400},
                    "registry": {"path": str(folder / "topics.json")},
                    "center": {"thrift_port": 0, "reconcile_ms": 100},
                    "worker": {"thrift_port": 0, "page_ms": 100, "horizon_ms": 1000, "weight": 70},
                },
            )
        )
        self._closing = ExitStack()
        self._closing.callback(self.parts.close)
        self.parts.clock.sync()
        self._position = -1

    def worker(self) -> Worker:
        return self._started(Worker(self.parts, Metrics()))

    def center(self) -> Center:
        return self._started(Center(self.parts, Metrics()))

    def _started(self, role: R) -> R:
        self._closing.callback(role.stop)
        role.start()
        return role

    def drains(self, worker: Worker, limit_s: float) -> "gevent.Greenlet[..., bool]":
        """In the background, and not beyond the house."""
        draining = gevent.spawn(worker.drain, limit_s)
        self._closing.callback(draining.kill)
        return draining

    def put(self, owner: Worker, url: str, *, in_ms: int, ttr_ms: int = 1000) -> str:
        now = self.parts.clock.now_ms()
        message = Message(
            msg_id=uuid7(now),
            topic="orders",
            created_at=now,
            due_at=now + in_ms,
            ttr_ms=ttr_ms,
            callback=Callback(method="POST", url=url, params="{}"),
            retry_ms=(1000,),
        )
        before = self._position
        self._position += 1
        entry = NewMessage(self._position, message, owner.instance.address)
        self.parts.store.schedule("p", (before,), self._position, [entry])
        return message.msg_id

    def states(self, msg_ids: list[str]) -> Counter[State]:
        return Counter(s.state for s in self.parts.store.get(msg_ids) if s)

    def owners(self, msg_ids: list[str]) -> set[str]:
        return {s.owner for s in self.parts.store.get(msg_ids) if s}

    def nothing_left(self, worker: Worker) -> bool:
        return not self.parts.store.totals().pending.get(worker.instance.address)

    def close(self) -> None:
        """All of it, the last first, also when a part of it fails."""
        self._closing.close()


@pytest.fixture
def house(tmp_path: Path) -> Iterator[House]:
    with closing(House(tmp_path)) as made:
        yield made


def test_beside_another_all_goes_over_and_nothing_is_late_or_twice(
    house: House, server: Sink
) -> None:
    leaving, staying, _ = house.worker(), house.worker(), house.center()
    assert leaving.instance.weight == 70
    far = [house.put(leaving, server.url, in_ms=HOUR_MS) for _ in range(300)]
    soon = [house.put(leaving, server.url, in_ms=700 + 5 * n) for n in range(400)]
    eventually(lambda: len(server.seen) >= 5)
    started = time.monotonic()
    assert leaving.drain(10)
    assert time.monotonic() - started < 8
    assert house.nothing_left(leaving)
    assert set(house.parts.registry.live("worker")) == {staying.instance.address}
    eventually(lambda: house.states(soon)[State.SUCCEEDED] == len(soon), 10)
    assert calls(server) == dict.fromkeys(soon, 1)
    late = sorted(seen.at - int(seen.headers["soraka-due-at"]) for seen in server.seen)
    assert late[len(late) * 9 // 10] < 500
    assert house.states(far) == {State.PENDING: 300}
    assert house.owners(far) == {staying.instance.address}


def test_what_a_center_gives_an_idle_one_that_leaves_goes_to_another_at_once(
    house: House, server: Sink
) -> None:
    """The center has not heard yet that it leaves."""
    leaving, staying, _ = house.worker(), house.worker(), house.center()
    drained = house.drains(leaving, 20)
    gevent.sleep(QUIET_S / 2)
    msg_ids = [house.put(leaving, server.url, in_ms=HOUR_MS)]
    started = time.monotonic()
    eventually(lambda: house.owners(msg_ids) == {staying.instance.address})
    assert time.monotonic() - started < 1
    assert drained.get(timeout=20)


class PartAway:
    """A store one shard of which is out of reach: it cannot say how many are pending."""

    def __init__(self) -> None:
        self.away = True

    def due(self, owner: str, until: int, limit: int) -> list[DueId]:
        return []

    def totals(self) -> Totals:
        if self.away:
            raise StoreUnavailable("a shard is away")
        return Totals({}, 0, 0, 0, 0, 0)


def test_nothing_in_the_shards_within_reach_is_not_nothing(house: House) -> None:
    leaving, _, _ = house.worker(), house.worker(), house.center()
    store: Any = PartAway()
    assert not handed_over(leaving.instance, house.parts.registry, store, QUIET_S + 0.5)
    store.away = False
    assert handed_over(leaving.instance, house.parts.registry, store, 10)


def test_it_says_so_and_serves_what_is_due_until_all_has_gone(house: House, server: Sink) -> None:
    leaving, staying = house.worker(), house.worker()
    center = dataclasses.replace(leaving.instance, service="center", address="10.0.0.9:30001")
    house.parts.registry.register(center)  # one that does not get round to it
    msg_ids = [house.put(leaving, server.url, in_ms=200 + 100 * n) for n in range(10)]
    drained = house.drains(leaving, 30)
    address = leaving.instance.address
    eventually(lambda: house.parts.registry.live("worker")[address].draining)
    incarnation = leaving.instance.incarnation
    due = idl.worker.Due(msg_id=msg_ids[-1], due_at=house.parts.clock.now_ms())
    with closing(RpcClient(idl.worker.Worker, parse_address(address), timeout_ms=3000)) as client:
        assert client.call("deliver", incarnation=incarnation, messages=[due]) == 0
        assert client.call("heartbeat", incarnation=incarnation).draining
    eventually(lambda: house.states(msg_ids)[State.SUCCEEDED] == 10)
    late = [seen.at - int(seen.headers["soraka-due-at"]) for seen in server.seen]
    assert sorted(late)[5] < 300
    assert drained.get(timeout=5)
    assert set(house.parts.registry.live("worker")) == {staying.instance.address}


def test_a_hand_over_that_does_not_come_to_its_end_ends_with_the_limit(
    house: House, server: Sink
) -> None:
    leaving, _ = house.worker(), house.worker()
    center = dataclasses.replace(leaving.instance, service="center", address="10.0.0.9:30001")
    house.parts.registry.register(center)
    house.put(leaving, server.url, in_ms=HOUR_MS)
    started = time.monotonic()
    assert not leaving.drain(1)
    assert 0.7 < time.monotonic() - started < 3
    assert not house.nothing_left(leaving)


@pytest.mark.parametrize("others", [(), ("worker",), ("center",)])
def test_with_nobody_to_take_it_over_it_goes_at_once(
    house: House, server: Sink, others: tuple[str, ...]
) -> None:
    leaving = house.worker()
    for service in others:
        other = dataclasses.replace(leaving.instance, service=service, address="10.0.0.9:1")
        house.parts.registry.register(other)
    far = [house.put(leaving, server.url, in_ms=HOUR_MS) for _ in range(10)]
    started = time.monotonic()
    assert leaving.drain(10)
    assert time.monotonic() - started < 2
    assert house.states(far) == {State.PENDING: 10}


def test_another_that_leaves_too_takes_nothing(house: House, server: Sink) -> None:
    first, second, _ = house.worker(), house.worker(), house.center()
    far = [house.put(first, server.url, in_ms=HOUR_MS) for _ in range(10)]
    drains = [house.drains(worker, 10) for worker in (first, second)]
    started = time.monotonic()
    assert all(drain.get(timeout=20) for drain in drains)
    assert time.monotonic() - started < 5
    assert house.states(far) == {State.PENDING: 10}


def test_calls_under_way_are_finished_and_those_too_long_cut_off(
    house: House, server: Sink
) -> None:
    leaving = house.worker()
    server.reply = after(0.6)
    done = [house.put(leaving, server.url, in_ms=0) for _ in range(5)]
    eventually(lambda: len(server.seen) == 5)
    assert leaving.drain(10)
    assert house.states(done) == {State.SUCCEEDED: 5}
    leaving.stop()

    server.reply = after(20)
    again = house.worker()
    cut = [house.put(again, server.url, in_ms=0, ttr_ms=20_000) for _ in range(5)]
    eventually(lambda: len(server.seen) == 10)
    started = time.monotonic()
    assert not again.drain(0.5)
    assert time.monotonic() - started < 3
    assert house.states(cut) == {State.PENDING: 5}  # due again when their leases end


@pytest.mark.parametrize("how", ["thrift", "sigterm"])
def test_a_process_ends_when_it_is_told(tmp_path: Path, how: str) -> None:
    port = free_port()
    environ = {
        **os.environ,
        "SORAKA_STORE_PATH": str(tmp_path / "store.db"),
        "SORAKA_LOG_PATH": str(tmp_path / "log.db"),
        "SORAKA_REGISTRY_PATH": str(tmp_path / "topics.json"),
        "SORAKA_WORKER_THRIFT_PORT": str(port),
        "SORAKA_PROCESS_LOG_FORMAT": "text",
    }
    process = subprocess.Popen(
        [sys.executable, "-c", WORKER], env=environ, stderr=subprocess.PIPE, text=True
    )
    client = RpcClient(idl.worker.Worker, ("127.0.0.1", port), timeout_ms=2000)
    try:
        incarnation = eventually(lambda: _incarnation(client), 20)
        if how == "thrift":
            client.call("drain", incarnation=incarnation)
        else:
            process.terminate()
        _, said = process.communicate(timeout=20)
    finally:
        client.close()
        process.kill()
        process.wait()
    assert process.returncode == 0, said
    assert "process.draining" in said
    assert "process.stopped" in said
    assert "incomplete" not in said


def _incarnation(client: RpcClient) -> str | None:
    """Of the process that answers, if one does."""
    try:
        client.call("heartbeat", incarnation="?")
    except PeerUnavailable:
        return None
    except idl.worker.WrongIncarnation as wrong:
        return str(wrong.incarnation)
    return None
