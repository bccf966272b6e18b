"""Topics: the list, and the page of each with its settings."""

from collections.abc import Mapping
from dataclasses import replace
from functools import partial
from typing import Any
from urllib.parse import urlencode

from flask import Blueprint, flash, render_template, request, url_for

from admin_app import words
from admin_app.access import operator_only
from admin_app.page_kit import Answer, Reader, asks, refused, tell_refused, then, to
from admin_app.service import Service
from soraka.errors import Conflict, InvalidParams, SorakaError
from soraka.limits import BALANCES, DEFAULT_RETRY_MS
from soraka.message import Topic
from soraka.topics import check_name, check_settings

PER_PAGE = 50
MAX_START_DIGITS = 9
NUMBERS = ("worker_num", "max_concurrent_dispatches", "max_dispatches_per_second")
BALANCE_WORDS = {
    "round_robin": "in turn",
    "random": "at random",
    "weighted_round_robin": "in turn, by weight",
    "weighted_random": "at random, by weight",
    "least_loaded": "the less loaded of two",
}
SECRETS = {
    "older": "older secret of {}",
    "newer": "newer secret of {}",
    "all": "secrets of {}",
}
FIELDS = {"retry": "retry_ms"}
"""Of the form, by what errors call them."""


def add_topics(pages: Blueprint, service: Service) -> None:
    @pages.get("/topics")
    def topics() -> str:
        prefix, start = request.args.get("prefix", ""), max(0, _start(request.args))
        found = [view for view in service.topics.all() if view.topic.name.startswith(prefix)]
        page = found[start : start + PER_PAGE]
        return render_template(
            "topics.html",
            here="topics",
            topics=page,
            total=len(found),
            prefix=prefix,
            shown=f"{start + 1}–{start + len(page)} of {len(found)}",  # noqa: RUF001
            first=_link(prefix, 0) if start else None,
            next=_link(prefix, start + PER_PAGE) if start + PER_PAGE < len(found) else None,
        )

    @pages.route("/topics/new", methods=["GET", "POST"])
    @operator_only
    def new_topic() -> Answer:
        if request.method == "GET":
            return _form_page(_blank(), {}, new=True)
        reader = Reader(request.form)
        name, settings = reader.text("topic_name"), _settings(reader)
        reader.check(lambda: check_name(name))
        if not reader.errors:
            try:
                service.topics.add(name, settings, reader.text("choose"))
            except SorakaError as exc:
                _wrong(reader, exc)
            else:
                flash(f"Topic {name} added.", "done")
                return to(url_for("pages.topic", name=name))
        return _form_page(request.form, reader.errors, new=True), 400

    @pages.route("/topics/<name>", methods=["GET", "POST"])
    def topic(name: str) -> Answer:
        view = service.topics.get(name)
        reader = Reader(request.form)
        if request.method == "POST":
            settings = _settings(reader, view.topic)
            if not reader.errors:
                try:
                    service.topics.update(name, settings, reader.text("choose"))
                except SorakaError as exc:
                    _wrong(reader, exc)
                else:
                    flash("Settings saved.", "done")
                    return to(url_for("pages.topic", name=name))
        form = request.form if reader.errors else _values(view.topic)
        page = _form_page(form, reader.errors, view=view)
        return (page, 400) if reader.errors else page

    @pages.post("/topics/<name>/pause")
    @asks("pause", lambda name: name)
    def pause_topic(name: str) -> Answer:
        here = url_for("pages.topic", name=name)
        return then(here, f"{name} is paused.", lambda: service.topics.pause(name))

    @pages.post("/topics/<name>/resume")
    def resume_topic(name: str) -> Answer:
        here = url_for("pages.topic", name=name)
        return then(here, f"{name} is resumed.", lambda: service.topics.resume(name))

    @pages.post("/topics/<name>/secrets")
    def add_secret(name: str) -> Answer:
        reader = Reader(request.form)
        made = None
        try:
            made = service.topics.add_secret(name, reader.text("secret") or None)
        except InvalidParams as exc:
            reader.wrong(exc)
        except Conflict as exc:
            tell_refused(exc)
            return to(url_for("pages.topic", name=name))
        view = service.topics.get(name)
        page = _form_page(_values(view.topic), reader.errors, view=view, made=made)
        return (page, 400) if reader.errors else page

    @pages.post("/topics/<name>/secrets/<which>/remove")
    @asks("remove_secret", lambda name, which: SECRETS.get(which, "secret").format(name))
    def remove_secret(name: str, which: str) -> Answer:
        here = url_for("pages.topic", name=name)
        done = "Removed. Callbacks that leave from now on are without its signature."
        return then(here, done, lambda: service.topics.remove_secret(name, which))

    @pages.post("/topics/<name>/delete")
    @asks("delete", lambda name: name)
    def delete_topic(name: str) -> Answer:
        try:
            service.topics.delete(name)
        except SorakaError as exc:
            tell_refused(exc)
            return to(url_for("pages.topic", name=name))
        flash(f"Topic {name} deleted.", "done")
        return to(url_for("pages.topics"))


def _form_page(form: Mapping[str, Any], errors: Mapping[str, str], **given: Any) -> str:
    new = given.get("new", False)
    return render_template(
        "topic_new.html" if new else "topic.html",
        here="topics",
        form=form,
        errors=errors,
        balances=[(name, f"{name}: {BALANCE_WORDS[name]}") for name in BALANCES],
        **{"new": False, "made": None, **given},
    )


def _settings(reader: Reader, known: Topic | None = None) -> dict[str, Any]:
    """By the names of Topic's fields. Workers are given only when a person changed them: else
    they would be fixed to those chosen before."""
    settings: dict[str, Any] = {name: reader.get(name, words.read_int) for name in NUMBERS}
    for name in ("business", "balance", "weigh_by"):
        settings[name] = reader.text(name)
    settings["retry_ms"] = reader.get("retry_ms", words.read_durations)
    settings["retention_ms"] = reader.get("retention_ms", _retention)
    workers = tuple(part.strip() for part in reader.text("workers").split(",") if part.strip())
    if workers != (known.workers if known else ()):
        settings["workers"] = workers
    _check(reader, settings)
    return settings


def _check(reader: Reader, settings: Mapping[str, Any]) -> None:
    """Each by itself, so that all that are wrong are told."""
    for field, value in settings.items():
        if value is not None:
            alone = replace(Topic(name=""), **{field: value})
            reader.check(partial(check_settings, alone), FIELDS)


def _retention(field: str, text: str) -> int:
    return words.read_duration(field, text) if text.strip() else 0


def _wrong(reader: Reader, exc: SorakaError) -> None:
    refused(exc)
    if not isinstance(exc, InvalidParams | Conflict):
        raise exc
    reader.wrong(exc, FIELDS)


def _values(topic: Topic) -> dict[str, Any]:
    """As a person writes them."""
    return {
        **{name: getattr(topic, name) for name in (*NUMBERS, "business", "balance", "weigh_by")},
        "topic_name": topic.name,
        "workers": ", ".join(topic.workers),
        "retry_ms": ", ".join(map(words.write_duration, topic.retry_ms)),
        "retention_ms": words.write_duration(topic.retention_ms) if topic.retention_ms else "",
        "choose": "",
    }


def _blank() -> dict[str, Any]:
    return _values(Topic(name="", retry_ms=DEFAULT_RETRY_MS))


def _start(given: Mapping[str, str]) -> int:
    start = given.get("start", "")
    return int(start) if start.isdecimal() and len(start) <= MAX_START_DIGITS else 0


def _link(prefix: str, start: int) -> str:
    query = {"prefix": prefix, "start": start} if prefix else {"start": start}
    return f"{url_for('pages.topics')}?{urlencode(query)}"
