"""The system packages: the servers, a Java runtime, Maven, the Thrift compiler, a browser, and what
gives processes wrong clocks: a library, and a C compiler for one of our own."""

import contextlib
import os
import shutil
import subprocess
from collections.abc import Iterable, Iterator
from pathlib import Path

from . import MissingError, StackError, jars, npm

PACKAGES = {
    "redis-server": "redis-server",
    "redis-cli": "redis-tools",
    "nginx": "nginx-light",
    "thrift": "thrift-compiler",
    "java": "default-jre-headless",
    "mvn": "maven",
    "faketime": "faketime",
    "cc": "gcc libc6-dev",
    "chromium": "chromium",
    "chromedriver": "chromium-driver",
    "npm": "npm",
}
"""Program -> what brings it."""
# Debian asks this program before it starts the service of a package it has just installed.
POLICY = Path("/usr/sbin/policy-rc.d")


def find(program: str) -> str | None:
    """Return the path of `program`; nginx is in sbin, which not every PATH has."""
    path = os.pathsep.join([os.environ.get("PATH", os.defpath), "/usr/local/sbin", "/usr/sbin"])
    return shutil.which(program, path=path)


def require(programs: Iterable[str]) -> None:
    """Raise MissingError when one of `programs` is not installed."""
    missing = sorted({program for program in programs if find(program) is None})
    if missing:
        raise MissingError(f"not installed: {', '.join(missing)}; run dev/stack install")


def install() -> None:
    """Install the packages of the programs that are missing, then fetch the jars."""
    missing = [names for program, names in PACKAGES.items() if find(program) is None]
    packages = " ".join(missing).split()
    """Install the packages of the programs that are missing, then fetch the jars and axe."""
    packages = [package for program, package in PACKAGES.items() if find(program) is None]
    if packages:
        with _no_service_starts():
            _run("apt-get", "update", "-q")
            _run("apt-get", "install", "-q", "-y", "--no-install-recommends", *packages)
    jars.fetch()
    npm.fetch_axe()
    npm.fetch_webhooks()


def _run(*argv: str) -> None:
    prefix = [] if os.geteuid() == 0 else ["sudo", "-E"]
    environment = {**os.environ, "DEBIAN_FRONTEND": "noninteractive"}
    try:
        subprocess.run([*prefix, *argv], env=environment, check=True)
    except FileNotFoundError as error:
        raise MissingError(f"{error.filename} is needed to install packages") from error
    except subprocess.CalledProcessError as error:
        raise StackError(f"{' '.join(argv)} failed") from error


@contextlib.contextmanager
def _no_service_starts() -> Iterator[None]:
    """Keep Debian from starting the installed services: they would take the usual ports.

    Only where we may write the policy and there is none yet; elsewhere a service may come up, and
    `dev/stack up` then says which port is taken.
    """
    if POLICY.exists() or not os.access(POLICY.parent, os.W_OK):
        yield
        return
    POLICY.write_text("#!/bin/sh\nexit 101\n")
    POLICY.chmod(0o755)
    try:
        yield
    finally:
        POLICY.unlink(missing_ok=True)
