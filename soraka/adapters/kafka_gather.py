"""Group commit: what several callers append at one moment to one partition goes as one bundle."""

import time
from collections.abc import Callable, Iterable
from copy import copy

import gevent
from gevent.event import Event

from soraka.adapters.kafka_bundle import MAX_BYTES, MAX_RECORDS
from soraka.errors import LogUnavailable
from soraka.ports import Record

LINGER_S = 0.002
BUSY_LINGER_S = 0.005
BUSY = 8
"""Records in the bundle before, of the same topic. A request costs Kafka and us as much as a
hundred records in it: where many come, more are waited for."""
RECORD_OVERHEAD = 300
BUNDLE_OVERHEAD = 1500
"""Bytes held besides keys and values; those of a bundle mostly by the driver."""


def held_by(record: Record) -> int:
    """Bytes, until Kafka has answered."""
    return len(record.key) + len(record.value) + RECORD_OVERHEAD


class Bundle:
    """Records of one partition of a Kafka topic. `held` is how many bytes."""

    def __init__(self, topic: str, partition: int, limit_s: float) -> None:
        """Without an answer in that time it is taken for lost."""
        self.topic = topic
        self.partition = partition
        self.records: list[Record] = []
        self.held = BUNDLE_OVERHEAD
        self._bytes = 0
        self._until = time.monotonic() + limit_s
        self._timer = gevent.get_hub().loop.timer(limit_s)
        self._timer.start(self._end)
        self._error: BaseException | None = None
        self._is_durable = False
        self._ended = Event()

    def add(self, record: Record) -> bool:
        """False when there is no room for it; for the first there always is."""
        size = len(record.key) + len(record.value)
        whole = self._bytes + size
        if self.records and (whole > MAX_BYTES or len(self.records) >= MAX_RECORDS):
            return False
        self.records.append(record)
        self._bytes = whole
        self.held += size + RECORD_OVERHEAD
        return True

    def answer(self, answer: object) -> None:
        """What Kafka said of it: an exception, or something else when it is durable. What it
        says too late is not heard."""
        if self._ended.is_set():
            return
        if isinstance(answer, BaseException):
            self._error = answer
        else:
            self._is_durable = True
        self._end()

    def wait(self, until: float) -> None:
        """Returns when it is durable. Raises what Kafka said, and LogUnavailable at `until` (of
        `time.monotonic`)."""
        # that of the bundle is for all who are in it: a timeout of one's own costs 4 µs
        limit_s = max(0.0, until - time.monotonic()) if until < self._until else None
        self._ended.wait(limit_s)
        if self._error is not None:
            # the same would grow with each who waits, and be in a cycle with us
            raise copy(self._error)
        if not self._is_durable:
            raise LogUnavailable("kafka: no answer in time")

    def _end(self) -> None:
        self._timer.stop()
        self._timer.close()
        self._ended.set()


class Gather:
    """`send` gets each bundle once, on a greenlet of its own or of who filled it, and raises
    nothing of its own. `limit_s` is how long a bundle waits for its answer."""

    def __init__(self, send: Callable[[Bundle], None], limit_s: float) -> None:
        self._send = send
        self._limit_s = limit_s
        self._open: dict[tuple[str, int], Bundle] = {}
        self._busy: set[str] = set()

    def add(
        self, topic: str, records: Iterable[tuple[int, Record]], *, alone: bool = False
    ) -> tuple[list[Bundle], int]:
        """The bundles that have the `records`, each given with its partition, and how many of
        them are new. `alone`: each has a bundle of its own. Yields only when all are in one."""
        used: dict[Bundle, None] = {}
        ready: list[Bundle] = []
        begun = 0
        for partition, record in records:
            bundle = None if alone else self._open.get((topic, partition))
            if bundle is None or not bundle.add(record):
                if bundle is not None:
                    self._busy.add(topic)
                    ready.append(bundle)
                bundle = Bundle(topic, partition, self._limit_s)
                bundle.add(record)
                begun += 1
                if alone:
                    ready.append(bundle)
                else:
                    self._begin(bundle)
            used[bundle] = None
        for bundle in ready:
            self._send(bundle)
        return list(used), begun

    def flush(self) -> None:
        """Sends all that waits for more."""
        for bundle in list(self._open.values()):
            self._flush(bundle)

    def _begin(self, bundle: Bundle) -> None:
        self._open[bundle.topic, bundle.partition] = bundle
        linger_s = BUSY_LINGER_S if bundle.topic in self._busy else LINGER_S
        gevent.spawn_later(linger_s, self._flush, bundle)

    def _flush(self, bundle: Bundle) -> None:
        place = bundle.topic, bundle.partition
        if self._open.get(place) is not bundle:
            return
        del self._open[place]
        if len(bundle.records) >= BUSY:
            self._busy.add(bundle.topic)
        else:
            self._busy.discard(bundle.topic)
        self._send(bundle)
