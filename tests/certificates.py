"""Certificates, made when they are needed."""

from pathlib import Path

from dev.stacklib import secured
from soraka.config import TlsConfig


class Authority:
    """A CA with files below `folder`."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        secured.make_authority(folder)

    def issue(
        self, name: str, *hosts: str, days: int = secured.DAYS, thrift: bool = True
    ) -> TlsConfig:
        """Settings with a certificate for `hosts`, this one without any; expired with -1 days."""
        secured.issue(self._folder, name, hosts or secured.HERE, days)
        files = {"ca": "ca.pem", "certificate": f"{name}.pem", "key": f"{name}.key"}
        paths = {key: str(self._folder / file) for key, file in files.items()}
        return TlsConfig(**paths, thrift=thrift)
