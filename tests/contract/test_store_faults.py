"""The store when its server is away, full, or has lost the tail of what it wrote."""

import contextlib
import random
import socket
import time
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import gevent
import pytest
import redis

from soraka.adapters.redis_ids import short
from soraka.adapters.redis_store import RedisStore
from soraka.errors import Gap, StoreUnavailable
from soraka.message import Command, Message, State
from soraka.ports import (
    DOOR_MS,
    Backlog,
    ClaimKind,
    Ended,
    FullStore,
    Move,
    Outcome,
    Query,
)
from tests.contract.store_kit import (
    OTHER,
    OWNER,
    TOPIC,
    TurnedClock,
    add_time,
    cancel,
    entry,
    message,
    put,
    redis_key,
    redis_prefix,
    redis_store,
    sqlite_store,
    wait_for,
)
from tests.servers import Server, newest_aof

RECORDS = 12_000
BATCH = 50
KILLS = 4


@pytest.fixture
def store(redis_server: Server) -> Iterator[RedisStore]:
    with redis_store(redis_server.url) as opened:
        yield opened


@pytest.fixture
def admin(redis_server: Server) -> Iterator["redis.Redis"]:
    with redis.Redis.from_url(redis_server.url) as client:
        yield client


def test_scripts_the_server_forgot_are_sent_again(store: RedisStore, admin: "redis.Redis") -> None:
    m, early = message(store.now_ms()), message(store.now_ms())
    admin.script_flush()
    put(store, m)
    admin.script_flush()
    assert store.command([cancel(early.msg_id)]) == ["early"]
    admin.script_flush()
    (claim,) = store.claim([m.msg_id])
    assert (claim.kind, claim.attempt) == (ClaimKind.FIRE, 1)
    admin.script_flush()
    assert store.settle([Outcome(m.msg_id, claim.lease, Ended.RETRY)]) == [True]
    admin.script_flush()
    assert store.owners() == {OWNER}


def test_away_it_is_unavailable_and_back_it_goes_on(
    store: RedisStore, redis_server: Server
) -> None:
    messages = [message(store.now_ms()) for _ in range(50)]
    positions = put(store, *messages)
    before = time.monotonic()
    with redis_server.outage():
        for _ in range(3):
            with pytest.raises(StoreUnavailable):
                store.claim([messages[0].msg_id])
        with pytest.raises(StoreUnavailable):
            store.positions("p")
        assert time.monotonic() - before < 10
    assert store.positions("p") == positions
    store.vouch(store.restarts())
    assert {c.kind for c in store.claim([m.msg_id for m in messages])} == {ClaimKind.FIRE}


def test_a_shard_that_nobody_vouched_for_holds_up_no_other(
    store: RedisStore, admin: "redis.Redis"
) -> None:
    """In one call, as all are at one server."""
    messages = [message(store.now_ms()) for _ in range(50)]
    put(store, *messages)
    prefix = redis_prefix(messages[0].msg_id)
    admin.delete(f"{prefix}v")
    claims = store.claim([m.msg_id for m in messages])
    there = {m.msg_id for m in messages if redis_prefix(m.msg_id) == prefix}
    for m, claim in zip(messages, claims, strict=True):
        expected = ClaimKind.UNKNOWN if m.msg_id in there else ClaimKind.FIRE
        assert claim.kind is expected
    assert 0 < len(there) < 50


def test_a_server_that_does_not_answer_is_unavailable_in_time() -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        url = f"redis://127.0.0.1:{silent.getsockname()[1]}/0"
        with redis_store(url, flush=False, timeout_ms=300) as store:
            before = time.monotonic()
            with pytest.raises(StoreUnavailable):
                store.claim(["x"])
            assert time.monotonic() - before < 5


def test_a_call_given_up_leaves_no_answers_to_the_next(store: RedisStore) -> None:
    messages = [message(store.now_ms()) for _ in range(300)]
    ids = [m.msg_id for m in messages]
    put(store, *messages)
    for wait in (0, 0.0005, 0.001, 0.002, 0.004):
        with contextlib.suppress(gevent.Timeout), gevent.Timeout(wait):
            store.get(ids)
        assert store.totals().pending == {OWNER: 300}
        found = store.get(ids)
        assert [s and s.message.msg_id for s in found] == ids


def test_a_pool_in_use_makes_callers_wait(redis_server: Server) -> None:
    with redis_store(redis_server.url, max_connections=2) as store:
        m = message(store.now_ms())
        put(store, m)
        readers = [gevent.spawn(store.get, [m.msg_id]) for _ in range(50)]
        gevent.joinall(readers, timeout=20, raise_error=True)
        assert [r.get() for r in readers] == [store.get([m.msg_id])] * 50


def test_full_it_takes_no_new_messages_but_serves_those_it_has(
    store: RedisStore, admin: "redis.Redis"
) -> None:
    now = store.now_ms()
    called, cancelled, moved = message(now), message(now), message(now)
    positions = put(store, called, cancelled, moved)
    admin.config_set("maxmemory", 1)
    try:
        with pytest.raises(StoreUnavailable):
            put(store, message(now))
        assert store.positions("p") == positions
        assert store.command([cancel(cancelled.msg_id), add_time(moved.msg_id, 5)]) == [
            "applied",
            "applied",
        ]
        (claim,) = store.claim([called.msg_id])
        assert claim.kind is ClaimKind.FIRE
        assert store.settle([Outcome(called.msg_id, claim.lease, Ended.DEAD, 0, "r")]) == [True]
        assert store.owners() == {OWNER}
    finally:
        admin.config_set("maxmemory", 0)
    put(store, message(now))


def test_a_server_that_refuses_writes_is_unavailable(
    store: RedisStore, admin: "redis.Redis"
) -> None:
    m = message(store.now_ms())
    put(store, m)
    admin.replicaof("127.0.0.1", 1)
    try:
        with pytest.raises(StoreUnavailable):
            store.claim([m.msg_id])
    finally:
        admin.replicaof("NO", "ONE")
    store.vouch(store.restarts())
    assert store.claim([m.msg_id])[0].kind is ClaimKind.FIRE


def test_sqlite_closed_is_unavailable(tmp_path: Path) -> None:
    with sqlite_store(tmp_path / "s.db") as store:
        store.close()
        with pytest.raises(StoreUnavailable):
            store.owners()


def test_sqlite_that_cannot_be_opened_is_unavailable(tmp_path: Path) -> None:
    with pytest.raises(StoreUnavailable), sqlite_store(tmp_path / "none" / "s.db"):
        pass


def test_sqlite_removes_what_is_past_its_retention(tmp_path: Path) -> None:
    clock = TurnedClock()
    with sqlite_store(tmp_path / "s.db", now_ms=clock, retention_ms=10) as store:
        early = message(clock.now)
        messages = [message(clock.now) for _ in range(50)]
        store.command([cancel(early.msg_id)])
        put(store, *messages)
        store.command([cancel(m.msg_id) for m in messages])
        clock.turn(DOOR_MS)
        store.settle([])
        counts = "SELECT (SELECT count(*) FROM message), (SELECT count(*) FROM early)"
        assert store._query(counts) == [(0, 0)]


def test_sqlite_clears_the_door(tmp_path: Path) -> None:
    with sqlite_store(tmp_path / "s.db") as store:
        m = message(store.now_ms())
        store.command([cancel(m.msg_id)])
        put(store, m)
        assert store._query("SELECT * FROM early") == []


def test_redis_keeps_a_door_for_its_time_and_clears_it(redis_server: Server) -> None:
    with (
        redis_store(redis_server.url, shards=1) as store,
        redis.Redis.from_url(redis_server.url) as client,
    ):
        m = message(store.now_ms())
        store.command([add_time(m.msg_id, 1), cancel(m.msg_id)])
        assert DOOR_MS - 60_000 < client.pttl(f"{{0}}:e:{short(m.msg_id).decode()}") <= DOOR_MS
        assert client.zcard("{0}:ed") == 2
        put(store, m)
        assert client.exists(f"{{0}}:e:{short(m.msg_id).decode()}", "{0}:ed") == 0


def test_each_start_of_redis_is_another_life(store: RedisStore, redis_server: Server) -> None:
    m = message(store.now_ms())
    put(store, m)
    (claim,) = store.claim([m.msg_id])
    assert claim.life
    assert store.life(m.msg_id) == claim.life
    redis_server.kill()
    with pytest.raises(StoreUnavailable):
        store.life(m.msg_id)
    redis_server.start()
    assert store.life(m.msg_id) not in ("", claim.life)


def test_a_settle_from_before_a_lost_claim_leaves_the_next_alone(
    store: RedisStore, admin: "redis.Redis"
) -> None:
    """The store forgot a claim, and gave its number again: to a worker that calls by now."""
    m = message(store.now_ms())
    put(store, m)
    key = redis_key(m.msg_id)
    before = admin.dump(key)
    (lost,) = store.claim([m.msg_id])
    admin.restore(key, 0, before, replace=True)
    gevent.sleep(0.002)
    (claim,) = store.claim([m.msg_id])
    assert claim.attempt == lost.attempt
    assert store.settle([Outcome(m.msg_id, lost.lease, Ended.RELEASED)]) == [False]
    assert [c.kind for c in store.claim([m.msg_id])] == [ClaimKind.BUSY]
    assert store.settle([Outcome(m.msg_id, claim.lease, Ended.SUCCEEDED)]) == [True]


def test_redis_removes_index_entries_that_a_cut_aof_left(
    store: RedisStore, admin: "redis.Redis"
) -> None:
    pending, done = message(store.now_ms()), message(store.now_ms())
    put(store, pending, done)
    store.command([cancel(done.msg_id)])
    ids = [pending.msg_id, done.msg_id, "expired"]
    for msg_id in ids:
        prefix = redis_prefix(msg_id)
        admin.sadd(f"{prefix}ow", OTHER)
        admin.zadd(f"{prefix}o:{OTHER}", {short(msg_id): 1})
    assert store.owners() == {OWNER, OTHER}
    assert store.assign([Move(i, OTHER, "third") for i in ids]) == [None, None, None]
    assert store.owners() == {OWNER}


def test_redis_leaves_nothing_behind(store: RedisStore, admin: "redis.Redis") -> None:
    """Only the positions, the counters, the era and the finished records; those expire, and their
    index entries are tidied away."""
    now = store.now_ms()
    messages = [message(now) for _ in range(40)]
    store.command([cancel(m.msg_id) for m in messages[:10]])
    put(store, *messages)
    claims = store.claim([m.msg_id for m in messages])
    attempts = [(m.msg_id, c.lease) for m, c in zip(messages, claims, strict=True)]
    store.settle([Outcome(*attempt, Ended.RELEASED, 600_000) for attempt in attempts[20:]])
    assert store.backlog(now).overdue == 20
    store.settle([Outcome(*attempt, Ended.SUCCEEDED) for attempt in attempts[:20]])
    store.command([cancel(msg_id) for msg_id, _ in attempts[20:]])
    assert store.owners() == set()
    kinds: set[bytes] = set()
    for key in admin.scan_iter():
        kind = key.split(b":")[1]
        kinds.add(kind)
        assert admin.ttl(key) > 0 or kind in {b"hw", b"n", b"v", b"i", b"tp", b"ly"}, key
    assert kinds == {b"m", b"hw", b"n", b"v", b"i", b"tp", b"ly"}
    admin.delete(*admin.scan_iter(match="*:m:*"))
    assert store.tidy() >= len(messages)
    assert {key.split(b":")[1] for key in admin.scan_iter()} == {b"hw", b"n", b"v", b"td", b"ly"}


def test_entries_that_a_cut_aof_has_left_are_put_right(
    store: RedisStore, admin: "redis.Redis"
) -> None:
    """In a wrong list, or in two; by a search, or by and by."""
    now = store.now_ms()
    done, twice, waits = (message(now - i) for i in range(3))
    put(store, done, twice, waits)
    store.command([cancel(m.msg_id) for m in (done, twice)])

    def spoil() -> None:
        admin.delete(*admin.scan_iter(match="*:i:*"))
        for m in (done, twice, waits):
            prefix = f"{redis_prefix(m.msg_id)}i:{TOPIC}:"
            admin.zadd(f"{prefix}3", {short(m.msg_id): 0})
            if m is twice:
                admin.zadd(f"{prefix}2", {short(m.msg_id): 0})

    for put_right in (lambda: store.search(Query([TOPIC], [State.DEAD]), "", 10), store.tidy):
        spoil()
        put_right()
        held = {state: n for state, n in store.counts()[TOPIC].items() if n}
        assert held == {State.PENDING: 1, State.CANCELLED: 2}


def test_a_patch_fits_the_record_that_a_script_cut_off_has_left(
    store: RedisStore, redis_server: Server, admin: "redis.Redis"
) -> None:
    """The load after next runs the first write of a script cut off, once more, before what came
    later: here a claim of a message that had a reason and a history by that first write."""
    m = message(store.now_ms())
    put(store, m)
    key = redis_key(m.msg_id)
    (claim,) = store.claim([m.msg_id])
    before = admin.dump(key)
    assert store.settle([Outcome(m.msg_id, claim.lease, Ended.RETRY, 0, "HTTP 500")]) == [True]
    cut_off = admin.get(key)
    admin.restore(key, 0, before, replace=True)
    assert store.settle([Outcome(m.msg_id, claim.lease, Ended.RELEASED)]) == [True]
    (again,) = store.claim([m.msg_id])
    patch = newest_aof(redis_server).read_bytes().rpartition(b"SETRANGE\r\n")[2]
    size = int(patch.split(b"\r\n")[4][1:])
    admin.set(key, cut_off)
    admin.setrange(key, 0, patch.split(b"\r\n", 5)[5][:size])
    (stored,) = store.get([m.msg_id])
    assert stored is not None
    assert (stored.message, stored.lease_until) == (m, again.at)
    assert store.settle([Outcome(m.msg_id, again.lease, Ended.SUCCEEDED)]) == [True]


def test_held_back_is_what_the_record_says_whatever_a_cut_aof_has_left(
    store: RedisStore, admin: "redis.Redis"
) -> None:
    now = store.now_ms()
    held, waits, done = (message(now - i) for i in range(3))
    put(store, held, waits, done)
    (claim,) = store.claim([held.msg_id])
    store.settle([Outcome(held.msg_id, claim.lease, Ended.RELEASED, 600_000)])
    store.command([cancel(done.msg_id)])
    before = store.backlog(now)
    assert before == Backlog(2, waits.due_at, 0)
    for msg_id in (waits.msg_id, done.msg_id, *(f"expired {i}" for i in range(90))):
        prefix = redis_prefix(msg_id)
        admin.zadd(f"{prefix}hd", {short(msg_id): 1})
        admin.zadd(f"{prefix}hb", {short(msg_id): now + 5000})
    assert store.backlog(now) == before
    assert sum(admin.zcard(key) for key in admin.scan_iter(match="*:h[bd]")) == 2


def test_tidying_goes_on_where_it_ended(store: RedisStore, admin: "redis.Redis") -> None:
    now = store.now_ms()
    topics = ["a", "b", "c"]
    messages = [message(now + i, topic=topics[i % 3]) for i in range(6000)]
    put(store, *messages)
    gone = messages[::7]
    admin.delete(*(redis_key(m.msg_id) for m in gone))
    assert store.tidy() == 4 * 500
    for _ in range(5):
        store.tidy()
    held = store.counts()
    assert sum(held[topic][State.PENDING] for topic in topics) == len(messages) - len(gone)


def test_tidying_begins_with_the_oldest_and_comes_to_all(
    store: RedisStore, admin: "redis.Redis"
) -> None:
    """In each list, however many live ones there are; one that expired among those waits longer."""
    now = store.now_ms()
    messages = [message(now - 10_000 + i, topic="ab"[i % 2]) for i in range(14_000)]
    put(store, *messages)
    gone = [*messages[:1000], messages[9001]]
    admin.delete(*(redis_key(m.msg_id) for m in gone))

    def listed() -> int:
        return sum(held[State.PENDING] for held in store.counts().values())

    for _ in range(3):  # a walk through all would take seven
        store.tidy()
    assert listed() == len(messages) - 1000
    for _ in range(100):
        store.tidy()
    assert listed() == len(messages) - len(gone)


# ------------------------------------------------------------------- the tail cut off


class Reader:
    """Reads a log into the store, in the way that center does, until it is stopped."""

    def __init__(self, store: FullStore, log: list[Message | Command]) -> None:
        self.read = 0
        self.allowed = 0
        self.gaps = 0
        self._store = store
        self._log = log
        self._known = store.positions("p")

    def run(self) -> None:
        """Returns when all of the log is in the store."""
        while self.allowed < len(self._log) or min(self._known) < len(self._log) - 1:
            try:
                self._step()
            except Gap as gap:
                self.gaps += 1
                self._known = gap.positions
                self.read = min(gap.positions) + 1
            except StoreUnavailable:
                gevent.sleep(0.01)

    def _step(self) -> None:
        """At the end of what it may read, an empty batch shows whether the store lost some."""
        batch = self._log[self.read : min(self.read + BATCH, self.allowed)]
        entries = [entry(self.read + i, record) for i, record in enumerate(batch)]
        last = self.read + len(batch) - 1
        self._known = self._store.schedule("p", self._known, last, entries)
        self.read = last + 1
        gevent.sleep(0.001)


def a_log(chance: random.Random, now: int) -> list[Message | Command]:
    """Messages, of some a repetition, and commands on earlier ones."""
    log: list[Message | Command] = []
    messages: list[Message] = []
    for _ in range(RECORDS):
        draw = chance.random()
        if not messages or draw < 0.7:
            messages.append(message(now + 60_000))
            log.append(messages[-1])
        elif draw < 0.75:
            log.append(chance.choice(messages[-200:]))
        elif draw < 0.95:
            log.append(add_time(chance.choice(messages[-200:]).msg_id, 1))
        else:
            log.append(cancel(chance.choice(messages[-200:]).msg_id))
    return log


def expected(log: list[Message | Command]) -> dict[str, tuple[State, int]]:
    """State and added time of each message."""
    ends: dict[str, tuple[State, int]] = {}
    for record in log:
        state, added = ends.get(record.msg_id, (State.PENDING, 0))
        if isinstance(record, Command) and state is State.PENDING:
            cancels = record.kind == "cancel"
            state = State.CANCELLED if cancels else state
            added += record.add_ms
        ends[record.msg_id] = (state, added)
    return ends


def cut_tail(server: Server, size: int) -> None:
    aof = newest_aof(server)
    with aof.open("r+b") as file:
        file.truncate(max(0, aof.stat().st_size - size))


def test_what_a_killed_redis_lost_is_read_again_exactly(
    store: RedisStore, redis_server: Server
) -> None:
    """The totals are left out: a second cut may count a few twice, see `lua/common.lua`."""
    chance = random.Random(7)
    log = a_log(chance, store.now_ms())
    reader = Reader(store, log)
    reading = gevent.spawn(reader.run)
    try:
        for kill in range(1, KILLS + 1):
            reader.allowed = kill * RECORDS // (KILLS + 1)
            wait_for(partial(_read_most, reader))
            with redis_server.outage():
                cut_tail(redis_server, chance.randrange(20_000, 200_000))
        reader.allowed = RECORDS
        reading.get(timeout=40)
    finally:
        reading.kill()  # it would write to the Redis of all tests after this one
    assert reader.gaps > 0, "nothing was lost: the test shows nothing"
    ends = expected(log)
    found = store.get(list(ends))
    assert {
        s.message.msg_id: (s.state, s.due_at - s.message.due_at) for s in found if s is not None
    } == ends
    pending = {i for i, (state, _) in ends.items() if state is State.PENDING}
    assert {d.msg_id for d in store.due(OWNER, 1 << 52, RECORDS)} == pending


def _read_most(reader: Reader) -> bool:
    return reader.read > reader.allowed - RECORDS // 20
