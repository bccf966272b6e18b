"""Where the hosts are: namespaces of their own for processes, mounts and network.

The room is its first process. When that ends, however it ends, the kernel ends every host in it
and takes away every mount, bridge and network namespace. Nothing in it can be reached from outside,
nor reaches out, and rooms beside each other may use the same addresses.
"""

import contextlib
import ctypes
import os
import signal
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

BRIDGE = "soraka"
NETWORK = "10.77.0."
CONTROL = f"{NETWORK}1"
"""The address of whoever enters the room: the machine that ansible runs on."""
FIRST = f"""
set -e
mount -t tmpfs -o mode=755 room /run
mkdir -p /run/netns /run/systemd/nspawn/propagate
ip link set lo up
ip link add {BRIDGE} type bridge
ip addr add {CONTROL}/24 dev {BRIDGE}
ip link set {BRIDGE} up
echo ready
read -r _
"""
"""Lives until its standard input has a line or ends."""
UNSHARED = ("unshare", "--mount", "--net", "--pid", "--mount-proc", "--fork", "--kill-child")
CLONE_NEWNET = 0x40000000
_libc = ctypes.CDLL(None, use_errno=True)


class Room:
    """`pid` is of its first process, as seen from outside; `keeper` who started that one."""

    def __init__(self, pid: int, keeper: subprocess.Popen[bytes] | None = None) -> None:
        self.pid = pid
        self._keeper = keeper

    def argv(self, *command: str) -> list[str]:
        """What runs `command` in all of its namespaces."""
        return ["nsenter", f"--target={self.pid}", "--mount", "--net", "--pid", "--", *command]

    def run(self, *command: str) -> str:
        """Output of a command that must succeed."""
        done = subprocess.run(
            self.argv(*command),
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            check=False,
        )
        if done.returncode != 0:
            raise RuntimeError(f"{' '.join(command)}: {done.stderr.strip()}")
        return done.stdout

    @contextlib.contextmanager
    def entered(self) -> Iterator[None]:
        """This thread, and what it starts, has the room's network for the length of the block."""
        with open("/proc/thread-self/ns/net") as ours, open(f"/proc/{self.pid}/ns/net") as its:
            _set_network(its.fileno())
            try:
                yield
            finally:
                _set_network(ours.fileno())

    def close(self) -> None:
        """Returns when all in it has ended. Safe to repeat."""
        with contextlib.suppress(ProcessLookupError):
            os.kill(self.pid, signal.SIGKILL)
        if self._keeper is not None:
            self._keeper.communicate()
        while _lives(self.pid):
            time.sleep(0.02)


def start(mark: str, *, lasting: bool) -> Room:
    """`mark` stands in its command line. It ends with this process, unless `lasting`."""
    reading, writing = os.pipe()
    process = subprocess.Popen(
        [*UNSHARED, "bash", "-c", FIRST, mark],
        stdin=reading if lasting else subprocess.PIPE,
        stdout=subprocess.PIPE,
        pass_fds=(writing,) if lasting else (),  # it keeps its own input open
        start_new_session=True,
    )
    os.close(reading)
    os.close(writing)
    assert process.stdout is not None
    if process.stdout.readline() != b"ready\n":
        raise RuntimeError(f"no room: exit {process.wait()}")
    children = Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text()
    return Room(int(children), process)


def _lives(pid: int) -> bool:
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except OSError:
        return False
    return state not in "ZX"


def _set_network(namespace: int) -> None:
    if _libc.setns(namespace, CLONE_NEWNET) != 0:
        raise OSError(ctypes.get_errno(), "setns")


def is_room(pid: int, mark: str) -> bool:
    """Whether `pid` is the first process of a room started with `mark`."""
    try:
        arguments = Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0")
    except OSError:
        return False
    return arguments[:2] == [b"bash", b"-c"] and os.fsencode(mark) in arguments
