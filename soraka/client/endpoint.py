"""Where a server is, and how to speak to it."""

import ssl
from typing import NamedTuple


class Endpoint(NamedTuple):
    """`timeout_s` is for each wait on the network; `tls` is None where there is none."""

    host: str
    port: int
    token: str | None
    timeout_s: float
    tls: ssl.SSLContext | None
