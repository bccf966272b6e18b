"""Ids of messages as Redis has them: 22 characters, not 36. Pure.

They are the 16 bytes of the UUID in base64 with an alphabet that is in the order of its bytes, so
they sort as the UUIDs do. Each is in a key and in two sorted sets, in 32 bytes of memory and not
48. A text that is no UUID in canonical form stays as it is, behind a "=".
"""

import re
from binascii import a2b_base64, b2a_base64

from soraka.adapters.id_span import LAST, IdSpan

_USUAL = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/"
_SORTED = b"-0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZ_abcdefghijklmnopqrstuvwxyz"
_TO_SORTED = bytes.maketrans(_USUAL, _SORTED)
_TO_USUAL = bytes.maketrans(_SORTED, _USUAL)
_UUID = re.compile("[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}")
_LENGTH = 22
_DIGITS = 32
_OTHER = b"="
_AFTER = b"\x7f"
"""After every character of an id."""


def short(msg_id: str) -> bytes:
    """
    >>> short("01890a5d-ac96-774b-bcce-b302099a8057")
    b'-NZ9MPaLMJiwnfB18MV-Ks'
    """
    if _UUID.fullmatch(msg_id):
        return _of_digits(msg_id.replace("-", ""))
    return _OTHER + msg_id.encode()


def full(short_id: bytes) -> str:
    """The id that it is `short` of."""
    if short_id[:1] == _OTHER:
        return short_id[1:].decode()
    return _dashed(a2b_base64(short_id.translate(_TO_USUAL) + b"==").hex())


def short_span(span: IdSpan) -> tuple[bytes, bytes]:
    """From the first on and before the second: where the ids of a span are."""
    if span.high.endswith(LAST):
        return _bound(span.low, "0"), _bound(span.high[:-1], "f") + _AFTER
    return _bound(span.low, "0"), _bound(span.high, "0")


def _bound(start: str, fill: str) -> bytes:
    """The least or the greatest id that begins like this."""
    digits = start.replace("-", "")[:_DIGITS].ljust(_DIGITS, fill)
    return short(dashed if (dashed := _dashed(digits)).startswith(start) else start)


def _of_digits(digits: str) -> bytes:
    return b2a_base64(bytes.fromhex(digits))[:_LENGTH].translate(_TO_SORTED)


def _dashed(digits: str) -> str:
    return f"{digits[:8]}-{digits[8:12]}-{digits[12:16]}-{digits[16:20]}-{digits[20:]}"
