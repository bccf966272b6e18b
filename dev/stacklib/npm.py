"""Packages of the npm registry, at a pinned version and with a pinned sha512."""

import base64
import hashlib
import shutil
import subprocess
import tarfile
import tempfile
from dataclasses import dataclass
from pathlib import Path

from . import MissingError, StackError
from .jars import SHARED


@dataclass(frozen=True)
class Package:
    """`integrity` as the registry tells it: "sha512-" and the digest of the archive in base64."""

    name: str
    version: str
    integrity: str


AXE = Package(
    "axe-core",
    "4.14.1",
    "sha512-FHfa+lmNjQZfJz1q8wKqIDwC6DExcHt/pkjNQb09a3NPjCKg2rhu5qb2S4r76ASyFNNtuFooJpZe37OgudVGtQ==",
)
"""Looks for faults of accessibility, in the browser tests alone."""

WEBHOOKS = (
    Package(
        "standardwebhooks",
        "1.1.1",
        "sha512-bCbX9ZEyFkWPsRz7Bl3NuQUJohmwGSev/yhr7vhaGPlc4AfIrspIRa6cPTBuI1ItmrTDJ4d/S2hCsfe4+vQGnQ==",
    ),
    Package(
        "@stablelib/base64",
        "1.0.1",
        "sha512-1bnPQqSxSuc3Ii6MhBysoWCg58j97aUjuCSZrGSmDxNqtytIi0k8utUenAwTZN4V5mXXYGsVUI9zeBqy+jBOSQ==",
    ),
    Package(
        "fast-sha256",
        "1.3.0",
        "sha512-n11RGP/lrWEFI/bWdygLxhI+pVeo1ZYIVwvvPkW7azl/rOy+F3HYRZ2K5zeE9mmkhQppyv9sQFx0JM9UabnpPQ==",
    ),
)
"""Verifies signed callbacks in tests, with what it needs."""


def axe() -> Path:
    """Return where its script belongs; there once `fetch_axe` has run."""
    return SHARED / f"{AXE.name}-{AXE.version}.min.js"


def fetch_axe() -> None:
    """Fetch it once; the file appears by a rename, therefore one that exists is complete."""
    if not axe().exists():
        SHARED.mkdir(exist_ok=True)
        with tempfile.TemporaryDirectory(dir=SHARED, prefix="fetch-") as scratch:
            script = unpack(AXE, Path(scratch)) / "axe.min.js"
            script.rename(axe())


def webhooks() -> Path:
    """Return the folder for NODE_PATH; there once `fetch_webhooks` has run."""
    return SHARED / f"{WEBHOOKS[0].name}-{WEBHOOKS[0].version}"


def fetch_webhooks() -> None:
    """As `fetch_axe`."""
    if not webhooks().exists():
        SHARED.mkdir(exist_ok=True)
        with tempfile.TemporaryDirectory(dir=SHARED, prefix="fetch-") as scratch:
            modules = Path(scratch) / "modules"
            for package in WEBHOOKS:
                module = modules / package.name
                module.parent.mkdir(parents=True, exist_ok=True)
                unpack(package, Path(scratch)).rename(module)
            modules.rename(webhooks())


def unpack(package: Package, folder: Path) -> Path:
    """Fetch `package` into `folder` and return where its files are.

    Raises StackError when the archive is not the pinned one.
    """
    npm = shutil.which("npm")
    if npm is None:
        raise MissingError("npm is not installed: run dev/stack install")
    command = [npm, "pack", "--silent", f"{package.name}@{package.version}"]
    done = subprocess.run(
        command,
        cwd=folder,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
    )
    if done.returncode != 0:
        raise MissingError(f"npm could not fetch {package.name}:\n{done.stdout}")
    archive = folder / done.stdout.strip().splitlines()[-1]
    digest = hashlib.sha512(archive.read_bytes()).digest()
    if f"sha512-{base64.b64encode(digest).decode()}" != package.integrity:
        raise StackError(f"{archive.name} is not the pinned one")
    with tarfile.open(archive) as files:
        # without a filter, which the Python of Debian 12 has not: it is the pinned one
        files.extractall(folder / package.name)  # noqa: S202
    return folder / package.name / "package"
