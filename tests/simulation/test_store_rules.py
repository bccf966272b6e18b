"""The promises of the store hold in a stumbling world, and fail with any one rule taken out."""

import contextlib
import random
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import redis

from soraka.adapters.sqlite_store import SqliteStore
from soraka.errors import StoreUnavailable
from soraka.ports import FullStore
from tests.contract.store_kit import SETTINGS, TurnedClock, redis_store
from tests.servers import Server
from tests.simulation.mutants import MUTATIONS, Mutation, redis_options, sqlite_parts
from tests.simulation.witness import BrokenPromise
from tests.simulation.world import World

START = 1_800_000_000_000
SEEDS = 15
MUTANT_SEEDS = 20
TABLES = ("message", "owner", "counter", "position", "early", "tally", "attempt")

Restore = Callable[[], None]
Opened = tuple[FullStore, Callable[[], Restore]]
Play = Callable[[int, Mutation | None], None]


@pytest.fixture(params=["redis", "sqlite"])
def play(request: pytest.FixtureRequest, tmp_path: Path) -> Play:
    """Runs the world of a seed on a new store."""
    if request.param == "redis":
        server: Server = request.getfixturevalue("redis_server")

    def played(seed: int, mutation: Mutation | None) -> None:
        clock = TurnedClock()
        clock.now = START
        opened = (
            _redis(server.url, clock, mutation)
            if request.param == "redis"
            else _sqlite(tmp_path / f"{seed}.db", clock, mutation)
        )
        with opened as (store, snapshot):
            World(random.Random(seed), clock, store, snapshot).run()

    return played


@pytest.mark.parametrize("seed", range(SEEDS))
def test_every_promise_holds(play: Play, seed: int) -> None:
    play(seed, None)


@pytest.mark.parametrize("mutation", MUTATIONS, ids=lambda m: m.rule.replace(" ", "-"))
def test_without_a_rule_a_promise_breaks(play: Play, mutation: Mutation) -> None:
    for seed in range(MUTANT_SEEDS):
        try:
            play(seed, mutation)
        except (BrokenPromise, StoreUnavailable):  # the tables of SQLite have rules, too
            return
    pytest.fail(f"{MUTANT_SEEDS} worlds did not miss the rule")


@contextlib.contextmanager
def _redis(url: str, clock: TurnedClock, mutation: Mutation | None) -> Iterator[Opened]:
    with (
        redis.Redis.from_url(url) as client,
        redis_store(url, shards=2, now_ms=clock, **redis_options(mutation)) as store,
    ):

        def snapshot() -> Restore:
            dumps = {key: (client.pttl(key), client.dump(key)) for key in client.scan_iter()}

            def restore() -> None:
                client.flushdb()
                for key, (ttl, dump) in dumps.items():
                    client.restore(key, max(0, ttl), dump)

            return restore

        yield store, snapshot


@contextlib.contextmanager
def _sqlite(path: Path, clock: TurnedClock, mutation: Mutation | None) -> Iterator[Opened]:
    made, options = sqlite_parts(mutation)
    store: SqliteStore = made(path=path, now_ms=clock, **SETTINGS, **options)

    def snapshot() -> Restore:
        saved = {table: store._query(f"SELECT * FROM {table}") for table in TABLES}

        def restore() -> None:
            for table, rows in saved.items():
                store._query(f"DELETE FROM {table}")
                for row in rows:
                    marks = ", ".join("?" * len(row))
                    store._query(f"INSERT INTO {table} VALUES ({marks})", row)

        return restore

    with contextlib.closing(store):
        yield store, snapshot
