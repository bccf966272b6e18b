"""receive and admin behind nginx, as they are deployed."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import requests

from tests.acceptance.deployments import Cluster, wait_until
from tests.acceptance.sink import Sink
from tests.servers import FullStack


@pytest.fixture
def cluster(full_stack: FullStack, tmp_path: Path) -> Iterator[Cluster]:
    made = Cluster(
        tmp_path,
        {
            "redis": full_stack.redis.url,
            "kafka": full_stack.kafka.url,
            "zookeeper": full_stack.zookeeper.url,
        },
        {"SORAKA_RECEIVE_PORT": str(full_stack.receive_port)},
    )
    made.add(
        "admin",
        "admin",
        {
            "SORAKA_ADMIN_PORT": str(full_stack.admin_port),
            "SORAKA_ADMIN_ACCOUNTS": str(tmp_path / "admin.json"),
            "SORAKA_ADMIN_AUDIT": str(tmp_path / "audit.jsonl"),
            "SORAKA_ADMIN_TRUSTED_PROXIES": "1",
        },
    )
    try:
        made.start()
        yield made
    finally:
        made.close()


@pytest.mark.timeout(180)
def test_behind_nginx(cluster: Cluster, full_stack: FullStack, sink: Sink) -> None:
    topic = cluster.new_topic()
    message = {
        "topic_name": topic,
        "delay_time": 0,
        "callback": {"request_type": "POST", "url": sink.url("/nginx")},
    }
    answer = requests.post(f"{full_stack.nginx.url}/sorakaq/msg/submit", json=message, timeout=5)
    assert answer.status_code == 200
    sink.wait(answer.json()["result"]["msgId"])


@pytest.mark.timeout(180)
def test_admin_behind_nginx(cluster: Cluster, full_stack: FullStack) -> None:
    url = f"http://127.0.0.1:{full_stack.nginx_admin_port}"
    wait_until(lambda: requests.get(f"{url}/readyz", timeout=5).ok, 20, lambda: "admin is ready")
    assert requests.get(f"{url}/metrics", timeout=5).status_code == 401  # past a proxy
    output = cluster.soraka(
        "admin", "add-token", "test", "--role=operator", f"--data-dir={cluster.folder}"
    )
    headers = {"Authorization": f"Bearer {output.strip()}"}

    def call(method: str, path: str, **fields: Any) -> Any:
        given = {"json": fields} if method == "POST" else {}
        answer = requests.request(
            method, f"{url}/sorakaq{path}", headers=headers, timeout=5, **given
        )
        assert answer.status_code == 200, answer.text
        return answer.json()["result"]

    roles = {i["service_name"] for i in call("GET", "/instance/list")}
    assert roles == {"receive", "admin", "center", "worker"}
    workers = call("GET", "/instance/list?service_name=worker")
    assert all(worker["load"]["held"] == 0 for worker in workers)
    call("POST", "/topic/add", topic_name=cluster.folder.name, worker_num=1, choose="load")
    call("POST", "/instance/delete", instance=workers[0]["instance"])

    def left() -> bool:
        listed = call("GET", "/instance/list?service_name=worker")
        return workers[0]["instance"] not in [worker["instance"] for worker in listed]

    wait_until(left, 30, lambda: "the drained worker has left")
    assert call("POST", "/topic/get", topic_name=cluster.folder.name)["worker_num"] == 1
    assert call("POST", "/topic/delete", topic_name=cluster.folder.name)
