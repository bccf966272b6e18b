"""The pages of login and logout."""

from typing import Any, cast

from flask import Blueprint, Response, redirect, render_template, request, url_for
from flask_login import current_user

from admin_app.access import open_to_all, viewer_may
from admin_app.auth import Auth, local_path
from admin_app.page_kit import refused
from soraka.errors import NotAllowed, NotAuthenticated, TooManyAttempts


def make_login(auth: Auth) -> Blueprint:
    """Endpoints auth.login and auth.logout; the first renders login.html with `next`, `name` and
    `error`."""
    made = Blueprint("auth", __name__)

    @made.get("/login")
    @open_to_all
    def login() -> Any:
        if current_user.is_authenticated:
            return redirect(local_path(request.args.get("next", "/")), 303)
        return _page("")

    @made.post("/login")
    @open_to_all
    def enter() -> Any:
        try:
            auth.check_csrf()
        except NotAllowed:
            return _page("This page was open for too long. Try again.", NotAllowed.status)
        try:
            auth.login(request.form.get("name", ""), request.form.get("password", ""))
        except NotAuthenticated as exc:
            refused(exc)
            return _page("Wrong account or password.", exc.status)
        except TooManyAttempts as exc:
            refused(exc)
            page, status = _page(f"Too many attempts. {_wait(exc.retry_after_s)}", exc.status)
            return page, status, {"Retry-After": str(exc.retry_after_s)}
        return redirect(local_path(request.values.get("next", "/")), 303)

    @made.post("/logout")
    @viewer_may
    def logout() -> Response:
        auth.logout()
        return cast(Response, redirect(url_for("auth.login"), 303))

    return made


def _page(error: str, status: int = 200) -> tuple[str, int]:
    going_to = local_path(request.values.get("next", "/"))
    name = request.form.get("name", "")[:64]
    return render_template("login.html", next=going_to, name=name, error=error), status


def _wait(seconds: int) -> str:
    return f"Try again in {seconds} s."
