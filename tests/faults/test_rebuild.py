"""A Redis that lost everything: soraka goes on, and what was pending is restored from the log."""

import time
from collections import Counter
from collections.abc import Iterator

import pytest
import redis as redis_py

from tests.acceptance.deployments import Cluster, now_ms
from tests.acceptance.sink import Sink, wait_until
from tests.faults.conftest import Shared
from tests.servers import FullStack

pytestmark = pytest.mark.timeout(180)
FAR_MS = 20_000


@pytest.fixture
def sink() -> Iterator[Sink]:
    made = Sink()
    yield made
    made.close()


def test_a_store_that_lost_everything_is_rebuilt(
    cluster: Cluster, shared: Shared, full_stack: FullStack, sink: Sink
) -> None:
    began = now_ms()
    called = [_submit(cluster, shared, sink, 0) for _ in range(20)]
    pending = [_submit(cluster, shared, sink, FAR_MS) for _ in range(60)]
    cancelled, postponed = pending[:20], pending[20:40]
    for msg_id in cancelled:
        _command(cluster, shared, "cancel", msg_id)
    for msg_id in postponed:
        _command(cluster, shared, "addTime", msg_id, add_time=5000)
    for msg_id in called:
        cluster.wait_state(msg_id, "succeeded")
    time.sleep(1.2)  # a commit of the group has passed

    said = {name: len(process.output()) for name, process in cluster.processes.items()}
    lost = now_ms()
    with redis_py.Redis.from_url(full_stack.redis.url) as client:
        client.flushdb()

    fresh = _submit(cluster, shared, sink, 0)
    sink.wait(fresh)  # what is new goes on by itself
    told = "".join(cluster.processes[f"center{i}"].output()[said[f"center{i}"] :] for i in (0, 1))
    assert "store.was_emptied" in told
    assert cluster.state(pending[-1]) == "absent"

    arguments = ("rebuild", f"--since={began}", f"--due-after={lost}")
    counted = cluster.soraka(*arguments, "--dry-run")
    assert counted.startswith("would restore 40 of ")
    assert cluster.state(pending[-1]) == "absent"
    assert cluster.soraka(*arguments).startswith("restored 40 of ")
    assert cluster.soraka(*arguments).startswith("restored 0 of ")

    wanted = Counter([*pending[20:], fresh])
    wait_until(lambda: _calls(sink, wanted) == wanted, 60, lambda: f"{_calls(sink, wanted)}")
    assert not any(sink.of(msg_id) for msg_id in cancelled)
    assert all(len(sink.of(msg_id)) == 1 for msg_id in called)
    for msg_id in postponed:
        assert sink.of(msg_id)[0].at >= began + FAR_MS + 5000


def _calls(sink: Sink, of: Counter[str]) -> Counter[str]:
    return Counter(call.msg_id for call in sink.calls if call.msg_id in of)


def _submit(cluster: Cluster, shared: Shared, sink: Sink, delay_ms: int) -> str:
    return cluster.submit(shared.topic, sink.url("/"), delay_time=delay_ms)


def _command(cluster: Cluster, shared: Shared, path: str, msg_id: str, **fields: int) -> None:
    body = {"topic_name": shared.topic, "msg_id": msg_id, **fields}
    status, _ = cluster.post(path, json=body)
    assert status == 200
