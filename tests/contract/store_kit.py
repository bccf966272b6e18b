"""What the tests of the store share: a clock to turn, messages, and the stores themselves."""

import contextlib
import itertools
import time
import uuid
from binascii import crc32
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import redis

from soraka import tls
from soraka.adapters.redis_ids import short
from soraka.adapters.redis_store import RedisStore
from soraka.adapters.sqlite_store import SqliteStore
from soraka.message import Callback, Command, CommandKind, Message
from soraka.ports import (
    Claim,
    ClaimKind,
    Ended,
    Entry,
    FullStore,
    Lease,
    NewCommand,
    NewMessage,
    Outcome,
)
from tests.redis_groups import RedisGroup
from tests.servers import USER, Server

TOPIC = "orders"
OWNER = "127.0.1.1:1"
OTHER = "127.0.1.2:1"
MARGIN = 2_000
TTR = 1_000
LEASE = TTR + MARGIN
EARLY = 600_000
HOUR = 3_600_000
SETTINGS = {
    "retention_ms": HOUR,
    "dead_retention_ms": 2 * HOUR,
    "lease_margin_ms": MARGIN,
    "early_ms": EARLY,
}
KINDS = ("redis", "redis_tls", "redis_sentinel", "redis_cluster", "sqlite")
Open = Callable[..., FullStore]
"""Opens a store of one kind; the settings that are named replace SETTINGS."""
_numbers = itertools.count()


class TurnedClock:
    """A clock that stands still until it is turned."""

    def __init__(self) -> None:
        self.now = time.time_ns() // 1_000_000

    def __call__(self) -> int:
        return self.now

    def turn(self, ms: int) -> None:
        self.now += ms


def uuid7(at: int, random: int | None = None) -> str:
    """A UUIDv7 made at `at` ms; numbered, or with 62 random bits."""
    low = next(_numbers) if random is None else random
    return str(uuid.UUID(int=at << 80 | 7 << 76 | 2 << 62 | low & (1 << 62) - 1))


def message(due_at: int, **other: Any) -> Message:
    """Made at its due time."""
    return Message(
        **{
            "msg_id": uuid7(due_at),
            "topic": TOPIC,
            "created_at": due_at,
            "due_at": due_at,
            "ttr_ms": TTR,
            "callback": Callback(method="POST", url="http://h/é", params='{"a": 1}'),
            **other,
        }
    )


def cancel(msg_id: str, command_id: str | None = None, topic: str = TOPIC) -> Command:
    return Command(
        command_id=command_id or f"c{next(_numbers)}",
        msg_id=msg_id,
        topic=topic,
        kind=CommandKind.CANCEL,
    )


def fire_now(msg_id: str, command_id: str | None = None) -> Command:
    return _command(msg_id, CommandKind.FIRE_NOW, command_id)


def redrive(msg_id: str, command_id: str | None = None) -> Command:
    return _command(msg_id, CommandKind.REDRIVE, command_id)


def _command(msg_id: str, kind: CommandKind, command_id: str | None) -> Command:
    name = command_id or f"c{next(_numbers)}"
    return Command(command_id=name, msg_id=msg_id, topic=TOPIC, kind=kind)


def add_time(
    msg_id: str, add_ms: int, command_id: str | None = None, topic: str = TOPIC
) -> Command:
    return Command(
        command_id=command_id or f"c{next(_numbers)}",
        msg_id=msg_id,
        topic=topic,
        kind=CommandKind.ADD_TIME,
        add_ms=add_ms,
    )


def redis_prefix(msg_id: str, shards: int = 4) -> str:
    """Of the keys of its shard in Redis."""
    return f"{{{crc32(msg_id.encode()) % shards}}}:"


def redis_key(msg_id: str, shards: int = 4) -> str:
    """Of its record in Redis."""
    return f"{redis_prefix(msg_id, shards)}m:{short(msg_id).decode()}"


def spoil(store: RedisStore | SqliteStore, msg_id: str) -> None:
    """Has the store keep what it cannot read."""
    if isinstance(store, SqliteStore):
        store._on_thread(lambda db: db.execute("UPDATE message SET body = x'ff'"))
        return
    shard = store._shard_of(msg_id)
    key = redis_key(msg_id, len(store._shards))
    ((raw),) = store._redis.read([(shard, ("GET", key))])
    store._redis.read([(shard, ("SETRANGE", key, len(raw) - 1, b"\xc1"))])


def entry(position: int, record: Message | Command, owner: str = OWNER) -> Entry:
    if isinstance(record, Message):
        return NewMessage(position, record, owner)
    return NewCommand(position, record)


def put(store: FullStore, *records: Message | Command, owner: str = OWNER) -> tuple[int, ...]:
    """Schedules the records behind what the store has read of partition `p`."""
    previous = store.positions("p")
    first = max(previous) + 1
    entries = [entry(first + i, record, owner) for i, record in enumerate(records)]
    return store.schedule("p", previous, first + len(records) - 1, entries)


def fire(store: FullStore, msg_id: str) -> Claim:
    (claim,) = store.claim([msg_id])
    assert claim.kind is ClaimKind.FIRE
    return claim


def end(store: FullStore, msg_id: str, lease: Lease, ended: Ended, **other: Any) -> bool:
    (settled,) = store.settle([Outcome(msg_id, lease, ended, **other)])
    return settled


def wait_for(condition: Callable[[], bool], seconds: float = 15) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "waited in vain"
        time.sleep(0.005)


@contextlib.contextmanager
def redis_store(
    url: str, *, shards: int = 4, flush: bool = True, **other: Any
) -> Iterator[RedisStore]:
    if flush:
        with redis.Redis.from_url(url) as client:
            client.flushall()
    with _opened_redis(flush, url=url, shards=shards, **other) as store:
        yield store


@contextlib.contextmanager
def redis_tls_store(
    server: Server, *, shards: int = 4, flush: bool = True, **other: Any
) -> Iterator[RedisStore]:
    """As a user who may do no more than it has to."""
    if flush:
        flush_tls(server)
    secured = tls.client(server.tls, "store.url")
    with _opened_redis(flush, url=server.url, shards=shards, secured=secured, **other) as store:
        yield store


def flush_tls(server: Server) -> None:
    files = server.tls
    url = server.url.replace(USER, "operator", 1)
    with redis.Redis.from_url(
        url, ssl_ca_certs=files.ca, ssl_certfile=files.certificate, ssl_keyfile=files.key
    ) as client:
        client.flushall()


@contextlib.contextmanager
def _opened_redis(flush: bool, **settings: Any) -> Iterator[RedisStore]:
    store = RedisStore(**{**SETTINGS, **settings})
    with contextlib.closing(store):
        if flush:
            store.vouch(store.restarts())
        yield store


@contextlib.contextmanager
def group_store(
    group: RedisGroup, *, shards: int = 4, flush: bool = True, **other: Any
) -> Iterator[RedisStore]:
    """On servers that keep each other."""
    if flush:
        group.flush()
    store = RedisStore(shards=shards, **{**group.settings, **SETTINGS, **other})
    with contextlib.closing(store):
        if flush:
            store.vouch(store.restarts())
        yield store


@contextlib.contextmanager
def any_store(
    kind: str, request: pytest.FixtureRequest, path: Path, **other: Any
) -> Iterator[FullStore]:
    """`kind` is one of KINDS."""
    if kind == "sqlite":
        opened: Any = sqlite_store(path, **other)
    elif kind == "redis":
        opened = redis_store(request.getfixturevalue("redis_server").url, **other)
    elif kind == "redis_tls":
        opened = redis_tls_store(request.getfixturevalue("redis_tls_server"), **other)
    else:
        opened = group_store(request.getfixturevalue(kind), **other)
    with opened as store:
        yield store


@contextlib.contextmanager
def sqlite_store(path: Path, *, shards: int = 1, **other: Any) -> Iterator[SqliteStore]:
    assert shards == 1
    store = SqliteStore(path=path, **{**SETTINGS, **other})
    with contextlib.closing(store):
        yield store
