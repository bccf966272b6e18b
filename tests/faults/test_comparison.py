"""3,000 pending messages and one process that dies, as in a test of the earlier Go system, which
delivered 155, 1,407 and none of them."""

from collections.abc import Callable, Iterator
from pathlib import Path

import gevent
import pytest

from tests.acceptance.deployments import Cluster
from tests.acceptance.sink import wait_until
from tests.faults.conftest import Shared, record, seed_of, start
from tests.faults.plan import Plan
from tests.faults.reach import pending_of
from tests.faults.run import Run
from tests.servers import FullStack

pytestmark = pytest.mark.timeout(180)
PENDING = 3000
MANY = 8000


def _waiting(number: int) -> Plan:
    """Due 7 to 10 s from now."""
    return Plan(
        number=number,
        via="http batch",
        method="POST",
        delay_ms=7000 + number % 3000,
        retry_ms=(1000, 1000),
        failures=0,
        wait_ms=0,
        cancel_ms=None,
        adds=(),
    )


@pytest.fixture
def run(
    cluster: Cluster, shared: Shared, tmp_path: Path, request: pytest.FixtureRequest
) -> Iterator[Run]:
    """Without a load of its own."""
    name = request.node.name.removeprefix("test_").replace("_", " ")
    made = Run(cluster, shared.topic, tmp_path, seed=seed_of(name), name=name, rate=0)
    yield made
    made.close()
    if made.verified:
        record(made)


def worker_restarted(cluster: Cluster) -> None:
    cluster.processes["worker0"].kill()
    gevent.sleep(1)
    start(cluster.processes["worker0"])


def center_restarted(cluster: Cluster) -> None:
    cluster.processes["center0"].kill()
    gevent.sleep(1)
    start(cluster.processes["center0"])


def worker_gone(cluster: Cluster) -> None:
    cluster.processes["worker0"].kill()


@pytest.mark.parametrize("break_it", [worker_restarted, center_restarted, worker_gone])
def test_all_are_delivered(run: Run, cluster: Cluster, break_it: Callable[[Cluster], None]) -> None:
    run.load.pile([_waiting(number) for number in range(PENDING)])
    with run.fault(break_it.__name__):
        break_it(cluster)
        run.flow(PENDING)
    report = run.verify(go_on_s=0)
    assert report.counts["ended succeeded"] == PENDING
    assert report.counts["call"] == PENDING


def test_a_center_killed_in_the_middle_of_a_recovery(
    run: Run, cluster: Cluster, full_stack: FullStack
) -> None:
    run.load.pile([_waiting(number) for number in range(MANY)])
    worker = cluster.processes["worker0"]
    owner = f"127.0.0.1:{worker.environ['SORAKA_WORKER_THRIFT_PORT']}"
    wait_until(lambda: pending_of(full_stack.redis, owner) > MANY / 3)
    with run.fault("worker0 killed"):
        worker.kill()
        before = pending_of(full_stack.redis, owner)
        wait_until(lambda: pending_of(full_stack.redis, owner) < before, 30)
        with run.fault("center0 killed"):
            cluster.processes["center0"].kill()
            left = pending_of(full_stack.redis, owner)
            run.flow(MANY)
    assert 0 < left < before, "not in the middle"
    report = run.verify(go_on_s=0)
    assert report.counts["ended succeeded"] == MANY
    assert report.counts["call"] == MANY
