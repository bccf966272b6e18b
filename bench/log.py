"""Records per second and CPU through the two adapters of the Log.

    python -m bench.log --adapter kafka --bootstrap 127.0.0.1:9092
    python -m bench.log --adapter sqlite --path /var/tmp/bench-log.db
    python -m bench.log --adapter kafka --profile      # cProfile of the whole, by own time

Kafka must run (`dev/stack up`); the topics `bench.log.<random>` and `bench-dead.<random>` stay
behind. The SQLite file must not exist yet; put it on the disk you want to know about.

Each line is one shape of load over --records records of --size bytes: appends of 100 and of 1,000
by --writers greenlets, then appends of one record by --clients greenlets, then one consumer that
reads all of it back and commits. `cpu` is this process alone, per record; `stall` is the longest
time during which no other greenlet got to run.
"""

from gevent import monkey

monkey.patch_all()

import argparse  # noqa: E402
import cProfile  # noqa: E402
import os  # noqa: E402
import pstats  # noqa: E402
import time  # noqa: E402
import uuid  # noqa: E402
from collections.abc import Callable, Iterator  # noqa: E402
from contextlib import contextmanager  # noqa: E402
from functools import partial  # noqa: E402
from pathlib import Path  # noqa: E402

import gevent  # noqa: E402

from soraka.ports import Log, Record  # noqa: E402

TICK_S = 0.001
TIMEOUT_MS = 10_000
INFLIGHT_BYTES = 256 << 20


def main() -> None:
    options = parsed()
    log = opened(options)
    log.create_topic("bench")
    log.append("bench", made(10, options.size))
    with profiled(options.profile):
        for batch in (100, 1000):
            measured(
                f"append {batch} x {options.writers} greenlets",
                options.records,
                partial(append, log, options, batch, options.writers),
            )
        measured(
            f"append 1 x {options.clients} greenlets",
            options.records,
            lambda: append(log, options, 1, options.clients),
        )
        measured("consume", 3 * options.records, lambda: consume(log, 3 * options.records))
    log.close()


def parsed() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--adapter", choices=("kafka", "sqlite"), required=True)
    parser.add_argument("--bootstrap", default="127.0.0.1:9092")
    parser.add_argument("--path", type=Path, default=Path("bench-log.db"))
    parser.add_argument("--partitions", type=int, default=4)
    parser.add_argument("--records", type=int, default=50_000)
    parser.add_argument("--size", type=int, default=250, help="bytes of a value")
    parser.add_argument("--writers", type=int, default=4)
    parser.add_argument("--clients", type=int, default=200)
    parser.add_argument("--profile", action="store_true")
    return parser.parse_args()


def opened(options: argparse.Namespace) -> Log:
    if options.adapter == "sqlite":
        from soraka.adapters.sqlite_log import SqliteLog

        return SqliteLog(
            path=options.path,
            retention_ms=3_600_000,
            append_timeout_ms=TIMEOUT_MS,
            max_inflight_bytes=INFLIGHT_BYTES,
        )
    from soraka.adapters.kafka_log import KafkaLog

    own = uuid.uuid4().hex[:8]
    return KafkaLog(
        bootstrap=options.bootstrap,
        topic_prefix=f"bench.log.{own}.",
        dead_letter_topic=f"bench-dead.{own}",
        partitions=options.partitions,
        replication=1,
        append_timeout_ms=TIMEOUT_MS,
        max_inflight_bytes=INFLIGHT_BYTES,
    )


def made(count: int, size: int) -> list[Record]:
    """Half of each value repeats and half does not, much as in a message."""
    fixed = b"x" * (size // 2)
    return [Record(str(uuid.uuid4()), fixed + os.urandom(size - size // 2)) for _ in range(count)]


def append(log: Log, options: argparse.Namespace, batch: int, greenlets: int) -> None:
    sent = made(batch, options.size)

    def write() -> None:
        for _ in range(options.records // greenlets // batch):
            log.append("bench", sent)

    gevent.joinall([gevent.spawn(write) for _ in range(greenlets)], raise_error=True)


def consume(log: Log, count: int) -> None:
    """All but what the last greenlets rounded off."""
    consumer = log.consumer("bench")
    polled, last = 0, time.monotonic()
    while polled < count and time.monotonic() - last < 2:
        for batch in consumer.poll(200):
            polled += len(batch.records)
            last = time.monotonic()
            consumer.commit({batch.partition: batch.last})
    consumer.close()


def measured(name: str, count: int, work: Callable[[], None]) -> None:
    stalls = [0.0]

    def tick() -> None:
        while True:
            before = time.monotonic()
            gevent.sleep(TICK_S)
            stalls.append(time.monotonic() - before - TICK_S)

    ticking = gevent.spawn(tick)
    wall, cpu = time.monotonic(), time.process_time()
    work()
    wall, cpu = time.monotonic() - wall, time.process_time() - cpu
    ticking.kill()
    print(
        f"{name:32} {count / wall:8.0f} records/s {cpu / count * 1e6:7.1f} µs cpu"
        f" {max(stalls) * 1000:6.0f} ms stall"
    )


@contextmanager
def profiled(wanted: bool) -> Iterator[None]:
    if not wanted:
        yield
        return
    profile = cProfile.Profile()
    with profile:
        yield
    pstats.Stats(profile).sort_stats("tottime").print_stats(35)


if __name__ == "__main__":
    main()
