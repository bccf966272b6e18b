"""What another version of soraka has written is not read wrongly: each record of Redis, and each
file of SQLite, has the number of its layout."""

import sqlite3
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, closing, contextmanager
from pathlib import Path
from typing import Any

import pytest
import redis

from soraka.adapters import redis_record, sqlite_log, sqlite_store_rows
from soraka.adapters.redis_store import RedisStore
from soraka.adapters.sqlite_log import SqliteLog
from soraka.errors import DecodeError, LogUnavailable, StoreUnavailable
from soraka.message import State
from soraka.ports import ClaimKind, Ended, Lease, Move, NewMessage, Outcome, Query
from tests.contract.store_kit import (
    OTHER,
    OWNER,
    TOPIC,
    cancel,
    message,
    put,
    redis_key,
    redis_prefix,
    redis_store,
    sqlite_store,
)
from tests.servers import Server

# of layout 5; whoever changes it takes another number
HEAD = bytes.fromhex(
    "05 00 0100000000000000 0000000000000000 00000000 0000 0000e8030000 0b00 0600 0000 0000"
)
"""Up to the size of the body."""


@pytest.fixture
def store(redis_server: Server) -> Iterator[RedisStore]:
    with redis_store(redis_server.url) as made:
        yield made


@pytest.fixture
def admin(redis_server: Server) -> Iterator["redis.Redis"]:
    with closing(redis.Redis.from_url(redis_server.url)) as made:
        yield made


@pytest.mark.parametrize("layout", [0, redis_record.LAYOUT + 1])
def test_a_record_of_another_layout_is_refused_by_all_that_read_it(
    store: RedisStore, admin: "redis.Redis", layout: int
) -> None:
    now = store.now_ms()
    m = message(now)
    put(store, m)
    admin.setrange(redis_key(m.msg_id), 0, bytes([layout]))
    before = admin.get(redis_key(m.msg_id))
    told = f"{m.msg_id} has layout {layout}, this version of soraka reads {redis_record.LAYOUT}"
    outcome = Outcome(m.msg_id, Lease(1, 1), Ended.SUCCEEDED)
    for act in (
        lambda: store.claim([m.msg_id]),
        lambda: store.settle([outcome]),
        lambda: store.command([cancel(m.msg_id)]),
        lambda: store.assign([Move(m.msg_id, OWNER, OTHER)]),
    ):
        with pytest.raises(StoreUnavailable, match=told):
            act()
    for read in (store.get, lambda ids: store.history(ids[0])):
        with pytest.raises(DecodeError, match=f"layout {layout}"):
            read([m.msg_id])
    assert store.search(Query([TOPIC], list(State)), "", 9) == ([], "")
    assert admin.get(redis_key(m.msg_id)) == before
    admin.setrange(redis_key(m.msg_id), 0, bytes([redis_record.LAYOUT]))
    assert [claim.kind for claim in store.claim([m.msg_id])] == [ClaimKind.FIRE]


def test_one_that_cannot_be_read_costs_the_others_no_attempt(
    redis_server: Server, admin: "redis.Redis"
) -> None:
    with redis_store(redis_server.url, shards=1) as store:
        good, bad = (message(store.now_ms()) for _ in range(2))
        put(store, good, bad)
        admin.setrange(redis_key(bad.msg_id, 1), 0, b"\x07")
        with pytest.raises(StoreUnavailable, match="has layout 7"):
            store.claim([good.msg_id, bad.msg_id])
        first, again = store.claim([good.msg_id, good.msg_id])
    assert (first.kind, first.tries) == (ClaimKind.FIRE, 1)
    assert (again.kind, again.at) == (ClaimKind.BUSY, first.at)


def test_one_that_cannot_be_read_fails_its_shard_alone(
    store: RedisStore, admin: "redis.Redis"
) -> None:
    """And again when it can be, none of that shard has lost an attempt."""
    messages = [message(store.now_ms()) for _ in range(20)]
    put(store, *messages)
    bad = redis_key(messages[0].msg_id)
    admin.setrange(bad, 0, b"\x07")
    ids = [m.msg_id for m in messages]
    claims = dict(zip(ids, store.claim(ids), strict=True))
    failed = [i for i in ids if claims[i].kind is ClaimKind.UNKNOWN]
    assert failed == [i for i in ids if redis_key(i)[:3] == bad[:3]]
    assert all(c.kind is ClaimKind.FIRE for i, c in claims.items() if i not in failed)
    admin.setrange(bad, 0, bytes([redis_record.LAYOUT]))
    assert {(c.kind, c.tries) for c in store.claim(failed)} == {(ClaimKind.FIRE, 1)}


def test_an_id_as_another_layout_has_it_is_refused_by_all_that_give_ids(
    store: RedisStore, admin: "redis.Redis"
) -> None:
    m = message(store.now_ms())
    prefix = redis_prefix(m.msg_id)
    admin.zadd(f"{prefix}o:{OWNER}", {m.msg_id: 1})
    admin.zadd(f"{prefix}i:{TOPIC}:0", {m.msg_id: 0})
    for act in (
        lambda: store.due(OWNER, store.now_ms(), 9),
        lambda: store.scan(OWNER, "", 9),
        lambda: store.search(Query([TOPIC], list(State)), "", 9),
    ):
        with pytest.raises(StoreUnavailable, match=f"LAYOUT.*{m.msg_id}"):
            act()


def test_what_is_written_has_the_number_of_its_layout(
    store: RedisStore, admin: "redis.Redis"
) -> None:
    m = message(1)
    raw = redis_record.new_record(NewMessage(0, m, OWNER))
    assert raw[: len(HEAD)] == HEAD
    assert redis_record.HEAD.size == len(HEAD) + 4
    put(store, m)
    assert admin.get(redis_key(m.msg_id)) == raw
    store.claim([m.msg_id])
    assert admin.getrange(redis_key(m.msg_id), 0, 1) == b"\x05\x04"
    store.command([cancel(m.msg_id)])  # too late, which is remembered
    assert admin.getrange(redis_key(m.msg_id), 0, 1) == b"\x05\x04"


@pytest.mark.parametrize("marked", [None, b"6"])
def test_a_shard_of_another_layout_is_refused_and_left_alone(
    store: RedisStore, admin: "redis.Redis", marked: bytes | None
) -> None:
    """Layout 4 and those before had no mark, but the positions that each has."""
    admin.hset("{1}:hw", "p", 7)
    if marked is not None:
        admin.set("{1}:ly", marked)
    before = sorted(admin.scan_iter("{1}:*"))
    m = next(m for m in (message(1) for _ in range(100)) if redis_key(m.msg_id)[:3] == "{1}")
    told = f"has layout {'4 or less' if marked is None else '6'}, this version of soraka reads 5"
    for act in (lambda: put(store, m), lambda: store.command([cancel(m.msg_id)])):
        with pytest.raises(StoreUnavailable, match=told):
            act()
    assert sorted(admin.scan_iter("{1}:*")) == before
    admin.delete("{1}:hw", "{1}:ly")
    put(store, m)


def version(path: Path) -> Any:
    with closing(sqlite3.connect(path)) as connection:
        return connection.execute("PRAGMA user_version").fetchone()[0]


def set_version(path: Path, number: int) -> None:
    with closing(sqlite3.connect(path)) as connection:
        connection.execute(f"PRAGMA user_version = {number}")


@contextmanager
def opened_log(path: Path) -> Iterator[SqliteLog]:
    log = SqliteLog(path=path, retention_ms=1, append_timeout_ms=2000, max_inflight_bytes=1 << 20)
    with closing(log):
        yield log


@pytest.mark.parametrize("away", [-1, 1])
def test_a_file_of_another_layout_is_refused_and_left_alone(tmp_path: Path, away: int) -> None:
    store, log = tmp_path / "store.db", tmp_path / "log.db"
    opened: Callable[[Path], AbstractContextManager[Any]]
    for path, layout, error, opened in (
        (store, sqlite_store_rows.LAYOUT, StoreUnavailable, sqlite_store),
        (log, sqlite_log.LAYOUT, LogUnavailable, opened_log),
    ):
        with opened(path):
            pass
        assert version(path) == layout
        set_version(path, layout + away)
        told = f"{path.name}: layout {layout + away}, this version of soraka reads {layout}"
        with pytest.raises(error, match=told), opened(path):
            pass
        assert version(path) == layout + away
        set_version(path, layout)
        with opened(path):
            pass
