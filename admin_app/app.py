"""The HTTP edge of admin: the app with all that surrounds a view."""

import logging
from collections.abc import Callable
from functools import cache
from io import BytesIO
from ipaddress import ip_address
from typing import Any

from flask import Flask, Response, g, render_template, request
from flask_login import current_user
from werkzeug.exceptions import HTTPException
from werkzeug.middleware.proxy_fix import ProxyFix

from admin_app.access import open_to_all
from admin_app.accounts import Accounts
from admin_app.api import Api
from admin_app.audit import Audit
from admin_app.auth import SAFE, Auth, is_for_scripts, to_login
from admin_app.login import make_login
from admin_app.openapi import document
from admin_app.page_kit import refused
from admin_app.pages import make_pages
from admin_app.service import Service
from soraka.answers import SYSTEM_ERROR, done, encode, failed, refuse, refuse_http
from soraka.body import read
from soraka.budget import ReadingBudget, Share
from soraka.config import AdminConfig
from soraka.errors import InvalidParams, NotAuthenticated, SorakaError, Unavailable

log = logging.getLogger(__name__)

MAX_READING_BYTES = 64 << 20
HEADERS = {
    "Content-Security-Policy": "default-src 'none'; script-src 'self'; style-src 'self'; "
    "img-src 'self' data:; connect-src 'self'; font-src 'self'; form-action 'self'; "
    "frame-ancestors 'none'; base-uri 'none'",
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
    # not no-referrer: the CSRF check of HTTPS goes by it
    "Referrer-Policy": "same-origin",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
}


def create_app(
    service: Service,
    accounts: Accounts,
    audit: Audit,
    *,
    config: AdminConfig,
    ready: Callable[[], list[str]],
    metrics: Callable[[], tuple[bytes, str]],
    healthy: Callable[[], tuple[bool, dict[str, Any]]] = lambda: (True, {"last_turn_ms": {}}),
) -> Flask:
    """`ready` names what does not answer now; `metrics` gives the exposition and its type;
    `healthy` tells whether all loops of this process turn, with their ages."""
    app = Flask(__name__, static_url_path="/static")
    app.config["PROVIDE_AUTOMATIC_OPTIONS"] = False
    app.url_map.merge_slashes = False
    open_to_all(app.view_functions["static"])
    _Bodies(config).install(app)
    auth = Auth(accounts, audit, config)
    auth.install(app)
    api = Api(service, accounts, audit, auth)
    app.register_blueprint(make_login(auth))
    app.register_blueprint(api.blueprint())
    app.register_blueprint(
        make_pages(service, accounts, audit, lambda: current_user, auth.change_own_password)
    )
    _add_operations(app, api, config, ready, metrics, healthy)
    app.after_request(_add_headers)
    app.register_error_handler(SorakaError, _refused)
    app.register_error_handler(HTTPException, _http_error)
    app.register_error_handler(Exception, _unexpected)
    if config.trusted_proxies:
        n = config.trusted_proxies
        app.wsgi_app = ProxyFix(app.wsgi_app, x_for=n, x_proto=n)  # type: ignore[method-assign]
    return app


class _Bodies:
    """Reads each body first, bounded in bytes and in time; views find it as `g.body`, and forms as
    they are used to."""

    def __init__(self, config: AdminConfig) -> None:
        self._limit = config.max_body_bytes
        self._timeout_ms = config.read_timeout_ms
        self._budget = ReadingBudget(MAX_READING_BYTES)

    def install(self, app: Flask) -> None:
        app.before_request(self._read)
        app.teardown_request(self._release)

    def _read(self) -> None:
        if request.method in SAFE:
            return
        environ, g.share = request.environ, Share(self._budget)
        g.body = read(environ, limit=self._limit, timeout_ms=self._timeout_ms, share=g.share)
        environ["wsgi.input"] = BytesIO(g.body)
        environ["CONTENT_LENGTH"] = str(len(g.body))
        environ.pop("HTTP_TRANSFER_ENCODING", None)

    def _release(self, _: BaseException | None) -> None:
        share = g.pop("share", None)
        if share is not None:
            share.release()


def _add_operations(
    app: Flask,
    api: Api,
    config: AdminConfig,
    ready: Callable[[], list[str]],
    metrics: Callable[[], tuple[bytes, str]],
    healthy: Callable[[], tuple[bool, dict[str, Any]]],
) -> None:
    @app.get("/healthz")
    @open_to_all
    def healthz() -> Response:
        ok, report = healthy()
        if not ok:
            raise Unavailable(f"a loop stands still: {encode(report).decode()}")
        return done(report).response()

    @app.get("/readyz")
    @open_to_all
    def readyz() -> Response:
        down = ready()
        if down:
            raise Unavailable(f"no answer from: {', '.join(down)}")
        return done(True).response()

    @app.get("/metrics")
    @open_to_all
    def exposition() -> Response:
        """For all when configured so, else for this host, past no proxy, and with a login."""
        if not (config.metrics_public or _from_this_host() or current_user.is_authenticated):
            raise NotAuthenticated("login: this needs a token as Authorization: Bearer")
        body, kind = metrics()
        return Response(body, content_type=kind)

    @cache
    def openapi_text() -> bytes:
        return encode(document(api.operations))

    @app.get("/openapi.json")
    def openapi() -> Response:
        return Response(openapi_text(), content_type="application/json")


def _from_this_host() -> bool:
    proxied = any(h in request.headers for h in ("X-Forwarded-For", "X-Real-IP", "Forwarded"))
    try:
        return not proxied and ip_address(request.remote_addr or "").is_loopback
    except ValueError:
        return False


def _add_headers(response: Response) -> Response:
    for name, value in HEADERS.items():
        response.headers.setdefault(name, value)
    if request.endpoint != "static":
        response.headers.setdefault("Cache-Control", "no-store")
    return response


def _refused(exc: SorakaError) -> Any:
    refused(exc)
    if is_for_scripts():
        response = refuse(exc).response()
        if isinstance(exc, NotAuthenticated):
            response.headers["WWW-Authenticate"] = 'Bearer realm="soraka"'
        return response
    if isinstance(exc, NotAuthenticated):
        return to_login()
    return render_template("error.html", reason=str(exc), status=exc.status), exc.status


def _http_error(exc: HTTPException) -> Any:
    g.refusal = (InvalidParams.code, exc.name)
    if is_for_scripts():
        return refuse_http(exc, request.environ).response()
    status = exc.code or 500
    if status < 400:
        return exc
    return render_template("error.html", reason=exc.description, status=status), status


def _unexpected(exc: Exception) -> Any:
    """An error of ours: logged whole, told to nobody."""
    log.error("http.failed", exc_info=exc, extra={"path": request.path})
    g.refusal = (SorakaError.code, SYSTEM_ERROR)
    if is_for_scripts():
        return failed().response()
    return render_template("error.html", reason=SYSTEM_ERROR, status=500), 500
