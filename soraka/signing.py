"""Signatures of callbacks after Standard Webhooks 1.0: secrets, and what is signed by them. Pure.

A secret is `whsec_` and 24 to 64 bytes in base64. Who has it can tell that a callback comes from
us, is whole and is not an old one sent again. No error repeats one.
"""

import base64
import binascii
import hmac
import secrets
from functools import lru_cache

BEGIN = "whsec_"
MAX_SECRETS = 2
"""Of a topic: one, and one more while those who are called go over to it."""
MIN_BYTES, MAX_BYTES = 24, 64
_NEW_BYTES = 32


def new_secret() -> str:
    return BEGIN + base64.b64encode(secrets.token_bytes(_NEW_BYTES)).decode()


def key_of(secret: str) -> bytes:
    """Raises ValueError that says what it must be."""
    text = secret.removeprefix(BEGIN)
    try:
        key = base64.b64decode(text, validate=True)
    except ValueError:
        key = b""
    # libraries differ on what else they take for base64
    canonical = base64.b64encode(key).decode() == text
    if not (secret.startswith(BEGIN) and canonical and MIN_BYTES <= len(key) <= MAX_BYTES):
        raise ValueError(f"must be {BEGIN} and {MIN_BYTES} to {MAX_BYTES} bytes in base64")
    return key


class Signer:
    """Signs with each of some secrets, so that who knows any of them can verify. Their keys are
    prepared once: a call costs a copy and the hashing."""

    def __init__(self, known: tuple[str, ...]) -> None:
        """Raises ValueError as `key_of`."""
        self._macs = [hmac.new(key_of(secret), digestmod="sha256") for secret in known]

    def headers(self, msg_id: str, now_ms: int, body: bytes) -> bytes:
        """Header lines. `msg_id` stays the same over all attempts, `now_ms` is this one's."""
        now_s = now_ms // 1000
        content = f"{msg_id}.{now_s}.".encode() + body
        signatures = " ".join(f"v1,{self._signature(mac, content)}" for mac in self._macs)
        lines = (
            f"webhook-id: {msg_id}\r\nwebhook-timestamp: {now_s}\r\n"
            f"webhook-signature: {signatures}\r\n"
        )
        return lines.encode("ascii")

    @staticmethod
    def _signature(prepared: hmac.HMAC, content: bytes) -> str:
        mac = prepared.copy()
        mac.update(content)
        return binascii.b2a_base64(mac.digest(), newline=False).decode()


@lru_cache(maxsize=1000)
def signer_of(known: tuple[str, ...]) -> Signer:
    """Made once for the secrets of a topic. Raises ValueError as `key_of`."""
    return Signer(known)
