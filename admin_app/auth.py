"""Login, sessions, tokens, CSRF and the audit of changes: before and after every view.

Everything is denied that `admin_app.access` does not allow. A session is a signed cookie that names
the account and its password's epoch; it counts until it is logged out, unused for too long, too
old, or the password has changed. Requests with the header `X-Live` do not count as use: a page that
looks for news by itself must not keep a session alive.
"""

import logging
import secrets
import time
from collections.abc import Mapping
from functools import cache, partial
from http import HTTPStatus
from typing import Any, TypeVar, cast
from urllib.parse import urlsplit

import gevent
from flask import Flask, Response, current_app, g, redirect, request, session, url_for
from flask.sessions import SecureCookieSessionInterface
from flask_login import LoginManager, UserMixin, current_user, login_user
from flask_wtf.csrf import CSRFError, CSRFProtect
from gevent.lock import BoundedSemaphore
from werkzeug.security import check_password_hash, generate_password_hash

from admin_app.access import OPEN, OPERATOR, need_of, only_asks
from admin_app.accounts import MAX_PASSWORD, Account, Accounts
from admin_app.attempts import Attempts, FirstStopped
from admin_app.audit import OK, Audit
from soraka.config import AdminConfig
from soraka.errors import (
    InvalidParams,
    NotAllowed,
    NotAuthenticated,
    SorakaError,
    TooManyAttempts,
)

log = logging.getLogger(__name__)

T = TypeVar("T")
COOKIE = "soraka_admin"
SAFE = ("GET", "HEAD")
PREFIX = "/sorakaq"
FOR_SCRIPTS = (f"{PREFIX}/", "/metrics", "/openapi.json", "/healthz", "/readyz")
MAX_HASHING = 2
"""Passwords looked at at once: each takes 32 MB and a core for 60 ms."""
HASHING_WAIT_S = 5.0
REFRESH_MS = 30_000
"""The cookie is renewed at most so often."""
LIVE = "X-Live"
"""A header of requests that people have not made."""


class User(UserMixin):  # type: ignore[misc]
    """Who asks, as flask_login's current_user. `by_token` when it is a script."""

    def __init__(self, name: str, role: str, *, epoch: str = "", by_token: bool = False) -> None:
        self.name = name
        self.role = role
        self.by_token = by_token
        self._epoch = epoch

    @property
    def is_operator(self) -> bool:
        return self.role == OPERATOR

    def get_id(self) -> str:
        return f"{self.name}:{self._epoch}"


class _Sessions(SecureCookieSessionInterface):
    """Secure also when this one request came over TLS."""

    def get_cookie_secure(self, app: Flask) -> bool:
        return bool(app.config["SESSION_COOKIE_SECURE"]) or request.is_secure


class Auth:
    """For one app. `install` must come before its views are served."""

    def __init__(self, accounts: Accounts, audit: Audit, config: AdminConfig) -> None:
        self._accounts = accounts
        self._audit = audit
        self._config = config
        self._attempts = Attempts(
            per_account=config.login_attempts, per_address=config.login_attempts_per_address
        )
        self._csrf = CSRFProtect()
        self._hashing = BoundedSemaphore(MAX_HASHING)
        self._no_account = _hash_of_nobody()

    def install(self, app: Flask) -> None:
        app.config.update(
            SECRET_KEY=self._accounts.secret_key,
            SESSION_COOKIE_NAME=COOKIE,
            SESSION_COOKIE_HTTPONLY=True,
            SESSION_COOKIE_SAMESITE="Strict",
            SESSION_COOKIE_SECURE=self._config.secure_cookies,
            PERMANENT_SESSION_LIFETIME=self._config.session_ms // 1000,
            WTF_CSRF_CHECK_DEFAULT=False,
            WTF_CSRF_TIME_LIMIT=None,
        )
        app.session_interface = _Sessions()
        manager = LoginManager(app)
        manager.session_protection = None  # bound to an address, a phone would log in all day
        manager.user_loader(self._of_session)
        manager.request_loader(self._of_token)
        self._csrf.init_app(app)
        app.before_request(self._admit)
        app.after_request(self._write_down)

    # ------------------------------------------------------------------ each request

    def _admit(self) -> Response | None:
        """An answer instead of the view's, for a page; else raises."""
        try:
            self._check()
        except SorakaError as exc:
            if isinstance(exc, NotAuthenticated) and not is_for_scripts():
                return to_login()
            raise
        return None

    def _check(self) -> None:
        """Raises NotAuthenticated, NotAllowed."""
        view = self._view()
        need = need_of(view, request.method)
        if need == OPEN:
            return
        if not current_user.is_authenticated:
            raise NotAuthenticated("login: this needs a login, or a token as Authorization: Bearer")
        g.who = current_user.name
        if need == OPERATOR and not current_user.is_operator:
            raise NotAllowed(f"role: this needs an {OPERATOR}; {current_user.name} is a viewer")
        if request.method not in SAFE and not current_user.by_token:
            self.check_csrf()

    def check_csrf(self) -> None:
        """Raises NotAllowed."""
        try:
            self._csrf.protect()
        except CSRFError as exc:
            raise NotAllowed(f"X-CSRFToken: {exc.description}") from exc

    def _write_down(self, response: Response) -> Response:
        """Every request of a known one that may have changed something, refused ones too."""
        who = g.get("who")
        asks = request.method in SAFE or only_asks(self._view())
        if who is None or asks or request.endpoint is None:  # no path of ours, or not this method
            return response
        ec, reason = g.get("refusal") or _by_status(response)
        fields: Mapping[str, Any] = g.get("fields") or request.form.to_dict()
        self._audit.add(
            who=who,
            action=str(request.endpoint),
            source=request.remote_addr or "",
            ec=ec,
            reason=reason,
            details={**fields, **(request.view_args or {}), **g.get("noted", {})},
        )
        return response

    def _view(self) -> Any:
        return current_app.view_functions.get(request.endpoint or "")

    # --------------------------------------------------------------------- who it is

    def _of_session(self, user_id: str) -> User | None:
        name, _, epoch = user_id.rpartition(":")
        account = self._accounts.get(name)
        if account is None or not secrets.compare_digest(account.epoch, epoch):
            return None
        now, began, seen = _now_ms(), session.get("began", 0), session.get("seen", 0)
        if now - began > self._config.session_ms or now - seen > self._config.idle_ms:
            return None
        if self._accounts.has_ended(session.get("sid", "")):
            return None
        if now - seen > REFRESH_MS and LIVE not in request.headers:
            session["seen"] = now
        return User(account.name, account.role, epoch=account.epoch)

    def _of_token(self, _: object) -> User | None:
        kind, _, given = request.headers.get("Authorization", "").partition(" ")
        token = self._accounts.by_token(given.strip()) if kind.lower() == "bearer" else None
        return None if token is None else User(f"token:{token.name}", token.role, by_token=True)

    def login(self, name: str, password: str) -> None:
        """Begins a new session. Raises NotAuthenticated, TooManyAttempts."""
        self._begin(self._verified(name, password))

    def logout(self) -> None:
        """The session counts no more, also where its cookie was copied to."""
        self._accounts.end_session(session.get("sid", ""), _now_ms() + self._config.session_ms)
        session.clear()

    def change_own_password(self, old: str, new: str) -> None:
        """Other sessions of the account end. Raises NotAllowed for a token, NotAuthenticated,
        TooManyAttempts, InvalidParams."""
        if current_user.by_token:
            raise NotAllowed("Authorization: a token has no password")
        name = current_user.name
        self._verified(name, old)
        self.set_password(name, new)
        account = self._accounts.get(name)
        if account is not None:
            self._begin(account)

    def set_password(self, name: str, password: str) -> None:
        """Of an account that exists. Raises InvalidParams."""
        if self._accounts.get(name) is None:
            raise InvalidParams("name", f"there is no account {name!r}")
        self._accounts.set_password(name, password)

    def _verified(self, name: str, password: str) -> Account:
        try:
            self._attempts.take(name[:64], request.remote_addr or "")
        except FirstStopped:
            g.setdefault("who", name[:64])  # for the audit, which all that follow would fill
            raise
        g.setdefault("who", name[:64])
        account = self._accounts.get(name)
        hashed = account.password_hash if account else self._no_account
        right = self._hash_matches(hashed, password[: MAX_PASSWORD + 1])
        if account is None or not right:
            raise NotAuthenticated("login: wrong account or password")
        self._attempts.succeeded(name[:64])
        return account

    def _hash_matches(self, hashed: str, password: str) -> bool:
        """On another thread: it takes too long for the loop."""
        if not self._hashing.acquire(timeout=HASHING_WAIT_S):
            raise TooManyAttempts("login: too many at once", 1)
        try:
            check = partial(check_password_hash, hashed, password)
            return bool(gevent.get_hub().threadpool.apply(check))
        finally:
            self._hashing.release()

    def _begin(self, account: Account) -> None:
        """Nothing of what the session was before is in it: a cookie planted earlier is worth
        nothing."""
        session.clear()
        now = _now_ms()
        session.update(sid=secrets.token_hex(16), began=now, seen=now)
        login_user(User(account.name, account.role, epoch=account.epoch))


def is_for_scripts() -> bool:
    """Whether its errors are JSON."""
    return request.path.startswith(FOR_SCRIPTS) or "Authorization" in request.headers


def note(**details: Any) -> None:
    """Adds to what the audit will say of this request."""
    g.noted = {**g.get("noted", {}), **details}


def to_login() -> Response:
    """From a page, to come back to it; htmx is told in its own way."""
    asked = request.headers.get("HX-Current-URL", "") if _by_htmx() else request.full_path
    login = url_for("auth.login", next=local_path(asked))
    if _by_htmx():
        return Response(status=401, headers={"HX-Redirect": login})
    return cast(Response, redirect(login, 303))


def local_path(url: str) -> str:
    """Path and query of a URL of ours, or of one that says it is: never another host."""
    try:
        parts = urlsplit(url)
    except ValueError:
        return "/"
    path = "/" + parts.path.lstrip("/\\")
    if not path.isprintable() or "\\" in path:
        return "/"
    return f"{path}?{parts.query}" if parts.query else path


def _by_status(response: Response) -> tuple[int, str]:
    """ec and reason of an answer of which its view has not said more."""
    status = response.status_code
    return (OK, "") if status < 400 else (status, HTTPStatus(status).phrase)


@cache
def _hash_of_nobody() -> str:
    """Looked at in the place of an unknown account's: the time it takes tells nothing."""
    return generate_password_hash(secrets.token_hex())


def _by_htmx() -> bool:
    return "HX-Request" in request.headers


def _now_ms() -> int:
    return int(time.time() * 1000)
