"""The loop before hosts that are gone: real sockets, the real store."""

import logging
import socket
from collections.abc import Iterator
from itertools import pairwise

import gevent
import pytest
from gevent.server import StreamServer

from soraka.message import State
from soraka.ports import Ended
from tests.unit.sinks import Sink, eventually, ok
from tests.unit.worker_kit import Rig, after, calls
from worker.admission import Why

# Run without coverage, which would take most of the time that is measured here.
pytestmark = pytest.mark.timed


class Gone:
    """A port nobody listens at, until `back`."""

    def __init__(self) -> None:
        self.sink = Sink()
        self._socket = socket.socket()
        self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        self._socket.bind(("127.0.0.1", 0))
        self.port = self._socket.getsockname()[1]
        self.url = f"http://127.0.0.1:{self.port}/hook"
        self._server: StreamServer | None = None

    def back(self) -> None:
        self._socket.listen(100)
        self._server = StreamServer(self._socket, self.sink.serve)
        self._server.start()

    def close(self) -> None:
        if self._server is not None:
            self._server.stop(timeout=0.1)
        self._socket.close()


@pytest.fixture
def gone() -> Iterator[Gone]:
    made = Gone()
    yield made
    made.close()


def said(caplog: pytest.LogCaptureFixture) -> list[tuple[str, str]]:
    return [
        (r.getMessage(), r.__dict__["host"])
        for r in caplog.records
        if r.getMessage().startswith("circuit.")
    ]


def test_a_host_that_is_gone_is_left_alone_and_costs_no_attempts(
    rig: Rig, gone: Gone, server: Sink, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    loop = rig.loop(breaker_failures=5, breaker_open_ms=300, max_per_host=5)
    msg_ids = rig.put(gone.url, count=100, in_ms=100, retry_ms=(100, 100, 100))
    fine = rig.put(server.url, count=20, in_ms=300)
    eventually(lambda: loop.open_circuits == 1)
    eventually(lambda: rig.released.count(Why.CIRCUIT) >= 150)
    failed = [ended for _, ended, _, _ in rig.done].count(Ended.RETRY)
    assert failed <= 5 + 5 + 2  # as many as it takes, those under way, a probe or two
    rig.all_end(fine, State.SUCCEEDED)
    gone.back()
    rig.all_end(msg_ids, State.SUCCEEDED, limit_s=20)
    assert calls(gone.sink) == dict.fromkeys(msg_ids, 1)
    assert loop.open_circuits == 0
    host = f"http://127.0.0.1:{gone.port}"
    assert said(caplog) == [("circuit.opened", host), ("circuit.closed", host)]
    reasons = {r for _, ended, _, r in rig.done if ended is Ended.RELEASED}
    assert f"circuit of {host} is open" in reasons


def test_while_it_is_gone_one_probe_goes_at_a_time(rig: Rig, server: Sink) -> None:
    rig.loop(breaker_failures=5, breaker_open_ms=200, max_per_host=5)
    server.reply = after(5)
    rig.put(server.url, count=60, ttr_ms=300, retry_ms=(50,) * 30)
    eventually(lambda: len(rig.done) and rig.released.count(Why.CIRCUIT) >= 60)
    gevent.sleep(0.35)  # what was under way has ended
    times: list[float] = []
    reply = server.reply

    def count(sock: socket.socket, seen: object) -> bool | None:
        times.append(rig.now())
        return reply(sock, seen)  # type: ignore[arg-type]

    server.reply = count
    eventually(lambda: len(times) >= 2, 20)
    # the time between them grows; those given back ten times are called without a probe
    assert min(b - a for a, b in pairwise(times[:2])) >= 290


def test_retries_and_dead_letters_come_to_those_for_a_host_that_is_gone(
    rig: Rig, gone: Gone
) -> None:
    loop = rig.loop(breaker_failures=5, breaker_open_ms=100, page_ms=50)
    warm = rig.put(gone.url, count=5)
    rig.all_end(warm, State.DEAD)
    eventually(lambda: loop.open_circuits == 1)
    # the probes fail and the time between them grows; this one must not wait for ever
    msg_ids = rig.put(gone.url, count=3, retry_ms=(10,))
    for msg_id in msg_ids:
        seen = -1
        while rig.stored(msg_id).state is State.PENDING:
            stored = rig.stored(msg_id)
            at = max(stored.due_at, stored.not_before)
            if at != seen and at > rig.now():
                seen = at
                _due_now(rig, msg_id)
            gevent.sleep(0.01)
    for msg_id in msg_ids:
        end = rig.stored(msg_id)
        assert (end.state, end.attempt) == (State.DEAD, 2)
        assert end.reason == "connection refused (attempt 2, the last)"
    released = rig.released.count(Why.CIRCUIT)
    assert 10 <= released <= 3 * 10
    assert loop.open_circuits == 1


def _due_now(rig: Rig, msg_id: str) -> None:
    """As if the time it has to wait had passed."""
    rig.real._thread.run(
        lambda c: c.execute(
            "UPDATE message SET due_at = ?, not_before = 0, look_at = ?", (rig.now(), rig.now())
        )
    )


def test_answers_of_any_kind_open_nothing(rig: Rig, server: Sink) -> None:
    server.reply = ok(status="500 No")
    loop = rig.loop(breaker_failures=3, breaker_open_ms=300)
    msg_ids = rig.put(server.url, count=50, retry_ms=(10,))
    rig.all_end(msg_ids, State.DEAD)
    assert loop.open_circuits == 0
    assert rig.released == []
    assert set(calls(server).values()) == {2}
