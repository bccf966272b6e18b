"""What every host begins as: a Debian tree made once, and the packages that roles install.

Both are kept in .stack-libs/deploy, each in a folder named by what it is made of, so that one of
other contents gets another folder. A folder appears by a rename: one that exists is complete.
"""

import contextlib
import fcntl
import hashlib
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

CACHE = Path(__file__).resolve().parents[2] / ".stack-libs" / "deploy"
SUITE = "bookworm"
USER = "deploy"
"""Whom ansible logs in as; may become root without a password, as on a cloud's machines."""
REPOSITORY = "/srv/packages"
"""Where a host sees the packages."""
IN_IMAGE = (
    "ca-certificates",
    "dbus",
    "iproute2",
    "openssh-server",
    "procps",
    "python3",
    "python3-apt",
    "sudo",
    "systemd-sysv",
)
FOR_ROLES = (
    "libnginx-mod-stream",
    "logrotate",
    "nftables",
    "nginx",
    "openjdk-17-jre-headless",
    "openssl",
    "redis-server",
    "redis-tools",
)
SETUP = f"""
set -e
useradd --create-home --shell /bin/bash {USER}
echo '{USER} ALL=(ALL) NOPASSWD: ALL' > /etc/sudoers.d/{USER}
echo 'deb [trusted=yes] file:{REPOSITORY} ./' > /etc/apt/sources.list
echo 'UseDNS no' > /etc/ssh/sshd_config.d/deploy.conf
rm -f /etc/ssh/ssh_host_* /etc/hostname /etc/machine-id /etc/resolv.conf
touch /etc/machine-id
mkdir -p /var/log/journal {REPOSITORY}
rm -rf /var/cache/apt/* /var/lib/apt/lists/*
# their clock has nothing to do here, and they would hold dpkg's lock
systemctl mask --quiet apt-daily.timer apt-daily-upgrade.timer
"""


def tree() -> Path:
    """The base tree, made when it is not there yet (a minute or two)."""
    return _made("tree", (SUITE, IN_IMAGE, SETUP), _make_tree)


def packages() -> Path:
    """A Debian repository of what `FOR_ROLES` needs beyond the base tree."""
    base = tree()
    return _made("packages", (base.name, FOR_ROLES), lambda folder: _make_packages(base, folder))


def _made(kind: str, recipe: object, make: Callable[[Path], None]) -> Path:
    target = CACHE / f"{kind}-{hashlib.sha256(repr(recipe).encode()).hexdigest()[:12]}"
    with _locked():
        if not target.is_dir():
            print(f"making {target} ...", file=sys.stderr, flush=True)
            scratch = Path(tempfile.mkdtemp(dir=CACHE, prefix="making-"))
            try:
                made = scratch / "made"
                make(made)
                made.rename(target)
            finally:
                shutil.rmtree(scratch)
    return target


@contextlib.contextmanager
def _locked() -> Iterator[None]:
    CACHE.mkdir(parents=True, exist_ok=True)
    with (CACHE / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def _make_tree(folder: Path) -> None:
    """In a mount namespace of its own: what debootstrap mounts is gone when it ends."""
    included = f"--include={','.join(IN_IMAGE)}"
    _run("unshare", "--mount", "debootstrap", "--variant=minbase", included, SUITE, str(folder))
    shutil.copy(folder / "etc/apt/sources.list", folder / "etc/apt/sources.list.online")
    _run("chroot", str(folder), "sh", "-c", SETUP)


def _make_packages(base: Path, folder: Path) -> None:
    """Downloads what is not installed in `base`, and writes the index."""
    state = folder.parent / "apt"
    for each in (folder, state / "lists/partial", state / "archives/partial"):
        each.mkdir(parents=True)
    options = {
        "APT::Sandbox::User": "root",
        "Dir::Etc": f"{base}/etc/apt",
        "Dir::Etc::sourcelist": f"{base}/etc/apt/sources.list.online",
        "Dir::Etc::sourceparts": "-",
        "Dir::State": state,
        "Dir::State::status": f"{base}/var/lib/dpkg/status",
        "Dir::Cache": state,
    }
    apt = ["apt-get", "-q", "-y", *(f"-o{key}={value}" for key, value in options.items())]
    _run(*apt, "update")
    _run(*apt, "install", "--download-only", "--no-install-recommends", *FOR_ROLES)
    for package in sorted((state / "archives").glob("*.deb")):
        package.rename(folder / package.name)
    (folder / "Packages").write_text("\n".join(map(_entry, sorted(folder.glob("*.deb")))))


def _entry(package: Path) -> str:
    """Its paragraph of the index of a repository."""
    control = _run("dpkg-deb", "--field", str(package)).rstrip()
    digest = hashlib.sha256(package.read_bytes()).hexdigest()
    size = package.stat().st_size
    return f"{control}\nFilename: ./{package.name}\nSize: {size}\nSHA256: {digest}\n"


def _run(*command: str) -> str:
    """Its output. Raises RuntimeError with it when the command fails."""
    done = subprocess.run(
        command,
        env={**os.environ, "DEBIAN_FRONTEND": "noninteractive", "LC_ALL": "C.UTF-8"},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
    )
    if done.returncode != 0:
        raise RuntimeError(f"{' '.join(command)} failed:\n{done.stdout[-3000:]}")
    return done.stdout
