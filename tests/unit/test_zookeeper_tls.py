"""What is known of why there is no session, at any moment of trying for one."""

import socket
import ssl
from collections.abc import Callable, Iterator
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import Any

import gevent
import pytest
from gevent.server import StreamServer

from soraka import tls
from soraka.adapters.zookeeper_tls import TlsHandler
from soraka.address import at
from soraka.config import TlsConfig
from tests.certificates import Authority

Address = tuple[str, int]
Start = Callable[[TlsConfig], StreamServer]


@pytest.fixture
def own(tmp_path: Path) -> TlsConfig:
    return Authority(tmp_path / "own").issue("own")


@pytest.fixture
def stranger(tmp_path: Path) -> TlsConfig:
    """A certificate of another CA."""
    return Authority(tmp_path / "stranger").issue("stranger")


@pytest.fixture
def secured(own: TlsConfig) -> tls.Context:
    return tls.client(own, "registry.tls")


@pytest.fixture
def start() -> Iterator[Start]:
    """Starts servers that say one thing after the handshake."""
    with ExitStack() as stack:

        def started(files: TlsConfig) -> StreamServer:
            secured = tls.server(files, "tls.thrift", mutual=False)

            def handle(sock: Any, _: object) -> None:
                with suppress(ssl.SSLError):
                    made = secured.wrap_socket(sock, server_side=True)
                    made.sendall(b".")
                    made.close()

            server = StreamServer(("127.0.0.1", 0), handle)
            server.start()
            stack.callback(server.stop)
            return server

        yield started


def fails(secured: tls.Context, address: Address, why: str) -> None:
    with pytest.raises(OSError, match=why):
        TlsHandler(secured).create_connection(address, "127.0.0.1", 5)


def refused_by(secured: tls.Context, server: StreamServer) -> str:
    fails(secured, server.address, "CERTIFICATE_VERIFY_FAILED")
    return at(*server.address)


def test_a_reason_stays_while_the_next_try_is_under_way(secured: tls.Context) -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        address = silent.getsockname()
        reason = tls.Refusal("its certificate is refused", shaken=False)
        secured.refusals[at(*address)] = reason
        trying = gevent.spawn(TlsHandler(secured).create_connection, address, "127.0.0.1", 5)
        waiting, _ = silent.accept()
        assert waiting.recv(1)
        assert secured.refusals == {at(*address): reason}
        trying.kill()
        waiting.close()


def test_a_reason_is_of_one_address(
    start: Start, secured: tls.Context, stranger: TlsConfig
) -> None:
    one = refused_by(secured, start(stranger))
    other = refused_by(secured, start(stranger))
    with socket.socket() as deaf:
        deaf.bind(("127.0.0.1", 0))
        fails(secured, deaf.getsockname(), "refused")
    assert list(secured.refusals) == [one, other]
    assert secured.refused.startswith(f"{one}: its certificate is refused: ")
    assert secured.refused.endswith("(tls.ca)")


def test_when_nobody_is_there_it_is_something_else(secured: tls.Context) -> None:
    with socket.socket() as deaf:
        deaf.bind(("127.0.0.1", 0))
        address = deaf.getsockname()
        secured.refusals[at(*address)] = tls.Refusal("its certificate is refused", shaken=False)
        fails(secured, address, "refused")
    assert not secured.refusals


def test_a_handshake_disproves_what_the_last_one_failed_for(
    start: Start, secured: tls.Context, own: TlsConfig
) -> None:
    server = start(own)
    peer = at(*server.address)
    secured.refusals[peer] = tls.Refusal("its certificate is refused", shaken=False)
    secured.refusals["other"] = tls.Refusal("it refuses our certificate", shaken=True)
    made = TlsHandler(secured).create_connection(server.address, "127.0.0.1", 5)
    assert list(secured.refusals) == ["other"]
    secured.refusals[peer] = tls.Refusal("it refuses our certificate", shaken=True)
    again = TlsHandler(secured).create_connection(server.address, "127.0.0.1", 5)
    assert list(secured.refusals) == ["other", peer]
    assert again.recv(1) == b"."
    assert not secured.refusals
    made.close()
    again.close()


def test_of_many_the_latest_are_told(secured: tls.Context) -> None:
    secured.refusals |= {str(n): tls.Refusal("no", shaken=False) for n in range(9)}
    assert secured.refused == "6: no; 7: no; 8: no"
