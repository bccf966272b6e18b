"""Thrift over TLS: who is let in, what the others are told, and handshakes that come to nothing."""

import logging
import socket
import ssl
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing
from dataclasses import replace
from pathlib import Path
from typing import Any

import gevent
import pytest

import idl
from soraka import tls
from soraka.config import TlsConfig
from soraka.errors import PeerUnavailable
from soraka.process import listen
from soraka.rpc import RpcClient, RpcServer
from tests.certificates import Authority

READ_MS = 300
Start = Callable[..., RpcServer]


class Handler:
    def deliver(self, incarnation: str, messages: list[Any]) -> int:
        return len(messages)


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    return Authority(tmp_path_factory.mktemp("ca"))


@pytest.fixture(scope="module")
def ours(authority: Authority) -> TlsConfig:
    return authority.issue("ours")


@pytest.fixture
def start(ours: TlsConfig) -> Iterator[Start]:
    """A server that asks for certificates, or as it is told."""
    with ExitStack() as stopped:

        def started(
            settings: TlsConfig | None = ours, *, mutual: bool = True, **other: Any
        ) -> RpcServer:
            secured = settings and tls.server(settings, "tls.thrift", mutual=mutual)
            given = {"read_timeout_ms": READ_MS, **other}
            listener = listen("127.0.0.1", 0)
            made = RpcServer(idl.worker.Worker, Handler(), listener, secured=secured, **given)
            made.start()
            stopped.callback(made.stop, 1)
            return made

        yield started


def _client(server: RpcServer, settings: TlsConfig | None, timeout_ms: int = 3000) -> RpcClient:
    secured = settings and tls.client(settings, "tls.thrift")
    address = ("127.0.0.1", server.port)
    return RpcClient(idl.worker.Worker, address, timeout_ms=timeout_ms, secured=secured)


def _deliver(client: RpcClient, count: int = 1) -> int:
    messages = [idl.worker.Due(msg_id="x", due_at=i) for i in range(count)]
    return int(client.call("deliver", incarnation="mine", messages=messages))


def _failure(server: RpcServer, settings: TlsConfig | None) -> str:
    with closing(_client(server, settings)) as client, pytest.raises(PeerUnavailable) as refused:
        _deliver(client)
    return str(refused.value)


def _events(caplog: pytest.LogCaptureFixture) -> list[tuple[str, str]]:
    """The first may come a moment after the other side has seen it happen."""
    deadline = time.monotonic() + 5
    while not caplog.records:
        assert time.monotonic() < deadline
        gevent.sleep(0.01)
    return [(r.message, vars(r).get("reason", "")) for r in caplog.records]


# ------------------------------------------------------------------------------ who is let in


def test_both_show_a_certificate(start: Start, ours: TlsConfig) -> None:
    with closing(_client(start(), ours)) as client:
        assert [_deliver(client, n) for n in (0, 1, 5000)] == [0, 1, 5000]


def test_a_public_server_asks_for_none(start: Start, ours: TlsConfig) -> None:
    with closing(_client(start(mutual=False), TlsConfig(ca=ours.ca))) as client:
        assert _deliver(client, 3) == 3


def test_no_certificate(start: Start, ours: TlsConfig, caplog: pytest.LogCaptureFixture) -> None:
    server = start()
    for _ in range(10):  # what is said last must not get lost with the connection
        assert "tls.certificate" in _failure(server, TlsConfig(ca=ours.ca))
    assert set(_events(caplog)) == {("rpc.handshake_failed", "it has no certificate")}


def test_a_certificate_of_another_ca(
    start: Start, ours: TlsConfig, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    other = Authority(tmp_path).issue("other")
    assert "tls.certificate" in _failure(start(), replace(other, ca=ours.ca))
    ((event, reason),) = _events(caplog)
    assert event == "rpc.handshake_failed"
    assert reason.startswith("its certificate is refused: ")


def test_a_server_of_another_ca(
    start: Start, ours: TlsConfig, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    other = Authority(tmp_path).issue("other")
    refused = _failure(start(other, mutual=False), ours)
    assert "its certificate is refused: " in refused
    assert refused.endswith("(tls.ca)")
    ((event, reason),) = _events(caplog)
    assert (event, "refuses our certificate" in reason) == ("rpc.handshake_failed", True)


def test_a_server_at_another_address(start: Start, authority: Authority, ours: TlsConfig) -> None:
    refused = _failure(start(authority.issue("moved", "10.0.0.1", "a.example")), ours)
    assert "'127.0.0.1'" in refused
    assert "must name the address" in refused


def test_a_certificate_that_has_expired(
    start: Start, authority: Authority, ours: TlsConfig
) -> None:
    expired = authority.issue("expired")
    authority.expire("expired")
    assert "certificate has expired" in _failure(start(expired), ours)


def test_a_plain_client_is_told(start: Start, caplog: pytest.LogCaptureFixture) -> None:
    assert "it speaks TLS (tls.thrift)" in _failure(start(), None)
    assert _events(caplog) == [("rpc.handshake_failed", "it does not speak TLS (tls.thrift)")]


def test_a_plain_server_is_told_of(
    start: Start, ours: TlsConfig, caplog: pytest.LogCaptureFixture
) -> None:
    assert "tls.thrift" in _failure(start(None), ours)
    assert _events(caplog) == [("rpc.bad_frame", "it speaks TLS (tls.thrift)")]


def test_old_protocols_are_refused(start: Start, ours: TlsConfig) -> None:
    context = ssl.create_default_context(cafile=ours.ca)
    with pytest.warns(DeprecationWarning, match="TLSv1_1"):
        context.maximum_version = context.minimum_version = ssl.TLSVersion.TLSv1_1
    context.set_ciphers("ALL:@SECLEVEL=0")
    server = start(mutual=False)
    with (
        socket.create_connection(("127.0.0.1", server.port)) as sock,
        pytest.raises(ssl.SSLError),
    ):
        context.wrap_socket(sock, server_hostname="127.0.0.1")


# ------------------------------------------------------------- handshakes that come to nothing


@pytest.mark.parametrize(
    "sent", [b"", b"\x16", b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03"], ids=["none", "1", "11"]
)
def test_who_does_not_finish_is_dropped_and_delays_nobody(
    start: Start, ours: TlsConfig, sent: bytes
) -> None:
    server = start()
    with ExitStack() as stack:
        began = time.monotonic()
        waiting = []
        for _ in range(50):
            sock = stack.enter_context(socket.create_connection(("127.0.0.1", server.port)))
            sock.sendall(sent)
            waiting.append(sock)
        client = stack.enter_context(closing(_client(server, ours)))
        assert _deliver(client) == 1
        assert time.monotonic() - began < READ_MS / 1000
        for sock in waiting:
            sock.settimeout(5)
            assert sock.recv(1) == b""
        assert READ_MS / 1000 <= time.monotonic() - began < 3
        assert _deliver(client) == 1


def _drip(sock: socket.socket) -> None:
    for _ in range(100):
        sock.sendall(b"x")
        gevent.sleep(0.05)


def test_a_dripped_handshake_is_dropped_too(start: Start) -> None:
    server = start()
    with socket.create_connection(("127.0.0.1", server.port)) as sock:
        began = time.monotonic()
        sock.sendall(b"\x16\x03\x01\x02\x00")
        with pytest.raises(OSError):  # noqa: PT011 - reset or broken pipe
            _drip(sock)
        assert time.monotonic() - began < 3


def test_garbage_is_answered_with_an_alert_and_harms_nobody(start: Start, ours: TlsConfig) -> None:
    server = start()
    with socket.create_connection(("127.0.0.1", server.port)) as sock:
        sock.sendall(b"GET / HTTP/1.1\r\n\r\n" * 100)
        sock.settimeout(5)
        sock.recv(100)
        with closing(_client(server, ours)) as client:
            assert _deliver(client) == 1


def test_those_that_do_not_finish_make_room(start: Start, ours: TlsConfig) -> None:
    server = start(read_timeout_ms=600_000, max_connections=3)
    with ExitStack() as stack:
        for _ in range(100):
            stack.enter_context(socket.create_connection(("127.0.0.1", server.port)))
        client = stack.enter_context(closing(_client(server, ours, timeout_ms=10_000)))
        began = time.monotonic()
        assert [_deliver(client, n) for n in (1, 2)] == [1, 2]
        assert time.monotonic() - began < 5


def test_a_server_that_does_not_shake_hands_is_given_up(ours: TlsConfig) -> None:
    with closing(listen("127.0.0.1", 0)) as listener:
        address = ("127.0.0.1", listener.getsockname()[1])
        secured = tls.client(ours, "tls.thrift")
        client = RpcClient(idl.worker.Worker, address, timeout_ms=200, secured=secured)
        with pytest.raises(PeerUnavailable, match=r"no answer within 0\.2 s"):
            _deliver(client)


def test_idle_connections_that_are_cut_say_nothing_in_the_log(
    start: Start, ours: TlsConfig, caplog: pytest.LogCaptureFixture
) -> None:
    server = start(max_connections=2)
    with caplog.at_level(logging.WARNING, "soraka.rpc"), ExitStack() as stack:
        clients = [stack.enter_context(closing(_client(server, ours))) for _ in range(6)]
        for _ in range(3):
            assert [_deliver(client) for client in clients] == [1] * 6
    assert [r for r in caplog.records if r.name == "soraka.rpc"] == []
