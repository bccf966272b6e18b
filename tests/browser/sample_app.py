"""The pages over the sample, served in this process: for screenshots and tests of the pages."""

from pathlib import Path
from typing import Any

from flask import Flask

import admin_app
from admin_app.accounts import Account, Accounts
from admin_app.audit import Audit
from admin_app.pages import make_pages
from soraka.errors import NotAuthenticated
from tests.browser.sample import NOW, Sample

OPERATOR = Account(name="admin", role="operator", password_hash="", epoch="", created_at=NOW)
VIEWER = Account(name="reader", role="viewer", password_hash="", epoch="", created_at=NOW)


def sample_app(
    folder: Path, *, empty: bool = False, standalone: bool = False, user: Account = OPERATOR
) -> Flask:
    """Without login and CSRF: those are the app's, and tested with it."""
    app = Flask(admin_app.__name__)
    app.config.update(SECRET_KEY="sample", TESTING=True)
    app.jinja_env.globals["csrf_token"] = lambda: "sample"
    accounts, audit = Accounts(folder / "admin.json"), Audit(folder / "audit.jsonl")
    if not empty:
        _fill(accounts, audit)
    service: Any = Sample(empty=empty, standalone=standalone)
    app.register_blueprint(make_pages(service, accounts, audit, lambda: user, _refuse))
    app.add_url_rule("/logout", "auth.logout", lambda: "", methods=["POST"])
    return app


def _refuse(old: str, new: str) -> None:
    raise NotAuthenticated("login: wrong account or password")


def _fill(accounts: Accounts, audit: Audit) -> None:
    accounts.set_password("admin", "correct horse", "operator")
    accounts.set_password("reader", "battery staple", "viewer")
    accounts.add_token("nightly-redrive", "operator", "admin")
    for action, reason, details in (
        ("auth.enter", "", {}),
        ("pages.pause_topic", "", {"name": "courier.pickup-window"}),
        (
            "api.msg_cancel",
            "too late: it is succeeded",
            {"topic_name": "trial.expiry", "msg_id": "0198a1"},
        ),
    ):
        ec = 409 if reason else 200
        audit.add(
            who="admin", action=action, source="10.1.7.20", ec=ec, reason=reason, details=details
        )
