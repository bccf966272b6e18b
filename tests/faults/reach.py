"""What faults need to know of the servers: sizes, memory, owners, records."""

import os
import time
from pathlib import Path

import gevent
import psutil
import redis as redis_py
from kafka import KafkaProducer

from tests.acceptance.deployments import Process
from tests.acceptance.sink import wait_until
from tests.servers import Server, newest_aof


class AofTail:
    """Watches how long Redis' append-only file was when, so that its last second can be cut off:
    what a power cut takes away under `appendfsync everysec`."""

    KEPT_S = 10.0

    def __init__(self, redis: Server) -> None:
        self._redis = redis
        self._sizes: list[tuple[float, Path, int]] = []
        self._watcher = gevent.spawn(self._watch)

    def wait_known(self, seconds: float) -> None:
        """Until it is known how long the file was so many seconds ago. Redis begins no new one
        until its next start."""
        with redis_py.Redis.from_url(self._redis.url) as client:
            client.config_set("auto-aof-rewrite-percentage", 0)
            wait_until(lambda: not client.info("persistence")["aof_rewrite_in_progress"], 30)
        wait_until(lambda: self._was(seconds) is not None, seconds + 30, lambda: "a size known")

    def cut(self, seconds: float) -> int:
        """Takes away what was written in the last `seconds`; Redis must have been killed just
        now. Returns how many bytes that was."""
        kept, newest = self._was(seconds), newest_aof(self._redis)
        assert kept is not None, "call wait_known before the kill"
        whole = newest.stat().st_size
        os.truncate(newest, kept)
        self._sizes.clear()
        return whole - kept

    def close(self) -> None:
        self._watcher.kill()

    def _was(self, seconds: float) -> int | None:
        newest, then = newest_aof(self._redis), time.monotonic() - seconds
        sizes = [size for at, file, size in self._sizes if file == newest and at <= then]
        return sizes[-1] if sizes else None

    def _watch(self) -> None:
        while True:
            newest, now = newest_aof(self._redis), time.monotonic()
            self._sizes.append((now, newest, newest.stat().st_size))
            self._sizes = [entry for entry in self._sizes if entry[0] > now - self.KEPT_S]
            gevent.sleep(0.05)


def memory_of(process: Process) -> int:
    """Bytes resident, with its children."""
    first = psutil.Process(process.pid)
    return sum(each.memory_info().rss for each in (first, *first.children(recursive=True)))


class Pending:
    """Counts the messages that a worker owns. The keys are those of `lua/common.lua`."""

    def __init__(self, redis: Server, owner: str, shards: int = 8) -> None:
        self._client = redis_py.Redis.from_url(redis.url)
        self._keys = [f"{{{shard}}}:o:{owner}" for shard in range(shards)]

    def __call__(self) -> int:
        with self._client.pipeline(transaction=False) as asked:
            for key in self._keys:
                asked.zcard(key)
            return sum(asked.execute())

    def close(self) -> None:
        self._client.close()


def append_raw(kafka: Server, topic: str, values: list[bytes], partitions: int) -> None:
    """Puts records as they are in each partition of a Kafka topic, past receive."""
    producer = KafkaProducer(
        bootstrap_servers=kafka.url, acks="all", enable_idempotence=False, retries=3
    )
    try:
        for partition in range(partitions):
            for value in values:
                producer.send(topic, value=value, partition=partition).get(timeout=10)
    finally:
        producer.close(timeout=5)
