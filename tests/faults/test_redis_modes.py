"""A master of a Sentinel group or of a Redis Cluster killed while messages flow, and its replica
in its place: what was accepted is not lost, and only what was in flight is called again."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.acceptance.deployments import Cluster
from tests.acceptance.sink import wait_until
from tests.faults.conftest import SETTINGS, Shared, record, seed_of
from tests.faults.run import LEASE_MARGIN_MS, Run
from tests.redis_groups import MASTERS, ClusterGroup, RedisGroup, SentinelGroup
from tests.servers import FullStack

pytestmark = pytest.mark.timeout(180)
BEHIND_MS = 1000
"""By how much a replica may be: what it is sent it is sent after the answer."""
FAIL_OVER_S = 30.0


@pytest.fixture(scope="module", params=["redis_sentinel", "redis_cluster"])
def group(request: pytest.FixtureRequest) -> RedisGroup:
    found: RedisGroup = request.getfixturevalue(request.param)
    found.make_whole()
    found.flush()
    return found


@pytest.fixture(scope="module")
def grouped(
    group: RedisGroup, full_stack: FullStack, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Shared]:
    """As `shared`, with its store in the group."""
    addresses = {
        "redis": group.url,
        "kafka": full_stack.kafka.url,
        "zookeeper": full_stack.zookeeper.url,
    }
    settings = {**SETTINGS, **group.environ, "SORAKA_STORE_TIMEOUT_MS": "1000"}
    made = Shared(
        lambda: Cluster(
            tmp_path_factory.mktemp("grouped"), addresses, settings, workers=2, centers=2
        )
    )
    yield made
    made.close()


@pytest.fixture
def run(
    grouped: Shared, group: RedisGroup, tmp_path: Path, request: pytest.FixtureRequest
) -> Iterator[Run]:
    """Load on a deployment whose store is the group."""
    group.make_whole()
    name = request.node.name.removeprefix("test_").replace("_", " ")
    made = Run(grouped.take(), grouped.topic, tmp_path, seed=seed_of(name), name=name)
    try:
        made.flow(50)
        yield made
    finally:
        made.close()
        grouped.give_back(whole=made.verified)
    if made.verified:
        record(made)


def kill_and_wait(group: RedisGroup) -> None:
    """Returns when another server is the master in its place."""
    if isinstance(group, SentinelGroup):
        master = group.master()
        master.kill()
        wait_until(
            lambda: group.master() is not master and group.master().role() == "master", FAIL_OVER_S
        )
    else:
        group.doubled().kill()
        wait_until(lambda: len(group.masters()) == MASTERS, FAIL_OVER_S)


def vouchings(run: Run) -> int:
    return sum(
        process.output().count("store.vouched") for process in run.deployment.processes.values()
    )


def test_redis_master_killed(run: Run, group: RedisGroup) -> None:
    """Its replica takes over, twice."""
    meanwhile = [fail_over(run, group) for _ in range(2)]
    if isinstance(group, ClusterGroup):
        assert min(meanwhile) > 50, "messages of the other masters waited, too"
    run.verify()


def fail_over(run: Run, group: RedisGroup) -> int:
    """Returns how many callbacks came while there was no master."""
    run.flow()
    vouched = vouchings(run)
    with run.fault("redis master killed", lost_ms=BEHIND_MS) as fault:
        before = run.sink.calls
        kill_and_wait(group)
        meanwhile = run.sink.calls - before
        fault.struck(LEASE_MARGIN_MS)  # what was claimed may be called yet
        wait_until(lambda: vouchings(run) > vouched, FAIL_OVER_S)
        run.flow()
    group.make_whole()
    return meanwhile
