import gevent
import pytest

from worker.gates import MAX_DELAY_MS, MIN_DELAY_MS, Gates
from worker.request import Origin

A = Origin("http", "a", 80)
B = Origin("http", "b", 80)


def test_no_more_than_the_limit_get_in_per_host() -> None:
    gates = Gates(2)
    assert [gates.enter(A, 0) for _ in range(3)] == [True, True, False]
    assert gates.is_full(A)
    assert not gates.is_full(B)
    assert gates.enter(B, 0)
    gates.leave(A, 1)
    assert gates.enter(A, 0)
    assert not gates.enter(A, 0)


def test_one_that_waits_takes_the_place_of_one_that_leaves_in_order() -> None:
    gates = Gates(1)
    gates.enter(A, 0)
    order: list[int] = []

    def wait(number: int) -> None:
        if gates.enter(A, 5):
            order.append(number)

    waiting = gevent.spawn(wait, 1)
    gevent.sleep(0)
    assert gates.waiting == 1
    refused = gevent.spawn(wait, 2)  # as many wait as run
    refused.join()
    assert gates.waiting == 1
    gates.leave(A, 1)
    waiting.join()
    assert order == [1]
    assert gates.waiting == 0
    assert gates.is_full(A)
    gates.leave(A, 1)
    assert not gates.is_full(A)


def test_waiting_ends_with_its_time() -> None:
    gates = Gates(1)
    gates.enter(A, 0)
    with gevent.Timeout(1):
        assert not gates.enter(A, 0.02)
    assert gates.waiting == 0
    gates.leave(A, 1)
    assert not gates.is_full(A)


def test_a_place_given_to_one_that_was_killed_goes_on() -> None:
    gates = Gates(1)
    gates.enter(A, 0)
    waiting = gevent.spawn(gates.enter, A, 5)
    gevent.sleep(0)
    waiting.kill(block=False)
    gates.leave(A, 1)  # it is given the place, and dies before it runs again
    waiting.join()
    assert not gates.is_full(A)
    assert gates.waiting == 0


def test_close_sends_away_those_who_wait() -> None:
    gates = Gates(1)
    gates.enter(A, 0)
    waiting = gevent.spawn(gates.enter, A, 5)
    gevent.sleep(0)
    gates.close()
    assert waiting.get(timeout=1) is False
    assert not gates.enter(B, 0)
    gates.leave(A, 1)


def test_those_sent_away_come_back_as_fast_as_the_host_answers() -> None:
    gates = Gates(10)
    for _ in range(200):
        gates.enter(A, 0)
        gates.leave(A, 1000)  # ten at once, a second each: one per 100 ms
    delays = [gates.come_back_ms(A) for _ in range(100)]
    assert delays == sorted(delays)
    assert delays[0] == pytest.approx(1100, abs=20)
    assert delays[-1] == pytest.approx(11_000, abs=100)
    assert gates.come_back_ms(B) < 200


def test_a_host_that_hangs_is_taken_for_as_slow_as_it_shows() -> None:
    gates = Gates(1)
    gates.enter(A, 0)
    gevent.sleep(0.3)
    assert gates.come_back_ms(A) >= 600


def test_a_delay_has_bounds() -> None:
    gates = Gates(1)
    gates.enter(A, 0)
    for _ in range(200):
        gates.leave(A, 0)
        gates.enter(A, 0)
    assert gates.come_back_ms(A) >= MIN_DELAY_MS
    for _ in range(300):
        gates.leave(A, 60_000)
        gates.enter(A, 0)
    assert max(gates.come_back_ms(A) for _ in range(10)) <= MAX_DELAY_MS


def test_hosts_are_forgotten_but_not_those_in_use(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("worker.gates.MAX_HOSTS", 3)
    gates = Gates(1)
    gates.enter(A, 0)
    for number in range(50):
        host = Origin("http", str(number), 80)
        gates.enter(host, 0)
        gates.leave(host, 1)
    assert len(gates._gates) <= 4
    assert gates.is_full(A)
