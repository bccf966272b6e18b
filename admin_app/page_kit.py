"""What the pages have in common: questions before a change, answers after it, wrong fields."""

import functools
import re
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

from flask import Response, flash, g, redirect, render_template, request
from werkzeug.wrappers import Response as AnyResponse

from soraka.errors import InvalidParams, SorakaError, Unavailable

_FIELD = re.compile(r"^[\w.]+: ")
LABELS = {
    "add_time": "Postpone by",
    "instance": "Worker",
    "job_id": "Bulk work",
    "msg_ids": "Messages",
    "prefix": "Id begins with",
    "since": "Submitted from",
    "states": "State",
    "topic_name": "Topic",
    "topics": "Topic",
    "until": "Submitted before",
}
"""What people see in the place of a field's name, where it is not just that."""
Answer = str | tuple[str, int] | AnyResponse
View = Callable[..., Answer]


class Question(NamedTuple):
    """Asked once before it is done: `title` has a {} for the name of what it is about."""

    title: str
    text: str
    label: str


QUESTIONS = {
    "cancel": Question(
        "Cancel {}?", "It will not be called any more. This cannot be undone.", "Cancel message"
    ),
    "fire_now": Question("Fire {} now?", "Its callback is made at once.", "Fire now"),
    "redrive": Question(
        "Redrive {}?",
        "It becomes pending again and is called at once, with all its retries.",
        "Redrive",
    ),
    "bulk_cancel": Question(
        "Cancel {}?", "None of them will be called any more. This cannot be undone.", "Cancel them"
    ),
    "bulk_postpone": Question(
        "Postpone {}?", "Each of them falls due later by the time given.", "Postpone them"
    ),
    "bulk_fire_now": Question(
        "Fire {} now?", "Their callbacks are made as fast as the limits allow.", "Fire them now"
    ),
    "bulk_redrive": Question(
        "Redrive {}?",
        "They become pending again and are called at once, with all their retries.",
        "Redrive them",
    ),
    "pause": Question(
        "Pause {}?",
        "None of its messages is called until it is resumed. Nothing is lost.",
        "Pause topic",
    ),
    "remove_secret": Question(
        "Remove the {}?",
        "Whoever verifies callbacks with it alone refuses them from now on. This cannot be undone.",
        "Remove secret",
    ),
    "delete": Question(
        "Delete {}?",
        "Its settings are forgotten. Refused while messages are pending.",
        "Delete topic",
    ),
    "drain": Question(
        "Drain {}?",
        "Its messages go to other workers, its calls under way end, then it stops.",
        "Drain worker",
    ),
    "drain_last": Question(
        "Drain {}?",
        "It is the last worker at work: its calls under way end, then it stops, and all messages "
        "wait until another worker starts. Nothing is lost.",
        "Drain the last worker",
    ),
    "stop_job": Question(
        "Stop this work?", "What is done stays done; the rest is left as it is.", "Stop"
    ),
    "revoke_token": Question(
        "Revoke {}?", "Scripts that use it are refused from now on.", "Revoke token"
    ),
    "remove_account": Question(
        "Remove {}?", "It can log in no more, and its sessions end.", "Remove account"
    ),
}


def asks(question: str, name: Callable[..., str]) -> Callable[[View], View]:
    """Asks on a page of its own unless the form says that its question was answered, as scripts
    of ours do. `name` gets the arguments of the view."""

    def decorate(view: View) -> View:
        @functools.wraps(view)
        def asking(*given: Any, **named: Any) -> Answer:
            if request.form.get("confirmed"):
                return view(*given, **named)
            return ask(question, name(**named))

        return asking

    return decorate


def ask(question: str, name: str) -> str:
    g.pop("who", None)  # nothing is done yet, so there is nothing for the audit
    kept = [
        (k, v) for k, v in request.form.items(multi=True) if k not in ("csrf_token", "confirmed")
    ]
    return render_template(
        "ask.html", question=QUESTIONS[question], name=name, kept=kept, here=None
    )


def then(url: str, text: str, change: Callable[[], object]) -> Response:
    """Makes a change and goes to `url`, where `text` tells of it, or why it was not made."""
    try:
        change()
    except SorakaError as exc:
        tell_refused(exc)
    else:
        flash(text, "done")
    return to(url)


def tell_refused(exc: SorakaError) -> None:
    """On the next page."""
    refused(exc)
    if isinstance(exc, Unavailable):
        flash(f"Not known whether it was done. {reason(exc)} Look, then try again.", "error")
    else:
        flash(f"Not done. {reason(exc)}", "error")


def refused(exc: SorakaError) -> None:
    """For the audit, which else would go by the status of the answer."""
    g.refusal = (exc.code, str(exc))


def to(url: str) -> Response:
    """After a change: the page to look at."""
    return redirect(url, 303)  # type: ignore[return-value]


def reason(exc: SorakaError) -> str:
    """As a sentence. The field is named, by its label, only where it is what is wrong."""
    if isinstance(exc, InvalidParams):
        field = exc.field.partition(".")[0]
        return f"{LABELS.get(field, field.replace('_', ' ').capitalize())}: {exc.reason}."
    return _sentence(_FIELD.sub("", str(exc)) or type(exc).__name__)


def _sentence(text: str) -> str:
    return f"{text[:1].upper()}{text[1:]}."


class Reader:
    """Reads the values of a form. `errors` are sentences by field, to stand at it."""

    def __init__(self, given: Mapping[str, str]) -> None:
        self._given = given
        self._first: SorakaError | None = None
        self.errors: dict[str, str] = {}

    def text(self, field: str) -> str:
        return self._given.get(field, "").strip()

    def get(self, field: str, read: Callable[[str, str], Any]) -> Any:
        """None when it is wrong."""
        try:
            return read(field, self._given.get(field, ""))
        except InvalidParams as exc:
            self.wrong(exc)
            return None

    def check(self, check: Callable[[], object], names: Mapping[str, str] | None = None) -> None:
        """Of one field: whether it raises InvalidParams; `names` as of `wrong`."""
        try:
            check()
        except InvalidParams as exc:
            self.wrong(exc, names)

    def wrong(self, exc: SorakaError, names: Mapping[str, str] | None = None) -> None:
        """An error that begins with its field; of several at one field the first stays. `names`
        are the fields of the form by those of the error, where they differ."""
        path, _, why = str(exc).partition(": ")
        field, _, index = path.partition(".")
        text = f"number {int(index) + 1}: {why}" if index.isdecimal() else why
        self.errors.setdefault((names or {}).get(field, field), _sentence(text))
        if self._first is None:
            self._first = exc
            refused(exc)

    def raise_first(self) -> None:
        """What was found wrong first, if anything."""
        if self._first is not None:
            raise self._first
