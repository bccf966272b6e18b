"""The own password; for operators accounts, API tokens, and the audit of every change."""

from collections.abc import Callable, Mapping

from flask import Blueprint, flash, render_template, request, url_for

from admin_app.access import ROLES, VIEWER, operator_only, viewer_may
from admin_app.accounts import Account, Accounts, check_name, check_password, check_role
from admin_app.audit import MAX_LISTED, Audit
from admin_app.page_kit import Answer, Reader, asks, reason, refused, then, to
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
        reader = Reader(given)
        try:
            _check_own(reader, given)
            change_password(given["old"], given["password"])
        except (InvalidParams, NotAuthenticated, TooManyAttempts) as exc:
            refused(exc)
            if isinstance(exc, NotAuthenticated):
                reader.wrong(InvalidParams("old", "is not your present password"))
            elif isinstance(exc, TooManyAttempts):
                reader.errors["old"] = reason(exc)
            else:
                reader.wrong(exc)
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
        password = request.form.get("password", "")
        reader.check(lambda: check_name("name", name))
        reader.check(lambda: check_role(role))
        if password or accounts.get(name) is None:
            reader.check(lambda: check_password(password))
        try:
            reader.raise_first()
            _set(accounts, name, password, role)
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
        name, role = reader.text("name"), reader.text("role")
        reader.check(lambda: check_name("name", name))
        reader.check(lambda: check_role(role))
        try:
            reader.raise_first()
            made = accounts.add_token(name, role, user().name)
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


def _check_own(reader: Reader, given: Mapping[str, str]) -> None:
    """All but whether the present one is right: each look at it counts as an attempt."""
    if not given["old"]:
        reader.wrong(InvalidParams("old", "is needed"))
    reader.check(lambda: check_password(given["password"]))
    if given["password"] != given["again"]:
        reader.wrong(InvalidParams("again", "is not the same"))
    reader.raise_first()


def _wrong(reader: Reader, exc: SorakaError) -> None:
    reader.wrong(exc)
    refused(exc)
