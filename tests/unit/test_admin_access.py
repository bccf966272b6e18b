"""Who gets in, and to what: every endpoint, logins, sessions, CSRF, tokens."""

import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from flask import Flask

from admin_app.access import OPEN, OPERATOR, need_of
from admin_app.accounts import Accounts
from admin_app.auth import LIVE, SAFE, local_path
from soraka.config import AdminConfig
from soraka.errors import RegistryUnavailable
from tests.unit.admin_kit import PASSWORDS, TOPIC, Client, Kit

OPEN_PATHS = {"/login", "/healthz", "/readyz", "/metrics", "/static/<path:filename>"}


@pytest.fixture
def kit(tmp_path: Path) -> Iterator[Kit]:
    made = Kit(tmp_path)
    yield made
    made.close()


def endpoints(app: Flask) -> list[tuple[str, str, Any]]:
    """(method, path, view) of all there are."""
    return [
        (method, rule.rule, app.view_functions[rule.endpoint])
        for rule in app.url_map.iter_rules()
        for method in sorted((rule.methods or set()) - {"HEAD"})
    ]


def concrete(path: str) -> str:
    """With something in the place of its parameters."""
    return "".join("x" if part.endswith(">") else part for part in _split(path))


def _split(path: str) -> list[str]:
    parts, rest = [], path
    while "<" in rest:
        before, _, rest = rest.partition("<")
        inner, _, rest = rest.partition(">")
        parts += [before, f"<{inner}>"]
    return [*parts, rest]


# -------------------------------------------------------------------- every endpoint


def test_nothing_is_open_but_what_is_named_here(kit: Kit) -> None:
    found = {path for method, path, view in endpoints(kit.app) if need_of(view, method) == OPEN}
    assert found == OPEN_PATHS


def test_every_other_endpoint_asks_for_a_login(kit: Kit) -> None:
    nobody = kit.client()
    asked = 0
    for method, path, view in endpoints(kit.app):
        if need_of(view, method) == OPEN:
            continue
        answer = nobody.flask.open(concrete(path), method=method, json={})
        asked += 1
        if path.startswith("/sorakaq") or path == "/openapi.json":
            assert (answer.status_code, answer.json["ec"]) == (401, 406), (method, path)
            assert answer.headers["WWW-Authenticate"].startswith("Bearer")
        else:
            assert answer.status_code == 303, (method, path)
            assert answer.headers["Location"].startswith("/login?next="), (method, path)
    assert asked > 30


def test_paths_that_are_nothing_tell_nobody_so(kit: Kit) -> None:
    assert kit.client().flask.get("/sorakaq/nonsense").status_code == 401
    assert kit.client().flask.get("/nonsense").status_code == 303
    assert kit.client("viewer").get("/nonsense").status_code == 404


@pytest.mark.parametrize("by", ["session", "token"])
def test_a_viewer_gets_no_operators_call(kit: Kit, by: str) -> None:
    viewer = kit.client("viewer") if by == "session" else kit.script("viewer")
    refused = 0
    for method, path, view in endpoints(kit.app):
        if need_of(view, method) != OPERATOR:
            continue
        refused += 1
        answer = viewer.flask.open(concrete(path), method=method, json={}, headers=viewer.headers)
        assert answer.status_code == 403, (method, path)
        if path.startswith("/sorakaq"):
            assert answer.json["ec"] == 410
    assert refused >= 18
    for method, path, view in endpoints(kit.app):
        if method != "GET" and path.startswith("/sorakaq") and need_of(view, method) != OPERATOR:
            assert path.rpartition("/")[2] in {
                *("get", "list", "query", "detail", "bulkStatus", "password")
            }, f"{path} lets viewers in"


def test_what_a_viewer_may_it_gets(kit: Kit) -> None:
    viewer = kit.client("viewer")
    assert viewer.got("/topic/list")[0]["topic_name"] == TOPIC
    assert viewer.result("/topic/get", topic_name=TOPIC)["business"] == ""
    assert viewer.got("/account/me")["role"] == "viewer"


def test_metrics_are_for_this_host_and_for_those_with_a_login(kit: Kit, tmp_path: Path) -> None:
    client = kit.app.test_client()
    far = {"REMOTE_ADDR": "203.0.113.9"}
    assert client.get("/metrics").status_code == 200
    assert client.get("/metrics", headers={"X-Forwarded-For": "127.0.0.1"}).status_code == 401
    assert client.get("/metrics", environ_overrides=far).status_code == 401
    token = kit.script("viewer").headers
    assert client.get("/metrics", environ_overrides=far, headers=token).status_code == 200
    (tmp_path / "public").mkdir()
    public = Kit(tmp_path / "public", metrics_public=True)
    answer = public.app.test_client().get("/metrics", environ_overrides=far)
    assert answer.status_code == 200
    public.close()


def test_a_proxy_is_believed_only_when_it_is_trusted(kit: Kit, tmp_path: Path) -> None:
    (tmp_path / "proxied").mkdir()
    proxied = Kit(tmp_path / "proxied", trusted_proxies=1)
    for made, source in ((kit, "127.0.0.1"), (proxied, "203.0.113.9")):
        client = made.client()
        form = {"name": "operator", "password": "wrong", "csrf_token": client.csrf_of_page()}
        client.flask.post("/login", data=form, headers={"X-Forwarded-For": "203.0.113.9"})
        assert made.audit.latest(1)[0]["from"] == source
    proxied.close()


def test_security_headers_are_on_every_answer(kit: Kit) -> None:
    client = kit.client("operator").flask
    for path in ("/login", "/sorakaq/topic/list", "/nonsense", "/static/nonsense", "/healthz"):
        headers = client.get(path).headers
        policy = headers["Content-Security-Policy"]
        assert policy.startswith("default-src 'none'; script-src 'self'"), path
        assert "unsafe" not in policy
        assert headers["X-Content-Type-Options"] == "nosniff"
        assert headers["Referrer-Policy"] == "same-origin"
        assert (headers.get("Cache-Control") == "no-store") == ("static" not in path), path


# ----------------------------------------------------------------------------- login


def test_a_login_leads_back_to_where_one_was(kit: Kit) -> None:
    client = kit.client()
    asked = client.flask.get("/topics?page=2")
    assert asked.headers["Location"] == "/login?next=/topics?page%3D2"
    answer = client.login("operator", PASSWORDS["operator"], next="/topics?page=2")
    assert (answer.status_code, answer.headers["Location"]) == (303, "/topics?page=2")
    assert client.flask.get("/login").status_code == 303


@pytest.mark.parametrize(
    ("url", "path"),
    [
        ("/a?b=c", "/a?b=c"),
        ("https://evil.example/a?b=c", "/a?b=c"),
        ("//evil.example/a", "/a"),
        ("///evil.example/a", "/evil.example/a"),
        ("/\\evil.example", "/evil.example"),
        ("\\\\evil.example", "/evil.example"),
        ("javascript:alert(1)", "/alert(1)"),
        ("/a\nb", "/ab"),
        ("http://[bad", "/"),
        ("", "/"),
    ],
)
def test_it_leads_to_no_other_host(url: str, path: str) -> None:
    assert local_path(url) == path


def test_htmx_is_told_to_go_to_the_login(kit: Kit) -> None:
    headers = {"HX-Request": "true", "HX-Current-URL": "http://localhost/topics?a=1"}
    answer = kit.client().flask.get("/fragment", headers=headers)
    assert answer.status_code == 401
    assert answer.headers["HX-Redirect"] == "/login?next=/topics?a%3D1"


@pytest.mark.parametrize(
    ("name", "password"), [("operator", "wrong"), ("nobody", "wrong"), ("", "")]
)
def test_a_wrong_login_is_refused_and_says_not_what_is_wrong(
    kit: Kit, name: str, password: str
) -> None:
    answer = kit.client().login(name, password)
    assert answer.status_code == 401
    assert "Wrong account or password." in answer.text


def test_an_unknown_account_takes_as_long_as_a_known_one(
    kit: Kit, monkeypatch: pytest.MonkeyPatch
) -> None:
    looked_at: list[str] = []

    def check(hashed: str, _: str) -> bool:
        looked_at.append(hashed)
        return False

    monkeypatch.setattr("admin_app.auth.check_password_hash", check)
    client = kit.client()
    client.login("operator", "wrong")
    client.login("nobody", "wrong")
    assert [hashed.split("$")[0] for hashed in looked_at] == ["scrypt:32768:8:1"] * 2


def test_the_form_without_its_token_logs_nobody_in(kit: Kit) -> None:
    client = kit.client()
    form = {"name": "operator", "password": PASSWORDS["operator"]}
    assert client.flask.post("/login", data=form).status_code == 403
    assert client.get("/account/me").status_code == 401


def test_brute_force_is_stopped_by_account(tmp_path: Path) -> None:
    kit = Kit(tmp_path, login_attempts=3)
    client = kit.client()
    assert [client.login("operator", "wrong").status_code for _ in range(3)] == [401] * 3
    stopped = client.login("operator", PASSWORDS["operator"])
    assert stopped.status_code == 429
    assert 1 <= int(stopped.headers["Retry-After"]) <= 300
    assert client.login("viewer", PASSWORDS["viewer"]).status_code == 303  # others are not
    assert kit.script("viewer").got("/topic/list")
    kit.close()


def test_brute_force_is_stopped_by_address(tmp_path: Path) -> None:
    kit = Kit(tmp_path, login_attempts_per_address=4)
    client = kit.client()
    names = [f"name{n}" for n in range(4)]
    assert [client.login(name, "wrong").status_code for name in names] == [401] * 4
    assert client.login("operator", PASSWORDS["operator"]).status_code == 429
    kit.close()


def test_a_success_forgets_the_failures_of_an_account(tmp_path: Path) -> None:
    kit = Kit(tmp_path, login_attempts=3)
    for _ in range(3):
        client = kit.client()
        assert client.login("operator", "wrong").status_code == 401
        assert client.login("operator", PASSWORDS["operator"]).status_code == 303
    kit.close()


def test_stopped_attempts_do_not_fill_the_audit(tmp_path: Path) -> None:
    kit = Kit(tmp_path, login_attempts=2)
    client = kit.client()
    for _ in range(6):
        client.login("operator", "wrong")
    stopped, *wrong = kit.audit.latest(10)
    assert (stopped["who"], stopped["ec"]) == ("operator", 429)
    assert stopped["outcome"].startswith("refused: login: too many attempts")
    assert [(e["ec"], e["outcome"]) for e in wrong] == [
        (406, "refused: login: wrong account or password")
    ] * 2
    kit.close()


# -------------------------------------------------------------------------- sessions


def cookie(client: Client) -> Any:
    return client.flask.get_cookie("soraka_admin")


def test_the_cookie_is_for_this_site_and_no_script(kit: Kit) -> None:
    client = kit.client()
    answer = client.login("operator", PASSWORDS["operator"])
    said = answer.headers["Set-Cookie"]
    assert "HttpOnly" in said
    assert "SameSite=Strict" in said
    assert "Secure" not in said  # plain HTTP on loopback
    assert "Expires" not in said  # ends with the browser


def test_the_cookie_is_secure_when_set_so_and_behind_tls(tmp_path: Path) -> None:
    for name, settings, headers in (
        ("a", {"secure_cookies": True}, {}),
        ("b", {"trusted_proxies": 1}, {"X-Forwarded-Proto": "https"}),
    ):
        (tmp_path / name).mkdir()
        kit = Kit(tmp_path / name, **settings)
        answer = kit.app.test_client().get("/login", headers=headers)
        assert "Secure" in answer.headers["Set-Cookie"]
        kit.close()


def test_a_cookie_from_before_the_login_is_worth_nothing_after_it(kit: Kit) -> None:
    """Session fixation: who planted it does not get in, and its CSRF token counts no more."""
    victim = kit.client()
    planted_csrf = victim.csrf_of_page()
    planted = cookie(victim).value
    assert victim.login("operator", PASSWORDS["operator"]).status_code == 303
    assert cookie(victim).value != planted
    attacker = kit.app.test_client()
    attacker.set_cookie("soraka_admin", planted)
    assert attacker.get("/sorakaq/account/me").status_code == 401
    victim.headers["X-CSRFToken"] = planted_csrf
    assert victim.post("/topic/pause", topic_name=TOPIC).status_code == 403


def test_a_second_login_leaves_nothing_of_the_first(kit: Kit) -> None:
    client = kit.client("viewer")
    with client.flask.session_transaction() as session:
        before = dict(session)
    client.flask.post("/logout", headers=client.headers)
    client.login("operator", PASSWORDS["operator"])
    with client.flask.session_transaction() as session:
        assert session["sid"] != before["sid"]
        assert session["csrf_token"] != before["csrf_token"]
        assert session["_user_id"] != before["_user_id"]


def test_after_logout_a_copy_of_the_cookie_counts_no_more(kit: Kit) -> None:
    client = kit.client("operator")
    copied = cookie(client).value
    assert client.flask.post("/logout").status_code == 403  # not without the CSRF token
    assert client.flask.post("/logout", headers=client.headers).status_code == 303
    assert client.get("/account/me").status_code == 401
    thief = kit.app.test_client()
    thief.set_cookie("soraka_admin", copied)
    assert thief.get("/sorakaq/account/me").status_code == 401


def test_a_new_password_ends_the_other_sessions(kit: Kit) -> None:
    here, there = kit.client("operator"), kit.client("operator")
    old = PASSWORDS["operator"]
    wrong = here.post("/account/password", old_password="wrong", new_password="a new password")
    assert (wrong.status_code, wrong.json["ec"]) == (401, 406)
    short = here.post("/account/password", old_password=old, new_password="short")
    assert short.json["em"].startswith("password: must be from 10")
    assert here.result("/account/password", old_password=old, new_password="a new password")
    assert here.got("/account/me")["name"] == "operator"
    assert there.get("/account/me").status_code == 401
    assert kit.client().login("operator", old).status_code == 401
    assert kit.client().login("operator", "a new password").status_code == 303


def test_another_password_role_or_the_end_of_an_account_holds_at_once(kit: Kit) -> None:
    operator, viewer = kit.client("operator"), kit.client("viewer")
    operator.result("/account/setRole", name="viewer", role="operator")
    assert viewer.got("/account/list")
    operator.result("/account/setPassword", name="viewer", password="another password")
    assert viewer.get("/account/me").status_code == 401
    viewer = kit.client()
    viewer.login("viewer", "another password")
    operator.result("/account/delete", name="viewer")
    assert viewer.get("/account/me").status_code == 401


def test_a_session_ends_when_unused_and_when_old(kit: Kit, monkeypatch: pytest.MonkeyPatch) -> None:
    began = int(time.time() * 1000)
    now = began
    monkeypatch.setattr("admin_app.auth._now_ms", lambda: now)
    client = kit.client("operator")
    idle_ms, most_ms = kit.config.admin.idle_ms, kit.config.admin.session_ms
    while now < began + most_ms - idle_ms // 2:  # in use it lives on
        assert client.get("/account/me").status_code == 200
        now += idle_ms // 2
    now = began + most_ms + 1
    assert client.get("/account/me").status_code == 401
    now = began
    idle, polling = kit.client("operator"), kit.client("operator")
    now += idle_ms // 2
    assert polling.flask.get("/sorakaq/account/me", headers={LIVE: "1"}).status_code == 200
    now += idle_ms // 2 + 1
    assert idle.get("/account/me").status_code == 401
    assert polling.get("/account/me").status_code == 401  # a page by itself is no use


@pytest.mark.parametrize(
    "forged",
    [
        {},
        {"began": 0},
        {"_user_id": "operator:"},
        {"_user_id": "operator"},
        {"_user_id": "nobody:x"},
    ],
)
def test_a_session_signed_with_another_key_or_for_another_epoch_is_nobodys(
    kit: Kit, forged: dict[str, Any], tmp_path: Path
) -> None:
    client = kit.client("operator")
    if forged:
        with client.flask.session_transaction() as session:
            session.update(forged)
    else:
        other = Flask("other")
        other.secret_key = "another key"
        interface: Any = kit.app.session_interface
        signer = interface.get_signing_serializer(other)
        with client.flask.session_transaction() as session:
            client.flask.set_cookie("soraka_admin", signer.dumps(dict(session)))
            content = dict(session)
        client.flask.set_cookie("soraka_admin", signer.dumps(content))
    assert client.get("/account/me").status_code == 401


# ------------------------------------------------------------------------------ CSRF


def test_a_change_by_session_needs_the_csrf_token(kit: Kit) -> None:
    client = kit.client("operator")
    token = client.headers.pop("X-CSRFToken")
    for wrong in ({}, {"X-CSRFToken": "nonsense"}, {"X-CSRFToken": kit.client().csrf_of_page()}):
        answer = client.flask.post(
            "/sorakaq/topic/pause", json={"topic_name": TOPIC}, headers=wrong
        )
        assert (answer.status_code, answer.json["ec"]) == (403, 410)
        assert answer.json["em"].startswith("X-CSRFToken: ")
    assert not kit.parts.registry.topics()[TOPIC].paused
    form = {"topic_name": TOPIC, "csrf_token": token}
    assert client.flask.post("/sorakaq/topic/pause", data=form).status_code == 200
    assert kit.parts.registry.topics()[TOPIC].paused


def test_every_change_needs_it(kit: Kit) -> None:
    client = kit.client("operator")
    for method, path, view in endpoints(kit.app):
        if method not in SAFE and need_of(view, method) != OPEN:
            answer = client.flask.open(concrete(path), method=method, json={})
            assert answer.status_code == 403, (method, path)


# ---------------------------------------------------------------------------- tokens


def test_a_script_needs_a_token_and_no_csrf(kit: Kit) -> None:
    operator = kit.client("operator")
    made = operator.result("/token/add", name="deploy", role="operator")["token"]
    script = Client(kit.app.test_client(), {"Authorization": f"Bearer {made}"})
    assert script.result("/topic/pause", topic_name=TOPIC)
    assert script.got("/account/me") == {
        "name": "token:deploy",
        "role": "operator",
        "by_token": True,
    }
    assert cookie(script) is None
    assert [t["name"] for t in operator.got("/token/list")] == ["deploy"]
    assert made not in (Path(kit.config.admin.accounts)).read_text()
    assert "deploy" in str(kit.audit.latest(5))
    assert made not in Path(kit.config.admin.audit).read_text()
    assert operator.post("/token/add", name="deploy", role="viewer").status_code == 409
    operator.result("/token/revoke", name="deploy")
    assert script.get("/account/me").status_code == 401


@pytest.mark.parametrize(
    "header", ["", "Bearer", "Bearer x", "Bearer soraka_x", "Basic b2xnYTp4", "Bearer soraka_\xff"]
)
def test_a_wrong_token_is_nobody(kit: Kit, header: str) -> None:
    answer = kit.app.test_client().get("/sorakaq/topic/list", headers={"Authorization": header})
    assert (answer.status_code, answer.json["ec"]) == (401, 406)


def test_a_token_has_no_password(kit: Kit) -> None:
    script = kit.script("operator")
    answer = script.post("/account/password", old_password="x", new_password="0123456789")
    assert (answer.status_code, answer.json["ec"]) == (403, 410)


# ----------------------------------------------------------------------------- audit


def test_every_change_is_in_the_audit_with_who_what_when_whence_and_outcome(kit: Kit) -> None:
    client = kit.client("operator")
    before = int(time.time() * 1000)
    client.result("/topic/update", topic_name=TOPIC, business="shop")
    client.post("/topic/update", topic_name="absent", business="shop")
    kit.client("viewer").post("/topic/delete", topic_name=TOPIC)
    changes = [entry for entry in kit.audit.latest(10) if entry["action"].startswith("api.")]
    denied, absent, updated = changes
    assert updated.pop("at") >= before
    assert updated == {
        "who": "operator",
        "action": "api.topic_update",
        "from": "127.0.0.1",
        "outcome": "ok",
        "ec": 200,
        "details": {"topic_name": TOPIC, "business": "shop"},
    }
    assert (absent["outcome"], absent["ec"]) == ("refused: topic 'absent' does not exist", 407)
    assert (denied["who"], denied["action"], denied["ec"]) == ("viewer", "api.topic_delete", 410)


def test_logins_are_in_it_and_passwords_are_not(kit: Kit) -> None:
    client = kit.client("operator")
    kit.client().login("operator", "a wrong password")
    client.result("/account/setPassword", name="viewer", password="another password")
    text = Path(kit.config.admin.audit).read_text()
    assert text.count("auth.enter") >= 1
    for secret in (*PASSWORDS.values(), "a wrong password", "another password", "csrf"):
        assert secret not in text


def test_pages_and_calls_tell_of_their_outcome_in_the_same_words(
    kit: Kit, monkeypatch: pytest.MonkeyPatch
) -> None:
    client = kit.client("operator")

    def noted(path: str, **form: str) -> tuple[str, int]:
        client.flask.post(path, data=form, headers=client.headers)
        latest = kit.audit.latest(1)[0]
        return latest["outcome"], latest["ec"]

    assert noted("/topics/orders/pause", confirmed="yes") == ("ok", 200)
    assert noted("/sorakaq/topic/resume", topic_name=TOPIC) == ("ok", 200)
    gone = ("refused: topic 'gone' does not exist", 407)
    assert noted("/topics/gone/pause", confirmed="yes") == gone
    assert noted("/sorakaq/topic/pause", topic_name="gone") == gone
    wrong, ec = noted("/topics/new", topic_name="mail", worker_num="many")
    assert (wrong.partition(": ")[0], ec) == ("refused", 401)
    assert "worker_num" in wrong
    wrong, ec = noted("/account", old="x", password="0123456789", again="0123456789")
    assert ("is not your present password" in wrong, ec) == (True, 401)

    def away(*_: Any, **__: Any) -> None:
        raise RegistryUnavailable("the registry does not answer")

    monkeypatch.setattr(kit.parts.registry, "put_topic", away)
    away_too = ("unknown: the registry does not answer", 503)
    assert noted("/topics/orders/pause", confirmed="yes") == away_too
    assert noted("/sorakaq/topic/pause", topic_name=TOPIC) == away_too


def test_a_method_or_path_that_is_not_there_is_not_in_it(kit: Kit) -> None:
    client = kit.client("operator")
    before = kit.audit.latest(100)
    for path, status in (("/topic/list", 405), ("/nonsense", 404)):
        assert client.post(path).status_code == status
    assert kit.audit.latest(100) == before


SECRET = "a-secret-of-somebody"
TAKE_SECRETS = {
    "password": ("old", "password", "again", "old_password", "new_password"),
    "token": ("token", "csrf_token", "secret", "api_key", "anything"),
}


@pytest.mark.parametrize("names", TAKE_SECRETS.values(), ids=TAKE_SECRETS)
@pytest.mark.parametrize("as_form", [True, False], ids=["form", "json"])
def test_no_secret_is_in_audit_or_log_whatever_is_sent_where(
    kit: Kit, names: tuple[str, ...], as_form: bool, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("DEBUG")
    client = kit.client("operator")
    secrets = dict.fromkeys(names, SECRET)
    harmless = {"name": "somebody", "role": "viewer", "topic_name": TOPIC, "instance": "h:1"}
    given: dict[str, Any] = {**harmless, **secrets}
    if not as_form:
        given["business"] = [{"password": SECRET}]
    posted = 0
    for method, path, _ in endpoints(kit.app):
        if method == "POST" and path != "/logout":
            for fields in (given, secrets):
                sent = {"data": fields} if as_form else {"json": fields}
                client.flask.post(concrete(path), headers=client.headers, **sent)
            posted += 1
    assert posted > 30
    assert len(kit.audit.latest(100)) > 30
    assert SECRET not in Path(kit.config.admin.audit).read_text()
    assert SECRET not in str([vars(record) for record in caplog.records])


def test_the_form_of_ones_own_password_leaves_none_in_audit_or_log(
    kit: Kit, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("DEBUG")
    client = kit.client("operator")
    form = {"old": PASSWORDS["operator"], "password": SECRET, "again": SECRET}
    answer = client.flask.post("/account", data=form, headers=client.headers)
    assert answer.status_code == 303
    noted = Path(kit.config.admin.audit).read_text() + str([vars(r) for r in caplog.records])
    assert "pages.account" in noted
    for secret in form.values():
        assert secret not in noted


def test_questions_are_not_in_it(kit: Kit) -> None:
    client = kit.client("operator")
    before = kit.audit.latest(100)
    client.result("/msg/query")
    client.got("/topic/list")
    assert kit.audit.latest(100) == before


def test_the_audit_is_for_operators(kit: Kit) -> None:
    listed = kit.client("operator").got("/audit/list", num=1)
    assert (len(listed), listed[0]["who"]) == (1, "operator")
    assert kit.client("viewer").get("/audit/list").status_code == 403


def test_a_full_disk_is_told_and_undoes_nothing(
    kit: Kit, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def full(*_: Any, **__: Any) -> None:
        raise OSError(28, "No space left on device")

    client = kit.client("operator")
    monkeypatch.setattr("admin_app.audit.open", full, raising=False)
    client.result("/topic/pause", topic_name=TOPIC)
    assert "audit.not_kept" in caplog.messages


def test_what_another_process_changes_is_seen(kit: Kit) -> None:
    client = kit.client("viewer")
    other = Accounts(Path(kit.config.admin.accounts))
    other.set_role("viewer", "operator")
    assert client.got("/account/list")
    other.remove("viewer")
    assert client.get("/account/me").status_code == 401
    assert AdminConfig().accounts != kit.config.admin.accounts
