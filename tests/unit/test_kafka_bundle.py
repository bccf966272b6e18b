"""Several of our records in one of Kafka's, and which go together."""

import time
from itertools import pairwise

import gevent
import pytest
from hypothesis import given
from hypothesis import strategies as st

from center.consume import AT_ONCE, _parts
from soraka.adapters.kafka_bundle import HEAD, MAX_BYTES, MAX_RECORDS, bundled, unbundled
from soraka.adapters.kafka_gather import Bundle, Gather
from soraka.errors import LogUnavailable
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
    whole = {1 + sum(8 + len(r.key.encode()) + len(r.value) for r in given_[:n]) for n in range(20)}
    end = data.draw(st.integers(1, len(value) - 1).filter(lambda n: n == 1 or n not in whole))
    assert unbundled(7, key, value[:end]) == [Logged(7, given_[0].key, value[:end])]


@given(st.binary())
def test_anything_is_at_least_one_record(value: bytes) -> None:
    assert unbundled(7, b"\xff", HEAD + value)


class Sent:
    def __init__(self) -> None:
        self.bundles: list[Bundle] = []
        self.gather = Gather(self.bundles.append)

    def add(self, *sizes: int, partition: int = 0) -> list[Bundle]:
        given_ = [(partition, Record(f"{n}", b""), size) for n, size in enumerate(sizes)]
        return self.gather.add("t", given_, time.monotonic() + 5)


def test_what_comes_at_one_moment_goes_together() -> None:
    sent = Sent()
    (one,), (other,), (third,) = sent.add(10), sent.add(10), sent.add(10, partition=1)
    assert one is other
    assert one is not third
    assert sent.bundles == []
    gevent.sleep(0.02)
    assert sent.bundles == [one, third]
    assert (one.size, len(one.records)) == (20, 2)
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


def test_an_answer_wakes_all_who_wait() -> None:
    until = time.monotonic() + 5
    bundle, other = Bundle("t", 0, until), Bundle("t", 0, until)
    waiting = [gevent.spawn(each.wait, until) for each in (bundle, bundle, other)]
    gevent.sleep(0)
    bundle.answer(OSError("said"))
    other.answer("durable")
    gevent.joinall(waiting, timeout=1)
    assert [str(greenlet.exception) for greenlet in waiting] == ["said", "said", "None"]


@pytest.mark.parametrize(("bundle_s", "own_s"), [(0.1, 0.1), (0.1, 5), (5, 0.1)])
def test_nobody_waits_longer_than_it_may(bundle_s: float, own_s: float) -> None:
    started = time.monotonic()
    bundle = Bundle("t", 0, started + bundle_s)
    with pytest.raises(LogUnavailable, match="no answer in time"):
        bundle.wait(started + own_s)
    assert 0.09 < time.monotonic() - started < 1
    bundle.answer("late")


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
