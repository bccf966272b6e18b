"""Hints from center to workers, over real sockets."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import gevent
import pytest

import idl
from center import workers as module
from center.workers import Workers
from soraka.adapters.local_registry import LocalRegistry
from soraka.message import Instance
from soraka.ports import DueId
from soraka.process import listen
from soraka.rpc import RpcServer
from tests.acceptance.sink import wait_until
from tests.unit.test_center import Rig


class Hinted:
    """A worker's Thrift service that notes what it is told."""

    def __init__(self) -> None:
        self.ids: list[str] = []
        self.calls = 0
        self.wait_s = 0.0
        self.broken = False
        self.server = RpcServer(idl.worker.Worker, self, listen("127.0.0.1", 0))
        self.server.start()
        self.instance = Instance(
            service="worker", address=f"127.0.0.1:{self.server.port}", incarnation="one"
        )

    def deliver(self, incarnation: str, messages: list[Any]) -> int:
        self.calls += 1
        gevent.sleep(self.wait_s)
        if self.broken:
            raise RuntimeError("a defect of the worker")
        if incarnation != self.instance.incarnation:
            raise idl.worker.WrongIncarnation(incarnation=self.instance.incarnation)
        self.ids += [m.msg_id for m in messages]
        return len(messages)


@pytest.fixture
def hinted() -> Iterator[Hinted]:
    made = Hinted()
    yield made
    made.server.stop(1)


@pytest.fixture
def rig(tmp_path: Path) -> Iterator[Rig]:
    made = Rig(tmp_path)
    yield made
    made.close()


@pytest.fixture
def registry(hinted: Hinted) -> LocalRegistry:
    made = LocalRegistry(path=None)
    made.register(hinted.instance)
    return made


@pytest.fixture
def workers(registry: LocalRegistry) -> Iterator[Workers]:
    made = Workers(registry, rpc_timeout_ms=300)
    yield made
    made.close()


def test_what_falls_due_soon_is_told_to_its_owner(rig: Rig, hinted: Hinted) -> None:
    rig.registry.register(hinted.instance)
    near, _far = rig.append(3, due_in_ms=500), rig.append(3)
    rig.read()
    wait_until(lambda: len(hinted.ids) >= 3)
    assert sorted(hinted.ids) == sorted(near)


def test_what_is_taken_over_and_falls_due_soon_is_told(rig: Rig, hinted: Hinted) -> None:
    near = rig.append(3, due_in_ms=500)
    rig.read()
    rig.registry.register(hinted.instance)
    rig.reconcile.turn()
    wait_until(lambda: len(hinted.ids) >= 3)
    assert sorted(hinted.ids) == sorted(near)


def test_a_new_incarnation_gets_a_line_of_its_own(
    workers: Workers, registry: LocalRegistry, hinted: Hinted
) -> None:
    address = hinted.instance.address
    workers.deliver({address: [DueId(1, "a")]})
    wait_until(lambda: hinted.ids == ["a"])
    hinted.instance = Instance(service="worker", address=address, incarnation="two", started_at=9)
    registry.register(hinted.instance)
    workers.deliver({address: [DueId(1, "b")]})
    wait_until(lambda: hinted.ids == ["a", "b"])


def test_a_worker_that_answers_with_a_defect_is_told_again_later(
    workers: Workers, hinted: Hinted
) -> None:
    hinted.broken = True
    workers.deliver({hinted.instance.address: [DueId(1, "a")]})
    wait_until(lambda: hinted.calls >= 1)
    hinted.broken = False
    gevent.sleep(0.4)  # it pauses after a failure
    workers.deliver({hinted.instance.address: [DueId(1, "b")]})
    wait_until(lambda: hinted.ids == ["b"])


def test_hints_for_a_worker_that_hangs_are_bounded(
    workers: Workers, hinted: Hinted, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "MAX_WAITING", 10)
    hinted.wait_s = 5
    address = hinted.instance.address
    for n in range(50):
        workers.deliver({address: [DueId(1, str(n))]})
    assert len(workers._lines[address]._waiting) <= 10


def test_hints_for_one_that_is_gone_are_dropped(workers: Workers) -> None:
    workers.deliver({"127.0.0.1:1": [DueId(1, "a")], "-": [DueId(1, "b")]})
    assert workers._lines == {}
