"""Rows as tables for people, and as JSON."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from statistics import median
from typing import Any

Row = Mapping[str, Any]

_SUBMIT = ("target", "program", "connections", "accepted", "refused", "submit_rate", "submit_ms")
COLUMNS = {
    "submit": (*_SUBMIT, "stored_s", "cpu_us", "cpu_while_accepting", "others", "error"),
    "e2e": (
        *("target", "program", "accepted", "refused", "submit_rate", "lag_ms", "rate", "late_ms"),
        *("early", "missing", "doubles", "cpu_us", "rss_mb", "others", "error"),
    ),
    "start": ("target", "program", "called_s", "rss_mb"),
    "fill": (
        *("target", "program", "accepted", "refused", "submit_rate", "submit_s", "stored_s"),
        *("size_mb", "cpu_us", "rss_mb", "others", "error"),
    ),
}
_LONG = {"cpu_us", "cpu_while_accepting", "rss_mb", "size_mb", "error"}


def table(kind: str, rows: Sequence[Row]) -> str:
    """Columns of short figures; what differs from process to process goes on lines below."""
    names = [name for name in COLUMNS[kind] if name not in _LONG]
    cells = [names] + [[_cell(row.get(name, "")) for name in names] for row in rows]
    widths = [max(len(line[i]) for line in cells) for i in range(len(names))]
    lines = ["  ".join(c.ljust(w) for c, w in zip(line, widths, strict=True)) for line in cells]
    shown = [lines[0]]
    for line, row in zip(lines[1:], rows, strict=True):
        shown.append(line)
        shown += [
            f"    {name}: {_cell(row[name])}"
            for name in COLUMNS[kind]
            if name in _LONG and row.get(name)
        ]
    return "\n".join(shown)


def _cell(value: Any) -> str:
    if isinstance(value, Mapping):
        return "  ".join(f"{key} {_cell(item)}" for key, item in value.items())
    if isinstance(value, tuple | list):
        return " / ".join(map(_cell, value))
    return f"{value:,}" if isinstance(value, int) else str(value)


def ratio(soraka: Row, peer: Row) -> str:
    """One line: the rates and the latenesses of two runs of one program."""

    def of(ours: float, theirs: float) -> str:
        return f"{ours / theirs:.2f}" if theirs else "-"

    late, theirs = soraka["late_ms"], peer["late_ms"]
    return (
        f"{soraka['target']} / {peer['target']}, {soraka['program']}: "
        f"submits/s {of(soraka['submit_rate'], peer['submit_rate'])}, "
        f"callbacks/s {of(soraka['rate'], peer['rate'])}, "
        f"lateness p50 {of(late[0], theirs[0])}, p99 {of(late[1], theirs[1])}, "
        f"CPU per message {of(cpu_of(soraka), cpu_of(peer))}"
    )


def against(row: Row, bare: Row) -> tuple[str, dict[str, float]]:
    """Of a row: its program, and its figures by those of the reference."""
    rate, flask_us = bare["submit_rate"], bare["cpu_us"]["bare"]
    if "rate" in row:
        figures = {
            "callbacks/s": row["rate"] / rate,
            "CPU of all per message": cpu_of(row) / flask_us,
        }
        return row["program"], figures
    cpu, ours = row["cpu_while_accepting"], ("receive", "standalone")
    receive = next(cpu[name] for name in ours if name in cpu)
    return row["program"], {
        "submits/s": row["submit_rate"] / rate,
        "CPU of receive per message": receive / flask_us,
    }


def typical(rows: Sequence[Row]) -> str:
    """The medians of each program over its rounds, and from the least to the most."""
    lines = []
    for program in dict.fromkeys(row["program"] for row in rows):
        rounds = [_figures(row) for row in rows if row["program"] == program]
        said = [f"{name} {spread([r[name] for r in rounds])}" for name in rounds[0]]
        lines.append(f"{program}, median of {len(rounds)}: {', '.join(said)}")
    return "\n".join(lines)


def _figures(row: Row) -> dict[str, float]:
    found: dict[str, float] = {"submits/s": row["submit_rate"]}
    if "rate" in row:
        late = dict(zip(("p50", "p99", "max"), row["late_ms"], strict=True))
        found = {"callbacks/s": row["rate"]} | {f"lateness {p} ms": ms for p, ms in late.items()}
        wrong = ("early", "missing", "doubles", "refused")
        found["early, missing, doubles, refused"] = sum(row[name] for name in wrong)
    else:
        found |= {f"{p} ms": ms for p, ms in zip(("p50", "p99"), row["submit_ms"], strict=False)}
    for name, us in row.get("cpu_while_accepting", row["cpu_us"]).items():
        role = f"{name.rstrip('0123456789')} us"
        found[role] = found.get(role, 0) + us
    return found


def spread(values: Sequence[float]) -> str:
    """Their median, the least and the most."""
    return f"{median(values):,.6g} ({min(values):,.6g} to {max(values):,.6g})"


def medians(ratios: Sequence[tuple[str, Mapping[str, float]]]) -> str:
    """Of what `against` gave, a line per program."""
    lines = []
    for program in dict.fromkeys(program for program, _ in ratios):
        rounds = [figures for name, figures in ratios if name == program]
        said = [f"{what} {median(r[what] for r in rounds):.2f}" for what in rounds[0]]
        lines.append(f"{program} / bare Flask, median of {len(rounds)}: {', '.join(said)}")
    return "\n".join(lines)


def cpu_of(row: Row) -> float:
    """CPU of all per message, µs, without the sink and the generator."""
    costs: Mapping[str, float] = row["cpu_us"]
    return sum(us for name, us in costs.items() if name not in ("sink", "load"))


def write(file: Path, document: Mapping[str, Any]) -> None:
    file.write_text(json.dumps(document, indent=1) + "\n")
