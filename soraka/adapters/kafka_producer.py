"""Appends to Kafka under a deadline, with bounded memory, and past any outage.

kafka-python's producer buffers without bound and may send nothing any more after an error it
does not recover from. Here bytes count until Kafka answered for them, and a producer that has had
no acknowledgement for long is replaced.
"""

import logging
import time
from collections.abc import Mapping, Sequence
from typing import Any

import gevent
from gevent.event import Event
from kafka import KafkaProducer
from kafka.errors import KafkaError

from soraka.adapters.kafka_client import LET_IN, opened, translated
from soraka.errors import LogUnavailable, TopicNotFound
from soraka.message import part_of
from soraka.ports import Record
from soraka.tls import Context

log = logging.getLogger(__name__)

BATCH_BYTES = 128 << 10
LINGER_MS = 2
"""A request costs Kafka and us as much as 20 records in it: under load it is worth the wait."""
YIELD_EVERY = 100
"""Sends between two yields to the hub: about 1.5 ms."""
RECORD_OVERHEAD = 1500
"""Bytes that the driver holds for a record in flight besides its key and value, measured."""


class DurableProducer:
    """Connects at the first use: made before a fork it is still safe.

    Idempotence is off, because one outage longer than the delivery timeout leaves an idempotent
    producer dead; duplicates are harmless to us. One request at a time keeps the order when one
    is repeated; while it is under way the next batch fills.
    """

    def __init__(
        self,
        *,
        connection: Mapping[str, Any],
        timeout_ms: int,
        max_inflight_bytes: int,
        client_id: str,
    ) -> None:
        self._settings = {
            **connection,
            "client_id": client_id,
            "acks": "all",
            "enable_idempotence": False,
            "max_in_flight_requests_per_connection": 1,
            "compression_type": "lz4",
            "batch_size": BATCH_BYTES,
            "linger_ms": LINGER_MS,
            "delivery_timeout_ms": timeout_ms,
            "request_timeout_ms": timeout_ms - LINGER_MS,
            "max_block_ms": timeout_ms,
            "bootstrap_timeout_ms": timeout_ms,
            "metrics_enabled": False,
        }
        self._timeout_s = timeout_ms / 1000
        self._dead_after_s = 3 * self._timeout_s
        self._max_inflight_bytes = max_inflight_bytes
        self._inflight_bytes = 0
        self._producer: Any = None
        self._network: Any = None
        self._connecting: gevent.Greenlet[..., None] | None = None
        self._refused = ""
        self._failing_since: float | None = None
        self._closed = False

    def append(self, topic: str, records: Sequence[Record]) -> None:
        """As `Log.append`, to the Kafka topic `topic`. BodyTooLarge: a record beyond 1 MB."""
        deadline = time.monotonic() + self._timeout_s
        size = sum(len(r.key) + len(r.value) + RECORD_OVERHEAD for r in records)
        self._reserve(size)
        futures: list[Any] = []
        try:
            with translated():
                self._send(topic, records, futures, deadline)
                _wait_all(futures, deadline)
            self._failing_since = None
        except LogUnavailable as exc:
            self._replace_when_dead(exc)
            raise
        finally:
            self._release_when_done(futures, size)

    def has(self, topic: str) -> bool:
        """Whether the topic exists; asks Kafka when it is not known. Raises LogUnavailable."""
        try:
            with translated():
                self._partitions(topic, time.monotonic() + self._timeout_s)
        except TopicNotFound:
            return False
        return True

    def check(self, timeout_s: float) -> None:
        """Raises LogUnavailable when Kafka does not answer within `timeout_s`."""
        deadline = time.monotonic() + timeout_s
        with translated():
            self._connected(deadline)
            self._refresh(deadline)

    def close(self) -> None:
        """Sends what is buffered, up to the deadline. Safe to repeat."""
        self._closed = True
        if self._connecting is not None:
            self._connecting.join()
        producer, self._producer = self._producer, None
        if producer is not None:
            _close(producer, self._timeout_s)

    def _reserve(self, size: int) -> None:
        if self._inflight_bytes + size > self._max_inflight_bytes:
            raise LogUnavailable(f"{self._inflight_bytes} bytes are in flight already")
        self._inflight_bytes += size

    def _release_when_done(self, futures: Sequence[Any], size: int) -> None:
        # A record that timed out for its caller still lies in the driver's buffer.
        waiting = [future for future in futures if not future.is_done]
        left = len(waiting)

        def done(_: object) -> None:
            nonlocal left
            left -= 1
            if left == 0:
                self._inflight_bytes -= size

        for future in waiting:
            future.add_both(done)
        if not waiting:
            self._inflight_bytes -= size

    def _send(
        self, topic: str, records: Sequence[Record], futures: list[Any], deadline: float
    ) -> None:
        partitions = self._partitions(topic, deadline)
        producer = self._connected(deadline)
        for count, (key, value) in enumerate(records, 1):
            futures.append(
                producer.send(topic, value, key.encode(), partition=part_of(key, partitions))
            )
            if count % YIELD_EVERY == 0:
                gevent.sleep(0)

    def _partitions(self, topic: str, deadline: float) -> int:
        self._connected(deadline)
        known = self._network.cluster.partitions_for_topic(topic)
        if known is None:
            self._refresh(deadline)
            known = self._network.cluster.partitions_for_topic(topic)
        if not known:
            raise TopicNotFound(topic)
        return len(known)

    def _refresh(self, deadline: float) -> None:
        future = self._network.cluster.request_update()
        answered = Event()
        future.add_both(lambda _: answered.set())
        self._network.wakeup()
        if not answered.wait(max(0.0, deadline - time.monotonic())):
            raise LogUnavailable("kafka: no answer in time")
        if future.exception is not None:
            raise future.exception

    def _connected(self, deadline: float) -> Any:
        if self._closed:
            raise LogUnavailable("closed")
        if self._producer is None:
            if self._connecting is None:
                self._connecting = gevent.spawn(self._connect)
            self._connecting.join(max(0.0, deadline - time.monotonic()))
        if self._producer is None:
            raise LogUnavailable(f"kafka: {self._why() or 'not connected'}")
        return self._producer

    def _connect(self) -> None:
        try:
            with translated():
                self._producer, self._network = opened(KafkaProducer, **self._settings)
        except LogUnavailable as exc:
            self._refused = str(exc)
            log.warning("kafka.unreachable", extra={"reason": self._refused})
        else:
            self._refused = ""
        finally:
            self._connecting = None

    def _why(self) -> str:
        """What is known of why there is no connection, also while one is being tried for still."""
        secured: Context | None = self._settings.get("ssl_context")
        refused = secured.refused if secured is not None else ""
        unsaid = LET_IN if "sasl_plain_username" in self._settings else ""
        return refused or self._refused.removeprefix("kafka: ") or unsaid

    def _replace_when_dead(self, reason: LogUnavailable) -> None:
        now = time.monotonic()
        self._failing_since = self._failing_since or now
        if self._producer is None or self._closed:
            return
        if now - self._failing_since < self._dead_after_s:
            return
        self._failing_since = None
        log.warning("kafka.producer_replaced", extra={"reason": str(reason)})
        producer, self._producer = self._producer, None
        gevent.spawn(_close, producer, 0.0)


def _wait_all(futures: Sequence[Any], deadline: float) -> None:
    for future in futures:
        if not future.is_done:
            future.get(max(0.0, deadline - time.monotonic()))
        elif future.exception is not None:
            raise future.exception


def _close(producer: Any, timeout_s: float) -> None:
    try:
        producer.close(timeout=timeout_s)
    except KafkaError:
        # It gives up when not all could be sent, and leaves its greenlet and sockets behind.
        producer._sender.force_close()
        producer._sender.join(1)
        producer.close(timeout=0)
