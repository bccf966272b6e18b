"""The composition root: configuration to adapters. Nothing else constructs one."""

import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import cast

from soraka.clock import StoreClock
from soraka.config import Config
from soraka.ports import FullStore, Log, Registry
from soraka.topics import Topics


class Parts:
    """The adapters of one process. Made after any fork; closed in the reverse order."""

    def __init__(self, config: Config) -> None:
        self.config = config
        self.registry = open_registry(config)
        self.log = open_log(config)
        self.store = open_store(config)
        self.clock = StoreClock(self.store)
        self.topics = Topics(self.log, self.registry, config.topics, self.clock.now_ms)

    def close(self) -> None:
        """Safe to repeat."""
        self.log.close()
        self.store.close()
        self.registry.close()


@contextmanager
def open_topics(config: Config) -> Iterator[Topics]:
    """The topics alone, without a store."""
    registry, log = open_registry(config), open_log(config)
    try:
        yield Topics(log, registry, config.topics, lambda: int(time.time() * 1000))
    finally:
        log.close()
        registry.close()


def open_log(config: Config) -> Log:
    c = config.log
    if c.adapter == "kafka":
        from soraka.adapters.kafka_log import KafkaLog

        return KafkaLog(
            bootstrap=c.bootstrap,
            topic_prefix=c.topic_prefix,
            dead_letter_topic=c.dead_letter_topic,
            partitions=c.partitions,
            replication=c.replication,
            append_timeout_ms=c.append_timeout_ms,
            max_inflight_bytes=c.max_inflight_bytes,
        )
    from soraka.adapters.sqlite_log import SqliteLog

    return SqliteLog(
        path=_made(c.path),
        retention_ms=c.retention_ms,
        append_timeout_ms=c.append_timeout_ms,
        max_inflight_bytes=c.max_inflight_bytes,
    )


def open_store(config: Config) -> FullStore:
    c = config.store
    if c.adapter == "redis":
        from soraka.adapters.redis_store import RedisStore

        store: object = RedisStore(
            url=c.url,
            shards=c.shards,
            retention_ms=c.retention_ms,
            dead_retention_ms=c.dead_retention_ms,
            lease_margin_ms=c.lease_margin_ms,
            early_ms=c.early_ms,
            timeout_ms=c.timeout_ms,
        )
    else:
        from soraka.adapters.sqlite_store import SqliteStore

        store = SqliteStore(
            path=_made(c.path),
            retention_ms=c.retention_ms,
            dead_retention_ms=c.dead_retention_ms,
            lease_margin_ms=c.lease_margin_ms,
            early_ms=c.early_ms,
            timeout_ms=c.timeout_ms,
        )
    return cast(FullStore, store)


def open_registry(config: Config) -> Registry:
    c = config.registry
    if c.adapter == "zookeeper":
        from soraka.adapters.zookeeper_registry import ZookeeperRegistry

        return ZookeeperRegistry(
            hosts=c.hosts, root=c.root, session_timeout_ms=c.session_timeout_ms
        )
    from soraka.adapters.local_registry import LocalRegistry

    return LocalRegistry(path=_made(c.path))


def _made(path: str) -> Path:
    """The path, in a folder that exists."""
    made = Path(path)
    made.parent.mkdir(parents=True, exist_ok=True)
    return made
