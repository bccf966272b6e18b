"""The JSON API: each operation with its path, its fields, who may call it and what it does."""

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

from flask import Blueprint, Response, g, request
from flask_login import current_user
from flask_wtf.csrf import generate_csrf
from marshmallow import Schema

from admin_app import schemas, shown
from admin_app.access import operator_only, viewer_may
from admin_app.accounts import Accounts
from admin_app.audit import MAX_LISTED, Audit
from admin_app.auth import PREFIX, Auth, note
from admin_app.bulk import MAX_IDS
from admin_app.schemas import chosen, flat
from admin_app.service import Service
from soraka.answers import done
from soraka.body import parse
from soraka.commands import check_delay
from soraka.errors import InvalidParams, Unavailable
from soraka.fields import load
from soraka.stats import MINUTE_MS
from soraka.strict_json import GivenTwice, unique_keys

MAX_VALUES = MAX_IDS + 10_000
CSRF_FIELD = "csrf_token"
"""In forms beside the fields, as a browser sends it."""
Got = Mapping[str, Any]
Act = Callable[[dict[str, Any]], Any]
_SETTINGS = (
    "business",
    "worker_num",
    "workers",
    "balance",
    "weigh_by",
    "max_concurrent_dispatches",
    "max_dispatches_per_second",
    "retention_ms",
    "paused",
)


class Operation(NamedTuple):
    """`path` is below PREFIX; `mark` says who may, when it is not what the method says."""

    method: str
    path: str
    schema: Schema
    act: Act
    about: str
    mark: Callable[[Any], Any] = lambda view: view

    @property
    def name(self) -> str:
        return self.path.strip("/").replace("/", "_")


class Api:
    """`operations` are all there are."""

    def __init__(self, service: Service, accounts: Accounts, audit: Audit, auth: Auth) -> None:
        self._service = service
        self._accounts = accounts
        self._audit = audit
        self._auth = auth
        self.operations = [
            *self._topics(),
            *self._instances(),
            *self._messages(),
            *self._bulk(),
            *self._monitor(),
            *self._of_accounts(),
        ]

    def blueprint(self) -> Blueprint:
        made = Blueprint("api", __name__, url_prefix=PREFIX)
        for operation in self.operations:
            view = operation.mark(_view(operation.schema, operation.act))
            made.add_url_rule(operation.path, operation.name, view, methods=[operation.method])
        return made

    # ------------------------------------------------------------------------ topics

    def _topics(self) -> list[Operation]:
        name = schemas.TopicName()
        return [
            _post("/topic/add", schemas.TopicAdd(), self._topic_add, "Makes a topic"),
            _post("/topic/update", schemas.TopicUpdate(), self._topic_update, "Changes settings"),
            _ask("/topic/get", name, self._topic_get, "One topic"),
            _get("/topic/list", schemas.Nothing(), self._topic_list, "All topics"),
            _post("/topic/delete", name, self._topic_delete, "Without pending messages alone"),
            _post("/topic/pause", name, self._topic_pause, "Its messages wait"),
            _post("/topic/resume", name, self._topic_resume, "They go out, at a limited rate"),
            _post(
                "/topic/addSecret",
                schemas.SecretAdd(),
                self._secret_add,
                "Signs its callbacks; a secret made here is told this once",
            ),
            _post(
                "/topic/removeSecret",
                schemas.SecretRemove(),
                self._secret_remove,
                "Without any its callbacks are not signed",
            ),
            _ask(
                "/iptopic/get", schemas.InstanceAddress(), self._iptopic_get, "Topics of a worker"
            ),
        ]

    def _topic_add(self, got: Got) -> bool:
        self._service.topics.add(got["topic_name"], _settings(got), got.get("choose") or "")
        return True

    def _topic_update(self, got: Got) -> bool:
        self._service.topics.update(got["topic_name"], _settings(got), got.get("choose") or "")
        return True

    def _topic_get(self, got: Got) -> dict[str, Any]:
        return shown.topic_view(self._service.topics.get(got["topic_name"]))

    def _topic_list(self, _: Got) -> list[dict[str, Any]]:
        return [shown.topic_view(view) for view in self._service.topics.all()]

    def _topic_delete(self, got: Got) -> bool:
        self._service.topics.delete(got["topic_name"])
        return True

    def _topic_pause(self, got: Got) -> bool:
        self._service.topics.pause(got["topic_name"])
        return True

    def _topic_resume(self, got: Got) -> bool:
        self._service.topics.resume(got["topic_name"])
        return True

    def _secret_add(self, got: Got) -> dict[str, Any]:
        return {"secret": self._service.topics.add_secret(got["topic_name"], got.get("secret"))}

    def _secret_remove(self, got: Got) -> bool:
        self._service.topics.remove_secret(got["topic_name"], got["which"])
        return True

    def _iptopic_get(self, got: Got) -> dict[str, Any]:
        return {"topics": self._service.topics.of_instance(got["instance"])}

    # --------------------------------------------------------------------- instances

    def _instances(self) -> list[Operation]:
        address = schemas.InstanceAddress()
        return [
            _get("/instance/list", schemas.Service(), self._instance_list, "Who is alive"),
            _post("/instance/delete", address, self._instance_delete, "Drains a worker"),
        ]

    def _instance_list(self, got: Got) -> list[dict[str, Any]]:
        views = self._service.instances.all(got.get("service_name") or "all")
        return [shown.instance(view) for view in views]

    def _instance_delete(self, got: Got) -> bool:
        self._service.instances.drain(got["instance"])
        return True

    # ---------------------------------------------------------------------- messages

    def _messages(self) -> list[Operation]:
        one, command = schemas.MsgId(), schemas.MsgCommand()
        of_instance = schemas.OfInstance()
        return [
            _ask("/msg/list", of_instance, self._msg_list, "Unfinished ones of a worker"),
            _ask("/msg/query", schemas.MsgQuery(), self._msg_query, "Search, the latest first"),
            _ask("/msg/detail", one, self._msg_detail, "One, with its attempts"),
            _post("/msg/cancel", command, self._msg_cancel, "It is called no more"),
            _post(
                "/msg/addTime", schemas.AddTime(), self._msg_add_time, "Moves the due time later"
            ),
            _post("/msg/fireNow", command, self._msg_fire_now, "Moves the due time to now"),
            _post("/msg/redrive", command, self._msg_redrive, "Calls a dead letter again"),
        ]

    def _msg_list(self, got: Got) -> dict[str, Any]:
        start, num = got.get("start_time") or 0, _or(got.get("num"), 100)
        return shown.held(self._service.messages.of_instance(got["instance"], start, num))

    def _msg_query(self, got: Got) -> dict[str, Any]:
        cursor, num = got.get("cursor") or "", _or(got.get("num"), 50)
        return shown.page(self._service.messages.search(chosen(got), cursor, num))

    def _msg_detail(self, got: Got) -> dict[str, Any]:
        return shown.detail(self._service.messages.detail(got["msg_id"]))

    def _msg_cancel(self, got: Got) -> bool:
        self._service.messages.cancel(**_command(got))
        return True

    def _msg_add_time(self, got: Got) -> bool:
        self._service.messages.postpone(add_ms=got["add_time"], **_command(got))
        return True

    def _msg_fire_now(self, got: Got) -> bool:
        self._service.messages.fire_now(**_command(got))
        return True

    def _msg_redrive(self, got: Got) -> bool:
        self._service.messages.redrive(**_command(got))
        return True

    # -------------------------------------------------------------------------- bulk

    def _bulk(self) -> list[Operation]:
        start, maybe = schemas.BulkStart(), schemas.MaybeJobId()
        return [
            _post("/msg/bulk", start, self._bulk_start, "Starts a job over many messages"),
            _ask("/msg/bulkStatus", maybe, self._bulk_status, "Progress of jobs of this process"),
            _post("/msg/bulkStop", schemas.JobId(), self._bulk_stop, "Ends a job"),
        ]

    def _bulk_start(self, got: Got) -> dict[str, Any]:
        ids = got.get("msg_ids") or ()
        parts = ("topics", "topic_name", "since", "until", "prefix")
        narrowed = any(got.get(part) for part in parts)
        if not ids and not narrowed and not got.get("all"):
            raise InvalidParams(
                "all", "must be true without msg_ids, topic_name, topics, since, until and prefix"
            )
        by_filter = narrowed or bool(got.get("all")) or bool(got.get("states"))
        add_ms = got.get("add_time")
        if add_ms is not None:
            check_delay("add_time", add_ms, least=1)
        job = self._service.bulk.start(
            got["action"],
            current_user.name,
            ids=ids,
            chosen=chosen(got) if by_filter else None,
            add_ms=add_ms or 0,
        )
        note(job_id=job.id)
        return shown.job(job)

    def _bulk_status(self, got: Got) -> list[dict[str, Any]]:
        bulk, job_id = self._service.bulk, got.get("job_id")
        return [shown.job(job) for job in ([bulk.get(job_id)] if job_id else bulk.jobs())]

    def _bulk_stop(self, got: Got) -> dict[str, Any]:
        return shown.job(self._service.bulk.stop(got["job_id"]))

    # ----------------------------------------------------------------------- monitor

    def _monitor(self) -> list[Operation]:
        nothing, span = schemas.Nothing(), schemas.Span()
        return [
            _get("/monitor/overview", nothing, self._overview, "How the whole fares"),
            _get("/monitor/elapsedTime", span, self._elapsed, "Average flow and callback times"),
            _get("/monitor/minutes", span, self._minutes, "Counts by minute"),
            _get("/monitor/lateness", span, self._lateness, "Histogram of lateness"),
            _get("/monitor/workerMsg", nothing, self._worker_msg, "By worker, over seven days"),
        ]

    def _overview(self, _: Got) -> dict[str, Any]:
        return shown.overview(self._service.overview())

    def _elapsed(self, got: Got) -> list[dict[str, Any]]:
        return [point._asdict() for point in self._service.monitor.flow(*self._span(got))]

    def _minutes(self, got: Got) -> list[dict[str, Any]]:
        return [point._asdict() for point in self._service.monitor.minutes(*self._span(got))]

    def _lateness(self, got: Got) -> dict[str, Any]:
        return shown.lateness(self._service.monitor.lateness(*self._span(got)))

    def _worker_msg(self, _: Got) -> list[dict[str, Any]]:
        return [
            {"worker": of.worker, "days": [{"day": day, "called": n} for day, n in of.days]}
            for of in self._service.monitor.worker_days()
        ]

    def _span(self, got: Got) -> tuple[int, int, str]:
        until = _or(got.get("until"), self._service.now_ms() + 1)
        since = _or(got.get("since"), max(0, until - 60 * MINUTE_MS))
        return since, until, got.get("topic_name") or ""

    # ---------------------------------------------------------------------- accounts

    def _of_accounts(self) -> list[Operation]:
        name, nothing = schemas.AccountName(), schemas.Nothing()
        return [
            _get("/account/me", nothing, self._me, "Who asks"),
            _get("/account/list", nothing, self._account_list, "All accounts", operator_only),
            _post("/account/add", schemas.AccountAdd(), self._account_add, "A new account"),
            _post("/account/setRole", schemas.AccountRole(), self._set_role, "Another role"),
            _post(
                "/account/setPassword",
                schemas.AccountPassword(),
                self._set_password,
                "Another password; its sessions end",
            ),
            _post("/account/delete", name, self._account_delete, "Its sessions end"),
            _post(
                "/account/password",
                schemas.OwnPassword(),
                self._own_password,
                "One's own password; one's other sessions end",
                viewer_may,
            ),
            _get("/token/list", nothing, self._token_list, "API tokens", operator_only),
            _post("/token/add", schemas.AccountRole(), self._token_add, "It is told this once"),
            _post("/token/revoke", name, self._token_revoke, "It counts no more"),
            _get("/audit/list", schemas.AuditList(), self._audit_list, "Changes", operator_only),
        ]

    def _me(self, _: Got) -> dict[str, Any]:
        user = current_user
        me = {"name": user.name, "role": user.role, "by_token": user.by_token}
        return me if user.by_token else {**me, "csrf_token": generate_csrf()}

    def _account_list(self, _: Got) -> list[dict[str, Any]]:
        return [shown.account(account) for account in self._accounts.all()]

    def _account_add(self, got: Got) -> bool:
        self._accounts.add(got["name"], got["password"], got["role"])
        return True

    def _set_role(self, got: Got) -> bool:
        self._accounts.set_role(got["name"], got["role"])
        return True

    def _set_password(self, got: Got) -> bool:
        self._auth.set_password(got["name"], got["password"])
        return True

    def _account_delete(self, got: Got) -> bool:
        self._accounts.remove(got["name"])
        return True

    def _own_password(self, got: Got) -> bool:
        self._auth.change_own_password(got["old_password"], got["new_password"])
        return True

    def _token_list(self, _: Got) -> list[dict[str, Any]]:
        return [shown.token(token) for token in self._accounts.tokens()]

    def _token_add(self, got: Got) -> dict[str, Any]:
        made = self._accounts.add_token(got["name"], got["role"], current_user.name)
        return {"token": made}

    def _token_revoke(self, got: Got) -> bool:
        self._accounts.revoke_token(got["name"])
        return True

    def _audit_list(self, got: Got) -> list[dict[str, Any]]:
        num = _or(got.get("num"), 100)
        if not 1 <= num <= MAX_LISTED:
            raise InvalidParams("num", f"must be from 1 to {MAX_LISTED}")
        try:
            return self._audit.latest(num)
        except OSError as exc:
            raise Unavailable(f"the audit file cannot be read: {exc.strerror}") from exc


def _post(
    path: str, schema: Schema, act: Act, about: str, mark: Callable[[Any], Any] = lambda v: v
) -> Operation:
    return Operation("POST", path, schema, act, about, mark)


def _ask(path: str, schema: Schema, act: Act, about: str) -> Operation:
    """A question that comes as a POST."""
    return Operation("POST", path, schema, act, about, lambda view: viewer_may(view, asks=True))


def _get(
    path: str, schema: Schema, act: Act, about: str, mark: Callable[[Any], Any] = lambda v: v
) -> Operation:
    return Operation("GET", path, schema, act, about, mark)


def _view(schema: Schema, act: Act) -> Callable[[], Response]:
    def view() -> Response:
        fields = _query(schema) if request.method == "GET" else _body(schema)
        g.fields = fields
        return done(act(load(schema, fields))).response()

    return view


def _query(schema: Schema) -> dict[str, Any]:
    try:
        given = unique_keys(list(request.args.items(multi=True)))
    except GivenTwice as exc:
        raise InvalidParams(exc.name, "is given twice") from exc
    return flat(schema, {name: text for name, text in given.items() if text})


def _body(schema: Schema) -> dict[str, Any]:
    def shape(form: dict[str, str], _: int) -> dict[str, Any]:
        form.pop(CSRF_FIELD, None)
        return flat(schema, form)

    return parse(request.environ, g.body, max_values=MAX_VALUES, shape=shape)


def _settings(got: Got) -> dict[str, Any]:
    """By the names of Topic's fields; those given as null are left as they are."""
    settings = {name: got[name] for name in _SETTINGS if got.get(name) is not None}
    if got.get("retry") is not None:
        settings["retry_ms"] = tuple(got["retry"])
    if "workers" in settings:
        settings["workers"] = tuple(settings["workers"])
    return settings


def _command(got: Got) -> dict[str, Any]:
    return {
        "msg_id": got["msg_id"],
        "topic": got.get("topic_name") or "",
        "command_id": got.get("command_id"),
    }


def _or(value: int | None, usual: int) -> int:
    return usual if value is None else value
