"""The first page."""

from typing import NamedTuple

from flask import Blueprint, render_template

from admin_app.overview import Overview, Role
from admin_app.service import Service

SHOWN = ("accepted", "called", "failed", "dead", "cancelled")
NEEDED = ("receive", "center", "worker")


class Part(NamedTuple):
    """A role, or a server, in a word; `tone` is good, warn or bad."""

    name: str
    tone: str
    words: str


def add_overview(pages: Blueprint, service: Service) -> None:
    @pages.get("/")
    def overview() -> str:
        got = service.overview()
        return render_template(
            "overview.html",
            here="overview",
            parts=[*map(_role, got.roles), *(_server(*item) for item in got.ports.items())],
            got=got,
            oldest_ms=_oldest_ms(got),
            last=got.minutes[-2] if got.minutes else None,
            nothing=got.totals is not None and got.totals.scheduled == 0,
            points=got.minutes or [],
            shown=SHOWN,
        )


def _role(role: Role) -> Part:
    if not role.live:
        tone = "bad" if role.service in NEEDED else "warn"
        return Part(role.service.capitalize(), tone, "none live")
    draining = f", {role.draining} draining" if role.draining else ""
    return Part(role.service.capitalize(), "good", f"{role.live} live{draining}")


def _server(name: str, trouble: str) -> Part:
    return Part(name.capitalize(), "bad" if trouble else "good", trouble or "answers")


def _oldest_ms(got: Overview) -> int | None:
    if got.backlog is None or got.backlog.oldest_due_at is None:
        return None
    return max(0, got.now_ms - got.backlog.oldest_due_at)
