"""One message: all that is known of it, and what may be done with it."""

import json
from collections.abc import Callable

from flask import Blueprint, render_template, request, url_for

from admin_app import words
from admin_app.page_kit import Answer, Reader, asks, then
from admin_app.service import Service

DONE = {
    "cancel": "Cancelled: it will not be called.",
    "fire_now": "Due now.",
    "redrive": "Redriven: it is called again.",
}


def add_message(pages: Blueprint, service: Service) -> None:
    @pages.get("/messages/<msg_id>")
    def message(msg_id: str) -> Answer:
        detail = service.messages.detail(msg_id)
        return render_template(
            "message.html",
            here="messages",
            detail=detail,
            params=_pretty(detail.stored.message.callback.params),
            now=service.now_ms(),
            add_time=request.args.get("add_time", "5m"),
        )

    @pages.post("/messages/<msg_id>/postpone")
    def postpone(msg_id: str) -> Answer:
        reader = Reader(request.form)
        add_ms = reader.get("add_time", words.read_duration)

        def change() -> None:
            reader.raise_first()
            service.messages.postpone(msg_id, add_ms)

        return then(_page(msg_id), f"Postponed by {words.duration(add_ms)}.", change)

    changes: dict[str, Callable[[str], None]] = {
        "cancel": lambda msg_id: service.messages.cancel(msg_id),
        "fire_now": lambda msg_id: service.messages.fire_now(msg_id),
        "redrive": lambda msg_id: service.messages.redrive(msg_id),
    }
    for name, change in changes.items():
        _add_change(pages, name, change)


def _add_change(pages: Blueprint, name: str, change: Callable[[str], None]) -> None:
    def view(msg_id: str) -> Answer:
        return then(_page(msg_id), DONE[name], lambda: change(msg_id))

    asking = asks(name, lambda msg_id: f"message {msg_id}")(view)
    pages.add_url_rule(f"/messages/<msg_id>/{name}", name, asking, methods=["POST"])


def _page(msg_id: str) -> str:
    return url_for("pages.message", msg_id=msg_id)


def _pretty(params: str | None) -> str:
    """As it is when it is no JSON."""
    if params is None:
        return ""
    try:
        return json.dumps(json.loads(params), indent=2, ensure_ascii=False)
    except ValueError:
        return params
