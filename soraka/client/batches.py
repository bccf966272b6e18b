"""Messages in groups for `submitBatch`, and what its answers mean."""

from collections.abc import Callable, Iterable, Iterator
from typing import Any

from soraka.client.failures import error_of
from soraka.client.messages import Fields, Submitted
from soraka.errors import BodyTooLarge, InvalidParams, SorakaError

MAX_BYTES = 2 << 20
"""Of a group, about; receive takes twice that by default."""
OF_A_MESSAGE = 400
"""Bytes beside its params and URL, at most."""
SUCCESS = 200


class TooMany(Exception):
    """The server takes no group as large as this one."""


def groups(messages: Iterable[Fields], most: Callable[[], int]) -> Iterator[list[Fields]]:
    """Of at most so many messages as `most` says at the time, and MAX_BYTES unless of one."""
    group: list[Fields] = []
    size = 0
    for fields in messages:
        own = _size(fields)
        if group and (len(group) >= most() or size + own > MAX_BYTES):
            yield group
            group, size = [], 0
        group.append(fields)
        size += own
    if group:
        yield group


def submitted(result: Any) -> Submitted:
    """Of one item of the answer."""
    if result["ec"] == SUCCESS:
        return Submitted(result["msgId"])
    return Submitted("", error_of(result["ec"], result["em"]))


def is_too_many(error: SorakaError) -> bool:
    about_all = isinstance(error, InvalidParams) and error.field in ("messages", "submissions")
    return about_all or isinstance(error, BodyTooLarge)


def _size(fields: Fields) -> int:
    """In JSON, where each quotation mark of the params takes two."""
    callback = fields["callback"]
    return OF_A_MESSAGE + len(callback["url"]) + 2 * len(callback.get("params", "").encode())
