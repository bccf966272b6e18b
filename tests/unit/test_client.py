"""soraka.client against receive, over HTTP and Thrift."""

import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing
from datetime import UTC, datetime, timedelta, timezone
from pathlib import Path
from typing import Any

import gevent
import pytest
import uuid_utils
from gevent.pywsgi import WSGIServer
from gevent.server import StreamServer

import idl
from soraka import errors, tokens
from soraka.client import Client, NewMessage, State, Submitted, batches
from soraka.limits import DEFAULT_RETRY_MS
from soraka.message import Message
from soraka.ports import Query
from soraka.rpc import RpcServer
from soraka.tokens import Right, Tokens
from tests.unit.receive_kit import TOPIC, URL, Kit, serving, uuid7

MINUTE = timedelta(minutes=1)
KINDS = ("http", "thrift")


@pytest.fixture
def kit(tmp_path: Path) -> Iterator[Kit]:
    made = Kit(tmp_path, max_batch=20)
    yield made
    made.close()


Serve = Callable[[Kit], str]


@pytest.fixture(params=KINDS)
def serve(request: pytest.FixtureRequest) -> Iterator[Serve]:
    """Serves a kit; gives the URL."""
    with ExitStack() as stack:

        def over_http(kit: Kit) -> str:
            host, port = stack.enter_context(serving(kit))
            return f"http://{host}:{port}"

        def over_thrift(kit: Kit) -> str:
            listener = socket.create_server(("127.0.0.1", 0))
            server = RpcServer(idl.soraka.Soraka, kit.handler, listener)
            server.start()
            stack.callback(server.stop, 1)
            return f"thrift://127.0.0.1:{server.port}"

        yield over_http if request.param == "http" else over_thrift


@pytest.fixture
def client(kit: Kit, serve: Serve) -> Iterator[Client]:
    with Client(serve(kit), timeout=5, retry_for=10) as made:
        yield made


def logged(kit: Kit) -> list[Message]:
    found = kit.logged()
    assert all(isinstance(record, Message) for record in found)
    return found  # type: ignore[return-value]


def stored(kit: Kit) -> list[str]:
    page, _ = kit.parts.store.search(Query([TOPIC], list(State)), "", 100)
    return [one.message.msg_id for one in page]


# ------------------------------------------------------------------------- one message


def test_a_submit_in_pythons_types(kit: Kit, client: Client) -> None:
    params = {"name": "Zoë", "n": [1, None, 2.5]}
    sent = client.submit(
        TOPIC,
        URL,
        delay=timedelta(seconds=1.5),
        params=params,
        method="GET",
        ttr=timedelta(seconds=2),
        retry=[timedelta(milliseconds=5), MINUTE],
    )
    (message,) = logged(kit)
    assert message.msg_id == sent
    assert message.due_at == message.created_at + 1500
    assert (message.ttr_ms, message.retry_ms) == (2000, (5, 60_000))
    assert (message.callback.method, message.callback.url) == ("GET", URL)
    assert message.callback.params == '{"name":"Zoë","n":[1,null,2.5]}'


def test_the_defaults(kit: Kit, client: Client) -> None:
    client.submit(TOPIC, URL)
    (message,) = logged(kit)
    assert message.due_at == message.created_at
    assert (message.ttr_ms, message.retry_ms) == (1000, DEFAULT_RETRY_MS)
    assert (message.callback.method, message.callback.params) == ("POST", None)


def test_a_moment_in_any_zone(kit: Kit, client: Client) -> None:
    at = datetime.now(UTC).replace(microsecond=123_000) + MINUTE
    client.submit(TOPIC, URL, at=at.astimezone(timezone(timedelta(hours=-7))))
    client.submit(TOPIC, URL, at=at - timedelta(microseconds=999))
    client.submit(TOPIC, URL, at=datetime(1960, 1, 1, tzinfo=UTC))
    exact, rounded_up, past = logged(kit)
    assert exact.due_at == rounded_up.due_at == round(at.timestamp() * 1000)
    assert past.due_at == past.created_at


def test_what_cannot_be_sent(client: Client) -> None:
    wrong: list[dict[str, Any]] = [
        {"at": datetime(2030, 1, 1)},
        {"at": datetime.now(UTC), "delay": MINUTE},
        {"params": {"a": float("nan")}},
        {"params": {"a": object()}},
    ]
    for fields in wrong:
        with pytest.raises((ValueError, TypeError)):
            client.submit(TOPIC, URL, **fields)


def test_get_postpone_cancel(kit: Kit, client: Client) -> None:
    msg_id = client.submit(TOPIC, URL, delay=MINUTE, params={"a": {"b": 1}})
    with pytest.raises(errors.MessageNotFound):
        client.get(msg_id)
    kit.deliver()
    info = client.get(msg_id)
    assert (info.msg_id, info.topic, info.state) == (msg_id, TOPIC, State.PENDING)
    assert (info.method, info.url, info.params) == ("POST", URL, {"a": {"b": 1}})
    assert info.due_at - info.created_at == MINUTE
    assert abs(info.created_at - datetime.now(UTC)) < MINUTE
    assert (info.ttr, info.attempt, info.owner) == (timedelta(seconds=1), 0, "-")
    assert (info.lease_until, info.finished_at, info.reason) == (None, None, "")
    for _ in range(2):
        client.postpone(TOPIC, msg_id, MINUTE, command_id="p-1")
    client.postpone(TOPIC, msg_id, timedelta(microseconds=1))
    assert client.get(msg_id).due_at - info.due_at == MINUTE + timedelta(milliseconds=1)
    client.cancel(TOPIC, msg_id)
    info = client.get(msg_id)
    assert info.state is State.CANCELLED
    assert info.finished_at is not None
    with pytest.raises(errors.TooLate):
        client.postpone(TOPIC, msg_id, MINUTE)


def test_what_soraka_refuses_is_raised_as_its_errors(kit: Kit, client: Client) -> None:
    for kind, field, fields in (
        (errors.InvalidParams, "callback.url", {"url": "ftp://x"}),
        (errors.InvalidParams, "callback.request_type", {"method": "PUT"}),
        (errors.InvalidParams, "msg_id", {"msg_id": "mine"}),
        (errors.InvalidParams, "delay_time", {"delay": -MINUTE}),
        (errors.DelayTooLong, "delay_time", {"delay": timedelta(days=8)}),
        (errors.ReservedTopicName, "topic_name", {"topic": "center"}),
    ):
        with pytest.raises(kind) as refused:
            client.submit(**{"topic": TOPIC, "url": URL, **fields})
        assert isinstance(refused.value, errors.InvalidParams)
        assert refused.value.field == field
        assert str(refused.value).startswith(f"{field}: ")
    with pytest.raises(errors.TopicNotFound):
        client.submit("nowhere", URL)
    with pytest.raises(errors.MessageNotFound):
        client.cancel(TOPIC, "x")
    client.submit(TOPIC, URL, idempotency_key="k")
    with pytest.raises(errors.KeyReused):
        client.submit(TOPIC, f"{URL}/2", idempotency_key="k")
    assert len(kit.logged()) == 1


def test_own_ids_and_keys_make_it_one_message(kit: Kit, client: Client) -> None:
    own = uuid7(kit.now_ms())
    assert {client.submit(TOPIC, URL, msg_id=own) for _ in range(2)} == {own}
    assert len({client.submit(TOPIC, URL, idempotency_key="k") for _ in range(2)}) == 1
    assert len({client.submit(TOPIC, URL) for _ in range(2)}) == 2
    kit.deliver()
    assert len(stored(kit)) == 4


def test_with_a_wrong_clock_keys_take_the_place_of_ids(
    kit: Kit, serve: Serve, monkeypatch: pytest.MonkeyPatch
) -> None:
    old = uuid7(kit.now_ms() - 3_600_000)
    monkeypatch.setattr(uuid_utils, "uuid7", lambda: old)
    url = serve(kit)
    with Client(url) as client:
        ids = {client.submit(TOPIC, URL), client.submit(TOPIC, URL)}
        # an id that the caller gave is the caller's to judge
        with pytest.raises(errors.InvalidParams):
            client.submit(TOPIC, URL, msg_id=old)
    assert kit.counted["submit", 401] == 2
    with Client(url) as client:
        for _ in range(2):
            results = client.submit_batch([NewMessage(topic=TOPIC, url=URL)] * 15)
            assert all(result.error is None for result in results)
            ids |= {result.msg_id for result in results}
    assert kit.counted["submit_batch", 401] == 15  # it found out once
    assert {message.msg_id for message in logged(kit)} == ids
    assert len(ids) == 32


# ------------------------------------------------------------------------- batches


def test_a_batch_is_cut_to_what_the_server_takes(kit: Kit, client: Client) -> None:
    messages = [NewMessage(topic=TOPIC, url=f"{URL}/{i}", delay=MINUTE) for i in range(150)]
    messages[17] = NewMessage(topic="nowhere", url=URL)
    messages[101] = NewMessage(topic=TOPIC, url="ftp://x")
    results = client.submit_batch(iter(messages))
    assert isinstance(results[17].error, errors.TopicNotFound)
    assert isinstance(results[101].error, errors.InvalidParams)
    assert [r.msg_id for i, r in enumerate(results) if r.error is not None] == ["", ""]
    urls = {message.msg_id: message.callback.url for message in logged(kit)}
    assert len(urls) == 148
    for result, message in zip(results, messages, strict=True):
        assert result.error is not None or urls[result.msg_id] == message.url
    refused = kit.counted["submit_batch", 401]
    client.submit_batch(messages[:15] * 4)
    assert kit.counted["submit_batch", 401] == refused  # by now it knows


def test_an_empty_batch_asks_nobody() -> None:
    assert Client("http://127.0.0.1:1", retry_for=0).submit_batch([]) == []


def test_groups_are_bounded_in_bytes_too() -> None:
    small = {"callback": {"url": "u", "params": "x" * 1000}}
    large = {"callback": {"url": "u", "params": "é" * batches.MAX_BYTES}}
    sizes = [len(group) for group in batches.groups([small, large, *[small] * 2000], lambda: 900)]
    assert sizes[:2] == [1, 1]
    assert sum(sizes) == 2002
    assert max(sizes) == batches.MAX_BYTES // (batches.OF_A_MESSAGE + 1 + 2000)


def test_of_a_batch_only_what_is_unknown_is_sent_again(kit: Kit, client: Client) -> None:
    kit.parts.topics.add(kit.parts.topics.new("other"))
    kit.log.down.add("other")
    gevent.spawn_later(0.3, kit.log.down.clear)
    topics = [TOPIC, "other", TOPIC, "other"]
    results = client.submit_batch(NewMessage(topic=topic, url=URL) for topic in topics)
    assert [result.error for result in results] == [None] * 4
    found = logged(kit)
    assert sorted(m.topic for m in found) == sorted(topics)
    assert {m.msg_id for m in found} == {result.msg_id for result in results}


def test_a_batch_that_stays_unknown_says_so(kit: Kit, serve: Serve) -> None:
    kit.log.down.add(TOPIC)
    with Client(serve(kit), retry_for=0.2) as client:
        results = client.submit_batch([NewMessage(topic=TOPIC, url=URL)] * 2)
    assert all(isinstance(result.error, errors.Unavailable) for result in results)


# ------------------------------------------------------------------------- faults


def test_a_503_is_sent_again_with_the_same_ids(kit: Kit, client: Client) -> None:
    kit.log.down.add(TOPIC)
    gevent.spawn_later(0.3, kit.log.down.clear)
    began = time.monotonic()
    msg_id = client.submit(TOPIC, URL)
    assert time.monotonic() - began >= 1  # Retry-After
    assert [message.msg_id for message in logged(kit)] == [msg_id]


def test_it_gives_up_in_time(kit: Kit, serve: Serve) -> None:
    kit.log.down.add(TOPIC)
    with Client(serve(kit), retry_for=1.5) as client:
        began = time.monotonic()
        with pytest.raises(errors.Unavailable):
            client.submit(TOPIC, URL)
    assert 1 <= time.monotonic() - began < 3
    assert kit.counted["submit", 503] == 2


class Relay:
    """Passes calls on to a server; the first `lost` answers do not come back."""

    def __init__(self, url: str, lost: int) -> None:
        scheme, _, address = url.partition("://")
        host, port = address.split(":")
        self._target = (host, int(port))
        self.lost = lost
        self._server = StreamServer(("127.0.0.1", 0), self._relay)
        self._server.start()
        self.url = f"{scheme}://127.0.0.1:{self._server.server_port}"

    def close(self) -> None:
        self._server.stop(1)

    def _relay(self, sock: Any, _: Any) -> None:
        with socket.create_connection(self._target) as target:
            back = gevent.spawn(self._back, target, sock)
            while data := sock.recv(1 << 20):
                target.sendall(data)
            back.kill()

    def _back(self, target: Any, sock: Any) -> None:
        while answer := target.recv(1 << 20):
            gevent.sleep(0.05)
            if self.lost > 0:
                self.lost -= 1
                sock.shutdown(socket.SHUT_RDWR)
                return
            sock.sendall(answer)


def test_lost_answers_leave_one_message_and_one_postponement(kit: Kit, serve: Serve) -> None:
    with closing(Relay(serve(kit), lost=2)) as relay, Client(relay.url) as client:
        msg_id = client.submit(TOPIC, URL, delay=MINUTE)
        kit.deliver()
        assert stored(kit) == [msg_id]
        relay.lost = 2
        client.postpone(TOPIC, msg_id, MINUTE)
        info = client.get(msg_id)
        assert info.due_at - info.created_at == 2 * MINUTE
        assert kit.counted["submit", 200] == 3


def test_the_next_server_is_asked_at_once(kit: Kit, serve: Serve) -> None:
    url = serve(kit)
    away = f"{url.partition('://')[0]}://127.0.0.1:1"
    with Client([away, away, url]) as client:
        began = time.monotonic()
        client.submit(TOPIC, URL)
        client.submit(TOPIC, URL)
        assert time.monotonic() - began < 0.1
    with pytest.raises(errors.Unavailable, match="refused"), Client(away, retry_for=0) as client:
        client.submit(TOPIC, URL)


def test_connections_are_kept_and_stale_ones_are_replaced(kit: Kit, client: Client) -> None:
    pool = client._servers[0]._pool  # type: ignore[attr-defined]
    for _ in range(3):
        client.submit(TOPIC, URL)
    (kept,) = pool._idle
    sock = kept.sock if hasattr(kept, "sock") else kept._sock
    sock.shutdown(socket.SHUT_RDWR)
    client.submit(TOPIC, URL)
    assert pool._idle != [kept]
    assert kit.counted["submit", 200] == 4


def test_many_greenlets_use_one_client(kit: Kit, client: Client) -> None:
    submitting = [gevent.spawn(client.submit, TOPIC, URL) for _ in range(100)]
    ids = {one.get() for one in submitting}
    assert len(ids) == 100
    assert {message.msg_id for message in logged(kit)} == ids


def test_a_call_that_is_cut_short_gives_its_answer_to_nobody(kit: Kit, serve: Serve) -> None:
    first, second = uuid7(kit.now_ms()), uuid7(kit.now_ms())
    with closing(Relay(serve(kit), lost=0)) as relay, Client(relay.url) as client:
        assert client.submit(TOPIC, URL)
        with pytest.raises(gevent.Timeout), gevent.Timeout(0.01):
            client.submit(TOPIC, URL, msg_id=first)
        gevent.sleep(0.1)
        assert client.submit(TOPIC, URL, msg_id=second) == second


def test_a_silent_server_is_given_up() -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        for kind in KINDS:
            url = f"{kind}://127.0.0.1:{silent.getsockname()[1]}"
            with pytest.raises(errors.Unavailable), Client(url, timeout=0.2, retry_for=0) as client:
                client.get("x")


@pytest.mark.parametrize(
    ("status", "kind"),
    [
        ("502 Bad Gateway", errors.Unavailable),
        ("429 Slow down", errors.Unavailable),
        ("404 Not Found", errors.SorakaError),
        ("413 Too Large", errors.BodyTooLarge),
        ("200 OK", errors.SorakaError),
        ("302 Found", errors.SorakaError),
    ],
)
def test_words_of_a_proxy(status: str, kind: type[errors.SorakaError]) -> None:
    asked = []

    def app(environ: Any, start_response: Any) -> list[bytes]:
        asked.append(environ["PATH_INFO"])
        start_response(status, [("Content-Type", "text/html"), ("Retry-After", "9")])
        return [b"<html>"]

    server = WSGIServer(("127.0.0.1", 0), app, log=None)
    server.start()
    url = f"http://127.0.0.1:{server.server_port}/below/"
    with pytest.raises(kind, match=f"HTTP {status[:3]}") as raised, Client(url, retry_for=5) as c:
        c.get("x")
    server.stop(1)
    assert isinstance(raised.value, errors.Unavailable) == (kind is errors.Unavailable)
    assert asked == ["/below/sorakaq/msg/get"]


@pytest.mark.parametrize(
    "said", [b"\xff\xff\xff\xff", b"\x00\x00\x00\x03abc", b"SSH-2.0\r\n\r\n", b""]
)
@pytest.mark.parametrize("kind", KINDS)
def test_what_is_no_answer_at_all(kind: str, said: bytes) -> None:
    server = StreamServer(("127.0.0.1", 0), lambda sock, _: sock.sendall(said))
    server.start()
    url = f"{kind}://127.0.0.1:{server.server_port}"
    with pytest.raises(errors.Unavailable), Client(url, retry_for=0) as client:
        client.get("x")
    server.stop(1)


# ------------------------------------------------------------------------- settings


@pytest.mark.parametrize(
    "url",
    [
        "",
        "127.0.0.1:9088",
        "ftp://a:1",
        "http://",
        "http://me:secret@a:1",
        "http://a:1?x=1",
        "thrift://a:1/path",
        [],
    ],
)
def test_wrong_urls(url: Any) -> None:
    with pytest.raises(ValueError, match="url: "):
        Client(url)


def test_patience_has_a_limit() -> None:
    with pytest.raises(ValueError, match="retry_for"):
        Client("http://a", retry_for=301)


def test_tokens(tmp_path: Path, serve: Serve) -> None:
    path = tmp_path / "tokens.json"
    made = tokens.add(path, "shop", {Right.SUBMIT: [TOPIC]})
    kit = Kit(tmp_path, tokens=Tokens(path))
    kit.parts.topics.add(kit.parts.topics.new("other"))
    url = serve(kit)
    try:
        for wrong in (None, "soraka_x"):
            with Client(url, token=wrong) as client:
                with pytest.raises(errors.NotAuthenticated):
                    client.submit(TOPIC, URL)
                (result,) = client.submit_batch([NewMessage(topic=TOPIC, url=URL)])
                assert isinstance(result.error, errors.NotAuthenticated)
        with Client(url, token=made) as client:
            msg_id = client.submit(TOPIC, URL)
            kit.deliver()
            for refused in (
                lambda: client.submit("other", URL),
                lambda: client.cancel(TOPIC, msg_id),
                lambda: client.get(msg_id),
            ):
                with pytest.raises(errors.NotAllowed):
                    refused()
            good, bad = client.submit_batch(
                NewMessage(topic=topic, url=URL) for topic in (TOPIC, "other")
            )
            assert good == Submitted(good.msg_id)
            assert isinstance(bad.error, errors.NotAllowed)
    finally:
        kit.close()


PROGRAM = """
import sys, threading
from soraka.client import Client
urls = sys.argv[1:]
ids = []
def run(client):
    for _ in range(20):
        ids.append(client.submit("orders", "http://127.0.0.1:9/"))
for url in urls:
    with Client(url) as client:
        threads = [threading.Thread(target=run, args=(client,)) for _ in range(8)]
        for thread in threads: thread.start()
        for thread in threads: thread.join()
assert "gevent" not in sys.modules
print(len(set(ids)))
"""


def test_threads_without_gevent(kit: Kit, serve: Serve) -> None:
    """In a process that gevent has not patched."""
    with subprocess.Popen(
        [sys.executable, "-c", PROGRAM, serve(kit)], stdout=subprocess.PIPE, text=True
    ) as process:
        out, _ = process.communicate(timeout=40)
    assert out == "160\n"
    assert len({message.msg_id for message in logged(kit)}) == 160
