"""One HTTP call against real servers on loopback."""

import json
import socket
import ssl
import struct
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import gevent
import pytest
from gevent import monkey
from gevent.pywsgi import WSGIServer
from gevent.server import StreamServer

from soraka.message import Callback, Message
from tests.unit.sinks import Seen, Sink, eventually, ok, raw, sink
from worker import hosts
from worker.callback import Caller
from worker.dns import Resolver
from worker.judge import Answer, Failure
from worker.request import Origin, Request, build
from worker.trust import Trust

# Run without coverage, which would take most of the time that is measured here.
pytestmark = pytest.mark.timed

ID = "01890a5d-ac96-774b-bcce-b302099a8057"
LIMIT = 64 << 10
stop_process = monkey.get_original("time", "sleep")


def request(
    url: str, *, method: str = "GET", params: str | None = None, ttr: int = 2000
) -> Request:
    message = Message(
        msg_id=ID,
        topic="orders",
        created_at=1,
        due_at=2,
        ttr_ms=ttr,
        callback=Callback(method=method, url=url, params=params),
    )
    return build(message, attempt=2, due_at=77)


@pytest.fixture
def caller() -> Iterator[Caller]:
    made = Caller(max_response_bytes=LIMIT)
    yield made
    made.close()


def timed(caller: Caller, what: Request) -> tuple[Answer | Failure, float]:
    """The result, and the duration in ms."""
    start = time.monotonic()
    return caller(what), (time.monotonic() - start) * 1000


# --------------------------------------------------------------- what is sent


def test_post_and_get_as_a_web_server_sees_them(caller: Caller) -> None:
    seen: list[dict[str, Any]] = []

    def app(environ: dict[str, Any], start_response: Any) -> list[bytes]:
        seen.append({**environ, "body": environ["wsgi.input"].read()})
        start_response("200 OK", [("Content-Type", "application/json")])
        return [b'{"result": true}']

    web = WSGIServer(("127.0.0.1", 0), app, log=None)
    web.start()
    url = f"http://127.0.0.1:{web.server_port}/a?b=c"
    try:
        posted = caller(request(url, method="POST", params='{"x": [1, "ü"]}'))
        got = caller(request(url, params='{"x": [1, true]}'))
    finally:
        web.stop()
    assert posted == got == Answer(200, b'{"result": true}')
    assert [s["REQUEST_METHOD"] for s in seen] == ["POST", "GET"]
    assert json.loads(seen[0]["body"]) == {"x": [1, "ü"]}
    assert seen[0]["CONTENT_TYPE"] == "application/json"
    assert seen[0]["QUERY_STRING"] == "b=c"
    assert seen[1]["QUERY_STRING"] == "b=c&x=1&x=true"
    assert seen[1]["body"] == b""
    for one in seen:
        assert one["HTTP_SORAKA_MESSAGE_ID"] == ID
        assert one["HTTP_SORAKA_TOPIC"] == "orders"
        assert one["HTTP_SORAKA_ATTEMPT"] == "2"
        assert one["HTTP_SORAKA_DUE_AT"] == "77"
        assert one["HTTP_USER_AGENT"].startswith("soraka/")


def test_a_large_body_arrives_whole(caller: Caller, server: Sink) -> None:
    params = json.dumps({"x": "y" * (8 << 20)})
    assert caller(request(server.url, method="POST", params=params, ttr=10_000)) == Answer(
        200, b"{}"
    )
    assert server.seen[0].body == params.encode()


def test_an_answer_before_the_body_was_read_counts(caller: Caller) -> None:
    def serve(sock: socket.socket, peer: Any) -> None:
        sock.recv(4096)
        sock.sendall(b"HTTP/1.1 410 Gone\r\nContent-Length: 0\r\n\r\n")
        gevent.sleep(0.1)  # and closes with the rest unread: the client's sending fails

    server = StreamServer(("127.0.0.1", 0), serve)
    server.start()
    params = json.dumps({"x": "y" * (16 << 20)})
    url = f"http://127.0.0.1:{server.server_port}/"
    try:
        assert caller(request(url, method="POST", params=params)) == Answer(410)
    finally:
        server.stop()


# --------------------------------------------------------------- what comes back


def test_the_answer_has_status_body_and_retry_after(caller: Caller, server: Sink) -> None:
    server.reply = ok(b"later", status="503 Busy", extra="retry-AFTER: 120\r\n")
    assert caller(request(server.url)) == Answer(503, b"later", "120")


def test_a_redirect_is_not_followed(caller: Caller, server: Sink) -> None:
    server.reply = ok(b"", status="302 Found", extra=f"Location: {server.url}/other\r\n")
    assert caller(request(server.url)) == Answer(302)
    assert len(server.seen) == 1


CHUNKED = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"


@pytest.mark.parametrize(
    ("data", "body"),
    [
        (CHUNKED + b"3\r\nabc\r\n2\r\nde\r\n0\r\n\r\n", b"abcde"),
        (CHUNKED + b"3\r\nabc\r\n0\r\nRetry-After: 5\r\n\r\n", b"abc"),
        (b"HTTP/1.1 200 OK\r\n\r\nto the end", b"to the end"),
        (b"HTTP/1.0 200 OK\r\n\r\nold", b"old"),
        (
            b"HTTP/1.1 103 Early\r\nRetry-After: 9\r\n\r\n"
            b"HTTP/1.1 200 OK\r\nContent-Length: 1\r\n\r\nx",
            b"x",
        ),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 1\r\nConnection: close\r\n\r\nxgarbage", b"x"),
    ],
)
def test_forms_of_an_answer(caller: Caller, server: Sink, data: bytes, body: bytes) -> None:
    server.reply = raw(data)
    assert caller(request(server.url)) == Answer(200, body)


def test_no_body_is_awaited_after_204(caller: Caller, server: Sink) -> None:
    server.reply = raw(b"HTTP/1.1 204 No Content\r\n\r\n", close=False)
    assert caller(request(server.url)) == Answer(204)


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (b"", "connection closed without an answer"),
        (b"HTTP/1.1 200", "connection closed in the middle of the answer"),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nabc", "connection closed in the middle"),
        (CHUNKED + b"5\r\nab", "connection closed in the middle of the answer"),
        (CHUNKED + b"zz\r\n", "not HTTP: "),
        (b"SSH-2.0-OpenSSH_9\r\n", "not HTTP: "),
        (b"HTTP/1.1 101 Switching\r\nUpgrade: x\r\nConnection: upgrade\r\n\r\n", "not HTTP: "),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\nxx", "not HTTP: "),
        (b"HTTP/1.1 200 OK\r\nX: " + b"y" * 40_000, "the head of the answer is over 32768 bytes"),
        (b"HTTP/1.1 103 E\r\n\r\n" * 4000, "the head of the answer is over 32768 bytes"),
    ],
)
def test_what_is_no_answer(caller: Caller, server: Sink, data: bytes, reason: str) -> None:
    server.reply = raw(data)
    result = caller(request(server.url))
    assert isinstance(result, Failure)
    assert result.reason.startswith(reason)
    assert len(server.seen) == 1


def test_a_second_answer_sent_unasked_is_not_taken(caller: Caller, server: Sink) -> None:
    server.reply = raw(
        b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\nHTTP/1.1 500 No\r\nContent-Length: 0\r\n\r\n",
        close=False,
    )
    assert caller(request(server.url)) == Answer(200)
    assert caller(request(server.url)) == Answer(200)
    assert server.connections == 2


# --------------------------------------------------------------- bounds


@pytest.mark.parametrize("declared", [True, False])
def test_a_huge_body_is_cut_and_the_connection_closed(
    caller: Caller, server: Sink, declared: bool
) -> None:
    sent = 0

    def reply(sock: socket.socket, seen: Seen) -> bool:
        nonlocal sent
        length = f"Content-Length: {1 << 40}\r\n" if declared else ""
        sock.sendall(f"HTTP/1.1 200 OK\r\n{length}\r\n".encode())
        while True:
            sock.sendall(b"x" * 65536)
            sent += 65536

    server.reply = reply
    result, ms = timed(caller, request(server.url))
    assert result == Answer(200, b"x" * LIMIT)
    assert ms < 1000
    eventually(lambda: server.open_now == 0)
    assert sent < 32 << 20  # what the buffers of the system take


def test_a_body_in_endless_tiny_chunks_is_cut(server: Sink) -> None:
    server.reply = raw(
        CHUNKED
        + b"1;"
        + b"e" * 1000
        + b"\r\nx\r\n" * 1
        + (b"1;" + b"e" * 1000 + b"\r\nx\r\n") * 500
    )
    caller = Caller(max_response_bytes=1000)
    result = caller(request(server.url))
    assert isinstance(result, Answer)
    assert result.status == 200
    assert len(result.body) < 100


def test_without_a_limit_to_read_the_status_decides(server: Sink) -> None:
    server.reply = ok(b"something")
    caller = Caller(max_response_bytes=0)
    assert caller(request(server.url)) == Answer(200)


def hang(sock: socket.socket, seen: Seen) -> bool:
    gevent.sleep(30)
    return True


def drip_head(sock: socket.socket, seen: Seen) -> bool:
    sock.sendall(b"HTTP/1.1 200 OK\r\nX: ")
    while True:
        sock.sendall(b"y")
        gevent.sleep(0.02)


def drip_body(sock: socket.socket, seen: Seen) -> bool:
    sock.sendall(b"HTTP/1.1 200 OK\r\n\r\n")
    while True:
        sock.sendall(b"y")
        gevent.sleep(0.02)


@pytest.mark.parametrize("reply", [hang, drip_head, drip_body])
def test_ttr_is_the_deadline_of_the_whole_call(caller: Caller, server: Sink, reply: Any) -> None:
    server.reply = reply
    result, ms = timed(caller, request(server.url, ttr=300))
    assert result == Failure("timeout after 300 ms", unanswered=True)
    assert 295 <= ms < 450
    assert len(server.seen) == 1


def test_ttr_holds_while_sending(caller: Caller) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:  # accepts, reads nothing
        url = f"http://127.0.0.1:{listener.getsockname()[1]}/"
        params = json.dumps({"x": "y" * (16 << 20)})
        result, ms = timed(caller, request(url, method="POST", params=params, ttr=300))
    assert result == Failure("timeout after 300 ms", unanswered=True)
    assert ms < 500


@contextmanager
def mute(host: str, port: int = 0) -> Iterator[int]:
    """A port where connecting gets no answer: the queue of its listener is full."""
    with socket.create_server((host, port), backlog=0) as listener:
        address = listener.getsockname()
        fillers = [socket.socket() for _ in range(4)]
        for filler in fillers:
            filler.setblocking(False)
            filler.connect_ex(address)
        try:
            yield address[1]
        finally:
            for filler in fillers:
                filler.close()


def test_ttr_holds_while_connecting(caller: Caller) -> None:
    with mute("127.0.0.1") as port:
        result, ms = timed(caller, request(f"http://127.0.0.1:{port}/", ttr=300))
    assert result == Failure("timeout after 300 ms", unanswered=True)
    assert ms < 500


def test_a_timeout_closes_its_own_connection_alone(caller: Caller, server: Sink) -> None:
    def reply(sock: socket.socket, seen: Seen) -> bool | None:
        if "slow" in seen.uri:
            return hang(sock, seen)
        gevent.sleep(0.4)
        return ok()(sock, seen)

    server.reply = reply
    fine = gevent.spawn(caller, request(server.url, ttr=1000))
    assert caller(request(f"{server.url}/slow", ttr=200)) == Failure(
        "timeout after 200 ms", unanswered=True
    )
    assert fine.get() == Answer(200, b"{}")
    assert caller(request(server.url, ttr=1000)) == Answer(200, b"{}")
    assert server.connections == 2


def test_an_outer_timeout_is_not_swallowed(caller: Caller, server: Sink) -> None:
    server.reply = hang
    with pytest.raises(gevent.Timeout), gevent.Timeout(0.1):
        caller(request(server.url))


def test_what_is_past_its_deadline_is_not_sent(
    caller: Caller, server: Sink, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert caller(request(server.url)) == Answer(200, b"{}")
    take = caller._hosts.take

    def stopped(origin: Origin) -> socket.socket | None:
        stop_process(0.15)  # no greenlet runs meanwhile: no timeout can strike
        return take(origin)

    monkeypatch.setattr(caller._hosts, "take", stopped)
    assert isinstance(caller(request(server.url, ttr=100)), Failure)
    monkeypatch.undo()
    assert caller(request(server.url)) == Answer(200, b"{}")
    assert len(server.seen) == 2


# --------------------------------------------------------------- connections


def test_connections_are_kept_alive(caller: Caller, server: Sink) -> None:
    for _ in range(5):
        assert caller(request(server.url)) == Answer(200, b"{}")
    assert server.connections == 1


def test_calls_at_once_have_a_connection_each(caller: Caller, server: Sink) -> None:
    def reply(sock: socket.socket, seen: Seen) -> bool | None:
        gevent.sleep(0.1)
        return ok()(sock, seen)

    server.reply = reply
    for _ in range(2):
        calls = [gevent.spawn(caller, request(server.url)) for _ in range(20)]
        assert all(call.get() == Answer(200, b"{}") for call in calls)
    assert server.connections == 20
    assert server.at_once == 20


def test_connection_close_is_heeded(caller: Caller, server: Sink) -> None:
    server.reply = ok(extra="Connection: close\r\n")
    for _ in range(3):
        assert caller(request(server.url)) == Answer(200, b"{}")
    assert server.connections == 3
    eventually(lambda: server.open_now == 0)


def test_a_connection_closed_while_idle_costs_nothing(caller: Caller, server: Sink) -> None:
    def reply_and_close(sock: socket.socket, seen: Seen) -> bool:
        ok()(sock, seen)
        return True

    server.reply = reply_and_close
    for sent in range(1, 4):
        assert caller(request(server.url, method="POST", params="{}")) == Answer(200, b"{}")
        eventually(lambda: server.open_now == 0)
        assert len(server.seen) == sent


@pytest.mark.parametrize("method", ["GET", "POST"])
def test_a_connection_that_breaks_in_a_call_is_not_tried_again(
    caller: Caller, server: Sink, method: str
) -> None:
    assert caller(request(server.url)) == Answer(200, b"{}")

    def read_and_close(sock: socket.socket, seen: Seen) -> bool:
        return True

    server.reply = read_and_close
    result = caller(request(server.url, method=method))
    assert result == Failure("connection closed without an answer", unanswered=True)
    assert len(server.seen) == 2
    assert server.connections == 1


def test_idle_connections_are_closed_after_their_time(server: Sink) -> None:
    caller = Caller(max_response_bytes=LIMIT, keep_s=0.2)
    assert caller(request(server.url)) == Answer(200, b"{}")
    assert server.open_now == 1
    eventually(lambda: server.open_now == 0, limit_s=10)


def test_an_idle_connection_past_its_time_is_not_used(server: Sink) -> None:
    caller = Caller(max_response_bytes=LIMIT, keep_s=0.05)
    caller._hosts._reap_every_s = 60
    caller(request(server.url))
    gevent.sleep(0.06)
    caller(request(server.url))
    assert server.connections == 2
    caller.close()


def test_the_time_the_server_names_is_heeded(caller: Caller, server: Sink) -> None:
    server.reply = ok(extra="Keep-Alive: timeout=1, max=100\r\n")
    for _ in range(2):
        caller(request(server.url))
    assert server.connections == 2


def test_idle_connections_are_bounded(server: Sink) -> None:
    caller = Caller(max_response_bytes=LIMIT, max_idle=3)

    def reply(sock: socket.socket, seen: Seen) -> bool | None:
        gevent.sleep(0.05)
        return ok()(sock, seen)

    server.reply = reply
    gevent.joinall([gevent.spawn(caller, request(server.url)) for _ in range(10)])
    eventually(lambda: server.open_now <= 3)


def test_close_closes_idle_connections(caller: Caller, server: Sink) -> None:
    caller(request(server.url))
    caller.close()
    eventually(lambda: server.open_now == 0)


# --------------------------------------------------------------- failures


def test_connection_refused(caller: Caller) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
    assert caller(request(f"http://127.0.0.1:{port}/")) == Failure(
        "connection refused", unanswered=True
    )


def test_an_unknown_name() -> None:
    def look_up(*_: Any) -> list[Any]:
        raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")

    caller = Caller(max_response_bytes=LIMIT, resolver=Resolver(look_up=look_up))
    assert caller(request("http://nowhere.invalid/")) == Failure(
        "DNS: name or service not known", unanswered=True
    )


def test_ttr_holds_while_looking_up() -> None:
    def look_up(*_: Any) -> list[Any]:
        gevent.sleep(5)
        return []

    caller = Caller(max_response_bytes=LIMIT, resolver=Resolver(look_up=look_up))
    result, ms = timed(caller, request("http://slow.invalid/", ttr=200))
    assert result == Failure("timeout after 200 ms", unanswered=True)
    assert ms < 350


TWO = [(socket.AF_INET, 1, 6, "", (host, 0)) for host in ("127.0.0.2", "127.0.0.1")]


def test_the_next_address_is_tried(server: Sink) -> None:
    caller = Caller(max_response_bytes=LIMIT, resolver=Resolver(look_up=lambda *_: TWO))
    url = f"http://two.invalid:{server.port}/"
    assert caller(request(url)) == Answer(200, b"{}")
    caller.close()
    with mute("127.0.0.2", server.port):
        result, ms = timed(caller, request(url, ttr=1000))
    assert result == Answer(200, b"{}")
    assert 400 < ms < 700  # half the time for the first of two


def test_a_real_name(caller: Caller, server: Sink) -> None:
    url = f"http://localhost:{server.port}/"
    assert caller(request(url)) == Answer(200, b"{}")
    assert server.seen[0].headers["host"] == f"localhost:{server.port}"


# --------------------------------------------------------------- TLS


@pytest.fixture(scope="module")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Key and self-signed certificate of 127.0.0.1 in one file."""
    path = tmp_path_factory.mktemp("tls") / "server.pem"
    command = (
        "openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -days 2"
        f" -subj /CN=127.0.0.1 -addext subjectAltName=IP:127.0.0.1 -keyout {path} -out {path}.crt"
    )
    subprocess.run(command.split(), check=True, capture_output=True)
    path.write_text(path.read_text() + Path(f"{path}.crt").read_text())
    return path


@pytest.fixture
def tls_server(certificate: Path) -> Iterator[Sink]:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate)
    with sink(tls=context) as made:
        yield made


def test_tls(tls_server: Sink, certificate: Path) -> None:
    caller = Caller(max_response_bytes=LIMIT, trust=Trust(str(certificate)))
    for _ in range(3):
        assert caller(request(tls_server.url)) == Answer(200, b"{}")
    assert tls_server.connections == 1
    tls_server.reply = hang
    assert caller(request(tls_server.url, ttr=200)) == Failure(
        "timeout after 200 ms", unanswered=True
    )


RESET_ON_CLOSE = struct.pack("ii", 1, 0)


def reset(sock: socket.socket) -> None:
    """Breaks a TLS connection off."""
    plain = socket.socket(fileno=sock.detach())
    plain.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET_ON_CLOSE)
    plain.close()


@pytest.fixture
def trusting(certificate: Path) -> Iterator[Caller]:
    made = Caller(max_response_bytes=LIMIT, trust=Trust(str(certificate)))
    yield made
    made.close()


def test_tls_a_connection_reset_while_idle_costs_nothing(
    trusting: Caller, tls_server: Sink, monkeypatch: pytest.MonkeyPatch
) -> None:
    answered: list[socket.socket] = []

    def reply(sock: socket.socket, seen: Seen) -> None:
        ok()(sock, seen)
        answered.append(sock)

    tls_server.reply = reply
    assert trusting(request(tls_server.url)) == Answer(200, b"{}")
    reset(answered[0])
    # it broke just after it was looked at
    monkeypatch.setattr(hosts, "_is_quiet", lambda sock: True)
    gevent.sleep(0.05)
    assert trusting(request(tls_server.url, method="POST", params="{}")) == Answer(200, b"{}")
    assert len(tls_server.seen) == 2
    assert tls_server.connections == 2


def test_tls_a_connection_that_breaks_in_a_large_request_is_not_tried_again(
    trusting: Caller, certificate: Path
) -> None:
    got: list[int] = []

    def serve(sock: socket.socket, peer: Any) -> None:
        assert sock.recv(65536)
        sock.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n{}")
        got.append(len(sock.recv(65536)))  # the beginning of the second, and no more of it
        gevent.sleep(0.1)
        reset(sock)

    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate)
    server = StreamServer(("127.0.0.1", 0), serve, ssl_context=context)
    server.start()
    url = f"https://127.0.0.1:{server.server_port}/"
    try:
        assert trusting(request(url)) == Answer(200, b"{}")
        params = json.dumps({"x": "y" * (8 << 20)})
        result = trusting(request(url, method="POST", params=params))
        assert isinstance(result, Failure)
        assert len(got) == 1
    finally:
        server.stop(timeout=0.1)


def test_a_certificate_nobody_vouches_for(caller: Caller, tls_server: Sink) -> None:
    result = caller(request(tls_server.url))
    assert result in (
        Failure("TLS: self-signed certificate", unanswered=True),
        Failure("TLS: self signed certificate", unanswered=True),
    )
    assert tls_server.seen == []


def test_a_certificate_of_another_name(tls_server: Sink, certificate: Path) -> None:
    caller = Caller(max_response_bytes=LIMIT, trust=Trust(str(certificate)))
    result = caller(request(f"https://localhost:{tls_server.port}/"))
    assert isinstance(result, Failure)
    assert "localhost" in result.reason
    assert tls_server.seen == []


def test_tls_to_a_server_without(caller: Caller, server: Sink) -> None:
    server.reply = raw(b"HTTP/1.1 400 Bad\r\n\r\n")
    result = caller(request(server.url.replace("http:", "https:"), ttr=500))
    assert isinstance(result, Failure)


def test_a_handshake_that_hangs(caller: Caller) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        result, ms = timed(
            caller, request(f"https://127.0.0.1:{listener.getsockname()[1]}/", ttr=200)
        )
    assert result == Failure("timeout after 200 ms", unanswered=True)
    assert ms < 350
