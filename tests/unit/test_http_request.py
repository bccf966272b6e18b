"""Requests as bytes: what is read of them, what is refused, and what is answered."""

import socket
from collections.abc import Callable, Iterator
from typing import Any

import gevent
import pytest
from gevent.server import StreamServer

from soraka.connections import Connections
from soraka.http import Door, make_server
from soraka.http_request import MAX_HEAD_BYTES, MAX_WAITING, Body, Reader
from soraka.process import listen
from tests.unit.receive_kit import exchange

CHUNKED = b"POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n"


def read(*pieces: bytes) -> Reader:
    reader = Reader()
    for piece in pieces:
        reader.feed(piece)
    return reader


def environ(*pieces: bytes) -> dict[str, Any]:
    """Of the one request in them."""
    reader = read(*pieces)
    assert not reader.refused
    (request,) = reader.requests
    return request.environ({})


def test_a_request_byte_by_byte_is_that_in_one_piece() -> None:
    whole = (
        b"POST /a%20b?c=%20d HTTP/1.1\r\nHost: x\r\nContent-Type: text/plain\r\nX-Some: one\r\n"
        b"x-some: two\r\nCookie: a=1\r\nCookie: b=2\r\nContent-Length: 3\r\n\r\nabc"
    )
    given = environ(whole)
    assert given == environ(*(bytes([byte]) for byte in whole))
    assert given == {
        "REQUEST_METHOD": "POST",
        "PATH_INFO": "/a b",
        "QUERY_STRING": "c=%20d",
        "SERVER_PROTOCOL": "HTTP/1.1",
        "HTTP_HOST": "x",
        "CONTENT_TYPE": "text/plain",
        "HTTP_X_SOME": "one,two",
        "HTTP_COOKIE": "a=1; b=2",
        "CONTENT_LENGTH": "3",
    }


@pytest.mark.parametrize(
    ("target", "path", "query"),
    [
        (b"http://x:1/a?b", "/a", "b"),
        (b"HTTPS://x", "/", ""),
        (b"*", "*", ""),
        (b"//a//b", "//a//b", ""),
        (b"/%C3%A9", "/\xc3\xa9", ""),
    ],
)
def test_targets(target: bytes, path: str, query: str) -> None:
    given = environ(b"GET %s HTTP/1.1\r\n\r\n" % target)
    assert (given["PATH_INFO"], given["QUERY_STRING"]) == (path, query)


def test_no_header_passes_itself_off_as_another() -> None:
    given = environ(b"GET / HTTP/1.1\r\nX_Real_IP: 1.1.1.1\r\nContent_Length: 5\r\n\r\n")
    assert not [name for name in given if name.startswith(("HTTP_", "CONTENT_"))]


def test_trailers_add_nothing() -> None:
    reader = read(CHUNKED + b"1\r\nx\r\n0\r\nAuthorization: Bearer x\r\n\r\n")
    (request,) = reader.requests
    assert (request.is_whole, request.body) == (True, b"x")
    assert "HTTP_AUTHORIZATION" not in request.environ({})


@pytest.mark.parametrize(
    "data",
    [
        b"GET / HTTP/1.1\nHost: x\n\n",
        b"GET / HTTP/1.1\r\nHost : x\r\n\r\n",
        b"GET / HTTP/1.1\r\nA: b\r\n c: d\r\n\r\n",
        b"GET / HTTP/1.1\r\nA: \x00\r\n\r\n",
        b"POST / HTTP/1.1\r\nContent-Length: 4\r\nContent-Length: 5\r\n\r\n",
        b"POST / HTTP/1.1\r\nContent-Length: -1\r\n\r\n",
        b"POST / HTTP/1.1\r\nContent-Length: 4\r\nTransfer-Encoding: chunked\r\n\r\n",
        b"POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\nContent-Length: 4\r\n\r\n",
        b"POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\nTransfer-Encoding: identity\r\n\r\n",
        b"BREW / HTTP/1.1\r\n\r\n",
        b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n",
        b"GET / HTTP/1.1\r\nIdempotency-Key: a\r\nidempotency-key: a\r\n\r\n",
        b"GET http://a:99999/x HTTP/1.1\r\n\r\n",
        b"GET http:///x HTTP/1.1\r\n\r\n",
        b"GET / HTTP/1.1\r\nX: " + b"x" * MAX_HEAD_BYTES + b"\r\n",
        b"\x16\x03\x01\x02\x00\x01",
    ],
)
def test_what_two_servers_could_read_in_two_ways_is_refused(data: bytes) -> None:
    reader = read(data)
    assert reader.refused
    assert not reader.requests


@pytest.mark.parametrize("rest", [b"z\r\n", b"1\r\nxx\r\n", b"1;" + b"e" * 9000])
def test_a_body_that_is_malformed_fails_where_it_is_read(rest: bytes) -> None:
    reader = read(CHUNKED, rest)
    (request,) = reader.requests
    with pytest.raises(OSError, match="malformed"):
        Body(request, lambda: not reader.refused).read()


def test_a_body_is_read_in_pieces_and_lines() -> None:
    (request,) = read(b"POST / HTTP/1.1\r\nContent-Length: 9\r\n\r\nab\ncd\nefg").requests
    body = Body(request, lambda: False)
    assert (body.read(1), body.readline(), body.readline(1)) == (b"a", b"b\n", b"c")
    assert body.readlines() == [b"d\n", b"efg"]
    assert body.read() == b""


# ---------------------------------------------------------------------- over a socket


def app(environ: dict[str, Any], start_response: Callable[..., Any]) -> list[bytes]:
    path = environ["PATH_INFO"]
    if path == "/fails":
        raise RuntimeError("the secret of the house")
    write = start_response("204 No Content" if path == "/empty" else "200 OK", [("X-Path", path)])
    if path == "/empty":
        return []
    write(b"<")
    return [environ["wsgi.input"].read(), b">"]


@pytest.fixture
def address() -> Iterator[tuple[str, int]]:
    server = make_server(listen("127.0.0.1", 0), app)
    server.start()
    yield "127.0.0.1", int(server.server_port or 0)
    server.stop(timeout=1)


LAST = b"GET /last HTTP/1.1\r\nConnection: close\r\n\r\n"


def test_requests_sent_at_once_are_answered_in_order(address: tuple[str, int]) -> None:
    post = b"POST /post HTTP/1.1\r\nContent-Length: 2\r\n\r\nab"
    answer = exchange(address, post + b"GET /get HTTP/1.1\r\n\r\n" + post + LAST)
    assert answer.count(b"HTTP/1.1 200 OK") == 4
    assert [part.split(b"\r\n")[0] for part in answer.split(b"X-Path: ")[1:]] == [
        b"/post",
        b"/get",
        b"/post",
        b"/last",
    ]
    assert answer.count(b"\r\n\r\n<ab>") == 2
    assert answer.count(b"Connection: close") == 1


def test_one_that_asks_for_much_at_once_does_not_stop_the_others(
    address: tuple[str, int],
) -> None:
    turns = 0

    def count() -> None:
        nonlocal turns
        while True:
            turns += 1
            gevent.sleep(0)

    with socket.create_connection(address, timeout=10) as sock:
        sock.sendall(b"GET / HTTP/1.1\r\n\r\n" * 30)
        counting = gevent.spawn(count)
        answers = b""
        while answers.count(b"HTTP/1.1 200 OK") < 30 and (more := sock.recv(1 << 20)):
            answers += more
        counting.kill()
    assert turns > 20


def test_so_many_requests_at_once_are_refused() -> None:
    reader = read(b"GET / HTTP/1.1\r\n\r\n" * (MAX_WAITING + 1))
    assert (len(reader.requests), reader.refused) == (MAX_WAITING, "too many requests at once")


def test_chunks_by_http_1_0_end_the_connection() -> None:
    (request,) = read(
        b"POST / HTTP/1.0\r\nConnection: keep-alive\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n"
    ).requests
    assert request.is_last


def test_head_and_no_content_have_no_body(address: tuple[str, int]) -> None:
    answer = exchange(address, b"HEAD / HTTP/1.1\r\n\r\nGET /empty HTTP/1.1\r\n\r\n" + LAST)
    first, second, third = answer.split(b"HTTP/1.1 ")[1:]
    assert first.endswith(b"Content-Length: 2\r\n\r\n")
    assert second.startswith(b"204")
    assert second.endswith(b"\r\n\r\n")
    assert b"Content-Length" not in second
    assert third.endswith(b"\r\n\r\n<>")


def test_http_1_0_is_closed_unless_it_asks(address: tuple[str, int]) -> None:
    old = b"GET / HTTP/1.0\r\n\r\n"
    assert b"Connection: close" in exchange(address, old)
    kept = exchange(address, b"GET / HTTP/1.0\r\nConnection: keep-alive\r\n\r\n" + LAST)
    assert (kept.count(b"HTTP/1.1 200"), kept.count(b"Connection: keep-alive")) == (2, 1)


def test_who_expects_a_word_before_the_body_gets_it(address: tuple[str, int]) -> None:
    head = b"POST / HTTP/1.1\r\nExpect: 100-continue\r\nContent-Length: 1\r\n\r\n"
    with socket.create_connection(address, timeout=10) as sock:
        sock.sendall(head)
        assert sock.recv(1000) == b"HTTP/1.1 100 Continue\r\n\r\n"
        sock.sendall(b"x")
        assert sock.recv(1000).endswith(b"<x>")


def test_what_is_no_request_is_told_so_and_closed(address: tuple[str, int]) -> None:
    answer = exchange(address, b"nonsense\r\n\r\nGET / HTTP/1.1\r\n\r\n")
    assert answer.startswith(b"HTTP/1.1 400 Bad Request\r\n")
    assert b"Connection: close" in answer
    assert answer.count(b"HTTP/1.1 ") == 1


@pytest.mark.parametrize(
    ("framed", "body"),
    [
        (b"\r\nPRI * HTTP/2.0", b""),
        (b"Content-Length: 3\r\n\r\nabcd", b"abc"),
        (b"Transfer-Encoding: chunked\r\n\r\n2\r\nab\r\n1\r\nc\r\n0\r\n\r\nd", b"abc"),
    ],
)
@pytest.mark.parametrize("step", [1, 1000])
def test_another_protocol_is_not_spoken(
    address: tuple[str, int], framed: bytes, body: bytes, step: int
) -> None:
    """As clients ask that would rather have HTTP/2."""
    asked = b"POST / HTTP/1.1\r\nConnection: Upgrade\r\nUpgrade: h2c\r\n" + framed
    pieces = [asked[i : i + step] for i in range(0, len(asked), step)]
    answer = exchange(address, *pieces)
    assert answer.startswith(b"HTTP/1.1 200")
    assert answer.endswith(b"Connection: close\r\n\r\n<" + body + b">")


def test_an_application_that_fails_is_500_and_tells_nothing(
    address: tuple[str, int], caplog: pytest.LogCaptureFixture
) -> None:
    answer = exchange(address, b"GET /fails HTTP/1.1\r\n\r\n")
    assert answer.startswith(b"HTTP/1.1 500")
    assert b"secret" not in answer
    assert "the secret of the house" in caplog.text


def test_while_it_is_closing_each_connection_gets_one_more_answer() -> None:
    door = Door(app, Connections(3), limit_s=5.0, is_closing=lambda: True)
    server = StreamServer(listen("127.0.0.1", 0), door.handle)
    server.start()
    answer = exchange(("127.0.0.1", int(server.server_port or 0)), b"GET / HTTP/1.1\r\n\r\n" * 2)
    assert (answer.count(b"200 OK"), answer.count(b"Connection: close")) == (1, 1)
    server.stop(timeout=1)
