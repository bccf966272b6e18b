"""JSON as the standard has it: each key once, no NaN."""

import json
from collections import Counter
from typing import Any


class GivenTwice(ValueError):
    """A key comes twice in one object: it means different things to different readers."""

    def __init__(self, name: str) -> None:
        super().__init__(f"{name!r} is given twice")
        self.name = name


def unique_keys(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """For `object_pairs_hook`. Raises GivenTwice."""
    found = dict(pairs)
    if len(found) != len(pairs):
        names = Counter(name for name, _ in pairs)
        raise GivenTwice(names.most_common(1)[0][0][:64])
    return found


def _refuse_constant(name: str) -> None:
    raise ValueError(f"{name} is not JSON")


lenient_decode = json.JSONDecoder(object_pairs_hook=unique_keys).decode
"""NaN and the infinities pass: for what is checked field by field."""
decode = json.JSONDecoder(parse_constant=_refuse_constant, object_pairs_hook=unique_keys).decode
