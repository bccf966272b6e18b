"""The pages: a blueprint over the same operations as the API.

A page is whole without scripts. With them, its live part (`#live`) is fetched again every few
seconds from the same address. Who may do what is decided by the app; see admin_app/access.py.
"""

from collections.abc import Callable

from flask import Blueprint, render_template, request
from werkzeug.wrappers import Response

from admin_app import page_kit, words
from admin_app.access import OPERATOR
from admin_app.pages_access import add_access
from admin_app.pages_charts import add_charts
from admin_app.pages_instances import add_instances
from admin_app.pages_jobs import add_jobs
from admin_app.pages_message import add_message
from admin_app.pages_messages import add_messages
from admin_app.pages_monitor import add_monitor
from admin_app.pages_overview import add_overview
from admin_app.pages_topics import add_topics
from admin_app.service import Service
from soraka.errors import MessageNotFound, SorakaError, TopicNotFound, Unavailable

NAVIGATION = (
    ("overview", "Overview"),
    ("topics", "Topics"),
    ("messages", "Messages"),
    ("dead", "Dead letters"),
    ("monitor", "Monitor"),
    ("instances", "Instances"),
)
FOR_OPERATORS = (("access", "Access"), ("audit", "Audit"))
ADVICE = {
    MessageNotFound: "Finished messages are forgotten when their retention ends. One submitted "
    "just now appears in a moment.",
    TopicNotFound: "It may have been deleted.",
    Unavailable: "What is accepted is safe in the log. Try again in a moment; the overview shows "
    "what does not answer.",
}


def make_pages(service: Service, access: Access, user: Callable[[], User]) -> Blueprint:
    """`user` is who is logged in now."""
    pages = Blueprint("pages", __name__, template_folder="templates")
    for name, word in words.FILTERS.items():
        pages.add_app_template_filter(word, name)
    add_overview(pages, service)
    add_topics(pages, service)
    add_messages(pages, service)
    add_message(pages, service)
    add_jobs(pages, service)
    add_monitor(pages, service)
    add_charts(pages, service)
    add_instances(pages, service)
    add_access(pages, access)
    pages.register_error_handler(SorakaError, trouble)
    return pages
