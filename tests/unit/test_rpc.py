"""Thrift over real sockets, plain and with TLS: calls, and peers that break the rules."""

import logging
import socket
import time
from collections.abc import Iterator
from contextlib import ExitStack, closing
from typing import Any

import gevent
import pytest

import idl
from soraka import tls
from soraka.budget import SMALL, ReadingBudget
from soraka.config import TlsConfig
from soraka.errors import PeerUnavailable
from soraka.process import listen
from soraka.rpc import RpcClient, RpcServer
from tests.certificates import Authority

LIMIT, MAX_ITEMS = 10_000, 200


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


@pytest.fixture(scope="module")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> TlsConfig:
    return Authority(tmp_path_factory.mktemp("ca")).issue("own")


@pytest.fixture(params=["plain", "tls"])
def settings(request: pytest.FixtureRequest, certificate: TlsConfig) -> TlsConfig:
    return certificate if request.param == "tls" else TlsConfig()


class Server(RpcServer):
    """`peers` is what connections to it are secured with."""

    peers: tls.Context | None = None


@pytest.fixture
def server(handler: Handler, settings: TlsConfig) -> Iterator[Server]:
    ours, peers = tls.between_roles(settings)
    made = Server(
        idl.worker.Worker,
        handler,
        listen("127.0.0.1", 0),
        max_frame_bytes=LIMIT,
        max_items=MAX_ITEMS,
        read_timeout_ms=300,
        idle_timeout_ms=600,
        secured=ours,
    )
    made.peers = peers
    made.start()
    yield made
    made.stop(1)


@pytest.fixture
def client(server: Server) -> Iterator[RpcClient]:
    made = _client(server)
    yield made
    made.close()


def _client(server: Server, timeout_ms: int = 2000) -> RpcClient:
    address = ("127.0.0.1", server.port)
    return RpcClient(idl.worker.Worker, address, timeout_ms=timeout_ms, secured=server.peers)


def _connect(server: Server) -> socket.socket:
    sock = socket.create_connection(("127.0.0.1", server.port), timeout=5)
    return tls.connected(sock, server.peers, "127.0.0.1") if server.peers else sock


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
    server: Server, handler: Handler
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
        b"\x00\x00\x00\x0aabcdefghij",
        b"\x00\x00\x00\x14\x80\x01\x00\x01\x00\x00\x00\x07delive",
    ],
    ids=["http", "huge", "empty", "garbage", "cut"],
)
def test_a_bad_frame_closes_its_connection_alone(
    server: Server, client: RpcClient, caplog: pytest.LogCaptureFixture, sent: bytes
) -> None:
    with (
        caplog.at_level(logging.WARNING),
        _connect(server) as sock,
    ):
        sock.sendall(sent)
        assert _deliver(client) == 1
        assert _closed(sock)
    assert caplog.records[0].message in ("rpc.bad_frame", "rpc.frame_timeout")
    assert _deliver(client) == 1


def _sized_call(size: int) -> bytes:
    """A call of `size` bytes, without the length in front; an unread field fills it up."""
    head = b"\x80\x01\x00\x01\x00\x00\x00\x07deliver\x00\x00\x00\x00"
    rest = b"\x0f\x00\x02\x0c\x00\x00\x00\x00\x00"
    filling = size - len(head) - len(rest) - 7
    return head + b"\x0b\x00\x63" + filling.to_bytes(4, "big") + b"x" * filling + rest


def test_a_frame_at_the_limit_is_served(server: Server) -> None:
    with _connect(server) as sock:
        sock.sendall(LIMIT.to_bytes(4, "big") + _sized_call(LIMIT))
        assert len(sock.recv(1000)) > 4


def test_a_frame_over_the_limit_is_refused_before_it_is_read(
    server: Server, caplog: pytest.LogCaptureFixture
) -> None:
    with _connect(server) as sock:
        sock.sendall((LIMIT + 1).to_bytes(4, "big"))
        assert _closed(sock)
    (record,) = caplog.records
    assert record.message == "rpc.bad_frame"
    assert vars(record)["reason"] == f"a frame of {LIMIT + 1} bytes; the limit is {LIMIT}"


def test_a_call_of_too_many_items_is_refused_before_it_is_decoded(
    server: Server, client: RpcClient, handler: Handler
) -> None:
    most = (MAX_ITEMS - 2) // 3  # a struct and its two fields each, and two arguments
    assert _deliver(client, most) == most
    handler.deliver = lambda **_: pytest.fail("was decoded")  # type: ignore[method-assign]
    with pytest.raises(PeerUnavailable):
        _deliver(client, most + 1)


def test_a_count_without_elements_stalls_nobody(server: Server, client: RpcClient) -> None:
    """2**31 elements of type void."""
    head = _sized_call(100)[:19]
    call = head + b"\x0f\x00\x02\x01\x7f\xff\xff\xff\x00"
    with _connect(server) as sock:
        started = time.monotonic()
        sock.sendall(len(call).to_bytes(4, "big") + call)
        assert _closed(sock)
        assert time.monotonic() - started < 0.5
    assert _deliver(client) == 1


def _drip(sock: socket.socket) -> None:
    for _ in range(100):
        sock.sendall(b"x")
        gevent.sleep(0.05)


def test_a_dripping_peer_is_cut(server: Server) -> None:
    with _connect(server) as sock:
        sock.sendall(b"\x00\x00\x03\xe8")
        started = time.monotonic()
        with pytest.raises(OSError):  # noqa: PT011 - reset or broken pipe
            _drip(sock)
        assert time.monotonic() - started < 3


def test_stop_closes_idle_connections_and_waits_for_calls(
    server: Server, client: RpcClient, handler: Handler
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


# ---------------------------------------------------------------------- more than the limits


@pytest.mark.parametrize("sent", [b"", b"\x00", b"\x00\x00\x01\x00half"])
def test_those_that_wait_longest_make_room(handler: Handler, sent: bytes) -> None:
    server = Server(
        idl.worker.Worker,
        handler,
        listen("127.0.0.1", 0),
        read_timeout_ms=600_000,
        max_connections=3,
    )
    server.start()
    with ExitStack() as stack:
        stack.callback(server.stop, 0)
        for _ in range(100):
            sock = stack.enter_context(_connect(server))
            sock.sendall(sent)
        client = stack.enter_context(closing(_client(server, timeout_ms=10_000)))
        started = time.monotonic()
        assert [_deliver(client, n) for n in (1, 2)] == [1, 2]
        assert time.monotonic() - started < 5


class Full(Handler):
    def submit(self, submission: Any) -> str:
        return str(submission.topic_name)


@pytest.fixture
def budget() -> ReadingBudget:
    return ReadingBudget(100_000)


@pytest.fixture
def public(budget: ReadingBudget) -> Iterator[RpcClient]:
    """To a server whose budget is taken."""
    server = RpcServer(
        idl.soraka.Soraka,
        Full(),
        listen("127.0.0.1", 0),
        budget=budget,
        no_room=lambda: idl.soraka.Unavailable(em="no room", retry_after=1000),
    )
    server.start()
    client = RpcClient(idl.soraka.Soraka, ("127.0.0.1", server.port), timeout_ms=5000)
    with budget.share() as others:
        others.take(SMALL + 90_000)
        yield client
    client.close()
    server.stop(0)


def _submission(topic: str) -> Any:
    callback = idl.soraka.Callback(request_type=1, url="http://a")
    return idl.soraka.Submission(topic_name=topic, callback=callback)


def test_a_call_without_room_is_refused_in_its_own_words(public: RpcClient) -> None:
    for _ in range(3):
        with pytest.raises(idl.soraka.Unavailable, match="no room"):
            public.call("submit", submission=_submission("x" * 200_000))
        assert public.call("submit", submission=_submission("small")) == "small"


def test_calls_give_their_room_back(public: RpcClient) -> None:
    for _ in range(30):
        topic = "x" * (SMALL + 5000)
        assert public.call("submit", submission=_submission(topic)) == topic


def test_without_a_word_for_it_the_connection_is_closed(handler: Handler) -> None:
    budget = ReadingBudget(1)
    server = Server(idl.worker.Worker, handler, listen("127.0.0.1", 0), budget=budget)
    server.start()
    with closing(_client(server)) as client:
        with pytest.raises(PeerUnavailable):
            _deliver(client, SMALL)
        assert _deliver(client, 3) == 3
    server.stop(0)
