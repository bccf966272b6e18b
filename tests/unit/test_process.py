"""The shared life of a process: clock, logs, health, loops."""

import json
import logging
import os
import signal
import time
from collections.abc import Iterator
from typing import Any

import gevent
import pytest
import requests
from gevent.event import Event

from soraka import logs, process
from soraka.clock import StoreClock
from soraka.config import ProcessConfig
from soraka.errors import LogUnavailable, StoreUnavailable
from soraka.metrics import Metrics


class Store:
    """A clock that is `ahead_ms` of this machine's, and may be away."""

    def __init__(self, ahead_ms: int = 0) -> None:
        self.ahead_ms = ahead_ms
        self.away = False

    def now_ms(self) -> int:
        if self.away:
            raise StoreUnavailable("away")
        return int(time.time() * 1000) + self.ahead_ms


def test_the_clock_follows_the_store() -> None:
    store = Store(ahead_ms=5_000)
    clock = StoreClock(store)
    clock.sync()
    assert abs(clock.now_ms() - store.now_ms()) < 20
    store.ahead_ms -= 8_000
    assert abs(clock.sync() + 8_000) < 20
    assert abs(clock.now_ms() - store.now_ms()) < 20


class SlowStore:
    """Its answers take a while, and were true when they were asked for: ms of each. No time
    passes but in them."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, *delays_ms: int) -> None:
        self.delays_ms = list(delays_ms)
        self.passed_ms = 0.0
        monkeypatch.setattr("soraka.clock._monotonic_ms", lambda: self.passed_ms)

    def true_ms(self) -> int:
        return 1_790_000_000_000 + int(self.passed_ms)

    def now_ms(self) -> int:
        now = self.true_ms()
        self.passed_ms += self.delays_ms.pop(0)
        return now


def test_a_slow_answer_does_not_move_the_clock(monkeypatch: pytest.MonkeyPatch) -> None:
    """It was read at once, and 60 ms on its way back: taken for true, all would be 30 ms early."""
    store = SlowStore(monkeypatch, 0, 0, 0, 60, 60, 60)
    clock = StoreClock(store)
    clock.sync()
    assert clock.sync() == 0
    assert abs(clock.now_ms() - store.true_ms()) <= 1


def test_the_clock_keeps_its_offset_while_the_store_is_away() -> None:
    store = Store(ahead_ms=5_000)
    clock = StoreClock(store)
    clock.sync()
    store.away = True
    with pytest.raises(StoreUnavailable):
        clock.sync()
    assert abs(clock.now_ms() - time.time() * 1000 - 5_000) < 20


@pytest.mark.parametrize("delays_ms", [(0, 80, 160), (160, 0, 80), (80, 160, 0)])
def test_the_quickest_reading_of_the_clock_counts(
    monkeypatch: pytest.MonkeyPatch, delays_ms: tuple[int, ...]
) -> None:
    store = SlowStore(monkeypatch, *delays_ms)
    clock = StoreClock(store)
    clock.sync()  # half of a delay is what a reading is wrong by
    assert abs(clock.now_ms() - store.true_ms()) <= 1


class Role:
    name = "fake"

    def __init__(self) -> None:
        self.ages = {"loop": 5}
        self.missing: list[str] = []

    def start(self) -> None: ...

    def drain(self, limit_s: float) -> bool:
        return limit_s > 0

    def stop(self) -> None: ...

    def turn_ages_ms(self) -> dict[str, int]:
        return self.ages

    def down(self) -> list[str]:
        return self.missing


@pytest.fixture
def role() -> Role:
    return Role()


@pytest.fixture
def health(role: Role) -> Iterator[str]:
    server = process.serve_health([role], Metrics(), process.listen("127.0.0.1", 0), "127.0.0.1")
    yield f"http://127.0.0.1:{server.server_port}"
    server.stop(timeout=1)


def test_a_loop_that_stands_still_is_not_healthy(health: str, role: Role) -> None:
    answer = requests.get(f"{health}/healthz", timeout=5)
    assert answer.status_code == 200
    assert answer.json() == {"ok": True, "last_turn_ms": {"fake": {"loop": 5}}}
    role.ages = {"loop": process.STALE_TURN_MS}
    assert requests.get(f"{health}/healthz", timeout=5).status_code == 503


def test_not_ready_says_what_is_down(health: str, role: Role) -> None:
    assert requests.get(f"{health}/readyz", timeout=5).json() == {"ok": True, "down": []}
    role.missing = ["store"]
    answer = requests.get(f"{health}/readyz", timeout=5)
    assert (answer.status_code, answer.json()["down"]) == (503, ["store"])


def test_metrics_are_prometheus_text(health: str) -> None:
    answer = requests.get(f"{health}/metrics", timeout=5)
    assert "soraka_lateness_seconds_bucket" in answer.text
    assert requests.get(f"{health}/else", timeout=5).status_code == 404


def test_a_turn_that_fails_does_not_end_the_loop(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(process, "BACK_OFF_S", 0.01)
    stopping = Event()
    turns: list[int] = []

    def turn() -> None:
        turns.append(1)
        if len(turns) == 1:
            raise StoreUnavailable("away")
        if len(turns) == 2:
            raise ValueError("a defect")
        if len(turns) == 4:
            stopping.set()

    turned: list[int] = []
    process.loop(turn, stopping=stopping, turned=lambda: turned.append(1), pause=lambda: None)
    assert (len(turns), len(turned)) == (4, 3)
    assert [r.message for r in caplog.records] == ["loop.unavailable", "loop.failed"]


def test_turns_age() -> None:
    turns = process.Turns("a", "b")
    gevent.sleep(0.05)
    turns.turn("a")
    ages = turns.ages_ms()
    assert ages["a"] < 40 <= ages["b"]


@pytest.fixture
def _logging() -> Iterator[None]:
    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level
    yield
    root.handlers[:] = handlers
    root.setLevel(level)


@pytest.mark.usefixtures("_logging")
def test_a_json_log_line(capsys: pytest.CaptureFixture[str]) -> None:
    logs.configure(ProcessConfig())
    logging.getLogger("x").warning("store.gap", extra={"partition": "p"})
    line: dict[str, Any] = json.loads(capsys.readouterr().err)
    assert line.pop("timestamp")
    assert line == {"level": "WARNING", "logger": "x", "event": "store.gap", "partition": "p"}


@pytest.mark.usefixtures("_logging")
def test_a_text_log_line(capsys: pytest.CaptureFixture[str]) -> None:
    logs.configure(ProcessConfig(log_format="text"))
    logging.getLogger("x").info("store.gap", extra={"partition": "p"})
    assert capsys.readouterr().err.endswith("INFO    store.gap partition=p\n")


def test_a_taken_port_is_named() -> None:
    with process.listen("127.0.0.1", 0) as sock:
        port = sock.getsockname()[1]
        with pytest.raises(OSError, match=rf"^x.port = {port}: 127.0.0.1:{port}: Address already"):
            process.listen("127.0.0.1", port, "x.port")


def test_a_port_that_gets_free_in_time_is_taken(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    sock = process.listen("127.0.0.1", 0)
    port = sock.getsockname()[1]
    gevent.spawn_later(0.3, sock.close)
    process.listen("127.0.0.1", port, patience_s=5.0).close()
    assert [r.message for r in caplog.records] == ["port.taken"]


def test_a_server_that_is_away_is_waited_for(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(process, "TRY_AGAIN_S", 0.01)
    starting = process.Starting()
    away = [LogUnavailable("a"), StoreUnavailable("b")]

    def action() -> str:
        if away:
            raise away.pop(0)
        return "up"

    assert process.until_available(action, starting.waiting_for) == "up"
    assert starting.down() == ["store"]
    assert [vars(r)["for"] for r in caplog.records] == ["log", "store"]


@pytest.fixture
def signals() -> Iterator[process.Signals]:
    before = {number: signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT)}
    made = process.Signals()
    yield made
    made.close()
    for number, handler in before.items():
        signal.signal(number, handler)


def test_a_signal_cuts_off_what_waits(signals: process.Signals) -> None:
    ended: list[str] = []

    def waits() -> str:
        try:
            Event().wait()
        finally:
            ended.append("cleanly")
        return "never"

    gevent.spawn_later(0.1, os.kill, os.getpid(), signal.SIGTERM)
    with gevent.Timeout(10):
        assert signals.cut(waits) is None
    assert ended == ["cleanly"]


def test_what_does_not_wait_is_done_and_its_errors_pass(signals: process.Signals) -> None:
    assert signals.cut(lambda: 5) == 5
    with pytest.raises(OSError, match="taken"):
        signals.cut(_taken)


def _taken() -> None:
    raise OSError("taken")
