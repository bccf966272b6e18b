"""One host: a Debian that boots, with a disk, an address and a key of its own."""

import os
import shlex
import shutil
import signal
import subprocess
import time
import uuid
from contextlib import suppress
from pathlib import Path

from tests.deploy import image
from tests.deploy.room import BRIDGE, CONTROL, NETWORK, Room

BOOT_S = 60.0
UNIFIED = Path("/sys/fs/cgroup/cgroup.controllers").exists()
TREES = [
    tree
    for tree in map(Path, ("/sys/fs/cgroup", "/sys/fs/cgroup/unified", "/sys/fs/cgroup/systemd"))
    if (tree / "cgroup.procs").exists()
]
"""In which a host has a cgroup of its own. In another they would share those of their services."""
INTERFACE = "eth0"
SSH = (
    "-oBatchMode=yes",
    "-oStrictHostKeyChecking=yes",
    "-oConnectTimeout=5",
    "-oServerAliveInterval=5",
    "-oServerAliveCountMax=3",
)


class Host:
    """`folder` is its own; `home` that of all, with the keys. `number` gives the address."""

    def __init__(self, room: Room, home: Path, name: str, number: int) -> None:
        self.name = name
        self.address = f"{NETWORK}{number}"
        self._room = room
        self._home = home
        self.folder = home / "hosts" / name
        self._root = self.folder / "root"
        self._disk = self.folder / "disk"
        self._cable = f"to-{name}"
        self._cgroups = [tree / f"soraka-{room.pid}" / name for tree in TREES]
        self._nspawn: subprocess.Popen[bytes] | None = None

    # ------------------------------------------------------------------ its life

    def create(self) -> None:
        """A disk with the base tree below it, and a place on the bridge."""
        for each in (self._root, self._disk, self.folder / "work"):
            each.mkdir(parents=True)
        layers = f"lowerdir={image.tree()},upperdir={self._disk},workdir={self.folder / 'work'}"
        # volatile: what a host syncs is in this machine's memory, which no power-off here loses
        options = f"{layers},volatile"
        self._room.run("mount", "-t", "overlay", "overlay", "-o", options, str(self._root))
        self._personalise()
        self._connect()

    def boot(self) -> None:
        """Begins to; `wait` for it."""
        self._room.run("ip", "link", "set", self._cable, "up")
        for cgroup in self._cgroups:
            cgroup.mkdir(parents=True, exist_ok=True)
        joined = "; ".join(f"echo 0 > {cgroup}/cgroup.procs" for cgroup in self._cgroups)
        nspawn = ["systemd-nspawn", "--quiet", "--boot", "--register=no", "--keep-unit"]
        options = [
            f"--directory={self._root}",
            f"--machine={self.name}",
            f"--network-namespace-path=/run/netns/{self.name}",
            f"--bind-ro={image.packages()}:{image.REPOSITORY}",
            "--capability=CAP_NET_ADMIN",
            "--link-journal=no",
            "--resolv-conf=off",
            "--timezone=off",
        ]
        environ = {} if UNIFIED else {"SYSTEMD_NSPAWN_UNIFIED_HIERARCHY": "0"}
        with (self.folder / "console.log").open("ab") as console:
            self._nspawn = subprocess.Popen(
                self._room.argv("sh", "-ec", f'{joined}; exec "$@"', "sh", *nspawn, *options),
                env={**os.environ, **environ},
                stdin=subprocess.DEVNULL,
                stdout=console,
                stderr=console,
                start_new_session=True,
            )

    def wait(self, timeout_s: float = BOOT_S) -> None:
        """Until it lets us in, and has started what it starts by itself."""
        deadline = time.monotonic() + timeout_s
        while (done := self.ssh("systemctl is-system-running --wait")).returncode == 255:
            if time.monotonic() > deadline:
                raise RuntimeError(f"{self.name} did not boot: {done.stderr}\n{self.console()}")
            time.sleep(0.2)

    def power_off(self) -> None:
        """At once, as when the plug is pulled: nobody hears from it any more."""
        self._room.run("ip", "link", "set", self._cable, "down")
        while pids := self._processes():
            for pid in pids:
                with suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
            time.sleep(0.02)
        if self._nspawn is not None:
            self._nspawn.wait()

    def destroy(self) -> None:
        """Takes away what it left on this machine, when its room is closed."""
        shutil.rmtree(self.folder)
        for cgroup in self._cgroups:
            for each, _, _ in os.walk(cgroup, topdown=False):
                Path(each).rmdir()
            with suppress(OSError):  # that of the room: others are in it still
                cgroup.parent.rmdir()

    # ------------------------------------------------------------------ what it can be asked

    def ssh_argv(self, command: str) -> list[str]:
        """What runs `command` on it, as root."""
        there = [f"{image.USER}@{self.address}", f"sudo -n sh -c {shlex.quote(command)}"]
        network = f"--net=/proc/{self._room.pid}/ns/net"
        return ["nsenter", network, "ssh", *ssh_options(self._home), *there]

    def ssh(self, command: str, timeout_s: float = 60.0) -> subprocess.CompletedProcess[str]:
        """As root; 255 when it could not be reached."""
        return subprocess.run(
            self.ssh_argv(command),
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=timeout_s,
            check=False,
        )

    def console(self) -> str:
        """The end of what it wrote while it booted."""
        return (self.folder / "console.log").read_text(errors="replace")[-3000:]

    @property
    def files(self) -> Path:
        """Its root folder, as far as this machine may look into it."""
        return Path(f"/proc/{self._room.pid}/root{self._root}")

    # ------------------------------------------------------------------ parts

    def _personalise(self) -> None:
        etc, ssh = self.files / "etc", self.files / f"home/{image.USER}/.ssh"
        (etc / "hostname").write_text(f"{self.name}\n")
        (etc / "hosts").write_text(f"127.0.0.1 localhost\n{self.address} {self.name}\n")
        (etc / "machine-id").write_text(f"{uuid.uuid4().hex}\n")
        key = etc / "ssh/ssh_host_ed25519_key"
        make_key(key)
        with (self._home / "known_hosts").open("a") as known:
            known.write(f"{self.address} {key.with_suffix('.pub').read_text()}")
        # as on a machine that has never asked for packages, however new the base tree is
        os.utime(self.files / "var/lib/apt/lists", (0, 0))
        ssh.mkdir(mode=0o700)
        shutil.copy(self._home / "key.pub", ssh / "authorized_keys")
        owner = ssh.parent.stat()
        for each in (ssh, ssh / "authorized_keys"):
            os.chown(each, owner.st_uid, owner.st_gid)

    def _connect(self) -> None:
        name, run = self.name, self._room.run
        run("ip", "netns", "add", name)
        run(*f"ip link add {self._cable} type veth peer name {INTERFACE} netns {name}".split())
        run("ip", "link", "set", self._cable, "master", BRIDGE)
        for each in (
            f"addr add {self.address}/24 dev {INTERFACE}",
            f"link set {INTERFACE} up",
            "link set lo up",
            f"route add default via {CONTROL}",
        ):
            run("ip", "-n", name, *each.split())

    def _processes(self) -> list[int]:
        files = (file for cgroup in self._cgroups for file in cgroup.rglob("cgroup.procs"))
        return [int(pid) for file in files for pid in file.read_text().split()]


def ssh_options(home: Path) -> list[str]:
    """For the hosts whose keys are in `home`."""
    return [*SSH, f"-oUserKnownHostsFile={home}/known_hosts", f"-oIdentityFile={home}/key"]


def make_key(file: Path) -> None:
    """A pair of ssh keys, `file` and `file`.pub."""
    command = ["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-C", "", "-f", str(file)]
    subprocess.run(command, check=True, stdin=subprocess.DEVNULL)
