"""The `soraka` command as people type it."""

import json
import os
import socket
import subprocess
import sys
from collections import Counter
from datetime import datetime
from pathlib import Path
from typing import Any

import pytest

from tests.acceptance.deployments import Cluster, Deployment, Standalone, free_port, now_ms
from tests.acceptance.sink import Sink, wait_until

pytestmark = pytest.mark.timeout(120)


def soraka(*arguments: str, **environ: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "soraka", *arguments],
        env={**os.environ, **environ},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


def test_help_teaches() -> None:
    done = soraka("--help")
    assert done.returncode == 0
    for word in ("standalone", "submit", "cancel", "add-time", "show", "topic", "center"):
        assert word in done.stdout


def test_submit_show_add_time_cancel(deployment: Deployment, sink: Sink, topic: str) -> None:
    server = f"--server=127.0.0.1:{deployment.thrift_port}"
    done = soraka(
        "submit",
        server,
        topic,
        sink.url("/cli"),
        "--delay=60000",
        "--method=GET",
        '--params={"name": "Zoë"}',
    )
    assert done.returncode == 0, done.stderr
    msg_id = done.stdout.strip()
    deployment.wait_state(msg_id, "pending")
    before = json.loads(soraka("show", server, msg_id).stdout)
    assert (before["state"], before["topic_name"]) == ("pending", topic)
    assert before["callback"] == {
        "request_type": "GET",
        "url": sink.url("/cli"),
        "params": {"name": "Zoë"},
    }
    due = datetime.fromisoformat(before["due_at_utc"])
    assert round(due.timestamp() * 1000) == before["due_at"]
    assert soraka("add-time", server, topic, msg_id, "500").returncode == 0
    after = json.loads(soraka("show", server, msg_id).stdout)
    assert after["due_at"] == before["due_at"] + 500
    assert soraka("cancel", server, topic, msg_id).returncode == 0
    again = soraka("cancel", server, topic, msg_id)
    assert again.returncode == 1
    assert "Error: " in again.stderr
    assert "Traceback" not in again.stderr


def test_submit_at_calls(deployment: Deployment, sink: Sink, topic: str) -> None:
    server = f"--server=127.0.0.1:{deployment.thrift_port}"
    at = str(now_ms() + 200)
    done = soraka("submit", server, topic, sink.url("/cli-at"), "--at", at, "--params", '{"a":1}')
    (call,) = sink.wait(done.stdout.strip())
    assert call.json() == {"a": 1}


def test_what_is_wrong_is_said_in_one_line(deployment: Deployment, topic: str) -> None:
    server = f"--server=127.0.0.1:{deployment.thrift_port}"
    port = free_port()
    for arguments, told in (
        (("submit", server, topic, "ftp://x"), "callback.url"),
        (("submit", server, topic, "http://x", "--delay", "-5"), "--delay"),
        (("submit", server, topic, "http://x", "--delay", "9" * 20), "--delay"),
        (("submit", server, topic, "http://x", "--at", "9" * 20), "--at"),
        (("submit", server, topic, "http://x", "--ttr", "9" * 20), "--ttr"),
        (("submit", server, topic, "http://x", "--retry", "9" * 20), "--retry"),
        (("submit", server, topic, "http://x", "--retry", "1,,2"), "--retry"),
        (("submit", server, topic, "http://x", "--params", "[1"), "callback.params"),
        (("add-time", server, topic, "x", "-5"), "-5 is not in the range"),
        (("show", server, "nonsense"), "no such message"),
        (("show", "--server=nowhere", "x"), "--server"),
        (
            ("show", f"--server=127.0.0.1:{port}", "x"),
            f"Error: 127.0.0.1:{port}: Connection refused",
        ),
    ):
        done = soraka(*arguments)
        assert done.returncode != 0, arguments
        assert told in done.stderr, (arguments, done.stderr)
        assert "Traceback" not in done.stderr


def test_a_silent_server_is_given_up() -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        server = f"--server=127.0.0.1:{silent.getsockname()[1]}"
        for command in (("show", "x"), ("submit", "t", "http://x"), ("cancel", "t", "x")):
            done = soraka(*command, server, "--timeout=0.3")
            assert done.returncode == 1
            assert "no answer within 0.3 s: is soraka running there? (--server)" in done.stderr


def test_topics_without_servers_fail_at_once_in_one_line() -> None:
    nowhere = {
        "SORAKA_LOG_ADAPTER": "kafka",
        "SORAKA_LOG_BOOTSTRAP": "127.0.0.1:1",
        "SORAKA_REGISTRY_ADAPTER": "zookeeper",
        "SORAKA_REGISTRY_HOSTS": "127.0.0.1:1",
    }
    done = soraka("topic", "list", **nowhere)
    assert done.returncode == 1
    assert done.stderr == "Error: not connected to ZooKeeper at 127.0.0.1:1\n"


def test_topics_of_a_deployment(deployment: Deployment) -> None:
    if not isinstance(deployment, Cluster):
        refused = soraka("topic", "list")
        assert refused.returncode == 1
        assert "standalone" in refused.stderr
        return
    topic = deployment.new_topic()
    deployment.soraka("topic", "update", topic, "--business", "shop", "--retry=5,6")
    listed = _listed(deployment)
    assert listed[topic]["business"] == "shop"
    assert listed[topic]["retry_ms"] == [5, 6]
    deployment.soraka("topic", "update", topic, "--workers=10.0.0.1:1,10.0.0.2:1")
    assert _listed(deployment)[topic]["workers"] == ["10.0.0.1:1", "10.0.0.2:1"]
    deployment.soraka("topic", "update", topic, "--workers=", "--retry=")
    cleared = _listed(deployment)[topic]
    assert (cleared["workers"], cleared["retry_ms"], cleared["business"]) == ([], [], "shop")
    settings = ("--balance=least_loaded", "--weigh-by=load", "--max-concurrent-dispatches=3")
    deployment.soraka("topic", "update", topic, *settings)
    shown = json.loads(deployment.soraka("topic", "get", topic))
    assert shown == {
        **cleared,
        "balance": "least_loaded",
        "weigh_by": "load",
        "max_concurrent_dispatches": 3,
    }
    with pytest.raises(AssertionError, match=r"workers\.0: 'nonsense' must be ip:port"):
        deployment.soraka("topic", "update", topic, "--workers=nonsense")
    with pytest.raises(AssertionError, match="exists already"):
        deployment.soraka("topic", "add", topic)
    with pytest.raises(AssertionError, match="reserved"):
        deployment.soraka("topic", "add", "worker")
    with pytest.raises(AssertionError, match="does not exist"):
        deployment.soraka("topic", "update", "not-there", "--business", "x")


def test_topics_are_copied_and_brought_back(deployment: Deployment, tmp_path: Path) -> None:
    if not isinstance(deployment, Cluster):
        return
    topic = deployment.new_topic()
    copied = tmp_path / "topics"
    copied.write_text(deployment.soraka("topic", "list"))
    before = _listed(deployment)[topic]
    deployment.soraka("topic", "update", topic, "--business", "other")
    assert "0 replaced" in deployment.soraka("topic", "import", str(copied))
    assert "1 replaced" in deployment.soraka("topic", "import", "--replace", str(copied))
    assert _listed(deployment)[topic] == before


def test_rebalance_gives_each_worker_its_share(deployment: Deployment, sink: Sink) -> None:
    topic = deployment.new_topic()
    if not isinstance(deployment, Cluster):
        center = _addresses(deployment, "center")[0]
        done = soraka("rebalance", topic, f"--center={center}")
        assert (done.returncode, done.stdout) == (0, f"moved 0 messages of {topic}\n"), done.stderr
        return
    workers = _addresses(deployment, "worker")
    deployment.soraka("topic", "update", topic, f"--workers={workers[0]}")
    item = {
        "topic_name": topic,
        "delay_time": 3_600_000,
        "callback": {"request_type": "POST", "url": sink.url("/")},
    }
    _, body = deployment.post("submitBatch", json={"messages": [item] * 60})
    ids = [result["msgId"] for result in body["result"]]
    for msg_id in ids:
        deployment.wait_state(msg_id, "pending")

    def owners() -> Counter[str]:
        return Counter(deployment.call("get", msg_id=msg_id).owner for msg_id in ids)

    before = owners()  # center may have read the log before the settings
    deployment.soraka("topic", "update", topic, "--workers=")
    moved = []

    def balanced() -> bool:
        moved.append(deployment.soraka("rebalance", topic))
        return owners() == dict.fromkeys(workers, 30)

    wait_until(balanced, 30, lambda: f"30 each, but {owners()}")
    assert moved[-1] == f"moved {max(before.values()) - 30} messages of {topic}\n"
    with pytest.raises(AssertionError, match="does not exist"):
        deployment.soraka("rebalance", "not-there")


def _addresses(deployment: Deployment, role: str) -> list[str]:
    """Of the processes of a role, or of the standalone's."""
    name = f"SORAKA_{role.upper()}_THRIFT_PORT"
    ports = [p.environ[name] for p in deployment.processes.values() if name in p.environ]
    return [f"127.0.0.1:{port}" for port in ports]


def _listed(cluster: Cluster) -> dict[str, Any]:
    topics = map(json.loads, cluster.soraka("topic", "list").splitlines())
    return {found["name"]: found for found in topics}


def test_a_wrong_setting_stops_the_start_by_name(tmp_path: Path) -> None:
    file = tmp_path / "soraka.toml"
    file.write_text("[store]\nshard = 3\n")
    for role in ("standalone", "receive", "admin", "center", "worker"):
        done = soraka(role, "--config", str(file))
        assert done.returncode == 1, role
        assert "store.shard: unknown key; allowed: adapter" in done.stderr
        assert "Traceback" not in done.stderr


def test_a_taken_port_stops_the_start_by_name(tmp_path: Path) -> None:
    running = Standalone(tmp_path)
    try:
        running.start()
        done = soraka(
            "standalone",
            f"--data-dir={tmp_path / 'other'}",
            f"--receive-port={running.http_port}",
            "--thrift-port=0",
        )
        assert done.returncode == 1
        port = running.http_port
        assert done.stderr == (
            f"Error: receive.port = {port}: 127.0.0.1:{port}: Address already in use\n"
        )
    finally:
        running.close()


def test_config_prints_what_is_in_force() -> None:
    done = soraka("config", SORAKA_LOG_PARTITIONS="9")
    assert "partitions = 9" in done.stdout
    done = soraka("config", "--standalone")
    assert "auto_create = true" in done.stdout
    assert "auto_create = false" in soraka("config").stdout
