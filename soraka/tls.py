"""Secured connections: contexts made of [tls], and what their errors mean in our settings.

Sockets are gevent's, whoever makes them: drivers get a context, and call its `wrap_socket`.
"""

import ssl
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from errno import EBADF
from pathlib import Path
from socket import SHUT_WR
from typing import Any, NamedTuple, cast

import gevent
from gevent.socket import socket
from gevent.ssl import SSLContext, SSLSocket

from soraka.address import at
from soraka.config import TlsConfig
from soraka.errors import ConfigError

_OF_ANOTHER_HOST = (62, 64)
_OUT_OF_TIME = (9, 10)
"""Codes of verification: the certificate is for another host name or address; not yet, or no
longer valid."""
_NOT_TLS = ("WRONG_VERSION_NUMBER", "HTTP_REQUEST", "RECORD_LAYER_FAILURE", "UNKNOWN_PROTOCOL")
_AGAIN = (ssl.SSLWantReadError, ssl.SSLWantWriteError)
DISCARD = 1 << 16
LINGER_S = 1.0
SHOWN = 3
ALERT = b"\x15\x03\x01\x00\x02\x02\x46"
"""Fatal: protocol version."""


class HandshakeTimeout(TimeoutError):
    """The peer did not go on with it; plain servers that wait for more do not."""


class Refusal(NamedTuple):
    """Why a connection could not begin, and whether that was told after the handshake only."""

    why: str
    shaken: bool


class Socket(SSLSocket):
    """Tells its context how its beginning went, when it is a client's."""

    context: "Context"
    _peer = ""
    _shaken = False
    _works = False

    def __init__(self, *args: Any, **settings: Any) -> None:
        try:
            super().__init__(*args, **settings)
        except OSError as exc:
            if exc.errno != EBADF:
                self.close()  # gevent leaves open what the peer has reset by now
            raise

    def do_handshake(self) -> None:  # type: ignore[override]  # gevent's has no argument
        with suppress(OSError):
            self._peer = at(*self.getpeername()[:2])
        with self._noted():
            try:
                super().do_handshake()
            except TimeoutError as exc:
                raise HandshakeTimeout(str(exc)) from exc
            except ConnectionError as exc:
                raise ssl.SSLEOFError(ssl.SSL_ERROR_EOF, str(exc)) from exc
        self._shaken = True
        was = self.context.refusals.get(self._peer)
        if was is not None and not was.shaken:
            del self.context.refusals[self._peer]

    def read(self, nbytes: int = 2014, buffer: Any = None) -> Any:
        # a peer that refuses our certificate may say so only where its first answer should be
        with self._noted():
            got = super().read(nbytes, buffer)
        if got and not self._works:
            self._works = True
            self.context.refusals.clear()
        return got

    def send(self, data: Any, flags: int = 0, **timeout: Any) -> int:
        sent = super().send(data, flags, **timeout)
        if not sent and data:
            # gevent's answer when nothing fits; drivers would ask again for ever, or give up
            raise ssl.SSLWantWriteError("nothing fits now")
        return sent

    @contextmanager
    def _noted(self) -> Iterator[None]:
        try:
            yield
        except _AGAIN:
            raise
        except OSError as exc:
            if not self.server_side:
                if self._peer and not self._works:
                    why = self.context.told(exc)
                    self.context.refusals[self._peer] = Refusal(why, self._shaken)
                self.close()  # drivers leave that to the garbage collector
            raise


class Context(SSLContext):
    """`switch` is the setting by which its connections are secured. `refusals`, by host:port, stay
    until a connection to there gets further, or the caller finds nobody there; one that works, to
    wherever, ends them all."""

    sslsocket_class = Socket
    switch = ""
    refusals: dict[str, Refusal]

    @property
    def refused(self) -> str:
        """The latest `refusals`, '' without any: for drivers that do not pass an error on."""
        latest = list(self.refusals.items())[-SHOWN:]
        return "; ".join(f"{peer}: {refusal.why}" for peer, refusal in latest)

    def told(self, exc: BaseException) -> str:
        """What went wrong, and which setting to look at."""
        if isinstance(exc, ssl.SSLCertVerificationError):
            return f"its certificate is refused: {exc.verify_message} ({_look_at(exc.verify_code)})"
        reason = (getattr(exc, "reason", None) or "") if isinstance(exc, ssl.SSLError) else ""
        if "ALERT" in reason:
            return f"it refuses our certificate, or TLS with us: {_plain(reason)} (tls.certificate)"
        if reason == "PEER_DID_NOT_RETURN_A_CERTIFICATE":
            return "it has no certificate"
        if reason in _NOT_TLS:
            return f"it does not speak TLS ({self.switch})"
        if isinstance(exc, ssl.SSLEOFError | HandshakeTimeout):
            return (
                f"it broke off the handshake; it may not speak TLS ({self.switch}), or not take "
                "our certificate (tls.certificate)"
            )
        return _plain(reason) or getattr(exc, "strerror", None) or str(exc)

    def why(self, exc: BaseException) -> str:
        """The same of what led to `exc`; '' when that was not about TLS."""
        cause: BaseException | None = exc
        while cause is not None:
            if isinstance(cause, ssl.SSLError | HandshakeTimeout):
                return self.told(cause)
            cause = cause.__cause__ or cause.__context__
        return ""


def _look_at(code: int) -> str:
    if code in _OF_ANOTHER_HOST:
        return "it must name the address that it is reached at"
    return "its time is not now" if code in _OUT_OF_TIME else "tls.ca"


def _plain(reason: str) -> str:
    return reason.lower().replace("_", " ")


def client(settings: TlsConfig, switch: str) -> Context:
    """For connections to others, who must be of the CA and have the name or address they are
    reached at. Raises ConfigError."""
    made = _context(ssl.PROTOCOL_TLS_CLIENT, settings, switch)
    if not settings.ca:
        made.load_default_certs()
    return made


def server(settings: TlsConfig, switch: str, *, mutual: bool) -> Context:
    """For connections of others; `mutual`: those need a certificate of the CA. Raises
    ConfigError."""
    made = _context(ssl.PROTOCOL_TLS_SERVER, settings, switch)
    made.verify_mode = ssl.CERT_REQUIRED if mutual else ssl.CERT_NONE
    return made


def between_roles(settings: TlsConfig) -> tuple[Context | None, Context | None]:
    """For the server and the clients of a role; None: not over TLS. Raises ConfigError."""
    if not settings.thrift:
        return None, None
    return server(settings, "tls.thrift", mutual=True), client(settings, "tls.thrift")


def connected(sock: socket, context: Context, host: str) -> Socket:
    """A connected socket, secured. Raises OSError; closes it when that, or anything, is raised."""
    made: Any = context.wrap_socket(sock, server_hostname=host, do_handshake_on_connect=False)
    try:
        made.do_handshake()
    except BaseException:
        made.close()
        raise
    return cast(Socket, made)


def check(settings: TlsConfig) -> None:
    """Raises ConfigError when files are named that cannot be used."""
    client(settings, "tls")


def refuse(sock: Socket, exc: ssl.SSLError) -> None:
    """After a handshake that failed: returns when the peer can have read why. Closed at once, with
    bytes of its that were not read, the connection would be reset, and what was sent last lost."""
    with suppress(OSError):
        if exc.reason in _NOT_TLS:
            socket.send(sock, ALERT)  # of which OpenSSL says nothing
        socket.shutdown(sock, SHUT_WR)
        gevent.with_timeout(LINGER_S, _read_away, sock, timeout_value=None)


def _read_away(sock: Socket) -> None:
    while socket.recv(sock, DISCARD):
        pass


def _context(protocol: int, settings: TlsConfig, switch: str) -> Context:
    made = Context(protocol)
    made.switch = switch
    made.refusals = {}
    made.minimum_version = ssl.TLSVersion.TLSv1_2
    made.options |= ssl.OP_NO_RENEGOTIATION | ssl.OP_NO_COMPRESSION
    for key in ("ca", "certificate", "key"):
        _check_readable(f"tls.{key}", getattr(settings, key))
    if settings.ca:
        _loaded(
            f"tls.ca = {settings.ca!r}: holds no certificate in PEM",
            lambda: made.load_verify_locations(settings.ca),
        )
    if settings.certificate:
        _loaded(
            f"tls.certificate = {settings.certificate!r}, tls.key = {settings.key!r}: must be a "
            "certificate in PEM, and its key without a passphrase",
            # asked for a passphrase, OpenSSL would wait for one at the terminal
            lambda: made.load_cert_chain(settings.certificate, settings.key, lambda: b""),
        )
    return made


def _check_readable(setting: str, path: str) -> None:
    try:
        if path:
            Path(path).open("rb").close()
    except OSError as exc:
        raise ConfigError(f"{setting} = {path!r}: cannot be read: {exc.strerror}") from exc


def _loaded(otherwise: str, load: Callable[[], object]) -> None:
    try:
        load()
    except ssl.SSLError as exc:
        raise ConfigError(f"{otherwise}: {_plain(exc.reason or '') or exc}") from exc
