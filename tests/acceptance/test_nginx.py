"""receive behind nginx, as it is deployed."""

from collections.abc import Iterator
from pathlib import Path

import pytest
import requests

from tests.acceptance.deployments import Cluster
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
