"""Servers with TLS, users and certificates: what those without are told, what is kept secret."""

import logging
from collections.abc import Callable, Iterator, Mapping
from contextlib import closing
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import pytest
from kazoo.client import KazooClient
from kazoo.security import make_digest_acl

from soraka import config, tls, wiring
from soraka.adapters.redis_store import RedisStore
from soraka.adapters.zookeeper_client import digest
from soraka.adapters.zookeeper_tls import TlsHandler
from soraka.config import Config, TlsConfig
from soraka.errors import LogUnavailable, RegistryUnavailable, StoreUnavailable, Unavailable
from soraka.message import Instance, Topic
from soraka.ports import ClaimKind, Log, Record
from tests.certificates import Authority
from tests.contract.store_kit import SETTINGS, group_store, message, put, wait_for
from tests.redis_groups import (
    SENTINEL_PASSWORD,
    ClusterGroup,
    RedisGroup,
    SentinelGroup,
    started,
)
from tests.servers import PASSWORD, USER, Server

WRONG = "hush-hush"
ANYBODY = make_digest_acl("anyone", "else", all=True)
Sections = Mapping[str, Mapping[str, Any]]


@pytest.fixture(scope="module")
def stranger(tmp_path_factory: pytest.TempPathFactory) -> TlsConfig:
    """A certificate of another CA."""
    return Authority(tmp_path_factory.mktemp("stranger")).issue("stranger", thrift=False)


@pytest.fixture(autouse=True)
def no_secret_is_logged(caplog: pytest.LogCaptureFixture) -> Iterator[None]:
    """At level debug, but for the drivers: soraka shuts those up."""
    with caplog.at_level(logging.DEBUG):
        yield
    ours = [vars(r) for r in caplog.records if not r.name.startswith(("kafka", "kazoo"))]
    for secret in (PASSWORD, WRONG):
        assert secret not in str(ours)


def given(settings: Sections, tls_settings: TlsConfig) -> Config:
    return config.override(Config(), {**settings, "tls": asdict(tls_settings)})


def without_certificate(server: Server) -> TlsConfig:
    return TlsConfig(ca=server.tls.ca)


def of_unknown_ca(server: Server, stranger: TlsConfig) -> TlsConfig:
    return replace(server.tls, ca=stranger.ca)


def strange_to(server: Server, stranger: TlsConfig) -> TlsConfig:
    return replace(stranger, ca=server.tls.ca)


# ------------------------------------------------------------------------------------- Kafka


def kafka(server: Server, **changed: Any) -> Sections:
    about = {"adapter": "kafka", "bootstrap": server.url, "append_timeout_ms": 3000}
    return {"log": {**about, "tls": True, "username": USER, "password": PASSWORD, **changed}}


def append(log: Log) -> None:
    log.append("orders", [Record("key", b"value")])


def join(log: Log) -> None:
    log.consumer("g")


def kafka_failure(settings: Config, act: Callable[[Log], None]) -> str:
    with closing(wiring.open_log(settings)) as log, pytest.raises(LogUnavailable) as refused:
        act(log)
    said = str(refused.value)
    assert PASSWORD not in said
    assert WRONG not in said
    return said


either = pytest.mark.parametrize("act", [append, join])


def test_kafka_lets_in_who_has_all(kafka_tls_server: Server) -> None:
    settings = given(kafka(kafka_tls_server), kafka_tls_server.tls)
    with closing(wiring.open_log(settings)) as log:
        log.check()


@either
@pytest.mark.parametrize("user", [{"password": WRONG}, {"username": "nobody"}], ids=str)
def test_kafka_with_a_wrong_user(
    kafka_tls_server: Server, user: dict[str, str], act: Callable[[Log], None]
) -> None:
    settings = kafka(kafka_tls_server, **user)
    said = kafka_failure(given(settings, kafka_tls_server.tls), act)
    assert "log.username, log.password" in said


@either
def test_kafka_without_a_certificate(kafka_tls_server: Server, act: Callable[[Log], None]) -> None:
    settings = given(kafka(kafka_tls_server), without_certificate(kafka_tls_server))
    assert "tls.certificate" in kafka_failure(settings, act)


@either
def test_kafka_with_a_certificate_of_another_ca(
    kafka_tls_server: Server, stranger: TlsConfig, act: Callable[[Log], None]
) -> None:
    settings = given(kafka(kafka_tls_server), strange_to(kafka_tls_server, stranger))
    assert "tls.certificate" in kafka_failure(settings, act)


@either
def test_kafka_of_another_ca(
    kafka_tls_server: Server, stranger: TlsConfig, act: Callable[[Log], None]
) -> None:
    settings = given(kafka(kafka_tls_server), of_unknown_ca(kafka_tls_server, stranger))
    assert "tls.ca" in kafka_failure(settings, act)


@either
def test_kafka_without_tls(
    kafka_server: Server, stranger: TlsConfig, act: Callable[[Log], None]
) -> None:
    assert "log.tls" in kafka_failure(given(kafka(kafka_server), stranger), act)


# ------------------------------------------------------------------------------------- Redis


def redis(server: Server, url: str = "") -> Sections:
    return {"store": {"adapter": "redis", "url": url or server.url, "timeout_ms": 1500}}


def redis_failure(settings: Config) -> str:
    with closing(wiring.open_store(settings)) as store, pytest.raises(StoreUnavailable) as refused:
        store.positions("p")
    said = str(refused.value)
    assert PASSWORD not in said
    assert WRONG not in said
    return said


@pytest.mark.parametrize("user", [f"{USER}:{WRONG}@", "nobody:hush-hush@", ""])
def test_redis_with_a_wrong_user(redis_tls_server: Server, user: str) -> None:
    url = redis_tls_server.url.replace(f"{USER}:{PASSWORD}@", user)
    assert "store.url" in redis_failure(given(redis(redis_tls_server, url), redis_tls_server.tls))


def test_redis_without_a_certificate(redis_tls_server: Server) -> None:
    settings = given(redis(redis_tls_server), without_certificate(redis_tls_server))
    assert "tls.certificate" in redis_failure(settings)


def test_redis_with_a_certificate_of_another_ca(
    redis_tls_server: Server, stranger: TlsConfig
) -> None:
    settings = given(redis(redis_tls_server), strange_to(redis_tls_server, stranger))
    assert "tls.certificate" in redis_failure(settings)


def test_redis_of_another_ca(redis_tls_server: Server, stranger: TlsConfig) -> None:
    settings = given(redis(redis_tls_server), of_unknown_ca(redis_tls_server, stranger))
    assert "tls.ca" in redis_failure(settings)


def test_redis_without_tls(redis_server: Server, stranger: TlsConfig) -> None:
    url = redis_server.url.replace("redis://", f"rediss://:{WRONG}@")
    assert "store.url" in redis_failure(given(redis(redis_server, url), stranger))


# ------------------------------------------------------- Redis servers that keep each other


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> TlsConfig:
    return Authority(tmp_path_factory.mktemp("redis-ca")).issue("redis", thrift=False)


@pytest.fixture(scope="module", params=[SentinelGroup, ClusterGroup])
def group(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory, files: TlsConfig
) -> Iterator[RedisGroup]:
    """With TLS, and a user who may do no more than it has to."""
    home = tmp_path_factory.mktemp("group")
    with started(lambda folder: request.param(folder, files), home) as made:
        yield made


def test_a_fail_over(group: RedisGroup) -> None:
    with group_store(group, shards=8, timeout_ms=1500) as store:
        ids = [message(store.now_ms()) for _ in range(40)]
        put(store, *ids)
        group.wait_copied()
        old = group.master() if isinstance(group, SentinelGroup) else group.doubled()
        old.kill()
        wait_for(lambda: _reads(store) and store.restarts() != frozenset(), 30)
        store.vouch(store.restarts())
        assert {c.kind for c in store.claim([m.msg_id for m in ids])} == {ClaimKind.FIRE}
    group.make_whole()


def _reads(store: RedisStore) -> bool:
    try:
        store.positions("p")
    except StoreUnavailable:
        return False
    return True


def group_failure(settings: Mapping[str, Any]) -> str:
    store = RedisStore(shards=8, timeout_ms=1500, **{**SETTINGS, **settings})
    with closing(store), pytest.raises(StoreUnavailable) as refused:
        store.positions("p")
    said = str(refused.value)
    assert WRONG not in said
    assert SENTINEL_PASSWORD not in said
    return said


def test_a_group_of_another_ca(group: RedisGroup, files: TlsConfig, stranger: TlsConfig) -> None:
    secured = tls.client(replace(files, ca=stranger.ca), "store.url")
    assert "tls.ca" in group_failure({**group.settings, "secured": secured})


def test_a_group_without_a_certificate(group: RedisGroup, files: TlsConfig) -> None:
    secured = tls.client(TlsConfig(ca=files.ca), "store.url")
    assert "tls.certificate" in group_failure({**group.settings, "secured": secured})


@pytest.mark.parametrize("changed", [{"sentinel_user": "nobody"}, {"sentinel_password": WRONG}])
def test_a_wrong_user_of_the_sentinels(group: RedisGroup, changed: dict[str, str]) -> None:
    if isinstance(group, ClusterGroup):
        pytest.skip("has no sentinels")
    said = group_failure({**group.settings, **changed})
    assert "store.sentinel_user, store.sentinel_password" in said


# --------------------------------------------------------------------------------- ZooKeeper

WORKER = Instance(
    service="worker", address="10.0.0.1:1", incarnation="i", started_at=1, version="0"
)


def zookeeper(server: Server, root: str, **changed: Any) -> Sections:
    settings = {"tls": True, "username": USER, "password": PASSWORD, **changed}
    return {"registry": {"adapter": "zookeeper", "hosts": server.url, "root": root, **settings}}


def zookeeper_failure(settings: Config) -> str:
    with pytest.raises(RegistryUnavailable) as refused:
        wiring.open_registry(settings)
    said = str(refused.value)
    assert PASSWORD not in said
    assert WRONG not in said
    return said


@pytest.fixture
def root(tmp_path: Path) -> str:
    return f"/{tmp_path.name}/below"


def test_every_node_is_of_one_user(zookeeper_tls_server: Server, root: str) -> None:
    server = zookeeper_tls_server
    registry = wiring.open_registry(given(zookeeper(server, root), server.tls))
    handler = TlsHandler(tls.client(server.tls, "registry.tls"))
    witness = KazooClient(hosts=server.url, handler=handler, **digest(USER, PASSWORD))
    witness.start(timeout=10)
    with closing(registry), registry.lock("10.0.0.1:1") as had:
        assert had
        registry.put_topic(Topic(name="orders"), was=None)
        registry.register(WORKER)
        registry.register(replace(WORKER, incarnation="next", started_at=2))  # takes its place
        nodes = list(_below(witness, root.rpartition("/")[0]))
        owners = {node: witness.get_acls(node)[0] for node in nodes}
    witness.stop()
    witness.close()
    made = {node.removeprefix(f"{root}/") for node in nodes}
    assert {"topic/orders", "worker/10.0.0.1:1", "lock/10.0.0.1:1", "lock", "topic"} <= made
    assert set(map(tuple, owners.values())) == {(make_digest_acl(USER, PASSWORD, all=True),)}


def _below(client: Any, node: str) -> Iterator[str]:
    yield node
    for name in client.get_children(node):
        yield from _below(client, f"{node}/{name}")


@pytest.mark.parametrize(
    "user", [{"password": WRONG}, {"username": "nobody"}, {"username": "", "password": ""}], ids=str
)
def test_zookeeper_with_a_wrong_user(
    zookeeper_tls_server: Server, root: str, user: dict[str, str]
) -> None:
    server = zookeeper_tls_server
    with closing(wiring.open_registry(given(zookeeper(server, root), server.tls))) as registry:
        registry.put_topic(Topic(name="orders"), was=None)
        said = zookeeper_failure(given(zookeeper(server, root, **user), server.tls))
    assert "registry.username" in said
    assert "registry.password" in said


def test_zookeeper_without_a_certificate(zookeeper_tls_server: Server, root: str) -> None:
    server = zookeeper_tls_server
    settings = given(zookeeper(server, root), without_certificate(server))
    assert "tls.certificate" in zookeeper_failure(settings)


def test_zookeeper_with_a_certificate_of_another_ca(
    zookeeper_tls_server: Server, root: str, stranger: TlsConfig
) -> None:
    server = zookeeper_tls_server
    settings = given(zookeeper(server, root), strange_to(server, stranger))
    assert "tls.certificate" in zookeeper_failure(settings)


def test_zookeeper_of_another_ca(
    zookeeper_tls_server: Server, root: str, stranger: TlsConfig
) -> None:
    server = zookeeper_tls_server
    settings = given(zookeeper(server, root), of_unknown_ca(server, stranger))
    assert "tls.ca" in zookeeper_failure(settings)


def test_zookeeper_without_tls(zookeeper_server: Server, root: str, stranger: TlsConfig) -> None:
    settings = given(zookeeper(zookeeper_server, root), stranger)
    assert "registry.tls" in zookeeper_failure(settings)


def test_an_outage_is_not_taken_for_a_wrong_setting(
    zookeeper_tls_server: Server, root: str
) -> None:
    server = zookeeper_tls_server
    settings = given(zookeeper(server, root), server.tls)
    with closing(wiring.open_registry(settings)) as registry, server.outage():
        said = ""
        while "not connected" not in said:
            with pytest.raises(Unavailable) as refused:
                registry.put_topic(Topic(name="orders"), was=None)
            said = str(refused.value)
        assert "tls" not in said
