"""What the API shows of things: plain dicts, for JSON."""

from dataclasses import asdict
from typing import Any

from admin_app.accounts import Account, Token
from admin_app.bulk import Job
from admin_app.instances import InstanceView
from admin_app.messages import Detail, Held, Page
from admin_app.monitor import Lateness
from admin_app.overview import Overview
from admin_app.topics import TopicView
from soraka.message import Stored, Topic


def topic(shown: Topic) -> dict[str, Any]:
    return {
        "business": shown.business,
        "topic_name": shown.name,
        "worker_num": shown.worker_num,
        "workers": list(shown.workers),
        "create_time": shown.created_at,
        "balance": shown.balance,
        "weigh_by": shown.weigh_by,
        "retry": list(shown.retry_ms),
        "max_concurrent_dispatches": shown.max_concurrent_dispatches,
        "max_dispatches_per_second": shown.max_dispatches_per_second,
        "retention_ms": shown.retention_ms,
        "paused": shown.paused,
        "secret_num": len(shown.secrets),
    }


def topic_view(view: TopicView) -> dict[str, Any]:
    counts = None if view.counts is None else {str(k): n for k, n in view.counts.items()}
    return {**topic(view.topic), "counts": counts}


def instance(view: InstanceView) -> dict[str, Any]:
    known = view.instance
    return {
        "service_name": known.service,
        "instance": known.address,
        "incarnation": known.incarnation,
        "started_at": known.started_at,
        "version": known.version,
        "weight": known.weight,
        "draining": known.draining,
        "load": None if view.load is None else view.load._asdict(),
        "trouble": view.trouble,
        "pending": view.pending,
    }


def message(stored: Stored) -> dict[str, Any]:
    """`due_at` is when it falls due next, `submitted_due_at` when it was to at its submit;
    `not_before` until when it is held back, or 0."""
    submitted = stored.message
    return {
        "msg_id": submitted.msg_id,
        "topic_name": submitted.topic,
        "state": str(stored.state),
        "created_at": submitted.created_at,
        "due_at": stored.due_at,
        "not_before": stored.not_before,
        "submitted_due_at": submitted.due_at,
        "attempt": stored.attempt,
        "owner": stored.owner,
        "ttr": submitted.ttr_ms,
        "retry": list(submitted.retry_ms),
        "callback": {
            "request_type": submitted.callback.method,
            "url": submitted.callback.url,
            "params": submitted.callback.params,
        },
        "lease_until": stored.lease_until,
        "finished_at": stored.finished_at,
        "reason": stored.reason,
    }


def page(shown: Page) -> dict[str, Any]:
    return {"list": [message(stored) for stored in shown.messages], "cursor": shown.cursor}


def held(shown: Held) -> dict[str, Any]:
    return {
        "total": shown.total,
        "remain": shown.remain,
        "list": [message(stored) for stored in shown.messages],
        "end_time": shown.end_time,
    }


def detail(shown: Detail) -> dict[str, Any]:
    return {**message(shown.stored), "history": [asdict(attempt) for attempt in shown.history]}


def job(shown: Job) -> dict[str, Any]:
    fields = asdict(shown)
    return {"job_id": fields.pop("id"), **fields, "refused": dict(shown.refused)}


def lateness(shown: Lateness) -> dict[str, Any]:
    buckets = [{"le_ms": upper, "count": n} for upper, n in shown.buckets]
    return {"buckets": buckets, "p50_ms": shown.p50_ms, "p99_ms": shown.p99_ms}


def overview(shown: Overview) -> dict[str, Any]:
    minutes = shown.minutes
    return {
        "now": shown.now_ms,
        "roles": [role._asdict() for role in shown.roles],
        "ports": shown.ports,
        "pending": shown.pending,
        "totals": None if shown.totals is None else shown.totals._asdict(),
        "backlog": None if shown.backlog is None else shown.backlog._asdict(),
        "minutes": None if minutes is None else [m._asdict() for m in minutes],
        "lateness": None if shown.lateness is None else lateness(shown.lateness),
    }


def account(shown: Account) -> dict[str, Any]:
    return {"name": shown.name, "role": shown.role, "created_at": shown.created_at}


def token(shown: Token) -> dict[str, Any]:
    return {
        "name": shown.name,
        "role": shown.role,
        "created_by": shown.created_by,
        "created_at": shown.created_at,
    }
