from collections import Counter

import gevent
import pytest

from tests.unit.sinks import eventually
from worker.gates import MAX_DELAY_MS, MIN_DELAY_MS, RAMP, Full, Gates
from worker.request import Origin

A = Origin("http", "a", 80)
B = Origin("http", "b", 80)
T = "orders"


def many(total: int, *hosts: Origin, per_host: int = 1000) -> tuple[Gates, Counter[str]]:
    """Gates at which each host tries for all places, in turn; how many each got."""
    gates, got = Gates(total, per_host), Counter[str]()
    for _ in range(total):
        for host in hosts:
            got[host.host] += gates.enter(host, T, 0) is None
    return gates, got


def test_no_more_than_the_limit_get_in_per_host() -> None:
    gates = Gates(1000, 2)
    assert [gates.enter(A, T, 0) for _ in range(3)] == [None, None, Full.HOST]
    assert gates.full(A, T) is Full.HOST
    assert gates.full(B, T) is None
    assert gates.enter(B, T, 0) is None
    gates.leave(A, T, 1)
    assert gates.enter(A, T, 0) is None
    assert gates.enter(A, T, 0) is Full.HOST
    assert gates.running == 3


@pytest.mark.parametrize("hosts", [1, 2, 5, 10, 24])
def test_hosts_that_hang_leave_room_for_one_more_like_them(hosts: int) -> None:
    hung = [Origin("http", str(n), 80) for n in range(hosts)]
    gates, got = many(1000, *hung)
    each = 800 // (hosts + 1)
    assert set(got.values()) <= {each, each + 1}
    late = 0
    while gates.enter(B, T, 0) is None:
        late += 1
    assert late >= each // 2
    assert gates.running <= 1000


def test_hosts_that_hang_one_after_the_other_leave_room_for_ten_calls() -> None:
    gates, got = Gates(1000, 200), []
    for number in range(20):
        host, before = Origin("http", str(number), 80), gates.running
        while gates.enter(host, T, 0) is None:
            pass
        got.append(gates.running - before)
    assert got[:5] == [200, 200, 200, 100, 50]
    assert min(got) == 10
    assert gates.running <= 1000


def test_with_few_places_none_is_set_aside() -> None:
    assert many(20, A)[1] == {"a": 10}


def test_one_host_that_hangs_has_no_more_than_its_limit() -> None:
    assert many(1000, A, per_host=200)[1] == {"a": 200}


def test_the_last_place_can_be_had() -> None:
    gates = Gates(1, 200)
    assert gates.enter(A, T, 0) is None
    assert gates.enter(B, T, 0) is Full.HOST
    gates.leave(A, T, 1)
    assert gates.enter(B, T, 0) is None


def test_a_topic_has_its_limit_whatever_the_host_and_follows_its_change() -> None:
    limits = {T: 3}
    gates = Gates(1000, 200, lambda topic: limits.get(topic, 0))
    hosts = [Origin("http", str(n), 80) for n in range(10)]
    assert [gates.enter(host, T, 0) for host in hosts] == [None] * 3 + [Full.TOPIC] * 7
    assert gates.enter(A, "other", 0) is None
    limits[T] = 5
    assert [gates.enter(host, T, 0) for host in hosts[3:]] == [None] * 2 + [Full.TOPIC] * 5
    limits[T] = 0
    assert gates.enter(A, T, 0) is None
    limits[T] = 1  # those under way go on
    for host in (*hosts[:5], A):
        assert gates.enter(B, T, 0) is Full.TOPIC
        gates.leave(host, T, 1)
    assert gates.enter(B, T, 0) is None


def test_one_that_waits_takes_the_place_of_one_that_leaves_in_order() -> None:
    gates = Gates(1000, 1)
    gates.enter(A, T, 0)
    order: list[int] = []

    def wait(number: int) -> None:
        if gates.enter(A, T, 5) is None:
            order.append(number)

    waiting = gevent.spawn(wait, 1)
    gevent.sleep(0)
    assert gates.waiting == 1
    refused = gevent.spawn(wait, 2)  # as many wait as run
    refused.join()
    assert gates.waiting == 1
    gates.leave(A, T, 1)
    waiting.join()
    assert order == [1]
    assert gates.waiting == 0
    assert gates.full(A, T)
    gates.leave(A, T, 1)
    assert not gates.full(A, T)
    assert gates.running == 0


def test_a_place_of_one_host_may_go_to_those_who_wait_for_another() -> None:
    gates = Gates(3, 10)
    assert [gates.enter(A, T, 0), gates.enter(A, T, 0), gates.enter(B, T, 0)] == [None] * 3
    waiting = gevent.spawn(gates.enter, B, T, 5)
    gevent.sleep(0)
    assert gates.waiting == 1
    gates.leave(A, T, 1)  # one free, and B has one: still full for it
    gevent.sleep(0)
    assert gates.waiting == 1
    gates.leave(A, T, 1)
    assert waiting.get(timeout=1) is None


def test_those_who_wait_for_a_topic_go_in_when_one_of_it_ends_at_any_host() -> None:
    gates = Gates(1000, 200, lambda _topic: 1)
    assert gates.enter(A, T, 0) is None
    assert gates.enter(A, "other", 0) is None
    waiting = gevent.spawn(gates.enter, B, T, 5)
    gevent.sleep(0)
    gates.leave(A, "other", 1)
    gevent.sleep(0)
    assert not waiting.ready()
    gates.leave(A, T, 1)
    assert waiting.get(timeout=1) is None


def test_many_who_may_not_go_do_not_keep_others_from_going() -> None:
    hosts = [Origin("http", str(n), 80) for n in range(60)]
    gates = Gates(1000, 1)
    waiting = {}
    for host in hosts:
        gates.enter(host, T, 0)
        waiting[host] = gevent.spawn(gates.enter, host, T, 5)
    gevent.sleep(0)
    assert gates.waiting == 60
    for host in (hosts[40], hosts[59], hosts[0]):
        gates.leave(host, T, 1)
        assert waiting[host].get(timeout=1) is None
    gates.close()


def test_topics_at_one_host_go_in_turn() -> None:
    gates = Gates(1000, 5)
    for _ in range(5):
        gates.enter(A, "a", 0)
    served = Counter[str]()

    def wait(topic: str) -> None:
        if gates.enter(A, topic, 5) is None:
            served[topic] += 1

    for topic in ("a", "a", "a", "b", "b"):
        gevent.spawn(wait, topic)
    gevent.sleep(0)
    for _ in range(4):
        gates.leave(A, "a", 1)
    eventually(lambda: served.total() == 4)
    assert served == {"a": 2, "b": 2}
    gates.close()


def test_hosts_that_hang_do_not_take_all_room_to_wait() -> None:
    gates, waiting = Gates(90, 200), list[int]()
    for number in range(30):
        host = Origin("http", str(number), 80)
        while gates.enter(host, T, 0) is None:
            pass
        for _ in range(90):
            gevent.spawn(gates.enter, host, T, 5)
        gevent.sleep(0)
        waiting.append(gates.waiting)
    assert waiting[0] == 45
    assert waiting[1] == 68
    assert waiting[-1] <= 90
    gates.close()


def test_waiting_ends_with_its_time() -> None:
    gates = Gates(1000, 1)
    gates.enter(A, T, 0)
    with gevent.Timeout(1):
        assert gates.enter(A, T, 0.02) is Full.HOST
    assert gates.waiting == 0
    gates.leave(A, T, 1)
    assert not gates.full(A, T)


def test_a_place_given_to_one_that_was_killed_goes_on() -> None:
    gates = Gates(1000, 1)
    gates.enter(A, T, 0)
    waiting = gevent.spawn(gates.enter, A, T, 5)
    gevent.sleep(0)
    waiting.kill(block=False)
    gates.leave(A, T, 1)  # it is given the place, and dies before it runs again
    waiting.join()
    assert not gates.full(A, T)
    assert gates.waiting == gates.running == 0


def test_close_sends_away_those_who_wait() -> None:
    gates = Gates(1000, 1)
    gates.enter(A, T, 0)
    waiting = gevent.spawn(gates.enter, A, T, 5)
    gevent.sleep(0)
    gates.close()
    assert waiting.get(timeout=1) is Full.CLOSED
    assert gates.enter(B, T, 0) is Full.CLOSED
    assert gates.come_back_ms(B, T, Full.CLOSED) == 0
    gates.leave(A, T, 1)


def test_those_sent_away_come_back_as_fast_as_the_host_answers() -> None:
    gates = Gates(1000, 10)
    for _ in range(200):
        gates.enter(A, T, 0)
        gates.leave(A, T, 1000)  # ten at once, a second each: one per 100 ms
    delays = [gates.come_back_ms(A, T, Full.HOST) for _ in range(100)]
    assert delays == sorted(delays)
    assert delays[0] == pytest.approx(1100, abs=20)
    assert delays[-1] == pytest.approx(11_000, abs=100)
    assert gates.come_back_ms(B, T, Full.HOST) < 200


def test_one_that_came_late_to_hosts_that_hang_does_not_wait_for_the_few_places_it_found() -> None:
    gates = Gates(1000, 200)
    hosts = [Origin("http", str(n), 80) for n in range(10)]
    for host in hosts:
        while gates.enter(host, T, 0) is None:
            pass
    line = [gates.come_back_ms(hosts[-1], T, Full.HOST) for _ in range(200)]
    assert line[-1] - line[0] < 3 * 20  # a call takes 20 ms as far as is known, 90 at once
    for host in hosts:
        while gates._gates[host].running:
            gates.leave(host, T, 1)
    assert gates._hosts == gates.running == 0


def test_those_sent_away_come_back_as_fast_as_the_topic_is_served() -> None:
    gates = Gates(1000, 10, lambda _topic: 2)
    for _ in range(200):
        gates.enter(A, T, 0)
        gates.leave(A, T, 1000)
    delays = [gates.come_back_ms(B, T, Full.TOPIC) for _ in range(10)]
    assert delays[-1] - delays[0] == pytest.approx(4500, abs=50)


def test_a_call_that_was_never_made_says_nothing_of_durations() -> None:
    gates = Gates(1000, 10)
    before = gates.come_back_ms(B, T, Full.HOST)
    for _ in range(100):
        gates.enter(A, T, 0)
        gates.leave(A, T)
    assert gates.come_back_ms(A, T, Full.HOST) == pytest.approx(before, abs=2)


def test_a_host_that_hangs_is_taken_for_as_slow_as_it_shows() -> None:
    gates = Gates(1000, 1)
    gates.enter(A, T, 0)
    gevent.sleep(0.3)
    assert gates.come_back_ms(A, T, Full.HOST) >= 600


def test_a_delay_has_bounds() -> None:
    gates = Gates(1000, 1)
    gates.enter(A, T, 0)
    for _ in range(200):
        gates.leave(A, T, 0)
        gates.enter(A, T, 0)
    assert gates.come_back_ms(A, T, Full.HOST) >= MIN_DELAY_MS
    for _ in range(300):
        gates.leave(A, T, 60_000)
        gates.enter(A, T, 0)
    assert max(gates.come_back_ms(A, T, Full.HOST) for _ in range(10)) <= MAX_DELAY_MS


def test_a_host_that_came_back_begins_with_a_few_calls_and_gets_all_again() -> None:
    gates = Gates(1000, 50)
    gates.came_back(A)
    running, most = 0, []
    for _ in range(8):
        while gates.enter(A, T, 0) is None:
            running += 1
        most.append(running)
        while running:
            gates.leave(A, T, 1)
            running -= 1
    assert most[0] == RAMP
    assert most[1] == 2 * RAMP
    assert most[-1] == 50
    assert most == sorted(most)


def test_gates_are_forgotten_but_not_those_in_use(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("worker.gates.MAX_GATES", 4)
    gates = Gates(1000, 1)
    gates.enter(A, T, 0)
    for number in range(50):
        host = Origin("http", str(number), 80)
        gates.enter(host, T, 0)
        gates.leave(host, T, 1)
    assert len(gates._gates) <= 5
    assert gates.full(A, T)
