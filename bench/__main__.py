"""`python -m bench KIND --on standalone|servers`. See README.md."""

import argparse
import os
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NoReturn

from bench import balance, report, smoke
from bench.numbers import calibration, wait_quiet
from bench.processes import Guard
from bench.programs import (
    Program,
    end_to_end,
    pending,
    reference,
    restart,
    submits,
    warm_up,
)
from bench.systems import Scale, Servers, running
from bench.targets import (
    SinkProcess,
    SorakaTarget,
    Target,
    bare_running,
    celery_running,
    sink_running,
    versions,
)

BURST_LEAD_MS = 10_000
SMOKE_LEAD_MS = 3_000
KINDS = ("submit", "e2e", "pending", "peer", "balance", "smoke", "all")


class Run:
    """One call of the command: options in, rows out."""

    def __init__(self, options: argparse.Namespace, guard: Guard, sink: SinkProcess) -> None:
        self._options = options
        self._guard = guard
        self._sink = sink
        self._rows: list[dict[str, Any]] = []
        self._calibrations: list[dict[str, float]] = []
        self._compared: list[dict[str, Any]] = []
        self._ratios: list[tuple[str, dict[str, float]]] = []

    def submit(self) -> None:
        """Each round beside a bare Flask of as many processes; medians of the rounds at the end."""
        options = self._options
        kinds = [(p, batch) for p in ("http", "thrift") for batch in (1, options.batch)]
        with self._soraka() as target:
            for _ in range(options.rounds):
                bare = self._bare()
                for protocol, batch in kinds:
                    self._compare(self._submits(target, protocol, batch), bare)
        self._conclude()

    def _submits(self, target: SorakaTarget, protocol: str, batch: int) -> dict[str, Any]:
        options = self._options
        self._settle()
        row = submits(
            target,
            self._sink,
            protocol=protocol,
            batch=batch,
            connections=options.connections * (8 if batch == 1 else 1),
            seconds=options.seconds,
        )
        self._say("submit", row)
        return row

    def _bare(self) -> dict[str, Any]:
        """How fast the machine is now."""
        options = self._options
        processes = 1 if options.on == "standalone" else options.receive_processes
        with bare_running(self._guard, processes) as target:
            self._settle()
            row = reference(target, connections=options.connections * 8, seconds=options.seconds)
        self._say("submit", row)
        return row

    def smoke(self) -> None:
        """Raises SystemExit when soraka has become much slower than it was."""
        options = self._options
        burst = Program(name="burst", count=options.burst, lead_ms=SMOKE_LEAD_MS)
        with self._soraka() as target:
            rows = [self._bare()]
            rows += [self._submits(target, "http", batch) for batch in (1, options.batch)]
            rows.append(end_to_end(target, self._sink, burst))
            self._say("e2e", rows[-1])
        found = smoke.figures(*rows)
        print("by a bare Flask:", {name: round(n, 2) for name, n in found.items()}, flush=True)
        if fallen := smoke.fallen(found):
            raise SystemExit("much slower than it was: " + "; ".join(fallen))

    def e2e(self) -> None:
        """Each round beside a bare Flask; medians of the rounds at the end."""
        with self._soraka() as target:
            for _ in range(self._options.rounds):
                bare = self._bare()
                for program in self._programs():
                    self._settle()
                    row = end_to_end(target, self._sink, program)
                    self._say("e2e", row)
                    self._compare(row, bare)
        self._conclude()

    def pending(self) -> None:
        rate = 500
        near = Program(name=f"steady {rate}/s", count=int(rate * self._options.seconds), rate=rate)
        with self._soraka() as target:
            self._settle()
            rows = pending(
                target,
                self._sink,
                count=self._options.pending,
                near=near,
                say=lambda row: self._say("fill" if "submit_s" in row else "e2e", row),
            )
            print(report.ratio(rows[2] | {"target": "after"}, rows[0] | {"target": "before"}))
            if isinstance(target.system, Servers):
                for _ in range(self._options.rounds):
                    self._say("start", restart(target, target.system, self._sink))

    def peer(self) -> None:
        """Turn and turn about, so that both meet the same machine."""
        with self._soraka() as ours, self._celery() as theirs:
            warm_up(theirs, self._sink)
            for program in self._programs():
                for _ in range(self._options.rounds):
                    pair: list[dict[str, Any]] = []
                    target: Target
                    for target in (ours, theirs):
                        self._settle()
                        pair.append(end_to_end(target, self._sink, program))
                        self._say("e2e", pair[-1])
                    print(report.ratio(*pair), flush=True)

    def balance(self) -> None:
        """Of real servers, whatever `--on` says: a standalone has one worker."""
        options = self._options
        rows = balance.compare(
            self._guard,
            self._sink,
            rates=options.rates,
            seconds=options.seconds,
            rounds=options.rounds,
        )
        for row in rows:
            self._say("e2e", row)

    def _compare(self, row: dict[str, Any], bare: dict[str, Any]) -> None:
        self._compared.append(row)
        self._ratios.append(report.against(row, bare))

    def _conclude(self) -> None:
        print(report.typical(self._compared), report.medians(self._ratios), sep="\n", flush=True)
        self._compared.clear()
        self._ratios.clear()

    def document(self) -> dict[str, Any]:
        return {
            "versions": versions(),
            "cores": os.cpu_count(),
            "options": {k: v for k, v in vars(self._options).items() if k != "json"},
            "calibration": self._calibrations,
            "rows": self._rows,
        }

    def calibrate(self) -> None:
        self._calibrations.append(calibration())
        print("calibration", self._calibrations[-1], flush=True)

    def _programs(self) -> list[Program]:
        options = self._options
        common = {"protocol": options.protocol, "connections": options.connections}
        programs = [
            Program(
                name=f"burst of {options.burst}",
                count=options.burst,
                lead_ms=BURST_LEAD_MS,
                batch=options.batch,
                **common,
            )
        ]
        for rate in options.rates:
            count = int(rate * options.seconds) // options.batch * options.batch
            name = f"steady {rate}/s"
            programs.append(
                Program(name=name, count=count, rate=rate, batch=options.batch, **common)
            )
        return programs

    @contextmanager
    def _soraka(self) -> Iterator[SorakaTarget]:
        options = self._options
        scale = Scale(
            receive=options.receive_processes, centers=options.centers, workers=options.workers
        )
        with running(self._guard, options.on, scale) as system:
            target = SorakaTarget(self._guard, system, self._sink.url)
            warm_up(target, self._sink)
            yield target

    @contextmanager
    def _celery(self) -> Iterator[Target]:
        workers = self._options.peer_workers
        with celery_running(self._guard, self._sink.url, workers) as target:
            yield target

    def _settle(self) -> None:
        """Other work on a shared machine would be measured too."""
        if self._options.quiet and not wait_quiet(self._options.quiet):
            print(f"not quiet within {self._options.quiet} s: see `others`", flush=True)

    def _say(self, kind: str, row: dict[str, Any]) -> None:
        self._rows.append({"kind": kind, **row})
        print(report.table(kind, [row]), flush=True)


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m bench", description=__doc__)
    parser.add_argument("bench", choices=KINDS)
    parser.add_argument("--on", choices=("standalone", "servers"), default="standalone")
    add = parser.add_argument
    add("--seconds", type=float, default=10, help="of each steady flow (%(default)s)")
    add("--rates", type=int, nargs="*", default=[1000, 5000], help="messages/s (%(default)s)")
    add("--burst", type=int, default=10_000, help="messages due at once (%(default)s)")
    add("--pending", type=int, default=1_000_000, help="messages due in a day (%(default)s)")
    add("--batch", type=int, default=100, help="messages per submit; 1: singles (%(default)s)")
    add("--protocol", choices=("http", "thrift"), default="http", help="of e2e (%(default)s)")
    add("--connections", type=int, default=8, help="for batches; 8 times for singles (%(default)s)")
    add("--workers", type=int, default=1, help="worker processes, on servers (%(default)s)")
    add("--centers", type=int, default=1, help="center processes, on servers (%(default)s)")
    add("--receive-processes", type=int, default=1, help="gunicorn workers (%(default)s)")
    add("--rounds", type=int, default=1, help="of all but smoke (%(default)s)")
    add("--peer-workers", type=int, default=2, help="Celery worker processes (%(default)s)")
    add("--quiet", type=float, default=0, help="wait so many s for an idle machine (%(default)s)")
    add("--limit", type=int, default=1800, help="s; then everything is ended (%(default)s)")
    add("--json", type=Path, help="write the rows to this file too")
    return parser.parse_args()


def _end(number: int, _frame: object) -> NoReturn:
    raise SystemExit(f"ended by {signal.Signals(number).name}")


def main() -> None:
    options = _options()
    signal.signal(signal.SIGTERM, _end)
    signal.signal(signal.SIGALRM, _end)
    signal.alarm(options.limit)
    with Guard() as guard, sink_running(guard) as sink:
        run = Run(options, guard, sink)
        try:
            run.calibrate()
            wanted = ("submit", "e2e", "pending", "peer")
            for name in wanted if options.bench == "all" else (options.bench,):
                print(f"== {name}, {options.on}", flush=True)
                getattr(run, name)()
            run.calibrate()
        finally:
            if options.json:
                report.write(options.json, run.document())


if __name__ == "__main__":
    main()
