from worker.again import FIRST_MS, LONGEST_MS, LONGEST_PACE_MS, PROBE, Paces, Unanswered, shard_of

IDS = [str(n) for n in range(1000)]


def holding(ids: list[str], capacity: int = 10_000, shards: int = 1) -> Unanswered:
    made = Unanswered(capacity, shards)
    for msg_id in ids:
        made.put(msg_id, 0)
    return made


def test_one_is_asked_about_again_soon_and_then_less_often() -> None:
    held = holding(["a"])
    now, gaps = 0, []
    for _ in range(12):
        due = held.next_ms()
        assert due is not None
        assert held.take(due - 1, 200) == []
        gaps.append(due - now)
        now = due
        assert held.take(now, 200) == ["a"]
        held.asked(["a"], ["a"], now)
    assert gaps[0] == FIRST_MS
    assert gaps == sorted(gaps)
    assert gaps[-1] == LONGEST_MS


def test_one_batch_at_a_time() -> None:
    held = holding(IDS)
    first = held.take(FIRST_MS, 200)
    assert first == IDS[:200]
    assert held.next_ms() is None
    assert held.take(10_000, 200) == []
    held.put("late", 20)
    held.asked(first, [], 30)
    assert held.take(30 + FIRST_MS, 200) == IDS[200:400]


def test_in_vain_few_are_asked_about_and_others_each_time() -> None:
    held = holding(IDS)
    taken = held.take(FIRST_MS, 200)
    held.asked(taken, taken, 20)
    seen = []
    for now in range(1000, 30_000, 1000):
        taken = held.take(now, 200)
        assert len(taken) == PROBE
        seen += taken
        held.asked(taken, taken, now)
    assert len(set(seen)) == len(seen)
    assert len(held) == len(IDS)


def test_once_one_is_answered_the_rest_follows_quickly() -> None:
    held = holding(IDS)
    now = FIRST_MS
    while now < 5000:
        taken = held.take(now, 200)
        held.asked(taken, taken, now)
        now += LONGEST_MS
    taken = held.take(now, 200)
    held.asked(taken, taken[1:], now)
    asked = 0
    while held:
        now += FIRST_MS
        taken = held.take(now, 200)
        held.asked(taken, [], now)
        asked += 1
    assert asked == 5
    assert held.next_ms() is None


def test_shards_are_asked_apart_and_in_turn() -> None:
    held = holding(IDS, shards=4)
    batches = [held.take(FIRST_MS, 200) for _ in range(5)]
    shards = [{shard_of(msg_id, 4) for msg_id in batch} for batch in batches]
    assert sorted(map(sorted, shards)) == [[], [0], [1], [2], [3]]
    for batch in batches[:3]:
        held.asked(batch, batch, 20)
    held.asked(batches[3], [], 20)
    assert held.next_ms() == 20 + FIRST_MS
    assert held.take(20 + FIRST_MS, 200)
    assert held.take(20 + FIRST_MS, 200) == []
    assert len(held.take(20 + 2 * FIRST_MS, 200)) == PROBE


def test_what_it_holds_is_bounded() -> None:
    assert len(holding(IDS, capacity=300)) == 300


def test_none_taken_leaves_it_as_it_was() -> None:
    held = holding(["a"])
    assert held.take(FIRST_MS, 0) == []
    assert held.take(FIRST_MS, 1) == ["a"]


def test_a_clock_ahead_is_waited_for_in_growing_steps() -> None:
    paces = Paces(100)
    assert paces.not_before("a", 50, 10) == 50
    steps = [paces.not_before("a", 5, 10) - 10 for _ in range(9)]
    assert steps == sorted(steps)
    assert steps[0] == 2
    assert steps[-1] == LONGEST_PACE_MS
    paces.forget("a")
    assert paces.not_before("a", 5, 10) == 12
