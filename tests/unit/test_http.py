"""The HTTP server among peers that are silent, slow or deaf."""

import socket
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, suppress
from typing import Any

import gevent
import pytest
from gevent.monkey import get_original

from soraka import http
from soraka.connections import SPARE, Connections, fitting
from soraka.process import listen

LIMIT_S = 0.3
BIG = b"x" * (64 << 20)
HEAD = b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\n\r\n"
GET = b"GET / HTTP/1.1\r\nHost: a\r\n\r\n"


def app(environ: dict[str, Any], start_response: Callable[..., Any]) -> list[bytes]:
    """Reads no body but that of /read; answers `/big` at length, `/slow` after a second."""
    path = environ["PATH_INFO"]
    if path == "/slow":
        gevent.sleep(4 * LIMIT_S)
    body = b"hello"
    if path == "/read":
        body = environ["wsgi.input"].read()
    start_response("200 OK", [("Content-Type", "text/plain")])
    return [BIG if path == "/big" else body]


@pytest.fixture
def address(monkeypatch: pytest.MonkeyPatch) -> Iterator[tuple[str, int]]:
    """Serves three connections at a time."""
    monkeypatch.setattr(http, "IDLE_S", 2 * LIMIT_S)
    server = http.make_server(
        listen("127.0.0.1", 0), app, max_connections=3, read_timeout_ms=int(LIMIT_S * 1000)
    )
    server.start()
    yield "127.0.0.1", int(server.server_port or 0)
    server.stop(timeout=1)


def asked(sock: socket.socket, request: bytes = GET) -> bytes:
    sock.sendall(request)
    return sock.recv(65536)


def ends_within(sock: socket.socket, least_s: float, most_s: float) -> None:
    """The server closes it, without a word."""
    sock.settimeout(10)
    started = time.monotonic()
    with suppress(ConnectionResetError):
        assert sock.recv(1) == b""
    assert least_s <= time.monotonic() - started < most_s


@pytest.mark.parametrize(
    "sent", [b"", b"GET", b"GET / HTTP/1.1\r\nHost", HEAD], ids=["silent", "line", "head", "body"]
)
def test_peers_that_stop_in_the_middle_starve_nobody(address: tuple[str, int], sent: bytes) -> None:
    with ExitStack() as stack:
        for _ in range(6):
            sock = stack.enter_context(socket.create_connection(address))
            sock.sendall(sent)
        started = time.monotonic()
        with socket.create_connection(address, timeout=10) as sock:
            assert asked(sock).endswith(b"hello")
        assert time.monotonic() - started < 6 * LIMIT_S


def _drip(sock: socket.socket) -> None:
    for _ in range(100):
        sock.sendall(b"G")
        gevent.sleep(0.05)


def test_a_head_in_drips_is_cut(address: tuple[str, int]) -> None:
    with socket.create_connection(address) as sock:
        started = time.monotonic()
        with pytest.raises(OSError):  # noqa: PT011 - reset or broken pipe
            _drip(sock)
        assert time.monotonic() - started < 10 * LIMIT_S


def test_requests_one_after_the_other_keep_a_connection(address: tuple[str, int]) -> None:
    with socket.create_connection(address, timeout=10) as sock:
        for _ in range(3):
            assert asked(sock).endswith(b"hello")
            gevent.sleep(1.3 * LIMIT_S)
        assert asked(sock, HEAD + b"abcde").endswith(b"hello")
        assert asked(sock, HEAD.replace(b" / ", b" /read ") + b"abcde").endswith(b"abcde")
        ends_within(sock, 1.5 * LIMIT_S, 6 * LIMIT_S)


def test_an_application_may_take_longer(address: tuple[str, int]) -> None:
    with socket.create_connection(address, timeout=10) as sock:
        assert asked(sock, GET.replace(b" / ", b" /slow ")).endswith(b"hello")


def test_an_unread_body_that_stops_ends_its_connection(address: tuple[str, int]) -> None:
    """What comes later is the rest of that body, and no request."""
    with socket.create_connection(address, timeout=10) as sock:
        assert asked(sock, HEAD).endswith(b"hello")
        ends_within(sock, 0.5 * LIMIT_S, 4 * LIMIT_S)


def test_a_peer_that_does_not_take_its_answer_is_cut(
    address: tuple[str, int], capsys: pytest.CaptureFixture[str]
) -> None:
    with ExitStack() as stack:
        for _ in range(3):
            sock = stack.enter_context(socket.create_connection(address))
            sock.sendall(GET.replace(b" / ", b" /big "))
        with socket.create_connection(address, timeout=10) as other:
            assert asked(other).endswith(b"hello")
    assert "Traceback" not in capsys.readouterr().err


# ---------------------------------------------------------------------- more than the limit


@pytest.fixture
def patient() -> Iterator[tuple[str, int]]:
    """Serves three at a time, and gives each as long as it likes."""
    server = http.make_server(
        listen("127.0.0.1", 0), app, max_connections=3, read_timeout_ms=600_000
    )
    server.start()
    yield "127.0.0.1", int(server.server_port or 0)
    server.stop(timeout=1)


def is_open(sock: socket.socket) -> bool:
    sock.settimeout(0.05)
    try:
        return sock.recv(1) != b""
    except TimeoutError:
        return True
    except ConnectionResetError:
        return False


@pytest.mark.parametrize(
    "sent",
    [b"", b"GET", b"GET / HTTP/1.1\r\nHost", HEAD.replace(b" / ", b" /read ") + b"a"],
    ids=["silent", "line", "head", "body"],
)
def test_those_that_wait_longest_make_room(patient: tuple[str, int], sent: bytes) -> None:
    with ExitStack() as stack:
        for _ in range(100):
            stack.enter_context(socket.create_connection(patient)).sendall(sent)
        sock = stack.enter_context(socket.create_connection(patient, timeout=10))
        started = time.monotonic()
        assert asked(sock).endswith(b"hello")
        assert time.monotonic() - started < 5


def test_the_one_that_was_used_last_stays(patient: tuple[str, int]) -> None:
    with ExitStack() as stack:
        socks = [
            stack.enter_context(socket.create_connection(patient, timeout=10)) for _ in range(3)
        ]
        for sock in (*socks, socks[0]):
            assert asked(sock).endswith(b"hello")
        with socket.create_connection(patient, timeout=10) as other:
            assert asked(other).endswith(b"hello")
        assert [is_open(sock) for sock in socks] == [True, False, True]


def test_requests_being_served_are_not_broken_off(patient: tuple[str, int]) -> None:
    with ExitStack() as stack:
        socks = [
            stack.enter_context(socket.create_connection(patient, timeout=10)) for _ in range(3)
        ]
        for sock in socks:
            sock.sendall(GET.replace(b" / ", b" /slow "))
        gevent.sleep(LIMIT_S)
        with socket.create_connection(patient, timeout=10) as other:
            assert asked(other).endswith(b"hello")
        for sock in socks:
            assert sock.recv(65536).endswith(b"hello")


def test_a_request_that_came_in_time_is_answered_though_we_stood_still(
    address: tuple[str, int],
) -> None:
    with socket.create_connection(address, timeout=10) as sock:
        gevent.sleep(LIMIT_S / 2)
        sock.sendall(GET)
        get_original("time", "sleep")(2 * LIMIT_S)
        assert sock.recv(65536).endswith(b"hello")


def test_one_whose_request_has_come_is_not_the_idle_one() -> None:
    listener = listen("127.0.0.1", 0)
    listener.setblocking(True)
    connections = Connections(1)
    with ExitStack() as stack:
        pairs = []
        for _ in range(3):
            peer = stack.enter_context(socket.create_connection(listener.getsockname()))
            pairs.append((peer, stack.enter_context(listener.accept()[0])))
        pairs[0][0].sendall(b"GET")
        pairs[0][1].recv(1)  # waits until it has come
        for _, ours in pairs[:2]:
            stack.enter_context(connections.open(ours))
            stack.enter_context(connections.waiting(ours))
        stack.enter_context(connections.open(pairs[2][1]))
        assert [connections.was_cut(ours) for _, ours in pairs] == [False, True, False]
    listener.close()


def test_fewer_connections_when_the_process_may_not_open_so_many_files(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    limits = [1024, 20_000]

    def set_limits(_kind: int, wanted: tuple[int, int]) -> None:
        limits[:] = wanted

    monkeypatch.setattr("resource.getrlimit", lambda _kind: tuple(limits))
    monkeypatch.setattr("resource.setrlimit", set_limits)
    assert fitting(100, 2, "a.b") == 100
    assert limits == [1024, 20_000]
    assert fitting(4000, 2, "a.b") == 4000
    assert 8000 < limits[0] < 20_000
    assert not caplog.records
    fits = fitting(40_000, 2, "a.b")
    assert limits[0] == 20_000
    assert 9000 < fits < 10_000 - SPARE
    (record,) = caplog.records
    assert (record.message, vars(record)["setting"]) == ("connections.fewer_than_set", "a.b")
