"""Topics with what is in them. Ports only."""

import dataclasses
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from soraka.errors import Conflict, InvalidParams, StoreUnavailable, TopicNotFound
from soraka.message import State, Topic
from soraka.ports import StoreArchive
from soraka.topics import Topics, check_instance, check_settings

CHOICES = ("random", "load")
"""How workers are chosen for a topic."""


@dataclass(frozen=True, slots=True)
class TopicView:
    """`counts` has every state; None when the store does not answer."""

    topic: Topic
    counts: Mapping[State, int] | None

    @property
    def pending(self) -> int:
        return self.counts[State.PENDING] if self.counts else 0


class TopicAdmin:
    """`choose(num, how)` picks live workers; see Instances.choose."""

    def __init__(
        self,
        topics: Topics,
        archive: StoreArchive,
        choose: Callable[[int, str], tuple[str, ...]],
    ) -> None:
        self._topics = topics
        self._archive = archive
        self._choose = choose

    def all(self) -> list[TopicView]:
        """By name."""
        topics = self._topics.registry.topics()
        try:
            counts = self._archive.counts()
        except StoreUnavailable:
            return [TopicView(topic, None) for _, topic in sorted(topics.items())]
        return [TopicView(t, _all_states(counts.get(name))) for name, t in sorted(topics.items())]

    def get(self, name: str) -> TopicView:
        """Raises TopicNotFound, InvalidParams."""
        topic = self._topics.find(name)
        try:
            return TopicView(topic, _all_states(self._archive.counts().get(name)))
        except StoreUnavailable:
            return TopicView(topic, None)

    def add(self, name: str, settings: Mapping[str, Any], choose: str = "") -> Topic:
        """`settings` by the names of Topic's fields. `worker_num` live workers become `workers`,
        unless some are given; `choose` is how: random (as if empty) or load. Raises InvalidParams
        that names the field, Conflict when it exists, Unavailable."""
        topic = self._changed(self._topics.new(name), settings, choose)
        if not self._topics.add(topic):
            raise Conflict(f"topic_name: topic {name!r} exists already")
        return topic

    def update(self, name: str, settings: Mapping[str, Any], choose: str = "") -> Topic:
        """Changes the settings given and leaves the others, also those that change meanwhile.
        Workers are chosen anew when `worker_num` changes or `choose` is given. Raises as `add`,
        TopicNotFound too."""
        return self._topics.update(name, lambda topic: self._changed(topic, settings, choose))

    def pause(self, name: str) -> Topic:
        """Its messages wait from now on; calls under way end as they would."""
        return self.update(name, {"paused": True})

    def resume(self, name: str) -> Topic:
        """What waited goes out, at a limited rate."""
        return self.update(name, {"paused": False})

    def add_secret(self, name: str, secret: str | None = None) -> str | None:
        """Signs its callbacks with it too. None made a new one, which is returned this once. Raises
        TopicNotFound, InvalidParams, Conflict when there are two already, Unavailable."""
        made = self._topics.add_secret(name, secret)
        return made if secret is None else None

    def remove_secret(self, name: str, which: str) -> None:
        """The older or the newer of two, or all. Raises as `add_secret`."""
        self._topics.remove_secret(name, which)

    def delete(self, name: str) -> None:
        """Forgets its settings; its finished messages stay until their retention ends. Raises
        TopicNotFound, Conflict while messages are pending, Unavailable."""
        self._topics.find(name)
        pending = _all_states(self._archive.counts().get(name))[State.PENDING]
        if pending:
            raise Conflict(
                f"topic_name: topic {name!r} has {pending} pending messages; "
                "cancel them or wait until they are called"
            )
        if not self._topics.delete(name):
            raise TopicNotFound(f"topic {name!r} does not exist")

    def of_instance(self, address: str) -> list[str]:
        """The topics whose messages a worker may hold, by name; it need not be known. Raises
        InvalidParams."""
        check_instance(address)
        topics = self._topics.registry.topics().items()
        return sorted(name for name, t in topics if not t.workers or address in t.workers)

    def _changed(self, topic: Topic, settings: Mapping[str, Any], choose: str) -> Topic:
        if choose and choose not in CHOICES:
            raise InvalidParams("choose", f"must be one of {', '.join(CHOICES)}")
        changed = dataclasses.replace(topic, **settings)
        check_settings(changed)
        return dataclasses.replace(changed, **self._workers(topic, changed, settings, choose))

    def _workers(
        self, before: Topic, topic: Topic, settings: Mapping[str, Any], choose: str
    ) -> dict[str, Any]:
        """What is to become of `worker_num` and `workers`."""
        if settings.get("workers") or ("workers" in settings and "worker_num" not in settings):
            return {"worker_num": len(topic.workers)}
        if not choose and "worker_num" not in settings:
            return {}
        if not topic.worker_num:
            return {"workers": ()}
        if not choose and topic.workers and topic.worker_num == before.worker_num:
            return {}
        return {"workers": self._choose(topic.worker_num, choose or "random")}


def _all_states(counts: Mapping[State, int] | None) -> dict[State, int]:
    return {state: max(0, (counts or {}).get(state, 0)) for state in State}
