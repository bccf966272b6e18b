"""Flow and callback times, lateness, and what each worker has called."""

from flask import Blueprint, render_template, request

from admin_app.page_kit import Answer
from admin_app.service import Service

RANGES = ((60, "1 hour"), (360, "6 hours"), (1440, "1 day"), (10_080, "7 days"))
MINUTE_MS = 60_000


def add_monitor(pages: Blueprint, service: Service) -> None:
    @pages.get("/monitor")
    def monitor() -> Answer:
        topic, minutes = request.args.get("topic", "").strip(), read_minutes()
        until = service.now_ms()
        since = until - (minutes - 1) * MINUTE_MS
        flow = service.monitor.flow(since, until, topic)
        return render_template(
            "monitor.html",
            here="monitor",
            topic=topic,
            minutes=minutes,
            ranges=RANGES,
            topics=[view.topic.name for view in service.topics.all()],
            flow=[point for point in flow if point.called][-120:],
            called=sum(point.called for point in flow),
            lateness=service.monitor.lateness(since, until, topic),
            days=service.monitor.worker_days(),
        )


def read_minutes() -> int:
    """One of RANGES; an hour for anything else."""
    asked = request.args.get("minutes", "")
    return next((minutes for minutes, _ in RANGES if str(minutes) == asked), RANGES[0][0])
