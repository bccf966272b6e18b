"""Messages by filter, and dead letters; changes to many of them."""

from collections.abc import Callable, Mapping
from typing import Any
from urllib.parse import urlencode

from flask import Blueprint, flash, render_template, request, url_for
from werkzeug.datastructures import MultiDict

from admin_app import words
from admin_app.accounts import Account
from admin_app.messages import FOREVER, Filter
from admin_app.page_kit import Answer, Reader, asks, tell_refused, to
from admin_app.service import Service
from soraka.errors import InvalidParams, SorakaError
from soraka.message import State, Stored

PER_PAGE = 50
FILTER = ("topic", "state", "since", "until", "prefix")
TOPIC = ("topic", "topics", "topic_name")
"""Names that one topic or several may come under, as in the calls of the API."""
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
        return _list(service, "messages", _given(request.args))

    @pages.get("/dead")
    def dead() -> Answer:
        return _list(service, "dead", {**_given(request.args), "state": State.DEAD})

    @pages.post("/messages/bulk")
    def bulk() -> Answer:
        form = _given(request.form)
        action = next((name for name in BULK if form.get("action") == name), None)
        if action is None:
            flash("Not done. Choose what to do with the messages.", "error")
            return to(_back(form))
        ids = request.form.getlist("msg_id")
        if form.get("scope") != "all" and not ids:
            flash("Not done. Select messages, or choose all that match.", "error")
            return to(_back(form))
        return asks(f"bulk_{action}", lambda: _whom(form, ids))(
            lambda: _start(service, user().name, action, form, ids)
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


def _given(fields: MultiDict[str, str]) -> dict[str, str]:
    """The topics under whichever names they come are the `topic` of the form."""
    every = [text for name in TOPIC for text in fields.getlist(name)]
    return {**fields.to_dict(), "topic": ", ".join(_names(",".join(every)))}


def _names(text: str) -> tuple[str, ...]:
    """Of topics, separated by commas, each once."""
    return tuple(dict.fromkeys(name.strip() for name in text.split(",") if name.strip()))


def read_filter(reader: Reader) -> Filter:
    """What a form asks for; what is wrong is in the errors of the reader."""
    topics, state = _names(reader.text("topic")), reader.text("state")
    if state and state not in tuple(State):
        reader.wrong(InvalidParams("state", f"must be one of {', '.join(State)}"))
        state = ""
    since, until = reader.get("since", words.read_moment), reader.get("until", words.read_moment)
    if None not in (since, until) and until <= since:
        reader.wrong(InvalidParams("until", "must be after that of 'Submitted from'"))
    return Filter(
        topics=topics,
        states=(State(state),) if state else (),
        since=since or 0,
        until=FOREVER if until is None else until,
        prefix=reader.text("prefix").lower(),
    )


def _start(
    service: Service, who: str, action: str, form: Mapping[str, str], ids: list[str]
) -> Answer:
    reader = Reader(form)
    add_ms = reader.get("add_time", words.read_duration) if action == "postpone" else 0
    scope: dict[str, Any] = {"ids": ids}
    if form.get("scope") == "all":
        scope = {"chosen": read_filter(reader)}
    try:
        reader.raise_first()
        job = service.bulk.start(action, who, add_ms=add_ms, **scope)
    except SorakaError as exc:
        tell_refused(exc)
        return to(_back(form))
    flash(f"{STARTED[action]} {_whom(form, ids)}; this goes on in the background.", "done")
    return to(url_for("pages.job", job_id=job.id))


def _whom(form: Mapping[str, str], ids: list[str]) -> str:
    if form.get("scope") == "all":
        return "all messages that match"
    return "1 message" if len(ids) == 1 else f"{len(ids)} messages"


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
