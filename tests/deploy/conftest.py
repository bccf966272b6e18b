"""What the scenarios share: hosts that are taken away however a test ends, and playbooks."""

import contextlib
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.deploy import inventory, play
from tests.deploy.hosts import Hosts
from tests.deploy.inventory import Groups
from tests.deploy.play import Playbooks
from tests.deploy.site import Site

BESIDE = "beside"
"""A host without a role, for what is not of the deployment."""
JAVA = ["-XX:+UseSerialGC", "-XX:TieredStopAtLevel=1"]
SMALL = {
    "kafka_heap": "256m",
    "kafka_java_options": JAVA,
    "zookeeper_heap": "96m",
    "zookeeper_java_options": JAVA,
}
"""For servers that share this machine: they start sooner, and need less."""


class Deployment:
    """What is deployed, and how."""

    def __init__(self, hosts: Hosts, layout: str, *, is_secured: bool, **variables: Any) -> None:
        kind = inventory.VARIABLES.get(layout, layout)
        folder = play.ANSIBLE / "inventories" / kind / "group_vars"
        (hosts.home / "group_vars").symlink_to(folder)
        self.hosts = hosts
        self.site = Site(hosts, inventory.LAYOUTS[layout], is_secured=is_secured)
        self._variables = variables
        self.playbooks = Playbooks(hosts, self._write())

    @property
    def names(self) -> list[str]:
        """Of the hosts that are in a group."""
        return sorted({name for members in self.site.groups.values() for name in members})

    def addresses(self, group: str) -> list[str]:
        return [self.hosts[name].address for name in self.site.groups[group]]

    def regroup(self, groups: Groups) -> None:
        self.site.groups = groups
        self._write()

    def set(self, **variables: Any) -> None:
        """In the inventory."""
        self._variables |= variables
        self._write()

    def _write(self) -> Path:
        return self.hosts.write_inventory(self.site.groups, **self._variables)


@pytest.fixture(scope="session")
def next_version() -> str:
    """Another version of the same. Asked for before the first host boots: it needs the internet."""
    return play.build("next")


@pytest.fixture(scope="session")
def version() -> str:
    """That of the artifacts, made from this work tree."""
    return play.build()


@pytest.fixture(scope="session")
def begin(
    version: str, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Callable[..., Deployment]]:
    """Boots the hosts of a layout and one beside them; this process reaches them from then on, and
    nothing else. `variables` are of the inventory."""
    if os.geteuid() != 0:
        pytest.fail("hosts that boot need root")
    with contextlib.ExitStack() as opened:

        def begin(layout: str, *, is_secured: bool, **variables: Any) -> Deployment:
            members = inventory.LAYOUTS[layout].values()
            hosts = Hosts.begin(tmp_path_factory.mktemp("hosts"))
            opened.callback(hosts.close)
            opened.enter_context(hosts.room.entered())
            hosts.add(*sorted({name for names in members for name in names}), BESIDE)
            variables["soraka_artifacts_dir"] = str(play.ARTIFACTS)
            variables["soraka_version"] = version
            return Deployment(hosts, layout, is_secured=is_secured, **variables)

        yield begin
