"""Deployments for the acceptance tests: each test runs on all of them."""

import importlib
import itertools
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.acceptance.deployments import Cluster, Deployment, Standalone
from tests.acceptance.sink import Sink

IDL = Path(__file__).parents[2] / "idl" / "soraka.thrift"
_databases = itertools.count(1)


def cluster_addresses(request: pytest.FixtureRequest) -> dict[str, str]:
    """The real servers, with a Redis database that no other deployment uses."""
    redis: Any = request.getfixturevalue("redis_server")
    kafka: Any = request.getfixturevalue("kafka_server")
    zookeeper: Any = request.getfixturevalue("zookeeper_server")
    return {
        "redis": f"redis://{redis.host}:{redis.port}/{next(_databases) % 16}",
        "kafka": f"{kafka.host}:{kafka.port}",
        "zookeeper": f"{zookeeper.host}:{zookeeper.port}",
    }


@pytest.fixture(scope="module", params=["standalone", "cluster"])
def deployment(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Deployment]:
    """A running deployment, shared by the tests of a module."""
    folder = tmp_path_factory.mktemp(request.param)
    made = make_deployment(request, folder)
    try:
        made.start()
        yield made
    finally:
        made.close()


def make_deployment(request: pytest.FixtureRequest, folder: Path) -> Deployment:
    if request.param == "standalone":
        return Standalone(folder)
    return Cluster(folder, cluster_addresses(request))


@pytest.fixture(scope="module")
def generated(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    """What the official compiler makes of our IDL: the module of the client."""
    folder = tmp_path_factory.mktemp("gen")
    subprocess.run(["thrift", "--gen", "py", "-out", str(folder), str(IDL)], check=True)
    sys.path.insert(0, str(folder))
    try:
        yield importlib.import_module("soraka_client.Soraka")
    finally:
        sys.path.remove(str(folder))


@pytest.fixture
def sink() -> Iterator[Sink]:
    made = Sink()
    yield made
    made.close()


@pytest.fixture(scope="module")
def topic(deployment: Deployment) -> Iterator[str]:
    """A topic that center reads by now: on Kafka that takes a moment for a new one."""
    made = deployment.new_topic()
    sink = Sink()
    sink.wait(deployment.submit(made, sink.url("/first"), delay_time=0), timeout_s=60)
    yield made
    sink.close()
