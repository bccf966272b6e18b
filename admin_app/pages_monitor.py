"""Flow and callback times, lateness, and what each worker has called."""

from typing import NamedTuple

from flask import Blueprint, render_template, request

from admin_app.page_kit import Answer
from admin_app.service import Service
from soraka.stats import HOUR_MS, MINUTE_MS

RANGES = ((60, "1 hour"), (360, "6 hours"), (1440, "1 day"), (10_080, "7 days"))
MAX_MINUTES = 1440
"""Shown by minute; of more, each hour."""


class Asked(NamedTuple):
    """What the address of a page or chart says; the first four are what Monitor is asked for."""

    since: int
    until: int
    topic: str
    step_ms: int
    minutes: int

    @property
    def of(self) -> tuple[int, int, str, int]:
        return self[:4]


def add_monitor(pages: Blueprint, service: Service) -> None:
    @pages.get("/monitor")
    def monitor() -> Answer:
        asked = read_asked(service)
        calls = service.monitor.calls(*asked.of)
        return render_template(
            "monitor.html",
            here="monitor",
            topic=asked.topic,
            minutes=asked.minutes,
            by="minute" if asked.step_ms == MINUTE_MS else "hour",
            ranges=RANGES,
            topics=[view.topic.name for view in service.topics.all()],
            flow=[point for point in calls.flow if point.called][-120:],
            called=sum(point.called for point in calls.flow),
            lateness=calls.lateness,
            days=service.monitor.worker_days(),
        )


def read_asked(service: Service) -> Asked:
    """One of RANGES, up to now; an hour for anything else."""
    asked = request.args.get("minutes", "")
    minutes = next((minutes for minutes, _ in RANGES if str(minutes) == asked), RANGES[0][0])
    step_ms = MINUTE_MS if minutes <= MAX_MINUTES else HOUR_MS
    until = service.now_ms()
    since = until - until % step_ms - minutes * MINUTE_MS + step_ms
    topic = request.args.get("topic", "").strip()
    return Asked(since, until, topic, step_ms, minutes)
