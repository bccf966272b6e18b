"""What is put back into a store that lost everything, from the log alone."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from uuid_utils import uuid7

from soraka import wire
from soraka.adapters.sqlite_log import SqliteLog
from soraka.adapters.sqlite_store import SqliteStore
from soraka.message import NO_OWNER, Callback, Command, CommandKind, Message, State, Stored
from soraka.ports import Ended, NewMessage, Outcome, Record
from soraka.rebuild import Rebuilt, rebuild
from tests.contract.store_kit import uuid7 as uuid7_at

DAY_MS = 24 * 3600 * 1000
HOUR_MS = 3_600_000


class Rig:
    """A log with history, and a store that knows nothing of it."""

    def __init__(self, folder: Path) -> None:
        self.log = SqliteLog(
            path=folder / "log.db",
            retention_ms=DAY_MS,
            append_timeout_ms=3000,
            max_inflight_bytes=1 << 24,
        )
        for topic in ("orders", "bills"):
            self.log.create_topic(topic)
        self.store = SqliteStore(
            path=folder / "store.db",
            retention_ms=DAY_MS,
            dead_retention_ms=DAY_MS,
            lease_margin_ms=2000,
            early_ms=60_000,
        )
        self.now = self.store.now_ms()

    def submit(self, due_at: int, topic: str = "orders") -> Message:
        message = Message(
            msg_id=str(uuid7()),
            topic=topic,
            created_at=self.now,
            due_at=due_at,
            ttr_ms=1000,
            callback=Callback(method="GET", url="http://127.0.0.1/"),
        )
        self.log.append(topic, [Record(message.msg_id, wire.encode(message))])
        return message

    def command(self, message: Message, kind: CommandKind, add_ms: int = 0, **other: str) -> None:
        command = Command(
            command_id=other.get("command_id", str(uuid7())),
            msg_id=message.msg_id,
            topic=other.get("topic", message.topic),
            kind=kind,
            add_ms=add_ms,
        )
        self.log.append("orders", [Record(message.msg_id, wire.encode(command))])

    def rebuild(self, since_ms: int = 0, due_after_ms: int = 0, **other: bool) -> Rebuilt:
        return rebuild(
            self.log,
            self.store,
            group="center",
            since_ms=since_ms,
            due_after_ms=due_after_ms,
            **other,
        )

    def stored(self, message: Message) -> Stored | None:
        return self.store.get([message.msg_id])[0]


@pytest.fixture
def rig(tmp_path: Path) -> Iterator[Rig]:
    made = Rig(tmp_path)
    yield made
    made.store.close()
    made.log.close()


def test_what_falls_due_late_enough_is_put_back_without_an_owner(rig: Rig) -> None:
    past, due = rig.submit(rig.now - HOUR_MS), rig.submit(rig.now + HOUR_MS)
    assert rig.rebuild(due_after_ms=rig.now) == Rebuilt(messages=2, past=1, restored=1)
    assert rig.stored(past) is None
    stored = rig.stored(due)
    assert stored is not None
    assert (stored.message, stored.owner) == (due, NO_OWNER)


def test_a_cancelled_message_is_not_put_back(rig: Rig) -> None:
    message, other = rig.submit(rig.now), rig.submit(rig.now)
    rig.command(message, CommandKind.CANCEL)
    rig.command(other, CommandKind.CANCEL, topic="bills")  # of a topic it is not in: no cancel
    assert rig.rebuild() == Rebuilt(messages=2, cancelled=1, restored=1)
    assert rig.stored(message) is None
    assert rig.stored(other) is not None


def test_added_times_count_also_for_whether_it_falls_due_late_enough(rig: Rig) -> None:
    message = rig.submit(rig.now - HOUR_MS)
    rig.command(message, CommandKind.ADD_TIME, HOUR_MS)
    rig.command(message, CommandKind.ADD_TIME, HOUR_MS, command_id="once")
    rig.command(message, CommandKind.ADD_TIME, HOUR_MS, command_id="once")
    rig.rebuild(due_after_ms=rig.now)
    stored = rig.stored(message)
    assert stored is not None
    assert stored.due_at == rig.now + HOUR_MS


def test_what_was_fired_fell_due_then(rig: Rig) -> None:
    fired, later = rig.submit(rig.now + DAY_MS), rig.submit(rig.now + DAY_MS)
    rig.command(fired, CommandKind.FIRE_NOW, command_id=uuid7_at(rig.now - HOUR_MS))
    rig.command(later, CommandKind.FIRE_NOW, command_id=uuid7_at(rig.now - 1))
    assert rig.rebuild(due_after_ms=rig.now - 2) == Rebuilt(messages=2, past=1, restored=1)
    stored = rig.stored(later)
    assert stored is not None
    assert rig.now <= stored.due_at <= rig.store.now_ms()  # at once


def test_time_added_after_a_fire_now_counts_from_then(rig: Rig) -> None:
    message = rig.submit(rig.now + DAY_MS)
    rig.command(message, CommandKind.FIRE_NOW, command_id=uuid7_at(rig.now - HOUR_MS))
    rig.command(message, CommandKind.ADD_TIME, 2 * HOUR_MS)
    assert rig.rebuild(due_after_ms=rig.now + 2 * HOUR_MS).past == 1
    assert rig.rebuild(due_after_ms=rig.now).restored == 1


def test_a_fire_now_of_an_unknown_time_does_not_hide_its_message(rig: Rig) -> None:
    message = rig.submit(rig.now + DAY_MS)
    rig.command(message, CommandKind.FIRE_NOW, command_id="by hand")
    assert rig.rebuild(due_after_ms=rig.now).restored == 1
    stored = rig.stored(message)
    assert stored is not None
    assert stored.due_at <= rig.store.now_ms()


def test_what_was_redriven_fell_due_anew_then(rig: Rig) -> None:
    dead, redriven = (rig.submit(rig.now - DAY_MS) for _ in range(2))
    rig.command(redriven, CommandKind.REDRIVE, command_id=uuid7_at(rig.now))
    rig.command(dead, CommandKind.REDRIVE, command_id="by hand")
    assert rig.rebuild(due_after_ms=rig.now) == Rebuilt(messages=2, past=1, restored=1)
    stored = rig.stored(redriven)
    assert stored is not None
    assert (stored.state, stored.due_at) == (State.PENDING, redriven.due_at)


def test_what_the_store_knows_is_left_as_it_is(rig: Rig) -> None:
    called, pending, lost = (rig.submit(rig.now - 1) for _ in range(3))
    entries = [NewMessage(n, m, "w:1") for n, m in enumerate((called, pending))]
    rig.store.schedule("p", (-1,), 1, entries)
    (claim,) = rig.store.claim([called.msg_id])
    rig.store.settle([Outcome(called.msg_id, claim.lease, Ended.SUCCEEDED)])
    before = [rig.stored(called), rig.stored(pending)]
    for restored in (1, 0):  # safe to repeat
        assert rig.rebuild() == Rebuilt(messages=3, known=3 - restored, restored=restored)
    assert [rig.stored(called), rig.stored(pending)] == before
    assert rig.stored(lost) is not None


def test_records_before_the_time_are_left_out(rig: Rig) -> None:
    rig.submit(rig.now + HOUR_MS)
    assert rig.rebuild(since_ms=rig.store.now_ms() + HOUR_MS) == Rebuilt()


def test_a_dry_run_counts_and_changes_nothing(rig: Rig) -> None:
    message = rig.submit(rig.now)
    assert rig.rebuild(dry_run=True).restored == 1
    assert rig.stored(message) is None
    assert rig.store.positions(rig.log.partition) == (-1,)


def test_what_cannot_be_decoded_is_counted(rig: Rig) -> None:
    rig.log.append("orders", [Record("poison", b"\x01\xff")])
    rig.submit(rig.now)
    assert rig.rebuild() == Rebuilt(messages=1, undecodable=1, restored=1)


def test_many_are_put_back_in_steps(rig: Rig) -> None:
    messages = [rig.submit(rig.now + n) for n in range(1200)]
    steps: list[int] = []
    rebuild(
        rig.log,
        rig.store,
        group="center",
        since_ms=0,
        due_after_ms=0,
        told=lambda done: steps.append(done.restored),
    )
    assert steps == [500, 1000, 1200]
    assert all(rig.store.get([m.msg_id for m in messages]))


def test_a_center_goes_on_where_its_group_stood(rig: Rig) -> None:
    """And not at the start of the log, though the store had no position."""
    rig.submit(rig.now)
    consumer = rig.log.consumer("center")
    consumer.poll(1000)
    consumer.commit({rig.log.partition: rig.log.last})
    rig.rebuild()
    assert rig.store.positions(rig.log.partition) == (rig.log.last,)
