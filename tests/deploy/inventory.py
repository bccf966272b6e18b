"""Which host has which roles, as an inventory for ansible."""

import json
import shlex
from collections.abc import Mapping, Sequence
from typing import Any

from tests.deploy import image

Groups = Mapping[str, Sequence[str]]
ROLES = ("zookeeper", "kafka", "redis", "nginx", "receive", "admin", "center", "worker")
DATA, FRONT = ("host1", "host2", "host3"), ("host4", "host5")
LAYOUTS: dict[str, Groups] = {
    "bare": {},
    "single": dict.fromkeys(ROLES, ("host1",)),
    "cluster": {
        **dict.fromkeys(("zookeeper", "kafka", "redis"), DATA),
        **dict.fromkeys(("nginx", "receive", "admin", "center"), FRONT),
        "worker": (*FRONT, "host6"),
    },
    "three": {
        **dict.fromkeys(("zookeeper", "kafka", "redis", "center", "worker"), DATA),
        **dict.fromkeys(("nginx", "receive", "admin"), DATA[:2]),
    },
}
VARIABLES = {"three": "cluster"}
"""Of which inventory of ansible/ a layout has its variables, when it is not that of its name."""


def text(
    addresses: Mapping[str, str], groups: Groups, ssh: Sequence[str], variables: Mapping[str, Any]
) -> str:
    """JSON, which is YAML too. The `variables` go before those of group_vars/all."""
    shared = {
        "ansible_user": image.USER,
        "ansible_python_interpreter": "/usr/bin/python3",
        "ansible_ssh_common_args": shlex.join(ssh),
    }
    hosts = {name: {"ansible_host": address} for name, address in addresses.items()}
    children = {name: {"hosts": {each: {} for each in members}} for name, members in groups.items()}
    whole = {
        "all": {"vars": shared, "hosts": hosts},
        "soraka_hosts": {"children": children, "vars": variables},
    }
    return json.dumps(whole, indent=2) + "\n"
