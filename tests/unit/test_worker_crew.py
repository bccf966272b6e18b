"""Greenlets that are used again, and claims that wait for their time."""

from collections.abc import Iterator

import gevent
import pytest
from gevent.event import Event
from gevent.pool import Group

from soraka.ports import Claim, ClaimKind
from tests.unit.sinks import eventually
from worker.crew import SPARE, Crew
from worker.early import SPACING_S, Early

CLAIM = Claim(ClaimKind.FIRE)


@pytest.fixture
def group() -> Iterator[Group]:
    made = Group()
    yield made
    made.kill()


def test_tasks_run_beside_one_another_and_nobody_waits_for_a_free_one(group: Group) -> None:
    crew, go_on, done = Crew(group), Event(), list[int]()

    def task(number: int) -> None:
        go_on.wait()
        done.append(number)

    for number in range(3 * SPARE):
        crew.run(task, number)
        if number % 50 == 0:
            gevent.sleep(0)
    crew.run(done.append, -1)
    eventually(lambda: done == [-1])
    assert len(group) > 3 * SPARE
    go_on.set()
    eventually(lambda: len(done) == 3 * SPARE + 1)
    assert sorted(done) == list(range(-1, 3 * SPARE))


def test_those_that_are_done_take_the_next_and_too_many_end(group: Group) -> None:
    crew, who = Crew(group), list[object]()
    for _ in range(3 * SPARE):
        crew.run(gevent.sleep, 0)
    eventually(lambda: len(group) == SPARE)
    before = set(group)
    for _ in range(20):
        crew.run(lambda: who.append(gevent.getcurrent()))
        gevent.sleep(0)
    eventually(lambda: len(who) == 20)
    assert set(who) <= before


def test_a_task_that_fails_ends_nobody(group: Group, caplog: pytest.LogCaptureFixture) -> None:
    crew, done = Crew(group), list[int]()
    crew.run(lambda: done[7])
    crew.run(done.append, 1)
    eventually(lambda: done == [1])
    assert [record.message for record in caplog.records] == ["task.failed"]


def test_nothing_before_its_time_and_in_its_order() -> None:
    early = Early()
    for msg_id, at in (("c", 3.0), ("a", 1.0), ("b", 1.001)):
        early.put(msg_id, CLAIM, at)
    assert early.wait_s(0.5) == 0.5
    assert early.take(0.999) == []
    assert early.take(1.0) == [("a", CLAIM)]
    assert len(early) == 2


def test_what_follows_at_once_comes_together() -> None:
    early = Early()
    for n in range(5):
        early.put(str(n), CLAIM, 1 + n / 1000)
    assert early.take(1.0) == [("0", CLAIM)]
    wait_s = early.wait_s(1.0)
    assert wait_s == pytest.approx(SPACING_S)
    assert early.take(1.001) == []
    assert [msg_id for msg_id, _ in early.take(1.0 + SPACING_S)] == ["1", "2", "3", "4"]
    assert early.wait_s(2.0) is None
