"""A burst for one fast host: few are claimed in vain, and those for others are found."""

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


def gates(call_ms: float | None = 5.0) -> Gates:
    """Ten calls to a host, one of which has ended; the tenth place is taken."""
    made = Gates(1000, 10)
    for _ in range(10):
        assert made.enter(HOST, TOPIC, 0) is None
    if call_ms is not None:
        made.leave(HOST, TOPIC, call_ms)
        assert made.enter(HOST, TOPIC, 0) is None
    return made


def turn_away(before: Crowd, count: int, full: Full = Full.HOST) -> None:
    for _ in range(count):
        before.turned_away(HOST, TOPIC, full)


def test_without_credit_as_many_are_claimed_as_there_is_room_for() -> None:
    waiting = gates()
    before = Crowd(waiting)
    turn_away(before, int(crowd.MOST))
    assert before.bounded(200) == 0  # ten may wait, which is not worth a claim
    for _ in range(20):
        before.let_in()
    assert before.bounded(200) == 200


@pytest.mark.parametrize(
    ("call_ms", "full"),
    [(None, Full.HOST), (2000.0, Full.HOST), (5.0, Full.TOPIC), (5.0, Full.CLOSED)],
    ids=["nothing known of the host", "a slow one", "the limit of a topic", "the worker leaves"],
)
def test_others_take_no_credit(call_ms: float | None, full: Full) -> None:
    before = Crowd(gates(call_ms))
    turn_away(before, 1000, full)
    assert before.bounded(200) == 200


def test_a_host_that_comes_to_hang_bounds_nothing_any_more() -> None:
    before = Crowd(gates())
    turn_away(before, 1000)
    assert before.bounded(200) == 0
    gevent.sleep(1.5 * crowd.FAST_MS / 1000)
    assert before.bounded(200) == 200


def test_of_a_burst_few_are_claimed_in_vain_and_others_are_called(rig: Rig, server: Sink) -> None:
    server.reply = after(0.02)
    rig.loop(max_callbacks=400, max_per_host=40)
    with sink() as other:
        burst = rig.put(server.url, count=2000, ttr_ms=15_000)
        behind = rig.put(other.url, count=20, ttr_ms=15_000)
        rig.all_end(burst + behind, State.SUCCEEDED, 40)
        assert calls(other) == dict.fromkeys(behind, 1)
    assert calls(server) == dict.fromkeys(burst, 1)
    assert len(rig.released) < 1000
