"""What a callback costs the worker and Redis, without the rest: no log, no center, no submits.

    python -m bench.worker --rates 1000 3000 --seconds 6

Messages due at a steady rate are written into a Redis of its own, then a worker process calls them
to the sink. CPU per message is that of each process from the first due time to the last callback;
a burst (`--burst`) has them all due at one moment. What it leaves out is small: hints, a twentieth.
"""

from gevent import monkey

monkey.patch_all()

import argparse  # noqa: E402
import time  # noqa: E402
from collections.abc import Mapping, Sequence  # noqa: E402
from contextlib import closing  # noqa: E402
from pathlib import Path  # noqa: E402

import uuid_utils  # noqa: E402

from bench.numbers import percentile  # noqa: E402
from bench.ports import free_port  # noqa: E402
from bench.processes import Guard, Process, Usage, temporary_folder, wait_until  # noqa: E402
from bench.store import SETTINGS  # noqa: E402
from bench.systems import SHARDS, start_stack, stop_stack  # noqa: E402
from bench.targets import SinkProcess, sink_running  # noqa: E402
from soraka.adapters.redis_store import RedisStore  # noqa: E402
from soraka.message import Callback, Message  # noqa: E402
from soraka.ports import NewMessage  # noqa: E402

LEAD_MS = 4000
AT_ONCE = 500


def flow(
    store: RedisStore,
    sink: SinkProcess,
    worker: Process,
    pids: dict[str, int],
    owner: str,
    dues: Sequence[int],
) -> None:
    """Prints a line of figures."""
    _put(store, sink.url, owner, dues)
    time.sleep(max(0.0, dues[0] / 1000 - 0.5 - time.time()))
    sink.take()
    worker.check()
    usage = Usage({**pids, "sink": sink.pid})
    limit_s = (dues[-1] - dues[0]) / 1000 + 60
    wait_until(lambda: sink.count() >= len(dues), limit_s, "all are called")
    time.sleep(0.2)
    used = usage.read()
    calls = sink.take()
    machine = used.pop("machine")
    late = sorted(at - due for _, due, at in calls)
    span_s = (max(at for *_, at in calls) - dues[0]) / 1000
    others = (machine["cpu_s"] - sum(u["cpu_s"] for u in used.values())) / machine["wall_s"]
    costs = "  ".join(f"{n} {1e6 * u['cpu_s'] / len(dues):.1f}" for n, u in used.items())
    lateness = " / ".join(f"{percentile(late, p):.1f}" for p in (0.5, 0.99, 1.0))
    print(
        f"{len(calls) / span_s:,.0f}/s  lateness p50 / p99 / max {lateness} ms, "
        f"early {sum(ms < 0 for ms in late)}, doubles {len(calls) - len({c[0] for c in calls})}; "
        f"CPU µs: {costs}; others {others:.2f}",
        flush=True,
    )


def _put(store: RedisStore, url: str, owner: str, dues: Sequence[int]) -> None:
    callback = Callback(method="POST", url=url, params='{"order_id": 123456789, "reason": "late"}')
    positions = store.positions("p")
    for start in range(0, len(dues), AT_ONCE):
        entries = []
        for at, due in enumerate(dues[start : start + AT_ONCE], max(positions) + 1):
            message = Message(
                msg_id=str(uuid_utils.uuid7()),
                topic="bench",
                created_at=due,
                due_at=due,
                ttr_ms=5000,
                callback=callback,
            )
            entries.append(NewMessage(at, message, owner))
        positions = store.schedule("p", positions, entries[-1].position, entries)


def _worker(guard: Guard, folder: Path, url: str, ports: Mapping[str, int], port: int) -> Process:
    environ = {
        "SORAKA_STORE_ADAPTER": "redis",
        "SORAKA_STORE_URL": url,
        "SORAKA_STORE_SHARDS": str(SHARDS),
        "SORAKA_LOG_ADAPTER": "kafka",
        "SORAKA_LOG_BOOTSTRAP": f"127.0.0.1:{ports['kafka']}",
        "SORAKA_REGISTRY_ADAPTER": "zookeeper",
        "SORAKA_REGISTRY_HOSTS": f"127.0.0.1:{ports['zookeeper']}",
        "SORAKA_WORKER_THRIFT_PORT": str(port),
    }
    return Process(guard, ["-m", "soraka", "worker"], log=folder / "worker.log", environ=environ)


def main() -> None:
    parser = argparse.ArgumentParser(
        prog="bench.worker", description=(__doc__ or "").split("\n")[0]
    )
    parser.add_argument("--rates", type=int, nargs="*", default=[1000, 3000])
    parser.add_argument("--seconds", type=float, default=6)
    parser.add_argument("--burst", type=int, default=0)
    options = parser.parse_args()
    with Guard() as guard, sink_running(guard) as sink, temporary_folder(guard) as folder:
        started: dict[str, int] = {}
        port = free_port()
        try:
            ports = start_stack(guard, folder / "stack", "redis,kafka,zookeeper", started)
            url = f"redis://127.0.0.1:{ports['redis']}/0"
            worker = _worker(guard, folder, url, ports, port)
            pids = {"redis": started["redis"], "worker": worker.pid}
            with closing(RedisStore(url=url, shards=SHARDS, **SETTINGS)) as store:
                store.vouch(store.restarts())
                for rate in [500, *options.rates]:  # the first warms up
                    count = int(rate * (options.seconds if rate > 500 else 2))
                    begin = int(time.time() * 1000) + LEAD_MS
                    dues = [begin + i * 1000 // rate for i in range(count)]
                    flow(store, sink, worker, pids, f"127.0.0.1:{port}", dues)
                if options.burst:
                    begin = int(time.time() * 1000) + 2 * LEAD_MS
                    flow(store, sink, worker, pids, f"127.0.0.1:{port}", [begin] * options.burst)
            worker.stop()
        finally:
            stop_stack(guard, folder / "stack")


if __name__ == "__main__":
    main()
