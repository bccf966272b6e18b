"""Files that are replaced as a whole, and are durable on return."""

import os
import tempfile
from contextlib import suppress
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
