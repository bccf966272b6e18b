"""A deployment on hosts, as the fault tests' load sees it, and what can be asked of it."""

import json
import shlex
import subprocess
import uuid
from collections.abc import Mapping
from typing import Any

import requests

from soraka import tls
from soraka.config import TlsConfig
from tests.acceptance.sink import wait_until
from tests.deploy.host import Host
from tests.deploy.hosts import Hosts
from tests.deploy.inventory import Groups
from tests.faults.clients import Address

THRIFT_PORT = 30003
FIND_LEFT = """
find / -xdev \\( -name '*soraka*' -o -path '/opt/*' -o -path '/var/lib/kafka*' \
    -o -path '/var/lib/zookeeper*' \\) -not -path '/var/log/journal/*'
{ nft list ruleset; cat /etc/passwd /etc/nftables.conf; } 2>/dev/null | grep soraka
"""
UNITS = ("soraka-receive", "soraka-admin", "soraka-center", "soraka-worker@*")


class Journal:
    """What soraka's services on a host have logged; what is known of it, while it is off."""

    def __init__(self, host: Host) -> None:
        self._host = host
        self._known = ""

    def output(self) -> str:
        units = " ".join(f"-u '{unit}'" for unit in UNITS)
        done = self._host.ssh(f"journalctl --quiet --output=cat --no-pager {units}")
        if done.returncode == 0:
            self._known = done.stdout
        return self._known


class Site:
    """`groups` are those of the inventory; `is_secured` is its soraka_tls."""

    def __init__(self, hosts: Hosts, groups: Groups, *, is_secured: bool) -> None:
        self.hosts = hosts
        self.groups = groups
        self._is_secured = is_secured
        self._ca = hosts.home / "ca" / "ca.pem"
        self._journals: dict[str, Journal] = {}

    @property
    def receives(self) -> list[Address]:
        """Where nginx passes them on from."""
        port = 443 if self._is_secured else 80
        return [(self.hosts[name].address, port, THRIFT_PORT) for name in self.groups["nginx"]]

    @property
    def secured(self) -> tls.Context | None:
        """For clients of nginx."""
        if not self._is_secured:
            return None
        return tls.client(TlsConfig(ca=str(self._ca)), "tls.thrift")

    @property
    def processes(self) -> Mapping[str, Journal]:
        names = {n for role in ("receive", "admin", "center", "worker") for n in self.groups[role]}
        for name in names:
            self._journals.setdefault(name, Journal(self.hosts[name]))
        return self._journals

    def output(self) -> str:
        return "\n".join(f"== {n}\n{j.output()[-2000:]}" for n, j in self.processes.items())

    def soraka(self, *arguments: str) -> str:
        """Output of a soraka command that must succeed, given on a host that has center."""
        host = self.hosts[self.groups["center"][0]]
        done = host.ssh(f"soraka {' '.join(arguments)} --config /etc/soraka/center.toml")
        assert done.returncode == 0, done.stderr
        return done.stdout

    def new_topic(self) -> str:
        topic = f"topic-{uuid.uuid4().hex[:12]}"
        self.soraka("topic", "add", topic)
        return topic

    def submit(
        self, nginx: str, topic: str, url: str, delay_ms: int, key: str | None = None
    ) -> str:
        """Through the nginx of that host; the id. With an idempotency key it may be repeated."""
        scheme = "https" if self._is_secured else "http"
        answer = requests.post(
            f"{scheme}://{self.hosts[nginx].address}/sorakaq/msg/submit",
            json={
                "topic_name": topic,
                "delay_time": delay_ms,
                "idempotency_key": key,
                "callback": {"request_type": "POST", "url": url, "params": {"via": nginx}},
            },
            verify=str(self._ca),
            timeout=10,
        )
        body = answer.json()
        assert (answer.status_code, body["ec"]) == (200, 200), body
        return str(body["result"]["msgId"])

    def primary(self) -> str:
        """The host whose Redis is the primary."""
        roles = {n: self.hosts[n].ssh("soraka-redis-cli role").stdout for n in self.groups["redis"]}
        return next(name for name, role in roles.items() if role.startswith("master"))

    def count(self, event: str) -> int:
        """How often the services have logged it."""
        return sum(journal.output().count(f'"{event}"') for journal in self.processes.values())

    def units(self, name: str) -> dict[str, str]:
        """soraka's and its servers' services on a host, and whether each is active."""
        done = self.hosts[name].ssh(
            "systemctl list-units --all --plain --output=json --type=service "
            "'soraka-*' kafka.service zookeeper.service nginx.service"
        )
        return {unit["unit"]: unit["active"] for unit in json.loads(done.stdout or "[]")}

    def left(self, name: str) -> str:
        """What a host has of ours: units, files, users, rules of its firewall; '' for nothing."""
        units = self.units(name).keys() - {"nginx.service"}
        return "\n".join(sorted(units)) + self.hosts[name].ssh(FIND_LEFT).stdout

    def exposure(self, name: str) -> dict[str, str]:
        """What systemd-analyze says of the hardening of each unit of a host, as 'OK'."""
        said = {}
        for unit in self.units(name):
            text = self.hosts[name].ssh(f"systemd-analyze security --no-pager {unit}").stdout
            said[unit] = text.splitlines()[-1].split()[-2]
        return said

    def wait_up(self, name: str, timeout_s: float = 120.0) -> None:
        """Until all services of a host run."""
        wait_until(
            lambda: set(self.units(name).values()) == {"active"},
            timeout_s,
            lambda: f"{name} is up: {self.units(name)}",
        )


class Called:
    """A server on a host, in Python alone, that waits for one callback."""

    PORT = 8000
    SERVER = (
        "import http.server, json\n"
        "class One(http.server.BaseHTTPRequestHandler):\n"
        "    def do_POST(self):\n"
        "        body = self.rfile.read(int(self.headers['Content-Length']))\n"
        "        self.send_response(200); self.end_headers()\n"
        "        called = [dict(self.headers), json.loads(body), self.client_address[0]]\n"
        "        print(json.dumps(called), flush=True)\n"
        f"http.server.HTTPServer(('', {PORT}), One).handle_request()\n"
    )

    def __init__(self, host: Host, wait_s: int = 60) -> None:
        self.url = f"http://{host.address}:{self.PORT}/called"
        self._wait_s = wait_s
        self._process = subprocess.Popen(
            host.ssh_argv(f"timeout {wait_s} python3 -c {shlex.quote(self.SERVER)}"),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            text=True,
        )

    @property
    def waits(self) -> bool:
        return self._process.poll() is None

    def wait(self) -> tuple[dict[str, str], Any, str]:
        """Its headers, its body and who called."""
        output, _ = self._process.communicate(timeout=self._wait_s + 10)
        headers, body, caller = json.loads(output)
        return headers, body, caller
