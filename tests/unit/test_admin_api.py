"""What each call of the admin API does, on the SQLite adapters."""

import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import gevent
import pytest

import idl
from admin_app.api import Api
from soraka.errors import LogUnavailable, StoreUnavailable
from soraka.limits import DAY_MS
from soraka.message import Instance, parked_owner
from soraka.ports import Move, Sample
from soraka.process import listen
from soraka.rpc import RpcServer
from soraka.stats import HOUR_MS
from tests.unit.admin_kit import TOPIC, WORKER, Client, Kit
from tests.unit.receive_kit import uuid7

MINUTE = 60_000


@pytest.fixture
def kit(tmp_path: Path) -> Iterator[Kit]:
    made = Kit(tmp_path)
    yield made
    made.close()


@pytest.fixture
def api(kit: Kit) -> Client:
    return kit.script("operator")


def until(condition: Callable[[], object], what: str) -> None:
    deadline = time.monotonic() + 15
    while not condition():
        assert time.monotonic() < deadline, what
        gevent.sleep(0.02)


class FakeWorker:
    """Answers as the IDL says."""

    def __init__(self, kit: Kit, *, cpu: float = 0.1, alone: bool = True) -> None:
        self._listener = listen("127.0.0.1", 0)
        self.address = f"127.0.0.1:{self._listener.getsockname()[1]}"
        self.instance = Instance(
            service="worker", address=self.address, incarnation=f"of {self.address}", version="1.2"
        )
        self._cpu, self._alone = cpu, alone
        self.drained = 0
        self._server = RpcServer(idl.worker.Worker, self, self._listener)
        self._server.start()
        kit.parts.registry.register(self.instance)

    def heartbeat(self, incarnation: str) -> Any:
        self._check(incarnation)
        return idl.worker.Load(
            held=3,
            in_flight=1,
            cpu=self._cpu,
            memory_bytes=9,
            last_turn_ms=5,
            draining=False,
            clock_skew_ms=2,
            blind_ms=0,
            alone=self._alone,
        )

    def drain(self, incarnation: str) -> None:
        self._check(incarnation)
        if not self._alone:
            raise idl.worker.NotAlone(em="standalone: end the process with SIGTERM")
        self.drained += 1

    def stop(self) -> None:
        self._server.stop(0)

    def _check(self, incarnation: str) -> None:
        if incarnation != self.instance.incarnation:
            raise idl.worker.WrongIncarnation(incarnation=self.instance.incarnation)


@pytest.fixture
def workers(kit: Kit) -> Iterator[list[FakeWorker]]:
    made = [FakeWorker(kit, cpu=cpu) for cpu in (0.9, 0.1, 0.5)]
    yield made
    for worker in made:
        worker.stop()


def refused(answer: Any, status: int, ec: int, em: str) -> None:
    assert (answer.status_code, answer.json["ec"]) == (status, ec), answer.text
    assert em in answer.json["em"], answer.text
    assert answer.json["result"] is None


# ------------------------------------------------------------------------------ topics


def test_a_topic_is_added_changed_and_shown(api: Client) -> None:
    assert api.result(
        "/topic/add",
        topic_name="mail",
        business="shop",
        balance="random",
        weigh_by="load",
        retry=[5, 6],
        max_concurrent_dispatches=7,
        max_dispatches_per_second=8,
        retention_ms=90_000,
    )
    topic = api.result("/topic/get", topic_name="mail")
    assert time.time() * 1000 - topic.pop("create_time") < 60_000
    assert topic == {
        "topic_name": "mail",
        "business": "shop",
        "worker_num": 0,
        "workers": [],
        "balance": "random",
        "weigh_by": "load",
        "retry": [5, 6],
        "max_concurrent_dispatches": 7,
        "max_dispatches_per_second": 8,
        "retention_ms": 90_000,
        "paused": False,
        "secret_num": 0,
        "counts": {"pending": 0, "succeeded": 0, "cancelled": 0, "dead": 0},
    }
    api.result("/topic/update", topic_name="mail", retry=[], business=None)
    changed = api.result("/topic/get", topic_name="mail")
    assert (changed["retry"], changed["business"]) == ([], "shop")
    assert [t["topic_name"] for t in api.got("/topic/list")] == ["mail", TOPIC]


def test_forms_are_taken_like_json(api: Client) -> None:
    form = {"topic_name": "mail", "retry": "5, 6", "worker_num": "0", "workers": "10.0.0.1:1"}
    answer = api.flask.post("/sorakaq/topic/add", data=form, headers=api.headers)
    assert answer.json["ec"] == 200, answer.text
    topic = api.result("/topic/get", topic_name="mail")
    assert (topic["retry"], topic["workers"], topic["worker_num"]) == ([5, 6], ["10.0.0.1:1"], 1)
    wrong = api.flask.post(
        "/sorakaq/topic/add", data={"topic_name": "x", "worker_num": "many"}, headers=api.headers
    )
    refused(wrong, 400, 401, "worker_num: ")


@pytest.mark.parametrize(
    ("fields", "ec", "em"),
    [
        ({}, 401, "topic_name: "),
        ({"topic_name": 5}, 401, "topic_name: "),
        ({"topic_name": "a b"}, 401, "topic_name: "),
        ({"topic_name": "admin"}, 402, "topic_name: 'admin' is reserved"),
        ({"topic_name": "t", "balance": "fair"}, 401, "balance: must be one of"),
        ({"topic_name": "t", "retry": [1, -1]}, 401, "retry.1: "),
        ({"topic_name": "t", "retry": "5"}, 401, "retry: "),
        ({"topic_name": "t", "workers": ["nonsense"]}, 401, "workers.0: "),
        ({"topic_name": "t", "worker_num": 2}, 401, "worker_num: is 2, but 0 workers are live"),
        ({"topic_name": "t", "worker_num": -1}, 401, "worker_num: "),
        ({"topic_name": "t", "retention_ms": 5}, 401, "retention_ms: "),
        ({"topic_name": "t", "max_dispatches_per_second": -1}, 401, "max_dispatches_per_second: "),
        ({"topic_name": "t", "max_concurrent_dispatches": True}, 401, "max_concurrent_dispatches"),
    ],
)
def test_wrong_settings_are_refused_by_name(
    api: Client, fields: dict[str, Any], ec: int, em: str
) -> None:
    refused(api.post("/topic/add", **fields), 400, ec, em)
    assert [t["topic_name"] for t in api.got("/topic/list")] == [TOPIC]


def test_a_topic_is_paused_by_its_settings_too(kit: Kit, api: Client) -> None:
    api.result("/topic/add", topic_name="mail", paused=True)
    assert kit.parts.registry.topics()["mail"].paused
    api.result("/topic/update", topic_name="mail", business="shop", paused=None)
    assert kit.parts.registry.topics()["mail"].paused
    api.result("/topic/update", topic_name="mail", paused=False)
    assert not kit.parts.registry.topics()["mail"].paused
    form = {"topic_name": "mail", "paused": "true"}
    api.flask.post("/sorakaq/topic/update", data=form, headers=api.headers)
    assert kit.parts.registry.topics()["mail"].paused
    refused(api.post("/topic/update", topic_name="mail", paused="yes"), 400, 401, "paused: ")


@pytest.mark.parametrize(
    ("path", "fields", "named"),
    [
        ("/msg/list", {"instance": "\ud800"}, "instance"),
        ("/msg/query", {"topics": ["\ud800"]}, "topics.0"),
        ("/msg/query", {"topics": [TOPIC], "prefix": "\udfff"}, "prefix"),
        (
            "/account/add",
            {"name": "new", "role": "viewer", "password": "\ud800" * 12},
            "password",
        ),
        (
            "/account/password",
            {"old_password": "\ud800", "password": "correct horse battery"},
            "old_password",
        ),
    ],
)
def test_half_of_a_surrogate_pair_is_refused_by_name(
    kit: Kit, path: str, fields: dict[str, Any], named: str
) -> None:
    refused(kit.client("operator").post(path, **fields), 400, 401, f"{named}: ")


def test_topics_that_are_there_or_not(api: Client) -> None:
    refused(api.post("/topic/add", topic_name=TOPIC), 409, 412, "exists already")
    for path in ("get", "update", "pause", "resume", "delete"):
        refused(api.post(f"/topic/{path}", topic_name="absent"), 404, 407, "does not exist")


def test_worker_num_live_workers_are_chosen(
    kit: Kit, api: Client, workers: list[FakeWorker]
) -> None:
    addresses = {worker.address for worker in workers}
    api.result("/topic/update", topic_name=TOPIC, worker_num=2)
    first = api.result("/topic/get", topic_name=TOPIC)["workers"]
    assert len(first) == 2
    assert set(first) <= addresses
    api.result("/topic/update", topic_name=TOPIC, worker_num=2, business="x")
    assert api.result("/topic/get", topic_name=TOPIC)["workers"] == first  # not chosen anew
    seen = set()
    while seen != addresses:  # at random: in time each of them
        api.result("/topic/update", topic_name=TOPIC, worker_num=1, choose="random")
        seen |= set(api.result("/topic/get", topic_name=TOPIC)["workers"])
    api.result("/topic/update", topic_name=TOPIC, worker_num=2, choose="load")
    by_load = api.result("/topic/get", topic_name=TOPIC)["workers"]
    assert set(by_load) == {workers[1].address, workers[2].address}
    kit.parts.registry.register(replace(workers[1].instance, draining=True))
    answer = api.post("/topic/update", topic_name=TOPIC, worker_num=3)
    refused(answer, 400, 401, "worker_num: is 3, but 2 workers are live")
    refused(
        api.post("/topic/update", topic_name=TOPIC, worker_num=1, choose="x"), 400, 401, "choose"
    )
    api.result("/topic/update", topic_name=TOPIC, worker_num=2, workers=[])
    assert len(api.result("/topic/get", topic_name=TOPIC)["workers"]) == 2
    api.result("/topic/update", topic_name=TOPIC, workers=["10.0.0.1:1"])
    assert api.result("/topic/get", topic_name=TOPIC)["worker_num"] == 1
    api.result("/topic/update", topic_name=TOPIC, worker_num=0)
    assert api.result("/topic/get", topic_name=TOPIC)["workers"] == []


def test_a_topic_with_pending_messages_is_not_deleted(kit: Kit, api: Client) -> None:
    (msg_id,) = kit.put()
    refused(api.post("/topic/delete", topic_name=TOPIC), 409, 412, "has 1 pending messages")
    api.result("/msg/cancel", msg_id=msg_id)
    api.result("/topic/delete", topic_name=TOPIC)
    assert api.got("/topic/list") == []
    found = api.result("/msg/query")["list"]  # what finished can be found yet
    assert [(m["msg_id"], m["state"]) for m in found] == [(msg_id, "cancelled")]


def test_pause_and_resume(api: Client) -> None:
    for path, paused in (("pause", True), ("resume", False)):
        api.result(f"/topic/{path}", topic_name=TOPIC)
        assert api.result("/topic/get", topic_name=TOPIC)["paused"] is paused


# --------------------------------------------------------------------------- instances


def test_instances_are_listed_by_service_with_the_load_of_workers(
    kit: Kit, api: Client, workers: list[FakeWorker]
) -> None:
    center = Instance(service="center", address="10.0.0.1:30001", incarnation="c")
    silent = Instance(service="worker", address="127.0.0.1:1", incarnation="s")
    kit.parts.registry.register(center)
    kit.parts.registry.register(silent)
    (msg_id,) = kit.put()
    kit.parts.store.assign([Move(msg_id, WORKER, workers[0].address)])
    listed = {i["instance"]: i for i in api.got("/instance/list")}
    assert set(listed) == {center.address, silent.address, *(w.address for w in workers)}
    first = listed[workers[0].address]
    assert (first["load"]["cpu"], first["load"]["held"], first["load"]["clock_skew_ms"]) == (
        0.9,
        3,
        2,
    )
    assert (first["pending"], first["version"], first["trouble"]) == (1, "1.2", "")
    assert listed[silent.address]["load"] is None
    assert "no heartbeat" in listed[silent.address]["trouble"]
    assert listed[center.address]["pending"] is None
    assert [i["instance"] for i in api.got("/instance/list", service_name="center")] == [
        center.address
    ]
    assert len(api.got("/instance/list", service_name="all")) == 5
    refused(api.get("/instance/list", service_name="x"), 400, 403, "service_name: must be one of")


def test_a_worker_is_drained(kit: Kit, api: Client, workers: list[FakeWorker]) -> None:
    api.result("/instance/delete", instance=workers[0].address)
    assert [worker.drained for worker in workers] == [1, 0, 0]
    refused(api.post("/instance/delete", instance="10.0.0.9:1"), 400, 401, "instance: ")
    kit.parts.registry.register(replace(workers[1].instance, incarnation="older"))
    refused(api.post("/instance/delete", instance=workers[1].address), 503, 503, "started anew")
    workers[2].stop()
    refused(api.post("/instance/delete", instance=workers[2].address), 503, 503, "")
    alone = FakeWorker(kit, alone=False)
    refused(api.post("/instance/delete", instance=alone.address), 409, 412, "SIGTERM")
    alone.stop()


def test_topics_of_an_instance(api: Client) -> None:
    api.result("/topic/add", topic_name="bound", workers=["10.0.0.1:1"])
    assert api.result("/iptopic/get", instance="10.0.0.1:1") == {"topics": ["bound", TOPIC]}
    assert api.result("/iptopic/get", instance="10.0.0.2:1") == {"topics": [TOPIC]}


@pytest.mark.parametrize("instance", ["worker", "10.0.0.1", ":1", "10.0.0.1:0", "10.0.0.1:70000"])
@pytest.mark.parametrize("path", ["/iptopic/get", "/msg/list"])
def test_what_is_no_instance_is_refused(api: Client, path: str, instance: str) -> None:
    refused(api.post(path, instance=instance), 400, 401, f"instance: {instance!r} must be ip:port")


# ---------------------------------------------------------------------------- messages


@pytest.mark.parametrize("cursor", ["junk", "0", "zz", "~", "a b", "9" * 300])
def test_a_cursor_that_no_page_has_given_is_refused(kit: Kit, api: Client, cursor: str) -> None:
    kit.put()
    refused(api.post("/msg/query", cursor=cursor), 400, 401, "cursor: must be one that a search")


def test_messages_of_an_instance_in_pages(kit: Kit, api: Client) -> None:
    ids = [kit.put(due_in_ms=ms)[0] for ms in (10_000, 20_000, 30_000)]
    page = api.result("/msg/list", instance=WORKER, start_time=0, num=2)
    assert [m["msg_id"] for m in page["list"]] == ids[:2]
    assert (page["total"], page["remain"]) == (3, 1)
    assert page["end_time"] == page["list"][1]["due_at"]
    rest = api.result("/msg/list", instance=WORKER, start_time=page["end_time"] + 1)
    assert ([m["msg_id"] for m in rest["list"]], rest["remain"]) == (ids[2:], 0)
    empty = api.result("/msg/list", instance="10.0.0.9:1", start_time=7)
    assert empty == {"total": 0, "remain": 0, "list": [], "end_time": 7}
    assert api.result("/msg/list", instance=parked_owner(TOPIC))["list"] == []
    for path, given in (("/msg/list", {"instance": WORKER}), ("/msg/query", {})):
        refused(api.post(path, **given, num=501), 400, 404, "num: must be at most 500")
        refused(api.post(path, **given, num=0), 400, 401, "num: ")


def test_search_by_topic_state_time_and_prefix(kit: Kit, api: Client) -> None:
    api.result("/topic/add", topic_name="mail")
    early = kit.put(3)
    gevent.sleep(0.005)
    between = kit.now_ms()
    late = kit.put(2, topic="mail")
    api.result("/msg/cancel", msg_id=early[0])

    def found(**fields: Any) -> set[str]:
        return {m["msg_id"] for m in api.result("/msg/query", **fields)["list"]}

    assert found() == {*early, *late}
    assert found(topics=["mail"]) == set(late)
    assert found(topics=["absent"]) == set()
    assert found(states=["cancelled"]) == {early[0]}
    assert found(states=["pending", "dead"]) == {*early[1:], *late}
    assert found(until=between) == set(early)
    assert found(since=between) == set(late)
    assert found(prefix=late[0]) == {late[0]}
    first = api.result("/msg/query", num=3)
    second = api.result("/msg/query", num=3, cursor=first["cursor"])
    assert [m["msg_id"] for m in first["list"] + second["list"]] == sorted(
        [*early, *late], reverse=True
    )
    assert second["cursor"] == ""


@pytest.mark.parametrize(
    ("fields", "em"),
    [
        ({"states": ["gone"]}, "states.0: must be one of pending"),
        ({"since": 5, "until": 5}, "until: must be after since"),
        ({"since": -1}, "until: "),
        ({"prefix": "xyz"}, "prefix: "),
        ({"cursor": "é"}, "cursor: "),
        ({"topics": "orders"}, "topics: "),
    ],
)
def test_a_wrong_search_is_refused_by_name(api: Client, fields: dict[str, Any], em: str) -> None:
    refused(api.post("/msg/query", **fields), 400, 401, em)


def test_the_detail_has_the_history(kit: Kit, api: Client) -> None:
    (msg_id,) = kit.put(due_in_ms=0)
    kit.kill([msg_id])
    detail = api.result("/msg/detail", msg_id=msg_id)
    assert (detail["state"], detail["topic_name"], detail["reason"]) == ("dead", TOPIC, "HTTP 500")
    assert detail["callback"] == {
        "request_type": "POST",
        "url": "http://127.0.0.1:9/hook",
        "params": '{"n":1}',
    }
    (attempt,) = detail["history"]
    assert (attempt["number"], attempt["status"], attempt["worker"]) == (1, 500, WORKER)
    assert (attempt["duration_ms"], attempt["ended"]) == (7, "dead")
    for absent in ("nonsense", uuid7(kit.now_ms())):
        refused(api.post("/msg/detail", msg_id=absent), 404, 405, "msg_id: ")


def test_commands_change_a_message(kit: Kit, api: Client) -> None:
    cancelled, postponed, fired, dead = (kit.put(due_in_ms=ms)[0] for ms in (9000, 9000, 9000, 0))
    kit.kill([dead])
    before = api.result("/msg/detail", msg_id=postponed)["due_at"]
    api.result("/msg/cancel", msg_id=cancelled)
    api.result("/msg/addTime", msg_id=postponed, topic_name=TOPIC, add_time=5000, command_id="c1")
    api.result("/msg/addTime", msg_id=postponed, topic_name=TOPIC, add_time=5000, command_id="c1")
    api.result("/msg/fireNow", msg_id=fired)
    api.result("/msg/redrive", msg_id=dead)
    assert kit.states([cancelled, dead]) == ["cancelled", "pending"]
    assert api.result("/msg/detail", msg_id=postponed)["due_at"] == before + 5000
    assert api.result("/msg/detail", msg_id=fired)["due_at"] <= kit.now_ms()
    refused(api.post("/msg/cancel", msg_id=cancelled), 409, 409, "too late")
    refused(api.post("/msg/redrive", msg_id=fired), 409, 409, "it is not a dead letter")
    refused(api.post("/msg/addTime", msg_id=fired, add_time=0), 400, 401, "add_time: ")
    refused(api.post("/msg/addTime", msg_id=fired, add_time=8 * 86_400_000), 400, 501, "add_time: ")
    refused(api.post("/msg/cancel", msg_id=fired, command_id="a b"), 400, 401, "command_id: ")
    refused(api.post("/msg/cancel", msg_id=fired, topic_name="absent"), 404, 407, "absent")
    for path in ("cancel", "fireNow", "redrive"):
        refused(api.post(f"/msg/{path}", msg_id="nonsense"), 404, 405, "msg_id: ")


def test_servers_that_are_away_are_503(kit: Kit, api: Client, monkeypatch: Any) -> None:
    def away(*_: Any, **__: Any) -> None:
        raise StoreUnavailable("the store does not answer")

    (msg_id,) = kit.put()
    for name in ("search", "get", "counts", "totals", "stats", "now_ms", "backlog"):
        monkeypatch.setattr(kit.parts.store, name, away)
    answer = api.post("/msg/query")
    refused(answer, 503, 503, "the store does not answer")
    assert answer.headers["Retry-After"] == "1"
    refused(api.post("/msg/cancel", msg_id=msg_id), 503, 503, "")
    refused(api.post("/topic/delete", topic_name=TOPIC), 503, 503, "")
    assert api.got("/topic/list")[0]["counts"] is None
    overview = api.got("/monitor/overview")
    assert overview["ports"]["store"] == "the store does not answer"
    assert (overview["pending"], overview["minutes"], overview["backlog"]) == (None, None, None)
    page = kit.client("viewer").flask.get("/instances")
    assert page.status_code == 200
    assert "which messages no live worker owns is unknown" in page.text
    answer = api.flask.get("/readyz")
    refused(answer, 503, 503, "store")


# ------------------------------------------------------------------------------- bulk


def job_ends(api: Client, job_id: str) -> dict[str, Any]:
    def status() -> dict[str, Any]:
        (job,) = api.result("/msg/bulkStatus", job_id=job_id)
        return dict(job)

    until(lambda: status()["finished_at"], "the job ends")
    return status()


def test_a_job_cancels_what_a_filter_finds(kit: Kit, api: Client) -> None:
    ids = kit.put(450)
    kept = kit.put(3, topic=TOPIC, due_in_ms=0)
    kit.kill(kept)
    job = api.result("/msg/bulk", action="cancel", topics=[TOPIC])
    later = kit.put(1)
    done = job_ends(api, job["job_id"])
    assert (done["state"], done["looked_at"], done["done"]) == ("done", 450, 450)
    assert done["chosen"] == f"pending messages of topic {TOPIC}"
    assert (done["refused"], done["failed"], done["started_by"][:6]) == ({}, 0, "token:")
    assert set(kit.states(ids)) == {"cancelled"}
    assert set(kit.states(kept)) == {"dead"}
    assert kit.states(later) == ["pending"]
    (entry,) = [e for e in kit.audit.latest(5) if e["action"] == "api.msg_bulk"]
    assert entry["details"] == {
        "action": "cancel",
        "topics": f'["{TOPIC}"]',
        "job_id": job["job_id"],
    }


def test_a_job_takes_one_topic_by_the_name_that_other_calls_use(kit: Kit, api: Client) -> None:
    api.result("/topic/add", topic_name="mail")
    others, mails = kit.put(2), kit.put(2, topic="mail")
    found = api.result("/msg/query", topic_name="mail")["list"]
    assert {m["msg_id"] for m in found} == set(mails)
    job = api.result("/msg/bulk", action="cancel", topic_name="mail", states=["pending"])
    assert job_ends(api, job["job_id"])["done"] == 2
    assert kit.states([*others, *mails]) == ["pending"] * 2 + ["cancelled"] * 2
    for path, given in (("/msg/query", {}), ("/msg/bulk", {"action": "cancel"})):
        both = api.post(path, topic_name="mail", topics=[TOPIC], **given)
        refused(both, 400, 401, "topic_name: give topic_name or topics")


@pytest.mark.parametrize("fields", [{}, {"states": ["pending"]}, {"since": 0}, {"topics": []}])
def test_a_job_on_all_topics_must_say_so(kit: Kit, api: Client, fields: dict[str, Any]) -> None:
    ids = kit.put(2)
    refused(api.post("/msg/bulk", action="cancel", **fields), 400, 401, "all: must be true")
    assert kit.states(ids) == ["pending"] * 2


def test_fields_that_are_not_known_are_refused_by_every_call(kit: Kit, api: Client) -> None:
    usual = {
        "topic_name": TOPIC,
        "instance": "127.0.0.1:30002",
        "msg_id": uuid7(1),
        "action": "cancel",
        "add_time": 1,
        "job_id": "x",
        "name": "x",
        "role": "viewer",
        "which": "all",
        "password": "0123456789",
        "old_password": "x",
        "new_password": "0123456789",
    }
    operations = Api(kit.service, kit.accounts, kit.audit, None).operations  # type: ignore[arg-type]
    assert len(operations) > 30
    for operation in operations:
        known = {name: usual[name] for name in operation.schema.fields if name in usual}
        sent = {**known, "topic_nam": TOPIC}
        if operation.method == "GET":
            answers = [api.get(operation.path, **sent)]
        else:
            form = api.flask.post(f"/sorakaq{operation.path}", data=sent, headers=api.headers)
            answers = [api.post(operation.path, **sent), form]
        for answer in answers:
            refused(answer, 400, 401, "topic_nam: there is no such field here")


def test_a_job_postpones_each_once_and_redrives(kit: Kit, api: Client) -> None:
    ids = kit.put(3)
    before = [s.due_at for s in kit.parts.store.get(ids) if s]
    job = api.result("/msg/bulk", action="postpone", add_time=5000, all=True)
    assert job_ends(api, job["job_id"])["done"] == 3
    assert [s.due_at for s in kit.parts.store.get(ids) if s] == [due + 5000 for due in before]
    dead = kit.put(3, due_in_ms=0)
    kit.kill(dead)
    span = {"since": 1_000_000_000_000, "until": 9_000_000_000_000, "prefix": ids[0][:3]}
    job = api.result("/msg/bulk", action="redrive", states=["dead", "pending"], **span)
    assert job_ends(api, job["job_id"])["done"] == 3
    assert job["chosen"] == (
        "dead messages of all topics, submitted from 2001-09-09 01:46:40 UTC, "
        f"submitted before 2255-03-14 16:00:00 UTC, ids that begin with {ids[0][:3]}"
    )
    assert set(kit.states(dead)) == {"pending"}


def test_a_job_by_ids_counts_what_it_could_not_change(kit: Kit, api: Client) -> None:
    ids = kit.put(2)
    api.result("/msg/cancel", msg_id=ids[0])
    job = api.result("/msg/bulk", action="fire_now", msg_ids=[*ids, *ids, uuid7(1)])
    done = job_ends(api, job["job_id"])
    assert (done["looked_at"], done["done"]) == (3, 1)
    assert done["refused"] == {"TooLate": 1, "MessageNotFound": 1}
    assert done["chosen"] == "5 ids"


def test_a_job_waits_while_log_or_store_are_away(
    kit: Kit, api: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    ids = kit.put(2)
    monkeypatch.setattr("admin_app.bulk.WAIT_S", 0.01)
    real, log, away = kit.parts.store.command, kit.parts.log.append, [True]

    def command(commands: Any) -> Any:
        if away:
            real(commands)  # it took effect, and no answer came
            raise StoreUnavailable("the store does not answer")
        return real(commands)

    def append(*given: Any) -> None:
        if away and len(away) > 1:
            raise LogUnavailable("the log does not answer")
        log(*given)

    monkeypatch.setattr(kit.parts.store, "command", command)
    monkeypatch.setattr(kit.parts.log, "append", append)
    before = [s.due_at for s in kit.parts.store.get(ids) if s]
    job = api.result("/msg/bulk", action="postpone", add_time=1000, all=True)["job_id"]

    def status() -> dict[str, Any]:
        return dict(api.result("/msg/bulkStatus")[0])

    until(lambda: status()["reason"] == "the store does not answer", "it waits")
    assert status()["state"] == "waiting"
    away.append(True)
    until(lambda: status()["reason"] == "the log does not answer", "it waits for the log")
    away.clear()
    assert job_ends(api, job)["done"] == 2
    assert [s.due_at for s in kit.parts.store.get(ids) if s] == [due + 1000 for due in before]


def test_a_job_can_be_stopped(kit: Kit, api: Client, monkeypatch: pytest.MonkeyPatch) -> None:
    kit.put(450)
    real = kit.parts.store.search
    stopped: list[str] = []

    def search(*given: Any) -> Any:
        until(lambda: stopped, "it is stopped")
        return real(*given)

    monkeypatch.setattr(kit.parts.store, "search", search)
    job = api.result("/msg/bulk", action="cancel", all=True)["job_id"]
    api.result("/msg/bulkStop", job_id=job)
    stopped.append(job)
    done = job_ends(api, job)
    assert (done["state"], done["done"]) == ("stopped", 200)


def test_so_many_jobs_run_at_once(kit: Kit, api: Client, monkeypatch: pytest.MonkeyPatch) -> None:
    free: list[bool] = []

    def search(*_: Any) -> Any:
        until(lambda: free, "they may go on")
        return [], ""

    monkeypatch.setattr(kit.parts.store, "search", search)
    jobs = [api.result("/msg/bulk", action="cancel", all=True)["job_id"] for _ in range(4)]
    refused(api.post("/msg/bulk", action="cancel", all=True), 409, 412, "4 bulk jobs run already")
    free.append(True)
    for job in jobs:
        assert job_ends(api, job)["state"] == "done"


@pytest.mark.parametrize(
    ("fields", "em"),
    [
        ({"action": "burn", "all": True}, "action: must be one of"),
        ({"action": "cancel"}, "all: must be true"),
        ({"action": "postpone", "all": True}, "add_time: "),
        ({"action": "cancel", "msg_ids": ["x"], "topics": [TOPIC]}, "msg_ids: "),
        ({"action": "cancel", "msg_ids": ["x"] * 10_001}, "msg_ids: must be at most"),
        ({"action": "redrive", "all": True, "states": ["pending"]}, "states: must have dead"),
        ({"action": "cancel", "since": 1 << 47}, "since: must lie in the past"),
        ({"action": "cancel", "until": (1 << 48) + 1}, "until: must be after since"),
        ({"action": "cancel", "all": "yes"}, "all: "),
    ],
)
def test_a_wrong_job_is_refused_by_name(api: Client, fields: dict[str, Any], em: str) -> None:
    refused(api.post("/msg/bulk", **fields), 400, 401, em)
    assert api.result("/msg/bulkStatus") == []


def test_an_unknown_job_is_refused(api: Client) -> None:
    for path in ("bulkStatus", "bulkStop"):
        refused(api.post(f"/msg/{path}", job_id="x"), 400, 401, "job_id: ")


# ----------------------------------------------------------------------------- monitor


def test_series_have_every_minute_and_their_averages(kit: Kit, api: Client) -> None:
    minute = kit.now_ms() // MINUTE * MINUTE - 5 * MINUTE
    values = {"called": 4, "flow_ms": 50, "callback_ms": 30, "late_le_2": 3, "late_le_inf": 1}
    kit.parts.store.add_stats(
        [
            Sample(f"topic:{TOPIC}", minute, values),
            Sample("all", minute, {**values, "accepted": 9}),
            Sample("workers", minute // DAY_MS * DAY_MS, {WORKER: 4}),
        ]
    )
    kit.parts.registry.register(Instance(service="worker", address=WORKER, incarnation="w"))
    span = {"since": minute - MINUTE, "until": minute + 2 * MINUTE}
    flow = api.got("/monitor/elapsedTime", topic_name=TOPIC, **span)
    assert flow == [
        {"minute": minute - MINUTE, "called": 0, "flow_ms": None, "callback_ms": None},
        {"minute": minute, "called": 4, "flow_ms": 12.5, "callback_ms": 7.5},
        {"minute": minute + MINUTE, "called": 0, "flow_ms": None, "callback_ms": None},
    ]
    assert len(api.got("/monitor/elapsedTime")) in (60, 61)
    counts = [m["counts"]["accepted"] for m in api.got("/monitor/minutes", **span)]
    assert counts == [0, 9, 0]
    late = api.got("/monitor/lateness", **span)
    assert (late["p50_ms"], late["p99_ms"]) == (2, 60_000)
    assert {"le_ms": 2, "count": 3} in late["buckets"]
    assert late["buckets"][-1] == {"le_ms": None, "count": 1}
    (of,) = api.got("/monitor/workerMsg")
    assert (of["worker"], len(of["days"])) == (WORKER, 7)
    assert sum(day["called"] for day in of["days"]) == 4
    overview = api.got("/monitor/overview")
    assert len(overview["minutes"]) == 60
    assert sum(m["counts"]["accepted"] for m in overview["minutes"]) == 9
    assert overview["lateness"]["p50_ms"] == 2


def test_seven_days_are_shown_by_hour(kit: Kit) -> None:
    hour = kit.now_ms() // HOUR_MS * HOUR_MS
    values = {"accepted": 120, "called": 60, "flow_ms": 600, "callback_ms": 300, "late_le_5": 60}
    hours = [hour - back * HOUR_MS for back in range(1, 168)]
    kit.parts.store.add_stats([Sample("hour:all", begin, values) for begin in hours])
    admin = kit.client("viewer").flask
    page = admin.get("/monitor?minutes=10080").text
    assert "10,020" in page
    assert "By hour" in page
    lines = admin.get("/charts/counts.json?minutes=10080").json
    assert lines["x"] == [begin // 1000 for begin in reversed(hours)]
    assert {series["label"]: {*series["values"]} for series in lines["series"]} == {
        "accepted": {2},
        "called": {1},
        "failed calls": {0},
        "died": {0},
        "cancelled": {0},
    }
    (flow, alone) = admin.get("/charts/flow.json?minutes=10080").json["series"]
    assert flow["values"] == [10] * 167 + [None]
    assert alone["values"] == [5] * 167 + [None]
    (late,) = admin.get("/charts/lateness.json?minutes=10080").json["series"]
    assert late["values"][2] == sum(late["values"]) == 10_020


@pytest.mark.parametrize("span", [{"since": 60_000, "until": 60_000}, {"since": 0}, {"since": "x"}])
def test_a_wrong_span_is_refused(api: Client, span: dict[str, Any]) -> None:
    answer = api.get("/monitor/elapsedTime", **span)
    assert (answer.status_code, answer.json["ec"]) == (400, 401)
    refused(
        api.flask.get("/sorakaq/monitor/minutes?since=1&since=2", headers=api.headers),
        400,
        401,
        "twice",
    )


def test_the_overview_counts_what_waits(kit: Kit, api: Client) -> None:
    (overdue,) = kit.put(due_in_ms=0)
    (parked,) = kit.put(due_in_ms=0)
    kit.put()
    kit.parts.store.assign([Move(parked, WORKER, parked_owner(TOPIC))])
    kit.parts.registry.register(Instance(service="center", address="10.0.0.1:1", incarnation="c"))
    overview = api.got("/monitor/overview")
    assert overview["pending"] == 3
    due_at = api.result("/msg/detail", msg_id=overdue)["due_at"]
    assert overview["backlog"] == {"overdue": 1, "oldest_due_at": due_at, "parked": 1}
    assert overview["ports"] == {"log": "", "store": "", "registry": ""}
    roles = {role["service"]: role["live"] for role in overview["roles"]}
    assert roles == {"receive": 0, "admin": 0, "center": 1, "worker": 0}
    assert sum(kit.service.instances.absent().values()) == 3


# ------------------------------------------------------------------------------ bodies


def test_bodies_are_bounded_and_of_a_known_kind(kit: Kit, api: Client) -> None:
    def post(**given: Any) -> Any:
        headers = {**api.headers, **given.pop("headers", {})}
        return api.flask.post("/sorakaq/topic/get", headers=headers, **given)

    refused(post(data=b"x" * (2 << 20), content_type="application/json"), 413, 413, "body: ")
    refused(post(data=b"{", content_type="application/json"), 400, 401, "body: is not JSON")
    refused(post(data=b"x", content_type="text/plain"), 400, 401, "Content-Type: ")
    twice = b'{"topic_name":"a","topic_name":"b"}'
    refused(
        post(data=twice, content_type="application/json"), 400, 401, "topic_name: is given twice"
    )
    refused(
        post(data=b"[]", content_type="application/json"), 400, 401, "body: must be a JSON object"
    )
    refused(api.get("/topic/get"), 405, 401, "method: must be POST")


def test_an_error_of_ours_is_told_to_nobody(
    kit: Kit, api: Client, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def broken() -> None:
        raise RuntimeError("a secret")

    monkeypatch.setattr(kit.service.topics, "all", broken)
    refused(api.get("/topic/list"), 500, 500, "system error")
    assert "http.failed" in caplog.messages
