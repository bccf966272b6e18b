"""SIGTERM: what is under way is finished, and the process ends with 0."""

import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.acceptance.conftest import cluster_addresses
from tests.acceptance.deployments import Cluster
from tests.acceptance.sink import Answer, Sink

pytestmark = pytest.mark.timeout(180)


@pytest.fixture
def cluster(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Cluster]:
    made = Cluster(tmp_path, cluster_addresses(request), workers=2, centers=2)
    try:
        made.start()
        yield made
    finally:
        made.close()


def test_calls_under_way_are_finished(cluster: Cluster, sink: Sink) -> None:
    sink.answer("/slow", Answer(wait_s=1.5))
    topic = cluster.new_topic()
    ids = [cluster.submit(topic, sink.url("/slow"), delay_time=0, ttr=5000) for _ in range(4)]
    for msg_id in ids:
        sink.wait(msg_id)
    started = time.monotonic()
    codes = {name: cluster.processes[name].stop() for name in ("worker0", "worker1")}
    assert codes == {"worker0": 0, "worker1": 0}
    assert time.monotonic() - started < 15
    for msg_id in ids:
        assert cluster.state(msg_id) == "succeeded"
        assert len(sink.of(msg_id)) == 1
    assert cluster.processes["center0"].stop() == 0
    assert cluster.processes["receive"].stop() == 0
