"""The Log on Kafka: one Kafka topic, with a prefix, for each topic of ours."""

from collections.abc import Iterator, Mapping, Sequence

import gevent
from kafka.admin import KafkaAdminClient
from kafka.errors import TopicAlreadyExistsError

from soraka.adapters.kafka_client import connection, opened, translated
from soraka.adapters.kafka_consumer import KafkaLogConsumer
from soraka.adapters.kafka_producer import DurableProducer
from soraka.adapters.kafka_reader import KafkaReader
from soraka.errors import LogUnavailable, TopicNotFound
from soraka.ports import Batch, Consumer, Record
from soraka.tls import Context

CHECK_S = 2.0
SEEN_EVERY_S = 0.05


class KafkaLog:
    """Connects at the first use. Must live in a process that gevent has patched.

    `bootstrap` is host:port, comma-separated; `secured` and `username`, if given, are for TLS and
    for SASL with SCRAM-SHA-512. `partitions` and `replication` hold for topics made from now on;
    changing the partitions of a topic by other means breaks the order of keys.
    """

    def __init__(
        self,
        *,
        bootstrap: str,
        topic_prefix: str,
        dead_letter_topic: str,
        partitions: int,
        replication: int,
        append_timeout_ms: int,
        max_inflight_bytes: int,
        secured: Context | None = None,
        username: str = "",
        password: str = "",
        metadata_max_age_ms: int = 1000,
        client_id: str = "soraka",
    ) -> None:
        if dead_letter_topic.startswith(topic_prefix):
            raise ValueError("dead_letter_topic starts with topic_prefix: it would be consumed")
        self._connection = connection(bootstrap, secured, username, password)
        self._prefix = topic_prefix
        self._dead_letter_topic = dead_letter_topic
        self._partitions = partitions
        self._replication = replication
        self._timeout_ms = append_timeout_ms
        self._metadata_max_age_ms = metadata_max_age_ms
        self._client_id = client_id
        self._producer = DurableProducer(
            connection=self._connection,
            timeout_ms=append_timeout_ms,
            max_inflight_bytes=max_inflight_bytes,
            client_id=client_id,
        )
        self._reader = KafkaReader(
            connection=self._connection,
            topic_prefix=topic_prefix,
            timeout_ms=append_timeout_ms,
            client_id=client_id,
        )

    def create_topic(self, topic: str) -> None:
        self._create(self._prefix + topic)

    def append(self, topic: str, records: Sequence[Record]) -> None:
        if records:
            self._producer.append(self._prefix + topic, records)

    def append_dead_letter(self, records: Sequence[Record]) -> None:
        if not records:
            return
        try:
            self._producer.append(self._dead_letter_topic, records, alone=True)
        except TopicNotFound:
            self._create(self._dead_letter_topic)
            self._producer.append(self._dead_letter_topic, records, alone=True)

    def consumer(self, group: str) -> Consumer:
        return KafkaLogConsumer(
            connection=self._connection,
            group=group,
            topic_prefix=self._prefix,
            metadata_max_age_ms=self._metadata_max_age_ms,
            timeout_ms=self._timeout_ms,
            client_id=self._client_id,
        )

    def spans(self) -> Mapping[str, tuple[int, int]]:
        return self._reader.spans()

    def committed(self, group: str) -> Mapping[str, int]:
        return self._reader.committed(group)

    def replay(self, since_ms: int) -> Iterator[Batch]:
        return self._reader.replay(since_ms)

    def check(self) -> None:
        self._producer.check(min(CHECK_S, self._timeout_ms / 1000))

    def close(self) -> None:
        self._producer.close()

    def _create(self, name: str) -> None:
        """Returns when the topic exists and our producer sees it."""
        if self._producer.has(name):
            return
        limit_s = 2 * self._timeout_ms / 1000
        with gevent.Timeout(limit_s, LogUnavailable(f"kafka: {name} was not created in time")):
            self._ask_for(name)
            while not self._producer.has(name):
                gevent.sleep(SEEN_EVERY_S)

    def _ask_for(self, name: str) -> None:
        settings = {
            "num_partitions": self._partitions,
            "replication_factor": self._replication,
            # An acknowledgement of the leader alone would not outlive it.
            # The broker's own time: a submitter's clock may be wrong, and `replay` goes by it.
            "configs": {
                "min.insync.replicas": str(max(1, self._replication - 1)),
                "message.timestamp.type": "LogAppendTime",
            },
        }
        with translated():
            admin, _ = opened(
                KafkaAdminClient,
                **self._connection,
                client_id=self._client_id,
                bootstrap_timeout_ms=self._timeout_ms,
                request_timeout_ms=self._timeout_ms,
            )
            try:
                admin.create_topics({name: settings})
            except TopicAlreadyExistsError:
                pass
            finally:
                admin.close()
