"""Certificates, made when they are needed."""

import subprocess
from pathlib import Path

from dev.stacklib import secured
from soraka.config import TlsConfig


class Authority:
    """A CA with files below `folder`."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        secured.make_authority(folder)

    def issue(self, name: str, *hosts: str, thrift: bool = True) -> TlsConfig:
        """Settings with a certificate for `hosts`, this one without any."""
        secured.issue(self._folder, name, hosts or secured.HERE)
        files = {"ca": "ca.pem", "certificate": f"{name}.pem", "key": f"{name}.key"}
        paths = {key: str(self._folder / file) for key, file in files.items()}
        return TlsConfig(**paths, thrift=thrift)

    def expire(self, name: str) -> None:
        """Its certificate has ended a day ago."""
        names = ["-subj", "/CN=soraka expired", "-addext", "subjectAltName=IP:127.0.0.1"]
        self._openssl("req", "-new", "-key", f"{name}.key", "-out", f"{name}.csr", *names)
        signed = ["-CA", "ca.pem", "-CAkey", "ca.key", "-copy_extensions", "copy", "-days", "-1"]
        self._openssl("x509", "-req", "-in", f"{name}.csr", "-out", f"{name}.pem", *signed)

    def _openssl(self, *arguments: str) -> None:
        command = ["openssl", *arguments]
        subprocess.run(command, cwd=self._folder, check=True, capture_output=True)
