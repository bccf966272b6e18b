"""Signed callbacks, verified by the official library of Standard Webhooks."""

import base64
import json
import socket
import time
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import gevent
import pytest
from standardwebhooks import Webhook, WebhookVerificationError

from soraka.adapters.local_registry import LocalRegistry
from soraka.errors import Conflict, InvalidParams, TopicNotFound
from soraka.message import State, Topic
from soraka.signing import Signer, key_of, new_secret, signer_of
from soraka.topics import check_settings
from tests.unit.sinks import Seen, Sink, ok, sink
from tests.unit.test_topics import topics  # noqa: F401 (a fixture)
from tests.unit.worker_kit import Rig, after
from worker.topics import TopicRules

OLD, NEW, OTHER = new_secret(), new_secret(), new_secret()
ID = "01890a5d-ac96-774b-bcce-b302099a8057"


def verify(secret: str, headers: dict[str, str], body: bytes) -> None:
    """Raises WebhookVerificationError."""
    Webhook(secret).verify(body, headers, json_parse=False)


def headers_of(lines: bytes) -> dict[str, str]:
    return dict(line.split(": ", 1) for line in lines.decode().split("\r\n") if line)


# --------------------------------------------------------------- what is signed


@pytest.mark.parametrize("size", [24, 32, 33, 64])
@pytest.mark.parametrize("body", [b"", b"{}", '{"ö": "\\u20ac €"}'.encode(), b"x" * 100_000])
def test_the_official_library_verifies(size: int, body: bytes) -> None:
    secret = "whsec_" + base64.b64encode(bytes(range(size))).decode()
    headers = headers_of(Signer((secret,)).headers(ID, int(time.time() * 1000), body))
    assert list(headers) == ["webhook-id", "webhook-timestamp", "webhook-signature"]
    verify(secret, headers, body)
    with pytest.raises(WebhookVerificationError):
        verify(OTHER, headers, body)
    with pytest.raises(WebhookVerificationError):
        verify(secret, headers, body + b" ")
    for name, value in (("webhook-id", f"{ID}x"), ("webhook-timestamp", str(int(time.time()) - 9))):
        with pytest.raises(WebhookVerificationError):
            verify(secret, {**headers, name: value}, body)


def test_an_old_one_is_refused() -> None:
    headers = headers_of(Signer((OLD,)).headers(ID, int(time.time() - 600) * 1000, b"{}"))
    with pytest.raises(WebhookVerificationError, match="too old"):
        verify(OLD, headers, b"{}")


def test_both_verify_while_there_are_two() -> None:
    headers = headers_of(Signer((NEW, OLD)).headers(ID, int(time.time() * 1000), b"{}"))
    assert len(headers["webhook-signature"].split(" ")) == 2
    verify(NEW, headers, b"{}")
    verify(OLD, headers, b"{}")


def test_a_signer_is_made_once() -> None:
    assert signer_of((NEW, OLD)) is signer_of((NEW, OLD))
    assert signer_of((NEW,)) is not signer_of((NEW, OLD))


# --------------------------------------------------------------- secrets


def test_new_secrets_are_long_and_differ() -> None:
    made = {new_secret() for _ in range(100)}
    assert len(made) == 100
    assert {len(key_of(secret)) for secret in made} == {32}


@pytest.mark.parametrize(
    "secret",
    [
        "",
        "whsec_",
        "whsec_" + base64.b64encode(b"x" * 23).decode(),
        "whsec_" + base64.b64encode(b"x" * 65).decode(),
        base64.b64encode(b"x" * 32).decode(),
        "whsk_" + base64.b64encode(b"x" * 32).decode(),
        "whsec_" + base64.b64encode(b"x" * 32).decode().rstrip("="),
        "whsec_" + base64.b64encode(b"x" * 32).decode()[:-2] + "l=",
        "whsec_" + base64.urlsafe_b64encode(b"\xff" * 32).decode(),
        "whsec_" + base64.b64encode(b"x" * 32).decode() + "\n",
        "whsec_" + "ü" * 43 + "=",
    ],
)
def test_what_is_no_secret_is_refused_and_not_repeated(secret: str) -> None:
    with pytest.raises(InvalidParams) as refused:
        check_settings(Topic(name="t", secrets=(secret,)))
    assert refused.value.field == "secret"
    told = "must be whsec_ and 24 to 64 bytes in base64"
    assert refused.value.reason == told


def test_a_topic_is_not_printed_with_its_secrets() -> None:
    assert OLD not in repr(Topic(name="t", secrets=(OLD,)))


def test_rotation(topics: Any) -> None:  # noqa: F811
    topics.add(topics.new("t"))
    first = topics.add_secret("t")
    assert topics.find("t").secrets == (first,)
    with pytest.raises(Conflict):
        topics.remove_secret("t", "older")
    with pytest.raises(InvalidParams, match="has already"):
        topics.add_secret("t", first)
    assert topics.add_secret("t", NEW) == NEW
    assert topics.find("t").secrets == (NEW, first)
    with pytest.raises(Conflict, match="two secrets already"):
        topics.add_secret("t")
    topics.remove_secret("t", "older")
    assert topics.find("t").secrets == (NEW,)
    topics.add_secret("t", OLD)
    topics.remove_secret("t", "newer")
    assert topics.find("t").secrets == (NEW,)
    topics.remove_secret("t", "all")
    assert topics.find("t").secrets == ()
    with pytest.raises(Conflict):
        topics.remove_secret("t", "all")
    with pytest.raises(InvalidParams, match="which"):
        topics.remove_secret("t", "both")
    with pytest.raises(TopicNotFound):
        topics.add_secret("absent")


# --------------------------------------------------------------- the worker


@pytest.fixture
def rig(tmp_path: Path) -> Iterator[Rig]:
    with closing(Rig(tmp_path / "store.db", lease_margin_ms=20_000)) as made:
        yield made


@pytest.fixture
def server() -> Iterator[Sink]:
    with sink() as made:
        yield made


@pytest.fixture
def registry() -> LocalRegistry:
    made = LocalRegistry(path=None)
    made.put_topic(Topic(name="orders"), was=None)
    return made


def keep(registry: LocalRegistry, *secrets: str) -> None:
    topic = Topic(name="orders", secrets=secrets)
    assert registry.put_topic(topic, was=registry.topics()["orders"])


def test_every_attempt_is_signed_with_the_secrets_of_the_moment(
    rig: Rig, server: Sink, registry: LocalRegistry
) -> None:
    rig.loop(signer=TopicRules(registry, "10.0.0.1:1").signer)

    def call() -> Seen:
        (msg_id,) = rig.put(server.url, params='{"ö": 1}')
        assert rig.ends(msg_id).state is State.SUCCEEDED
        seen = server.seen[-1]
        assert seen.headers["soraka-message-id"] == msg_id
        return seen

    assert not [name for name in call().headers if name.startswith("webhook-")]
    keep(registry, OLD)
    seen = call()
    assert json.loads(seen.body) == {"ö": 1}
    assert seen.headers["webhook-id"] == seen.headers["soraka-message-id"]
    verify(OLD, seen.headers, seen.body)
    keep(registry, NEW, OLD)
    seen = call()
    verify(OLD, seen.headers, seen.body)
    verify(NEW, seen.headers, seen.body)
    keep(registry, NEW)
    seen = call()
    verify(NEW, seen.headers, seen.body)
    with pytest.raises(WebhookVerificationError):
        verify(OLD, seen.headers, seen.body)


def test_a_retry_has_the_same_id_and_its_own_time(
    rig: Rig, server: Sink, registry: LocalRegistry
) -> None:
    keep(registry, OLD)
    rig.loop(signer=TopicRules(registry, "10.0.0.1:1").signer)

    def fail_once(sock: socket.socket, seen: Seen) -> bool | None:
        status = "500 Oh" if seen.headers["soraka-attempt"] == "1" else "200 OK"
        return ok(status=status)(sock, seen)

    server.reply = fail_once
    (msg_id,) = rig.put(server.url, retry_ms=(1100,))
    assert rig.ends(msg_id).state is State.SUCCEEDED
    first, second = server.seen
    assert first.headers["webhook-id"] == second.headers["webhook-id"] == msg_id
    assert int(first.headers["webhook-timestamp"]) < int(second.headers["webhook-timestamp"])
    for seen in (first, second):
        verify(OLD, seen.headers, seen.body)


def test_a_get_is_signed_over_its_empty_body(
    rig: Rig, server: Sink, registry: LocalRegistry
) -> None:
    keep(registry, OLD)
    rig.loop(signer=TopicRules(registry, "10.0.0.1:1").signer)
    (msg_id,) = rig.put(server.url, method="GET", params='{"a": 1}')
    assert rig.ends(msg_id).state is State.SUCCEEDED
    (seen,) = server.seen
    assert (seen.method, seen.uri, seen.body) == ("GET", "/hook?a=1", b"")
    verify(OLD, seen.headers, b"")


def test_who_waits_at_a_gate_is_signed_after_it(
    rig: Rig, server: Sink, registry: LocalRegistry
) -> None:
    keep(registry, OLD)
    server.reply = after(2.2)
    rig.loop(signer=TopicRules(registry, "10.0.0.1:1").signer, max_per_host=1)
    rig.all_end(rig.put(server.url, count=2, ttr_ms=5000), State.SUCCEEDED)
    first, second = server.seen
    assert second.at - first.at >= 2200
    assert abs(int(second.headers["webhook-timestamp"]) - second.at / 1000) < 1.5


def test_a_large_body_arrives_signed_and_whole(
    rig: Rig, server: Sink, registry: LocalRegistry
) -> None:
    keep(registry, OLD)
    rig.loop(signer=TopicRules(registry, "10.0.0.1:1").signer)
    params = json.dumps({"x": "y" * (1 << 20)})
    (msg_id,) = rig.put(server.url, params=params, ttr_ms=5000)
    assert rig.ends(msg_id, 10).state is State.SUCCEEDED
    (seen,) = server.seen
    assert seen.body == params.encode()
    verify(OLD, seen.headers, seen.body)


def test_calls_at_once_do_not_disturb_each_others_signatures(
    rig: Rig, server: Sink, registry: LocalRegistry
) -> None:
    keep(registry, NEW, OLD)
    rig.loop(signer=TopicRules(registry, "10.0.0.1:1").signer)
    server.reply = after(0.05)
    rig.all_end(rig.put(server.url, count=100), State.SUCCEEDED)
    gevent.sleep(0)
    for seen in server.seen:
        verify(NEW, seen.headers, seen.body)
        verify(OLD, seen.headers, seen.body)
