"""From the URL of a server to a connection that fits it."""

import ssl
from typing import Any, Protocol
from urllib.parse import urlsplit

from soraka.client.endpoint import Endpoint
from soraka.client.messages import Fields
from soraka.client.over_http import HttpTransport

HTTP_PORT, THRIFT_PORT = 9088, 30003
_PORTS = {"http": HTTP_PORT, "https": 443, "thrift": THRIFT_PORT, "thrifts": THRIFT_PORT}


class Transport(Protocol):
    """Safe for use by threads and greenlets."""

    def call(self, operation: str, fields: Fields) -> Any:
        """The `result` of the HTTP API, also over Thrift. Raises SorakaError; Again when it is not
        known whether it took effect."""

    def close(self) -> None: ...


def connect(
    url: str, token: str | None, timeout_s: float, tls: ssl.SSLContext | None = None
) -> Transport:
    """Connects at the first use. Raises ValueError."""
    parts = urlsplit(url)
    if parts.scheme not in _PORTS or not parts.hostname:
        raise ValueError(f"url: {url!r} must be {'://, '.join(_PORTS)}:// with host and port")
    if parts.username is not None or parts.query or parts.fragment:
        raise ValueError("url: must have no user, query or fragment; a token is given beside it")
    port = parts.port or _PORTS[parts.scheme]
    context = tls or ssl.create_default_context() if parts.scheme.endswith("s") else None
    server = Endpoint(parts.hostname, port, token, timeout_s, context)
    if parts.scheme.startswith("http"):
        path = parts.path.rstrip("/")
        return HttpTransport(server, path)
    if parts.path.strip("/"):
        raise ValueError(f"url: {url!r}: Thrift has no paths")
    # parses the IDL, which those who speak HTTP do not need
    from soraka.client.over_thrift import ThriftTransport

    return ThriftTransport(server)
