"""How the answer to a callback is judged. Pure.

2xx succeeds, unless the body is a JSON object whose `result` is false. 410 stops the retries.
Everything else, redirects too, is tried again by the schedule of the message until that is
exhausted; 429 and 503 may ask for more time with Retry-After.
"""

import json
from dataclasses import dataclass
from email.utils import parsedate_to_datetime
from typing import NamedTuple

from soraka.ports import Ended

MAX_RETRY_AFTER_MS = 60 * 60 * 1000
"""The longest Retry-After honoured."""

GONE = 410
_MAY_ASK_FOR_TIME = frozenset({429, 503})


@dataclass(frozen=True, slots=True)
class Answer:
    """What a server answered. `body` may be cut at the limit; `retry_after` is as received."""

    status: int
    body: bytes = b""
    retry_after: str | None = None


@dataclass(frozen=True, slots=True)
class Failure:
    """No answer. `final`: another attempt cannot do better. `unanswered`: the host was asked, or
    looked for, and did not answer; it is not our own fault, nor is it what the host said."""

    reason: str
    final: bool = False
    unanswered: bool = False


class Ruling(NamedTuple):
    """How the attempt ended; the fields of an Outcome. `delay_ms` only for RETRY."""

    ended: Ended
    delay_ms: int = 0
    reason: str = ""


def judge(
    result: Answer | Failure, *, attempt: int, retry_ms: tuple[int, ...], now_ms: int
) -> Ruling:
    """`attempt` counts from 1; `retry_ms[attempt - 1]` is the delay after it, if it has one."""
    reason = _why_failed(result)
    if reason is None:
        return Ruling(Ended.SUCCEEDED)
    if _is_final(result):
        return Ruling(Ended.DEAD, reason=reason)
    if attempt > len(retry_ms):
        return Ruling(Ended.DEAD, reason=f"{reason} (attempt {attempt}, the last)")
    delay_ms = max(retry_ms[attempt - 1], _asked_ms(result, now_ms))
    return Ruling(Ended.RETRY, delay_ms, reason)


def _why_failed(result: Answer | Failure) -> str | None:
    if isinstance(result, Failure):
        return result.reason
    if not 200 <= result.status < 300:
        return f"HTTP {result.status}"
    if _refuses(result.body):
        return f"HTTP {result.status}, but result is false"
    return None


def _refuses(body: bytes) -> bool:
    """Whether the body is a JSON object whose `result` is false."""
    if b"false" not in body:  # a literal has no other spelling; most bodies are done with here
        return False
    try:
        value = json.loads(body)
    except (ValueError, RecursionError):
        return False
    return isinstance(value, dict) and value.get("result") is False


def _is_final(result: Answer | Failure) -> bool:
    return result.final if isinstance(result, Failure) else result.status == GONE


def _asked_ms(result: Answer | Failure, now_ms: int) -> int:
    """The delay the server asked for; 0 when it did not, or not in a form known."""
    if isinstance(result, Failure) or result.status not in _MAY_ASK_FOR_TIME:
        return 0
    text = (result.retry_after or "").strip()
    if text.isascii() and text.isdigit():
        # more digits than any honoured value has: no need to read them all
        asked_ms = int(text) * 1000 if len(text) < 10 else MAX_RETRY_AFTER_MS
    else:
        asked_ms = _date_ms(text, now_ms) - now_ms
    return min(max(asked_ms, 0), MAX_RETRY_AFTER_MS)


def _date_ms(text: str, default: int) -> int:
    try:
        return int(parsedate_to_datetime(text).timestamp() * 1000)
    except (ValueError, TypeError, OverflowError, IndexError):
        return default
