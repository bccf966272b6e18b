"""Processes of soraka killed, stopped, added and drained while messages flow."""

import signal

import gevent
import pytest

from tests.acceptance.deployments import Cluster
from tests.faults import stuck_worker
from tests.faults.conftest import SETTINGS, start, wait_said
from tests.faults.plan import TTR_MS
from tests.faults.run import LEASE_MARGIN_MS, Run

pytestmark = pytest.mark.timeout(300)
SESSION_S = int(SETTINGS["SORAKA_REGISTRY_SESSION_TIMEOUT_MS"]) / 1000
LEASE_S = (TTR_MS + LEASE_MARGIN_MS) / 1000


def test_nothing_breaks(run: Run) -> None:
    run.flow(1000)
    report = run.verify()
    assert report.counts["duplicates"] == 0


def test_a_worker_killed_and_restarted(run: Run, cluster: Cluster) -> None:
    worker = cluster.processes["worker0"]
    for _ in range(2):
        with run.fault("worker0 killed", may_repeat=True) as fault:
            worker.kill()
            fault.struck()
            gevent.sleep(0.5)
            start(worker)
            run.flow()
    run.verify()


def test_one_of_two_workers_killed_for_good(run: Run, cluster: Cluster) -> None:
    with run.fault("worker0 killed", may_repeat=True) as fault:
        cluster.processes["worker0"].kill()
        fault.struck()
        run.flow(1000)
    run.verify()


def test_a_worker_stopped_beyond_session_and_lease(run: Run, cluster: Cluster) -> None:
    worker = cluster.processes["worker0"]
    run.flow()
    with run.fault("worker0 stopped", may_repeat=True) as fault:
        worker.send(signal.SIGSTOP)
        fault.struck()
        gevent.sleep(SESSION_S + 2 * LEASE_S + 1)
        worker.send(signal.SIGCONT)
        run.flow()
    run.verify()


@pytest.mark.parametrize("victim", ["center0", "receive"])
def test_killed_and_restarted(run: Run, cluster: Cluster, victim: str) -> None:
    process = cluster.processes[victim]
    for _ in range(2):
        with run.fault(f"{victim} killed"):
            process.kill()
            gevent.sleep(0.5)
            start(process)
            run.flow()
    run.verify()


def test_a_center_added_and_removed(run: Run, cluster: Cluster) -> None:
    with run.fault("center2 comes and goes"):
        center = cluster.add("center", "center2")
        center.start()
        wait_said(center, "partition.assigned")
        run.flow()
        assert center.stop() == 0
        run.flow()
    run.verify()


def test_a_center_stopped_and_continued(run: Run, cluster: Cluster) -> None:
    """Long enough to be put out of its consumer group: it goes on as a zombie."""
    centers = [cluster.processes[f"center{i}"] for i in range(2)]
    said = [len(center.output()) for center in centers]
    with run.fault("center0 stopped"):
        centers[0].send(signal.SIGSTOP)
        wait_said(centers[1], "partition.assigned", said[1])
        run.flow()
        centers[0].send(signal.SIGCONT)
        wait_said(centers[0], "partition.assigned", said[0])
        run.flow()
    run.verify()


def test_everything_killed_at_once(run: Run, cluster: Cluster) -> None:
    with run.fault("all killed", may_repeat=True) as fault:
        for process in cluster.processes.values():
            process.kill()
        fault.struck()
        for process in cluster.processes.values():
            process.start()
        cluster.wait_ready()
        run.flow()
    run.verify()


def test_a_stuck_timer_loses_its_overdue_messages(run: Run, cluster: Cluster) -> None:
    worker = cluster.add(
        "worker", "stuck", {stuck_worker.AFTER: "6"}, module="tests.faults.stuck_worker"
    )
    worker.start()
    wait_said(worker, "timer.stuck")
    with run.fault("a timer stuck"):
        run.flow(1000)
    said = [cluster.processes[f"center{i}"].output() for i in range(2)]
    assert any("owner.swept" in output for output in said)
    run.verify()


def test_sigterm_drains_a_worker(run: Run, cluster: Cluster) -> None:
    """No message is late by more than a second for it, none is called twice."""
    run.flow()
    with run.fault("worker0 drains"):
        assert cluster.processes["worker0"].stop() == 0
        run.flow(500)
    report = run.verify()
    assert max(report.lateness_in_fault) < 1000
    assert report.counts["duplicates"] == 0


@pytest.mark.parametrize("victim", ["center0", "receive"])
def test_sigterm_drains(run: Run, cluster: Cluster, victim: str) -> None:
    run.flow()
    with run.fault(f"{victim} drains"):
        assert cluster.processes[victim].stop() == 0
        start(cluster.processes[victim])
        run.flow()
    report = run.verify()
    assert report.counts["duplicates"] == 0


def test_messages_wait_while_no_worker_lives(run: Run, cluster: Cluster) -> None:
    workers = [cluster.processes[f"worker{i}"] for i in range(2)]
    with run.fault("no worker lives", may_repeat=True) as fault:
        for worker in workers:
            worker.kill()
        fault.struck()
        gevent.sleep(SESSION_S + 2)
        start(workers[1])
        run.flow(1000)
    run.verify()
