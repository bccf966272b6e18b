"""However it is asked, no more go than the rate allows, and no fewer for long."""

from bisect import bisect_left, bisect_right

from hypothesis import given
from hypothesis import strategies as st

from soraka.rate import BURST_MS, Rate
from worker.rates import MAX_DELAY_MS, Rates

rates = st.floats(0.1, 5000)
gaps = st.lists(st.floats(0, 3000), max_size=300)


@given(rates, gaps)
def test_in_no_stretch_of_time_more_go_than_the_rate_allows(
    per_second: float, pauses: list[float]
) -> None:
    rate, now, went = Rate(per_second), 1000.0, list[float]()
    for pause in pauses:
        now += pause
        count = rate.fitting(now)
        assert bool(count) is (rate.wait_ms(now) == 0)
        rate.take(now, count)
        went += [now] * count
    for start in set(went):
        for end in set(went):
            count = bisect_right(went, end) - bisect_left(went, start)
            assert count <= (end - start + BURST_MS) * per_second / 1000 + 1 + 1e-6 or end < start


@given(rates)
def test_who_waits_as_told_may_go(per_second: float) -> None:
    rate, now = Rate(per_second), 0.0
    for _ in range(50):
        now += rate.wait_ms(now) + 1e-6
        assert rate.fitting(now) >= 1
        rate.take(now)


@given(st.floats(1, 1000), st.integers(1, 300))
def test_those_sent_away_come_back_in_a_line_that_moves_at_the_rate(
    per_second: float, crowd: int
) -> None:
    made = Rates(lambda _topic: per_second)
    waiting, now, began = list[float](), 0.0, list[float]()
    for _ in range(crowd):
        if delay := made.refused_ms("t", now, came_back=False):
            waiting.append(now + delay)
        else:
            made.take("t", now)
            began.append(now)
    assert len(began) <= per_second * BURST_MS / 1000 + 1
    turns = 0
    while waiting:
        waiting.sort()
        now = waiting.pop(0)
        turns += 1
        if delay := made.refused_ms("t", now, came_back=True):
            waiting.append(now + delay)
            continue
        made.take("t", now)
        began.append(now)
    assert len(began) == crowd
    if crowd / per_second * 1000 < MAX_DELAY_MS:
        assert turns <= crowd  # each comes back once
        assert began[-1] <= crowd * (1000 / per_second + 1) + 2


def test_one_that_comes_new_does_not_pass_those_who_wait() -> None:
    made, now = Rates(lambda _topic: 10.0), 0.0
    while not made.refused_ms("t", now, came_back=False):
        made.take("t", now)
    later = now + 150
    assert made.refused_ms("t", later, came_back=False)
    assert not made.refused_ms("t", later, came_back=True)


def test_a_topic_without_a_rate_is_not_held_up_by_one_that_has_one() -> None:
    made = Rates({"slow": 1.0, "fast": 0.0}.__getitem__)
    for _ in range(1000):
        if not made.refused_ms("slow", 0.0, came_back=False):
            made.take("slow", 0.0)
        assert not made.refused_ms("fast", 0.0, came_back=False)


def test_nobody_is_told_to_wait_longer_than_the_longest() -> None:
    made = Rates(lambda _topic: 0.1)
    made.take("t", 0.0)
    told = [made.refused_ms("t", 0.0, came_back=False) for _ in range(100)]
    assert max(told) <= MAX_DELAY_MS + 1


def test_a_rate_that_is_changed_holds_from_then_on() -> None:
    shares = {"t": 1.0}
    made = Rates(shares.__getitem__)
    for _ in range(5):
        if not made.refused_ms("t", 0.0, came_back=True):
            made.take("t", 0.0)
    shares["t"] = 1000.0
    went = 0
    for now in range(1000, 2000):
        if not made.refused_ms("t", float(now), came_back=True):
            made.take("t", float(now))
            went += 1
    assert went >= 900
    shares["t"] = 0.0
    assert not any(made.refused_ms("t", 2000.0, came_back=False) for _ in range(100))
