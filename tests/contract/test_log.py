"""The contract of the Log port, on every adapter; then what only one of them can do wrong."""

import itertools
import os
import signal
import sqlite3
import subprocess
import sys
import time
import uuid
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, Protocol

import gevent
import psutil
import pytest

from soraka import tls
from soraka.errors import BodyTooLarge, InvalidParams, LogUnavailable, TopicNotFound
from soraka.ports import Batch, Consumer, Log, Logged, Record
from tests.servers import PASSWORD, USER, Server

GROUP = "center"


class Opener(Protocol):
    """Opens one and the same log, again and again; what it opened is closed after the test."""

    def __call__(self, **settings: Any) -> Log: ...


@pytest.fixture(params=["sqlite", "kafka", "kafka_tls"])
def open_log(request: pytest.FixtureRequest) -> Opener:
    opener: Opener = request.getfixturevalue(f"open_{request.param}")
    return opener


@pytest.fixture
def open_sqlite(tmp_path: Path) -> Iterator[Opener]:
    from soraka.adapters.sqlite_log import SqliteLog

    defaults = {
        "path": tmp_path / "log.db",
        "retention_ms": 3_600_000,
        "append_timeout_ms": 5000,
        "max_inflight_bytes": 64 << 20,
    }
    yield from _opener(SqliteLog, defaults)


@pytest.fixture
def open_kafka(kafka_server: Server) -> Iterator[Opener]:
    from soraka.adapters.kafka_log import KafkaLog

    yield from _opener(KafkaLog, kafka_settings(kafka_server))


@pytest.fixture
def open_kafka_tls(kafka_tls_server: Server) -> Iterator[Opener]:
    from soraka.adapters.kafka_log import KafkaLog

    secured = tls.client(kafka_tls_server.tls, "log.tls")
    user = {"username": USER, "password": PASSWORD, "secured": secured}
    yield from _opener(KafkaLog, kafka_settings(kafka_tls_server) | user)


def kafka_settings(server: Server) -> dict[str, Any]:
    own = uuid.uuid4().hex
    return {
        "bootstrap": server.url,
        "topic_prefix": f"t-{own}.",
        "dead_letter_topic": f"dead-{own}",
        "partitions": 4,
        "replication": 1,
        "append_timeout_ms": 5000,
        "max_inflight_bytes": 64 << 20,
    }


def _opener(make: Callable[..., Log], defaults: dict[str, Any]) -> Iterator[Opener]:
    opened: list[Log] = []

    def opener(**settings: Any) -> Log:
        opened.append(make(**defaults | settings))
        return opened[-1]

    yield opener
    for log in opened:
        log.close()


@pytest.fixture
def log(open_log: Opener) -> Log:
    made = open_log()
    made.create_topic("orders")
    return made


@pytest.fixture
def consume() -> Iterator[Callable[..., Consumer]]:
    """Joins a group; leaves it after the test."""
    joined: list[Consumer] = []

    def join(log: Log, group: str = GROUP) -> Consumer:
        joined.append(log.consumer(group))
        return joined[-1]

    yield join
    for consumer in joined:
        consumer.close()


Consume = Callable[..., Consumer]


def records(count: int, *, keys: int = 10, start: int = 0) -> list[Record]:
    """Values count up over all keys."""
    return [Record(f"key-{n % keys}", b"%d" % n) for n in range(start, start + count)]


def drain(consumer: Consumer, count: int, within_s: float = 30) -> list[Batch]:
    """Polls until `count` records have come."""
    batches: list[Batch] = []
    deadline = time.monotonic() + within_s
    while sum(len(b.records) for b in batches) < count:
        assert time.monotonic() < deadline, f"{len(flat(batches))} of {count} records came"
        batches += consumer.poll(200)
    return batches


def settle(consumer: Consumer, within_s: float = 30) -> list[Batch]:
    """Polls until nothing has come for a second."""
    batches: list[Batch] = []
    deadline = time.monotonic() + within_s
    while polled := consumer.poll(1000):
        assert time.monotonic() < deadline
        batches += polled
    return batches


def flat(batches: Sequence[Batch]) -> list[Logged]:
    return [record for batch in batches for record in batch.records]


def numbers(batches: Sequence[Batch]) -> list[int]:
    return sorted(int(record.value) for record in flat(batches))


def eventually(done: Callable[[], bool], within_s: float = 30) -> None:
    deadline = time.monotonic() + within_s
    while not done():
        assert time.monotonic() < deadline
        gevent.sleep(0.05)


# --------------------------------------------------------------------------- both


def test_records_of_a_key_keep_their_order(log: Log, consume: Consume) -> None:
    for start in range(0, 300, 50):
        log.append("orders", records(50, start=start))
    by_key: dict[str, list[int]] = defaultdict(list)
    partition_of: dict[str, set[str]] = defaultdict(set)
    for batch in drain(consume(log), 300):
        for record in batch.records:
            by_key[record.key].append(int(record.value))
            partition_of[record.key].add(batch.partition)
    assert by_key == {f"key-{k}": list(range(k, 300, 10)) for k in range(10)}
    assert all(len(partitions) == 1 for partitions in partition_of.values())


def test_positions_join_on_within_an_epoch(log: Log, consume: Consume) -> None:
    for start in range(0, 2500, 10):
        log.append("orders", records(10, keys=1, start=start))
    seen: dict[tuple[str, int], list[int]] = defaultdict(list)
    for batch in drain(consume(log), 2500):
        assert batch.last == batch.records[-1].position
        positions = [record.position for record in batch.records]
        assert positions == sorted(positions)
        seen[batch.partition, batch.epoch] += dict.fromkeys(positions)
    for positions in seen.values():
        assert positions == list(range(positions[0], positions[0] + len(positions)))
    assert len(positions) >= 250


def test_5000_records_in_one_append_arrive_exactly(log: Log, consume: Consume) -> None:
    sent = [Record(str(uuid.uuid4()), os.urandom(300)) for _ in range(5000)]
    log.append("orders", sent)
    came = [Record(record.key, record.value) for record in flat(drain(consume(log), 5000))]
    assert {(r.key, r.value) for r in came} == {(r.key, r.value) for r in sent}
    assert len(came) == len(sent)


def test_appends_of_100_greenlets(log: Log, consume: Consume) -> None:
    def one(start: int) -> None:
        for n in range(start, start + 10):
            log.append("orders", records(1, start=n))

    greenlets = [gevent.spawn(one, start) for start in range(0, 1000, 10)]
    gevent.joinall(greenlets, raise_error=True)
    assert numbers(drain(consume(log), 1000)) == list(range(1000))


def test_empty_appends(log: Log, consume: Consume) -> None:
    log.append("orders", [])
    log.append_dead_letter([])
    log.append("orders", records(1))
    assert numbers(drain(consume(log), 1)) == [0]


def test_a_consumer_starts_at_the_oldest_record(log: Log, consume: Consume) -> None:
    log.append("orders", records(10))
    assert numbers(drain(consume(log, "one"), 10)) == list(range(10))
    assert numbers(drain(consume(log, "another"), 10)) == list(range(10))


def test_seek_back_replays_exactly(log: Log, consume: Consume) -> None:
    for start in range(0, 200, 10):
        log.append("orders", records(10, start=start))
    consumer = consume(log)
    read: dict[str, list[Logged]] = defaultdict(list)
    for batch in drain(consumer, 200):
        read[batch.partition] += batch.records
    partition, old = max(read.items(), key=lambda item: len(item[1]))
    middle = old[len(old) // 2].position
    assert middle > old[0].position
    consumer.seek(partition, middle)
    wanted = [record for record in old if record.position >= middle]
    again = drain(consumer, len(wanted))
    assert {batch.partition for batch in again} == {partition}
    assert flat(again) == wanted
    assert settle(consumer) == []


def test_seek_before_the_oldest_goes_to_the_oldest(log: Log, consume: Consume) -> None:
    log.append("orders", records(20, keys=1))
    consumer = consume(log)
    first = drain(consumer, 20)
    consumer.seek(first[0].partition, 0)
    assert flat(drain(consumer, 20)) == flat(first)


def test_seek_past_the_last_waits_for_what_comes(log: Log, consume: Consume) -> None:
    log.append("orders", records(20, keys=1))
    consumer = consume(log)
    last = drain(consumer, 20)[-1]
    consumer.seek(last.partition, last.last + 1)
    assert consumer.poll(500) == []
    log.append("orders", records(1, start=20))
    assert numbers(drain(consumer, 1)) == [20]


def test_seek_in_a_partition_of_others_is_ignored(log: Log, consume: Consume) -> None:
    log.append("orders", records(20))
    consumer = consume(log)
    drain(consumer, 20)
    consumer.seek("nobody's/0@x", 0)
    consumer.commit({"nobody's/0@x": 3})
    assert consumer.poll(500) == []


def test_a_group_resumes_at_what_it_committed(open_log: Opener, consume: Consume) -> None:
    log = open_log()
    log.create_topic("orders")
    for start in range(0, 100, 20):
        log.append("orders", records(20, keys=1, start=start))
    consumer = consume(log)
    read = flat(batches := drain(consumer, 100))
    for done in (9, 39, 59):
        consumer.commit({batches[0].partition: read[done].position})
    consumer.close()
    left = [record for record in read if record.position > read[59].position]
    assert left
    assert flat(drain(consume(log), len(left))) == left


def test_commit_of_nothing_does_nothing(log: Log, consume: Consume) -> None:
    log.append("orders", records(10, keys=1))
    consumer = consume(log)
    partition = drain(consumer, 10)[0].partition
    consumer.commit({})
    consumer.commit({partition: -1})
    consumer.close()
    consumer.close()
    assert numbers(drain(consume(log), 10)) == list(range(10))


def test_assigned_and_span(log: Log, consume: Consume) -> None:
    log.append("orders", records(50))
    consumer = consume(log)
    batches = drain(consumer, 50)
    assigned = consumer.assigned()
    assert {b.partition: b.epoch for b in batches}.items() <= assigned.items()
    for partition in assigned:
        positions = [r.position for b in batches if b.partition == partition for r in b.records]
        oldest, end = consumer.span(partition)
        if positions:
            assert (oldest, end) == (positions[0], positions[-1] + 1)
        else:
            assert oldest == end
    with pytest.raises(LogUnavailable):
        consumer.span("never heard of")


def test_two_topics(log: Log, consume: Consume) -> None:
    log.create_topic("mails")
    log.append("orders", records(10))
    log.append("mails", records(10, start=10))
    assert numbers(drain(consume(log), 20)) == list(range(20))


def test_a_new_topic_is_picked_up_without_a_restart(log: Log, consume: Consume) -> None:
    consumer = consume(log)
    log.append("orders", records(1))
    drain(consumer, 1)
    log.create_topic("mails")
    log.append("mails", records(10, start=1))
    assert numbers(drain(consumer, 10, within_s=8)) == list(range(1, 11))


def test_create_topic_again_leaves_it_as_it_is(log: Log, consume: Consume) -> None:
    log.append("orders", records(5))
    log.create_topic("orders")
    log.append("orders", records(5, start=5))
    assert numbers(drain(consume(log), 10)) == list(range(10))


def test_a_topic_made_by_another_process_is_known(open_log: Opener) -> None:
    log = open_log()
    log.create_topic("orders")
    log.close()
    open_log().append("orders", records(1))


def test_unknown_topic(log: Log) -> None:
    with pytest.raises(TopicNotFound):
        log.append("never-made", records(1))


def test_dead_letters_are_not_consumed(log: Log, consume: Consume) -> None:
    log.append_dead_letter(records(10))
    log.append("orders", records(3, start=10))
    consumer = consume(log)
    assert numbers(drain(consumer, 3)) == [10, 11, 12]
    assert settle(consumer) == []


def test_what_was_appended_survives_a_close(open_log: Opener, consume: Consume) -> None:
    log = open_log()
    log.create_topic("orders")
    log.append("orders", records(100))
    log.close()
    log.close()
    again = open_log()
    batches = drain(consume(again), 100)
    assert numbers(batches) == list(range(100))
    again.append("orders", records(1, start=100, keys=1))
    assert again is not log


def test_partitions_keep_their_names_over_a_restart(open_log: Opener, consume: Consume) -> None:
    def names() -> set[str]:
        log = open_log()
        found = {batch.partition for batch in drain(consume(log, uuid.uuid4().hex), 100)}
        log.close()
        return found

    log = open_log()
    log.create_topic("orders")
    log.append("orders", records(100))
    log.close()
    assert names() == names()


def test_a_closed_log_refuses(log: Log) -> None:
    log.close()
    with pytest.raises(LogUnavailable):
        log.append("orders", records(1))
    with pytest.raises(LogUnavailable):
        log.check()


def test_check_of_a_log_that_answers(log: Log) -> None:
    log.check()


def test_too_much_in_flight_is_refused_at_once(open_log: Opener, consume: Consume) -> None:
    log = open_log(max_inflight_bytes=200_000)
    log.create_topic("orders")
    started = time.monotonic()
    with pytest.raises(LogUnavailable):
        log.append("orders", [Record("key", bytes(150_000)), Record("key", bytes(150_000))])
    assert time.monotonic() - started < 0.5
    for n in range(20):
        log.append("orders", [Record("key", b"%100000d" % n)])
    assert numbers(drain(consume(log), 20)) == list(range(20))


def test_lag_is_what_was_not_polled(log: Log, consume: Consume) -> None:
    for start in range(0, 3000, 15):
        log.append("orders", records(15, keys=1, start=start))
    consumer = consume(log)
    first = drain(consumer, 1)
    oldest, end = consumer.span(first[0].partition)
    assert consumer.lag() == end - 1 - first[-1].last > 0
    drain(consumer, 3000 - len(flat(first)))
    assert consumer.lag() == 0
    consumer.seek(first[0].partition, oldest)
    assert consumer.lag() == end - oldest


def test_poll_waits_for_what_comes_and_no_longer(log: Log, consume: Consume) -> None:
    log.append("orders", records(1))
    consumer = consume(log)
    drain(consumer, 1)
    started = time.monotonic()
    assert consumer.poll(400) == []
    assert 0.35 < time.monotonic() - started < 2
    gevent.spawn_later(0.3, log.append, "orders", records(1, start=1))
    started = time.monotonic()
    assert numbers(consumer.poll(5000)) == [1]
    assert time.monotonic() - started < 2


def test_a_waiting_poll_lets_others_run(log: Log, consume: Consume) -> None:
    log.append("orders", records(1))
    consumer = consume(log)
    drain(consumer, 1)
    ticks = itertools.count()

    def tick() -> None:
        while True:
            next(ticks)
            gevent.sleep(0.01)

    ticking = gevent.spawn(tick)
    consumer.poll(500)
    ticking.kill()
    assert next(ticks) > 20


# --------------------------------------------------------------------------- the whole log


def test_spans_are_those_of_the_partitions(log: Log, consume: Consume) -> None:
    empty = log.spans()
    assert empty
    assert all(oldest == end for oldest, end in empty.values())
    log.append("orders", records(40))
    consumer = consume(log)
    drain(consumer, 40)
    assert dict(log.spans()) == {p: consumer.span(p) for p in consumer.assigned()}
    assert 0 < sum(end - oldest for oldest, end in log.spans().values()) <= 40


def test_committed_is_what_the_group_has_committed(log: Log, consume: Consume) -> None:
    log.append("orders", records(40))
    assert log.committed("nobody") == {}
    consumer = consume(log)
    positions = {batch.partition: batch.last for batch in drain(consumer, 40)}
    assert log.committed(GROUP) == {}
    consumer.commit(positions)
    eventually(lambda: log.committed(GROUP) == positions)
    assert log.committed("nobody") == {}


def test_replay_begins_at_a_time_and_ends_where_the_log_ended(log: Log, consume: Consume) -> None:
    log.create_topic("bills")
    log.append("orders", records(30))
    gevent.sleep(0.05)  # apart by more than the log's clock tells
    since = int(time.time() * 1000)
    gevent.sleep(0.05)
    log.append("orders", records(30, start=30))
    log.append("bills", records(30, start=60))
    assert numbers(list(log.replay(0))) == list(range(90))
    replay = log.replay(since)
    batches = [next(replay)]
    log.append("orders", records(30, start=90))
    batches += replay
    assert numbers(batches) == list(range(30, 90))
    assert {batch.partition for batch in batches} <= set(log.spans())
    assert list(log.replay(since + 3_600_000)) == []
    # it is of no group: nothing is committed, and who comes next reads everything
    assert numbers(drain(consume(log), 120)) == list(range(120))


def test_replay_keeps_the_order_of_a_key(log: Log) -> None:
    log.append("orders", records(5000))
    by_key: dict[str, list[int]] = {}
    for record in flat(list(log.replay(0))):
        by_key.setdefault(record.key, []).append(int(record.value))
    assert sum(map(len, by_key.values())) == 5000
    assert all(values == sorted(values) for values in by_key.values())


def test_the_whole_log_while_it_is_away(kafka_server: Server, open_kafka: Opener) -> None:
    log = open_kafka(append_timeout_ms=500)
    log.create_topic("orders")
    with kafka_server.outage():
        for question in (log.spans, lambda: log.committed(GROUP), lambda: list(log.replay(0))):
            with pytest.raises(LogUnavailable):
                question()
    assert len(log.spans()) == 4


# --------------------------------------------------------------------------- Kafka


def bring_back(log: Log, within_s: float = 45) -> None:
    """Appends until it works again."""
    deadline = time.monotonic() + within_s
    while True:
        try:
            return log.append("orders", [Record("key", b"0")])
        except LogUnavailable:
            assert time.monotonic() < deadline


def fails_in_time(log: Log, timeout_s: float) -> None:
    started = time.monotonic()
    with pytest.raises(LogUnavailable):
        log.append("orders", [Record("key", b"0")])
    assert time.monotonic() - started < timeout_s + 1


@pytest.mark.slow
@pytest.mark.timeout(180)
def test_kafka_outage(kafka_server: Server, open_kafka: Opener, consume: Consume) -> None:
    """Longer than the delivery timeout and than what has a producer replaced."""
    log = open_kafka(append_timeout_ms=1000)
    log.create_topic("orders")
    log.append("orders", records(10))
    consumer = consume(log)
    drain(consumer, 10)
    with kafka_server.outage():
        opened_meanwhile = open_kafka(append_timeout_ms=1000)
        for _ in range(6):
            fails_in_time(log, 1)
        fails_in_time(opened_meanwhile, 1)
        with pytest.raises(LogUnavailable):
            log.check()
        with pytest.raises(LogUnavailable):
            log.consumer("another")
        assert consumer.poll(200) == []
    bring_back(log)
    bring_back(opened_meanwhile)
    log.check()
    log.append("orders", records(10, start=1000))
    eventually(lambda: 1000 in numbers(consumer.poll(500)))


@pytest.mark.slow
@pytest.mark.timeout(180)
def test_kafka_outage_in_bounded_memory(kafka_server: Server, open_kafka: Opener) -> None:
    """Over its limit it refuses at once; when the driver lets go, there is room again."""
    log = open_kafka(append_timeout_ms=2000, max_inflight_bytes=4 << 20)
    log.create_topic("orders")
    log.append("orders", records(10))
    refused: list[float] = []

    def flood() -> None:
        """Callers that do not even wait for the answer."""
        while True:
            started = time.monotonic()
            try:
                with suppress(gevent.Timeout), gevent.Timeout(0.1):
                    log.append("orders", [Record("key", os.urandom(100)) for _ in range(100)])
            except LogUnavailable:
                refused.append(time.monotonic() - started)
            gevent.sleep(0.02)

    process = psutil.Process()
    with kafka_server.outage():
        before = process.memory_info().rss
        greenlets = [gevent.spawn(flood) for _ in range(50)]
        gevent.joinall(greenlets, timeout=5)
        gevent.killall(greenlets)
        assert process.memory_info().rss - before < 40 << 20
    assert len(refused) > 1000
    assert sorted(refused)[len(refused) // 2] < 0.1
    bring_back(log)


def _stands_still(pid: int) -> bool:
    """All its threads: SIGSTOP takes a moment to reach each of them."""
    tasks = Path(f"/proc/{pid}/task").iterdir()
    return all((t / "stat").read_text().rpartition(") ")[2][0] == "T" for t in tasks)


@pytest.mark.slow
@pytest.mark.timeout(120)
def test_kafka_that_hangs(kafka_server: Server, open_kafka: Opener) -> None:
    """Connections stay up, nothing answers."""
    log = open_kafka(append_timeout_ms=1000)
    log.create_topic("orders")
    log.append("orders", records(1))
    pid = kafka_server.pid
    assert pid is not None
    os.kill(pid, signal.SIGSTOP)
    try:
        eventually(lambda: _stands_still(pid))
        fails_in_time(log, 1)
        with pytest.raises(LogUnavailable):
            log.check()
    finally:
        os.kill(pid, signal.SIGCONT)
    bring_back(log)


def test_kafka_producer_that_died_is_replaced(open_kafka: Opener) -> None:
    log: Any = open_kafka(append_timeout_ms=300)
    log.create_topic("orders")
    log.append("orders", records(1))
    log._producer._producer.close()
    fails_in_time(log, 0.3)
    bring_back(log, within_s=10)


def test_kafka_dead_letters_are_kept(open_kafka: Opener, consume: Consume) -> None:
    log: Any = open_kafka()
    log.append_dead_letter(records(10))
    log.append_dead_letter(records(10, start=10))
    reader = open_kafka(topic_prefix=log._dead_letter_topic, dead_letter_topic="x")
    assert numbers(drain(consume(reader), 20)) == list(range(20))


def test_kafka_refuses_a_name_that_collides(open_kafka: Opener) -> None:
    """a.b and a_b have the same metrics in Kafka: it takes one of them only, for good."""
    log = open_kafka()
    log.create_topic("a.b")
    with pytest.raises(InvalidParams, match="topic_name"):
        log.create_topic("a_b")


def test_kafka_dead_letters_must_not_look_like_a_topic(open_kafka: Opener) -> None:
    with pytest.raises(ValueError, match="dead_letter_topic"):
        open_kafka(topic_prefix="a.", dead_letter_topic="a.dead")


def test_kafka_record_beyond_its_limit(open_kafka: Opener) -> None:
    log = open_kafka()
    log.create_topic("orders")
    with pytest.raises(BodyTooLarge):
        log.append("orders", [Record("key", os.urandom(2 << 20))])
    log.append("orders", records(1))


def test_kafka_members_share_the_partitions(open_kafka: Opener, consume: Consume) -> None:
    log = open_kafka()
    log.create_topic("orders")
    first, second = consume(log), consume(log)
    came: dict[Consumer, set[int]] = {first: set(), second: set()}
    partitions: dict[Consumer, set[str]] = {first: set(), second: set()}
    start = itertools.count(0, 100)

    def poll() -> None:
        for consumer in (first, second):
            for batch in consumer.poll(100):
                came[consumer].update(numbers([batch]))
                partitions[consumer].add(batch.partition)

    def both_read() -> bool:
        log.append("orders", records(100, keys=50, start=next(start)))
        poll()
        return all(came.values())

    def all_came() -> bool:
        poll()
        return came[first] | came[second] == sent

    eventually(both_read)
    sent = set(range(next(start)))
    eventually(all_came)
    for seen in partitions.values():
        seen.clear()
    first.poll(0)
    log.append("orders", records(100, keys=50, start=max(sent) + 1))
    sent |= set(range(len(sent), len(sent) + 100))
    eventually(all_came)
    assert partitions[first].isdisjoint(partitions[second])
    assert len(partitions[first] | partitions[second]) == 4


def test_kafka_what_is_appended_at_one_moment_goes_together(
    open_kafka: Opener, consume: Consume
) -> None:
    log = open_kafka()
    log.create_topic("orders")
    log.append("orders", records(1))  # it is connected from now on
    waiting = [gevent.spawn(log.append, "orders", records(1, start=n)) for n in range(1, 1000)]
    gevent.joinall(waiting, raise_error=True)
    assert numbers(drain(consume(log), 1000)) == list(range(1000))
    # some 20 on a quiet machine; alone they would be 1,000
    assert sum(end for _, end in log.spans().values()) < 150


def test_kafka_records_of_others_are_handed_on(open_kafka: Opener, consume: Consume) -> None:
    """Such as are none of ours, and that begin as a bundle does."""
    log: Any = open_kafka()
    log.create_topic("orders")
    strange = [b"", b"\x02", b"\x02\xff\xff\xff\xff", b"\x02" + bytes(5), b"{}"]
    for value in strange:
        log.append("orders", [Record("key", value)])
    assert [r.value for r in flat(drain(consume(log), len(strange)))] == strange


@pytest.mark.slow
def test_kafka_a_join_may_take_longer_than_a_poll(open_kafka: Opener, consume: Consume) -> None:
    """It is begun by a topic that is new: the group itself asks for none."""
    from soraka.adapters.kafka_consumer import JOIN_MS

    log = open_kafka()
    log.create_topic("orders")
    log.append("orders", records(1))
    consumer: Any = consume(log)
    drain(consumer, 1)
    coordinator = consumer._consumer._coordinator
    join, begun = coordinator._do_join_and_sync_async, []

    async def slow_join() -> Any:
        begun.append(time.monotonic())
        assignment = await join()
        await coordinator._net.sleep(JOIN_MS / 1000 + 0.5)
        return assignment

    coordinator._do_join_and_sync_async = slow_join
    log.create_topic("returns")
    log.append("returns", records(1))
    drain(consumer, 1, within_s=15)
    assert len(begun) == 1


MEMBER = """
from gevent import monkey; monkey.patch_all()
import sys
from soraka.adapters.kafka_log import KafkaLog
log = KafkaLog(bootstrap=sys.argv[1], topic_prefix=sys.argv[2], dead_letter_topic="dead",
               partitions=4, replication=1, append_timeout_ms=5000, max_inflight_bytes=1 << 20)
consumer = log.consumer(sys.argv[3])
while True:
    for batch in consumer.poll(500):
        print(batch.partition, flush=True)
"""


@pytest.mark.slow
def test_kafka_partitions_of_a_killed_member_move(
    kafka_server: Server, open_kafka: Opener, consume: Consume
) -> None:
    log: Any = open_kafka()
    log.create_topic("orders")
    arguments = [kafka_server.url, log._prefix, GROUP]
    member = subprocess.Popen(
        [sys.executable, "-c", MEMBER, *arguments], stdout=subprocess.PIPE, text=True
    )
    assert member.stdout is not None
    try:
        log.append("orders", records(100))
        assert member.stdout.readline()
    finally:
        member.kill()
        member.wait()
        member.stdout.close()
    killed = time.monotonic()
    # it had committed nothing, so all of it comes again
    assert numbers(drain(consume(log), 100, within_s=20)) == list(range(100))
    assert time.monotonic() - killed < 15


def test_kafka_epoch_grows_when_a_partition_is_given_anew(
    open_kafka: Opener, consume: Consume
) -> None:
    log = open_kafka()
    log.create_topic("orders")
    log.append("orders", records(100))
    staying = consume(log)
    before = {batch.partition: batch.epoch for batch in drain(staying, 100)}
    guest = consume(log)

    def guest_reads() -> bool:
        staying.poll(100)
        return bool(guest.poll(100))

    eventually(guest_reads)
    guest.close()
    after: dict[str, int] = {}

    def all_back() -> bool:
        after.update({batch.partition: batch.epoch for batch in staying.poll(200)})
        return any(after.get(name, 0) > epoch for name, epoch in before.items())

    eventually(all_back)
    assert all(epoch >= before[name] for name, epoch in after.items())


@pytest.mark.slow
def test_kafka_slower_than_a_poll_gives_a_new_topic_all_the_same(
    open_kafka: Opener, consume: Consume
) -> None:
    log = open_kafka()
    log.create_topic("first")
    consumer = consume(log)
    while not consumer.assigned():
        consumer.poll(100)
    cluster: Any = consumer._cluster
    refresh = cluster._do_refresh_metadata

    async def slowly(node_id: object) -> None:
        await cluster._manager._net.sleep(0.3)
        await refresh(node_id)

    cluster._do_refresh_metadata = slowly
    log.create_topic("second")
    deadline = time.monotonic() + 10
    while not any("second" in name for name in consumer.assigned()):
        assert time.monotonic() < deadline, "it was never assigned"
        consumer.poll(50)
        gevent.sleep(0.5)


def test_kafka_topic_made_anew_has_other_partitions(
    kafka_server: Server, open_kafka: Opener, consume: Consume
) -> None:
    from kafka.admin import KafkaAdminClient

    log: Any = open_kafka()
    log.create_topic("orders")
    log.append("orders", records(100))
    consumer = consume(log)
    old = {batch.partition for batch in drain(consumer, 100)}
    admin = KafkaAdminClient(bootstrap_servers=kafka_server.url)
    admin.delete_topics([f"{log._prefix}orders"])
    admin.create_topics({f"{log._prefix}orders": {"num_partitions": 4, "replication_factor": 1}})
    admin.close()
    writer = open_kafka()
    writer.append("orders", records(50, start=500))
    new: set[int] = set()

    def all_under_new_names() -> bool:
        for batch in consumer.poll(200):
            if batch.partition not in old:
                new.update(numbers([batch]))
        return new == set(range(500, 550))

    eventually(all_under_new_names)


# --------------------------------------------------------------------------- SQLite

APPENDER = """
from gevent import monkey; monkey.patch_all()
import sys, gevent
from pathlib import Path
from soraka.adapters.sqlite_log import SqliteLog
from soraka.ports import Record
log = SqliteLog(path=Path(sys.argv[1]), retention_ms=3_600_000, append_timeout_ms=5000,
                max_inflight_bytes=1 << 20)
log.create_topic("orders")
def one(start):
    for n in range(start, 10**9, 20):
        log.append("orders", [Record("key", b"%d" % n)])
        print(n, flush=True)
gevent.joinall([gevent.spawn(one, start) for start in range(20)])
"""


def test_sqlite_loses_nothing_acknowledged_on_kill_9(
    tmp_path: Path, open_sqlite: Opener, consume: Consume
) -> None:
    process = subprocess.Popen(
        [sys.executable, "-c", APPENDER, str(tmp_path / "log.db")],
        stdout=subprocess.PIPE,
        text=True,
    )
    assert process.stdout is not None
    acknowledged = {int(process.stdout.readline()) for _ in range(500)}
    process.kill()
    acknowledged |= {int(line) for line in process.stdout.read().split("\n")[:-1]}
    process.wait()
    process.stdout.close()
    came = numbers(settle(consume(open_sqlite())))
    assert acknowledged <= set(came)
    assert len(came) == len(set(came))


def kept(tmp_path: Path, table: str = "records") -> int:
    connection = sqlite3.connect(tmp_path / "log.db")
    count: int = connection.execute(f"SELECT count(*) FROM {table}").fetchone()[0]
    connection.close()
    return count


def test_sqlite_retention_spares_what_is_not_committed(
    tmp_path: Path, open_sqlite: Opener, consume: Consume
) -> None:
    log = open_sqlite(retention_ms=0)
    log.create_topic("orders")
    log.append("orders", records(3000))
    log.append_dead_letter(records(5))
    fast, slow = consume(log, "fast"), consume(log, "slow")
    read = drain(fast, 3000)
    gevent.sleep(0.002)  # older than 0 ms
    fast.commit({read[-1].partition: read[-1].last})
    assert kept(tmp_path) == 3000
    middle = flat(drain(slow, 3000))[1999].position
    slow.commit({read[-1].partition: middle})
    assert kept(tmp_path) == 1000
    assert kept(tmp_path, "dead_letters") == 0
    slow.seek(read[0].partition, 0)
    assert flat(drain(slow, 1000))[0].position == middle + 1
    log.close()
    assert consume(open_sqlite(retention_ms=0), "slow").poll(0)[0].records[0].position == middle + 1


def test_sqlite_retention_spares_what_is_young(
    tmp_path: Path, open_sqlite: Opener, consume: Consume
) -> None:
    log = open_sqlite(retention_ms=60_000)
    log.create_topic("orders")
    log.append("orders", records(10))
    consumer = consume(log)
    read = drain(consumer, 10)
    consumer.commit({read[-1].partition: read[-1].last})
    assert kept(tmp_path) == 10


def test_sqlite_positions_are_never_given_twice(
    tmp_path: Path, open_sqlite: Opener, consume: Consume
) -> None:
    log = open_sqlite(retention_ms=0)
    log.create_topic("orders")
    log.append("orders", records(10))
    consumer = consume(log)
    read = drain(consumer, 10)
    gevent.sleep(0.002)
    consumer.commit({read[-1].partition: read[-1].last})
    assert kept(tmp_path) == 0
    log.close()
    again = open_sqlite(retention_ms=0)
    again.append("orders", records(1))
    assert drain(consume(again), 1)[0].last == read[-1].last + 1


def test_sqlite_dead_letters_are_kept(tmp_path: Path, open_sqlite: Opener) -> None:
    log = open_sqlite()
    log.append_dead_letter(records(10))
    assert kept(tmp_path, "dead_letters") == 10


def test_sqlite_database_that_is_held_by_another(tmp_path: Path, open_sqlite: Opener) -> None:
    """Unknown, within the deadline; and the bytes it held are free again afterwards."""
    log: Any = open_sqlite(append_timeout_ms=500, max_inflight_bytes=20_000)
    log.create_topic("orders")
    other = sqlite3.connect(tmp_path / "log.db", isolation_level=None)
    other.execute("BEGIN IMMEDIATE")
    started = time.monotonic()
    with pytest.raises(LogUnavailable):
        log.append("orders", [Record("key", bytes(15_000))])
    with pytest.raises(LogUnavailable, match="in flight"):
        log.append("orders", [Record("key", bytes(15_000))])
    assert time.monotonic() - started < 1.5
    other.execute("ROLLBACK")
    other.close()

    def appended() -> bool:
        try:
            log.append("orders", [Record("key", bytes(15_000))])
        except LogUnavailable:
            return False
        return True

    eventually(appended, within_s=10)
