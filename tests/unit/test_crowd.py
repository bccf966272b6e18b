"""A burst for one fast host: claims are bounded, and all are called, also those for others."""

import gevent
import pytest

from soraka.message import State
from tests.unit.sinks import Sink, sink
from tests.unit.worker_kit import Rig, after, calls
from worker import crowd
from worker.crowd import Crowd
from worker.gates import Full, Gates
from worker.request import Origin

HOST = Origin("http", "busy", 80)
TOPIC = "orders"


def gates(call_ms: float | None = 1.0, per_host: int = 40) -> Gates:
    """All places of the host are taken; some calls have ended."""
    made = Gates(1000, per_host)
    for _ in range(20 if call_ms is not None else 0):
        assert made.enter(HOST, TOPIC, 0) is None
        made.leave(HOST, TOPIC, call_ms)
    while made.enter(HOST, TOPIC, 0) is None:
        pass
    return made


def without_credit(before: Crowd, full: Full = Full.HOST) -> Crowd:
    for _ in range(2 * int(crowd.MOST)):
        before.turned_away(HOST, TOPIC, full)
    return before


@pytest.mark.parametrize("per_host", [40, 200])
def test_without_credit_as_many_are_claimed_as_may_wait(per_host: int) -> None:
    waiting = gates(1.0, per_host)
    before = without_credit(Crowd(waiting))
    assert before.bounded(1000) == per_host
    begun: list[int] = []

    def enter(number: int) -> None:
        begun.append(number)
        waiting.enter(HOST, TOPIC, 10)

    entering = [gevent.spawn(enter, number) for number in range(per_host)]
    while len(begun) < per_host:  # so many take several turns of the loop
        gevent.sleep(0)
    assert before.bounded(1000) == crowd.LOOK
    assert before.bounded(1000) == 0
    gevent.sleep(1.1 * crowd.LOOK_S)
    waiting.leave(HOST, TOPIC, 1.0)  # so that it does not seem to hang
    assert before.bounded(1000) == crowd.LOOK
    waiting.close()
    gevent.joinall(entering)


def test_looks_become_rare_until_one_finds_somebody_for_another_host(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    now = [1000.0]
    monkeypatch.setattr(crowd.time, "monotonic", lambda: now[0])
    monkeypatch.setattr(Gates, "is_fast", lambda *_: True)
    monkeypatch.setattr(Gates, "room_before", lambda *_: (0, 5))
    before = without_credit(Crowd(gates()))

    def looks(seconds: float) -> int:
        count, ends = 0, now[0] + seconds
        while now[0] < ends:
            count += before.bounded(200) == crowd.LOOK
            now[0] += 0.01
        return count

    looks(5 * crowd.LONGEST_LOOK_S)
    assert looks(10 * crowd.LONGEST_LOOK_S) in (9, 10)
    before.let_in(HOST)
    assert looks(10 * crowd.LONGEST_LOOK_S) in (9, 10)
    before.let_in(HOST._replace(port=81))
    assert looks(1.0 + crowd.LONGEST_LOOK_S) >= 4


@pytest.mark.parametrize("per_host", [1, 10, 19, 200])
def test_a_host_that_has_places_bounds_nothing(per_host: int) -> None:
    free = gates(1.0, per_host)
    before = without_credit(Crowd(free))
    free.leave(HOST, TOPIC, 1.0)
    assert before.bounded(200) == 200


def test_credit_comes_with_those_let_in() -> None:
    before = without_credit(Crowd(gates()))
    for _ in range(int(1.1 * crowd.MOST / crowd.SHARE)):
        before.let_in(HOST)
    assert before.bounded(200) == 200


@pytest.mark.parametrize(
    ("call_ms", "full"),
    [(None, Full.HOST), (2000.0, Full.HOST), (5.0, Full.TOPIC), (5.0, Full.CLOSED)],
    ids=["nothing known of the host", "a slow one", "the limit of a topic", "the worker leaves"],
)
def test_others_take_no_credit(call_ms: float | None, full: Full) -> None:
    before = without_credit(Crowd(gates(call_ms)), full)
    assert before.bounded(200) == 200


def test_a_host_that_comes_to_hang_bounds_nothing_any_more() -> None:
    before = without_credit(Crowd(gates()))
    assert before.bounded(200) == 40
    gevent.sleep(0.1)
    assert before.bounded(200) == 200


@pytest.mark.parametrize(("per_host", "count"), [(1, 300), (10, 600), (100, 600)])
def test_all_of_a_burst_are_called(rig: Rig, server: Sink, per_host: int, count: int) -> None:
    rig.loop(max_per_host=per_host)
    burst = rig.put(server.url, count=count, ttr_ms=15_000)
    rig.all_end(burst, State.SUCCEEDED, 40)
    assert calls(server) == dict.fromkeys(burst, 1)


@pytest.mark.timed
def test_those_for_others_are_called_beside_a_burst(rig: Rig, server: Sink) -> None:
    server.reply = after(0.01)
    rig.loop()
    with sink() as other:
        burst = rig.put(server.url, count=6000, ttr_ms=15_000)
        behind = rig.put(other.url, count=20, ttr_ms=15_000)
        rig.all_end(burst + behind, State.SUCCEEDED, 40)
        assert calls(other) == dict.fromkeys(behind, 1)
    assert calls(server) == dict.fromkeys(burst, 1)
