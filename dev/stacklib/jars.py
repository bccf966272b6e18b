"""Kafka's and ZooKeeper's jars, fetched once through dev/pom.xml and shared by all stacks."""

import fcntl
import hashlib
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

from . import MissingError

DEV = Path(__file__).resolve().parents[1]
POM = DEV / "pom.xml"
SHARED = DEV.parent / ".stack-libs"


def folder() -> Path:
    """Return where the jars of the present pom belong: a pom with another content, another folder.

    So a running server keeps the jars it was started with when the pom changes.
    """
    return SHARED / hashlib.sha256(POM.read_bytes()).hexdigest()[:12]


def fetch() -> Path:
    """Return the folder of the jars, filled; several callers at once fetch only once.

    The folder appears by a rename, therefore one that exists is complete.
    """
    target = folder()
    if target.is_dir():
        return target
    SHARED.mkdir(exist_ok=True)
    with (SHARED / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not target.is_dir():
            _copy_dependencies(target)
    return target


def _copy_dependencies(target: Path) -> None:
    maven = shutil.which("mvn")
    if maven is None:
        raise MissingError("mvn is not installed: run dev/stack install")
    print("fetching the jars of dev/pom.xml ...", file=sys.stderr)
    with tempfile.TemporaryDirectory(dir=SHARED, prefix="fetch-") as scratch:
        jars = Path(scratch) / "jars"
        command = [maven, "-B", "-q", "-ntp", "-f", str(POM), "dependency:copy-dependencies"]
        done = subprocess.run(
            [*command, f"-DoutputDirectory={jars}"],
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            check=False,
        )
        if done.returncode != 0:
            raise MissingError(f"Maven could not fetch the jars of dev/pom.xml:\n{done.stdout}")
        jars.rename(target)
