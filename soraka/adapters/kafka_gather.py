"""Group commit: what several callers append at one moment to one partition goes as one bundle."""

import time
from collections.abc import Callable, Iterable

import gevent
from gevent.event import Event

from soraka.adapters.kafka_bundle import MAX_BYTES, MAX_RECORDS
from soraka.errors import LogUnavailable
from soraka.ports import Record

LINGER_S = 0.002
BUSY_LINGER_S = 0.005
BUSY = 8
"""Records in one bundle. A request costs Kafka and us as much as a hundred records in it: where
many come, more are waited for."""


class Bundle:
    """Records of one partition of a Kafka topic. `size` is in bytes."""

    def __init__(
        self,
        topic: str,
        partition: int,
        until: float,
        records: Iterable[Record] = (),
        size: int = 0,
    ) -> None:
        """Without an answer at `until` (of `time.monotonic`) it is taken for lost."""
        self.topic = topic
        self.partition = partition
        self.records = list(records)
        self.size = size
        self._until = until
        self._timer = gevent.get_hub().loop.timer(max(0.0, until - time.monotonic()))
        self._timer.start(self.answer, LogUnavailable("kafka: no answer in time"))
        self.error: BaseException | None = None
        self._answered = Event()

    def takes(self, size: int) -> bool:
        """Whether there is room for one more of that size."""
        return len(self.records) < MAX_RECORDS and self.size + size <= MAX_BYTES

    def add(self, record: Record, size: int) -> None:
        self.records.append(record)
        self.size += size

    def answer(self, answer: object) -> None:
        """What Kafka said of it: an exception, or something else when it is durable. What it
        says too late is not heard."""
        if self._answered.is_set():
            return
        self._timer.stop()
        self._timer.close()
        self.error = answer if isinstance(answer, BaseException) else None
        self._answered.set()

    def wait(self, until: float) -> None:
        """For the answer; raises it when it is an exception, and LogUnavailable at `until`."""
        # that of the bundle is for all who are in it: a timeout of one's own costs 4 µs
        limit_s = max(0.0, until - time.monotonic()) if until < self._until else None
        if not self._answered.wait(limit_s):
            raise LogUnavailable("kafka: no answer in time")
        if self.error is not None:
            raise self.error


class Gather:
    """`send` gets each bundle once, on a greenlet of its own or of who filled it."""

    def __init__(self, send: Callable[[Bundle], None]) -> None:
        self._send = send
        self._open: dict[tuple[str, int], Bundle] = {}
        self._linger_s = LINGER_S

    def add(
        self, topic: str, records: Iterable[tuple[int, Record, int]], until: float
    ) -> list[Bundle]:
        """The bundles that have the `records`, each given with its partition and its size.
        Does not yield before all are in one."""
        used: dict[Bundle, None] = {}
        full: list[Bundle] = []
        for partition, record, size in records:
            bundle = self._open.get((topic, partition))
            if bundle is None or not bundle.takes(size):
                if bundle is not None:
                    full.append(bundle)
                bundle = self._open[topic, partition] = Bundle(topic, partition, until)
                gevent.spawn_later(self._linger_s, self._flush, bundle)
            bundle.add(record, size)
            used[bundle] = None
        for bundle in full:
            self._send(bundle)
        return list(used)

    def flush(self) -> None:
        """Sends all that waits for more."""
        for bundle in list(self._open.values()):
            self._flush(bundle)

    def _flush(self, bundle: Bundle) -> None:
        place = bundle.topic, bundle.partition
        if self._open.get(place) is bundle:
            del self._open[place]
            self._linger_s = BUSY_LINGER_S if len(bundle.records) >= BUSY else LINGER_S
            self._send(bundle)
