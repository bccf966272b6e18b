"""Where the time of a role goes, by what it is spent on: a table from a profile of py-spy.

    py-spy record --gil --rate 400 --format raw --duration 5 --pid PID --output worker.raw
    python -m bench.where worker.raw --us 150 --kernel 0.16

With `--gil` py-spy counts what holds Python's lock, so neither idle threads nor system calls.
`--us` is the CPU of the process per message, as other benchmarks tell it, and `--kernel` the part
of that spent in the kernel, by `perf report --sort dso`: that is a row of its own, and the rest
is divided by samples. A sample counts for the first part whose function is in its stack.
"""

import argparse
from collections import Counter
from collections.abc import Iterable
from pathlib import Path

PARTS = (
    # worker
    ("Loop._claimed (", "claims"),
    ("Settler.run (", "settles"),
    ("Pager.run (", "paging the due index"),
    ("decode_message (", "decoding the message"),
    ("build (worker/", "building the request"),
    ("Admission.", "circuit, rate, gates"),
    ("Caller.__call__ (", "connection, sending, reading, deadline"),
    ("Calls._ended (", "outcome, metrics, statistics"),
    ("Worker._fired (", "outcome, metrics, statistics"),
    ("Loop._make_call (", "the rest of a call"),
    ("Loop._keep_time (", "timer"),
    ("Crew._work (", "greenlets and event loop"),
    ("Group.", "greenlets and event loop"),
    ("Greenlet.", "greenlets and event loop"),
    # center
    ("KafkaConsumer.poll (", "reading the log: kafka-python"),
    ("NetworkSelector.", "reading the log: kafka-python"),
    ("RedisStore.schedule (", "schedule"),
    ("decode (soraka/wire", "decoding the record"),
    ("Consume.", "the rest of a turn"),
    ("_Line._send_forever (", "hints to the workers"),
    # both
    ("RpcServer.", "Thrift server: hints, heartbeats"),
    ("Hub.run (", "greenlets and event loop"),
)


def parts(lines: Iterable[str]) -> Counter[str]:
    """Samples by part. Source: `py-spy record --format raw`."""
    counts = Counter[str]()
    for line in lines:
        stack, _, count = line.rpartition(" ")
        frames = stack.split(";")
        counts[_part(frames)] += int(count)
    return counts


def _part(frames: list[str]) -> str:
    if frames == [""]:  # between two: greenlets are made, switched and taken away
        return "greenlets and event loop"
    for function, part in PARTS:
        if any(frame.startswith(function) for frame in frames):
            return part
    return "else"


def main() -> None:
    parser = argparse.ArgumentParser(prog="bench.where", description=(__doc__ or "").split("\n")[0])
    parser.add_argument("profile", type=Path)
    parser.add_argument("--us", type=float, required=True, help="CPU per message")
    parser.add_argument("--kernel", type=float, default=0.0, help="the kernel's part of it, 0 to 1")
    options = parser.parse_args()
    counts = parts(options.profile.read_text().splitlines())
    whole = counts.total()
    print(f"{whole} samples\n\n| µs per message | |\n| --- | --- |")
    if options.kernel:
        print(f"| the kernel | {options.us * options.kernel:.0f} |")
    for part, count in counts.most_common():
        print(f"| {part} | {options.us * (1 - options.kernel) * count / whole:.1f} |")


if __name__ == "__main__":
    main()
