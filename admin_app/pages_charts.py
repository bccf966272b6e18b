"""What static/charts.js draws, as JSON. See there for its form."""

from collections.abc import Callable, Iterator, Sequence
from datetime import UTC, datetime
from typing import Any

from flask import Blueprint

from admin_app import words
from admin_app.monitor import FlowPoint, MinutePoint
from admin_app.pages_monitor import read_asked
from admin_app.service import Service
from soraka.stats import MINUTE_MS

COUNTS = {
    "accepted": "chart-1",
    "called": "chart-2",
    "failed": "chart-3",
    "dead": "chart-4",
    "cancelled": "chart-5",
}
TONES = ("chart-1", "chart-2", "chart-3", "chart-5", "chart-4")
MAX_POINTS = 720
"""Of one line: more are taken together."""
MAX_WORKERS = 5
"""With bars of their own; the others' are added up."""
Json = dict[str, Any]


def add_charts(pages: Blueprint, service: Service) -> None:
    @pages.get("/charts/counts.json")
    def counts_chart() -> Json:
        """The minute (or hour) that runs is left out: its count would look like a fall."""
        asked = read_asked(service)
        groups = grouped(service.monitor.minutes(*asked.of)[:-1])
        each = asked.step_ms // MINUTE_MS
        lines = [
            line(words.count_label(name).lower(), tone, [_rate(g, name, each) for g in groups])
            for name, tone in COUNTS.items()
        ]
        return over_time(groups, "", lines)

    @pages.get("/charts/flow.json")
    def flow_chart() -> Json:
        groups = grouped(service.monitor.calls(*read_asked(service).of).flow)
        flow = line("due time to end of callback", "chart-1", [_mean(g, _flow) for g in groups])
        alone = line("callback", "chart-2", [_mean(g, _callback) for g in groups])
        return over_time(groups, "ms", [flow, alone])

    @pages.get("/charts/lateness.json")
    def lateness_chart() -> Json:
        buckets = service.monitor.calls(*read_asked(service).of).lateness.buckets
        ends = [ms for ms, _ in buckets if ms is not None]
        labels = [f"≤ {words.duration(ms)}" for ms in ends] + [f"> {words.duration(ends[-1])}"]
        return bars(labels, [line("callbacks", "chart-1", [n for _, n in buckets])])

    @pages.get("/charts/workers.json")
    def workers_chart() -> Json:
        workers = sorted(service.monitor.worker_days(), key=lambda w: -sum(n for _, n in w.days))
        if not workers:
            return bars([], [])
        labels = [f"{datetime.fromtimestamp(d // 1000, UTC):%d %b}" for d, _ in workers[0].days]
        rows = [(w.worker, [n for _, n in w.days]) for w in workers]
        shown, rest = rows[:MAX_WORKERS], rows[MAX_WORKERS:]
        if rest:
            added = [sum(column) for column in zip(*(n for _, n in rest), strict=True)]
            shown[MAX_WORKERS - 1 :] = [
                (
                    f"{len(rest) + 1} others",
                    [a + b for a, b in zip(added, shown[-1][1], strict=True)],
                )
            ]
        return bars(labels, [line(name, TONES[i], n) for i, (name, n) in enumerate(shown)])


def line(label: str, tone: str, values: Sequence[float | None]) -> Json:
    return {"label": label, "tone": tone, "values": values}


def over_time(groups: Sequence[Sequence[Any]], unit: str, series: list[Json]) -> Json:
    """One x for each group: its first minute."""
    x = [group[0].minute // 1000 for group in groups]
    return {"kind": "lines", "unit": unit, "x": x, "series": series}


def bars(labels: list[str], series: list[Json]) -> Json:
    x = list(range(len(labels)))
    return {"kind": "bars", "unit": "", "x": x, "labels": labels, "series": series}


def grouped(points: Sequence[Any]) -> list[Sequence[Any]]:
    """Minutes that follow one another, in at most MAX_POINTS groups."""
    length = -(-len(points) // MAX_POINTS) or 1
    return list(_chunks(points, length))


def _chunks(points: Sequence[Any], length: int) -> Iterator[Sequence[Any]]:
    for start in range(0, len(points), length):
        yield points[start : start + length]


def _rate(group: Sequence[MinutePoint], name: str, minutes: int) -> float:
    """Per minute; each point is of so many."""
    return round(sum(point.counts[name] for point in group) / len(group) / minutes, 2)


def _mean(group: Sequence[FlowPoint], of: Callable[[FlowPoint], float | None]) -> float | None:
    """By the number of callbacks; None when there was none."""
    called = sum(point.called for point in group)
    if not called:
        return None
    return round(sum(p.called * (of(p) or 0) for p in group) / called, 1)


def _flow(point: FlowPoint) -> float | None:
    return point.flow_ms


def _callback(point: FlowPoint) -> float | None:
    return point.callback_ms
