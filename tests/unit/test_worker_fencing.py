"""A worker that was stopped for longer than its lease sends nothing: a real process, SIGSTOP."""

import json
import os
import signal
import ssl
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import gevent
import pytest

from soraka.adapters.redis_store import RedisStore
from soraka.config import WorkerConfig
from soraka.message import Callback, State
from soraka.ports import Move
from tests.contract.store_kit import message, put, redis_store
from tests.servers import Server
from tests.unit.sinks import Sink, eventually, sink
from worker.callback import Caller
from worker.loop import Loop
from worker.trust import Trust

TTR_MS = 700
MARGIN_MS = 300
LONG_MS = 15_000
"""A moment is shorter, on a busy machine too."""
ZOMBIE, HEIR = "10.0.0.1:30002", "10.0.0.2:30002"
WORKER = """
from gevent import monkey; monkey.patch_all()
import sys
from tests.unit.stopped_worker import main
main(*sys.argv[1:])
"""
POINTS = ["claimed", "leaving", "resolved", "connected", "first_piece"]


@pytest.fixture
def store(redis_server: Server) -> Iterator[RedisStore]:
    with redis_store(redis_server.url, lease_margin_ms=MARGIN_MS) as made:
        yield made


@pytest.fixture(scope="module")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Of localhost; its key is beside it."""
    folder = tmp_path_factory.mktemp("tls")
    key, certificate = folder / "key.pem", folder / "cert.pem"
    command = f"openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -days 2 \
        -subj /CN=localhost -addext subjectAltName=DNS:localhost -keyout {key} -out {certificate}"
    subprocess.run(command.split(), check=True, capture_output=True)
    return certificate


@pytest.fixture(scope="module")
def tls(certificate: Path) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate, certificate.with_name("key.pem"))
    return context


@contextmanager
def worker(
    url: str,
    point: str,
    then: str = "go_on",
    margin_ms: int = MARGIN_MS,
    authority: Path | None = None,
) -> Iterator[subprocess.Popen[str]]:
    process = subprocess.Popen(
        [sys.executable, "-c", WORKER, url, ZOMBIE, point, then, str(margin_ms)],
        env={**os.environ, "SSL_CERT_FILE": str(authority)} if authority else None,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    try:
        yield process
    finally:
        process.kill()
        process.communicate()


@contextmanager
def heir(store: RedisStore, authority: Path | None = None) -> Iterator[None]:
    caller = Caller(max_response_bytes=4096, trust=Trust(str(authority or "")))
    config = WorkerConfig(page_ms=50, horizon_ms=1000)
    loop = Loop(owner=HEIR, store=store, clock=store, call=caller, config=config)
    loop.start()
    try:
        yield
    finally:
        assert loop.drain(10)
        loop.stop()
        caller.close()


def is_stopped(process: subprocess.Popen[str]) -> bool:
    fields = Path(f"/proc/{process.pid}/stat").read_text().rpartition(")")[2].split()
    return fields[0] == "T"


def said(process: subprocess.Popen[str]) -> list[str]:
    """How its next attempt ended."""
    assert process.stdout is not None
    ended: list[str] = json.loads(process.stdout.readline())
    return ended


def submit(store: RedisStore, server: Sink, point: str, ttr_ms: int | None = None) -> str:
    """A body that no socket takes at once, where that matters."""
    large = point == "first_piece"
    size = 6 << 20 if large else 10
    params = json.dumps({"x": "y" * size})
    url = server.url.replace("127.0.0.1", "localhost")
    m = message(
        store.now_ms(),
        ttr_ms=ttr_ms or (3000 if large else TTR_MS),
        callback=Callback(method="POST", url=url, params=params),
        retry_ms=(60_000,),
    )
    put(store, m, owner=ZOMBIE)
    return m.msg_id


def state(store: RedisStore, msg_id: str) -> State | None:
    (found,) = store.get([msg_id])
    return found.state if found else None


@pytest.mark.parametrize("secure", [False, True], ids=["http", "https"])
@pytest.mark.parametrize("point", POINTS)
def test_one_stopped_for_longer_than_its_lease_sends_nothing(
    store: RedisStore,
    redis_server: Server,
    certificate: Path,
    tls: ssl.SSLContext,
    point: str,
    secure: bool,
) -> None:
    with (
        sink(tls=tls if secure else None) as server,
        worker(redis_server.url, point, "stop_again", authority=certificate) as zombie,
    ):
        msg_id = submit(store, server, point)
        eventually(lambda: is_stopped(zombie), 15)
        (found,) = store.get([msg_id])
        assert found is not None
        assert found.lease_until > store.now_ms()
        assert server.seen == []
        eventually(lambda: store.now_ms() > found.lease_until + 50, 10)
        os.kill(zombie.pid, signal.SIGCONT)
        ended, reason = said(zombie)
        assert ended in ("released", "retry"), reason
        eventually(lambda: is_stopped(zombie))
        gevent.sleep(0.1)
        assert server.seen == []
        assert store.assign([Move(msg_id, ZOMBIE, HEIR)]) != [None]
        with heir(store, certificate):
            eventually(lambda: state(store, msg_id) is State.SUCCEEDED, 10)
        assert [seen.headers["soraka-attempt"] for seen in server.seen] == ["2"]


@pytest.mark.parametrize("point", POINTS)
def test_one_that_wakes_while_the_next_is_at_it_does_not_call_too(
    store: RedisStore, redis_server: Server, point: str
) -> None:
    with sink() as server, worker(redis_server.url, point) as zombie, heir(store):
        msg_id = submit(store, server, point)
        eventually(lambda: is_stopped(zombie), 15)
        # BUSY until the lease ends
        assert store.assign([Move(msg_id, ZOMBIE, HEIR)]) != [None]
        eventually(lambda: server.seen, 10)
        os.kill(zombie.pid, signal.SIGCONT)
        said(zombie)
        eventually(lambda: state(store, msg_id) is State.SUCCEEDED)
        gevent.sleep(0.1)
        assert len(server.seen) == 1
        assert server.seen[0].headers["soraka-attempt"] == "2"


@pytest.mark.parametrize("point", POINTS)
def test_one_stopped_for_a_moment_makes_its_call(
    store: RedisStore, redis_server: Server, point: str
) -> None:
    with sink() as server, worker(redis_server.url, point, margin_ms=LONG_MS) as zombie:
        msg_id = submit(store, server, point, ttr_ms=LONG_MS)
        eventually(lambda: is_stopped(zombie), 15)
        os.kill(zombie.pid, signal.SIGCONT)
        assert said(zombie) == ["succeeded", ""]
        assert len(server.seen) == 1
        eventually(lambda: state(store, msg_id) is State.SUCCEEDED)
