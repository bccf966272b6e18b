"""Messages by filter, and dead letters; changes to many of them."""

from collections.abc import Callable, Mapping
from typing import Any
from urllib.parse import urlencode

from flask import Blueprint, flash, render_template, request, url_for

from admin_app import words
from admin_app.accounts import Account
from admin_app.messages import FOREVER, Filter
from admin_app.page_kit import Answer, Reader, asks, tell_refused, to
from admin_app.service import Service
from soraka.errors import InvalidParams, SorakaError
from soraka.message import State, Stored

PER_PAGE = 50
FILTER = ("topic", "state", "since", "until", "prefix")
BULK = ("cancel", "postpone", "fire_now", "redrive")
STARTED = {
    "cancel": "Cancelling",
    "postpone": "Postponing",
    "fire_now": "Firing",
    "redrive": "Redriving",
}


def add_messages(pages: Blueprint, service: Service, user: Callable[[], Account]) -> None:
    @pages.get("/messages")
    def messages() -> Answer:
        return _list(service, "messages", request.args)

    @pages.get("/dead")
    def dead() -> Answer:
        return _list(service, "dead", {**request.args, "state": State.DEAD})

    @pages.post("/messages/bulk")
    def bulk() -> Answer:
        form = request.form
        action = next((name for name in BULK if form.get("action") == name), None)
        if action is None:
            flash("Not done. Choose what to do with the messages.", "error")
            return to(_back(form))
        if form.get("scope") != "all" and not form.getlist("msg_id"):
            flash("Not done. Select messages, or choose all that match.", "error")
            return to(_back(form))
        return asks(f"bulk_{action}", lambda: _whom(form))(
            lambda: _start(service, user().name, action, form)
        )()


def _list(service: Service, here: str, given: Mapping[str, str]) -> Answer:
    reader = Reader(given)
    chosen = read_filter(reader)
    found: list[Stored] = []
    cursor = ""
    if not reader.errors:
        try:
            found, cursor = service.messages.search(chosen, given.get("cursor", ""), PER_PAGE)
        except InvalidParams as exc:
            reader.wrong(exc, {"states": "state", "topics": "topic"})
    page = render_template(
        f"{here}.html",
        here=here,
        found=found,
        form={name: given.get(name, "") for name in FILTER},
        errors=reader.errors,
        filtered=any(given.get(name) for name in FILTER if (here, name) != ("dead", "state")),
        topics=[view.topic.name for view in service.topics.all()],
        newest=_link(here, given) if given.get("cursor") else None,
        older=_link(here, given, cursor) if cursor else None,
        back=request.full_path,
        now=service.now_ms(),
    )
    return (page, 400) if reader.errors else page


def read_filter(reader: Reader) -> Filter:
    """What a form asks for; what is wrong is in the errors of the reader."""
    topic, state = reader.text("topic"), reader.text("state")
    if state and state not in tuple(State):
        reader.wrong(InvalidParams("state", f"must be one of {', '.join(State)}"))
        state = ""
    since, until = reader.get("since", words.read_moment), reader.get("until", words.read_moment)
    if None not in (since, until) and until <= since:
        reader.wrong(InvalidParams("until", "must be after that of 'Submitted from'"))
    return Filter(
        topics=(topic,) if topic else (),
        states=(State(state),) if state else (),
        since=since or 0,
        until=FOREVER if until is None else until,
        prefix=reader.text("prefix").lower(),
    )


def _start(service: Service, who: str, action: str, form: Any) -> Answer:
    reader = Reader(form)
    add_ms = reader.get("add_time", words.read_duration) if action == "postpone" else 0
    scope: dict[str, Any] = {"ids": form.getlist("msg_id")}
    if form.get("scope") == "all":
        scope = {"chosen": read_filter(reader)}
    try:
        reader.raise_first()
        job = service.bulk.start(action, who, add_ms=add_ms, **scope)
    except SorakaError as exc:
        tell_refused(exc)
        return to(_back(form))
    flash(f"{STARTED[action]} {_whom(form)}; this goes on in the background.", "done")
    return to(url_for("pages.job", job_id=job.id))


def _whom(form: Any) -> str:
    if form.get("scope") == "all":
        return "all messages that match"
    count = len(form.getlist("msg_id"))
    return "1 message" if count == 1 else f"{count} messages"


def _back(form: Mapping[str, str]) -> str:
    """Where the form was; only ever one of our lists."""
    here = "dead" if form.get("here") == "dead" else "messages"
    return _link(here, form, form.get("cursor", ""))


def _link(here: str, given: Mapping[str, str], cursor: str = "") -> str:
    names = [name for name in FILTER if (here, name) != ("dead", "state")]
    query = {name: given[name] for name in names if given.get(name)}
    if cursor:
        query["cursor"] = cursor
    return f"{url_for(f'pages.{here}')}{'?' if query else ''}{urlencode(query)}"
