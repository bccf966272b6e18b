"""The composition root: configuration to adapters. Nothing else constructs one."""

import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing, contextmanager
from pathlib import Path
from typing import cast

from soraka import tls
from soraka.clock import StoreClock
from soraka.config import Config
from soraka.errors import ConfigError, Unavailable
from soraka.ports import FullStore, Log, Registry
from soraka.process import CLOCK_EVERY_S
from soraka.timed import Observe, TimedStore
from soraka.topics import Topics


class Parts:
    """The adapters of one process. Made after any fork.

    Raises ConfigError for a setting that cannot be right, RegistryUnavailable while ZooKeeper is
    away; Kafka and Redis are connected to at the first use. `store_timer`: see TimedStore.
    `role_tls` is for the Thrift server of a role, `peers_tls` for its calls of others.
    """

    def __init__(self, config: Config, store_timer: Callable[[str], Observe] | None = None) -> None:
        self.config = config
        self.role_tls, self.peers_tls = tls.between_roles(config.tls)
        with ExitStack() as opened:
            self.log = open_log(config)
            opened.callback(self.log.close)
            self.store = open_store(config)
            opened.callback(self.store.close)
            if store_timer is not None:
                self.store = cast(FullStore, TimedStore(self.store, store_timer))
            self.registry = open_registry(config)  # last: it alone may wait for its server
            opened.pop_all()
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
    log = open_log(config)
    with closing(log), closing(open_registry(config)) as registry:
        yield Topics(log, registry, config.topics, lambda: int(time.time() * 1000))


def open_log(config: Config) -> Log:
    c = config.log
    if c.adapter == "kafka":
        from soraka.adapters.kafka_log import KafkaLog

        with _refusing(f"log.bootstrap = {c.bootstrap!r}"):
            return KafkaLog(
                bootstrap=c.bootstrap,
                secured=tls.client(config.tls, "log.tls") if c.tls else None,
                username=c.username,
                password=c.password,
                topic_prefix=c.topic_prefix,
                dead_letter_topic=c.dead_letter_topic,
                partitions=c.partitions,
                replication=c.replication,
                append_timeout_ms=c.append_timeout_ms,
                max_inflight_bytes=c.max_inflight_bytes,
            )
    from soraka.adapters.sqlite_log import SqliteLog

    with _local("log.path", c.path) as path:
        return SqliteLog(
            path=path,
            retention_ms=c.retention_ms,
            append_timeout_ms=c.append_timeout_ms,
            max_inflight_bytes=c.max_inflight_bytes,
        )


def open_store(config: Config) -> FullStore:
    c = config.store
    if c.adapter == "redis":
        from soraka.adapters.redis_store import RedisStore

        with _refusing("store.url"):
            store: object = RedisStore(
                url=c.url,
                secured=_redis_tls(config),
                mode=c.redis_mode,
                sentinel_master=c.sentinel_master,
                sentinel_user=c.sentinel_user,
                sentinel_password=c.sentinel_password,
                shards=c.shards,
                retention_ms=c.retention_ms,
                dead_retention_ms=c.dead_retention_ms,
                lease_margin_ms=c.lease_margin_ms,
                early_ms=c.early_ms,
                timeout_ms=c.timeout_ms,
            )
    else:
        from soraka.adapters.sqlite_store import SqliteStore

        with _local("store.path", c.path) as path:
            store = SqliteStore(
                path=path,
                retention_ms=c.retention_ms,
                dead_retention_ms=c.dead_retention_ms,
                lease_margin_ms=c.lease_margin_ms,
                early_ms=c.early_ms,
                timeout_ms=c.timeout_ms,
            )
    return cast(FullStore, store)


def masters_apart_s(config: Config) -> float:
    """For how long processes may go to two masters that both take writes, counted from the first
    that goes to the new one: in a planned fail-over of a Sentinel group.

    A process asks where the master is when it uses the store, if only for its clock, and a call to
    the old one may then be under way.
    """
    if config.store.adapter != "redis" or config.store.redis_mode != "sentinel":
        return 0
    from soraka.adapters.redis_sentinel import FRESH_S

    return FRESH_S + CLOCK_EVERY_S + config.store.timeout_ms / 1000


def open_registry(config: Config) -> Registry:
    c = config.registry
    if c.adapter == "zookeeper":
        from soraka.adapters.zookeeper_registry import ZookeeperRegistry

        with _refusing(f"registry.hosts = {c.hosts!r}"):
            return ZookeeperRegistry(
                hosts=c.hosts,
                root=c.root,
                secured=tls.client(config.tls, "registry.tls") if c.tls else None,
                username=c.username,
                password=c.password,
                session_timeout_ms=c.session_timeout_ms,
            )
    from soraka.adapters.local_registry import LocalRegistry

    with _local("registry.path", c.path) as path:
        return LocalRegistry(path=path)


def _redis_tls(config: Config) -> tls.Context | None:
    if not config.store.url.startswith("rediss://"):
        return None
    return tls.client(config.tls, "store.url")


@contextmanager
def _refusing(setting: str) -> Iterator[None]:
    """What a driver finds wrong with an address is a wrong setting. The URL of the store is not
    repeated: it may hold a password."""
    try:
        yield
    except ValueError as exc:
        raise ConfigError(f"{setting}: {exc}") from exc


@contextmanager
def _local(setting: str, path: str) -> Iterator[Path]:
    """The path, in a folder that exists. No waiting helps a file that cannot be used."""
    made = Path(path)
    try:
        made.parent.mkdir(parents=True, exist_ok=True)
        yield made
    except Unavailable as exc:
        raise ConfigError(f"{setting} = {exc}") from exc
    except OSError as exc:
        raise ConfigError(f"{setting} = {path}: {exc.strerror}") from exc
