"""What the servers with TLS share: a CA of the stack, one certificate for all, one user."""

import ssl
import subprocess
from pathlib import Path

from . import StackError

USER, PASSWORD = "soraka", "stack-secret"
DAYS = 3650
# OpenSSL's own file of settings differs from one system to another.
SETTINGS = """\
[req]
distinguished_name = name
prompt = no
[name]
CN = soraka development
[ca]
basicConstraints = critical, CA:TRUE
keyUsage = critical, keyCertSign, cRLSign
subjectKeyIdentifier = hash
[host]
basicConstraints = critical, CA:FALSE
keyUsage = critical, digitalSignature
extendedKeyUsage = serverAuth, clientAuth
subjectAltName = DNS:localhost, IP:127.0.0.1
authorityKeyIdentifier = keyid
"""


def make(tls: Path) -> None:
    """ca.pem, and host.pem with host.key for servers and clients on this machine, in the folder
    `tls`; host.keystore.pem has both for Java. Keeps those that are there."""
    keystore = tls / "host.keystore.pem"
    if keystore.exists():
        return
    tls.mkdir(mode=0o700, exist_ok=True)
    (tls / "openssl.cnf").write_text(SETTINGS)
    _issue(tls, "ca")
    _issue(tls, "host", "-CA", "ca.pem", "-CAkey", "ca.key")
    keystore.touch(mode=0o600)
    keystore.write_text((tls / "host.key").read_text() + (tls / "host.pem").read_text())


def client(tls: Path) -> ssl.SSLContext:
    """For a connection to one of the servers."""
    context = ssl.create_default_context(cafile=tls / "ca.pem")
    context.load_cert_chain(tls / "host.pem", tls / "host.key")
    return context


def section(tls: Path) -> str:
    """For the configuration of the roles."""
    files = f'ca = "{tls}/ca.pem"\ncertificate = "{tls}/host.pem"\nkey = "{tls}/host.key"\n'
    return f"[tls]\n{files}thrift = true\n"


def _issue(tls: Path, name: str, *signed_by: str) -> None:
    curve = ("-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes")
    files = ("-keyout", f"{name}.key", "-out", f"{name}.pem")
    command = ["openssl", "req", "-x509", "-config", "openssl.cnf", "-extensions", name, *curve]
    done = subprocess.run(
        [*command, *files, "-days", str(DAYS), *signed_by],
        cwd=tls,
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode != 0:
        raise StackError(f"no certificate could be made:\n{done.stderr}")
