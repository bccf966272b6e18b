"""Fields of the HTTP APIs, strict in their types; marshmallow's errors as ours.

Those that a schema does not know are ignored by Fields: clients of the earlier system may send
more than we read. KnownFields refuses them: without a misspelt one a call could change more than
was meant.
A null in an optional field counts as absent.
"""

from typing import Any

from marshmallow import EXCLUDE, RAISE, Schema, ValidationError, fields

from soraka.errors import InvalidParams


class Int(fields.Integer):
    """A JSON integer: no text, no 1000.0, no true."""

    def _deserialize(self, value: Any, *_: Any, **__: Any) -> int:
        if type(value) is not int:
            raise self.make_error("invalid")
        return value


class Text(fields.String):
    """JSON may have half of a surrogate pair, which is no text to anything behind us."""

    def _deserialize(self, value: Any, *_: Any, **__: Any) -> str:
        if type(value) is not str:
            raise self.make_error("invalid")
        try:
            value.encode()
        except UnicodeEncodeError as exc:
            raise self.make_error("invalid_utf8") from exc
        return value


class Flag(fields.Boolean):
    """true or false, and no other word for them."""

    def _deserialize(self, value: Any, *_: Any, **__: Any) -> bool:
        if type(value) is not bool:
            raise self.make_error("invalid", input=value)
        return value


class Fields(Schema):
    class Meta:
        unknown = EXCLUDE


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


def _first(path: str, messages: Any) -> tuple[str, str]:
    """The first error in marshmallow's tree: its dotted path and the reason."""
    while isinstance(messages, dict):
        name, messages = next(iter(messages.items()))
        if name != "_schema":
            path = f"{path}.{name}" if path else str(name)
    reason = messages[0] if isinstance(messages, list) else str(messages)
    return path or "body", reason
