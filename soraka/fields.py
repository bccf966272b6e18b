"""Fields of the HTTP APIs, strict in their types; marshmallow's errors as ours.

Those that a schema does not know are ignored by Fields: clients of the earlier system may send
more than we read. KnownFields refuses them: without a misspelt one a call could change more than
was meant.
A null in an optional field counts as absent.

marshmallow takes 20 µs for a submission, most of which are right as they are: `Fields.read` has a
struct of msgspec say so in 0.4, and what that refuses is for marshmallow to judge. It looks at
types alone: what a text may hold is for the rules to say.
"""

from collections.abc import Mapping
from typing import Any

import msgspec
from marshmallow import EXCLUDE, RAISE, Schema, ValidationError, fields

from soraka.errors import InvalidParams


class Int(fields.Integer):
    """A JSON integer: no text, no 1000.0, no true."""

    KIND = int

    def _deserialize(self, value: Any, *_: Any, **__: Any) -> int:
        if type(value) is not int:
            raise self.make_error("invalid")
        return value


class Text(fields.String):
    """JSON may have half of a surrogate pair, which is no text to anything behind us."""

    KIND = str

    def _deserialize(self, value: Any, *_: Any, **__: Any) -> str:
        if type(value) is not str:
            raise self.make_error("invalid")
        try:
            value.encode()
        except UnicodeEncodeError as exc:
            raise self.make_error("invalid_utf8") from exc
        return value


class Anything(fields.Raw):
    KIND: Any = Any


class Flag(fields.Boolean):
    """true or false, and no other word for them."""

    def _deserialize(self, value: Any, *_: Any, **__: Any) -> bool:
        if type(value) is not bool:
            raise self.make_error("invalid", input=value)
        return value


class Fields(Schema):
    """Its fields take a value as it is or refuse it: none is changed, none filled in."""

    class Meta:
        unknown = EXCLUDE

    def __init__(self, **options: Any) -> None:
        super().__init__(**options)
        self.shape = msgspec.defstruct(type(self).__name__, _typed(self.fields), kw_only=True)

    def read(self, data: Any) -> Any:
        """Its fields as attributes, None for those that are absent. Raises as `load`."""
        try:
            return msgspec.convert(data, self.shape)
        except (msgspec.ValidationError, UnicodeEncodeError):
            return msgspec.convert(load(self, data), self.shape)


class KnownFields(Schema):
    error_messages: dict[str, str] = {"unknown": "there is no such field here"}  # noqa: RUF012

    class Meta:
        unknown = RAISE


def about(description: str, **more: Any) -> dict[str, Any]:
    """Metadata of a field, for OpenAPI."""
    return {"description": description, **more}


def load(schema: Schema, data: Any) -> dict[str, Any]:
    """The fields of `data`. Raises InvalidParams that names the first wrong one."""
    try:
        loaded: dict[str, Any] = schema.load(data)
    except ValidationError as exc:
        raise InvalidParams(*_first("", exc.messages)) from exc
    return loaded


def _typed(declared: Mapping[str, Any]) -> list[Any]:
    """The fields as msgspec.defstruct takes them."""
    return [(n, _type(f)) if f.required else (n, _type(f), None) for n, f in declared.items()]


def _type(field: Any) -> Any:
    """Of a field that is ours, or a nested one or a list of them."""
    if isinstance(field, fields.Nested):
        kind: Any = field.schema.shape  # type: ignore[attr-defined]
    elif isinstance(field, fields.List):
        kind = list[_type(field.inner)]  # type: ignore[misc]
    else:
        kind = field.KIND
    return kind | None if field.allow_none and kind is not Any else kind


def _first(path: str, messages: Any) -> tuple[str, str]:
    """The first error in marshmallow's tree: its dotted path and the reason."""
    while isinstance(messages, dict):
        name, messages = next(iter(messages.items()))
        if name != "_schema":
            path = f"{path}.{name}" if path else str(name)
    reason = messages[0] if isinstance(messages, list) else str(messages)
    return path or "body", reason
