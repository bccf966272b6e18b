"""Whom callbacks believe under TLS, and what they show of themselves, by host.

Certificates are verified always, and the name in them. The files are read at the start of the
process and no more.
"""

import ssl

from gevent import ssl as gevent_ssl

from soraka.destinations import by_host, holds_for
from soraka.errors import ConfigError


class Trust:
    """Both as in the settings, the narrowest pattern decides: PEM files of authorities, trusted in
    place of the system's, and of a certificate with its key. Raises ConfigError for a file of no
    use."""

    def __init__(self, ca_files: str = "", client_certificates: str = "") -> None:
        self._authorities = by_host(ca_files)
        self._certificates = by_host(client_certificates)
        self._contexts: dict[tuple[str, str], ssl.SSLContext] = {}
        for _, file in self._authorities:
            self._checked("ca_files", file, (file, ""))
        for _, file in self._certificates:
            self._checked("client_certificates", file, ("", file))

    def context(self, host: str) -> ssl.SSLContext:
        """For connections to `host`. Raises OSError, ssl.SSLError when a file is no more what it
        was."""
        return self._context((_first(self._authorities, host), _first(self._certificates, host)))

    def _context(self, files: tuple[str, str]) -> ssl.SSLContext:
        known = self._contexts.get(files)
        if known is None:
            authorities, certificate = files
            known = gevent_ssl.create_default_context(cafile=authorities or None)
            if certificate:
                # else an encrypted key is asked for at the terminal
                known.load_cert_chain(certificate, password="")
            self._contexts[files] = known
        return known

    def _checked(self, key: str, file: str, files: tuple[str, str]) -> None:
        try:
            self._context(files)
        except OSError as exc:  # ssl.SSLError too
            why = exc.reason if isinstance(exc, ssl.SSLError) else exc.strerror
            raise ConfigError(f"outbound.{key}: {file}: {why or exc}") from exc


def _first(files: list[tuple[str, str]], host: str) -> str:
    if not files:
        return ""
    return next((file for pattern, file in files if holds_for(pattern, host)), "")
