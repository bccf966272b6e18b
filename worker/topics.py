"""What the settings of topics mean for this worker. Reads a local copy, so it never blocks."""

from soraka.ports import Registry
from soraka.signing import Signer, signer_of


class TopicRules:
    """For the worker at `address`. A topic that is not known has no limits."""

    def __init__(self, registry: Registry, address: str) -> None:
        self._registry = registry
        self._address = address

    def limit(self, name: str) -> int:
        """Calls under way at once; 0 for no limit."""
        topic = self._registry.topics().get(name)
        return topic.max_concurrent_dispatches if topic else 0

    def is_paused(self, name: str) -> bool:
        topic = self._registry.topics().get(name)
        return topic is not None and topic.paused

    def rate(self, name: str) -> float:
        """Calls begun per second; 0 for no limit. Each worker that may hold the topic has an equal
        share. One that may not, and still has some of its messages, counts itself as well."""
        topic = self._registry.topics().get(name)
        if topic is None or not topic.max_dispatches_per_second:
            return 0.0
        live = self._registry.live("worker").keys()
        sharing = live & set(topic.workers) or live
        return topic.max_dispatches_per_second / len(sharing | {self._address})

    def signer(self, name: str) -> Signer | None:
        """None when its callbacks are not signed."""
        topic = self._registry.topics().get(name)
        return signer_of(topic.secrets) if topic and topic.secrets else None
