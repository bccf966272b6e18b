"""What soraka/ports.py says of StoreArchive, on SQLite and in each mode of Redis."""

from collections.abc import Callable, Iterator
from typing import Any

import pytest

from soraka.limits import DAY_MS
from soraka.message import Attempt, Command, Message, State, Stored, parked_owner
from soraka.ports import (
    HISTORY_LENGTH,
    STATS_MS,
    Backlog,
    DueId,
    Ended,
    FullStore,
    Move,
    Query,
    Sample,
)
from tests.contract.store_kit import (
    HOUR,
    OTHER,
    OWNER,
    TOPIC,
    Open,
    TurnedClock,
    add_time,
    cancel,
    end,
    fire,
    fire_now,
    message,
    put,
    redrive,
    spoil,
    uuid7,
    wait_for,
)

MINUTE = 60_000
PENDING, SUCCEEDED, CANCELLED, DEAD = State
EVERY = Query([TOPIC], list(State))
FINISHED = {Ended.SUCCEEDED: SUCCEEDED, Ended.DEAD: DEAD}


def finish(store: FullStore, m: Message, ended: Ended, **other: Any) -> None:
    assert end(store, m.msg_id, fire(store, m.msg_id).lease, ended, **other)


def pages(store: FullStore, query: Query, limit: int) -> Iterator[list[Stored]]:
    cursor = ""
    while True:
        page, cursor = store.search(query, cursor, limit)
        yield page
        if not cursor:
            return


def found(store: FullStore, query: Query, limit: int = 100) -> list[str]:
    return [s.message.msg_id for page in pages(store, query, limit) for s in page]


def latest(*messages: Message) -> list[str]:
    return sorted((m.msg_id for m in messages), reverse=True)


# ------------------------------------------------------------------- search


def test_search_gives_what_is_stored_the_latest_first(store: FullStore, clock: TurnedClock) -> None:
    messages = [message(clock.now + i) for i in range(30)]
    put(store, *messages)
    page, cursor = store.search(EVERY, "", 100)
    assert page == store.get(latest(*messages))
    assert cursor == ""


def test_each_message_is_found_in_its_state_alone(store: FullStore, clock: TurnedClock) -> None:
    done, dead, gone, waits = (message(clock.now) for _ in range(4))
    put(store, done, dead, gone, waits)
    finish(store, done, Ended.SUCCEEDED)
    finish(store, dead, Ended.DEAD)
    store.command([cancel(gone.msg_id)])
    for state, m in ((SUCCEEDED, done), (DEAD, dead), (CANCELLED, gone), (PENDING, waits)):
        (stored,), _ = store.search(Query([TOPIC], [state]), "", 10)
        assert (stored.message, stored.state) == (m, state)
    assert found(store, Query([TOPIC], [DEAD, CANCELLED])) == latest(dead, gone)
    assert found(store, EVERY) == latest(done, dead, gone, waits)


def test_retries_and_added_times_leave_a_message_where_it_is(
    store: FullStore, clock: TurnedClock
) -> None:
    m = message(clock.now)
    put(store, m)
    finish(store, m, Ended.RETRY, delay_ms=5, reason="HTTP 500")
    store.command([add_time(m.msg_id, 10)])
    assert found(store, Query([TOPIC], [PENDING])) == [m.msg_id]
    assert found(store, Query([TOPIC], [SUCCEEDED, CANCELLED, DEAD])) == []


def test_search_keeps_to_its_topics(store: FullStore, clock: TurnedClock) -> None:
    mine, other, third = (message(clock.now, topic=t) for t in ("a", "a:0", "b"))
    put(store, mine, other, third)
    assert found(store, Query(["a"], [PENDING])) == [mine.msg_id]
    assert found(store, Query(["a:0", "b"], [PENDING])) == latest(other, third)
    assert found(store, Query(["no such", "b"], [PENDING])) == [third.msg_id]
    assert found(store, Query([], [PENDING])) == []
    assert found(store, Query(["a"], [])) == []


def test_search_in_a_span_of_time(store: FullStore, clock: TurnedClock) -> None:
    messages = [message(clock.now + i) for i in range(6)]
    put(store, *messages)
    span = Query([TOPIC], [PENDING], since=clock.now + 1, until=clock.now + 4)
    assert found(store, span) == latest(*messages[1:4])
    assert found(store, span._replace(until=1 << 60)) == latest(*messages[1:])
    assert found(store, span._replace(since=-5)) == latest(*messages[:4])
    assert found(store, span._replace(until=0)) == []
    assert found(store, span._replace(since=1 << 60)) == []


def test_search_finds_ids_of_every_kind_once(store: FullStore, clock: TurnedClock) -> None:
    """Other producers may write what is no UUID to the log."""
    ids = ["12345", "1", "abc", "xyz", "order-1", "ä", "01890A5D-AC96-774B-BCCE-B302099A8057"]
    others = [message(clock.now, msg_id=msg_id) for msg_id in ids]
    usual = [message(clock.now + i) for i in range(3)]
    put(store, *others, *usual)
    for limit in (1, 2, 100):
        assert sorted(found(store, EVERY, limit)) == sorted(m.msg_id for m in others + usual)
    for query in (EVERY._replace(prefix="2"), EVERY._replace(since=clock.now - 1, until=clock.now)):
        assert found(store, query) == []


def test_search_by_the_beginning_of_an_id(store: FullStore, clock: TurnedClock) -> None:
    near, far = message(clock.now), message(clock.now + DAY_MS)
    put(store, near, far)
    every = Query([TOPIC], [PENDING])
    assert found(store, every._replace(prefix=near.msg_id)) == [near.msg_id]
    assert found(store, every._replace(prefix=near.msg_id[:10])) == [near.msg_id]
    assert found(store, every._replace(prefix=near.msg_id[:3])) == latest(near, far)
    assert found(store, every._replace(prefix="zz")) == []
    assert found(store, every._replace(prefix=near.msg_id, since=clock.now + 1)) == []


@pytest.mark.parametrize("limit", [1, 7, 50, 500])
def test_pages_join_on(store: FullStore, clock: TurnedClock, limit: int) -> None:
    topics = [f"t{i}" for i in range(5)]
    messages = [message(clock.now + i, topic=topics[i % 5]) for i in range(120)]
    put(store, *messages)
    store.command([cancel(m.msg_id, topic=m.topic) for m in messages[::4]])
    read = list(pages(store, Query(topics, [PENDING, CANCELLED]), limit))
    assert all(len(page) <= limit for page in read)
    assert [s.message.msg_id for page in read for s in page] == latest(*messages)


def test_a_cursor_stays_good_when_messages_come_move_and_go(
    store: FullStore, clock: TurnedClock
) -> None:
    messages = [message(clock.now + i) for i in range(10)]
    put(store, *messages)
    first, cursor = store.search(Query([TOPIC], [PENDING]), "", 4)
    put(store, message(clock.now + 20))
    store.command([cancel(s.message.msg_id) for s in first])
    store.command([cancel(messages[2].msg_id)])
    rest, cursor = store.search(Query([TOPIC], [PENDING]), cursor, 100)
    assert [s.message.msg_id for s in rest] == latest(*messages[:2], *messages[3:6])
    assert cursor == ""


def test_no_limit_no_page(store: FullStore, clock: TurnedClock) -> None:
    put(store, message(clock.now))
    assert store.search(EVERY, "", 0) == ([], "")


def test_many_topics_in_one_search(store: FullStore, clock: TurnedClock) -> None:
    topics = [f"t{i}" for i in range(300)]
    messages = [message(clock.now + i, topic=t) for i, t in enumerate(topics)]
    put(store, *messages)
    assert found(store, Query(topics, list(State)), 60) == latest(*messages)


def test_a_body_that_cannot_be_decoded_does_not_fail_the_page(
    store: FullStore, clock: TurnedClock
) -> None:
    good, bad = message(clock.now), message(clock.now)
    put(store, bad)
    spoil(store, bad.msg_id)
    put(store, good)
    assert found(store, EVERY) == [good.msg_id]


def test_what_is_past_its_retention_is_not_found(open_store: Open) -> None:
    store = open_store(retention_ms=300)
    messages = [message(store.now_ms()) for _ in range(40)]
    waits = message(store.now_ms() - HOUR)
    put(store, *messages, waits)
    store.command([cancel(m.msg_id) for m in messages])
    assert found(store, EVERY) == latest(*messages, waits)
    wait_for(lambda: not any(store.get([m.msg_id for m in messages])))
    assert found(store, EVERY, 5) == [waits.msg_id]
    put(store, message(store.now_ms()))  # on SQLite this purges
    wait_for(lambda: store.counts()[TOPIC][CANCELLED] == 0)


# ------------------------------------------------------------------- counts and tidy


def test_counts_by_topic_and_state(store: FullStore, clock: TurnedClock) -> None:
    assert store.counts() == {}
    messages = [message(clock.now) for _ in range(20)]
    other = message(clock.now, topic="other")
    put(store, *messages, other)
    for m in messages[:5]:
        finish(store, m, Ended.SUCCEEDED)
    finish(store, messages[5], Ended.DEAD)
    store.command([cancel(m.msg_id) for m in messages[6:9]])
    assert store.counts() == {
        TOPIC: {PENDING: 11, SUCCEEDED: 5, CANCELLED: 3, DEAD: 1},
        "other": {PENDING: 1, SUCCEEDED: 0, CANCELLED: 0, DEAD: 0},
    }
    store.command([redrive(messages[5].msg_id)])
    assert store.counts()[TOPIC] == {PENDING: 12, SUCCEEDED: 5, CANCELLED: 3, DEAD: 0}


def test_counts_of_many_topics(store: FullStore, clock: TurnedClock) -> None:
    topics = [f"t{i}" for i in range(1200)]
    put(store, *(message(clock.now, topic=topic) for topic in topics))
    assert {topic: held[PENDING] for topic, held in store.counts().items()} == dict.fromkeys(
        topics, 1
    )


def test_tidy_forgets_what_is_past_its_retention(open_store: Open) -> None:
    store = open_store(retention_ms=300)
    messages = [message(store.now_ms()) for _ in range(50)]
    kept = message(store.now_ms(), topic="kept")
    put(store, *messages, kept)
    store.command([cancel(m.msg_id) for m in messages])

    def gone() -> bool:
        store.tidy()
        store.schedule("p", store.positions("p"), max(store.positions("p")), [])  # SQLite purges
        return store.counts() == {"kept": {PENDING: 1, SUCCEEDED: 0, CANCELLED: 0, DEAD: 0}}

    assert not gone()
    wait_for(gone)
    assert found(store, Query(["kept"], [PENDING])) == [kept.msg_id]


# ------------------------------------------------------------------- history


def test_history_has_each_attempt_that_ended(store: FullStore, clock: TurnedClock) -> None:
    m = message(clock.now)
    put(store, m)
    assert store.history(m.msg_id) == []
    finish(
        store,
        m,
        Ended.RETRY,
        delay_ms=70,
        reason="HTTP 503",
        started_at=clock.now - 9,
        duration_ms=8,
        worker=OWNER,
        status=503,
    )
    next_at = clock.now + 70
    clock.turn(70)
    finish(store, m, Ended.RELEASED)
    finish(store, m, Ended.SUCCEEDED, started_at=clock.now, duration_ms=4, worker=OTHER, status=204)
    first = Attempt(
        number=1,
        started_at=next_at - 79,
        duration_ms=8,
        worker=OWNER,
        ended="retry",
        status=503,
        reason="HTTP 503",
        next_at=next_at,
    )
    second = Attempt(
        number=2,
        started_at=clock.now,
        duration_ms=4,
        worker=OTHER,
        ended="succeeded",
        status=204,
    )
    assert store.history(m.msg_id) == [first, second]
    assert store.history(uuid7(clock.now)) == []


def test_a_stale_settle_has_no_entry(store: FullStore, clock: TurnedClock) -> None:
    m = message(clock.now)
    put(store, m)
    claim = fire(store, m.msg_id)
    assert end(store, m.msg_id, claim.lease, Ended.RETRY)
    assert not end(store, m.msg_id, claim.lease, Ended.SUCCEEDED)
    assert [a.ended for a in store.history(m.msg_id)] == ["retry"]


def test_the_history_is_bounded(store: FullStore, clock: TurnedClock) -> None:
    m = message(clock.now)
    put(store, m)
    for i in range(HISTORY_LENGTH + 7):
        reason = "" if i % 3 else f"r{i}"
        finish(store, m, Ended.RETRY, reason=reason)
    finish(store, m, Ended.SUCCEEDED)
    history = store.history(m.msg_id)
    assert [a.number for a in history] == list(range(9, HISTORY_LENGTH + 9))
    (stored,) = store.get([m.msg_id])
    assert stored is not None
    assert (stored.message, stored.state) == (m, SUCCEEDED)


def test_a_long_reason_is_clipped_in_the_history(store: FullStore, clock: TurnedClock) -> None:
    m = message(clock.now)
    put(store, m)
    finish(store, m, Ended.RETRY, reason="é" * 5000, worker="w" * 300, duration_ms=1 << 40)
    (attempt,) = store.history(m.msg_id)
    assert set(attempt.reason) == {"é"}
    assert 100 <= len(attempt.reason) <= 200
    assert fire(store, m.msg_id).tries == 2


def test_a_redrive_keeps_the_history(store: FullStore, clock: TurnedClock) -> None:
    m = message(clock.now)
    put(store, m)
    finish(store, m, Ended.DEAD, reason="HTTP 410")
    store.command([redrive(m.msg_id)])
    finish(store, m, Ended.SUCCEEDED)
    assert [(a.number, a.ended) for a in store.history(m.msg_id)] == [
        (1, "dead"),
        (1, "succeeded"),
    ]


def test_commands_and_moves_leave_the_history(store: FullStore, clock: TurnedClock) -> None:
    m = message(clock.now)
    put(store, m)
    finish(store, m, Ended.RETRY, reason="r")
    before = store.history(m.msg_id)
    store.command([add_time(m.msg_id, 10), cancel(m.msg_id)])
    assert store.history(m.msg_id) == before != []


def test_a_new_life_of_an_id_has_no_history(open_store: Open) -> None:
    store = open_store(retention_ms=200)
    m = message(store.now_ms())
    put(store, m)
    finish(store, m, Ended.SUCCEEDED)
    assert len(store.history(m.msg_id)) == 1
    wait_for(lambda: store.get([m.msg_id]) == [None])
    assert store.history(m.msg_id) == []
    put(store, m)
    assert store.history(m.msg_id) == []
    assert found(store, EVERY) == [m.msg_id]


# ------------------------------------------------------------------- due and backlog


def test_due_from_a_moment_on(store: FullStore, clock: TurnedClock) -> None:
    messages = [message(clock.now + i) for i in range(20)]
    put(store, *messages)
    wanted = [DueId(m.due_at, m.msg_id) for m in messages]
    assert store.due(OWNER, clock.now + 15, 100, since=clock.now + 5) == wanted[5:15]
    assert store.due(OWNER, clock.now + 15, 3, since=clock.now + 5) == wanted[5:8]
    assert store.due(OWNER, clock.now, 3, since=clock.now + 5) == []


def test_count_due(store: FullStore, clock: TurnedClock) -> None:
    messages = [message(clock.now + i) for i in range(20)]
    put(store, *messages)
    put(store, message(clock.now + 50), owner=OTHER)
    assert store.count_due(OWNER, 0) == 20
    assert store.count_due(OWNER, clock.now + 5) == 15
    assert store.count_due(OWNER, clock.now + 20) == 0
    assert store.count_due("nobody", 0) == 0


def test_backlog_counts_those_whose_time_has_come(store: FullStore, clock: TurnedClock) -> None:
    assert store.backlog(clock.now) == Backlog(0, None, 0)
    messages = [message(clock.now - i) for i in range(5)]
    put(store, *messages, message(clock.now + 1))
    put(store, message(clock.now - 100), owner=OTHER)
    assert store.backlog(clock.now) == Backlog(6, clock.now - 100, 0)
    assert store.backlog(clock.now - 200) == Backlog(0, None, 0)
    fire(store, messages[4].msg_id)  # its lease runs
    assert store.backlog(clock.now) == Backlog(5, clock.now - 100, 0)


def hold_back(store: FullStore, m: Message, ms: int = 70) -> None:
    put(store, m)
    finish(store, m, Ended.RELEASED, delay_ms=ms)


def test_backlog_counts_those_held_back_once(store: FullStore, clock: TurnedClock) -> None:
    first, second = message(clock.now - 50), message(clock.now - 30)
    put(store, message(clock.now - 10), message(clock.now + 500))
    hold_back(store, first)
    hold_back(store, second, 200)
    assert store.backlog(clock.now) == Backlog(3, clock.now - 50, 0)
    assert store.backlog(clock.now - 100) == Backlog(0, None, 0)
    clock.turn(70)  # the first may go on, and nobody has claimed it
    assert store.backlog(clock.now) == Backlog(3, clock.now - 120, 0)
    finish(store, first, Ended.RELEASED, delay_ms=70)
    assert store.backlog(clock.now) == Backlog(3, clock.now - 120, 0)
    store.assign([Move(first.msg_id, OWNER, OTHER)])
    assert store.backlog(clock.now) == Backlog(3, clock.now - 120, 0)


def claim_it(store: FullStore, clock: TurnedClock, msg_id: str) -> None:
    clock.turn(70)
    fire(store, msg_id)


def park_it(store: FullStore, _: TurnedClock, msg_id: str) -> None:
    store.assign([Move(msg_id, OWNER, parked_owner(TOPIC))])


def _commanded(make: Callable[[str], Command]) -> Callable[[FullStore, TurnedClock, str], None]:
    def change(store: FullStore, _: TurnedClock, msg_id: str) -> None:
        store.command([make(msg_id)])

    return change


@pytest.mark.parametrize(
    ("change", "left", "parked"),
    [
        (claim_it, 0, 0),
        (park_it, 0, 1),
        (_commanded(cancel), 0, 0),
        (_commanded(lambda i: add_time(i, 500)), 0, 0),
        (_commanded(fire_now), 1, 0),
    ],
    ids=["claimed", "parked", "cancelled", "postponed", "fired now"],
)
def test_what_is_held_back_no_longer_is_not_counted_as_such(
    store: FullStore,
    clock: TurnedClock,
    change: Callable[[FullStore, TurnedClock, str], None],
    left: int,
    parked: int,
) -> None:
    m = message(clock.now - 50)
    hold_back(store, m)
    assert store.backlog(clock.now) == Backlog(1, m.due_at, 0)
    change(store, clock, m.msg_id)
    assert store.backlog(clock.now) == Backlog(left, m.due_at if left else None, parked)


def test_messages_of_paused_topics_are_counted_apart(store: FullStore, clock: TurnedClock) -> None:
    put(store, message(clock.now - 9))
    put(store, message(clock.now - 20), message(clock.now + 9), owner=parked_owner(TOPIC))
    assert store.backlog(clock.now) == Backlog(1, clock.now - 9, 1)


# ------------------------------------------------------------------- retention by topic


def test_a_topic_may_have_a_retention_of_its_own(open_store: Open) -> None:
    store = open_store(retention_ms=HOUR, dead_retention_ms=HOUR)
    short, gone, dead = (message(store.now_ms()) for _ in range(3))
    other = message(store.now_ms(), topic="other")
    zero = message(store.now_ms(), topic="zero")
    store.keep({TOPIC: 300, "zero": 0})
    put(store, short, gone, dead, other, zero)
    finish(store, short, Ended.SUCCEEDED)
    finish(store, dead, Ended.DEAD)
    for m in (gone, other, zero):
        store.command([cancel(m.msg_id, topic=m.topic)])
    wait_for(lambda: store.get([short.msg_id, gone.msg_id]) == [None, None])
    assert all(store.get([dead.msg_id, other.msg_id, zero.msg_id]))


def test_keep_replaces_what_was_set_before(open_store: Open) -> None:
    store = open_store(retention_ms=HOUR)
    store.keep({TOPIC: 100})
    store.keep({"other": 100})
    kept, short = message(store.now_ms()), message(store.now_ms(), topic="other")
    put(store, kept, short)
    finish(store, kept, Ended.SUCCEEDED)
    finish(store, short, Ended.SUCCEEDED)
    wait_for(lambda: store.get([short.msg_id]) == [None])
    assert all(store.get([kept.msg_id]))
    store.keep({})


# ------------------------------------------------------------------- series


def test_samples_add_up(store: FullStore, clock: TurnedClock) -> None:
    minute = clock.now // MINUTE * MINUTE
    store.add_stats(
        [
            Sample("a", minute, {"called": 3, "lateness:10": 1}),
            Sample("a", minute, {"called": 4}),
            Sample("a", minute - MINUTE, {"failed": 1}),
            Sample("b", minute, {"called": 9}),
        ]
    )
    store.add_stats([Sample("a", minute, {"called": 5})])
    assert store.stats("a", 0, 0) == {}
    assert store.stats("a", minute - HOUR, minute + 1) == {
        minute - MINUTE: {"failed": 1},
        minute: {"called": 12, "lateness:10": 1},
    }
    assert store.stats("a", minute - HOUR, minute + 1, ["failed", "other"]) == {
        minute - MINUTE: {"failed": 1}
    }
    assert store.stats("a", minute - HOUR, minute) == {minute - MINUTE: {"failed": 1}}
    assert store.stats("b", minute, minute + MINUTE) == {minute: {"called": 9}}
    assert store.stats("c", minute, minute + MINUTE) == {}
    store.add_stats([])


def test_samples_of_seven_days(store: FullStore, clock: TurnedClock) -> None:
    last = clock.now // MINUTE * MINUTE
    minutes = range(last - STATS_MS + MINUTE, last + 1, 10 * MINUTE)
    store.add_stats([Sample("é:1", minute, {"n": 1, "sum": 7}) for minute in minutes])
    kept = store.stats("é:1", last - STATS_MS, last + MINUTE)
    assert kept == {minute: {"n": 1, "sum": 7} for minute in minutes}
    assert list(kept) == list(minutes)
