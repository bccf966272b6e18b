"""Redis servers that keep each other, as lazy session fixtures.

`redis_cluster` is a Redis Cluster of three masters and a replica of the first, `redis_sentinel` a
master and its replica with three sentinels. They live on free ports below pytest's temporary
directory, and end with this process, however that ends. Servers and sentinels have a password
each, so that whoever forgets one is found out.

A test may kill what it likes; the next one calls `make_whole` before it begins.
"""

import contextlib
import os
import random
import shutil
import signal
import socket
import subprocess
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, TypeVar

import pytest
import redis
from redis.backoff import NoBackoff
from redis.crc import key_slot
from redis.retry import Retry

from soraka import tls
from soraka.config import TlsConfig

PASSWORD, SENTINEL_PASSWORD = "p@ss/word", "watch:word"
PASSWORD_IN_URL = "p%40ss%2Fword"
MASTER_NAME = "soraka"
HOST = "127.0.0.1"
PROGRAMS = ("redis-server", "setpriv")
SLOTS = 16_384
MASTERS = 3
NODE_TIMEOUT_MS = 1500
DOWN_AFTER_MS = 1000
FAILOVER_TIMEOUT_MS = 3000
WAIT_S = 40.0
LOWEST, HIGHEST = 10_000, 32_000
"""Below the ports of outgoing connections, one of which could take that of a server which is
down."""
SERVER_CONF = f"""\
bind {HOST}
port {{port}}
dir "{{home}}"
save ""
appendonly yes
appendfsync everysec
maxmemory-policy noeviction
requirepass {PASSWORD}
masterauth {PASSWORD}
repl-diskless-sync-delay 0
repl-ping-replica-period 1
"""
# With full coverage, which is the default, one master away stops the others.
CLUSTER_CONF = f"""\
cluster-enabled yes
cluster-port {{bus}}
cluster-node-timeout {NODE_TIMEOUT_MS}
cluster-require-full-coverage no
cluster-replica-validity-factor 0
cluster-allow-replica-migration no
"""
# In the place of what SERVER_CONF and SENTINEL_CONF say; with a user for soraka.
TLS_CONF = """\
port 0
tls-port {port}
tls-cert-file "{files.certificate}"
tls-key-file "{files.key}"
tls-ca-cert-file "{files.ca}"
tls-replication yes
tls-cluster yes
"""
USER = "soraka"
USER_CONF = f"""\
user {USER} on >{PASSWORD} ~* resetchannels -@all +@read +@write +@scripting +@connection \
-@dangerous +time +info +role +cluster|slots
"""
WATCHER_CONF = f"""\
user {USER} on >{SENTINEL_PASSWORD} -@all +@connection +sentinel|get-master-addr-by-name
"""
# A sentinel writes what it learns into this file.
SENTINEL_CONF = f"""\
bind {HOST}
port {{port}}
dir "{{home}}"
requirepass {SENTINEL_PASSWORD}
sentinel monitor {MASTER_NAME} {HOST} {{watched}} 2
sentinel auth-pass {MASTER_NAME} {PASSWORD}
sentinel down-after-milliseconds {MASTER_NAME} {DOWN_AFTER_MS}
sentinel failover-timeout {MASTER_NAME} {FAILOVER_TIMEOUT_MS}
"""


class GroupServer:
    """One server or sentinel; keeps its port, data and configuration over its starts."""

    def __init__(
        self,
        home: Path,
        port: int,
        conf: str,
        *,
        password: str = PASSWORD,
        sentinel: bool = False,
        files: TlsConfig | None = None,
    ) -> None:
        home.mkdir(parents=True)
        if files is not None:
            users = WATCHER_CONF if sentinel else USER_CONF
            conf += TLS_CONF.format(port=port, files=files) + users
        self.port = port
        self.address = f"{HOST}:{port}"
        self.home = home
        self._conf = home / "redis.conf"
        self._conf.write_text(conf)
        self._mode = ["--sentinel"] if sentinel else []
        self._process: subprocess.Popen[bytes] | None = None
        self.client = redis.Redis(
            host=HOST,
            port=port,
            password=password,
            socket_timeout=2,
            decode_responses=True,
            protocol=2,
            retry=Retry(NoBackoff(), 0),
            **_ssl_options(files),
        )

    @property
    def is_running(self) -> bool:
        return self._process is not None and self._process.poll() is None

    def start(self, *options: str) -> None:
        """Returns when it answers; `options` go over what its file says."""
        if self.is_running:
            return
        # pdeathsig: a SIGKILL of pytest runs no finalizer.
        command = ["setpriv", "--pdeathsig", "KILL", "redis-server", str(self._conf)]
        with (self.home / "log").open("ab") as log:
            self._process = subprocess.Popen(
                [*command, *options, *self._mode], stdout=log, stderr=log, start_new_session=True
            )
        wait_until(self._answers, f"{self.address} up")

    def kill(self) -> None:
        """SIGKILL. Safe to repeat."""
        if self._process is not None:
            self._process.kill()
            self._process.wait()
            self._process = None

    @contextlib.contextmanager
    def stopped(self) -> Iterator[None]:
        """It takes connections, and does not answer."""
        assert self._process is not None
        self._process.send_signal(signal.SIGSTOP)
        try:
            yield
        finally:
            self._process.send_signal(signal.SIGCONT)

    def close(self) -> None:
        self.client.close()
        self.kill()

    def ask(self, *command: str | int) -> Any:
        return self.client.execute_command(*command)

    def role(self) -> str:
        """master, slave or sentinel; or '' when it does not answer."""
        try:
            return str(self.ask("ROLE")[0])
        except redis.RedisError:
            return ""

    def replicas(self) -> int:
        """Those that have all it wrote until just now."""
        found: Any = self.client.info("replication")
        rows = [v for k, v in found.items() if k.startswith("slave") and isinstance(v, dict)]
        return sum(row["state"] == "online" for row in rows)

    def written(self) -> int:
        """How far it is in what the master has written, in bytes."""
        found: Any = self.client.info("replication")
        return int(found["master_repl_offset"])

    def _answers(self) -> bool:
        assert self.is_running, (self.home / "log").read_text()[-2000:]
        try:
            return bool(self.ask("PING"))
        except redis.RedisError:
            return False


class SentinelGroup:
    """`settings` are those of RedisStore, `environ` those of a process."""

    mode = "sentinel"

    def __init__(self, directory: Path, files: TlsConfig | None = None) -> None:
        ports = free_ports(5)
        self.servers = [
            GroupServer(
                directory / f"server{i}",
                ports[i],
                SERVER_CONF.format(port=ports[i], home=directory / f"server{i}"),
                files=files,
            )
            for i in range(2)
        ]
        self.sentinels = [
            GroupServer(
                directory / f"sentinel{i}",
                ports[2 + i],
                SENTINEL_CONF.format(
                    port=ports[2 + i], home=directory / f"sentinel{i}", watched=ports[0]
                ),
                password=SENTINEL_PASSWORD,
                sentinel=True,
                files=files,
            )
            for i in range(3)
        ]
        self.url = _url(self.sentinels, files)
        self.settings: dict[str, Any] = {
            **_secured(files),
            **({"sentinel_user": USER} if files else {}),
            "url": self.url,
            "mode": self.mode,
            "sentinel_master": MASTER_NAME,
            "sentinel_password": SENTINEL_PASSWORD,
        }
        self.environ = {
            "SORAKA_STORE_URL": self.url,
            "SORAKA_STORE_REDIS_MODE": self.mode,
            "SORAKA_STORE_SENTINEL_MASTER": MASTER_NAME,
            "SORAKA_STORE_SENTINEL_PASSWORD": SENTINEL_PASSWORD,
        }

    def start(self) -> None:
        self.servers[0].start()
        self.servers[1].start("--replicaof", f"{HOST} {self.servers[0].port}")
        wait_until(lambda: self.servers[0].replicas() == 1, "a replica")
        for sentinel in self.sentinels:
            sentinel.start()
        self.make_whole()

    def close(self) -> None:
        for server in (*self.sentinels, *self.servers):
            server.close()

    def master(self) -> GroupServer:
        """Whom the most sentinels call so."""
        named = [self._named(sentinel) for sentinel in self.sentinels if sentinel.is_running]
        port = max(named, key=named.count)
        return next(server for server in self.servers if server.port == port)

    def replica(self) -> GroupServer:
        master = self.master()
        return next(server for server in self.servers if server is not master)

    def make_whole(self) -> None:
        """A master with a replica that is up to date, and sentinels that agree on both."""
        for sentinel in self.sentinels:
            sentinel.start()
        wait_until(lambda: self.master().is_running or not self._any_runs(), "a master")
        master = self.master()
        master.start()
        for server in self.servers:
            if server is not master:
                if server.role() == "master":
                    server.kill()  # it would be told by the sentinels, but not soon
                server.start("--replicaof", f"{HOST} {master.port}")
        wait_until(self._is_whole, "a whole sentinel group")

    def wait_copied(self) -> None:
        """Until the replica has what the master has by now."""
        written, replica = self.master().written(), self.replica()
        wait_until(lambda: replica.written() >= written, "a replica that is up to date")

    def flush(self) -> None:
        self.master().ask("FLUSHALL")

    def _any_runs(self) -> bool:
        return any(server.is_running for server in self.servers)

    def _named(self, sentinel: GroupServer) -> int:
        return int(sentinel.ask("SENTINEL", "GET-MASTER-ADDR-BY-NAME", MASTER_NAME)[1])

    def _is_whole(self) -> bool:
        master = self.master()
        if master.role() != "master" or master.replicas() != 1:
            return False
        return all(self._is_content(sentinel, master) for sentinel in self.sentinels)

    def _is_content(self, sentinel: GroupServer, master: GroupServer) -> bool:
        """It could begin a fail-over now."""
        seen = _pairs(sentinel.ask("SENTINEL", "MASTER", MASTER_NAME))
        replicas = map(_pairs, sentinel.ask("SENTINEL", "REPLICAS", MASTER_NAME))
        good = [r for r in replicas if r["master-link-status"] == "ok" and r["flags"] == "slave"]
        return (
            int(seen["port"]) == master.port
            and seen["flags"] == "master"
            and int(seen["num-other-sentinels"]) == len(self.sentinels) - 1
            and len(good) == 1
        )


class ClusterGroup:
    """`settings` are those of RedisStore, `environ` those of a process."""

    mode = "cluster"

    def __init__(self, directory: Path, files: TlsConfig | None = None) -> None:
        ports = free_ports(2 * (MASTERS + 1))
        self.servers = [
            GroupServer(
                directory / f"server{i}",
                ports[2 * i],
                (SERVER_CONF + CLUSTER_CONF).format(
                    port=ports[2 * i], bus=ports[2 * i + 1], home=directory / f"server{i}"
                ),
                files=files,
            )
            for i in range(MASTERS + 1)
        ]
        self._buses = {s.port: ports[2 * i + 1] for i, s in enumerate(self.servers)}
        self.url = _url(self.servers[1:], files)
        self.settings: dict[str, Any] = {"url": self.url, "mode": self.mode, **_secured(files)}
        self.environ = {"SORAKA_STORE_URL": self.url, "SORAKA_STORE_REDIS_MODE": self.mode}

    def start(self) -> None:
        for server in self.servers:
            server.start()
        first = self.servers[0]
        share = SLOTS // MASTERS
        for i, server in enumerate(self.servers[:MASTERS]):
            last = SLOTS if i == MASTERS - 1 else (i + 1) * share
            server.ask("CLUSTER", "ADDSLOTSRANGE", i * share, last - 1)
            server.ask("CLUSTER", "SET-CONFIG-EPOCH", i + 1)
        for server in self.servers[1:]:
            first.ask("CLUSTER", "MEET", HOST, server.port, self._buses[server.port])
        wait_until(lambda: all(map(self._knows_all, self.servers)), "a cluster that knows itself")
        self.servers[-1].ask("CLUSTER", "REPLICATE", self.id_of(first))
        self.make_whole()

    def close(self) -> None:
        for server in self.servers:
            server.close()

    def id_of(self, server: GroupServer) -> str:
        return str(server.ask("CLUSTER", "MYID"))

    def holder(self, shard: int) -> GroupServer:
        """The master of a shard, as those who answer see it."""
        witness = next(s for s in self.servers if s.is_running)
        slot = key_slot(str(shard).encode())
        for first, last, master, *_ in witness.ask("CLUSTER", "SLOTS"):
            if first <= slot <= last:
                return next(s for s in self.servers if s.port == master[1])
        raise AssertionError(f"nobody has shard {shard}")

    def masters(self) -> list[GroupServer]:
        return [s for s in self.servers if s.is_running and s.role() == "master"]

    def doubled(self) -> GroupServer:
        """The master that has the replica."""
        return next(server for server in self.masters() if server.replicas())

    def replica(self) -> GroupServer:
        return next(server for server in self.servers if server.role() == "slave")

    def make_whole(self) -> None:
        """All live and agree, and a master has a replica that is up to date."""
        for server in self.servers:
            server.start()
        wait_until(self._is_whole, "a whole cluster")

    def wait_copied(self) -> None:
        """Until the replica has what its master has by now."""
        written, replica = self.doubled().written(), self.replica()
        wait_until(lambda: replica.written() >= written, "a replica that is up to date")

    def flush(self) -> None:
        for master in self.masters():
            master.ask("FLUSHALL")

    def move(self, slot: int, source: GroupServer, target: GroupServer) -> None:
        """Key by key, as `redis-cli --cluster reshard` does."""
        target.ask("CLUSTER", "SETSLOT", slot, "IMPORTING", self.id_of(source))
        source.ask("CLUSTER", "SETSLOT", slot, "MIGRATING", self.id_of(target))
        while keys := source.ask("CLUSTER", "GETKEYSINSLOT", slot, 10):
            source.ask(
                *("MIGRATE", HOST, target.port, "", 0, 5000, "AUTH", PASSWORD, "KEYS", *keys)
            )
        for server in (target, source, *self.masters()):
            server.ask("CLUSTER", "SETSLOT", slot, "NODE", self.id_of(target))

    def _knows_all(self, server: GroupServer) -> bool:
        said = server.ask("CLUSTER", "INFO")
        return "cluster_state:ok" in said and f"cluster_known_nodes:{MASTERS + 1}\r" in said

    def _is_whole(self) -> bool:
        masters = self.masters()
        return (
            all(map(self._knows_all, self.servers))
            and len(masters) == MASTERS
            and sum(master.replicas() for master in masters) == 1
            and len({self._view(server) for server in self.servers}) == 1
        )

    def _view(self, server: GroupServer) -> str:
        """Who has which slots."""
        slots = [(first, last, row[0][1]) for first, last, *row in server.ask("CLUSTER", "SLOTS")]
        failed = "fail" in str(server.ask("CLUSTER", "NODES"))
        return f"{sorted(slots)} {failed}"


RedisGroup = SentinelGroup | ClusterGroup
G = TypeVar("G", SentinelGroup, ClusterGroup)


@pytest.fixture(scope="session")
def redis_sentinel(tmp_path_factory: pytest.TempPathFactory) -> Iterator[SentinelGroup]:
    with started(SentinelGroup, tmp_path_factory.mktemp("sentinel")) as group:
        yield group


@pytest.fixture(scope="session")
def redis_cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ClusterGroup]:
    with started(ClusterGroup, tmp_path_factory.mktemp("redis-cluster")) as group:
        yield group


@contextlib.contextmanager
def started(kind: Callable[[Path], G], home: Path) -> Iterator[G]:
    missing = [program for program in PROGRAMS if shutil.which(program) is None]
    if missing and not os.environ.get("CI"):
        pytest.skip(f"not installed: {', '.join(missing)}")
    assert not missing, missing
    group = kind(home)
    with contextlib.closing(group):
        group.start()
        yield group


def wait_until(condition: Callable[[], object], what: str, seconds: float = WAIT_S) -> None:
    deadline = time.monotonic() + seconds
    while not _holds(condition):
        assert time.monotonic() < deadline, f"waited in vain for {what}"
        time.sleep(0.05)


def free_ports(count: int) -> list[int]:
    found: set[int] = set()
    while len(found) < count:
        port = random.randint(LOWEST, HIGHEST)
        with socket.socket() as probe, contextlib.suppress(OSError):
            probe.bind((HOST, port))
            found.add(port)
    return list(found)


def _holds(condition: Callable[[], object]) -> bool:
    try:
        return bool(condition())
    except redis.RedisError:
        return False


def _pairs(reply: Sequence[str]) -> dict[str, str]:
    return dict(zip(reply[::2], reply[1::2], strict=True))


def _url(servers: Sequence[GroupServer], files: TlsConfig | None) -> str:
    begin = f"rediss://{USER}" if files else "redis://"
    return f"{begin}:{PASSWORD_IN_URL}@{','.join(s.address for s in servers)}/0"


def _secured(files: TlsConfig | None) -> dict[str, Any]:
    return {"secured": tls.client(files, "store.url")} if files else {}


def _ssl_options(files: TlsConfig | None) -> dict[str, Any]:
    if files is None:
        return {}
    return {
        "ssl": True,
        "ssl_ca_certs": files.ca,
        "ssl_certfile": files.certificate,
        "ssl_keyfile": files.key,
    }
