"""Topics as lines of JSON: what `soraka topic list` prints and `soraka topic import` reads."""

import dataclasses
import json
from collections.abc import Iterable
from typing import Any

from marshmallow import fields

from soraka.errors import InvalidParams
from soraka.fields import Flag, Int, KnownFields, Text, load
from soraka.message import Topic
from soraka.strict_json import decode as decode_json


class _Line(KnownFields):
    """What is not there becomes what it is for a new topic."""

    name = Text(required=True)
    business = Text()
    worker_num = Int()
    workers = fields.List(Text())
    balance = Text()
    weigh_by = Text()
    max_concurrent_dispatches = Int()
    max_dispatches_per_second = Int()
    paused = Flag()
    retention_ms = Int()
    retry_ms = fields.List(Int())
    created_at = Int()
    secrets = fields.List(Text())
    secret_num = Int()


_LINE = _Line()


def shown(topic: Topic) -> dict[str, Any]:
    """Its settings; of its secrets only how many there are."""
    settings = dataclasses.asdict(topic)
    settings["secret_num"] = len(settings.pop("secrets"))
    return settings


def encode(topic: Topic, *, secrets: bool = False) -> str:
    """As `shown`, or with its secrets."""
    return json.dumps(dataclasses.asdict(topic) if secrets else shown(topic))


def decode_all(lines: Iterable[str]) -> list[Topic]:
    """The topics of all lines that are not blank. Raises InvalidParams, which names the line and
    the field; also when a topic comes twice."""
    found: dict[str, Topic] = {}
    for number, line in enumerate(lines, start=1):
        if not line.strip():
            continue
        try:
            topic = _decode(line)
        except InvalidParams as exc:
            raise InvalidParams(f"line {number}: {exc.field}", exc.reason) from exc
        if topic.name in found:
            raise InvalidParams(f"line {number}: name", f"{topic.name!r} comes twice")
        found[topic.name] = topic
    return list(found.values())


def _decode(line: str) -> Topic:
    try:
        given = decode_json(line)
    except (ValueError, RecursionError) as exc:
        raise InvalidParams("topic", f"not JSON: {exc}") from exc
    loaded = load(_LINE, given)
    loaded.pop("secret_num", None)
    lists = {k: tuple(v) for k, v in loaded.items() if isinstance(v, list)}
    return Topic(**{**loaded, **lists})
