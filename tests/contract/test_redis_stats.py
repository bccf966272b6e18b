"""Samples in Redis while a server is away: none is counted twice."""

from binascii import crc32
from collections.abc import Iterator

import pytest
import redis

from soraka.adapters.redis_store import RedisStore
from soraka.ports import STATS_MS, NotAdded, Sample
from tests.contract.store_kit import group_store, redis_store, wait_for
from tests.redis_groups import ClusterGroup
from tests.servers import Server

SHARDS = 8
MINUTE = 60_000
NAMES = [f"series {number}" for number in range(40)]


@pytest.fixture
def cluster(redis_cluster: ClusterGroup) -> ClusterGroup:
    redis_cluster.make_whole()
    return redis_cluster


@pytest.fixture
def spread(cluster: ClusterGroup) -> Iterator[RedisStore]:
    with group_store(cluster, shards=SHARDS, timeout_ms=300) as store:
        yield store


def redis_client(server: Server) -> redis.Redis:
    return redis.Redis.from_url(server.url)


def samples(store: RedisStore) -> list[Sample]:
    minute = store.now_ms() // MINUTE * MINUTE
    return [Sample(name, minute, {"n": 1}) for name in NAMES]


def counted(store: RedisStore, given: list[Sample]) -> dict[str, int]:
    minute = given[0].minute
    return {
        sample.series: store.stats(sample.series, minute, minute + MINUTE).get(minute, {"n": 0})[
            "n"
        ]
        for sample in given
    }


def test_those_of_a_server_that_hangs_are_lost_and_then_kept(
    spread: RedisStore, cluster: ClusterGroup
) -> None:
    given = samples(spread)
    assert spread.add_stats(given) == NotAdded()
    away = next(master for master in cluster.masters() if master is not cluster.doubled())
    gone = {name for name in NAMES if cluster.holder(crc32(name.encode()) % SHARDS) is away}
    assert 0 < len(gone) < len(NAMES)
    with away.stopped():
        left = spread.add_stats(given)
        assert (left.again, left.lost) == ((), len(gone)), "it may do it yet"
        left = spread.add_stats(given)
        assert {sample.series for sample in left.again} == gone, "it was not asked again"
        assert left.lost == 0
    wait_for(lambda: spread.add_stats(left.again) == NotAdded())
    for name, times in counted(spread, given).items():
        assert times in ((2, 3) if name in gone else (3,))


def test_those_of_a_server_that_ended_are_kept(redis_server: Server) -> None:
    with redis_store(redis_server.url, shards=SHARDS) as store:
        given = samples(store)
        assert store.add_stats(given) == NotAdded()
        redis_server.stop()
        try:
            left = [store.add_stats(given) for _ in range(2)]
        finally:
            redis_server.start()
        assert [sorted(each.again) for each in left] == [sorted(given)] * 2
        wait_for(lambda: store.add_stats(left[1].again) == NotAdded())
        assert counted(store, given) == dict.fromkeys(NAMES, 2)


def test_a_full_redis_takes_none_and_drops_none_of_what_it_has(redis_server: Server) -> None:
    with (
        redis_store(redis_server.url, shards=SHARDS) as store,
        redis_client(redis_server) as client,
    ):
        given = samples(store)
        assert store.add_stats(given) == NotAdded()
        client.config_set("maxmemory", 1)
        try:
            left = store.add_stats(given)
        finally:
            client.config_set("maxmemory", 0)
        assert (left.again, left.lost) == ((), len(given))
        assert "maxmemory" in left.reason
        assert counted(store, given) == dict.fromkeys(NAMES, 1)


def test_a_series_of_seven_days_takes_little_memory_and_no_long_call(redis_server: Server) -> None:
    with (
        redis_store(redis_server.url, shards=SHARDS) as store,
        redis_client(redis_server) as client,
    ):
        before, last = client.info("memory")["used_memory"], store.now_ms() // MINUTE * MINUTE
        values = {f"late_le_{number}": 1000 * number for number in range(1, 17)}
        minutes = range(last - STATS_MS + MINUTE, last + 1, MINUTE)
        client.config_resetstat()
        assert store.add_stats([Sample("one", minute, values) for minute in minutes]) == NotAdded()
        assert client.info("memory")["used_memory"] - before < 2_500_000
        key = next(client.scan_iter(f"*:y:one:{last // (120 * MINUTE) - 1}:late_le_1"))
        assert client.object("encoding", key) == b"listpack"
        assert store.stats("one", minutes[0], last + 1) == dict.fromkeys(minutes, values)
        stats = client.info("commandstats")
        assert stats["cmdstat_evalsha"]["usec_per_call"] < 10_000
        assert stats["cmdstat_hgetall"]["usec_per_call"] < 50  # 200 are read at once
