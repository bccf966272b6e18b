"""The timer against a list that is sorted at every question."""

import random
import sys

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from worker.timer import Timer

FAR = 10**15


class Model:
    """What a timer without a limit holds, in the plainest way."""

    def __init__(self) -> None:
        self._rows: list[tuple[int, int, str]] = []
        self._arrivals = 0

    def push(self, msg_id: str, due_at: int) -> bool:
        if any(row[0] == due_at and row[2] == msg_id for row in self._rows):
            return False
        self.discard(msg_id)
        self._rows.append((due_at, self._arrivals, msg_id))
        self._arrivals += 1
        return True

    def discard(self, msg_id: str) -> bool:
        before = len(self._rows)
        self._rows = [row for row in self._rows if row[2] != msg_id]
        return len(self._rows) < before

    def pop_due(self, now_ms: int, limit: int) -> list[str]:
        due = [row for row in sorted(self._rows) if row[0] <= now_ms][:limit]
        self._rows = [row for row in self._rows if row not in due]
        return [row[2] for row in due]

    def next_due_ms(self) -> int | None:
        return min(self._rows)[0] if self._rows else None

    def ids(self) -> list[str]:
        return [row[2] for row in self._rows]


IDS = [f"m{number}" for number in range(8)]
PUSH = st.tuples(st.just("push"), st.sampled_from(IDS), st.integers(0, 12))
DISCARD = st.tuples(st.just("discard"), st.sampled_from(IDS))
POP = st.tuples(st.just("pop_due"), st.integers(0, 14), st.integers(0, 4))


def assert_same(timer: Timer, model: Model) -> None:
    assert timer.next_due_ms() == model.next_due_ms()
    assert len(timer) == len(model.ids())
    assert [msg_id for msg_id in IDS if msg_id in timer] == sorted(model.ids())


@settings(deadline=None, max_examples=300)
@given(st.lists(st.one_of(PUSH, DISCARD, POP), max_size=60))
def test_any_operations_give_what_a_sorted_list_gives(
    operations: list[tuple[object, ...]],
) -> None:
    timer, model = Timer(), Model()
    for name, *arguments in operations:
        assert getattr(timer, str(name))(*arguments) == getattr(model, str(name))(*arguments)
        assert_same(timer, model)
    assert timer.pop_due(FAR, 100) == model.pop_due(FAR, 100)


@pytest.mark.parametrize("seed", range(4))
def test_long_runs_with_sweeping_give_what_a_sorted_list_gives(seed: int) -> None:
    rng = random.Random(seed)
    timer, model = Timer(), Model()
    ids = [f"m{number}" for number in range(150)]
    for now_ms in range(4_000):
        msg_id = rng.choice(ids)
        if rng.random() < 0.2:
            assert timer.discard(msg_id) == model.discard(msg_id)
        else:
            due_at = now_ms + rng.randrange(300)
            assert timer.push(msg_id, due_at) == model.push(msg_id, due_at)
        if rng.random() < 0.1:
            assert timer.pop_due(now_ms, 20) == model.pop_due(now_ms, 20)
        assert timer.next_due_ms() == model.next_due_ms()
    assert timer.pop_due(FAR, 200) == model.pop_due(FAR, 200)


# ------------------------------------------------------------------------- order


def test_equal_due_times_come_in_the_order_of_arrival() -> None:
    timer = Timer()
    ids = [f"m{number}" for number in random.Random(1).sample(range(500), 500)]
    for msg_id in ids:
        timer.push(msg_id, 7)
    assert timer.pop_due(7, 1_000) == ids


def test_earlier_due_times_come_first() -> None:
    timer = Timer()
    for msg_id, due_at in (("c", 30), ("a", 10), ("b", 20)):
        timer.push(msg_id, due_at)
    assert timer.pop_due(30, 10) == ["a", "b", "c"]


def test_nothing_comes_early() -> None:
    timer = Timer()
    timer.push("a", 10)
    assert timer.pop_due(9, 10) == []
    assert timer.pop_due(10, 10) == ["a"]


def test_the_limit_leaves_the_rest() -> None:
    timer = Timer()
    for number in range(5):
        timer.push(f"m{number}", number)
    assert timer.pop_due(10, 3) == ["m0", "m1", "m2"]
    assert timer.pop_due(10, 0) == []
    assert timer.next_due_ms() == 3
    assert timer.pop_due(10, 3) == ["m3", "m4"]


def test_what_was_popped_is_gone_and_may_come_again() -> None:
    timer = Timer()
    timer.push("a", 10)
    assert timer.pop_due(10, 1) == ["a"]
    assert "a" not in timer
    assert timer.push("a", 10)
    assert timer.pop_due(10, 5) == ["a"]


def test_an_empty_timer_has_no_next_due_time() -> None:
    timer = Timer()
    assert timer.next_due_ms() is None
    assert timer.pop_due(FAR, 10) == []
    assert len(timer) == 0
    assert "a" not in timer


# ----------------------------------------------------------------- moving, discarding


def test_the_same_due_time_again_changes_nothing() -> None:
    timer = Timer()
    assert timer.push("a", 10)
    assert timer.push("b", 10)
    assert not timer.push("a", 10)
    assert len(timer) == 2
    assert timer.pop_due(10, 5) == ["a", "b"]


def test_moved_earlier() -> None:
    timer = Timer()
    timer.push("a", 100)
    timer.push("b", 50)
    assert timer.push("a", 10)
    assert timer.next_due_ms() == 10
    assert timer.pop_due(10, 5) == ["a"]
    assert timer.pop_due(100, 5) == ["b"]


def test_moved_later() -> None:
    timer = Timer()
    timer.push("a", 10)
    timer.push("b", 50)
    assert timer.push("a", 100)
    assert timer.next_due_ms() == 50
    assert timer.pop_due(99, 5) == ["b"]
    assert timer.pop_due(100, 5) == ["a"]


def test_moved_there_and_back_comes_once_and_last_among_equals() -> None:
    timer = Timer()
    timer.push("a", 10)
    timer.push("b", 10)
    timer.push("a", 20)
    timer.push("a", 10)
    assert timer.pop_due(20, 5) == ["b", "a"]
    assert timer.next_due_ms() is None


def test_discard_of_the_root() -> None:
    timer = Timer()
    for number in range(10):
        timer.push(f"m{number}", number)
    assert timer.discard("m0")
    assert timer.next_due_ms() == 1
    assert timer.pop_due(FAR, 100) == [f"m{number}" for number in range(1, 10)]


def test_discard_of_the_last_one() -> None:
    timer = Timer()
    timer.push("a", 10)
    assert timer.discard("a")
    assert timer.next_due_ms() is None
    assert len(timer) == 0


def test_discard_of_what_is_not_there() -> None:
    timer = Timer()
    timer.push("a", 10)
    timer.pop_due(10, 1)
    assert not timer.discard("a")
    assert not timer.discard("never seen")


def test_discarded_and_pushed_again_comes_once() -> None:
    timer = Timer()
    timer.push("a", 10)
    timer.discard("a")
    timer.push("a", 10)
    assert timer.pop_due(FAR, 5) == ["a"]


# ------------------------------------------------------------------------ capacity


def test_full_it_refuses_what_is_no_earlier_than_all_it_holds() -> None:
    timer = Timer(capacity=3)
    for msg_id, due_at in (("a", 10), ("b", 20), ("c", 30)):
        assert timer.push(msg_id, due_at)
    assert not timer.push("d", 30)
    assert not timer.push("e", 31)
    assert timer.pop_due(FAR, 5) == ["a", "b", "c"]


def test_full_of_late_ones_it_takes_an_earlier_one() -> None:
    timer = Timer(capacity=3)
    for msg_id, due_at in (("a", 10), ("b", 20), ("c", 30)):
        timer.push(msg_id, due_at)
    assert timer.push("d", 5)
    assert "c" not in timer
    assert timer.pop_due(FAR, 5) == ["d", "a", "b"]


def test_full_of_equals_it_forgets_those_that_came_last() -> None:
    timer = Timer(capacity=16)
    for number in range(16):
        timer.push(f"m{number}", 10)
    assert timer.push("early", 9)
    assert timer.pop_due(FAR, 20) == ["early", *[f"m{number}" for number in range(14)]]


def test_full_it_still_moves_what_it_holds() -> None:
    timer = Timer(capacity=2)
    timer.push("a", 10)
    timer.push("b", 20)
    assert timer.push("a", 30)
    assert timer.push("b", 5)
    assert timer.pop_due(FAR, 5) == ["b", "a"]


def test_what_was_forgotten_may_come_again_when_there_is_room() -> None:
    timer = Timer(capacity=2)
    timer.push("a", 10)
    timer.push("b", 20)
    timer.push("c", 5)
    assert timer.pop_due(10, 5) == ["c", "a"]
    assert timer.push("b", 20)
    assert timer.pop_due(20, 5) == ["b"]


def test_after_a_discard_a_full_timer_takes_one_more() -> None:
    timer = Timer(capacity=2)
    timer.push("a", 10)
    timer.push("b", 20)
    timer.discard("b")
    assert timer.push("c", 99)
    assert len(timer) == 2


def test_a_discarded_late_one_does_not_let_a_later_one_push_out_an_earlier() -> None:
    timer = Timer(capacity=2)
    timer.push("a", 10)
    timer.push("b", 99)
    timer.discard("b")
    timer.push("c", 5)
    assert not timer.push("d", 50)
    assert timer.pop_due(FAR, 5) == ["c", "a"]


def test_a_capacity_of_one_keeps_the_earlier() -> None:
    timer = Timer(capacity=1)
    assert timer.push("a", 10)
    assert timer.push("b", 9)
    assert not timer.push("c", 9)
    assert timer.pop_due(FAR, 5) == ["b"]


def test_no_capacity_is_refused() -> None:
    with pytest.raises(ValueError, match="at least 1"):
        Timer(capacity=0)


@settings(deadline=None, max_examples=300)
@given(
    st.integers(1, 40),
    st.lists(st.tuples(st.integers(0, 60), st.integers(0, 50)), max_size=120),
)
def test_capacity_is_never_exceeded_and_the_earliest_is_never_forgotten(
    capacity: int, pushes: list[tuple[int, int]]
) -> None:
    timer = Timer(capacity)
    held: dict[str, int] = {}
    for number, due_at in pushes:
        msg_id = f"m{number}"
        before = dict(held)
        taken = timer.push(msg_id, due_at)
        if taken:
            held[msg_id] = due_at
        kept = {known: due for known, due in held.items() if known in timer}
        forgotten = [due for known, due in before.items() if known not in timer]
        stayed = [due for known, due in kept.items() if known != msg_id]
        assert len(timer) == len(kept) <= capacity
        assert not forgotten or not stayed or min(forgotten) >= max(stayed)
        assert not taken or msg_id in timer
        if msg_id in before:
            assert taken == (before[msg_id] != due_at)
        else:
            full = len(before) == capacity
            assert taken == (not full or due_at < max(before.values()))
        held = kept
    popped = timer.pop_due(FAR, 200)
    assert sorted(popped) == sorted(held)
    assert [held[msg_id] for msg_id in popped] == sorted(held.values())


def test_a_full_timer_that_is_fed_earlier_ones_forgets_an_eighth_at_a_time() -> None:
    """Otherwise each arrival would cost a look at all of them."""
    timer = Timer(capacity=8_000)
    for number in range(8_000):
        timer.push(f"m{number}", FAR - number)
    assert timer.push("early", 1)
    assert 6_900 <= len(timer) <= 7_100
    assert timer.pop_due(1, 5) == ["early"]


def test_paging_the_earliest_again_and_again_loses_none() -> None:
    """As the worker does: what is refused or forgotten is offered again, earliest first."""
    rng = random.Random(5)
    pending = {f"m{number}": rng.randrange(5_000) for number in range(2_000)}
    timer = Timer(capacity=100)
    called: list[str] = []
    for now_ms in range(0, 5_001, 5):
        page = sorted(pending, key=lambda msg_id: pending[msg_id])[:100]
        for msg_id in rng.sample(page, len(page)):
            timer.push(msg_id, pending[msg_id])
        for msg_id in timer.pop_due(now_ms, 1_000):
            called.append(msg_id)
            assert pending.pop(msg_id) <= now_ms
    assert not pending
    assert len(called) == len(set(called)) == 2_000


# -------------------------------------------------------------------------- memory


def test_moving_does_not_pile_up_entries_and_keeps_the_order() -> None:
    rng = random.Random(3)
    timer, model = Timer(), Model()
    ids = [f"m{number}" for number in range(100)]
    for _ in range(20_000):
        msg_id, due_at = rng.choice(ids), rng.randrange(1_000)
        assert timer.push(msg_id, due_at) == model.push(msg_id, due_at)
        assert len(timer._heap) <= 2 * len(timer) + 66
    assert timer.pop_due(FAR, 200) == model.pop_due(FAR, 200)


def test_coming_and_going_does_not_pile_up_entries() -> None:
    timer = Timer()
    timer.push("root", 0)
    for due_at in range(20_000):
        timer.push("x", due_at + 1)
        timer.discard("x")
    assert len(timer._heap) <= 68
    assert timer.pop_due(FAR, 200) == ["root"]


def test_discarding_everything_lets_go_of_it() -> None:
    timer = Timer()
    for number in range(10_000):
        timer.push(f"m{number}", number)
    for number in range(10_000):
        timer.discard(f"m{number}")
    assert len(timer._heap) <= 66
    assert timer.next_due_ms() is None


def test_an_entry_is_small() -> None:
    """Without its id, which the caller holds too: a tuple, two numbers, a place in the heap."""
    timer = Timer()
    timer.push("m", 1_700_000_000_000)
    (entry,) = timer._heap
    assert sum(map(sys.getsizeof, (entry, *entry[:2]))) <= 130
    assert timer._entries["m"] is entry
