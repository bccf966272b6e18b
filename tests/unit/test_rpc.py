"""Thrift over real sockets: calls, and peers that break the rules."""

import logging
import socket
import time
from collections.abc import Iterator
from contextlib import closing
from typing import Any

import gevent
import pytest

import idl
from soraka.errors import PeerUnavailable
from soraka.process import listen
from soraka.rpc import RpcClient, RpcServer


class Handler:
    """Counts what it is told; answers after `wait_s`."""

    wait_s = 0.0

    def deliver(self, incarnation: str, messages: list[Any]) -> int:
        gevent.sleep(self.wait_s)
        if incarnation == "another":
            raise idl.worker.WrongIncarnation(incarnation="mine")
        if incarnation == "broken":
            raise RuntimeError("a defect of the handler")
        return len(messages)


@pytest.fixture
def handler() -> Handler:
    return Handler()


@pytest.fixture
def server(handler: Handler) -> Iterator[RpcServer]:
    made = RpcServer(
        idl.worker.Worker,
        handler,
        listen("127.0.0.1", 0),
        max_frame_bytes=10_000,
        read_timeout_ms=300,
        idle_timeout_ms=600,
    )
    made.start()
    yield made
    made.stop(1)


@pytest.fixture
def client(server: RpcServer) -> Iterator[RpcClient]:
    made = _client(server)
    yield made
    made.close()


def _client(server: RpcServer, timeout_ms: int = 2000) -> RpcClient:
    return RpcClient(idl.worker.Worker, ("127.0.0.1", server.port), timeout_ms=timeout_ms)


def _deliver(client: RpcClient, count: int = 1, incarnation: str = "mine") -> int:
    messages = [idl.worker.Due(msg_id="x", due_at=i) for i in range(count)]
    return int(client.call("deliver", incarnation=incarnation, messages=messages))


def _closed(sock: socket.socket) -> bool:
    sock.settimeout(5)
    try:
        return sock.recv(1) == b""
    except ConnectionResetError:
        return True


def test_a_call_is_answered(client: RpcClient) -> None:
    assert [_deliver(client, n) for n in (0, 1, 50)] == [0, 1, 50]


def test_a_typed_exception_arrives_and_the_connection_lives(client: RpcClient) -> None:
    with pytest.raises(idl.worker.WrongIncarnation) as refused:
        _deliver(client, incarnation="another")
    assert refused.value.incarnation == "mine"
    assert _deliver(client) == 1


def test_a_defect_in_the_handler_harms_its_call_alone(client: RpcClient) -> None:
    with pytest.raises(PeerUnavailable):
        _deliver(client, incarnation="broken")
    assert _deliver(client) == 1


def test_calls_at_once_do_not_mix_answers(client: RpcClient, handler: Handler) -> None:
    handler.wait_s = 0.01
    calls = [gevent.spawn(_deliver, client, n) for n in range(40)]
    gevent.joinall(calls, raise_error=True)
    assert [call.value for call in calls] == list(range(40))


def test_after_a_timeout_the_next_call_gets_its_own_answer(
    server: RpcServer, handler: Handler
) -> None:
    with closing(_client(server, timeout_ms=100)) as client:
        handler.wait_s = 0.25
        with pytest.raises(PeerUnavailable):
            _deliver(client, 7)
        handler.wait_s = 0
        assert _deliver(client, 3) == 3


def test_a_connection_closed_while_idle_is_made_anew(client: RpcClient) -> None:
    assert _deliver(client) == 1
    gevent.sleep(0.8)  # longer than the idle timeout
    assert _deliver(client, 2) == 2


def test_nobody_listens() -> None:
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        address = ("127.0.0.1", int(sock.getsockname()[1]))
    with pytest.raises(PeerUnavailable):
        _deliver(RpcClient(idl.worker.Worker, address, timeout_ms=500))


@pytest.mark.parametrize(
    "sent",
    [
        b"GET / HTTP/1.1\r\n\r\n",
        b"\xff\xff\xff\xff",
        b"\x00\x00\x00\x00",
        b"\x00\x00\x27\x11" + b"x" * 100,
        b"\x00\x00\x00\x0aabcdefghij",
        b"\x00\x00\x00\x14\x80\x01\x00\x01\x00\x00\x00\x07delive",
    ],
    ids=["http", "huge", "empty", "over the limit", "garbage", "cut"],
)
def test_a_bad_frame_closes_its_connection_alone(
    server: RpcServer, client: RpcClient, caplog: pytest.LogCaptureFixture, sent: bytes
) -> None:
    with (
        caplog.at_level(logging.WARNING),
        socket.create_connection(("127.0.0.1", server.port)) as sock,
    ):
        sock.sendall(sent)
        assert _deliver(client) == 1
        assert _closed(sock)
    assert caplog.records[0].message in ("rpc.bad_frame", "rpc.frame_timeout")
    assert _deliver(client) == 1


def _drip(sock: socket.socket) -> None:
    for _ in range(100):
        sock.sendall(b"x")
        gevent.sleep(0.05)


def test_a_dripping_peer_is_cut(server: RpcServer) -> None:
    with socket.create_connection(("127.0.0.1", server.port)) as sock:
        sock.sendall(b"\x00\x00\x03\xe8")
        started = time.monotonic()
        with pytest.raises(OSError):  # noqa: PT011 - reset or broken pipe
            _drip(sock)
        assert time.monotonic() - started < 3


def test_stop_closes_idle_connections_and_waits_for_calls(
    server: RpcServer, client: RpcClient, handler: Handler
) -> None:
    _deliver(client)
    handler.wait_s = 0.3
    with closing(_client(server)) as another:
        call = gevent.spawn(_deliver, another, 5)
        gevent.sleep(0.1)
        started = time.monotonic()
        server.stop(5)
        assert time.monotonic() - started < 2
        assert call.get(timeout=1) == 5
    with pytest.raises(PeerUnavailable):
        _deliver(client)
