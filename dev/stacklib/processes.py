"""Start, recognise and end a process that outlives the command that started it."""

import os
import signal
import subprocess
import time
from collections.abc import Sequence
from pathlib import Path

from . import StackError

POLL_SECONDS = 0.02
SPAWN_SECONDS = 0.001
KILL_SECONDS = 10.0


def spawn(argv: Sequence[str], log: Path) -> int:
    """Run `argv` in a session of its own, both outputs appended to `log`; return its pid."""
    with log.open("ab") as output:
        child = subprocess.Popen(
            argv,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
    # The kernel fills in the command line a moment after exec has let us go on.
    while child.poll() is None and not _arguments(child.pid):
        time.sleep(SPAWN_SECONDS)
    return child.pid


def is_ours(pid: int | None, mark: str) -> bool:
    """Tell whether `pid` runs a command line with the argument `mark`.

    A pid may belong to someone else by now, so it is never trusted alone. A zombie has an empty
    command line and counts as gone.
    """
    return pid is not None and os.fsencode(mark) in _arguments(pid)


def _arguments(pid: int) -> list[bytes]:
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0")[:-1]
    except OSError:
        return []


def send(pid: int | None, mark: str, number: signal.Signals) -> None:
    """Signal `pid` if it is ours; otherwise there is nothing left to signal."""
    if pid is not None and is_ours(pid, mark):
        try:
            os.kill(pid, number)
        except ProcessLookupError:
            return


def await_end(pid: int | None, mark: str, seconds: float) -> bool:
    """Wait until `pid` is gone; False when it is still there after `seconds`."""
    deadline = time.monotonic() + seconds
    while is_ours(pid, mark):
        if time.monotonic() > deadline:
            return False
        time.sleep(POLL_SECONDS)
    return True


def end(pid: int | None, mark: str, grace: float) -> bool:
    """Wait `grace` seconds for a signalled process, then kill it; True when no kill was needed."""
    if await_end(pid, mark, grace):
        return True
    send(pid, mark, signal.SIGKILL)
    if not await_end(pid, mark, KILL_SECONDS):
        raise StackError(f"process {pid} survives SIGKILL")
    return False
