"""What a store costs: CPU and wall time per message and call, and memory per pending message.

    python -m bench.store --redis redis://127.0.0.1:6379/0
    python -m bench.store --sqlite /tmp/bench.db --messages 1000000

Messages go through schedule, due, claim, settle in batches of `--batch`, one call after another.
`client` is the CPU of this process, `server` that of Redis' main thread (INFO cpu); SQLite's
work is all in `client`. Memory is what Redis says it uses, or the size of the file, with all
pending against none. The database of Redis is flushed, the file of SQLite must not exist.
"""

from gevent import monkey

monkey.patch_all()

import argparse  # noqa: E402
import time  # noqa: E402
from collections.abc import Callable, Iterator, Sequence  # noqa: E402
from pathlib import Path  # noqa: E402
from typing import Any  # noqa: E402

import redis  # noqa: E402
import uuid_utils  # noqa: E402

from soraka.adapters.redis_store import RedisStore  # noqa: E402
from soraka.adapters.sqlite_store import SqliteStore  # noqa: E402
from soraka.limits import DAY_MS  # noqa: E402
from soraka.message import Callback, Message  # noqa: E402
from soraka.ports import Claim, Ended, FullStore, NewMessage, Outcome  # noqa: E402
from soraka.wire import encode  # noqa: E402

OWNER = "10.0.0.1:30002"
PARAMS = '{"order_id": 123456789, "user_id": 987654321, "reason": "timeout"}'
URL = "http://127.0.0.1:8080/callback/orders/pay-timeout"
SETTINGS: dict[str, Any] = {
    "retention_ms": DAY_MS,
    "dead_retention_ms": DAY_MS,
    "lease_margin_ms": 2000,
    "early_ms": 600_000,
}


class Bench:
    """One store; `server_s` is the CPU time of its server, `size` the bytes that it takes."""

    def __init__(
        self,
        store: FullStore,
        batch: int,
        server_s: Callable[[], float],
        size: Callable[[], int],
    ) -> None:
        self._store = store
        self._batch = batch
        self._server_s = server_s
        self._size = size
        self._claims: dict[str, Claim] = {}

    def run(self, count: int) -> None:
        messages = _messages(count)
        ids = [m.msg_id for m in messages]
        print(f"{count} messages of {len(encode(messages[0]))} bytes, batches of {self._batch}")
        empty = self._size()
        self._timed("schedule", count, lambda: self._schedule(messages))
        print(f"memory    {(self._size() - empty) / count:8.0f} bytes per pending message")
        self._timed("due", count, lambda: self._due(count))
        self._timed("claim", count, lambda: self._claim(ids))
        self._timed("settle", count, lambda: self._settle(ids))

    def _timed(self, name: str, count: int, work: Callable[[], None]) -> None:
        server, cpu, wall = self._server_s(), time.process_time(), time.perf_counter()
        work()
        wall, cpu = time.perf_counter() - wall, time.process_time() - cpu
        server = self._server_s() - server
        client, waited, served = (1e6 * s / count for s in (cpu, wall, server))
        print(f"{name:9} {client:8.1f} client {waited:8.1f} wall {served:8.1f} server  µs/message")

    def _schedule(self, messages: Sequence[Message]) -> None:
        positions = self._store.positions("p")
        for at in _steps(len(messages), self._batch):
            entries = [NewMessage(i, messages[i], OWNER) for i in at]
            positions = self._store.schedule("p", positions, at[-1], entries)

    def _due(self, count: int) -> None:
        """The first page again and again, as a worker asks for it."""
        for _ in _steps(count, self._batch):
            self._store.due(OWNER, 1 << 52, self._batch)

    def _claim(self, ids: Sequence[str]) -> None:
        for at in _steps(len(ids), self._batch):
            wanted = [ids[i] for i in at]
            self._claims.update(zip(wanted, self._store.claim(wanted), strict=True))

    def _settle(self, ids: Sequence[str]) -> None:
        for at in _steps(len(ids), self._batch):
            self._store.settle(
                [Outcome(ids[i], self._claims[ids[i]].lease, Ended.SUCCEEDED) for i in at]
            )


def _steps(count: int, batch: int) -> Iterator[range]:
    return (range(at, min(at + batch, count)) for at in range(0, count, batch))


def _messages(count: int) -> list[Message]:
    now = time.time_ns() // 1_000_000
    callback = Callback(method="POST", url=URL, params=PARAMS)
    return [
        Message(
            msg_id=str(uuid_utils.uuid7()),
            topic="order_timeout",
            created_at=now,
            due_at=now - count + i,
            ttr_ms=1000,
            callback=callback,
        )
        for i in range(count)
    ]


def on_redis(url: str, shards: int, batch: int) -> Bench:
    client = redis.Redis.from_url(url)
    client.flushdb()

    def server_s() -> float:
        cpu = client.info("cpu")
        return float(cpu["used_cpu_user_main_thread"] + cpu["used_cpu_sys_main_thread"])

    store = RedisStore(url=url, shards=shards, **SETTINGS)
    store.vouch(store.restarts())
    return Bench(store, batch, server_s, lambda: int(client.info("memory")["used_memory"]))


def on_sqlite(path: Path, batch: int) -> Bench:
    if path.exists():
        raise SystemExit(f"{path} exists")
    store = SqliteStore(path=path, **SETTINGS)
    return Bench(store, batch, lambda: 0.0, lambda: path.stat().st_size)


def main() -> None:
    parser = argparse.ArgumentParser(prog="bench.store", description=(__doc__ or "").split("\n")[0])
    where = parser.add_mutually_exclusive_group(required=True)
    where.add_argument("--redis", "--url", metavar="URL", help="flushed first")
    where.add_argument("--sqlite", metavar="PATH", type=Path, help="must not exist")
    parser.add_argument("--messages", type=int, default=100_000)
    parser.add_argument("--batch", type=int, default=100)
    parser.add_argument("--shards", type=int, default=8, help="redis only")
    options = parser.parse_args()
    if options.redis:
        bench = on_redis(options.redis, options.shards, options.batch)
    else:
        bench = on_sqlite(options.sqlite, options.batch)
    bench.run(options.messages)


if __name__ == "__main__":
    main()
