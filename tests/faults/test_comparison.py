"""3,000 pending messages and one process that dies, as in a test of the earlier Go system, which
delivered 155, 1,407 and none of them."""

import signal
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing
from pathlib import Path

import gevent
import pytest

from tests.acceptance.deployments import Cluster, Process
from tests.acceptance.sink import wait_until
from tests.faults.conftest import Shared, record, seed_of, start
from tests.faults.plan import Plan
from tests.faults.reach import Pending
from tests.faults.run import Run
from tests.servers import FullStack

pytestmark = pytest.mark.timeout(180)
PENDING = 3000
MANY = 12_000


def _waiting(number: int, delay_ms: int = 7000) -> Plan:
    """Due so long from now and up to 3 s later."""
    return Plan(
        number=number,
        via="http batch",
        method="POST",
        delay_ms=delay_ms + number % 3000,
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


def address(worker: Process) -> str:
    return f"127.0.0.1:{worker.environ['SORAKA_WORKER_THRIFT_PORT']}"


@pytest.mark.parametrize("break_it", [worker_restarted, center_restarted, worker_gone])
def test_all_are_delivered(run: Run, cluster: Cluster, break_it: Callable[[Cluster], None]) -> None:
    run.load.pile([_waiting(number) for number in range(PENDING)])
    with run.fault(break_it.__name__):
        break_it(cluster)
        run.called(PENDING)
    report = run.verify(go_on_s=0)
    assert report.counts["ended succeeded"] == PENDING
    assert report.counts["call"] == PENDING


def test_a_center_killed_in_the_middle_of_a_recovery(
    run: Run, cluster: Cluster, full_stack: FullStack
) -> None:
    """Either center may be at it, so both are killed, and one comes back."""
    run.load.pile([_waiting(number, 14_000) for number in range(MANY)])
    worker = cluster.processes["worker0"]
    centers = [cluster.processes[f"center{i}"] for i in range(2)]
    with ExitStack() as opened:
        pending, others = (
            opened.enter_context(closing(Pending(full_stack.redis, owner)))
            for owner in map(address, (worker, cluster.processes["worker1"]))
        )
        wait_until(lambda: pending() + others() == MANY)
        with run.fault("worker0 killed, and the centers"):
            worker.kill()
            before = pending()
            while pending() == before:
                gevent.sleep(0.001)
            for center in centers:
                center.send(signal.SIGKILL)
            left = pending()
            for center in centers:
                center.kill()
            start(centers[1])
            run.called(MANY, timeout_s=90)
    assert 0 < left < before, "not in the middle"
    report = run.verify(go_on_s=0)
    assert report.counts["ended succeeded"] == MANY
    assert report.counts["call"] == MANY
