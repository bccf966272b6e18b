"""The `soraka` command as people type it."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.acceptance.deployments import Cluster, Deployment, Standalone, free_port, now_ms
from tests.acceptance.sink import Sink

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
    done = soraka("submit", server, topic, sink.url("/cli"), "--delay", "60000", "--method=GET")
    assert done.returncode == 0, done.stderr
    msg_id = done.stdout.strip()
    deployment.wait_state(msg_id, "pending")
    before = json.loads(soraka("show", server, msg_id).stdout)
    assert (before["state"], before["topic_name"]) == ("pending", topic)
    assert before["callback"]["request_type"] == "GET"
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
    for arguments, told in (
        (("submit", server, topic, "ftp://x"), "callback.url"),
        (("submit", server, topic, "http://x", "--delay", "-5"), "--delay"),
        (("submit", server, topic, "http://x", "--params", "[1"), "callback.params"),
        (("show", server, "nonsense"), "no such message"),
        (("show", "--server=nowhere", "x"), "--server"),
        (("show", f"--server=127.0.0.1:{free_port()}", "x"), "refused"),
    ):
        done = soraka(*arguments)
        assert done.returncode != 0, arguments
        assert told in done.stderr, (arguments, done.stderr)
        assert "Traceback" not in done.stderr


def test_topics_of_a_deployment(deployment: Deployment) -> None:
    if not isinstance(deployment, Cluster):
        refused = soraka("topic", "list")
        assert refused.returncode == 1
        assert "standalone" in refused.stderr
        return
    topic = deployment.new_topic()
    deployment.soraka("topic", "update", topic, "--business", "shop", "--retry=5,6")
    listed = {
        found["name"]: found
        for found in map(json.loads, deployment.soraka("topic", "list").splitlines())
    }
    assert listed[topic]["business"] == "shop"
    assert listed[topic]["retry_ms"] == [5, 6]
    with pytest.raises(AssertionError, match="exists already"):
        deployment.soraka("topic", "add", topic)
    with pytest.raises(AssertionError, match="reserved"):
        deployment.soraka("topic", "add", "worker")
    with pytest.raises(AssertionError, match="does not exist"):
        deployment.soraka("topic", "update", "not-there", "--business", "x")


def test_a_wrong_setting_stops_the_start_by_name(tmp_path: Path) -> None:
    file = tmp_path / "soraka.toml"
    file.write_text("[store]\nshard = 3\n")
    for role in ("standalone", "receive", "center", "worker"):
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
        assert str(running.http_port) in done.stderr
        assert "Traceback" not in done.stderr
    finally:
        running.close()


def test_config_prints_what_is_in_force() -> None:
    done = soraka("config", SORAKA_LOG_PARTITIONS="9")
    assert "partitions = 9" in done.stdout
