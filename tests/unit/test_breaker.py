import pytest

from worker.breaker import JITTER, LONGEST_OPEN_MS, SPREAD, Breakers, Ticket
from worker.request import Origin

A = Origin("http", "a", 80)
B = Origin("https", "a", 80)
OPEN_MS = 1000
LATEST = 1 + JITTER
TTR = 100


def begin(breakers: Breakers, now: float, host: Origin = A) -> Ticket:
    ticket = breakers.begin(host, now, TTR)
    assert ticket is not None
    return ticket


def opened(failures: int = 3, now: float = 0.0) -> Breakers:
    breakers = Breakers(failures, OPEN_MS)
    said = [breakers.failed(begin(breakers, now), now) for _ in range(failures)]
    assert said == [False] * (failures - 1) + [True]
    assert breakers.open == 1
    return breakers


def test_failures_in_a_row_open_it_for_that_host_alone() -> None:
    breakers = opened()
    assert breakers.begin(A, 1, TTR) is None
    assert (1 - JITTER) * OPEN_MS <= breakers.wait_ms(A, 0) <= (LATEST + SPREAD) * OPEN_MS + 1
    assert breakers.wait_ms(B, 0) == 0
    assert begin(breakers, 1, B).probe is False


def test_an_answer_in_between_begins_the_count_anew() -> None:
    breakers = Breakers(3, OPEN_MS)
    for now in range(100):
        ticket = begin(breakers, now)
        if now % 3 == 2:
            assert not breakers.answered(ticket, now)
        else:
            assert not breakers.failed(ticket, now)
    assert breakers.open == 0


def test_calls_that_hang_while_the_host_answers_others_say_nothing() -> None:
    breakers = Breakers(3, OPEN_MS)
    hung = [begin(breakers, 0) for _ in range(200)]
    breakers.answered(begin(breakers, 500), 501)
    assert not any(breakers.failed(ticket, 1000) for ticket in hung)
    late = [begin(breakers, 600) for _ in range(3)]
    assert [breakers.failed(ticket, 1600) for ticket in late] == [False, False, True]


def test_half_open_one_probe_goes_at_a_time() -> None:
    breakers = opened()
    now = LATEST * OPEN_MS
    assert breakers.wait_ms(A, now) == 0
    probe = begin(breakers, now)
    assert probe.probe
    assert breakers.begin(A, now, TTR) is None
    assert breakers.wait_ms(A, now) >= TTR
    assert breakers.open == 1


def test_an_answer_to_the_probe_closes_it() -> None:
    breakers = opened()
    now = LATEST * OPEN_MS
    assert breakers.answered(begin(breakers, now), now + 5)
    assert breakers.open == 0
    assert not begin(breakers, now + 6).probe
    # and the whole number of failures opens it again
    said = [breakers.failed(begin(breakers, now + 7), now + 8) for _ in range(3)]
    assert said == [False, False, True]


def test_failed_probes_double_the_time_up_to_a_bound() -> None:
    breakers = opened()
    now, waits = 0.0, []
    for _ in range(9):
        waits.append(breakers._circuits[A].until - now)
        now = breakers._circuits[A].until
        assert breakers.failed(begin(breakers, now), now) is False
    for n, wait in enumerate(waits):
        assert wait == pytest.approx(min(OPEN_MS * 2**n, LONGEST_OPEN_MS), rel=JITTER)
    assert breakers.open == 1


def test_a_probe_that_is_never_heard_of_does_not_close_the_way() -> None:
    breakers = opened()
    now = LATEST * OPEN_MS
    begin(breakers, now)
    assert begin(breakers, now + TTR).probe


def test_one_that_is_forced_goes_through_and_its_failure_changes_nothing() -> None:
    breakers = opened()
    until = breakers._circuits[A].until
    forced = breakers.begin(A, 1, TTR, forced=True)
    assert forced is not None
    assert not forced.probe
    assert not breakers.failed(forced, 1 + TTR)
    assert breakers._circuits[A].until == until
    assert breakers.begin(A, 2, TTR) is None


def test_an_answer_to_whichever_call_closes_it() -> None:
    breakers = Breakers(1, OPEN_MS)
    slow, bad = begin(breakers, 0), begin(breakers, 0)
    assert breakers.failed(bad, 1)
    assert breakers.answered(slow, 2)
    assert breakers.open == 0
    forced = opened().begin(A, 1, TTR, forced=True)
    assert forced is not None
    assert opened().answered(forced, 2)


def test_failures_of_calls_from_before_it_closed_do_not_open_it() -> None:
    breakers = Breakers(2, OPEN_MS)
    old = [begin(breakers, 0) for _ in range(50)]
    assert [breakers.failed(ticket, 10) for ticket in old[:2]] == [False, True]
    assert breakers.answered(begin(breakers, 5000), 5001)
    assert not any(breakers.failed(ticket, 5002) for ticket in old[2:])
    assert breakers.open == 0


def test_without_failures_to_count_it_is_off() -> None:
    breakers = Breakers(0, OPEN_MS)
    assert not any(breakers.failed(begin(breakers, now), now) for now in range(1000))
    assert breakers.open == breakers.wait_ms(A, 1000) == 0


def test_hosts_are_forgotten_and_no_longer_counted(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("worker.breaker.MAX_HOSTS", 3)
    breakers = opened()
    for number in range(10):
        begin(breakers, 1, Origin("http", str(number), 80))
    assert len(breakers._circuits) == 3
    assert breakers.open == 0
