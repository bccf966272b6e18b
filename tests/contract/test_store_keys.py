"""What soraka/ports.py says of StoreKeys, on SQLite and in each mode of Redis."""

import time
from pathlib import Path

import gevent
import pytest

from soraka.adapters.redis_store import RedisStore
from soraka.errors import StoreUnavailable
from soraka.ports import FullStore, KeptKey
from tests.contract.store_kit import (
    HOUR,
    SETTINGS,
    Open,
    TurnedClock,
    redis_store,
    sqlite_store,
    uuid7,
    wait_for,
)
from tests.servers import Server


def key(name: str, msg_id: str = "m1", digest: str = "d1") -> KeptKey:
    return KeptKey(name, msg_id, digest)


def kept(store: FullStore, *keys: KeptKey, window_ms: int = HOUR) -> list[KeptKey]:
    return store.keep_keys(keys, [window_ms] * len(keys))


def test_the_first_of_a_key_is_kept(store: FullStore) -> None:
    assert kept(store, key("a")) == [key("a")]
    assert kept(store, key("a", "m2", "d2")) == [key("a")]
    assert kept(store, key("b", "m2", "d2")) == [key("b", "m2", "d2")]
    usual = key("c", uuid7(1), "d3")
    assert kept(store, usual) == kept(store, usual) == [usual]


def test_a_batch_is_answered_in_order_also_where_a_key_comes_twice(store: FullStore) -> None:
    kept(store, key("k3", "old"))
    asked = [key(f"k{i % 20}", f"m{i}") for i in range(40)]
    first = [key(f"k{i}", "old" if i == 3 else f"m{i}") for i in range(20)]
    assert kept(store, *asked) == first * 2
    assert kept(store) == []


def test_of_many_at_once_one_is_kept(store: FullStore) -> None:
    asking = [gevent.spawn(kept, store, key("a", f"m{i}"), key(f"b{i}")) for i in range(50)]
    gevent.joinall(asking, timeout=30, raise_error=True)
    answers = [one.value for one in asking]
    assert len({found.msg_id for found, _ in answers}) == 1
    assert [other for _, other in answers] == [key(f"b{i}") for i in range(50)]


def test_a_key_is_forgotten_at_the_end_of_its_window(open_store: Open) -> None:
    store = open_store()
    began = time.monotonic()
    kept(store, key("a"), window_ms=400)
    # a repetition moves the end of the window no further
    assert kept(store, key("a", "m2")) == [key("a")]
    wait_for(lambda: kept(store, key("a", "m2"), window_ms=HOUR) == [key("a", "m2")])
    assert time.monotonic() - began >= 0.3
    assert kept(store, key("a", "m3")) == [key("a", "m2")]


def test_each_key_has_its_own_window(open_store: Open) -> None:
    store = open_store()
    store.keep_keys([key("short"), key("long")], [1, HOUR])
    wait_for(lambda: kept(store, key("short", "m2")) == [key("short", "m2")])
    assert kept(store, key("long", "m2")) == [key("long")]


def test_sqlite_keeps_keys_over_a_restart_and_purges_old_ones(tmp_path: Path) -> None:
    clock = TurnedClock()
    with sqlite_store(tmp_path / "s.db", now_ms=clock) as store:
        kept(store, *(key(f"k{i}") for i in range(50)), window_ms=1000)
        kept(store, key("a"))
    with sqlite_store(tmp_path / "s.db", now_ms=clock) as store:
        assert kept(store, key("a", "m2")) == [key("a")]
        assert kept(store, key("k7", "m2")) == [key("k7")]
        clock.turn(1001)
        for _ in range(4):
            kept(store, key("a", "m3"))
        rows = store._query("SELECT key FROM kept_key")
        assert rows == [("a",)]


def test_redis_keeps_keys_for_others(redis_server: Server) -> None:
    with redis_store(redis_server.url) as store:
        kept(store, key("a"))
        with redis_store(redis_server.url, flush=False) as other:
            assert kept(other, key("a", "m2")) == [key("a")]


def test_a_store_that_is_away_raises(tmp_path: Path) -> None:
    with sqlite_store(tmp_path / "s.db") as store:
        pass
    with pytest.raises(StoreUnavailable):
        kept(store, key("a"))
    away = RedisStore(url="redis://127.0.0.1:1", shards=4, **SETTINGS)
    with pytest.raises(StoreUnavailable):
        kept(away, key("a"))
