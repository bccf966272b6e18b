"""Runs the playbooks of ansible/ against hosts."""

import os
import re
import subprocess
import time
from dataclasses import dataclass
from pathlib import Path

from tests.deploy.hosts import Hosts

HOME = Path(__file__).resolve().parents[2]
ANSIBLE = HOME / "ansible"
ARTIFACTS = ANSIBLE / "artifacts"
BIN = HOME / ".venv-deploy" / "bin"
RECAP = re.compile(
    r"^(\S+)\s+: ok=\d+\s+changed=(\d+)\s+unreachable=(\d+)\s+failed=(\d+)", re.MULTILINE
)
TAIL = 6000
TIMEOUT_S = 1200.0


@dataclass(frozen=True, slots=True)
class Played:
    """`changed`: how many tasks have changed something, by host."""

    code: int
    output: str
    changed: dict[str, int]
    seconds: float


class Playbooks:
    """Those of this project, on the machine that ansible runs on."""

    def __init__(self, hosts: Hosts, inventory: Path) -> None:
        self._hosts = hosts
        self._inventory = inventory
        self._log = hosts.home.with_suffix(".log")

    def play(self, name: str, *options: str) -> Played:
        """Of a playbook that must succeed on all hosts. Fails with its last words."""
        played = self.attempt(name, *options)
        assert played.code == 0, f"{name}: exit {played.code}\n{played.output[-TAIL:]}"
        return played

    def attempt(self, name: str, *options: str) -> Played:
        """The same of one that may fail."""
        command = [str(BIN / "ansible-playbook"), "-i", str(self._inventory), name, *options]
        began = time.monotonic()
        done = subprocess.run(
            self._hosts.argv(*command),
            cwd=ANSIBLE,
            env={**os.environ, "ANSIBLE_NOCOLOR": "1", "ANSIBLE_CONFIG": f"{ANSIBLE}/ansible.cfg"},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=TIMEOUT_S,
            check=False,
        )
        with self._log.open("a") as log:
            log.write(f"$ {name} {' '.join(options)}\n{done.stdout}\n")
        changed = {host: int(count) for host, count, _, _ in RECAP.findall(done.stdout)}
        return Played(done.returncode, done.stdout, changed, time.monotonic() - began)


def build(label: str = "", only: str = "") -> str:
    """Makes the artifacts; the version of soraka among them. Needs the internet."""
    options = [*(["--label", label] if label else []), *(["--only", only] if only else [])]
    subprocess.run([ANSIBLE / "build-artifacts", *options], check=True, stdout=subprocess.DEVNULL)
    return (ARTIFACTS / "soraka.version").read_text().strip()
