"""Questions about the whole log on Kafka, asked from outside any group.

Each opens a consumer of its own and closes it: they are asked when something was lost.
"""

import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, NamedTuple

import gevent
from kafka import KafkaConsumer, TopicPartition
from kafka.admin import KafkaAdminClient

from soraka.adapters.kafka_client import logged, opened, partition_name, translated
from soraka.errors import LogUnavailable
from soraka.ports import Batch

POLL_MS = 500
SILENT_S = 30.0
"""A replay that got nothing for so long, though there is more, gives up."""
SETTINGS = {
    "enable_auto_commit": False,
    "auto_offset_reset": "earliest",
    "max_poll_records": 100,
    "fetch_max_bytes": 8 << 20,
    "allow_auto_create_topics": False,
    "metrics_enabled": False,
}


class _Open(NamedTuple):
    consumer: Any
    names: Mapping[TopicPartition, str]


class KafkaReader:
    """Over all topics with the prefix."""

    def __init__(
        self,
        *,
        connection: Mapping[str, Any],
        topic_prefix: str,
        timeout_ms: int,
        client_id: str,
    ) -> None:
        self._prefix = topic_prefix
        self._timeout_ms = timeout_ms
        self._common = {**connection, "client_id": client_id}

    def spans(self) -> Mapping[str, tuple[int, int]]:
        with self._opened() as (consumer, names), self._limited():
            oldest, ends = self._ends(consumer, names)
        return {name: (oldest[tp], ends[tp]) for tp, name in names.items()}

    def committed(self, group: str) -> Mapping[str, int]:
        with self._opened() as (_, names), self._limited():
            offsets = self._offsets(group)
        return {
            names[tp]: done.offset - 1
            for tp, done in offsets.items()
            if tp in names and done.offset > 0
        }

    def replay(self, since_ms: int) -> Iterator[Batch]:
        with self._opened() as (consumer, names):
            with self._limited():
                _, ends = self._ends(consumer, names)
                starts = consumer.offsets_for_times(dict.fromkeys(names, since_ms))
            begin = {tp: at.offset for tp, at in starts.items() if at and at.offset < ends[tp]}
            consumer.assign(list(begin))
            for tp, position in begin.items():
                consumer.seek(tp, position)
            yield from _read(consumer, names, {tp: ends[tp] for tp in begin})

    def _ends(self, consumer: Any, names: Mapping[TopicPartition, str]) -> tuple[Any, Any]:
        """Oldest and next offset, by partition."""
        every = list(names)
        return (
            consumer.beginning_offsets(every, timeout_ms=self._timeout_ms),
            consumer.end_offsets(every, timeout_ms=self._timeout_ms),
        )

    def _offsets(self, group: str) -> Mapping[TopicPartition, Any]:
        admin, _ = opened(
            KafkaAdminClient,
            bootstrap_timeout_ms=self._timeout_ms,
            request_timeout_ms=self._timeout_ms,
            **self._common,
        )
        try:
            found: Mapping[str, Mapping[TopicPartition, Any]] = admin.list_group_offsets([group])
        finally:
            admin.close()
        return found.get(group, {})

    @contextmanager
    def _opened(self) -> Iterator[_Open]:
        """A consumer without a group, and the partitions there are now."""
        with translated():
            consumer, network = opened(
                KafkaConsumer,
                group_id=None,
                bootstrap_timeout_ms=self._timeout_ms,
                **self._common,
                **SETTINGS,
            )
            try:
                with self._limited():
                    topics = [t for t in consumer.topics() if t.startswith(self._prefix)]
                    names = _names(consumer, network.cluster, topics)
                yield _Open(consumer, names)
            finally:
                consumer.close(autocommit=False)

    def _limited(self) -> gevent.Timeout:
        limit_s = 3 * self._timeout_ms / 1000
        return gevent.Timeout(limit_s, LogUnavailable("kafka: no answer about the whole log"))


def _names(consumer: Any, cluster: Any, topics: Sequence[str]) -> dict[TopicPartition, str]:
    found = {}
    for topic in topics:
        for number in consumer.partitions_for_topic(topic):
            tp = TopicPartition(topic, number)
            found[tp] = partition_name(tp, cluster.topic_id(topic))
    return found


def _read(
    consumer: Any, names: Mapping[TopicPartition, str], ends: dict[TopicPartition, int]
) -> Iterator[Batch]:
    heard_at = time.monotonic()
    while ends:
        fetched = consumer.poll(timeout_ms=POLL_MS)
        for tp, records in fetched.items():
            wanted = [record for record in records if record.offset < ends[tp]]
            if wanted:
                yield Batch(names[tp], 1, logged(wanted))
        if fetched:
            heard_at = time.monotonic()
        elif time.monotonic() - heard_at > SILENT_S:
            raise LogUnavailable(f"kafka: nothing came for {SILENT_S:.0f} s")
        done = [tp for tp, end in ends.items() if consumer.position(tp) >= end]
        for tp in done:
            del ends[tp]
        if done:
            consumer.pause(*done)
