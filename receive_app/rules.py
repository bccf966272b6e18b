"""What a request must be. Pure, and the same for HTTP and Thrift.

Whatever refuses raises InvalidParams or a subclass, naming the field as the HTTP API does.
"""

import json
import math
import re
from collections.abc import Callable
from functools import lru_cache
from ipaddress import IPv6Address
from typing import Any

import msgspec

from soraka.commands import check_delay
from soraka.config import ReceiveConfig
from soraka.errors import DelayTooLong, InvalidParams
from soraka.limits import MAX_DELAY_MS
from soraka.message import ID_AHEAD_MS, Callback, Submission, id_time_ms
from soraka.strict_json import decode
from soraka.topics import check_name, check_retry

METHODS = ("GET", "POST")
WhyDenied = Callable[[str], str | None]
"""Of a host in a URL: why nothing may be called there, as far as can be told without looking it
up."""
VALUES_OF_A_MESSAGE = 200
"""In a batch, on average. A value in JSON takes up to 0.5 µs to read, two bytes of body, and
nothing else runs meanwhile."""

_URL = re.compile(r'https?://([!-"$-.0->@-~]*)(?:[/?#][!-~]*)?', re.IGNORECASE | re.ASCII)
"""With the authority: all that is printable, up to the first of / ? #."""
_AUTHORITY = re.compile(r"(?P<host>\[[0-9A-Fa-f:.]+\]|[A-Za-z0-9._-]+)(?::(?P<port>[0-9]{1,5}))?")
_KEY = re.compile(r"[\x20-\x7e]{1,128}")
_NOT_IN_URL = re.compile(r"[^\x21-\x7e]")


def check_submission(
    submission: Submission,
    limits: ReceiveConfig,
    now_ms: int,
    early_ms: int,
    why_denied: WhyDenied,
) -> None:
    check_name(submission.topic)
    check_due(submission, now_ms)
    if not 1 <= submission.ttr_ms <= limits.max_ttr_ms:
        raise InvalidParams("ttr", f"must be from 1 to {limits.max_ttr_ms} ms")
    check_callback(submission.callback, limits, why_denied)
    if submission.retry_ms is not None:
        check_retry(submission.retry_ms)
    if submission.msg_id is not None:
        check_new_id(submission.msg_id, now_ms, early_ms)
    if submission.idempotency_key is not None:
        check_key(submission.idempotency_key)


def check_due(submission: Submission, now_ms: int) -> None:
    """Exactly one of delay_time and deliver_at, not negative, at most 7 days from now."""
    delay, moment = submission.delay_ms, submission.deliver_at
    if delay is not None and moment is not None:
        raise InvalidParams("deliver_at", "give delay_time or deliver_at, not both")
    if delay is not None:
        check_delay("delay_time", delay, least=0)
    elif moment is None:
        raise InvalidParams("delay_time", "is missing; give delay_time or deliver_at")
    elif moment < 0:
        raise InvalidParams("deliver_at", "must be milliseconds since the epoch")
    elif moment > now_ms + MAX_DELAY_MS:
        raise DelayTooLong("deliver_at", "must be within 7 days from now")


def check_new_id(msg_id: str, now_ms: int, early_ms: int) -> None:
    """Its time must lie where the store takes commands for ids it does not know yet, or a cancel
    right after the submit would find nothing."""
    made_at = id_time_ms(msg_id)
    if made_at is None:
        raise InvalidParams("msg_id", "must be a UUIDv7 in its canonical form, lower case")
    if not now_ms - early_ms <= made_at <= now_ms + ID_AHEAD_MS:
        raise InvalidParams(
            "msg_id",
            f"its time must be at most {early_ms // 1000} s ago and {ID_AHEAD_MS // 1000} s ahead",
        )


def check_key(key: str) -> None:
    if not _KEY.fullmatch(key):
        raise InvalidParams("idempotency_key", "must be 1 to 128 printable characters of ASCII")


def check_batch_size(field: str, size: int, limits: ReceiveConfig) -> None:
    if not 1 <= size <= limits.max_batch:
        raise InvalidParams(field, f"must be 1 to {limits.max_batch} messages; these are {size}")


def max_values(limits: ReceiveConfig) -> int:
    """Values in one JSON body; the largest params that are allowed always fit."""
    return VALUES_OF_A_MESSAGE * limits.max_batch + limits.max_params_bytes


def check_callback(callback: Callback, limits: ReceiveConfig, why_denied: WhyDenied) -> None:
    if callback.method not in METHODS:
        raise InvalidParams("callback.request_type", "must be GET or POST")
    if why := why_denied(check_url(callback.url, limits.max_url_length)):
        raise InvalidParams("callback.url", why)


@lru_cache(maxsize=1024)
def check_url(url: str, max_length: int) -> str:
    """Its host. Of those who submit most have one URL, or few."""
    if len(url) > max_length:
        raise InvalidParams("callback.url", f"must be at most {max_length} characters")
    if match := _URL.fullmatch(url):
        return _host_of(match[1])
    if bad := _NOT_IN_URL.search(url):
        raise InvalidParams(
            "callback.url",
            f"the character at {bad.start()} is blank, a control or not ASCII; percent-encode it",
        )
    raise InvalidParams("callback.url", "must begin with http:// or https://")


def _host_of(authority: str) -> str:
    if "@" in authority:
        raise InvalidParams("callback.url", "must not hold a user name or password")
    match = _AUTHORITY.fullmatch(authority)
    if match is None or not _is_host(match["host"]):
        raise InvalidParams("callback.url", "must have a valid host, and a port only as a number")
    if match["port"] is not None and not 1 <= int(match["port"]) <= 65535:
        raise InvalidParams("callback.url", "the port must be from 1 to 65535")
    return match["host"]


def _is_host(host: str) -> bool:
    if host.startswith("["):
        try:
            IPv6Address(host[1:-1])
        except ValueError:
            return False
        return True
    # the resolver raises on empty and on longer labels
    labels = host.removesuffix(".").split(".")
    return len(host) <= 253 and all(1 <= len(label) <= 63 for label in labels)


def params_text(value: dict[str, Any] | str | None, method: str, max_bytes: int) -> str | None:
    """Params as they travel: the JSON text of an object, at most so many bytes. Those of a GET
    must fit in a query. Raises InvalidParams for others, field `callback.params`."""
    if value is None:
        return None
    text = value if isinstance(value, str) else _encoded(value)
    try:
        size = len(text) if text.isascii() else len(text.encode())
    except UnicodeEncodeError as exc:
        raise InvalidParams("callback.params", _HALF) from exc
    if size > max_bytes:
        raise InvalidParams("callback.params", f"must be at most {max_bytes} bytes as JSON")
    params = _decoded(value) if isinstance(value, str) else value
    if method == "GET":
        _check_query(params)
    return text


def _encoded(params: dict[str, Any]) -> str:
    try:
        text = _encode_fast(params).decode()
        # it has null for NaN, too
        return _encode(params) if "null" in text else text
    except UnicodeEncodeError as exc:
        raise InvalidParams("callback.params", _HALF) from exc
    except (ValueError, RecursionError) as exc:
        raise InvalidParams("callback.params", f"not JSON: {_short(exc)}") from exc


def _decoded(text: str) -> dict[str, Any]:
    try:
        params = decode(text)
    except (ValueError, RecursionError) as exc:
        raise InvalidParams("callback.params", f"not JSON: {_short(exc)}") from exc
    if not isinstance(params, dict):
        raise InvalidParams("callback.params", "must be a JSON object")
    return params


def _check_query(params: dict[str, Any]) -> None:
    for name, value in params.items():
        values = value if isinstance(value, list) else [value]
        if not _is_text(name) or not all(_is_scalar(v) for v in values):
            raise InvalidParams(
                "callback.params",
                "for GET each value must be a text, number, true, false or null, or a list of them",
            )


def _is_scalar(value: object) -> bool:
    if isinstance(value, str):
        return _is_text(value)
    if isinstance(value, float):
        return math.isfinite(value)  # 1e999 is JSON, and infinite
    return value is None or isinstance(value, int)


def _is_text(value: str) -> bool:
    try:
        value.encode()
    except UnicodeEncodeError:
        return False
    return True


def _short(exc: BaseException) -> str:
    return "nested too deeply" if isinstance(exc, RecursionError) else str(exc)[:100]


_HALF = "holds half of a surrogate pair"
_encode_fast = msgspec.json.Encoder().encode
_encode = json.JSONEncoder(ensure_ascii=False, allow_nan=False, separators=(",", ":")).encode
