"""The pages: a blueprint over the same operations as the API.

A page is whole without scripts. With them, its live part (`#live`) is fetched again every few
seconds from the same address. Who may do what is decided by the app; see admin_app/access.py.
"""

from collections.abc import Callable
from typing import Any

from flask import Blueprint, render_template, request, url_for

from admin_app import words
from admin_app.accounts import Account, Accounts
from admin_app.audit import Audit
from admin_app.page_kit import QUESTIONS, reason, refused
from admin_app.pages_access import add_access, add_own
from admin_app.pages_charts import add_charts
from admin_app.pages_instances import add_instances
from admin_app.pages_jobs import add_jobs
from admin_app.pages_message import add_message
from admin_app.pages_messages import add_messages
from admin_app.pages_monitor import add_monitor
from admin_app.pages_overview import add_overview
from admin_app.pages_topics import add_topics
from admin_app.service import Service
from soraka.errors import (
    InvalidParams,
    MessageNotFound,
    NotAllowed,
    SorakaError,
    TopicNotFound,
    Unavailable,
)

NAVIGATION = (
    ("overview", "Overview"),
    ("topics", "Topics"),
    ("messages", "Messages"),
    ("dead", "Dead letters"),
    ("monitor", "Monitor"),
    ("instances", "Instances"),
)
FOR_OPERATORS = (("access", "Access"), ("audit_log", "Audit"))
TROUBLE: tuple[tuple[type[SorakaError], str, str], ...] = (
    (
        MessageNotFound,
        "No such message",
        "Finished messages are forgotten when their retention ends; one submitted just now "
        "appears in a moment.",
    ),
    (TopicNotFound, "No such topic", "It may have been deleted."),
    (
        Unavailable,
        "No answer now",
        "What was accepted is safe in the log. The overview shows what does not answer.",
    ),
    (
        NotAllowed,
        "Not allowed",
        "Changes are for operators. Who sees this as one: load the page anew.",
    ),
    (InvalidParams, "This address is wrong", "Go back, or start from the overview."),
    (SorakaError, "This did not work", "Try again; the logs of this process say more."),
)
"""Of a page that cannot be shown: the heading and the advice, by error, the narrow ones first."""


def make_pages(
    service: Service,
    accounts: Accounts,
    audit: Audit,
    user: Callable[[], Account],
    change_password: Callable[[str, str], None],
) -> Blueprint:
    """`user` gives who is logged in now; `change_password` has the old one and the new."""
    pages = Blueprint("pages", __name__)
    for name, word in words.FILTERS.items():
        pages.add_app_template_filter(word, name)

    @pages.context_processor
    def for_templates() -> dict[str, Any]:
        who = user()
        shown = NAVIGATION + (FOR_OPERATORS if who.is_operator else ())
        return {"user": who, "questions": QUESTIONS, "navigation": shown}

    add_overview(pages, service)
    add_topics(pages, service)
    add_messages(pages, service, user)
    add_message(pages, service)
    add_jobs(pages, service)
    add_monitor(pages, service)
    add_charts(pages, service)
    add_instances(pages, service)
    add_own(pages, change_password)
    add_access(pages, accounts, audit, user)
    pages.register_error_handler(SorakaError, _trouble)
    return pages


def _trouble(exc: SorakaError) -> tuple[str, int]:
    """Instead of a page that cannot be shown."""
    refused(exc)
    heading, advice = next((h, a) for kind, h, a in TROUBLE if isinstance(exc, kind))
    again = isinstance(exc, Unavailable) and request.method == "GET"
    page = render_template(
        "trouble.html",
        here=None,
        heading=heading,
        text=reason(exc),
        advice=advice,
        again=request.full_path if again else url_for("pages.overview"),
        label="Try again" if again else "Overview",
    )
    return page, exc.status
