"""What a slow worker among good ones costs, strategy by strategy: `python -m bench balance`.

Three workers; the first gets the CPU for 50 ms in each quarter of a second: SIGSTOP and SIGCONT,
by pid. It keeps up with its share of the messages, but makes late what falls due meanwhile. The
same flow goes to a topic of each strategy, in turns.
"""

import os
import signal
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from bench.processes import Guard
from bench.programs import Program, end_to_end
from bench.systems import Scale, running
from bench.targets import SinkProcess, SorakaTarget

STRATEGIES = ("round_robin", "least_loaded")
SLOW = "worker0"
RUNS_S, STOPPED_S = 0.05, 0.2


@contextmanager
def held_back(pid: int) -> Iterator[None]:
    """The process gets no CPU for most of the time."""
    done = threading.Event()
    holder = threading.Thread(target=_hold_back, args=(pid, done), daemon=True)
    holder.start()
    try:
        yield
    finally:
        done.set()
        holder.join()
        os.kill(pid, signal.SIGCONT)


def _hold_back(pid: int, done: threading.Event) -> None:
    while not done.wait(RUNS_S):
        os.kill(pid, signal.SIGSTOP)
        done.wait(STOPPED_S)
        os.kill(pid, signal.SIGCONT)


def compare(
    guard: Guard, sink: SinkProcess, *, rates: Sequence[int], seconds: float, rounds: int
) -> Iterator[dict[str, Any]]:
    """A row for each rate, round and strategy; then for one of them without a slow worker."""
    with running(guard, "servers", Scale(workers=3)) as system:
        targets = {}
        for strategy in STRATEGIES:
            targets[strategy] = SorakaTarget(
                guard, system, sink.url, system.new_topic("--balance", strategy)
            )
            # its partitions are found, and the workers' heartbeats known, before a figure
            _flow(targets[strategy], sink, "warm-up", 500, 4)
        for rate in rates:
            yield _flow(targets[STRATEGIES[0]], sink, f"{STRATEGIES[0]}, none slow", rate, seconds)
            with held_back(system.pids[SLOW]):
                _flow(targets[STRATEGIES[0]], sink, "until it shows", rate, 4)
                for _ in range(rounds):
                    for strategy, target in targets.items():
                        yield _flow(target, sink, strategy, rate, seconds)


def _flow(
    target: SorakaTarget, sink: SinkProcess, name: str, rate: int, seconds: float
) -> dict[str, Any]:
    program = Program(name=f"{name}, {rate}/s", count=int(rate * seconds), rate=rate, batch=10)
    return end_to_end(target, sink, program)
