"""The contract of the Registry port, on both adapters; then what only ZooKeeper can go through."""

import os
import shutil
import signal
import subprocess
import sys
import time
import uuid
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import gevent
import pytest
from gevent.event import Event
from kazoo.client import KazooClient
from kazoo.exceptions import ConnectionLoss, NotEmptyError, SessionExpiredError
from kazoo.handlers.gevent import SequentialGeventHandler

from soraka import tls
from soraka.adapters.local_registry import LocalRegistry
from soraka.adapters.registry_json import decode_instance, encode_instance
from soraka.adapters.zookeeper_client import digest
from soraka.adapters.zookeeper_registry import ZookeeperRegistry
from soraka.adapters.zookeeper_tls import TlsHandler
from soraka.errors import (
    ConfigError,
    DecodeError,
    InvalidParams,
    RegistryUnavailable,
    UnknownService,
)
from soraka.message import Instance, Topic
from soraka.ports import Registry
from tests.servers import PASSWORD, USER, Server

A = Instance(
    service="worker",
    address="10.0.0.1:30002",
    incarnation="one",
    started_at=1,
    version="0.1",
    weight=30,
)
B = replace(A, address="10.0.0.2:30002")
NEWER = replace(A, incarnation="two", started_at=2)
DRAINING = replace(A, draining=True, weight=0)
TOPIC = Topic(
    name="orders.eu-1_x",
    business="Käse & more",
    worker_num=2,
    workers=(A.address, B.address),
    balance="least_loaded",
    weigh_by="load",
    max_concurrent_dispatches=7,
    max_dispatches_per_second=50,
    paused=True,
    retention_ms=3_600_000,
    retry_ms=(5, 10),
    secrets=("whsec_" + "QUJD" * 11, "whsec_" + "REVG" * 8),
    created_at=1_700_000_000_000,
)


def until(condition: Callable[[], object], what: str, limit_s: float = 15.0) -> None:
    deadline = time.monotonic() + limit_s
    while not condition():
        assert time.monotonic() < deadline, f"not within {limit_s} s: {what}"
        gevent.sleep(0.02)


def holds(condition: Callable[[], object], what: str, for_s: float) -> None:
    """The opposite of until: it must be so all the time."""
    end = time.monotonic() + for_s
    while time.monotonic() < end:
        assert condition(), what
        gevent.sleep(0.02)


def steadily(condition: Callable[[], object], for_s: float) -> Callable[[], bool]:
    """Whether it was so at every look for a while."""
    since = time.monotonic()

    def held() -> bool:
        nonlocal since
        now = time.monotonic()
        if not condition():
            since = now
        return now - since >= for_s

    return held


def sees(registry: Registry, only: Instance) -> Callable[[], bool]:
    return lambda: registry.live("worker") == {only.address: only}


@dataclass
class Cluster:
    """Registries over one root of a real ZooKeeper, and a plain client beside them."""

    server: Server
    client: Any
    root: str
    settings: Mapping[str, Any] = field(default_factory=dict)
    opened: list[ZookeeperRegistry] = field(default_factory=list)

    def open(self, *, session_timeout_ms: int = 4000, timeout_ms: int = 3000) -> ZookeeperRegistry:
        registry = ZookeeperRegistry(
            hosts=self.server.url,
            root=self.root,
            session_timeout_ms=session_timeout_ms,
            timeout_ms=timeout_ms,
            **self.settings,
        )
        self.opened.append(registry)
        return registry

    def path(self, instance: Instance) -> str:
        return f"{self.root}/{instance.service}/{instance.address}"

    def session_of(self, instance: Instance) -> int | None:
        """None also when it cannot be asked: an outage may outlast a session."""
        try:
            stat = self.client.exists(self.path(instance))
        except (ConnectionLoss, SessionExpiredError):
            return None
        return stat.ephemeralOwner if stat else None

    def close(self) -> None:
        for registry in self.opened:
            registry.close()
        self.client.stop()
        self.client.close()


def session(registry: ZookeeperRegistry) -> int:
    return registry._client.session()


def forget_watches(registry: ZookeeperRegistry) -> None:
    registry._client.kazoo._child_watchers.clear()
    registry._client.kazoo._data_watchers.clear()


def client(server: Server, client_id: tuple[int, bytes] | None = None) -> Any:
    made = KazooClient(
        hosts=server.url,
        handler=SequentialGeventHandler(),
        client_id=client_id,
        connection_retry={"max_tries": -1, "max_delay": 0.5, "sleep_func": gevent.sleep},
    )
    made.start(timeout=10)
    return made


@pytest.fixture
def zookeeper(zookeeper_server: Server) -> Iterator[Cluster]:
    cluster = Cluster(zookeeper_server, client(zookeeper_server), f"/test-{uuid.uuid4().hex}")
    yield cluster
    cluster.close()


@pytest.fixture
def zookeeper_tls(zookeeper_tls_server: Server) -> Iterator[Cluster]:
    """With TLS, and nodes of one user."""
    server, user = zookeeper_tls_server, {"username": USER, "password": PASSWORD}
    secured = tls.client(server.tls, "registry.tls")
    made = KazooClient(hosts=server.url, handler=TlsHandler(secured), **digest(**user))
    made.start(timeout=10)
    settings = {**user, "secured": secured}
    cluster = Cluster(server, made, f"/test-{uuid.uuid4().hex}", settings)
    yield cluster
    cluster.close()


@dataclass
class Local:
    """Registries over one file."""

    path: Path

    def open(self) -> LocalRegistry:
        return LocalRegistry(path=self.path)


@pytest.fixture(params=["local", "zookeeper", "zookeeper_tls"])
def deployment(request: pytest.FixtureRequest, tmp_path: Path) -> Local | Cluster:
    if request.param == "local":
        return Local(tmp_path / "registry.json")
    cluster: Cluster = request.getfixturevalue(request.param)
    return cluster


@pytest.fixture
def registry(deployment: Local | Cluster) -> Iterator[Registry]:
    opened = deployment.open()
    yield opened
    opened.close()


# ============================================================ both adapters: instances


def test_at_first_there_is_nothing(registry: Registry) -> None:
    assert registry.live("worker") == {}
    assert registry.live("center") == {}
    assert registry.topics() == {}


def test_a_registered_instance_is_live_as_it_was_given(registry: Registry) -> None:
    registry.register(A)
    registry.register(B)
    assert registry.live("worker") == {A.address: A, B.address: B}


def test_services_are_apart(registry: Registry) -> None:
    center = replace(A, service="center", incarnation="c")
    registry.register(A)
    registry.register(center)
    assert registry.live("worker") == {A.address: A}
    assert registry.live("center") == {A.address: center}


def test_an_unknown_service_has_nobody_and_cannot_be_registered(registry: Registry) -> None:
    assert registry.live("nonsense") == {}
    with pytest.raises(UnknownService):
        registry.register(replace(A, service="topic"))


def test_unregister_withdraws_and_may_be_repeated(registry: Registry) -> None:
    registry.unregister(A)
    registry.register(A)
    registry.register(B)
    registry.unregister(A)
    registry.unregister(A)
    assert registry.live("worker") == {B.address: B}


def test_register_may_be_repeated(registry: Registry) -> None:
    registry.register(A)
    registry.register(A)
    assert registry.live("worker") == {A.address: A}
    registry.unregister(A)
    assert registry.live("worker") == {}


def test_a_new_incarnation_replaces_the_old_one(registry: Registry) -> None:
    registry.register(A)
    registry.register(NEWER)
    assert registry.live("worker") == {A.address: NEWER}


def test_one_may_announce_itself_again_with_other_words(registry: Registry) -> None:
    registry.register(A)
    registry.register(B)
    registry.register(DRAINING)
    assert registry.live("worker") == {A.address: DRAINING, B.address: B}
    registry.register(A)
    assert registry.live("worker") == {A.address: A, B.address: B}
    registry.register(DRAINING)
    registry.unregister(A)  # the incarnation counts, not the words
    assert registry.live("worker") == {B.address: B}


def test_a_watch_is_called_when_an_announcement_changes(registry: Registry) -> None:
    seen: list[dict[str, Instance]] = []
    registry.register(A)
    registry.watch(lambda: seen.append(registry.live("worker")))
    registry.register(DRAINING)
    until(lambda: seen[-1:] == [{A.address: DRAINING}], "the new words")


def test_a_late_unregister_of_the_old_incarnation_leaves_the_new_one(registry: Registry) -> None:
    registry.register(A)
    registry.register(NEWER)
    registry.unregister(A)
    assert registry.live("worker") == {A.address: NEWER}


def test_what_was_handed_out_does_not_change(registry: Registry) -> None:
    registry.register(A)
    registry.put_topic(TOPIC, was=None)
    live, topics = registry.live("worker"), registry.topics()
    registry.register(B)
    registry.put_topic(replace(TOPIC, name="other"), was=None)
    assert (live, topics) == ({A.address: A}, {TOPIC.name: TOPIC})


@pytest.mark.parametrize("name", ["", ".", "..", "a/b"])
def test_names_that_are_no_path_are_refused(registry: Registry, name: str) -> None:
    with pytest.raises(InvalidParams):
        registry.put_topic(replace(TOPIC, name=name), was=None)
    with pytest.raises(InvalidParams):
        registry.register(replace(A, address=name))


@pytest.mark.parametrize(
    "address",
    ["worker", "10.0.0.1", "10.0.0.1:", ":30002", "10.0.0.1:0", "h:65536", "h:-1", "h:1٣"],
)
def test_an_address_that_is_not_host_and_port_is_refused(registry: Registry, address: str) -> None:
    with pytest.raises(InvalidParams, match="host:port"):
        registry.register(replace(A, address=address))
    assert registry.live("worker") == {}


def test_an_address_may_be_a_name_or_ipv6(registry: Registry) -> None:
    for address in ("worker-1.example:1", "::1:65535"):
        registry.register(replace(A, address=address))
    assert set(registry.live("worker")) == {"worker-1.example:1", "::1:65535"}


# =============================================================== both adapters: topics


def test_a_created_topic_is_seen_at_once_with_all_its_settings(registry: Registry) -> None:
    assert registry.put_topic(TOPIC, was=None)
    assert registry.topics() == {TOPIC.name: TOPIC}


def test_a_topic_is_created_once(registry: Registry) -> None:
    assert registry.put_topic(TOPIC, was=None)
    assert not registry.put_topic(replace(TOPIC, business="other"), was=None)
    assert registry.topics() == {TOPIC.name: TOPIC}


def test_a_topic_is_updated_when_it_exists(registry: Registry) -> None:
    changed = replace(TOPIC, business="other", workers=(), retry_ms=())
    assert not registry.put_topic(changed, was=TOPIC)
    assert registry.topics() == {}
    registry.put_topic(TOPIC, was=None)
    assert registry.put_topic(changed, was=TOPIC)
    assert registry.topics() == {TOPIC.name: changed}


def test_a_topic_that_is_otherwise_by_now_is_not_written(registry: Registry) -> None:
    registry.put_topic(TOPIC, was=None)
    paused = replace(TOPIC, paused=not TOPIC.paused)
    assert registry.put_topic(paused, was=TOPIC)
    assert not registry.put_topic(replace(TOPIC, business="other"), was=TOPIC)
    assert registry.topics() == {TOPIC.name: paused}


def test_of_concurrent_changes_none_is_undone(
    registry: Registry, deployment: Local | Cluster
) -> None:
    """Each writer has a setting of its own, and on ZooKeeper a process of its own."""
    registry.put_topic(TOPIC, was=None)
    names = ("worker_num", "max_concurrent_dispatches", "retention_ms")
    writers = [registry if isinstance(deployment, Local) else deployment.open() for _ in names]
    until(lambda: all(writer.topics() for writer in writers), "all see the topic")

    def write(writer: Registry, name: str) -> None:
        for value in range(1, 21):
            while True:
                was = writer.topics()[TOPIC.name]
                gevent.sleep(0.001)  # as one does that asks workers for their load
                if writer.put_topic(replace(was, **{name: value}), was=was):
                    break
                assert writer.topics()[TOPIC.name] != was
            assert getattr(writer.topics()[TOPIC.name], name) == value

    writing = [gevent.spawn(write, *each) for each in zip(writers, names, strict=True)]
    gevent.joinall(writing, timeout=60, raise_error=True)
    assert all(each.ready() for each in writing)
    final = replace(TOPIC, **dict.fromkeys(names, 20))
    until(lambda: registry.topics() == {TOPIC.name: final}, "every change is there")


def test_a_deleted_topic_is_gone_at_once_and_can_be_made_again(
    registry: Registry, deployment: Local | Cluster
) -> None:
    other = Topic(name="other")
    registry.put_topic(TOPIC, was=None)
    registry.put_topic(other, was=None)
    assert registry.delete_topic(TOPIC.name)
    assert registry.topics() == {"other": other}
    assert not registry.put_topic(TOPIC, was=TOPIC)
    assert registry.put_topic(TOPIC, was=None)
    assert registry.delete_topic(TOPIC.name)
    registry.close()
    assert deployment.open().topics() == {"other": other}


def test_a_topic_that_does_not_exist_is_not_deleted(registry: Registry) -> None:
    registry.put_topic(TOPIC, was=None)
    assert not registry.delete_topic("other")
    assert registry.topics() == {TOPIC.name: TOPIC}
    with pytest.raises(InvalidParams):
        registry.delete_topic("a/b")


def test_a_watch_is_called_when_a_topic_is_deleted(registry: Registry) -> None:
    registry.put_topic(TOPIC, was=None)
    seen: list[dict[str, Topic]] = []
    registry.watch(lambda: seen.append(registry.topics()))
    registry.delete_topic(TOPIC.name)
    until(lambda: seen[-1:] == [{}], "that it is gone")


def test_many_topics_are_kept(registry: Registry, deployment: Local | Cluster) -> None:
    """More than are read from ZooKeeper in one batch."""
    topics = {f"t{number}": Topic(name=f"t{number}") for number in range(250)}
    for topic in topics.values():
        assert registry.put_topic(topic, was=None)
    assert registry.topics() == topics
    registry.close()
    assert deployment.open().topics() == topics


def test_topics_are_there_after_closing_and_opening_again(
    registry: Registry, deployment: Local | Cluster
) -> None:
    other = Topic(name="other")
    registry.put_topic(TOPIC, was=None)
    registry.put_topic(other, was=None)
    registry.put_topic(replace(other, worker_num=7), was=other)
    registry.close()
    again = deployment.open()
    assert again.topics() == {TOPIC.name: TOPIC, "other": replace(other, worker_num=7)}
    assert not again.put_topic(TOPIC, was=None)
    again.close()


# ======================================================= both adapters: watches and locks


def test_a_watch_is_called_after_each_change(registry: Registry) -> None:
    seen: list[tuple[dict[str, Instance], dict[str, Topic]]] = []
    registry.watch(lambda: seen.append((registry.live("worker"), registry.topics())))
    changed = replace(TOPIC, worker_num=9)
    registry.register(A)
    until(lambda: seen[-1:] == [({A.address: A}, {})], "registered")
    registry.register(NEWER)
    until(lambda: seen[-1] == ({A.address: NEWER}, {}), "replaced")
    registry.unregister(NEWER)
    until(lambda: seen[-1] == ({}, {}), "unregistered")
    registry.put_topic(TOPIC, was=None)
    until(lambda: seen[-1] == ({}, {TOPIC.name: TOPIC}), "topic created")
    registry.put_topic(changed, was=TOPIC)
    until(lambda: seen[-1] == ({}, {TOPIC.name: changed}), "topic updated")


def test_what_changes_nothing_calls_no_watch(registry: Registry) -> None:
    registry.register(A)
    registry.put_topic(TOPIC, was=None)
    calls: list[int] = []
    registry.watch(lambda: calls.append(1))
    registry.register(A)
    registry.unregister(B)
    registry.put_topic(TOPIC, was=None)
    registry.put_topic(Topic(name="other"), was=Topic(name="other"))
    holds(lambda: not calls, "no call", for_s=0.3)
    registry.register(B)
    until(lambda: calls, "a call for a change")


def test_changes_during_a_call_make_one_more_call(registry: Registry) -> None:
    calls: list[int] = []
    go_on = Event()

    def slow() -> None:
        calls.append(len(registry.topics()))
        go_on.wait()

    others: list[int] = []
    registry.watch(slow)
    registry.watch(lambda: others.append(1))
    for number in range(6):
        registry.put_topic(Topic(name=f"t{number}"), was=None)
        if number == 0:
            until(lambda: calls, "the first call")
    until(lambda: len(others) >= 2, "the other watch, which a slow one must not hold up")
    go_on.set()
    until(lambda: calls[-1] == 6, "a call that sees the last change")
    assert len(calls) == 2


def test_a_watch_that_fails_is_called_again(
    registry: Registry, capsys: pytest.CaptureFixture[str]
) -> None:
    calls: list[int] = []

    def failing() -> None:
        calls.append(1)
        raise ValueError("on purpose")

    registry.watch(failing)
    registry.put_topic(TOPIC, was=None)
    until(lambda: len(calls) == 1, "the first call")
    registry.put_topic(Topic(name="other"), was=None)
    until(lambda: len(calls) == 2, "the second call")
    until(lambda: "on purpose" in capsys.readouterr().err, "the error is printed")


def test_a_lock_is_had_by_one_at_a_time(registry: Registry) -> None:
    with registry.lock("10.0.0.1:30002") as first, registry.lock("10.0.0.1:30002") as second:
        assert (first, second) == (True, False)
        with registry.lock("10.0.0.2:30002") as other:
            assert other
    with registry.lock("10.0.0.1:30002") as again:
        assert again


def test_one_that_did_not_get_the_lock_does_not_free_it(registry: Registry) -> None:
    with registry.lock("x") as first:
        assert first
        for _ in range(2):
            with registry.lock("x") as other:
                assert not other


def test_a_lock_is_free_after_an_error(registry: Registry) -> None:
    with pytest.raises(ValueError, match="on purpose"), registry.lock("x"):
        raise ValueError("on purpose")
    with registry.lock("x") as had:
        assert had


# ================================================================ both adapters: close


def test_close_withdraws_and_may_be_repeated(
    registry: Registry, deployment: Local | Cluster
) -> None:
    registry.register(A)
    registry.close()
    registry.close()
    assert registry.live("worker") == {}
    again = deployment.open()
    assert again.live("worker") == {}
    again.close()


def test_after_close_nothing_is_written(registry: Registry) -> None:
    registry.put_topic(TOPIC, was=None)
    registry.close()
    with pytest.raises(RegistryUnavailable):
        registry.put_topic(Topic(name="other"), was=None)
    with pytest.raises(RegistryUnavailable):
        registry.register(A)
    assert set(registry.topics()) == {TOPIC.name}


# ========================================================================== local only


def test_without_a_path_topics_live_as_long_as_the_registry() -> None:
    registry = LocalRegistry(path=None)
    assert registry.put_topic(TOPIC, was=None)
    assert registry.topics() == {TOPIC.name: TOPIC}
    assert LocalRegistry(path=None).topics() == {}


def test_the_file_is_replaced_and_nothing_is_left_beside_it(tmp_path: Path) -> None:
    registry = LocalRegistry(path=tmp_path / "registry.json")
    registry.put_topic(TOPIC, was=None)
    first = (tmp_path / "registry.json").stat().st_ino
    registry.put_topic(Topic(name="other"), was=None)
    assert [path.name for path in tmp_path.iterdir()] == ["registry.json"]
    assert (tmp_path / "registry.json").stat().st_ino != first


def test_a_failed_write_changes_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "registry.json"
    registry = LocalRegistry(path=path)
    registry.put_topic(TOPIC, was=None)
    before = path.read_bytes()

    def full(_: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(RegistryUnavailable, match="No space left"):
        registry.put_topic(Topic(name="other"), was=None)
    assert registry.topics() == {TOPIC.name: TOPIC}
    assert path.read_bytes() == before
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize(
    "content",
    [
        "",
        "{",
        "[]",
        '{"a": 1}',
        '{"a": {"workers": "x"}}',
        '{"a": {"retry_ms": [true]}}',
        '{"a": {"secrets": ["whsec_"]}}',
    ],
)
def test_a_file_that_cannot_be_understood_is_not_taken_for_no_topics(
    tmp_path: Path, content: str
) -> None:
    path = tmp_path / "registry.json"
    path.write_text(content)
    with pytest.raises(ConfigError, match=r"registry\.json"):
        LocalRegistry(path=path)
    assert path.read_text() == content


def test_of_many_topics_the_wrong_one_is_named(tmp_path: Path) -> None:
    path = tmp_path / "registry.json"
    path.write_text('{"a": {}, "b": {"worker_num": "x"}}')
    with pytest.raises(ConfigError, match="soraka: b: worker_num is not int"):
        LocalRegistry(path=path)


def test_fields_of_a_later_version_are_ignored_and_missing_ones_get_defaults(
    tmp_path: Path,
) -> None:
    path = tmp_path / "registry.json"
    path.write_text('{"a": {"color": "red", "worker_num": 3}}')
    assert LocalRegistry(path=path).topics() == {"a": Topic(name="a", worker_num=3)}


def test_instances_of_another_version_are_understood() -> None:
    early = decode_instance("worker", A.address, b'{"incarnation": "one", "color": "red"}')
    assert early == Instance(service="worker", address=A.address, incarnation="one")
    for instance in (A, DRAINING):
        assert decode_instance("worker", A.address, encode_instance(instance)) == instance
    for wrong in ('"draining": 1', '"draining": null', '"weight": true', '"weight": "1"'):
        with pytest.raises(DecodeError):
            decode_instance("worker", A.address, f'{{"incarnation": "1", {wrong}}}'.encode())


# ================================================================ ZooKeeper: several processes


def test_others_see_what_one_does(zookeeper: Cluster) -> None:
    one, other = zookeeper.open(), zookeeper.open()
    called = Event()
    other.watch(called.set)
    one.register(A)
    until(lambda: other.live("worker") == {A.address: A}, "the instance")
    assert called.wait(5)
    one.put_topic(TOPIC, was=None)
    until(lambda: other.topics() == {TOPIC.name: TOPIC}, "the topic")
    changed = replace(TOPIC, worker_num=9)
    one.put_topic(changed, was=TOPIC)
    until(lambda: other.topics() == {TOPIC.name: changed}, "the changed topic")
    one.close()
    until(lambda: other.live("worker") == {}, "the end of the instance")


def test_others_see_changes_at_once_and_not_at_the_next_tick(zookeeper: Cluster) -> None:
    one, other = zookeeper.open(), zookeeper.open()
    began = time.monotonic()
    for number in range(8):
        one.put_topic(Topic(name=f"t{number}"), was=None)
        until(lambda: len(one.topics()) == len(other.topics()), "the topic")
    assert time.monotonic() - began < 4


def test_one_of_two_creates_a_topic_and_both_see_it_at_once(zookeeper: Cluster) -> None:
    one, other = zookeeper.open(), zookeeper.open()
    for number in range(20):
        topic = Topic(name=f"t{number}")
        tries = [gevent.spawn(r.put_topic, topic, was=None) for r in (one, other)]
        assert sorted(made.get(timeout=10) for made in tries) == [False, True]
        assert topic.name in one.topics()
        assert topic.name in other.topics()


def test_a_lock_excludes_other_processes_until_its_holder_ends(zookeeper: Cluster) -> None:
    one, other = zookeeper.open(), zookeeper.open()
    with one.lock("x") as had:
        assert had
        with other.lock("x") as also:
            assert not also
        one.close()
        with other.lock("x") as after:
            assert after
    until(lambda: zookeeper.client.get_children(f"{zookeeper.root}/lock") == [], "no traces")


def test_another_process_with_a_new_incarnation_replaces_and_is_not_replaced_back(
    zookeeper: Cluster,
) -> None:
    old, new = zookeeper.open(), zookeeper.open()
    old.register(A)
    new.register(NEWER)
    assert new.live("worker") == {A.address: NEWER}
    until(lambda: old.live("worker") == {A.address: NEWER}, "the old one sees it")
    for _ in range(2):  # each makes a whole turn of the old one's keeper
        old.register(B)
        old.unregister(B)
    assert zookeeper.session_of(A) == session(new)
    old.unregister(A)
    assert zookeeper.session_of(A) == session(new)


def test_while_it_is_replaced_an_address_is_never_absent(zookeeper: Cluster) -> None:
    """Or its messages would be given to others meanwhile."""
    registry, witness = zookeeper.open(), zookeeper.open()
    registry.register(A)
    until(sees(witness, A), "the first")
    absent: list[int] = []
    witness.watch(lambda: absent.extend(() if witness.live("worker") else (1,)))
    for number in range(30):
        registry.register(replace(A, incarnation=f"i{number}"))
    until(sees(witness, replace(A, incarnation="i29")), "the last")
    assert absent == []


def test_others_see_new_words_and_never_that_nobody_is_there(zookeeper: Cluster) -> None:
    registry, witness = zookeeper.open(), zookeeper.open()
    registry.register(A)
    until(sees(witness, A), "the first")
    absent: list[int] = []
    witness.watch(lambda: absent.extend(() if witness.live("worker") else (1,)))
    for number in range(30):
        registry.register(replace(A, weight=number, draining=number == 29))
    until(sees(witness, replace(A, weight=29, draining=True)), "the last")
    assert absent == []


def test_siblings_of_other_words_do_not_replace_each_other_for_ever(zookeeper: Cluster) -> None:
    one, sibling = zookeeper.open(), zookeeper.open()
    one.register(A)
    sibling.register(A)
    sibling.register(DRAINING)
    until(sees(one, DRAINING), "the last words")
    made = zookeeper.client.exists(zookeeper.path(A)).czxid
    for _ in range(3):  # each makes a whole turn of both keepers
        for registry in (one, sibling):
            registry.register(B)
            registry.unregister(B)
    assert zookeeper.client.exists(zookeeper.path(A)).czxid == made
    sibling.close()
    until(sees(one, A), "the one that stays says its own words again")


def test_a_replaced_process_takes_its_address_back_when_it_is_free(zookeeper: Cluster) -> None:
    old, new = zookeeper.open(), zookeeper.open()
    old.register(A)
    new.register(NEWER)
    new.close()
    until(lambda: old.live("worker") == {A.address: A}, "the old one is back")


def test_two_processes_of_one_address_and_age_do_not_replace_each_other_for_ever(
    zookeeper: Cluster,
) -> None:
    one, sibling, other = zookeeper.open(), zookeeper.open(), zookeeper.open()
    one.register(A)
    sibling.register(A)
    other.register(replace(A, incarnation="two"))
    made = zookeeper.client.exists(zookeeper.path(A)).czxid
    for _ in range(3):
        for registry in (one, sibling, other):
            registry.register(B)
            registry.unregister(B)
    assert zookeeper.client.exists(zookeeper.path(A)).czxid == made


def test_one_that_starts_replaces_a_predecessor_from_before_the_clock_was_set_back(
    zookeeper: Cluster,
) -> None:
    registry = zookeeper.open()
    forget_watches(registry)  # so that it does not know yet of the one before
    zookeeper.client.create(zookeeper.path(A), encode_instance(NEWER), ephemeral=True)
    registry.register(A)
    assert registry.live("worker") == {A.address: A}


def test_of_many_that_start_at_once_the_youngest_stays(
    zookeeper: Cluster, caplog: pytest.LogCaptureFixture
) -> None:
    registries = [zookeeper.open() for _ in range(5)]
    instances = [replace(A, incarnation=f"i{n}", started_at=n) for n in range(5)]
    starts = [gevent.spawn(r.register, i) for r, i in zip(registries, instances, strict=True)]
    gevent.joinall(starts, raise_error=True)
    all_see = [sees(registry, instances[-1]) for registry in registries]
    # one that was slow to start may still come in between, and is replaced back
    until(steadily(lambda: all(seen() for seen in all_see), for_s=0.5), "the youngest stays")
    assert zookeeper.session_of(A) == session(registries[-1])
    assert "registry.unavailable" not in caplog.messages


def test_siblings_may_start_at_once(zookeeper: Cluster, caplog: pytest.LogCaptureFixture) -> None:
    registries = [zookeeper.open() for _ in range(5)]
    gevent.joinall([gevent.spawn(r.register, A) for r in registries], raise_error=True)
    for registry in registries:
        until(sees(registry, A), "the shared node")
    assert "registry.unavailable" not in caplog.messages


def test_siblings_of_one_incarnation_keep_the_address_until_the_last_ends(
    zookeeper: Cluster,
) -> None:
    first, second, witness = zookeeper.open(), zookeeper.open(), zookeeper.open()
    first.register(A)
    second.register(A)
    assert zookeeper.session_of(A) == session(first)
    assert second.live("worker") == {A.address: A}
    first.unregister(A)
    until(lambda: zookeeper.session_of(A) == session(second), "the second takes over")
    first.register(A)
    first.unregister(A)
    assert zookeeper.session_of(A) == session(second)
    first.register(A)
    second.close()
    until(lambda: zookeeper.session_of(A) == session(first), "the first takes over again")
    until(lambda: witness.live("worker") == {A.address: A}, "the others see it")
    first.close()
    until(lambda: witness.live("worker") == {}, "nobody is left")
    assert zookeeper.session_of(A) is None


PROCESS = """
from gevent import monkey; monkey.patch_all()
import sys, time
from soraka.adapters.registry_json import decode_instance, encode_instance
from soraka.adapters.zookeeper_registry import ZookeeperRegistry
from soraka.message import Instance
registry = ZookeeperRegistry(hosts=sys.argv[1], root=sys.argv[2], session_timeout_ms=2000)
registry.register(Instance(service="worker", address=sys.argv[3], incarnation="p"))
print("registered", flush=True)
time.sleep(60)
"""


@contextmanager
def process(zookeeper: Cluster) -> Iterator[subprocess.Popen[str]]:
    """Another process that has announced A's address, with a session of two seconds."""
    arguments = [zookeeper.server.url, zookeeper.root, A.address]
    started = subprocess.Popen(
        [sys.executable, "-c", PROCESS, *arguments], stdout=subprocess.PIPE, text=True
    )
    try:
        assert started.stdout is not None
        assert started.stdout.readline() == "registered\n"
        yield started
    finally:
        started.kill()
        started.communicate()


def test_a_killed_process_vanishes_after_its_session_timeout(zookeeper: Cluster) -> None:
    registry = zookeeper.open()
    with process(zookeeper):
        until(lambda: A.address in registry.live("worker"), "its announcement")
        # longer than the session timeout: it lives by its heartbeats
        holds(lambda: A.address in registry.live("worker"), "it is alive", for_s=3)
    until(lambda: registry.live("worker") == {}, "its end", limit_s=8)


def test_a_process_that_was_stopped_for_longer_than_its_session_is_back_when_it_goes_on(
    zookeeper: Cluster,
) -> None:
    registry = zookeeper.open()
    with process(zookeeper) as stopped:
        stopped.send_signal(signal.SIGSTOP)
        until(lambda: registry.live("worker") == {}, "its end", limit_s=8)
        stopped.send_signal(signal.SIGCONT)
        until(lambda: A.address in registry.live("worker"), "its return")


# ================================================================ ZooKeeper: what goes wrong


def test_no_server_is_told_at_once_and_clearly() -> None:
    began = time.monotonic()
    with pytest.raises(RegistryUnavailable, match=r"not connected to ZooKeeper at 127.0.0.1:1$"):
        ZookeeperRegistry(hosts="127.0.0.1:1", timeout_ms=500)
    assert time.monotonic() - began < 3


def expire(registry: ZookeeperRegistry, server: Server) -> None:
    """Ends a session from a second connection to it, as a server does that lost sight of it."""
    twin = client(server, client_id=registry._client.kazoo.client_id)
    twin.stop()
    twin.close()


def test_an_expired_session_is_replaced_and_registered_again(zookeeper: Cluster) -> None:
    registry, witness = zookeeper.open(), zookeeper.open()
    registry.register(A)
    registry.register(replace(A, service="center"))
    registry.put_topic(TOPIC, was=None)
    before = session(registry)
    expire(registry, zookeeper.server)
    until(lambda: session(registry) not in (before, -1), "a new session")
    until(lambda: zookeeper.session_of(A) == session(registry), "registered again")
    until(lambda: witness.live("center").keys() == {A.address}, "the other service too")
    assert registry.topics() == {TOPIC.name: TOPIC}
    witness.put_topic(Topic(name="other"), was=None)
    witness.register(B)
    until(lambda: "other" in registry.topics(), "its watches work again")
    until(lambda: registry.live("worker") == {A.address: A, B.address: B}, "for instances too")


def test_new_words_outlive_a_lost_session(zookeeper: Cluster) -> None:
    registry, witness = zookeeper.open(), zookeeper.open()
    registry.register(A)
    registry.register(DRAINING)
    before = session(registry)
    expire(registry, zookeeper.server)
    until(lambda: session(registry) not in (before, -1), "a new session")
    until(lambda: zookeeper.session_of(A) == session(registry), "registered again")
    until(sees(witness, DRAINING), "with the last words")


def test_new_words_said_during_an_outage_are_heard_after_it(zookeeper: Cluster) -> None:
    """The node with the old words, of this session or the one before, may still be there."""
    registry = zookeeper.open(timeout_ms=500)
    registry.register(A)
    with zookeeper.server.outage():
        until(lambda: not registry._client.connected, "the connection is seen to be lost")
        registry.register(DRAINING)
        assert registry.live("worker") == {A.address: A}
    until(sees(registry, DRAINING), "the new words")
    assert zookeeper.session_of(A) == session(registry)


def test_words_of_ours_that_were_set_back_by_a_restore_are_mended(zookeeper: Cluster) -> None:
    registry = zookeeper.open()
    registry.register(A)
    registry.register(DRAINING)
    zookeeper.client.set(zookeeper.path(A), encode_instance(A))
    until(
        lambda: zookeeper.client.get(zookeeper.path(A))[0] == encode_instance(DRAINING),
        "it is mended",
    )
    until(sees(registry, DRAINING), "it is live")


def test_a_lock_lost_with_its_session_is_left_to_its_new_holder(zookeeper: Cluster) -> None:
    one, other = zookeeper.open(), zookeeper.open()
    lost = one.lock("x")
    assert lost.__enter__()
    before = session(one)
    expire(one, zookeeper.server)
    until(lambda: session(one) not in (before, -1), "a new session")
    with other.lock("x") as had:
        assert had
        lost.__exit__(None, None, None)
        with one.lock("x") as again:
            assert not again
    with one.lock("x") as free:
        assert free


def test_an_outage_is_outlived(zookeeper: Cluster, caplog: pytest.LogCaptureFixture) -> None:
    registry = zookeeper.open(timeout_ms=1000)
    registry.register(A)
    registry.put_topic(TOPIC, was=None)
    with zookeeper.server.outage():
        until(lambda: not registry._client.connected, "the connection is seen to be lost")
        assert registry.live("worker") == {A.address: A}
        assert registry.topics() == {TOPIC.name: TOPIC}
        with pytest.raises(RegistryUnavailable):
            registry.put_topic(Topic(name="other"), was=None)
        with registry.lock("x") as had:
            assert not had
        registry.register(B)
        registry.unregister(A)
        assert "registry.register_pending" in caplog.messages
    until(lambda: registry.live("worker") == {B.address: B}, "what was asked for meanwhile")
    until(lambda: zookeeper.session_of(B) == session(registry), "it is announced")
    assert zookeeper.session_of(A) is None
    until(lambda: registry._client.connected, "connected")
    assert registry._client._lost_at is None, "the next outage is counted from its own beginning"
    assert registry.put_topic(Topic(name="other"), was=None)
    with registry.lock("x") as had:
        assert had


@contextmanager
def paused(server: Server) -> Iterator[None]:
    """The server keeps its connections and does not answer."""
    assert server.pid is not None
    os.kill(server.pid, signal.SIGSTOP)
    threads = Path(f"/proc/{server.pid}/task")
    try:
        until(
            lambda: all(f.read_text().split(") ")[1][0] == "T" for f in threads.glob("*/stat")),
            "every thread stands still",
        )
        yield
    finally:
        os.kill(server.pid, signal.SIGCONT)


def test_a_server_that_lost_its_data_is_taken_as_a_new_one(zookeeper: Cluster) -> None:
    """It refuses those who have seen more than it knows, so our client must start anew."""
    registry = zookeeper.open(session_timeout_ms=1000)
    registry.put_topic(TOPIC, was=None)
    registry.register(A)
    with zookeeper.server.outage():
        shutil.rmtree(zookeeper.server.dir / "zookeeper" / "data")
    until(lambda: registry._client.connected, "connected")
    until(lambda: registry.topics() == {}, "the topics are lost")
    witness = zookeeper.open()
    until(lambda: witness.live("worker") == {A.address: A}, "registered again")
    assert registry.put_topic(TOPIC, was=None)
    until(lambda: witness.topics() == {TOPIC.name: TOPIC}, "a topic made anew")


def test_close_during_an_outage_returns(zookeeper: Cluster) -> None:
    registry = zookeeper.open(timeout_ms=1000)
    registry.register(A)
    with zookeeper.server.outage():
        until(lambda: not registry._client.connected, "the connection is seen to be lost")
        began = time.monotonic()
        registry.close()
        registry.close()
        assert time.monotonic() - began < 3


def test_a_server_that_hangs_is_given_up_on_and_leaves_no_lock_behind(zookeeper: Cluster) -> None:
    registry, other = zookeeper.open(timeout_ms=500), zookeeper.open()
    registry.put_topic(TOPIC, was=None)
    with registry.lock("x"):  # the directory of the locks is there, one request makes a lock
        pass
    began = time.monotonic()
    with paused(zookeeper.server):
        with registry.lock("x") as had:
            assert not had
        with pytest.raises(RegistryUnavailable, match=r"did not answer within 0.5 s"):
            registry.put_topic(replace(TOPIC, worker_num=5), was=TOPIC)
        registry.register(A)
        registry.unregister(A)
        assert time.monotonic() - began < 2.3

    def free() -> bool:
        with other.lock("x") as had:
            return had

    until(free, "the lock that was made after we gave up is dropped")
    until(lambda: registry.topics()[TOPIC.name].worker_num == 5, "unknown was: done")
    until(lambda: zookeeper.session_of(A) is None, "nothing announced that was withdrawn")


def test_a_node_deleted_by_hand_is_put_there_again(zookeeper: Cluster) -> None:
    registry = zookeeper.open()
    registry.register(A)
    for _ in range(3):
        zookeeper.client.delete(zookeeper.path(A))
        until(lambda: zookeeper.session_of(A) == session(registry), "it is back")
    until(lambda: registry.live("worker") == {A.address: A}, "it is live")


def test_a_watch_that_never_fires_is_made_up_for(zookeeper: Cluster) -> None:
    registry = zookeeper.open()
    registry.register(A)
    forget_watches(registry)
    zookeeper.client.delete(zookeeper.path(A))
    until(lambda: zookeeper.session_of(A) == session(registry), "it is back")


@pytest.mark.parametrize("error", [RegistryUnavailable("on purpose"), ValueError("on purpose")])
def test_a_turn_of_the_keeper_that_fails_is_made_up_for(
    zookeeper: Cluster, monkeypatch: pytest.MonkeyPatch, error: Exception
) -> None:
    registry, other = zookeeper.open(), zookeeper.open()
    registry.put_topic(TOPIC, was=None)
    forget_watches(registry)
    until(lambda: other.topics(), "the topic")
    other.put_topic(replace(TOPIC, worker_num=9), was=TOPIC)
    read, failures = registry._tree._read, [error]

    def failing_once(batch: Sequence[tuple[str, str]]) -> dict[tuple[str, str], Any]:
        if failures:
            raise failures.pop()
        return read(batch)

    monkeypatch.setattr(registry._tree, "_read", failing_once)
    registry._tree.invalidate("topic", TOPIC.name)
    registry._wake.set()
    until(lambda: not failures, "the failure")
    until(lambda: registry.topics()[TOPIC.name].worker_num == 9, "the change is read")


def test_a_node_overwritten_by_hand_is_mended(zookeeper: Cluster) -> None:
    registry = zookeeper.open()
    registry.register(A)
    zookeeper.client.set(zookeeper.path(A), b"garbage")
    until(lambda: zookeeper.client.get(zookeeper.path(A))[0] != b"garbage", "it is mended")
    until(lambda: registry.live("worker") == {A.address: A}, "it is live")


def test_directories_deleted_by_hand_are_made_again(zookeeper: Cluster) -> None:
    registry = zookeeper.open()
    registry.register(A)
    registry.put_topic(TOPIC, was=None)
    until(lambda: _deleted(zookeeper), "the directories are deleted")
    until(lambda: zookeeper.session_of(A) == session(registry), "the instance is back")
    until(lambda: registry.topics() == {}, "the topics are not")
    assert registry.put_topic(TOPIC, was=None)
    zookeeper.client.delete(f"{zookeeper.root}/topic/{TOPIC.name}")
    until(lambda: registry.topics() == {}, "the watch on the new directory works")


def _deleted(zookeeper: Cluster) -> bool:
    try:
        for directory in ("worker", "topic"):
            zookeeper.client.delete(f"{zookeeper.root}/{directory}", recursive=True)
    except NotEmptyError:  # the registry was quicker
        return False
    return True


@pytest.mark.parametrize(
    "content", [b"", b"{", b"[]", b"\xff", b'{"workers": "x"}', b'{"worker_num": "many"}']
)
def test_a_malformed_topic_is_logged_and_skipped(
    zookeeper: Cluster, caplog: pytest.LogCaptureFixture, content: bytes
) -> None:
    one = zookeeper.open()
    one.put_topic(TOPIC, was=None)
    path = f"{zookeeper.root}/topic/bad"
    zookeeper.client.create(path, content)
    until(lambda: "registry.malformed" in caplog.messages, "it is logged")
    assert one.topics() == {TOPIC.name: TOPIC}
    assert zookeeper.open().topics() == {TOPIC.name: TOPIC}
    zookeeper.client.set(path, b"{}")
    until(lambda: one.topics().get("bad") == Topic(name="bad"), "it is seen once mended")


@pytest.mark.parametrize("content", [b"", b"{}", b'{"incarnation": 5}'])
def test_a_malformed_instance_is_logged_and_skipped(
    zookeeper: Cluster, caplog: pytest.LogCaptureFixture, content: bytes
) -> None:
    registry = zookeeper.open()
    registry.register(A)
    zookeeper.client.create(zookeeper.path(B), content)
    until(lambda: "registry.malformed" in caplog.messages, "it is logged")
    assert registry.live("worker") == {A.address: A}


@pytest.mark.parametrize("name", ["worker", "10.0.0.9", "10.0.0.9:thrift", ":30002", "h:0"])
def test_an_instance_whose_name_is_no_address_is_logged_once_and_skipped(
    zookeeper: Cluster, caplog: pytest.LogCaptureFixture, name: str
) -> None:
    registry = zookeeper.open()
    registry.register(A)
    good = zookeeper.client.get(zookeeper.path(A))[0]
    zookeeper.client.create(f"{zookeeper.root}/worker/{name}", good)
    until(lambda: "registry.malformed" in caplog.messages, "it is logged")
    registry.register(B)  # the directory is read again
    assert registry.live("worker") == {A.address: A, B.address: B}
    assert caplog.messages.count("registry.malformed") == 1


def test_a_keeper_that_cannot_renew_its_session_goes_on(
    zookeeper: Cluster, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    registry = zookeeper.open()
    registry.register(A)
    tried: list[int] = []

    def failing() -> None:
        tried.append(1)
        raise ValueError("on purpose")

    with monkeypatch.context() as patched:
        patched.setattr(registry._client, "renew", failing)
        patched.setattr(type(registry._client), "connected", False)
        registry._wake.set()
        until(lambda: tried, "it tries to renew")
    zookeeper.client.delete(zookeeper.path(A))
    until(lambda: zookeeper.session_of(A) == session(registry), "it is back")
    assert "registry.failed" in caplog.messages
