"""A Redis that restarts answers no claim until center has read it up, over every partition."""

import time
from collections.abc import Iterator

import pytest

from center.vouch import Vouch
from soraka.adapters.redis_sentinel import FRESH_S
from soraka.config import Config, override
from soraka.errors import LogUnavailable, StoreUnavailable
from soraka.message import Command, CommandKind
from soraka.ports import ClaimKind
from soraka.wire import encode
from soraka.wiring import masters_apart_s
from tests.acceptance.sink import wait_until
from tests.contract.test_center_shards import Rig
from tests.servers import Server


class Vouching(Rig):
    """A center whose consumer and whose vouching take turns as the test says."""

    def __init__(self, url: str, monkeypatch: pytest.MonkeyPatch) -> None:
        super().__init__(url, monkeypatch)
        self.vouch = Vouch(
            log=self.tape,  # type: ignore[arg-type]
            store=self.store,
            metrics=self.metrics,
            look_again=self.consume.look_again,
        )

    def answers_claims(self) -> bool:
        try:
            self.store.claim(self.ids[:1])
        except StoreUnavailable:
            return False
        return True

    def cancel(self, number: int, msg_id: str) -> None:
        """As receive does: to the log, then to the store."""
        command = Command(
            command_id=f"c-{msg_id}", msg_id=msg_id, topic="t", kind=CommandKind.CANCEL
        )
        self.tape.add(number, encode(command), msg_id)
        assert self.store.command([command])


@pytest.fixture
def rig(redis_server: Server, monkeypatch: pytest.MonkeyPatch) -> Iterator[Vouching]:
    made = Vouching(redis_server.url.rpartition("/")[0] + "/14", monkeypatch)
    yield made
    made.store.close()


def restart(server: Server) -> None:
    with server.outage():
        pass


def test_an_empty_log_is_read_up(rig: Vouching) -> None:
    rig.add(3)
    rig.tape.records.update({partition: [] for partition in rig.tape.records})
    assert not rig.answers_claims()
    rig.vouch.turn()
    assert rig.answers_claims()


def test_not_before_every_partition_is_read_up(redis_server: Server, rig: Vouching) -> None:
    rig.add(30)
    rig.turn()
    rig.vouch.turn()
    assert rig.answers_claims()
    before = [rig.keys(shard) for shard in range(3)]
    rig.cancel(0, rig.ids[0])
    rig.turn()
    for shard in range(3):  # the cancel stood in the tail
        rig.put_back(shard, before[shard])
    restart(redis_server)
    assert not rig.answers_claims()
    for _ in range(3):
        rig.vouch.turn()
        assert not rig.answers_claims()
    rig.turn()
    rig.vouch.turn()
    assert rig.store.claim(rig.ids[:1])[0].kind is ClaimKind.GONE


def test_partitions_of_other_centers_count(redis_server: Server, rig: Vouching) -> None:
    rig.add(30)
    rig.turn()
    rig.vouch.turn()
    del rig.tape.epochs["t/2@x"]  # another center reads it, and is slow
    rig.add(3)
    rig.turn()
    restart(redis_server)
    rig.vouch.turn()
    assert not rig.answers_claims()
    end = len(rig.tape.records["t/2@x"]) - 1
    rig.store.schedule("t/2@x", rig.store.positions("t/2@x"), end, [])
    rig.vouch.turn()
    assert rig.answers_claims()


def test_what_comes_after_the_restart_need_not_be_read(redis_server: Server, rig: Vouching) -> None:
    rig.add(30)
    rig.turn()
    rig.vouch.turn()
    rig.add(3)
    restart(redis_server)
    rig.vouch.turn()  # not read up: it notes where the log ends now
    rig.turn(1)
    rig.add(30)
    rig.turn(1)
    rig.vouch.turn()
    assert rig.answers_claims()


def test_another_restart_begins_anew(redis_server: Server, rig: Vouching) -> None:
    rig.add(30)
    rig.turn()
    rig.vouch.turn()
    restart(redis_server)
    rig.add(3)
    rig.vouch.turn()
    restart(redis_server)
    rig.add(3)
    rig.turn()
    rig.vouch.turn()
    assert rig.answers_claims()
    assert rig.metrics.vouched._value.get() == 2  # the first start and the second restart


def test_with_the_log_away_nobody_vouches(
    redis_server: Server, rig: Vouching, monkeypatch: pytest.MonkeyPatch
) -> None:
    rig.add(30)
    rig.turn()

    def away() -> None:
        raise LogUnavailable("told so")

    with monkeypatch.context() as patched:
        patched.setattr(rig.tape, "spans", away)
        for _ in range(2):
            with pytest.raises(LogUnavailable):
                rig.vouch.turn()
        assert not rig.answers_claims()
    rig.vouch.turn()
    assert rig.answers_claims()


def test_the_consumer_looks_at_once(redis_server: Server, rig: Vouching) -> None:
    """And not when it next would: nothing is called until it has."""
    rig.add(30)
    rig.turn()
    rig.vouch.turn()
    before = rig.keys(1)
    rig.add(30)
    rig.turn()
    rig.put_back(1, before)
    rig.consume._checked_at = float("inf")
    restart(redis_server)
    rig.vouch.turn()
    rig.turn()
    assert rig.missing() == 0
    rig.vouch.turn()
    assert rig.answers_claims()


@pytest.fixture
def slow(redis_server: Server, rig: Vouching, monkeypatch: pytest.MonkeyPatch) -> Vouching:
    """Redis has restarted while some records of each partition were unread."""
    monkeypatch.setattr("center.vouch.LOOK_EVERY_S", 0)
    rig.add(30)
    rig.turn()
    rig.vouch.turn()
    rig.add(3)
    restart(redis_server)
    rig.vouch.turn()
    assert not rig.answers_claims()
    return rig


def test_a_topic_deleted_meanwhile_is_not_waited_for(slow: Vouching) -> None:
    for partition in ("t/0@x", "t/1@x"):
        del slow.tape.records[partition], slow.tape.epochs[partition], slow.tape.next[partition]
    slow.vouch.turn()
    assert not slow.answers_claims()  # the third is still there
    slow.turn()
    slow.vouch.turn()
    assert slow.answers_claims()


def test_records_that_expired_meanwhile_are_not_waited_for(
    slow: Vouching, monkeypatch: pytest.MonkeyPatch
) -> None:
    spans = {partition: (end, end) for partition, (_, end) in slow.tape.spans().items()}
    monkeypatch.setattr(slow.tape, "spans", lambda: spans)
    slow.vouch.turn()
    assert slow.answers_claims()


def test_a_tail_lost_meanwhile_is_not_waited_for(slow: Vouching) -> None:
    for records in slow.tape.records.values():
        records.pop()
    slow.vouch.turn()
    assert slow.answers_claims()


def test_what_comes_meanwhile_is_not_waited_for(slow: Vouching) -> None:
    slow.turn(1)
    slow.add(60)
    slow.vouch.turn()
    assert slow.answers_claims()


def test_the_ends_are_read_once_all_have_left_the_old_master(
    redis_server: Server, rig: Vouching
) -> None:
    rig.turn()
    rig.vouch.turn()
    rig.vouch._apart_s = 0.5
    restart(redis_server)
    began = time.monotonic()
    rig.vouch.turn()
    rig.add(3)  # one that has not moved yet confirms it
    while time.monotonic() - began < 0.4:
        rig.vouch.turn()
        assert not rig.answers_claims()
    wait_until(lambda: rig.vouch.turn() is None and rig.vouch._unread)
    assert not rig.answers_claims()
    rig.turn()
    rig.vouch.turn()
    assert rig.answers_claims()


def test_only_in_sentinel_mode_masters_may_be_apart() -> None:
    sentinel = {"adapter": "redis", "redis_mode": "sentinel", "sentinel_master": "m"}
    made = override(Config(), {"store": {**sentinel, "timeout_ms": 1000}})
    assert masters_apart_s(made) > 1 + FRESH_S
    assert masters_apart_s(override(made, {"store": {"redis_mode": "cluster"}})) == 0
    assert masters_apart_s(Config()) == 0
