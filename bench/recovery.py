"""How fast the messages of a killed worker are with another: `python -m bench.recovery`.

One worker owns `--messages` pending ones. A second comes, a flow of near messages goes to both, and
the first is killed with SIGKILL. `session_s` is from the kill until the registry has dropped it,
`moved_s` from then until it owns nothing, `center.absent_ms` included. `late_ms` is the lateness of
the near messages: p50, p99, max of all; those of the dead worker wait for all of that.
"""

from gevent import monkey

monkey.patch_all()

import argparse  # noqa: E402
import time  # noqa: E402
from contextlib import closing  # noqa: E402
from typing import Any  # noqa: E402

import redis  # noqa: E402

from bench.load import Result  # noqa: E402
from bench.numbers import percentile  # noqa: E402
from bench.processes import Guard, temporary_folder, wait_until  # noqa: E402
from bench.programs import DAY_MS, wait_stored, warm_up  # noqa: E402
from bench.systems import SHARDS, Scale, Servers  # noqa: E402
from bench.targets import SinkProcess, SorakaTarget, sink_running  # noqa: E402
from soraka.adapters.zookeeper_registry import ZookeeperRegistry  # noqa: E402

LEAD_MS = 12_000
FLOW_S = 10
LIMIT_S = 120.0


class Watch:
    """What registry and store say of the workers."""

    def __init__(self, system: Servers) -> None:
        self._redis = redis.Redis.from_url(system.redis_url)
        self._registry = ZookeeperRegistry(hosts=system.zookeeper)

    def owned(self, address: str) -> int:
        """Messages that a worker owns."""
        pipe = self._redis.pipeline(transaction=False)
        for shard in range(SHARDS):
            pipe.zcard(f"{{{shard}}}:o:{address}")
        return sum(map(int, pipe.execute()))

    def lives(self, address: str) -> bool:
        return address in self._registry.live("worker")

    def close(self) -> None:
        self._registry.close()
        self._redis.close()


def measure(
    target: SorakaTarget, system: Servers, sink: SinkProcess, *, count: int, rate: int
) -> dict[str, Any]:
    """One kill. Raises TimeoutError when the messages are not moved."""
    target.send(protocol="thrift", batch=500, connections=4, count=count, lead_ms=DAY_MS)
    wait_stored(target, sink)
    with closing(Watch(system)) as watch:
        dead = system.addresses["worker0"]
        system.add("worker", "worker1")
        wait_until(lambda: watch.lives(system.addresses["worker1"]), 30, "two workers")
        sink.take()
        near = target.send(batch=10, rate=rate, count=rate * FLOW_S, lead_ms=LEAD_MS, keep_ids=True)
        owned = watch.owned(dead)
        system.kill("worker0")
        killed = time.monotonic()
        wait_until(lambda: not watch.lives(dead), 60, "the session has ended")
        ended = time.monotonic()
        wait_until(lambda: not watch.owned(dead), LIMIT_S, "all is moved")
        moved = time.monotonic()
    return {
        "owned": owned,
        "session_s": round(ended - killed, 1),
        "moved_s": round(moved - ended, 1),
        **_near(near, sink),
    }


def _near(sent: Result, sink: SinkProcess) -> dict[str, Any]:
    wait_until(lambda: sink.count() >= sent.accepted, LIMIT_S, "all near messages are called")
    calls = sink.take()
    late = sorted(at - due for _, due, at in calls)
    return {
        "near": sent.accepted,
        "missing": len(set(sent.ids) - {msg_id for msg_id, _, _ in calls}),
        "doubles": len(calls) - len({msg_id for msg_id, _, _ in calls}),
        "late_ms": [round(percentile(late, p)) for p in (0.5, 0.99, 1.0)],
    }


def main() -> None:
    parser = argparse.ArgumentParser(
        prog="bench.recovery", description=(__doc__ or "").split("\n")[0]
    )
    parser.add_argument("--messages", type=int, default=100_000)
    parser.add_argument("--rate", type=int, default=200, help="near messages/s (%(default)s)")
    parser.add_argument("--centers", type=int, default=1)
    options = parser.parse_args()
    with Guard() as guard, sink_running(guard) as sink, temporary_folder(guard) as folder:
        system = Servers(guard, folder, Scale(workers=1, centers=options.centers))
        with closing(system):
            system.start()
            target = SorakaTarget(guard, system, sink.url)
            warm_up(target, sink)
            print(
                measure(target, system, sink, count=options.messages, rate=options.rate), flush=True
            )


if __name__ == "__main__":
    main()
