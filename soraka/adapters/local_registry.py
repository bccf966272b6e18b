"""The registry of a process that runs every role by itself."""

import json
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from soraka.adapters.coalesce import Coalesced
from soraka.adapters.registry_json import (
    check_address,
    check_segment,
    check_service,
    decode_topic,
    encode_topic,
)
from soraka.errors import ConfigError, DecodeError, RegistryUnavailable
from soraka.files import replace
from soraka.message import Instance, Topic


class LocalRegistry:
    """Instances and locks live in memory; topics too, and in a JSON file when `path` is given.

    `live` and `topics` return snapshots: never changed, only replaced. Raises ConfigError when
    the file is there and cannot be understood, RegistryUnavailable when it cannot be read.
    """

    def __init__(self, *, path: Path | None) -> None:
        self._path = path
        self._live: dict[str, dict[str, Instance]] = {}
        self._topics = _load(path) if path is not None else {}
        self._locked: set[str] = set()
        self._watchers: list[Coalesced] = []
        self._closed = False

    def register(self, instance: Instance) -> None:
        check_service(instance.service)
        check_address(instance.address)
        if self._closed:
            raise RegistryUnavailable("the registry is closed")
        known = self.live(instance.service)
        if known.get(instance.address) != instance:
            self._live[instance.service] = {**known, instance.address: instance}
            self._notify()

    def unregister(self, instance: Instance) -> None:
        known = self.live(instance.service)
        found = known.get(instance.address)
        if found is not None and found.incarnation == instance.incarnation:
            self._live[instance.service] = {a: i for a, i in known.items() if i is not found}
            self._notify()

    def live(self, service: str) -> dict[str, Instance]:
        return self._live.get(service, {})

    def topics(self) -> dict[str, Topic]:
        return self._topics

    def put_topic(self, topic: Topic, *, was: Topic | None) -> bool:
        check_segment("topic_name", topic.name)
        if self._closed:
            raise RegistryUnavailable("the registry is closed")
        # No greenlet comes in between: writing a file does not yield.
        if self._topics.get(topic.name) != was:
            return False
        self._keep({**self._topics, topic.name: topic})
        return True

    def delete_topic(self, name: str) -> bool:
        check_segment("topic_name", name)
        if self._closed:
            raise RegistryUnavailable("the registry is closed")
        if name not in self._topics:
            return False
        self._keep({known: topic for known, topic in self._topics.items() if known != name})
        return True

    def watch(self, changed: Callable[[], None]) -> None:
        self._watchers.append(Coalesced(changed))

    @contextmanager
    def lock(self, name: str) -> Iterator[bool]:
        if name in self._locked:
            yield False
            return
        self._locked.add(name)
        try:
            yield True
        finally:
            self._locked.discard(name)

    def close(self) -> None:
        self._closed = True
        self._live = {}

    def _keep(self, topics: dict[str, Topic]) -> None:
        if self._path is not None:
            _save(self._path, topics)
        self._topics = topics
        self._notify()

    def _notify(self) -> None:
        for watcher in self._watchers:
            watcher.ask()


def _load(path: Path) -> dict[str, Topic]:
    try:
        loaded: Any = json.loads(path.read_bytes())
        if not isinstance(loaded, dict):
            raise ConfigError(f"{path}: not a JSON object of topics by name")
        return {name: _topic(name, fields) for name, fields in loaded.items()}
    except FileNotFoundError:
        return {}
    except OSError as exc:
        raise RegistryUnavailable(f"{path}: {exc}") from exc
    # Starting without the topics would refuse every message: better not to start.
    except (ValueError, RecursionError, DecodeError) as exc:
        raise ConfigError(f"{path}: not the topics of soraka: {exc}") from exc


def _topic(name: str, fields: Any) -> Topic:
    data = json.dumps(fields).encode()
    try:
        return decode_topic(name, data)
    except DecodeError as exc:
        raise DecodeError(f"{name}: {exc}", data) from None


def _save(path: Path, topics: Mapping[str, Topic]) -> None:
    """Replaces the file as a whole; it is durable on return. Raises RegistryUnavailable."""
    content = {name: json.loads(encode_topic(topic)) for name, topic in topics.items()}
    data = json.dumps(content, indent=1, sort_keys=True).encode()
    try:
        replace(path, data)
    except OSError as exc:
        raise RegistryUnavailable(f"{path}: {exc}") from exc
