"""Center's reading over several partitions and shards, on a real Redis: what a poll that is cut
short by an error, a rebalance or a lost tail must not lose. The consumer is scripted."""

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from types import SimpleNamespace

import pytest
import redis
from uuid_utils import uuid7

from center.consume import BUSY_SPACING_S, SPACING_S, Consume
from center.workers import Workers
from soraka import wire
from soraka.adapters.local_registry import LocalRegistry
from soraka.adapters.redis_store import RedisStore
from soraka.clock import StoreClock
from soraka.errors import LogUnavailable
from soraka.message import Callback, Message
from soraka.metrics import Metrics
from soraka.ports import Batch, Logged, Record
from tests.servers import Server

DAY_MS = 24 * 3600 * 1000
SHARDS = 3


class Tape:
    """Partitions in memory; keeps the contract of `Log` and `Consumer` as far as center asks."""

    def __init__(self, partitions: int) -> None:
        self.records: dict[str, list[Logged]] = {f"t/{n}@x": [] for n in range(partitions)}
        self.epochs = dict.fromkeys(self.records, 1)
        self.next = dict.fromkeys(self.records, 0)
        self.done: dict[str, int] = {}
        self.dead: list[Record] = []
        self.dead_letter_failures = 0

    def add(self, number: int, value: bytes, key: str = "k") -> None:
        records = self.records[f"t/{number}@x"]
        records.append(Logged(len(records), key, value))

    def reassign(self, partition: str, start: int) -> None:
        """As a rebalance does: given anew, at what the group thinks."""
        self.epochs[partition] += 1
        self.next[partition] = start

    def poll(self, timeout_ms: int) -> Sequence[Batch]:
        batches = []
        for partition in self.epochs:
            part = self.records[partition][self.next[partition] :][:5]
            if part:
                self.next[partition] = part[-1].position + 1
                batches.append(Batch(partition, self.epochs[partition], part))
        return batches

    def assigned(self) -> Mapping[str, int]:
        return dict(self.epochs)

    def span(self, partition: str) -> tuple[int, int]:
        return 0, len(self.records[partition])

    def seek(self, partition: str, position: int) -> None:
        self.next[partition] = position

    def commit(self, positions: Mapping[str, int]) -> None:
        self.done.update(positions)

    def committed(self, group: str) -> Mapping[str, int]:
        return dict(self.done)

    def spans(self) -> Mapping[str, tuple[int, int]]:
        return {partition: self.span(partition) for partition in self.records}

    def lag(self) -> int:
        return sum(len(r) - self.next[p] for p, r in self.records.items())

    def append_dead_letter(self, records: Sequence[Record]) -> None:
        if self.dead_letter_failures:
            self.dead_letter_failures -= 1
            raise LogUnavailable("told so")
        self.dead += records


class Rig:
    def __init__(self, url: str, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr("center.consume.CHECK_EVERY_S", 0)
        self.store = RedisStore(
            url=url,
            shards=SHARDS,
            retention_ms=DAY_MS,
            dead_retention_ms=DAY_MS,
            lease_margin_ms=2000,
            early_ms=60_000,
        )
        self.client = redis.Redis.from_url(url)
        self.client.flushdb()
        self.tape = Tape(3)
        self.ids: list[str] = []
        self.metrics = Metrics()
        clock = StoreClock(self.store)
        clock.sync()
        self.consume = Consume(
            log=self.tape,  # type: ignore[arg-type]
            group="center",
            consumer=self.tape,  # type: ignore[arg-type]
            store=self.store,
            workers=Workers(LocalRegistry(path=None), rpc_timeout_ms=100),
            clock=clock,
            metrics=self.metrics,
            horizon_ms=3000,
        )

    def add(self, count: int, due_ms: int = DAY_MS) -> None:
        """Messages, in turn over the partitions."""
        now = self.store.now_ms()
        for n in range(count):
            message = Message(
                msg_id=str(uuid7()),
                topic="t",
                created_at=now,
                due_at=now + due_ms,
                ttr_ms=1000,
                callback=Callback(method="GET", url="http://127.0.0.1/"),
            )
            self.tape.add(n % 3, wire.encode(message), message.msg_id)
            self.ids.append(message.msg_id)

    def turn(self, times: int = 10) -> None:
        for _ in range(times):
            try:
                self.consume.turn()
            except LogUnavailable:
                continue

    def keys(self, shard: int) -> dict[bytes, bytes]:
        """What a shard holds now, by key."""
        client = self.client
        return {key: client.dump(key) for key in client.keys(f"{{{shard}}}:*")}

    def put_back(self, shard: int, keys: Mapping[bytes, bytes]) -> None:
        """The shard holds that again, and nothing else."""
        client = self.client
        for key in client.keys(f"{{{shard}}}:*"):
            client.delete(key)
        for key, dumped in keys.items():
            client.restore(key, 0, dumped)

    def missing(self) -> int:
        return sum(stored is None for stored in self.store.get(self.ids))


@pytest.fixture
def rig(redis_server: Server, monkeypatch: pytest.MonkeyPatch) -> Iterator[Rig]:
    made = Rig(redis_server.url.rpartition("/")[0] + "/15", monkeypatch)
    yield made
    made.store.close()
    made.client.close()


def test_an_error_on_one_partition_loses_nothing_of_the_others(rig: Rig) -> None:
    rig.turn(1)
    rig.tape.add(0, b"poison")
    rig.add(30)
    rig.tape.dead_letter_failures = 3
    rig.turn()
    assert rig.missing() == 0
    assert rig.tape.dead == [Record("k", b"poison")]


def test_a_rebalance_that_skips_is_not_believed(rig: Rig) -> None:
    """The group's position is ahead of the store: the store lost its tail while others read."""
    rig.add(3)
    rig.turn()
    rig.add(30)
    for partition in rig.tape.records:
        rig.tape.reassign(partition, start=8)
    rig.turn()
    assert rig.missing() == 0


def test_one_shard_that_lost_its_tail_is_read_up(rig: Rig) -> None:
    rig.add(30)
    rig.turn()
    before = rig.keys(1)
    rig.add(30)
    rig.turn()
    rig.put_back(1, before)
    assert rig.missing() > 0
    rig.turn()
    assert rig.missing() == 0


def test_one_shard_that_lost_its_tail_while_no_center_ran(rig: Rig) -> None:
    rig.add(30)
    rig.turn()
    before = rig.keys(1)
    rig.add(30)
    rig.turn()
    rig.put_back(1, before)
    for partition, records in rig.tape.records.items():
        rig.tape.reassign(partition, start=len(records))
    rig.turn()
    assert rig.missing() == 0


@pytest.mark.parametrize("running", [True, False])
def test_a_shard_that_lost_everything_is_not_read_from_the_start(rig: Rig, running: bool) -> None:
    """Most of what it held was called before."""
    rig.add(60)
    rig.turn()
    rig.put_back(1, {})
    lost = rig.missing()
    assert lost > 0
    if not running:
        for partition in rig.tape.records:
            rig.tape.reassign(partition, start=0)
    rig.add(30)
    rig.turn()
    assert rig.missing() == lost
    assert rig.metrics.emptied._value.get() == 1


def test_what_was_never_committed_is_read_from_the_start(rig: Rig) -> None:
    rig.add(30)
    rig.tape.commit = lambda positions: None  # type: ignore[method-assign]
    rig.turn()
    for shard in range(SHARDS):
        rig.put_back(shard, {})
    rig.turn()
    assert rig.missing() == 0
    assert rig.metrics.emptied._value.get() == 0


def test_what_is_committed_is_asked_once_a_turn_and_not_of_new_partitions(
    rig: Rig, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = []
    committed = rig.tape.committed

    def counted(group: str) -> Mapping[str, int]:
        asked.append(group)
        return committed(group)

    monkeypatch.setattr(rig.tape, "committed", counted)
    rig.turn(1)
    assert asked == []
    rig.add(30)
    for partition in rig.tape.records:
        rig.tape.reassign(partition, start=0)
    rig.turn(1)
    assert asked == ["center"]
    rig.turn()
    assert rig.missing() == 0


@pytest.mark.parametrize(
    ("count", "due_ms", "slept_s"),
    [
        (0, DAY_MS, []),
        (9, DAY_MS, [SPACING_S]),
        (15, DAY_MS, [BUSY_SPACING_S]),
        (15, 20, [SPACING_S]),
        (90, DAY_MS, []),
    ],
)
def test_it_waits_for_more_to_come_but_not_with_work_to_do(
    rig: Rig, monkeypatch: pytest.MonkeyPatch, count: int, due_ms: int, slept_s: list[float]
) -> None:
    """A poll of the tape gives five of each of three partitions."""
    rig.add(1)
    rig.turn(2)  # its partitions are begun
    monkeypatch.setattr("center.consume.BUSY", 15)
    monkeypatch.setattr("center.consume.time", SimpleNamespace(monotonic=lambda: 0.0))
    slept: list[float] = []
    monkeypatch.setattr("center.consume.gevent.sleep", slept.append)
    rig.add(count, due_ms)
    rig.turn(1)
    assert slept == slept_s


def test_what_is_committed_every_shard_has(rig: Rig) -> None:
    rig.add(30)
    rig.turn()
    assert set(rig.tape.done.values()) == {9}
    rig.consume._read["t/0@x"].positions = (9, 4, 7)
    rig.consume.commit()
    assert rig.tape.done["t/0@x"] == 4


def test_a_partition_taken_away_is_forgotten(rig: Rig, tmp_path: Path) -> None:
    rig.add(3)
    rig.turn()
    del rig.tape.epochs["t/2@x"], rig.tape.records["t/2@x"]
    rig.turn(1)
    assert set(rig.consume._read) == {"t/0@x", "t/1@x"}
