"""Center's loops on the embedded log and store: what they do when things are not as expected."""

import contextlib
import sqlite3
from collections.abc import Iterator, Sequence
from pathlib import Path

import gevent
import pytest
from uuid_utils import uuid7

from center.consume import Consume
from center.moves import Moves
from center.reconcile import Reconcile
from center.workers import Workers
from soraka import wire
from soraka.adapters.local_registry import LocalRegistry
from soraka.adapters.sqlite_log import SqliteLog
from soraka.adapters.sqlite_store import SqliteStore
from soraka.clock import StoreClock
from soraka.errors import StoreUnavailable
from soraka.message import (
    NO_OWNER,
    Callback,
    Command,
    CommandKind,
    Instance,
    Message,
    State,
    Topic,
)
from soraka.metrics import Metrics
from soraka.ports import DueId, Entry, Record

DAY_MS = 24 * 3600 * 1000
TOPIC = "orders"


class Store(SqliteStore):
    """The real one, which can be told to be away."""

    away = 0

    def schedule(
        self, partition: str, previous: tuple[int, ...], last: int, entries: Sequence[Entry]
    ) -> tuple[int, ...]:
        if self.away:
            self.away -= 1
            raise StoreUnavailable("told so")
        return super().schedule(partition, previous, last, entries)


def _store(path: Path) -> Store:
    return Store(
        path=path,
        retention_ms=DAY_MS,
        dead_retention_ms=DAY_MS,
        lease_margin_ms=2000,
        early_ms=60_000,
    )


class Rig:
    """Log, store and registry of one test, and a center on them."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.log = SqliteLog(
            path=folder / "log.db",
            retention_ms=DAY_MS,
            append_timeout_ms=3000,
            max_inflight_bytes=1 << 24,
        )
        self.log.create_topic(TOPIC)
        self.registry = LocalRegistry(path=None)
        self.registry.put_topic(Topic(name=TOPIC), was=None)
        self.metrics = Metrics()
        self.pages: list[int] = []
        self.workers = Workers(self.registry, rpc_timeout_ms=200)
        self.use(_store(folder / "store.db"))

    def use(self, store: Store) -> None:
        """A center that knows nothing yet, on `store`."""
        self.store = store
        clock = StoreClock(store)
        clock.sync()
        self.consumer = self.log.consumer("center")
        self.consume = Consume(
            log=self.log,
            group="center",
            consumer=self.consumer,
            store=store,
            workers=self.workers,
            clock=clock,
            metrics=self.metrics,
            horizon_ms=3000,
        )
        self.moves = Moves(store=store, workers=self.workers, clock=clock, horizon_ms=3000)
        self.reconcile = Reconcile(
            store=store,
            registry=self.registry,
            workers=self.workers,
            moves=self.moves,
            clock=clock,
            metrics=self.metrics,
            absent_ms=100,
            sweep_ms=1000,
            turned=lambda: self.pages.append(1),
        )

    def worker(self, address: str) -> Instance:
        made = Instance(service="worker", address=address, incarnation=address)
        self.registry.register(made)
        return made

    def append(self, count: int = 1, *, due_in_ms: int = DAY_MS) -> list[str]:
        now = self.store.now_ms()
        messages = [
            Message(
                msg_id=str(uuid7()),
                topic=TOPIC,
                created_at=now,
                due_at=now + due_in_ms,
                ttr_ms=1000,
                callback=Callback(method="GET", url="http://127.0.0.1/"),
            )
            for _ in range(count)
        ]
        self.log.append(TOPIC, [Record(m.msg_id, wire.encode(m)) for m in messages])
        return [m.msg_id for m in messages]

    def read(self) -> None:
        """Turns until the store has all of the log."""
        for _ in range(20):
            self.consume.turn()
            if self.consumer.lag() == 0:
                return
        raise AssertionError("after 20 turns the log is not read")

    def copy_of_store(self) -> Store:
        """The store as it is now, opened from a copy of its file."""
        copy = self.folder / "copy.db"
        with (
            contextlib.closing(sqlite3.connect(self.folder / "store.db")) as source,
            contextlib.closing(sqlite3.connect(copy)) as target,
        ):
            source.backup(target)
        return _store(copy)

    def owners_of(self, msg_ids: Sequence[str]) -> list[str | None]:
        return [stored and stored.owner for stored in self.store.get(msg_ids)]

    def close(self) -> None:
        self.consumer.close()
        self.workers.close()
        self.store.close()
        self.registry.close()
        self.log.close()


@pytest.fixture
def rig(tmp_path: Path) -> Iterator[Rig]:
    made = Rig(tmp_path)
    yield made
    made.close()


def test_messages_go_to_the_workers_in_turn(rig: Rig) -> None:
    rig.worker("127.0.0.1:1")
    rig.worker("127.0.0.1:2")
    ids = rig.append(4)
    rig.read()
    assert sorted(map(str, rig.owners_of(ids))) == ["127.0.0.1:1"] * 2 + ["127.0.0.1:2"] * 2


def test_a_record_that_cannot_be_decoded_is_put_aside_and_the_rest_goes_on(rig: Rig) -> None:
    (first,) = rig.append()
    rig.log.append(TOPIC, [Record("poison", b"\x01\xff\xff")])
    (last,) = rig.append()
    rig.read()
    assert all(rig.store.get([first, last]))
    assert rig.metrics.undecodable._value.get() == 1
    assert rig.log._thread.run(
        lambda db: db.execute("SELECT key, value FROM dead_letters").fetchall()
    ) == [("poison", b"\x01\xff\xff")]


def test_while_the_store_is_away_nothing_is_skipped(
    rig: Rig, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("center.consume.BACK_OFF_S", 0.01)
    ids = rig.append(3)
    rig.store.away = 2
    rig.read()
    assert all(rig.store.get(ids))


def test_a_gap_in_mid_run_sends_center_back(rig: Rig) -> None:
    ids = rig.append(5)
    rig.read()
    # the same center goes on, on a store that has forgotten
    lost = _store(rig.folder / "lost.db")
    rig.store.close()
    rig.store = rig.consume._store = lost
    ids += rig.append(2)
    rig.read()
    assert rig.metrics.gaps._value.get() == 1
    assert all(rig.store.get(ids))


def test_a_cancel_in_the_log_is_applied(rig: Rig) -> None:
    (msg_id,) = rig.append()
    command = Command(command_id="c", msg_id=msg_id, topic=TOPIC, kind=CommandKind.CANCEL)
    rig.log.append(TOPIC, [Record(msg_id, wire.encode(command))])
    rig.read()
    (stored,) = rig.store.get([msg_id])
    assert stored is not None
    assert stored.state is State.CANCELLED


def test_messages_without_an_owner_go_to_the_first_worker_that_comes(rig: Rig) -> None:
    ids = rig.append(1200)
    rig.read()
    assert set(rig.owners_of(ids)) == {NO_OWNER}
    rig.reconcile.turn()
    assert set(rig.owners_of(ids)) == {NO_OWNER}
    rig.worker("127.0.0.1:1")
    rig.reconcile.turn()
    assert set(rig.owners_of(ids)) == {"127.0.0.1:1"}
    assert rig.store.owners() == {"127.0.0.1:1"}


def test_an_owner_must_be_absent_for_a_while(rig: Rig) -> None:
    gone = rig.worker("127.0.0.1:1")
    ids = rig.append(2)
    rig.read()
    rig.reconcile.turn()
    rig.worker("127.0.0.1:2")
    rig.registry.unregister(gone)
    for _ in range(5):  # however often something changes
        rig.reconcile.turn()
    assert set(rig.owners_of(ids)) == {"127.0.0.1:1"}
    gevent.sleep(0.1)
    rig.reconcile.turn()
    assert set(rig.owners_of(ids)) == {"127.0.0.1:2"}


def test_an_owner_that_comes_back_in_time_keeps_its_own(rig: Rig) -> None:
    gone = rig.worker("127.0.0.1:1")
    ids = rig.append(2)
    rig.read()
    rig.worker("127.0.0.1:2")
    rig.registry.unregister(gone)
    rig.reconcile.turn()
    rig.worker("127.0.0.1:1")
    gevent.sleep(0.1)
    rig.reconcile.turn()
    rig.registry.unregister(gone)
    rig.reconcile.turn()
    assert set(rig.owners_of(ids)) == {"127.0.0.1:1"}


def test_a_long_takeover_turns_with_each_step(rig: Rig, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("center.takeover.STEP", 500)
    ids = rig.append(1200)
    rig.read()
    rig.worker("127.0.0.1:1")
    rig.reconcile.turn()
    assert set(rig.owners_of(ids)) == {"127.0.0.1:1"}
    # as it begins, for each of three steps, and when it finds nothing more
    assert len(rig.pages) == 5


def test_what_a_live_owner_leaves_undone_goes_to_another(rig: Rig) -> None:
    rig.worker("127.0.0.1:1")
    overdue, fresh = rig.append(3, due_in_ms=-1500), rig.append(3, due_in_ms=0)
    rig.read()
    rig.reconcile.turn()
    assert set(rig.owners_of(overdue)) == {"127.0.0.1:1"}  # there is no other
    rig.worker("127.0.0.1:2")
    rig.reconcile.turn()
    assert set(rig.owners_of(overdue)) == {"127.0.0.1:2"}
    assert set(rig.owners_of(fresh)) == {"127.0.0.1:1"}


def test_a_quiet_store_that_lost_its_tail_is_noticed(
    rig: Rig, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("center.consume.CHECK_EVERY_S", 0)
    ids = rig.append(5)
    rig.read()
    older = rig.copy_of_store()
    ids += rig.append(5)
    rig.read()
    rig.store.close()
    rig.store = rig.consume._store = older
    for _ in range(3):  # nothing new comes
        rig.consume.turn()
    assert all(rig.store.get(ids))


def test_a_store_that_lost_its_tail_while_no_center_ran_is_read_up(rig: Rig) -> None:
    ids = rig.append(5)
    rig.read()
    older = rig.copy_of_store()
    ids += rig.append(5)
    rig.read()
    rig.consume.commit()
    rig.store.close()
    rig.consumer.close()
    rig.use(older)
    for _ in range(2):  # nothing new comes, and the group stands at the end
        rig.consume.turn()
    assert all(rig.store.get(ids))


@pytest.mark.parametrize("running", [True, False])
def test_an_emptied_store_is_not_filled_from_the_start_of_the_log(
    rig: Rig, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, running: bool
) -> None:
    """Most of what is there was called before. An operator decides what is to be restored."""
    monkeypatch.setattr("center.consume.CHECK_EVERY_S", 0)
    before = rig.append(5)
    rig.read()
    rig.consume.commit()
    rig.store.close()
    empty = _store(rig.folder / "empty.db")
    if running:
        rig.store = rig.consume._store = empty
    else:
        rig.consumer.close()
        rig.use(empty)
    after = rig.append(5)
    for _ in range(3):
        rig.consume.turn()
    assert rig.store.get(before) == [None] * 5
    assert all(rig.store.get(after))
    errors = [r.message for r in caplog.records if r.levelname == "ERROR"]
    assert errors == ["store.was_emptied"]


def test_a_log_that_lost_its_tail_is_read_on_from_its_end(
    rig: Rig, caplog: pytest.LogCaptureFixture
) -> None:
    rig.append(2)
    rig.read()
    known = rig.store.positions(rig.log.partition)
    rig.store.schedule(rig.log.partition, known, known[0] + 100, [])
    rig.consumer.close()
    rig.use(rig.store)  # a center that begins anew
    rig.consume.turn()
    assert [r.message for r in caplog.records if r.levelname == "ERROR"] == ["log.lost_its_tail"]
    ids = rig.append(3)
    rig.read()
    assert all(rig.store.get(ids))


def test_a_topic_keeps_to_its_workers_also_when_taken_over(rig: Rig) -> None:
    for address in ("127.0.0.1:1", "127.0.0.1:2"):
        rig.worker(address)
    gone = rig.worker("127.0.0.1:3")
    own = Topic(name=TOPIC, workers=("127.0.0.1:3", "127.0.0.1:2"))
    rig.registry.put_topic(own, was=Topic(name=TOPIC))
    ids = rig.append(6)
    rig.read()
    assert set(rig.owners_of(ids)) == {"127.0.0.1:2", "127.0.0.1:3"}
    rig.registry.unregister(gone)
    rig.reconcile.turn()
    gevent.sleep(0.1)
    rig.reconcile.turn()
    assert set(rig.owners_of(ids)) == {"127.0.0.1:2"}


def test_hand_back_balances_anew_and_moves_only_what_the_worker_owns(rig: Rig) -> None:
    rig.worker("127.0.0.1:1")
    ids = rig.append(4)
    rig.read()
    rig.worker("127.0.0.1:2")
    due = rig.store.now_ms() + DAY_MS
    pairs = [(TOPIC, DueId(due, msg_id)) for msg_id in ids]
    assert rig.reconcile.hand_back("127.0.0.1:9", pairs) == []
    moved = rig.reconcile.hand_back("127.0.0.1:1", pairs)
    assert rig.owners_of(moved) == ["127.0.0.1:2"] * 2
    assert sorted(map(str, rig.owners_of(ids))) == ["127.0.0.1:1"] * 2 + ["127.0.0.1:2"] * 2
