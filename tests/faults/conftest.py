"""A cluster shared by the fault tests, renewed when a test has left it broken, and a table of
figures at the end."""

import time
import zlib
from collections.abc import Callable, Generator, Iterator
from pathlib import Path

import pytest

from tests.acceptance.deployments import Cluster, Process
from tests.acceptance.sink import Sink, wait_until
from tests.faults import run as runs
from tests.faults.run import Run
from tests.servers import FullStack

SETTINGS = {
    "SORAKA_STORE_LEASE_MARGIN_MS": str(runs.LEASE_MARGIN_MS),
    "SORAKA_REGISTRY_SESSION_TIMEOUT_MS": "3000",
    "SORAKA_CENTER_ABSENT_MS": "1500",
    "SORAKA_CENTER_SWEEP_MS": "2000",
    "SORAKA_LOG_APPEND_TIMEOUT_MS": "2000",
    "SORAKA_LOG_MAX_INFLIGHT_BYTES": str(32 << 20),
}
PARTITIONS = 4
PROMPT_S = 0.5
ROLES = ("receive", "center0", "center1", "worker0", "worker1")
rows: list[str] = []


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    if rows:
        terminalreporter.section("under faults")
        terminalreporter.write_line(runs.HEAD)
        for row in rows:
            terminalreporter.write_line(row)


def record(run: Run) -> None:
    """Puts the figures of a verified run into the table."""
    rows.append(runs.row(run.name, run.checker.report, run.load.held_back))


def new_cluster(redis: str, kafka: str, zookeeper: str, folder: Path) -> Cluster:
    """Two centers, two workers and a receive, on the servers at these addresses."""
    addresses = {"redis": redis, "kafka": kafka, "zookeeper": zookeeper}
    return Cluster(folder, addresses, SETTINGS, workers=2, centers=2)


def wait_said(process: Process, what: str, since: int = 0, timeout_s: float = 40.0) -> None:
    """Until a line of its log has `what`, after the first `since` characters."""
    wait_until(
        lambda: what in process.output()[since:],
        timeout_s,
        lambda: f"{what}:\n{process.output()[since:][-3000:]}",
    )


def start(process: Process, timeout_s: float = 40.0) -> None:
    """Starts it, and waits until it has announced itself."""
    said = len(process.output())
    process.start()
    wait_said(process, "role.started", said, timeout_s)


def warm_topic(cluster: Cluster) -> str:
    """A topic that every center reads by now: on Kafka that takes a moment for a new one."""
    topic = cluster.new_topic()
    wait_prompt(cluster, topic)
    return topic


def wait_prompt(cluster: Cluster, topic: str, timeout_s: float = 90.0) -> None:
    """Until callbacks come at once, many in a row: no partition waits for a center."""
    sink = Sink()
    prompt = 0

    def probe() -> bool:
        nonlocal prompt
        begun = time.monotonic()
        sink.wait(cluster.submit(topic, sink.url("/probe"), delay_time=0), timeout_s=timeout_s)
        prompt = prompt + 1 if time.monotonic() - begun < PROMPT_S else 0
        return prompt > 4 * PARTITIONS  # ids fall on partitions by chance

    try:
        wait_until(probe, timeout_s, lambda: f"callbacks come at once\n{cluster.output()}")
    finally:
        sink.close()


class Shared:
    """Holds the cluster from test to test."""

    def __init__(self, make: Callable[[], Cluster]) -> None:
        self._make = make
        self._cluster: Cluster | None = None
        self.topic = ""

    def take(self) -> Cluster:
        """One that is whole."""
        if self._cluster is None:
            made = self._make()
            try:
                made.start()
                self.topic = warm_topic(made)
            except BaseException:
                made.close()
                raise
            self._cluster = made
        else:
            wait_prompt(self._cluster, self.topic)
        return self._cluster

    def give_back(self, *, whole: bool) -> None:
        """What a test has added is ended, what it has killed started; if all went well."""
        cluster = self._cluster
        if cluster is None:
            return
        if not whole:
            self.close()
            return
        for name in list(cluster.processes):
            if name not in ROLES:
                cluster.processes.pop(name).kill()
            elif not cluster.processes[name].is_running:
                start(cluster.processes[name])
        cluster.wait_ready()

    def close(self) -> None:
        if self._cluster is not None:
            self._cluster.close()
            self._cluster = None


@pytest.fixture(scope="session")
def shared(full_stack: FullStack, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Shared]:
    urls = (full_stack.redis.url, full_stack.kafka.url, full_stack.zookeeper.url)
    made = Shared(lambda: new_cluster(*urls, tmp_path_factory.mktemp("cluster")))
    yield made
    made.close()


@pytest.fixture
def cluster(shared: Shared, request: pytest.FixtureRequest) -> Iterator[Cluster]:
    """The shared one; all its processes live when the test begins."""
    yield shared.take()
    shared.give_back(whole=not request.node.stash.get(FAILED, False))


@pytest.fixture
def run(
    cluster: Cluster, shared: Shared, tmp_path: Path, request: pytest.FixtureRequest
) -> Iterator[Run]:
    """Load on the shared cluster. A test that ends well has verified it."""
    name = request.node.name.removeprefix("test_").replace("_", " ")
    made = Run(cluster, shared.topic, tmp_path, seed=seed_of(name), name=name)
    try:
        made.flow(50)
        yield made
    finally:
        made.close()
    if not request.node.stash.get(FAILED, False):
        assert made.verified, "the test has not looked at what happened"
        record(made)


def seed_of(name: str) -> int:
    """The same for each run of a test."""
    return zlib.crc32(name.encode())


FAILED = pytest.StashKey[bool]()


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(
    item: pytest.Item,
) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    report = yield
    if report.failed:
        item.stash[FAILED] = True
    return report
