"""What the servers with TLS share: a CA of the stack, one certificate for all, one user."""

import ipaddress
import ssl
import subprocess
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path

from . import StackError

USER, PASSWORD = "soraka", "stack-secret"
DAYS = 3650
HERE = ("localhost", "127.0.0.1")
# OpenSSL's own file of settings differs from one system to another.
SETTINGS = """\
[req]
distinguished_name = name
prompt = no
[name]
[ca]
basicConstraints = critical, CA:TRUE
keyUsage = critical, keyCertSign, cRLSign
subjectKeyIdentifier = hash
[host]
basicConstraints = critical, CA:FALSE
keyUsage = critical, digitalSignature
extendedKeyUsage = serverAuth, clientAuth
authorityKeyIdentifier = keyid
"""


def make(tls: Path) -> None:
    """ca.pem, and host.pem with host.key for servers and clients on this machine, in the folder
    `tls`; host.keystore.pem has both for Java. Keeps those that are there."""
    keystore = tls / "host.keystore.pem"
    if keystore.exists():
        return
    make_authority(tls)
    issue(tls, "host")
    keystore.touch(mode=0o600)
    keystore.write_text((tls / "host.key").read_text() + (tls / "host.pem").read_text())


def make_authority(folder: Path) -> None:
    """ca.pem and ca.key."""
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    (folder / "openssl.cnf").write_text(SETTINGS)
    _make(folder, "ca", "ca")


def issue(folder: Path, name: str, hosts: Iterable[str] = HERE) -> None:
    """NAME.pem and NAME.key, of the authority in `folder`."""
    names = ",".join(f"{_kind(host)}:{host}" for host in hosts)
    signed = ("-CA", "ca.pem", "-CAkey", "ca.key", "-addext", f"subjectAltName={names}")
    _make(folder, name, "host", *signed)


def _kind(host: str) -> str:
    with suppress(ValueError):
        ipaddress.ip_address(host)
        return "IP"
    return "DNS"


def client(tls: Path) -> ssl.SSLContext:
    """For a connection to one of the servers."""
    context = ssl.create_default_context(cafile=tls / "ca.pem")
    context.load_cert_chain(tls / "host.pem", tls / "host.key")
    return context


def section(tls: Path) -> str:
    """For the configuration of the roles."""
    files = f'ca = "{tls}/ca.pem"\ncertificate = "{tls}/host.pem"\nkey = "{tls}/host.key"\n'
    return f"[tls]\n{files}thrift = true\n"


def _make(folder: Path, name: str, extensions: str, *options: str) -> None:
    key = ("-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes")
    files = ("-keyout", f"{name}.key", "-out", f"{name}.pem", "-days", str(DAYS))
    about = ("-config", "openssl.cnf", "-extensions", extensions, "-subj", f"/CN=soraka {name}")
    done = subprocess.run(
        ["openssl", "req", "-x509", *about, *key, *files, *options],
        cwd=folder,
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode != 0:
        raise StackError(f"no certificate could be made:\n{done.stderr}")
