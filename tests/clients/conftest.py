"""Two receives behind nginx's stream proxy, on the real servers, with tokens."""

import os
import shutil
import subprocess
import uuid
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
import requests

from soraka.client import Client, MessageNotFound, TopicNotFound
from tests.acceptance.conftest import cluster_addresses
from tests.acceptance.deployments import Cluster, Process, free_port
from tests.acceptance.sink import wait_until
from tests.clients.programs import CLIENTS

STREAM = """\
load_module /usr/lib/nginx/modules/ngx_stream_module.so;
daemon off;
master_process off;
pid "{folder}/nginx.pid";
error_log stderr warn;
events {{}}
stream {{
    upstream receive {{
        {servers}
    }}
    server {{
        listen 127.0.0.1:{port};
        proxy_connect_timeout 1s;
        proxy_pass receive;
    }}
}}
"""
APPEND_TIMEOUT_MS = 500


@dataclass(frozen=True)
class Behind:
    """What clients see: the proxy's `port`. The tokens have all rights, and rights elsewhere."""

    cluster: Cluster
    port: int
    topic: str
    token: str
    token_of_another: str

    @property
    def receives(self) -> list[Process]:
        return [self.cluster.processes["receive"], self.cluster.processes["receive1"]]

    def wait_answers(self) -> None:
        """Of both receives."""
        for port, _ in self.cluster.receives:
            wait_until(lambda p=port: _is_ready(p), 40, self.cluster.output)

    def add_topic(self, topic: str) -> None:
        """As an operator does."""
        self.cluster.soraka("topic", "add", topic)
        for port, _ in self.cluster.receives:
            with Client(f"http://127.0.0.1:{port}", token=self.token) as client:
                wait_until(lambda c=client: _knows(c, topic), 10)

    def counted(self, sample: str) -> float:
        """The sum over both receives of what in `/metrics` begins so."""
        total = 0.0
        for port, _ in self.cluster.receives:
            text = requests.get(f"http://127.0.0.1:{port}/metrics", timeout=5).text
            lines = [line for line in text.splitlines() if line.startswith(sample)]
            total += sum(float(line.rpartition(" ")[2]) for line in lines)
        return total


@pytest.fixture(scope="package", autouse=True)
def built() -> None:
    if any(not Path(command[-1]).exists() for command in (CLIENTS["cpp"], CLIENTS["go"])):
        missing = "the examples are not built: run make test-clients"
        if os.environ.get("CI"):
            pytest.fail(missing, pytrace=False)
        pytest.skip(missing)


@pytest.fixture(scope="package")
def behind(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Behind]:
    folder = tmp_path_factory.mktemp("clients")
    tokens = folder / "tokens.json"
    settings = {
        "SORAKA_RECEIVE_TOKENS": str(tokens),
        "SORAKA_LOG_APPEND_TIMEOUT_MS": str(APPEND_TIMEOUT_MS),
    }
    cluster = Cluster(folder, cluster_addresses(request), settings, workers=1)
    cluster.add("receive", "receive1")
    token = _token(cluster, "all", "*")
    other = _token(cluster, "other", "other")
    port = free_port()
    proxy = _proxy(folder, port, [thrift for _, thrift in cluster.receives])
    try:
        cluster.start()
        behind = Behind(cluster, port, f"examples-{uuid.uuid4().hex[:8]}", token, other)
        behind.wait_answers()
        behind.add_topic(behind.topic)
        yield behind
    finally:
        proxy.kill()
        proxy.wait(10)
        cluster.close()


def _token(cluster: Cluster, name: str, topics: str) -> str:
    rights = [f"--{right}={topics}" for right in ("submit", "command", "read")]
    return cluster.soraka("token", "add", name, *rights).strip()


def _proxy(folder: Path, port: int, upstream: list[int]) -> "subprocess.Popen[bytes]":
    nginx = shutil.which("nginx", path="/usr/sbin:/usr/local/sbin:/usr/bin")
    assert nginx, "not installed: run dev/stack install"
    servers = "\n        ".join(f"server 127.0.0.1:{p} fail_timeout=1s;" for p in upstream)
    conf = folder / "nginx.conf"
    conf.write_text(STREAM.format(folder=folder, port=port, servers=servers))
    with (folder / "nginx.log").open("wb") as log:
        return subprocess.Popen([nginx, "-c", str(conf), "-p", str(folder)], stderr=log)


def _is_ready(port: int) -> bool:
    try:
        return requests.get(f"http://127.0.0.1:{port}/readyz", timeout=2).ok
    except requests.RequestException:
        return False


def _knows(client: Client, topic: str) -> bool:
    try:
        client.cancel(topic, str(uuid.uuid4()))
    except TopicNotFound:
        return False
    except MessageNotFound:
        pass
    return True
