"""Files that are replaced as a whole, and are durable on return."""

import fcntl
import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path


def replace(path: Path, data: bytes) -> None:
    """The file is readable by its owner alone, who stays the same when root writes it. Raises
    OSError, leaving it as it was."""
    descriptor, scratch = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    try:
        with os.fdopen(descriptor, "wb") as file:
            file.write(data)
            file.flush()
            _keep_owner(path, descriptor)
            os.fsync(descriptor)
        os.replace(scratch, path)
    except BaseException:
        with suppress(OSError):
            os.unlink(scratch)
        raise
    folder = os.open(path.parent, os.O_RDONLY)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)


def _keep_owner(path: Path, descriptor: int) -> None:
    if os.geteuid() == 0:
        with suppress(FileNotFoundError):
            before = path.stat()
            os.fchown(descriptor, before.st_uid, before.st_gid)


def stamp(path: Path) -> tuple[int, ...]:
    """Another one after each `replace`. Raises OSError."""
    found = os.stat(path)
    return found.st_mtime_ns, found.st_ino, found.st_size


@contextmanager
def alone(folder: Path) -> Iterator[None]:
    """Of all processes that ask for this, one at a time. Raises OSError."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        fcntl.flock(descriptor, fcntl.LOCK_UN)  # gevent's close comes later
        os.close(descriptor)
