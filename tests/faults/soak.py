"""A long run under faults drawn at random: python -m tests.faults.soak --minutes 30 --seed 7

The same seed gives the same schedule of faults and of operations. Ends with 1 and keeps the
history and the logs when anything was violated.
"""

from gevent import monkey

monkey.patch_all()

import argparse  # noqa: E402
import contextlib  # noqa: E402
import random  # noqa: E402
import shutil  # noqa: E402
import signal  # noqa: E402
import sys  # noqa: E402
import tempfile  # noqa: E402
from collections.abc import Callable  # noqa: E402
from pathlib import Path  # noqa: E402

import gevent  # noqa: E402
from gevent.pool import Group  # noqa: E402

from tests import servers  # noqa: E402
from tests.acceptance.deployments import Cluster, Process  # noqa: E402
from tests.faults import run as runs  # noqa: E402
from tests.faults.checker import has_ended  # noqa: E402
from tests.faults.conftest import PARTITIONS, new_cluster, start, warm_topic  # noqa: E402
from tests.faults.history import now_ms  # noqa: E402
from tests.faults.proxy import Proxy  # noqa: E402
from tests.faults.reach import AofTail, append_raw, memory_of  # noqa: E402
from tests.faults.run import LEASE_MARGIN_MS, Run  # noqa: E402
from tests.faults.schedule import Strike, schedule  # noqa: E402
from tests.servers import Server  # noqa: E402

TELL_EVERY_S = 30
CLOSE_AFTER_MS = 40_000
"""Nothing is expected of a message that ended so long ago; the longest fault is shorter."""
SETTLE_S = 180
LOST_S = 1.0
GARBAGE = [b"", b"\x01", b"\x01\x0c\x00\x01garbage"]
SERVERS = ("redis", "kafka", "zookeeper")


class Soak:
    """The deployment, its load, and the faults by kind."""

    def __init__(self, folder: Path, stack: dict[str, Server], *, seed: int, rate: float) -> None:
        self._stack = stack
        self._seed = seed
        with contextlib.ExitStack() as opened:
            self._proxies = {name: Proxy(stack[name].port) for name in ("redis", "zookeeper")}
            for proxy in self._proxies.values():
                opened.callback(proxy.close)
            self._cluster = self._new_cluster(folder)
            opened.callback(self._cluster.close)
            self._cluster.start()
            self._tail = AofTail(stack["redis"])
            opened.callback(self._tail.close)
            self._topic = warm_topic(self._cluster)
            self.run = Run(
                self._cluster, self._topic, folder, seed=seed, rate=rate, name=f"soak, seed {seed}"
            )
            opened.callback(self.run.close)
            self.close = opened.pop_all().close
        self._kinds: dict[str, Callable[[Strike], None]] = {
            "kill": self._kill,
            "stop": self._stop,
            "drain": self._drain,
            "redis loses its tail": self._cut_tail,
            "outage": self._outage,
            "cut": self._link,
            "frozen": self._link,
            "poison": self._poison,
        }

    def _new_cluster(self, folder: Path) -> Cluster:
        redis, kafka, zookeeper = (self._stack[name].url for name in SERVERS)
        cluster = new_cluster(redis, kafka, zookeeper, folder)
        cluster.add(
            "worker",
            "far",
            {
                "SORAKA_STORE_URL": f"redis://127.0.0.1:{self._proxies['redis'].port}/0",
                "SORAKA_REGISTRY_HOSTS": f"127.0.0.1:{self._proxies['zookeeper'].port}",
            },
        )
        cluster.add("receive", "receive1")
        return cluster

    # ------------------------------------------------------------------ the run

    def go(self, seconds: float) -> None:
        """Strikes for so long, then waits until all that was struck is whole again."""
        began = now_ms()
        helpers, strikes = Group(), Group()
        helpers.spawn(self._close_forever)
        helpers.spawn(self._tell_forever, began)
        try:
            for strike in schedule(self._seed, seconds):
                gevent.sleep(max(0.0, began / 1000 + strike.at_s - now_ms() / 1000))
                _say(began, f"{strike.kind}: {strike.target} for {strike.lasts_s} s")
                strikes.spawn(self._kinds[strike.kind], strike)
            gevent.sleep(max(0.0, began / 1000 + seconds - now_ms() / 1000))
            strikes.join(timeout=SETTLE_S, raise_error=True)
        finally:
            helpers.kill()
            strikes.kill()

    def _close_forever(self) -> None:
        """Judges what ended a while ago, and forgets it."""
        while True:
            gevent.sleep(1)
            before = now_ms() - CLOSE_AFTER_MS
            ripe = [
                life
                for life in self.run.checker.lives()
                if life.submits
                and life.submits[-1].end < before
                and all(command.end < before for command in life.commands)
                and all(call.end < before for call in life.calls)
                and (has_ended(life) or life.least_due < before)
            ]
            self.run.ask(ripe, self.run.checker.close)

    def _tell_forever(self, began: float) -> None:
        while True:
            gevent.sleep(TELL_EVERY_S)
            counts = self.run.checker.report.counts
            said = {k: counts[k] for k in ("submit", "command", "call", "duplicates", "violations")}
            memory = {
                name: memory_of(process) >> 20
                for name, process in self._cluster.processes.items()
                if process.is_running
            }
            _say(began, f"{said}, open {len(self.run.checker.lives())}, MiB {memory}")

    # ------------------------------------------------------------------ faults

    def _process(self, strike: Strike) -> Process:
        return self._cluster.processes[strike.target]

    def _kill(self, strike: Strike) -> None:
        process = self._process(strike)
        repeats = process.arguments == ["worker"]
        with self.run.fault(f"kill {strike.target}", may_repeat=repeats) as fault:
            process.kill()
            fault.struck()
            gevent.sleep(strike.lasts_s)
            start(process, timeout_s=SETTLE_S)

    def _stop(self, strike: Strike) -> None:
        process = self._process(strike)
        repeats = process.arguments == ["worker"]
        with self.run.fault(f"stop {strike.target}", may_repeat=repeats) as fault:
            process.send(signal.SIGSTOP)
            fault.struck()
            gevent.sleep(strike.lasts_s)
            process.send(signal.SIGCONT)

    def _drain(self, strike: Strike) -> None:
        process = self._process(strike)
        with self.run.fault(f"drain {strike.target}"):
            code = process.stop()
            assert code == 0, f"{strike.target} ended with {code} on SIGTERM"
            gevent.sleep(strike.lasts_s)
            start(process, timeout_s=SETTLE_S)

    def _cut_tail(self, strike: Strike) -> None:
        redis = self._stack["redis"]
        self._tail.wait_known(LOST_S)
        with (
            self.run.fault("redis loses its tail", lost_ms=int(LOST_S * 1000) + 200) as fault,
            redis.outage(),
        ):
            self._tail.cut(LOST_S)
            fault.struck(LEASE_MARGIN_MS)
            gevent.sleep(strike.lasts_s)

    def _outage(self, strike: Strike) -> None:
        with self.run.fault(f"{strike.target} away"), self._stack[strike.target].outage():
            gevent.sleep(strike.lasts_s)

    def _link(self, strike: Strike) -> None:
        name = strike.target.split()[1]
        with (
            self.run.fault(f"{strike.target} {strike.kind}", may_repeat=name == "redis") as fault,
            getattr(self._proxies[name], strike.kind)(),
        ):
            fault.struck(LEASE_MARGIN_MS)
            gevent.sleep(strike.lasts_s)

    def _poison(self, strike: Strike) -> None:
        topic = self._cluster.environ["SORAKA_LOG_TOPIC_PREFIX"] + self._topic
        with self.run.fault("poison"):
            append_raw(self._stack["kafka"], topic, GARBAGE, PARTITIONS)


def _say(began: float, what: str) -> None:
    print(f"{(now_ms() - began) / 1000:8.1f} s  {what}", flush=True)


def soak(folder: Path, *, minutes: float, seed: int, rate: float) -> bool:
    """Whether all that was promised has held."""
    with servers._private(folder / "stack", *SERVERS) as directory:
        stack = {name: servers._server(directory, name) for name in SERVERS}
        made = Soak(folder, stack, seed=seed, rate=rate)
        try:
            made.go(minutes * 60)
            try:
                made.run.verify(timeout_s=SETTLE_S)
            except AssertionError as exc:
                print(exc)
        finally:
            made.close()
    report = made.run.checker.report
    print(f"\n{runs.HEAD}\n{runs.row(made.run.name, report, made.run.load.held_back)}\n")
    print("\n".join(f"{count:>9} {what}" for what, count in sorted(report.counts.items())))
    print("\n".join(map(str, report.violations[:50])))
    return made.run.verified


def main() -> int:
    parser = argparse.ArgumentParser(prog="tests.faults.soak", description=__doc__)
    parser.add_argument("--minutes", type=float, default=30)
    parser.add_argument("--seed", type=int, default=random.randrange(1 << 32))
    parser.add_argument("--rate", type=float, default=300, help="operations per second")
    given = parser.parse_args()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))  # what was started is ended, too
    folder = Path(tempfile.mkdtemp(prefix="soraka-soak-"))
    print(f"seed {given.seed}, {given.minutes:g} minutes, in {folder}", flush=True)
    if soak(folder, minutes=given.minutes, seed=given.seed, rate=given.rate):
        shutil.rmtree(folder)
        print("nothing violated")
        return 0
    print(f"VIOLATED; repeat with --seed {given.seed}; history and logs are in {folder}")
    return 1


if __name__ == "__main__":
    sys.exit(main())
