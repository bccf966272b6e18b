"""Two receives behind nginx's stream proxy, on the real servers, with tokens."""

import os
import shutil
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
import requests

from soraka.tokens import Right, add
from tests.acceptance.deployments import Cluster, Process, free_port
from tests.acceptance.sink import wait_until
from tests.clients.programs import CLIENTS
from tests.servers import FullStack

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
APPEND_TIMEOUT_MS = 1000


@dataclass(frozen=True)
class Behind:
    """What clients see: the proxy's `port`, a topic and its `secret`. One token has all rights,
    the other has rights elsewhere."""

    cluster: Cluster
    port: int
    topic: str
    secret: str
    token: str
    token_of_another: str

    @property
    def receives(self) -> list[Process]:
        return [self.cluster.processes["receive"], self.cluster.processes["receive1"]]

    def wait_answers(self) -> None:
        """Of both receives."""
        for _, port, _ in self.cluster.receives:
            wait_until(lambda p=port: _is_ready(p), 40, self.cluster.output)

    def counted(self, sample: str) -> float:
        """The sum of what begins so in `/metrics` of the first receive."""
        text = requests.get(f"{self.cluster.url}/metrics", timeout=5).text
        lines = [line for line in text.splitlines() if line.startswith(sample)]
        return sum(float(line.rpartition(" ")[2]) for line in lines)


@pytest.fixture(scope="package", autouse=True)
def built() -> None:
    if any(not Path(command[-1]).exists() for command in (CLIENTS["cpp"], CLIENTS["go"])):
        missing = "the examples are not built: run make test-clients"
        if os.environ.get("CI"):
            pytest.fail(missing, pytrace=False)
        pytest.skip(missing)


@pytest.fixture(scope="package")
def behind(full_stack: FullStack, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Behind]:
    folder = tmp_path_factory.mktemp("clients")
    tokens = folder / "tokens.json"
    servers = {name: getattr(full_stack, name).url for name in ("redis", "kafka", "zookeeper")}
    cluster = Cluster(folder, servers, {"SORAKA_RECEIVE_TOKENS": str(tokens)}, workers=1)
    cluster.add("receive", "receive1")
    for name in ("receive", "receive1"):
        environ = cluster.processes[name].environ
        environ["SORAKA_LOG_APPEND_TIMEOUT_MS"] = str(APPEND_TIMEOUT_MS)
    token = add(tokens, "all", dict.fromkeys(Right, ("*",)))
    other = add(tokens, "other", dict.fromkeys(Right, ("other",)))
    port = free_port()
    proxy = _proxy(folder, port, [thrift for _, _, thrift in cluster.receives])
    try:
        # before center starts: how soon it finds a new topic is another test's matter
        cluster.soraka("topic", "add", "examples")
        secret = cluster.soraka("topic", "add-secret", "examples").strip()
        behind = Behind(cluster, port, "examples", secret, token, other)
        cluster.start()
        behind.wait_answers()
        yield behind
    finally:
        proxy.kill()
        proxy.wait(10)
        cluster.close()


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
