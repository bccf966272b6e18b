"""What a worker says of itself, and how it is told to leave: over a real socket."""

import time
from collections.abc import Iterator

import gevent
import pytest
from gevent.event import Event

import idl
from soraka.message import State
from soraka.process import listen
from soraka.rpc import RpcClient, RpcServer
from tests.unit.sinks import Sink, eventually
from tests.unit.worker_kit import Rig, after
from worker.load import Cpu, memory_bytes
from worker.rpc import Handler


@pytest.fixture
def asked() -> Event:
    return Event()


@pytest.fixture
def client(rig: Rig, asked: Event) -> Iterator[RpcClient]:
    handler = Handler("me", rig.loop(), skew_ms=lambda: -7, leave=asked.set)
    with Serving(handler) as made:
        yield made


class Serving:
    """A client of a handler behind a real socket."""

    def __init__(self, handler: Handler) -> None:
        self._server = RpcServer(idl.worker.Worker, handler, listen("127.0.0.1", 0))

    def __enter__(self) -> RpcClient:
        self._server.start()
        address = ("127.0.0.1", self._server.port)
        self._client = RpcClient(idl.worker.Worker, address, timeout_ms=3000)
        return self._client

    def __exit__(self, *_: object) -> None:
        self._client.close()
        self._server.stop(1)


def test_a_heartbeat_tells_the_load(rig: Rig, server: Sink, client: RpcClient) -> None:
    server.reply = after(0.5)
    idle = client.call("heartbeat", incarnation="me")
    assert (idle.held, idle.in_flight, idle.draining, idle.clock_skew_ms) == (0, 0, False, -7)
    assert idle.alone
    assert 5 << 20 < idle.memory_bytes < 4 << 30
    assert 0 <= idle.last_turn_ms < 3000
    rig.put(server.url, count=3)
    msg_ids = rig.put(server.url, count=20, in_ms=900)
    eventually(lambda: client.call("heartbeat", incarnation="me").in_flight == 3)
    assert client.call("heartbeat", incarnation="me").held == 20
    rig.all_end(msg_ids, State.SUCCEEDED)
    rig.loops[0].refuse()
    assert client.call("heartbeat", incarnation="me").draining


def test_a_loop_that_stands_still_shows(rig: Rig, client: RpcClient) -> None:
    rig.loops[0].stop()
    gevent.sleep(0.3)
    assert client.call("heartbeat", incarnation="me").last_turn_ms >= 300


def test_a_store_out_of_reach_shows(rig: Rig, client: RpcClient) -> None:
    assert client.call("heartbeat", incarnation="me").blind_ms == 0
    rig.store.down = True
    eventually(lambda: client.call("heartbeat", incarnation="me").blind_ms >= 300)
    rig.store.down = False
    eventually(lambda: client.call("heartbeat", incarnation="me").blind_ms == 0)


def test_drain_asks_the_process_to_leave_and_may_be_repeated(
    client: RpcClient, asked: Event
) -> None:
    assert not asked.is_set()
    client.call("drain", incarnation="me")
    assert asked.is_set()
    client.call("drain", incarnation="me")


def test_another_process_is_not_meant(client: RpcClient, asked: Event) -> None:
    for method in ("heartbeat", "drain"):
        with pytest.raises(idl.worker.WrongIncarnation) as wrong:
            client.call(method, incarnation="another")
        assert wrong.value.incarnation == "me"
    assert not asked.is_set()


def test_a_worker_that_is_not_alone_does_not_leave(rig: Rig) -> None:
    with Serving(Handler("me", rig.loop())) as client:
        with pytest.raises(idl.worker.NotAlone) as refused:
            client.call("drain", incarnation="me")
        assert "SIGTERM" in refused.value.em
        load = client.call("heartbeat", incarnation="me")
        assert (load.draining, load.alone) == (False, False)


def test_the_share_of_a_core() -> None:
    cpu = Cpu()
    gevent.sleep(0.5)
    assert cpu.share() < 0.5
    busy = Cpu()
    spent = time.process_time()
    started = time.monotonic()
    while time.process_time() - spent < 0.3:
        pass
    real = 0.3 / (time.monotonic() - started)
    assert busy.share() == pytest.approx(real, rel=0.3)


def test_it_looks_back_for_about_two_seconds(monkeypatch: pytest.MonkeyPatch) -> None:
    now = [(0.0, 0.0)]
    monkeypatch.setattr("worker.load._sample", lambda: now[0])
    cpu = Cpu()
    shares = []
    for second in range(1, 11):
        now[0] = (float(second), min(second, 5) * 1.0)  # busy for five seconds, idle for five
        shares.append(cpu.share())
        assert len(cpu._samples) <= 4
    assert shares[:5] == [1.0] * 5
    assert shares[5:] == [0.5, 0.0, 0.0, 0.0, 0.0]


def test_memory_is_resident_memory() -> None:
    before = memory_bytes()
    block = bytearray(64 << 20)
    block[::4096] = b"x" * len(block[::4096])
    assert memory_bytes() - before > 50 << 20
