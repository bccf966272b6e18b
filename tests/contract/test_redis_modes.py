"""The store on servers that keep each other: fail-overs, slots that move, wrong settings."""

import time
from binascii import crc32
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import closing
from functools import partial

import gevent
import pytest
from redis.crc import key_slot

from soraka import config, wiring
from soraka.adapters.redis_store import RedisStore
from soraka.errors import ConfigError, StoreUnavailable
from soraka.ports import Claim, ClaimKind, Ended, Move, Outcome
from tests.contract.store_kit import (
    OTHER,
    OWNER,
    SETTINGS,
    add_time,
    cancel,
    entry,
    group_store,
    message,
    put,
    wait_for,
)
from tests.redis_groups import (
    MASTER_NAME,
    PASSWORD,
    PASSWORD_IN_URL,
    SENTINEL_PASSWORD,
    ClusterGroup,
    RedisGroup,
    SentinelGroup,
)

SHARDS = 8
TIMEOUT_MS = 500
GIVEN_UP_S = 6.0
FAR = 3_600_000
FIRE, UNKNOWN = ClaimKind.FIRE, ClaimKind.UNKNOWN


@pytest.fixture
def sentinel(redis_sentinel: SentinelGroup) -> SentinelGroup:
    redis_sentinel.make_whole()
    return redis_sentinel


@pytest.fixture
def cluster(redis_cluster: ClusterGroup) -> ClusterGroup:
    redis_cluster.make_whole()
    return redis_cluster


@pytest.fixture(params=["redis_sentinel", "redis_cluster"])
def group(request: pytest.FixtureRequest) -> RedisGroup:
    found: RedisGroup = request.getfixturevalue(request.param)
    found.make_whole()
    return found


@pytest.fixture
def watched(sentinel: SentinelGroup) -> Iterator[RedisStore]:
    with group_store(sentinel, shards=SHARDS, timeout_ms=TIMEOUT_MS) as store:
        yield store


@pytest.fixture
def spread(cluster: ClusterGroup) -> Iterator[RedisStore]:
    with group_store(cluster, shards=SHARDS, timeout_ms=TIMEOUT_MS) as store:
        yield store


def filled(store: RedisStore, count: int = 80) -> list[str]:
    messages = [message(store.now_ms()) for _ in range(count)]
    put(store, *messages)
    return [m.msg_id for m in messages]


def shard_of(msg_id: str) -> int:
    return crc32(msg_id.encode()) % SHARDS


def kinds(claims: list[Claim]) -> set[ClaimKind]:
    return {claim.kind for claim in claims}


def answers(store: RedisStore) -> bool:
    try:
        store.positions("p")
    except StoreUnavailable:
        return False
    return True


def has_restarted(store: RedisStore) -> bool:
    try:
        return store.restarts() != frozenset()
    except StoreUnavailable:
        return False


# --------------------------------------------------------------------------- fail-over


def kill_master(group: RedisGroup) -> set[int]:
    """The one that has a replica, which has all. Returns its shards."""
    group.wait_copied()
    if isinstance(group, SentinelGroup):
        group.master().kill()
        return set(range(SHARDS))
    master = group.doubled()
    shards = {shard for shard in range(SHARDS) if group.holder(shard) is master}
    assert 0 < len(shards) < SHARDS
    master.kill()
    return shards


def claimed(store: RedisStore, ids: list[str]) -> list[Claim]:
    """UNKNOWN also when no shard answers."""
    try:
        return store.claim(ids)
    except StoreUnavailable:
        return [Claim(UNKNOWN)] * len(ids)


def test_after_a_fail_over_it_goes_on_by_itself(group: RedisGroup) -> None:
    with group_store(group, shards=SHARDS, timeout_ms=TIMEOUT_MS) as store:
        ids = filled(store)
        positions = store.positions("p")
        kill_master(group)
        assert not answers(store)
        wait_for(lambda: answers(store), 30)
        assert store.positions("p") == positions, "the replica had all of it"
        assert [s and s.message.msg_id for s in store.get(ids)] == ids
        assert {d.msg_id for d in store.due(OWNER, 1 << 52, 1000)} == set(ids)
        assert store.command([cancel(ids[0]), add_time(ids[1], 5)]) == ["applied", "applied"]


def test_a_promoted_replica_answers_no_claim_until_someone_vouches(group: RedisGroup) -> None:
    with group_store(group, shards=SHARDS, timeout_ms=TIMEOUT_MS) as store:
        ids = filled(store)
        assert store.restarts() == frozenset()
        shards = kill_master(group)
        wait_for(lambda: answers(store), 30)
        restarts = store.restarts()
        assert len(restarts) == 1
        for msg_id, claim in zip(ids, claimed(store, ids), strict=True):
            assert claim.kind is (UNKNOWN if shard_of(msg_id) in shards else FIRE)
        assert store.restarts() == restarts
        store.vouch(restarts)
        assert store.restarts() == frozenset()
        left = [i for i in ids if shard_of(i) in shards]
        assert kinds(store.claim(left)) == {FIRE}


def test_an_old_master_that_comes_back_as_one_is_not_asked(
    watched: RedisStore, sentinel: SentinelGroup
) -> None:
    """Its sentinels take some seconds to tell it what it is now."""
    ids = filled(watched)
    sentinel.wait_copied()
    old = sentinel.master()
    old.kill()
    wait_for(lambda: answers(watched), 30)
    watched.vouch(watched.restarts())
    assert kinds(watched.claim(ids)) == {FIRE}
    old.start()
    assert old.role() == "master"
    with group_store(sentinel, shards=SHARDS, flush=False) as another:
        for store in (watched, another):
            assert kinds(store.claim(ids)) == {ClaimKind.BUSY}
    assert old.role() == "master", "too late to show anything"


def test_a_master_that_is_to_be_a_replica_is_left(
    watched: RedisStore, sentinel: SentinelGroup
) -> None:
    """At once, though it lives and answers: nobody has told it yet, and what it takes is lost."""
    ids = filled(watched)
    sentinel.wait_copied()
    old = sentinel.master()
    sentinel.sentinels[0].ask("SENTINEL", "FAILOVER", MASTER_NAME)
    wait_for(lambda: has_restarted(watched), 30)
    assert old.role() == "master", "it had to be left: nothing is shown"
    watched.vouch(watched.restarts())
    claims = watched.claim(ids)
    assert kinds(claims) == {FIRE}
    outcomes = [Outcome(i, c.lease, Ended.SUCCEEDED) for i, c in zip(ids, claims, strict=True)]
    assert watched.settle(outcomes) == [True] * len(ids)


# --------------------------------------------------------------------------- a cluster


def test_a_master_away_takes_only_its_shards_along(
    spread: RedisStore, cluster: ClusterGroup
) -> None:
    ids = filled(spread)
    away = next(s for s in cluster.masters() if not s.replicas())
    shards = {shard for shard in range(SHARDS) if cluster.holder(shard) is away}
    assert 0 < len(shards) < SHARDS
    away.kill()
    claims = dict(zip(ids, spread.claim(ids), strict=True))
    for msg_id, claim in claims.items():
        assert claim.kind is (UNKNOWN if shard_of(msg_id) in shards else FIRE)
    others = [i for i in ids if shard_of(i) not in shards]
    outcomes = [Outcome(i, claims[i].lease, Ended.RETRY, FAR) for i in others]
    assert spread.settle(outcomes) == [True] * len(others)
    assert {d.msg_id for d in spread.due(OWNER, 1 << 52, 1000)} == set(others)
    assert spread.owners() == {OWNER}
    assert not answers(spread), "that needs all shards"
    cluster.make_whole()
    wait_for(lambda: answers(spread), 30)
    spread.vouch(spread.restarts())
    mine = [i for i in ids if shard_of(i) in shards]
    assert kinds(spread.claim(mine)) == {FIRE}


def test_a_master_that_is_silent_delays_the_others_by_one_timeout(
    spread: RedisStore, cluster: ClusterGroup
) -> None:
    ids = filled(spread)
    silent = next(s for s in cluster.masters() if not s.replicas())
    shards = {shard for shard in range(SHARDS) if cluster.holder(shard) is silent}
    with silent.stopped():
        took: list[float] = []
        for _ in range(5):
            before = time.monotonic()
            claims = spread.claim(ids)
            took.append(time.monotonic() - before)
            for msg_id, claim in zip(ids, claims, strict=True):
                assert (claim.kind is UNKNOWN) is (shard_of(msg_id) in shards)
    # To the first it goes in vain, and those that come soon after know it.
    assert max(took) < 2.5 * TIMEOUT_MS / 1000
    assert sorted(took)[len(took) // 2] < TIMEOUT_MS / 1000


def move_slot(cluster: ClusterGroup, shard: int) -> None:
    source = cluster.holder(shard)
    target = next(s for s in cluster.masters() if s is not source)
    cluster.move(key_slot(str(shard).encode()), source, target)
    assert cluster.holder(shard) is target


def swap_with_replica(cluster: ClusterGroup, _shard: int) -> None:
    """As before an upgrade. Redis gives up one that takes 5 s; then it is asked again."""
    replica = cluster.replica()

    def swapped() -> bool:
        if time.monotonic() - asked[-1] > GIVEN_UP_S:
            replica.ask("CLUSTER", "FAILOVER")
            asked.append(time.monotonic())
        return replica.role() == "master"

    asked = [float("-inf")]
    wait_for(swapped, 60)
    cluster.make_whole()


@pytest.mark.parametrize("change", [move_slot, swap_with_replica])
def test_a_change_under_calls_loses_nothing(
    spread: RedisStore, cluster: ClusterGroup, change: Callable[[ClusterGroup, int], None]
) -> None:
    """Each message is claimed once, and ends."""
    fired: Counter[str] = Counter()
    ended: set[str] = set()
    rounds = Rounds(spread, fired, ended)
    working = [gevent.spawn(rounds.feed), gevent.spawn(rounds.work), gevent.spawn(rounds.vouch)]
    try:
        for shard in range(4):
            wait_for(partial(rounds.has_ended, len(ended) + 100), 30)
            change(cluster, shard)
        rounds.feeding = False
        working[0].get(timeout=30)
        wait_for(lambda: ended == rounds.accepted, 30)
    finally:
        gevent.killall(working)
    assert max(fired.values()) == 1
    assert spread.owners() == set()
    assert rounds.met, "nothing came in the way of the changes: nothing is shown"


class Rounds:
    """Schedules, claims and settles, again where the store did not answer."""

    def __init__(self, store: RedisStore, fired: Counter[str], ended: set[str]) -> None:
        self.accepted: set[str] = set()
        self.feeding = True
        self.met = 0
        self._store = store
        self._fired = fired
        self._ended = ended

    def feed(self) -> None:
        position = -1
        while self.feeding:
            batch = [message(self._store.now_ms()) for _ in range(20)]
            entries = [entry(position + 1 + i, m) for i, m in enumerate(batch)]
            known = tuple([position] * SHARDS)
            position += len(batch)
            while not self._goes(partial(self._store.schedule, "p", known, position, entries)):
                gevent.sleep(0.02)
            self.accepted.update(m.msg_id for m in batch)
            gevent.sleep(0.01)

    def has_ended(self, count: int) -> bool:
        return len(self._ended) >= count

    def work(self) -> None:
        while True:
            self._goes(self._work)
            gevent.sleep(0.01)

    def vouch(self) -> None:
        while True:
            self._goes(self._vouch)
            gevent.sleep(0.05)

    def _vouch(self) -> None:
        restarts = self._store.restarts()
        self.met += bool(restarts)
        self._store.vouch(restarts)

    def _work(self) -> None:
        found = [due.msg_id for due in self._store.due(OWNER, 1 << 52, 50)]
        claims = self._store.claim(found)
        self.met += UNKNOWN in kinds(claims)
        mine = {i: claim for i, claim in zip(found, claims, strict=True) if claim.kind is FIRE}
        self._fired.update(list(mine))
        for msg_id, claim in mine.items():
            outcomes = [Outcome(msg_id, claim.lease, Ended.SUCCEEDED)]
            while not self._goes(partial(self._store.settle, outcomes)):
                gevent.sleep(0.02)
            self._ended.add(msg_id)

    def _goes(self, call: Callable[[], object]) -> bool:
        try:
            call()
        except StoreUnavailable:
            self.met += 1
            return False
        return True


# --------------------------------------------------------------------------- full


def test_full_it_takes_no_new_messages_but_serves_those_it_has(group: RedisGroup) -> None:
    masters = [group.master()] if isinstance(group, SentinelGroup) else group.masters()
    with group_store(group, shards=SHARDS, timeout_ms=TIMEOUT_MS) as store:
        ids = filled(store)
        positions = store.positions("p")
        for master in masters:
            master.ask("CONFIG", "SET", "maxmemory", 1)
        try:
            with pytest.raises(StoreUnavailable):
                filled(store)
            assert store.positions("p") == positions
            assert store.assign([Move(i, OWNER, OTHER) for i in ids]).count(None) == 0
            assert store.command([cancel(ids[0]), add_time(ids[1], FAR)]) == ["applied", "applied"]
            claims = dict(zip(ids[2:], store.claim(ids[2:]), strict=True))
            assert kinds(claims.values()) == {FIRE}
            ended = [Outcome(i, c.lease, Ended.SUCCEEDED) for i, c in claims.items()]
            assert all(store.settle(ended))
            assert {d.msg_id for d in store.due(OTHER, 1 << 52, 100)} == {ids[1]}
        finally:
            for master in masters:
                master.ask("CONFIG", "SET", "maxmemory", 0)
        assert kinds(store.claim(filled(store))) == {FIRE}


# --------------------------------------------------------------------------- settings

SECRET = "hush-hush"
PORT_GONE = "127.0.0.1:1"


def opened(**settings: object) -> RedisStore:
    given = config.override(config.Config(), {"store": {"adapter": "redis", **settings}})
    store = wiring.open_store(given)
    assert isinstance(store, RedisStore)
    return store


@pytest.mark.parametrize(
    ("settings", "named"),
    [
        ({"redis_mode": "clustered"}, "store.redis_mode"),
        ({"url": f"redis://:{SECRET}@a:1,b:2/0"}, "store.redis_mode"),
        ({"redis_mode": "cluster", "url": f"redis://:{SECRET}@a:1,b:2/3"}, "store.url"),
        ({"redis_mode": "cluster", "url": f"redis://:{SECRET}/@a:1,b:2/0"}, "store.url"),
        ({"redis_mode": "cluster", "url": f"redis://:{SECRET}#@a:1"}, "store.url"),
        ({"redis_mode": "cluster", "url": f"http://:{SECRET}@a:1"}, "store.url"),
        ({"redis_mode": "cluster", "url": "unix:///tmp/redis.sock"}, "store.url"),
        ({"redis_mode": "sentinel", "url": f"redis://:{SECRET}@a:1,b:two/0"}, "store.url"),
        ({"redis_mode": "sentinel", "url": f"redis://:{SECRET}@,a:1/0"}, "store.url"),
        ({"redis_mode": "sentinel", "url": f"redis://:{SECRET}@a:70000/0"}, "store.url"),
        ({"redis_mode": "sentinel", "sentinel_master": ""}, "store.sentinel_master"),
        ({"redis_mode": "sentinel", "sentinel_password": [SECRET]}, "store.sentinel_password"),
        ({"url": [SECRET]}, "store.url"),
    ],
)
def test_settings_that_cannot_be_right_are_refused(settings: dict[str, object], named: str) -> None:
    with pytest.raises(ConfigError) as refused:
        opened(**settings)
    assert named in str(refused.value)
    assert SECRET not in str(refused.value)


def test_sentinels_that_know_no_such_master(sentinel: SentinelGroup) -> None:
    refused = failure(**{**sentinel.settings, "sentinel_master": "nobody"})
    assert "knows no master named nobody" in refused
    assert "store.sentinel_master" in refused


@pytest.mark.parametrize("password", ["", SECRET])
def test_a_wrong_password_of_the_sentinels(sentinel: SentinelGroup, password: str) -> None:
    refused = failure(**{**sentinel.settings, "sentinel_password": password})
    assert "store.sentinel_password" in refused


def test_a_wrong_password_of_the_servers(group: RedisGroup) -> None:
    url = group.url.replace(PASSWORD_IN_URL, SECRET)
    assert "password" in failure(**{**group.settings, "url": url})


def test_a_single_server_taken_for_a_cluster(sentinel: SentinelGroup) -> None:
    url = f"redis://:{PASSWORD_IN_URL}@{sentinel.master().address}/0"
    assert "cluster" in failure(mode="cluster", url=url)


def test_a_cluster_taken_for_a_single_server(cluster: ClusterGroup) -> None:
    url = f"redis://:{PASSWORD_IN_URL}@{cluster.servers[0].address}/0"
    assert "store.redis_mode" in failure(mode="single", url=url)


def test_a_server_taken_for_a_sentinel(cluster: ClusterGroup) -> None:
    url = f"redis://:{PASSWORD_IN_URL}@{cluster.servers[0].address}/0"
    assert cluster.servers[0].address in failure(mode="sentinel", url=url, sentinel_master="m")


def test_servers_that_are_not_there_are_named() -> None:
    for mode in ("sentinel", "cluster"):
        url = f"redis://:{SECRET}@{PORT_GONE}/0"
        assert PORT_GONE in failure(mode=mode, url=url, sentinel_master=MASTER_NAME)


def failure(**settings: str) -> str:
    """What a store with these settings says of its first call; no password, surely."""
    store = RedisStore(shards=SHARDS, **{**SETTINGS, **settings})  # type: ignore[arg-type]
    with closing(store), pytest.raises(StoreUnavailable) as refused:
        store.positions("p")
    said = str(refused.value)
    for secret in (SECRET, SENTINEL_PASSWORD, PASSWORD, PASSWORD_IN_URL):
        assert secret not in said
    return said
