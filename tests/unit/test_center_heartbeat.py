"""Heartbeats from center to workers, over real sockets."""

import logging
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import gevent
import pytest

import idl
from center.heartbeat import Heartbeats
from center.pulse import Load
from center.workers import Workers
from soraka.adapters.local_registry import LocalRegistry
from soraka.config import Config, override
from soraka.message import NO_OWNER, Instance, Topic
from soraka.metrics import Metrics
from soraka.ports import DueId
from soraka.process import listen
from soraka.rpc import RpcServer
from soraka.wiring import Parts
from tests.acceptance.sink import wait_until
from worker.main import Worker

EVERY_MS = 50


class Heart:
    """A worker's Thrift service. Answers with `load`, after `wait_s`."""

    def __init__(self) -> None:
        self.load = Load(cpu=0.25, memory_bytes=1000, clock_skew_ms=-3)
        self.beats = 0
        self.hints = 0
        self.wait_s = 0.0
        self.hint_wait_s = 0.0
        self.server = RpcServer(idl.worker.Worker, self, listen("127.0.0.1", 0))
        self.server.start()
        self.address = f"127.0.0.1:{self.server.port}"
        self.instance = Instance(service="worker", address=self.address, incarnation="one")

    def heartbeat(self, incarnation: str) -> Any:
        if incarnation != self.instance.incarnation:
            raise idl.worker.WrongIncarnation(incarnation=self.instance.incarnation)
        self.beats += 1
        gevent.sleep(self.wait_s)
        return idl.worker.Load(**self.load._asdict())

    def deliver(self, incarnation: str, messages: list[Any]) -> int:
        gevent.sleep(self.hint_wait_s)
        self.hints += len(messages)
        return len(messages)


class Rig:
    def __init__(self) -> None:
        self.hearts = [Heart(), Heart()]
        self.metrics = Metrics()
        self.registry = LocalRegistry(path=None)
        self.changes = 0
        beats = Heartbeats(every_ms=EVERY_MS, timeout_ms=200, metrics=self.metrics)
        self.workers = Workers(self.registry, rpc_timeout_ms=2000, beats=beats)
        self.workers.start(self._changed)
        for heart in self.hearts:
            self.registry.register(heart.instance)

    def _changed(self) -> None:
        self.changes += 1

    def targets(self) -> set[str]:
        """Who gets new messages."""
        return {self.workers.choose("t") for _ in range(20)}

    def figure(self, name: str, address: str) -> float | None:
        return self.metrics.registry.get_sample_value(f"soraka_worker_{name}", {"worker": address})

    def close(self) -> None:
        self.workers.close()
        for heart in self.hearts:
            heart.server.stop(1)


@pytest.fixture
def rig() -> Iterator[Rig]:
    made = Rig()
    try:
        wait_until(lambda: all(heart.beats for heart in made.hearts))
        yield made
    finally:
        made.close()


def beats_on(heart: Heart, times: int = 3) -> Callable[[], bool]:
    before = heart.beats
    return lambda: heart.beats >= before + times


def test_each_worker_is_asked_again_and_again_and_the_metrics_tell(rig: Rig) -> None:
    for heart in rig.hearts:
        wait_until(beats_on(heart))
    heart = rig.hearts[0]
    heart.load = heart.load._replace(held=7, in_flight=3)
    wait_until(lambda: rig.figure("held_messages", heart.address) == 7)
    assert rig.figure("in_flight_messages", heart.address) == 3
    assert rig.figure("cpu_cores", heart.address) == 0.25
    assert rig.figure("memory_bytes", heart.address) == 1000
    assert rig.figure("clock_skew_seconds", heart.address) == -0.003
    assert rig.figure("heartbeats_missed", heart.address) == 0
    assert 0 < (rig.figure("heartbeat_seconds", heart.address) or 0) < 1


def test_figures_of_a_worker_go_with_it(rig: Rig) -> None:
    heart, stays = rig.hearts
    wait_until(lambda: rig.figure("held_messages", heart.address) is not None)
    rig.registry.unregister(heart.instance)
    wait_until(lambda: rig.figure("held_messages", heart.address) is None)
    wait_until(beats_on(stays))
    assert rig.figure("heartbeats_missed", heart.address) is None
    beats = heart.beats
    wait_until(beats_on(stays))
    assert heart.beats == beats
    assert rig.targets() == {stays.address}


def test_one_that_hangs_gets_nothing_new_until_it_answers_again(
    rig: Rig, caplog: pytest.LogCaptureFixture
) -> None:
    bad, good = rig.hearts
    assert rig.targets() == {bad.address, good.address}
    with caplog.at_level(logging.INFO, "center"):
        bad.wait_s = 60
        wait_until(lambda: rig.targets() == {good.address})
        assert rig.figure("heartbeats_missed", bad.address) == 3
        bad.wait_s = 0
        wait_until(lambda: rig.targets() == {bad.address, good.address})
    told = [(r.message, vars(r)["worker"]) for r in caplog.records if "worker" in r.message]
    assert told == [("worker.silent", bad.address), ("worker.back", bad.address)]
    assert rig.figure("heartbeats_missed", bad.address) == 0


def test_when_none_answers_all_get_messages(rig: Rig) -> None:
    for heart in rig.hearts:
        heart.wait_s = 60
    wait_until(lambda: all(not pulse.good for pulse in rig.workers.pulses().values()))
    assert rig.targets() == {heart.address for heart in rig.hearts}


def test_one_that_answers_but_stands_still_is_bad(rig: Rig) -> None:
    bad, good = rig.hearts
    changes = rig.changes
    bad.load = bad.load._replace(last_turn_ms=10_000)
    wait_until(lambda: rig.targets() == {good.address})
    assert rig.workers.pulses()[bad.address].stuck
    assert rig.changes > changes  # recovery is told at once


def test_one_that_does_not_reach_the_store_gets_nothing_new(rig: Rig) -> None:
    blind, good = rig.hearts
    blind.load = blind.load._replace(blind_ms=3000)
    wait_until(lambda: rig.targets() == {good.address})
    assert not rig.workers.pulses()[blind.address].stuck  # what it has it keeps
    blind.load = blind.load._replace(blind_ms=10_000)
    wait_until(lambda: rig.workers.pulses()[blind.address].stuck)
    blind.load = blind.load._replace(blind_ms=0)
    wait_until(lambda: len(rig.targets()) == 2)


def test_one_that_says_it_drains_gets_nothing_new(rig: Rig) -> None:
    leaving, stays = rig.hearts
    leaving.load = leaving.load._replace(draining=True)
    wait_until(lambda: rig.targets() == {stays.address})
    assert rig.changes > 0


def test_one_that_announces_that_it_drains_gets_nothing_from_the_next_message_on(rig: Rig) -> None:
    leaving, stays = rig.hearts
    rig.registry.register(replace(leaving.instance, draining=True))
    assert rig.targets() == {stays.address}


def test_a_weight_set_by_hand_counts_at_once_and_what_was_told_is_kept(rig: Rig) -> None:
    heart, other = rig.hearts
    wait_until(lambda: rig.workers.pulses()[heart.address].load is not None)
    rig.registry.register(replace(heart.instance, weight=0))
    assert rig.targets() == {other.address}
    assert rig.workers.pulses()[heart.address].load is not None


def test_a_new_incarnation_begins_as_a_good_one(rig: Rig) -> None:
    heart = rig.hearts[0]
    heart.wait_s = 60
    wait_until(lambda: not rig.workers.pulses()[heart.address].good)
    heart.wait_s = 0
    heart.instance = replace(heart.instance, incarnation="two")
    rig.registry.register(heart.instance)
    assert rig.workers.pulses()[heart.address].good
    wait_until(beats_on(heart))


def test_an_answer_is_not_held_up_by_hints(rig: Rig) -> None:
    """One line for both would take it for dead while it is busy with hints."""
    heart = rig.hearts[0]
    heart.hint_wait_s = 1.0
    for _ in range(5):
        rig.workers.deliver({heart.address: [DueId(1, str(n)) for n in range(1000)]})
    wait_until(beats_on(heart, 8))
    assert heart.hints < 5000
    assert rig.workers.pulses()[heart.address].good


def test_an_answer_without_its_fields_is_a_miss(rig: Rig) -> None:
    """thriftpy2 leaves None where a required field is missing."""
    heart = rig.hearts[0]
    heart.load = heart.load._replace(held=None)  # type: ignore[arg-type]
    wait_until(lambda: not rig.workers.pulses()[heart.address].good)


def test_least_loaded_goes_by_what_the_heartbeats_say(rig: Rig) -> None:
    rig.registry.put_topic(Topic(name="t", balance="least_loaded"), was=None)
    busy, idle = rig.hearts
    busy.load = busy.load._replace(held=5000)
    known = rig.workers.pulses()[busy.address]
    wait_until(lambda: known.load is not None and known.load.held == 5000)
    chosen = [rig.workers.choose("t") for _ in range(100)]
    assert chosen.count(idle.address) == 100


def test_after_close_nobody_is_asked(rig: Rig) -> None:
    rig.workers.close()
    beats = [heart.beats for heart in rig.hearts]
    rig.registry.unregister(rig.hearts[0].instance)
    gevent.sleep(4 * EVERY_MS / 1000)
    assert [heart.beats for heart in rig.hearts] == beats


def test_a_real_worker_tells_its_load_and_drains(tmp_path: Path) -> None:
    config = override(
        Config(),
        {
            "log": {"path": str(tmp_path / "log.db")},
            "store": {"path": str(tmp_path / "store.db")},
            "registry": {"path": str(tmp_path / "topics.json")},
            "worker": {"thrift_port": 0, "weight": 7},
        },
    )
    parts = Parts(config)
    parts.clock.sync()
    worker = Worker(parts, Metrics())
    beats = Heartbeats(every_ms=EVERY_MS, timeout_ms=1000, metrics=Metrics())
    workers = Workers(parts.registry, rpc_timeout_ms=1000, beats=beats)
    try:
        workers.start(lambda: None)
        worker.start()
        pulse = workers.pulses()[worker.instance.address]
        wait_until(lambda: pulse.load is not None)
        load = pulse.load
        assert load is not None
        assert (load.held, load.in_flight, load.draining) == (0, 0, False)
        assert load.memory_bytes > 1 << 20
        assert abs(load.clock_skew_ms) < 1000
        assert (pulse.good, pulse.missed, pulse.weight) == (True, 0, 7)
        assert workers.choose("t") == worker.instance.address
        parts.registry.register(replace(worker.instance, draining=True))
        assert workers.choose("t") == NO_OWNER
    finally:
        worker.stop()
        workers.close()
        parts.close()
