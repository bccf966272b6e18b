"""Hosts that hang, and topics with a limit, beside others: real sockets, the real loop."""

import socket
from collections import Counter
from collections.abc import Iterator
from contextlib import ExitStack

import pytest
from gevent.server import StreamServer

from soraka.message import State
from tests.unit.machine import Withheld, withheld
from tests.unit.sinks import Sink, eventually, sink
from tests.unit.worker_kit import Rig, after, calls, late_ms
from worker.admission import Why

# Run without coverage, which would take most of the time that is measured here.
pytestmark = pytest.mark.timed

SPACING_MS = 10
"""Between messages to the healthy host."""
BURST_MS = 1000
"""Thousands that fall due at once take so long to be looked at, whatever becomes of them."""
TTR_MS = 2500


class Mute:
    """Takes connections and says nothing, until it is told to."""

    def __init__(self) -> None:
        self._listener = socket.create_server(("127.0.0.1", 0), backlog=4096)
        self.url = f"http://127.0.0.1:{self._listener.getsockname()[1]}/"
        self._sink = Sink()
        self._server = StreamServer(self._listener, self._sink.serve)

    def speak(self) -> None:
        self._server.start()

    def close(self) -> None:
        self._server.stop(timeout=0.1)
        self._listener.close()


def flow(rig: Rig, server: Sink, start_ms: int, length_ms: int) -> list[str]:
    """A steady flow of messages."""
    first = rig.now() + start_ms
    return [
        msg_id
        for n in range(length_ms // SPACING_MS)
        for msg_id in rig.put(server.url, in_ms=first + SPACING_MS * n - rig.now())
    ]


@pytest.fixture
def lost() -> Iterator[Withheld]:
    with withheld() as made:
        yield made


def late_p99(server: Sink, msg_ids: list[str], lost: Withheld | None = None) -> float:
    """With `lost`, by the time that this process had."""
    ours = set(msg_ids)
    late = sorted(
        late_ms(seen, lost) for seen in server.seen if seen.headers["soraka-message-id"] in ours
    )
    assert len(late) == len(msg_ids)
    return late[len(late) * 99 // 100]


@pytest.mark.timeout(180)
@pytest.mark.parametrize(("hosts", "each", "failures"), [(1, 1000, 0), (10, 200, 0), (10, 200, 20)])
def test_hosts_that_hang_make_no_other_late(
    rig: Rig, server: Sink, lost: Withheld, hosts: int, each: int, failures: int
) -> None:
    rig.loop(breaker_failures=failures, breaker_open_ms=500)
    before = flow(rig, server, 500, 1500)
    rig.all_end(before, State.SUCCEEDED, limit_s=40)
    with ExitStack() as closing:
        hanging = [Mute() for _ in range(hosts)]
        for one in hanging:
            closing.callback(one.close)
        stuck = [
            msg_id
            for one in hanging
            for msg_id in rig.put(
                one.url, in_ms=800, count=each, ttr_ms=TTR_MS, retry_ms=(300,) * 32
            )
        ]
        due_at = rig.stored(stuck[0]).due_at
        at_once = flow(rig, server, due_at - rig.now(), BURST_MS)
        beside = flow(rig, server, due_at + BURST_MS - rig.now(), TTR_MS - BURST_MS)
        rig.all_end(at_once + beside, State.SUCCEEDED, limit_s=40)
        p99 = [late_p99(server, before)]
        p99 += [late_p99(server, ids, lost) for ids in (at_once, beside)]
        print("p99 lateness, ms: {:.0f} without, {:.0f} at once, {:.0f} beside".format(*p99))
        assert p99[1] < BURST_MS
        assert p99[2] < 4 * p99[0] + 250
        assert all(s and s.state is State.PENDING for s in rig.real.get(stuck))
        for one in hanging:
            one.speak()
        rig.all_end(stuck, State.SUCCEEDED, limit_s=90)
    assert calls(server) == dict.fromkeys(before + at_once + beside, 1)


def test_a_topic_has_no_more_calls_than_it_may_and_its_limit_is_followed(
    rig: Rig, server: Sink
) -> None:
    limits = {"slow": 3}
    server.reply = after(0.05)
    rig.loop(topic_limit=lambda topic: limits.get(topic, 0))
    slow = rig.put(server.url, count=40, topic="slow", in_ms=100, retry_ms=(10,))
    eventually(lambda: len(server.seen) >= 15)
    assert server.at_once == 3
    limits["slow"] = 7
    rig.all_end(slow, State.SUCCEEDED)
    assert server.at_once == 7
    assert calls(server) == dict.fromkeys(slow, 1)
    assert set(rig.released) <= {Why.TOPIC}
    assert all(rig.stored(msg_id).attempt == 1 for msg_id in slow)


def test_a_topic_at_its_limit_makes_no_other_late(rig: Rig, server: Sink, lost: Withheld) -> None:
    with sink(after(0.5)) as slow:
        rig.loop(topic_limit=lambda topic: 2 if topic == "slow" else 0)
        stuck = rig.put(slow.url, count=500, topic="slow", in_ms=500)
        beside = flow(rig, server, 1000, 2000)
        rig.all_end(beside, State.SUCCEEDED, limit_s=40)
        assert slow.at_once == 2
        assert late_p99(server, beside, lost) < 250
        states = Counter(s.state for s in rig.real.get(stuck) if s)
        assert states[State.DEAD] == 0
        assert states[State.PENDING] > 400
