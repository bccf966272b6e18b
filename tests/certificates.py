"""Certificates, made when they are needed."""

from datetime import datetime
from pathlib import Path

import trustme

from soraka.config import TlsConfig


class Authority:
    """A CA with files below `folder`."""

    def __init__(self, folder: Path) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self._folder = folder
        self._ca = trustme.CA()
        self.file = folder / "ca.pem"
        self._ca.cert_pem.write_to_path(self.file)

    def issue(
        self, name: str, *hosts: str, not_after: datetime | None = None, thrift: bool = True
    ) -> TlsConfig:
        """Settings with a certificate for `hosts`, 127.0.0.1 without any."""
        made = self._ca.issue_cert(*(hosts or ("127.0.0.1",)), not_after=not_after)
        certificate, key = self._folder / f"{name}.pem", self._folder / f"{name}.key"
        made.cert_chain_pems[0].write_to_path(certificate)
        made.private_key_pem.write_to_path(key)
        return TlsConfig(
            ca=str(self.file), certificate=str(certificate), key=str(key), thrift=thrift
        )
