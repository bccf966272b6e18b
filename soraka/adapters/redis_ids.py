"""Ids of messages as Redis has them: 22 characters, not 36. Pure.

They are the 16 bytes of the UUID in base64 with an alphabet that is in the order of its bytes, so
they sort as the UUIDs do. Each is in a key and in two sorted sets, in 32 bytes of memory and not
48. A text that is no UUID in canonical form stays as it is, behind a "!": so those come before all
that are, and no span of UUIDs has one in it.
"""

import re
from binascii import a2b_base64, b2a_base64

from soraka.adapters.id_span import LAST, id_span
from soraka.errors import StoreUnavailable
from soraka.ports import Query

_USUAL = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/"
_SORTED = b"-0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZ_abcdefghijklmnopqrstuvwxyz"
_TO_SORTED = bytes.maketrans(_USUAL, _SORTED)
_TO_USUAL = bytes.maketrans(_SORTED, _USUAL)
_UUID = re.compile("[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}")
_LENGTH = 22
_DIGITS = 32
_OTHER = b"!"
_AFTER = b"\xff"
"""After every byte of an id."""


def short(msg_id: str) -> bytes:
    """
    >>> short("01890a5d-ac96-774b-bcce-b302099a8057")
    b'-NZ9MPaLMJiwnfB18MV-Ks'
    """
    if _UUID.fullmatch(msg_id):
        return _of_digits(msg_id.replace("-", ""))
    return _OTHER + msg_id.encode()


def full(short_id: bytes) -> str:
    """The id that it is `short` of. Raises StoreUnavailable for what another version wrote."""
    if short_id[:1] == _OTHER:
        return short_id[1:].decode()
    if len(short_id) != _LENGTH:
        raise StoreUnavailable(f"redis: an id of another LAYOUT: {short_id!r}")
    return _dashed(a2b_base64(short_id.translate(_TO_USUAL) + b"==").hex())


def short_span(query: Query, cursor: str) -> tuple[bytes, bytes]:
    """From the first on and before the second: where the ids of a query are, as `id_span`. By
    time, or by a beginning that may be that of a UUID, it finds no other texts."""
    span = id_span(query, "")
    if span.empty:
        return b"", b""
    low, high = _bound(span.low, "0"), _bound(span.high, "0")
    if span.high.endswith(LAST):
        high = _bound(span.high.removesuffix(LAST), "f") + _AFTER
    if span == ("", LAST):
        low = b""
    # not by id_span: an id that is no UUID has another place than as a text
    return low, min(high, short(cursor)) if cursor else high


def _bound(start: str, fill: str) -> bytes:
    """The least or the greatest id that begins like this."""
    filled = _dashed(start.replace("-", "")[:_DIGITS].ljust(_DIGITS, fill))
    return short(filled if filled.startswith(start) and _UUID.fullmatch(filled) else start)


def _of_digits(digits: str) -> bytes:
    return b2a_base64(bytes.fromhex(digits))[:_LENGTH].translate(_TO_SORTED)


def _dashed(digits: str) -> str:
    return f"{digits[:8]}-{digits[8:12]}-{digits[12:16]}-{digits[16:20]}-{digits[20:]}"
