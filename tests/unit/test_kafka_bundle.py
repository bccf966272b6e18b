"""Several of our records in one of Kafka's, and which go together."""

import time
from itertools import pairwise
from typing import Any

import gevent
import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st
from kafka.errors import KafkaTimeoutError, MessageSizeTooLargeError
from kafka.future import Future

from center.consume import AT_ONCE, _parts
from soraka.adapters.kafka_bundle import HEAD, MAX_BYTES, MAX_RECORDS, bundled, unbundled
from soraka.adapters.kafka_gather import (
    BUNDLE_OVERHEAD,
    BUSY,
    BUSY_LINGER_S,
    LINGER_S,
    Bundle,
    Gather,
    held_by,
)
from soraka.adapters.kafka_producer import DurableProducer
from soraka.errors import BodyTooLarge, LogUnavailable, TopicNotFound
from soraka.ports import Logged, Record
from soraka.wire import VERSION

records = st.lists(st.builds(Record, st.text(), st.binary()), min_size=2, max_size=20)


def test_a_record_alone_stays_as_it_is() -> None:
    assert bundled([Record("k", b"\x01v")]) == (b"k", b"\x01v")
    assert unbundled(7, b"k", b"\x01v") == [Logged(7, "k", b"\x01v")]
    assert HEAD != VERSION


@given(records)
def test_a_bundle_gives_back_what_was_put_in(given_: list[Record]) -> None:
    assert unbundled(7, *bundled(given_)) == [Logged(7, r.key, r.value) for r in given_]


@given(records, st.data())
def test_a_bundle_that_was_cut_is_one_record(given_: list[Record], data: st.DataObject) -> None:
    key, value = bundled(given_)
    end = data.draw(st.integers(1, len(value) - 1))
    assert unbundled(7, key, value[:end]) == [Logged(7, given_[0].key, value[:end])]


@given(st.binary())
def test_anything_is_at_least_one_record(value: bytes) -> None:
    assert unbundled(7, b"\xff", HEAD + value)


def test_a_record_of_others_is_no_bundle_of_thousands() -> None:
    bomb = HEAD + msgspec.msgpack.encode([("", b"")] * (MAX_RECORDS + 1))
    assert unbundled(7, b"k", bomb) == [Logged(7, "k", bomb)]


class Sent:
    def __init__(self) -> None:
        self.bundles: list[Bundle] = []
        self.gather = Gather(self.bundles.append, 5)

    def add(self, *sizes: int, partition: int = 0, alone: bool = False) -> list[Bundle]:
        """Each record of so many bytes."""
        placed = [(partition, Record("", bytes(size))) for size in sizes]
        before = {id(bundle): bundle.held for bundle in self.gather._open.values()}
        used, begun = self.gather.add("t", placed, alone=alone)
        held = sum(bundle.held - before.get(id(bundle), 0) for bundle in used)
        assert held == sum(held_by(record) for _, record in placed) + begun * BUNDLE_OVERHEAD
        return used


def test_what_comes_at_one_moment_goes_together() -> None:
    sent = Sent()
    (one,), (other,), (third,) = sent.add(10), sent.add(10), sent.add(10, partition=1)
    assert one is other
    assert one is not third
    assert sent.bundles == []
    gevent.sleep(0.02)
    assert sent.bundles == [one, third]
    assert one.records == [Record("", bytes(10))] * 2
    (later,) = sent.add(10)
    assert later is not one


@pytest.mark.parametrize(
    ("sizes", "lengths"),
    [
        ([1] * (2 * MAX_RECORDS + 1), [MAX_RECORDS, MAX_RECORDS, 1]),
        ([MAX_BYTES // 2] * 3, [2, 1]),
        ([10, MAX_BYTES + 1, 10, 10], [1, 1, 2]),
    ],
)
def test_a_full_bundle_goes_at_once(sizes: list[int], lengths: list[int]) -> None:
    sent = Sent()
    used = sent.add(*sizes)
    assert [len(bundle.records) for bundle in used] == lengths
    assert sent.bundles == used[:-1]
    sent.gather.flush()
    assert sent.bundles == used
    gevent.sleep(0.02)
    assert sent.bundles == used


def test_what_is_to_be_alone_joins_nobody() -> None:
    sent = Sent()
    (waiting,) = sent.add(10)
    alone = sent.add(10, 10, alone=True)
    assert [len(bundle.records) for bundle in alone] == [1, 1]
    assert sent.bundles == alone
    assert waiting not in alone


def test_where_many_come_more_are_waited_for() -> None:
    sent = Sent()
    sent.add(*[1] * BUSY)
    gevent.sleep(0.02)
    sent.add(1)
    gevent.sleep((LINGER_S + BUSY_LINGER_S) / 2)
    assert len(sent.bundles) == 1
    gevent.sleep(0.02)
    sent.add(1)
    gevent.sleep((LINGER_S + BUSY_LINGER_S) / 2)
    assert len(sent.bundles) == 3


def test_an_answer_wakes_all_who_wait() -> None:
    until = time.monotonic() + 5
    bundle, other = Bundle("t", 0, 5), Bundle("t", 0, 5)
    waiting = [gevent.spawn(each.wait, until) for each in (bundle, bundle, other)]
    gevent.sleep(0)
    bundle.answer(OSError("said"))
    other.answer("durable")
    gevent.joinall(waiting, timeout=1)
    assert [str(greenlet.exception) for greenlet in waiting] == ["said", "said", "None"]


@pytest.mark.parametrize(("bundle_s", "own_s"), [(0.1, 0.1), (0.1, 5), (5, 0.1)])
def test_nobody_waits_longer_than_it_may(bundle_s: float, own_s: float) -> None:
    started = time.monotonic()
    bundle = Bundle("t", 0, bundle_s)
    with pytest.raises(LogUnavailable, match="no answer in time"):
        bundle.wait(started + own_s)
    assert 0.09 < time.monotonic() - started < 1
    bundle.answer("late")


class Driver:
    """As kafka-python's producer and its network, with one topic of one partition."""

    cluster = property(lambda self: self)

    def __init__(self) -> None:
        self.fails: BaseException | None = None
        self.sent: list[Future] = []

    def partitions_for_topic(self, topic: str) -> set[int] | None:
        return {0} if topic == "t" else set()

    def send(self, *_: object, **__: object) -> Future:
        if self.fails is not None:
            raise self.fails
        self.sent.append(Future())
        return self.sent[-1]

    def close(self, timeout: float) -> None:
        for future in self.sent:
            if not future.is_done:
                future.failure(KafkaTimeoutError())


@pytest.fixture
def producer() -> Any:
    made: Any = DurableProducer(
        connection={}, timeout_ms=100, max_inflight_bytes=400_000, client_id="c"
    )
    made._producer = made._network = Driver()
    return made


@pytest.mark.parametrize(
    ("fails", "told"),
    [
        (ValueError("Unrecognized partition 0"), LogUnavailable),
        (KafkaTimeoutError("full"), LogUnavailable),
        (MessageSizeTooLargeError("2 MB"), BodyTooLarge),
    ],
)
@pytest.mark.parametrize("count", [1, 2 * MAX_RECORDS + 1])
def test_what_the_driver_refuses_is_told_at_once_and_held_no_more(
    producer: Any, fails: Exception, told: type[Exception], count: int
) -> None:
    producer._producer.fails = fails
    started = time.monotonic()
    with pytest.raises(told):
        producer.append("t", [Record("k", b"v")] * count)
    assert time.monotonic() - started < 0.09
    gevent.sleep(0.02)
    assert producer._inflight_bytes == 0


def test_bytes_are_held_until_the_driver_lets_go(producer: Any) -> None:
    with pytest.raises(LogUnavailable, match="no answer in time"):
        producer.append("t", [Record("k", bytes(1000))])
    assert producer._inflight_bytes == held_by(Record("k", bytes(1000))) + BUNDLE_OVERHEAD
    producer._producer.sent[0].success("late")
    assert producer._inflight_bytes == 0


def test_who_waits_for_the_connection_holds_bytes_too(producer: Any) -> None:
    producer._producer, producer._connecting = None, gevent.spawn(gevent.sleep, 0.05)
    waiting = [gevent.spawn(producer.append, "t", [Record("k", bytes(50_000))]) for _ in range(20)]
    gevent.sleep(0.02)
    assert sum(greenlet.ready() for greenlet in waiting) == 13
    assert 350_000 < producer._inflight_bytes < 400_000
    gevent.joinall(waiting, timeout=1)
    assert producer._inflight_bytes == 0


def test_of_a_topic_that_is_not_there_nothing_is_held(producer: Any) -> None:
    with pytest.raises(TopicNotFound):
        producer.append("other", [Record("k", b"v")])
    assert producer._inflight_bytes == 0


def test_to_close_answers_all_who_wait(producer: Any) -> None:
    """What waits for more to come is sent first."""
    driver = producer._producer
    waiting = gevent.spawn(producer.append, "t", [Record("k", b"v")])
    gevent.sleep(0)
    producer.close()
    assert len(driver.sent) == 1
    waiting.join(0.05)
    assert isinstance(waiting.exception, LogUnavailable)
    assert producer._inflight_bytes == 0


@given(st.lists(st.integers(0, 3), max_size=20), st.integers(0, AT_ONCE))
def test_center_takes_records_of_one_position_at_once(steps: list[int], many: int) -> None:
    positions = [0] * many
    for step in steps * 40:
        positions.append((positions[-1] if positions else 0) + step // 3)
    given_ = [Logged(position, "", b"") for position in positions]
    parts = list(_parts(given_))
    assert [record for part in parts for record in part] == given_
    assert all(len(part) >= AT_ONCE for part in parts[:-1])
    ends = [(part[0].position, part[-1].position) for part in parts]
    assert all(end < start for (_, end), (start, _) in pairwise(ends))
