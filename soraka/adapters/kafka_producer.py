"""Appends to Kafka under a deadline, with bounded memory, and past any outage.

kafka-python's producer buffers without bound and may send nothing any more after an error it
does not recover from. Here bytes count until Kafka answered for them, and a producer that has had
no acknowledgement for long is replaced.
"""

import logging
import time
from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any

import gevent
from gevent.event import Event
from kafka import KafkaProducer
from kafka.errors import KafkaError

from soraka.adapters.kafka_bundle import bundled
from soraka.adapters.kafka_client import LET_IN, opened, translated
from soraka.adapters.kafka_gather import BUNDLE_OVERHEAD, Bundle, Gather, held_by
from soraka.errors import LogUnavailable, TopicNotFound
from soraka.message import part_of
from soraka.ports import Record
from soraka.tls import Context

log = logging.getLogger(__name__)

BATCH_BYTES = 128 << 10


class DurableProducer:
    """Connects at the first use: made before a fork it is still safe.

    Idempotence is off, because one outage longer than the delivery timeout leaves an idempotent
    producer dead; duplicates are harmless to us. One request at a time keeps the order when one
    is repeated; while it is under way the next bundles gather.
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
            "linger_ms": 0,
            "delivery_timeout_ms": timeout_ms,
            "request_timeout_ms": timeout_ms,
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
        self._gather = Gather(self._send, self._timeout_s)

    def append(self, topic: str, records: Sequence[Record], *, alone: bool = False) -> None:
        """As `Log.append`, to the Kafka topic `topic`; `alone`: each a record of Kafka's of its
        own. BodyTooLarge: a record beyond 1 MB."""
        deadline = time.monotonic() + self._timeout_s
        reserved = self._reserve(records)
        try:
            with translated():
                partitions = self._partitions(topic, deadline)
                placed = [(part_of(record.key, partitions), record) for record in records]
                bundles, begun = self._gather.add(topic, placed, alone=alone)
                self._inflight_bytes += (begun - 1) * BUNDLE_OVERHEAD
                reserved = 0
                for bundle in bundles:
                    bundle.wait(deadline)
            self._failing_since = None
        except LogUnavailable as exc:
            self._replace_when_dead(exc)
            raise
        finally:
            self._inflight_bytes -= reserved

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
        self._gather.flush()
        self._closed = True
        if self._connecting is not None:
            self._connecting.join()
        producer, self._producer = self._producer, None
        if producer is not None:
            _close(producer, self._timeout_s)

    def _reserve(self, records: Sequence[Record]) -> int:
        """Bytes of the records and one bundle, until it is known what will hold them."""
        needed = sum(map(held_by, records)) + BUNDLE_OVERHEAD
        if self._inflight_bytes + needed > self._max_inflight_bytes:
            raise LogUnavailable(f"{self._inflight_bytes} bytes are in flight already")
        self._inflight_bytes += needed
        return needed

    def _send(self, bundle: Bundle) -> None:
        try:
            key, value = bundled(bundle.records)
            bundle.records.clear()  # the driver has a copy, for as long as it takes
            if self._producer is None:
                raise LogUnavailable("kafka: not connected")
            future = self._producer.send(bundle.topic, value, key, partition=bundle.partition)
        except (LogUnavailable, KafkaError, OSError) as exc:
            self._answered(bundle, exc)
        except BaseException as exc:  # the driver's own: a partition that is there no more
            self._answered(bundle, LogUnavailable(f"kafka: {exc!r}"))
            if not isinstance(exc, Exception):
                raise
        else:
            # also when its callers wait no longer: it still lies in the driver's buffer
            future.add_both(partial(self._answered, bundle))

    def _answered(self, bundle: Bundle, answer: object) -> None:
        self._inflight_bytes -= bundle.held
        bundle.answer(answer)

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


def _close(producer: Any, timeout_s: float) -> None:
    try:
        producer.close(timeout=timeout_s)
    except KafkaError:
        # It gives up when not all could be sent, and leaves its greenlet and sockets behind.
        producer._sender.force_close()
        producer._sender.join(1)
        producer.close(timeout=0)
