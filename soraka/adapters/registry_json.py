"""Topics and instances as JSON, the same in a znode and in a file.

Unknown fields are ignored and missing ones get their default, so that two versions of soraka can
read each other's.
"""

import json
from typing import Any, TypeVar

from soraka.errors import DecodeError, InvalidParams, UnknownService
from soraka.limits import DEFAULT_RETRY_MS, DEFAULT_WEIGHT
from soraka.message import Instance, Topic
from soraka.signing import key_of

T = TypeVar("T")
SERVICES = ("receive", "admin", "center", "worker")


def check_service(service: str) -> None:
    """Raises UnknownService."""
    if service not in SERVICES:
        raise UnknownService("service_name", f"must be one of {', '.join(SERVICES)}")


def check_segment(field: str, name: str) -> None:
    """Raises InvalidParams when `name` cannot be one segment of a path."""
    if not name or "/" in name or "\0" in name or name in (".", ".."):
        raise InvalidParams(field, f"{name!r} cannot be a name in the registry")


def check_address(address: str) -> None:
    """Raises InvalidParams unless `address` is host:port, and one segment of a path."""
    check_segment("instance", address)
    host, _, port = address.rpartition(":")
    if not host or not (port.isascii() and port.isdigit() and 0 < int(port) < 65536):
        raise InvalidParams("instance", f"{address!r} is not host:port")


def encode_topic(topic: Topic) -> bytes:
    """All but the name, which is the key under which it is kept."""
    return _dump(
        {
            "business": topic.business,
            "worker_num": topic.worker_num,
            "workers": topic.workers,
            "balance": topic.balance,
            "weigh_by": topic.weigh_by,
            "max_concurrent_dispatches": topic.max_concurrent_dispatches,
            "max_dispatches_per_second": topic.max_dispatches_per_second,
            "paused": topic.paused,
            "retention_ms": topic.retention_ms,
            "retry_ms": topic.retry_ms,
            "secrets": topic.secrets,
            "created_at": topic.created_at,
        }
    )


def decode_topic(name: str, data: bytes) -> Topic:
    """Raises DecodeError."""
    fields = _Fields(data)
    return Topic(
        name=name,
        business=fields.text("business"),
        worker_num=fields.number("worker_num"),
        workers=fields.many("workers", str, ()),
        balance=fields.text("balance", "round_robin"),
        weigh_by=fields.text("weigh_by", "instance"),
        max_concurrent_dispatches=fields.number("max_concurrent_dispatches"),
        max_dispatches_per_second=fields.number("max_dispatches_per_second"),
        paused=fields.flag("paused"),
        retention_ms=fields.number("retention_ms"),
        retry_ms=fields.many("retry_ms", int, DEFAULT_RETRY_MS),
        secrets=fields.secrets(),
        created_at=fields.number("created_at"),
    )


def encode_instance(instance: Instance) -> bytes:
    """All but the service and the address, which are the key."""
    return _dump(
        {
            "incarnation": instance.incarnation,
            "started_at": instance.started_at,
            "version": instance.version,
            "weight": instance.weight,
            "draining": instance.draining,
        }
    )


def decode_instance(service: str, address: str, data: bytes) -> Instance:
    """Raises DecodeError, also when there is no incarnation or `address` is not host:port."""
    try:
        check_address(address)
    except InvalidParams as exc:
        raise DecodeError(exc.reason, data) from None
    fields = _Fields(data)
    incarnation = fields.text("incarnation")
    if not incarnation:
        raise DecodeError("incarnation is missing", data)
    return Instance(
        service=service,
        address=address,
        incarnation=incarnation,
        started_at=fields.number("started_at"),
        version=fields.text("version"),
        weight=fields.number("weight", DEFAULT_WEIGHT),
        draining=fields.flag("draining"),
    )


class _Fields:
    """A JSON object, each field of the type asked for."""

    def __init__(self, data: bytes) -> None:
        self._data = data
        try:
            loaded: Any = json.loads(data)
        except (ValueError, RecursionError) as exc:
            raise DecodeError(f"not JSON: {exc}", data) from exc
        if not isinstance(loaded, dict):
            raise DecodeError("not a JSON object", data)
        self._loaded: dict[str, Any] = loaded

    def text(self, name: str, default: str = "") -> str:
        return self._checked(name, self._loaded.get(name, default), str)

    def number(self, name: str, default: int = 0) -> int:
        return self._checked(name, self._loaded.get(name, default), int)

    def flag(self, name: str) -> bool:
        return self._checked(name, self._loaded.get(name, False), bool)

    def many(self, name: str, kind: type[T], default: tuple[T, ...]) -> tuple[T, ...]:
        values = self._checked(name, self._loaded.get(name, list(default)), list)
        return tuple(self._checked(name, value, kind) for value in values)

    def secrets(self) -> tuple[str, ...]:
        found = self.many("secrets", str, ())
        try:
            for secret in found:
                key_of(secret)
        except ValueError as exc:
            raise DecodeError(f"secrets: {exc}", self._data) from None
        return found

    def _checked(self, name: str, value: Any, kind: type[T]) -> T:
        # bool is an int to Python, not to us
        if not isinstance(value, kind) or isinstance(value, bool) is not (kind is bool):
            raise DecodeError(f"{name} is not {kind.__name__}", self._data)
        return value


def _dump(fields: dict[str, Any]) -> bytes:
    return json.dumps(fields, sort_keys=True).encode()
