"""What more workers carry when it is the callbacks that take time: `python -m bench.scale`.

Each callback takes `--delay-ms`, and each worker has `--callbacks` places for them. A host that is
the only one gets half of those, so a worker can carry at most `callbacks / 2 / delay` messages/s,
far less than its CPU would allow. For each number of workers all messages are due at one moment;
`carried` is the rate at which they are called, `of_bound` by what the places allow, `gain` by that
of the fewest workers.
"""

import argparse

from bench.processes import Guard
from bench.programs import Program, Row, end_to_end, warm_up
from bench.report import cpu_of, spread
from bench.systems import Scale, running
from bench.targets import SinkProcess, SorakaTarget, sink_running

LEAD_MS = 8_000


def carried(guard: Guard, sink: SinkProcess, scale: Scale, count: int) -> Row:
    with running(guard, "servers", scale) as system:
        target = SorakaTarget(guard, system, sink.url)
        warm_up(target, sink)
        name = f"burst of {count}, workers: {scale.workers}"
        return end_to_end(target, sink, Program(name=name, count=count, lead_ms=LEAD_MS))


def measure(guard: Guard, sink: SinkProcess, options: argparse.Namespace) -> list[Row]:
    """One round: a row for each number of workers."""
    bound = options.callbacks / 2 / (options.delay_ms / 1000)
    rows: list[Row] = []
    for workers in options.workers:
        scale = Scale(workers=workers, callbacks=options.callbacks)
        count = int(bound * workers * options.seconds) // 100 * 100
        row = carried(guard, sink, scale, count)
        first = rows[0]["carried"] / rows[0]["workers"] if rows else row["rate"] / workers
        rows.append(
            {
                "workers": workers,
                "carried": row["rate"],
                "of_bound": round(row["rate"] / bound / workers, 2),
                "gain": round(row["rate"] / first, 2),
                "cpu_us": round(cpu_of(row)),
                "bad": [row[name] for name in ("early", "missing", "doubles", "refused")],
                "others": row["others"],
            }
        )
        print(rows[-1], flush=True)
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m bench.scale", description=__doc__)
    add = parser.add_argument
    add("--workers", type=int, nargs="*", default=[1, 2, 4, 8, 16])
    add("--delay-ms", type=int, default=50)
    add("--callbacks", type=int, default=10)
    add("--seconds", type=float, default=10, help="of work for the places that there are")
    add("--rounds", type=int, default=1)
    options = parser.parse_args()
    with Guard() as guard, sink_running(guard, options.delay_ms) as sink:
        rounds = [measure(guard, sink, options) for _ in range(options.rounds)]
    for rows in zip(*rounds, strict=True):
        print(
            f"workers {rows[0]['workers']}, median of {len(rows)}:"
            f" carried {spread([row['carried'] for row in rows])},"
            f" gain {spread([row['gain'] for row in rows])},"
            f" bad {sum(sum(row['bad']) for row in rows)}"
        )


if __name__ == "__main__":
    main()
