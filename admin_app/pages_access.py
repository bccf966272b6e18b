"""The own password; for operators accounts, API tokens, and the audit of every change."""

from collections.abc import Callable

from flask import Blueprint, flash, render_template, request, url_for

from admin_app.access import ROLES, VIEWER, operator_only, viewer_may
from admin_app.accounts import Account, Accounts
from admin_app.audit import MAX_LISTED, Audit
from admin_app.page_kit import Answer, Reader, asks, refused, then, to
from soraka.errors import InvalidParams, NotAuthenticated, SorakaError, TooManyAttempts

PER_PAGE = 50


def add_own(pages: Blueprint, change_password: Callable[[str, str], None]) -> None:
    """For everyone: the own password."""

    @pages.route("/account", methods=["GET", "POST"])
    @viewer_may
    def account() -> Answer:
        if request.method == "GET":
            return render_template("account.html", here="account", errors={})
        given = {name: request.form.get(name, "") for name in ("old", "password", "again")}
        try:
            if given["password"] != given["again"]:
                raise InvalidParams("again", "is not the same")
            change_password(given["old"], given["password"])
        except (InvalidParams, NotAuthenticated, TooManyAttempts) as exc:
            reader = Reader(given)
            _wrong(
                reader, exc if isinstance(exc, InvalidParams) else InvalidParams("old", str(exc))
            )
            page = render_template("account.html", here="account", errors=reader.errors)
            return page, exc.status
        flash("Your password is changed. Your other sessions have ended.", "done")
        return to(url_for("pages.account"))


def add_access(
    pages: Blueprint, accounts: Accounts, audit: Audit, user: Callable[[], Account]
) -> None:
    def page(reader: Reader, wrong_in: str = "", made: tuple[str, str] | None = None) -> str:
        """`made` is the name of a new token and the token, which is shown this once."""
        return render_template(
            "access.html",
            here="access",
            accounts=accounts.all(),
            tokens=accounts.tokens(),
            roles=ROLES,
            form=reader,
            errors=reader.errors,
            wrong_in=wrong_in,
            made=made,
        )

    @pages.get("/access")
    @operator_only
    def access() -> Answer:
        return page(Reader({"role": VIEWER}))

    @pages.post("/access/accounts")
    def set_account() -> Answer:
        """Adds one, or gives a known one another password or role."""
        reader = Reader(request.form)
        name, role = reader.text("name"), reader.text("role")
        try:
            _set(accounts, name, request.form.get("password", ""), role)
        except SorakaError as exc:
            _wrong(reader, exc)
            return page(reader, "account"), 400
        flash(f"Account {name} is set.", "done")
        return to(url_for("pages.access"))

    @pages.post("/access/accounts/<name>/remove")
    @asks("remove_account", lambda name: f"account {name}")
    def remove_account(name: str) -> Answer:
        here = url_for("pages.access")
        return then(here, f"Account {name} removed.", lambda: accounts.remove(name))

    @pages.post("/access/tokens")
    def add_token() -> Answer:
        reader = Reader(request.form)
        name = reader.text("name")
        try:
            made = accounts.add_token(name, reader.text("role"), user().name)
        except SorakaError as exc:
            _wrong(reader, exc)
            return page(reader, "token"), 400
        return page(Reader({"role": VIEWER}), made=(name, made))

    @pages.post("/access/tokens/<name>/revoke")
    @asks("revoke_token", lambda name: f"token {name}")
    def revoke_token(name: str) -> Answer:
        here = url_for("pages.access")
        return then(here, f"Token {name} revoked.", lambda: accounts.revoke_token(name))

    @pages.get("/audit")
    @operator_only
    def audit_log() -> Answer:
        asked = request.args.get("start", "")
        start = min(int(asked), MAX_LISTED) if asked.isdecimal() and len(asked) < 9 else 0
        found = audit.latest(min(start + PER_PAGE + 1, MAX_LISTED))[start:]
        more = len(found) > PER_PAGE
        return render_template(
            "audit.html",
            here="audit_log",
            entries=found[:PER_PAGE],
            newest=url_for("pages.audit_log") if start else None,
            older=url_for("pages.audit_log", start=start + PER_PAGE) if more else None,
        )


def _set(accounts: Accounts, name: str, password: str, role: str) -> None:
    """Without a password only the role of a known account changes."""
    if password or accounts.get(name) is None:
        accounts.set_password(name, password, role)
    else:
        accounts.set_role(name, role)


def _wrong(reader: Reader, exc: SorakaError) -> None:
    if isinstance(exc, InvalidParams):
        reader.wrong(exc)
    else:
        field, _, why = str(exc).partition(": ")
        reader.wrong(InvalidParams(field, why))
    refused(exc)
