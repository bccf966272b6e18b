"""Starting: without the servers, beside another, again and again."""

import json
import re
import signal
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import pytest
import requests

import idl
from soraka.rpc import RpcClient
from tests.acceptance.deployments import Cluster, Process, free_port
from tests.acceptance.sink import Sink, wait_until
from tests.servers import Server

pytestmark = pytest.mark.timeout(120)
NOWHERE = {
    "SORAKA_LOG_ADAPTER": "kafka",
    "SORAKA_LOG_BOOTSTRAP": "127.0.0.1:1",
    "SORAKA_STORE_ADAPTER": "redis",
    "SORAKA_STORE_URL": "redis://127.0.0.1:1/0",
    "SORAKA_REGISTRY_ADAPTER": "zookeeper",
    "SORAKA_REGISTRY_HOSTS": "127.0.0.1:1",
}
MESSAGE = {
    "topic_name": "t",
    "delay_time": 0,
    "callback": {"request_type": "GET", "url": "http://127.0.0.1:1/"},
}
PROMPTLY_S = 5.0


@contextmanager
def running(arguments: list[str], environ: Mapping[str, str], log: Path) -> Iterator[Process]:
    process = Process(arguments, environ, log)
    process.start()
    try:
        yield process
    finally:
        process.kill()


def stopped(process: Process) -> float:
    """Ends it with SIGTERM and checks its exit; how long it took, in seconds."""
    begun = time.monotonic()
    assert process.stop() == 0, process.output()
    took_s = time.monotonic() - begun
    assert "Traceback" not in process.output()
    assert "process.stopped" in process.output()
    return took_s


def status(url: str) -> int:
    try:
        return requests.get(url, timeout=2).status_code
    except requests.RequestException:
        return 0


# ------------------------------------------------------------------- servers that are away


@pytest.mark.parametrize("role", ["center", "worker"])
def test_a_role_waits_for_servers_and_shows_that_it_does(role: str, tmp_path: Path) -> None:
    port = free_port()
    settings = {**NOWHERE, f"SORAKA_{role}_HEALTH_PORT".upper(): str(port)}
    with running([role], settings, tmp_path / "log") as process:
        wait_until(lambda: "start.waiting" in process.output(), 15, process.output)
        assert status(f"http://127.0.0.1:{port}/healthz") == 200
        ready = requests.get(f"http://127.0.0.1:{port}/readyz", timeout=2)
        assert (ready.status_code, ready.json()["down"]) == (503, ["registry"])
        assert stopped(process) < PROMPTLY_S


def test_receive_answers_while_servers_are_away(tmp_path: Path) -> None:
    http, thrift = free_port(), free_port()
    url = f"http://127.0.0.1:{http}"
    settings = {
        **NOWHERE,
        "SORAKA_RECEIVE_PORT": str(http),
        "SORAKA_RECEIVE_THRIFT_PORT": str(thrift),
    }
    with running(["receive"], settings, tmp_path / "log") as process:
        wait_until(lambda: status(f"{url}/healthz") == 200, 15, process.output)
        assert status(f"{url}/readyz") == 503
        answer = requests.post(f"{url}/sorakaq/msg/submit", json=MESSAGE, timeout=2)
        assert (answer.status_code, answer.json()["ec"]) == (503, 503)
        client = RpcClient(idl.soraka.Soraka, ("127.0.0.1", thrift), timeout_ms=2000)
        with pytest.raises(idl.soraka.Unavailable):
            client.call("get", msg_id="x")
        client.close()
        with requests.Session() as idle:  # as a balancer has them
            assert idle.get(f"{url}/healthz", timeout=2).status_code == 200
            assert stopped(process) < PROMPTLY_S


@pytest.mark.parametrize("away", ["redis_server", "kafka_server", "zookeeper_server"])
def test_a_server_may_start_after_us(
    away: str,
    redis_server: Server,
    kafka_server: Server,
    zookeeper_server: Server,
    tmp_path: Path,
    sink: Sink,
) -> None:
    servers = {s.name: s for s in (redis_server, kafka_server, zookeeper_server)}
    cluster = Cluster(
        tmp_path,
        {
            "redis": f"redis://{redis_server.host}:{redis_server.port}/15",
            "kafka": kafka_server.url,
            "zookeeper": zookeeper_server.url,
        },
        workers=1,
    )
    missed = {"redis": "store", "kafka": "log", "zookeeper": "registry"}[away.split("_")[0]]
    try:
        with servers[away.removesuffix("_server")].outage():
            for process in cluster.processes.values():
                process.start()
            waiting = cluster.processes["center0"]
            wait_until(lambda: _waits(waiting, missed), 20, cluster.output)
            wait_until(lambda: status(f"{cluster.url}/readyz") == 503, 20, cluster.output)
        cluster.wait_ready()
        sink.wait(cluster.submit(cluster.new_topic(), sink.url("/late"), delay_time=0))
        assert "Traceback" not in cluster.output()
        stopped(waiting)
        lost = waiting.output().count('"state": "LOST"')
        assert lost == 0 or away == "zookeeper_server", waiting.output()
    finally:
        cluster.close()


def _waits(process: Process, port: str) -> bool:
    assert not process.has_ended, process.output()
    return f'"start.waiting", "for": "{port}"' in process.output()


@pytest.mark.parametrize(
    ("setting", "value", "told"),
    [
        ("STORE_URL", "foo", "Error: store.url: "),
        ("REGISTRY_HOSTS", "", "Error: registry.hosts = '"),
    ],
)
@pytest.mark.parametrize("role", ["center", "worker", "receive"])
def test_an_address_that_is_none_ends_the_start_by_name(
    role: str, setting: str, value: str, told: str, tmp_path: Path
) -> None:
    ports = {"SORAKA_RECEIVE_PORT": "0", "SORAKA_RECEIVE_THRIFT_PORT": "0"}
    settings = {**NOWHERE, **ports, f"SORAKA_{setting}": value}
    with running([role], settings, tmp_path / "log") as process:
        wait_until(lambda: process.has_ended, 15, process.output)
        assert told in process.output()
        assert "Traceback" not in process.output()


# ------------------------------------------------------------------- again, at the same port


def test_receive_starts_while_its_predecessor_still_has_the_port(tmp_path: Path) -> None:
    port = free_port()
    settings = {
        **NOWHERE,
        "SORAKA_RECEIVE_PORT": str(port),
        "SORAKA_RECEIVE_THRIFT_PORT": str(free_port()),
    }
    with running(["receive"], settings, tmp_path / "first") as first:
        wait_until(lambda: status(f"http://127.0.0.1:{port}/healthz") == 200, 15, first.output)
        with running(["receive"], settings, tmp_path / "second") as second:
            wait_until(lambda: "port.taken" in second.output(), 15, second.output)
            assert first.stop() == 0
            wait_until(lambda: status(f"http://127.0.0.1:{port}/healthz") == 200, 15, second.output)
            assert not second.has_ended, second.output()


def test_a_port_that_stays_taken_is_named_with_its_setting(tmp_path: Path) -> None:
    with running(
        [
            "standalone",
            f"--data-dir={tmp_path / 'data'}",
            "--receive-port=0",
            "--admin-port=0",
            "--thrift-port=0",
        ],
        {},
        tmp_path / "first",
    ) as first:
        wait_until(lambda: "HTTP " in first.output(), 15, first.output)
        (port,) = re.findall(r"HTTP +http://127.0.0.1:(\d+)", first.output())
        settings = {**NOWHERE, "SORAKA_RECEIVE_PORT": port}
        with running(["receive"], settings, tmp_path / "second") as second:
            wait_until(lambda: second.has_ended, 15, second.output)
            named = f"Error: receive.port = {port}: 127.0.0.1:{port}: Address already in use"
            assert named in second.output()


# ------------------------------------------------------------------- standalone


@contextmanager
def standalone(folder: Path, log: Path) -> Iterator[tuple[Process, str, str]]:
    """With the options that the help names; also the URL and the Thrift address of it."""
    ports = ["--receive-port=0", "--admin-port=0", "--thrift-port=0"]
    with running(["standalone", f"--data-dir={folder}", *ports], {}, log) as process:
        wait_until(lambda: "Thrift " in process.output(), 15, process.output)
        (url,) = re.findall(r"HTTP +(http://\S+)", process.output())
        (thrift,) = re.findall(r"Thrift +(\S+)", process.output())
        yield process, url, thrift


def owner(thrift: str, msg_id: str) -> str:
    host, _, port = thrift.rpartition(":")
    client = RpcClient(idl.soraka.Soraka, (host, int(port)), timeout_ms=5000)
    try:
        return str(client.call("get", msg_id=msg_id).owner)
    except idl.soraka.MessageNotFound:
        return ""
    finally:
        client.close()


def test_two_run_side_by_side_and_a_restart_keeps_its_messages(tmp_path: Path, sink: Sink) -> None:
    late = {**MESSAGE, "delay_time": 60_000}
    with standalone(tmp_path / "a", tmp_path / "log-a") as (first, url, thrift):
        with standalone(tmp_path / "b", tmp_path / "log-b"):
            sent = requests.post(f"{url}/sorakaq/msg/submit", json=late, timeout=5).json()
            msg_id = sent["result"]["msgId"]
            wait_until(lambda: owner(thrift, msg_id), 10, first.output)
            before = owner(thrift, msg_id)
            assert before != "-"
        first.kill()
    with standalone(tmp_path / "a", tmp_path / "log-a2") as (again, url, thrift):
        assert f"address={before}\n" in again.output()
        soon = {
            **MESSAGE,
            "callback": {"request_type": "GET", "url": sink.url("/soon")},
        }
        requests.post(f"{url}/sorakaq/msg/submit", json=soon, timeout=5)
        wait_until(lambda: [c for c in sink.calls if c.path == "/soon"], 10, again.output)
        assert owner(thrift, msg_id) == before
        assert "owner.taken_over" not in again.output()


def test_a_remembered_port_that_is_taken_is_given_up(tmp_path: Path) -> None:
    with standalone(tmp_path / "a", tmp_path / "log-a"):
        taken = json.loads((tmp_path / "a" / "ports.json").read_text())["worker"]
        (tmp_path / "b").mkdir()
        (tmp_path / "b" / "ports.json").write_text(json.dumps({"worker": taken}))
        with standalone(tmp_path / "b", tmp_path / "log-b"):
            assert json.loads((tmp_path / "b" / "ports.json").read_text())["worker"] != taken
    (tmp_path / "b" / "ports.json").write_text("[garbage")
    with standalone(tmp_path / "b", tmp_path / "log-b2"):
        assert json.loads((tmp_path / "b" / "ports.json").read_text())["worker"]


def test_standalone_tells_of_its_loops_and_of_failing_callbacks(tmp_path: Path) -> None:
    with standalone(tmp_path / "a", tmp_path / "log") as (process, url, _):
        ages = requests.get(f"{url}/healthz", timeout=5).json()["result"]["last_turn_ms"]
        loops = {"consume", "reconcile", "resume", "vouch", "housekeep", "backlog"}
        assert set(ages["center"]) == loops
        assert set(ages["worker"]) == {"pager", "timer", "settler"}
        requests.post(f"{url}/sorakaq/msg/submit", json={**MESSAGE, "retry": []}, timeout=5)
        dead = 'soraka_callbacks_total{ended="dead"} 1.0'
        wait_until(
            lambda: dead in requests.get(f"{url}/metrics", timeout=5).text, 10, process.output
        )
        stopped(process)
        (line,) = re.findall(r"callbacks\.failing (.*)", process.output())
        assert "dead={'t': 1}" in line
        assert "connection refused" in line


def test_a_file_that_is_no_database_is_said_by_name(tmp_path: Path) -> None:
    (tmp_path / "log.db").write_bytes(b"\xa5" * 8192)
    arguments = [
        "standalone",
        f"--data-dir={tmp_path}",
        "--receive-port=0",
        "--admin-port=0",
        "--thrift-port=0",
    ]
    with running(arguments, {}, tmp_path / "out") as process:
        wait_until(lambda: process.has_ended, 15, process.output)
        assert process.output() == f"Error: log.path = {tmp_path}/log.db: file is not a database\n"


def test_ctrl_c_while_it_waits_ends_it(tmp_path: Path) -> None:
    with running(["center"], NOWHERE, tmp_path / "log") as process:
        wait_until(lambda: "health.listening" in process.output(), 15, process.output)
        assert process._end(signal.SIGINT) == 0
