"""Topic names, and making topics. Ports only."""

import re
from collections.abc import Callable
from dataclasses import dataclass

from soraka.config import TopicsConfig
from soraka.errors import InvalidParams, ReservedTopicName, TopicNotFound
from soraka.message import RESERVED_TOPICS, Topic
from soraka.ports import Log, Registry

_NAME = re.compile(r"[A-Za-z0-9._-]{1,128}")


def check_name(name: str) -> None:
    """Raises ReservedTopicName or InvalidParams, field `topic_name`."""
    if name in RESERVED_TOPICS:
        raise ReservedTopicName("topic_name", f"{name!r} is reserved")
    if not _NAME.fullmatch(name) or name in (".", ".."):
        raise InvalidParams("topic_name", "must be 1 to 128 of the characters A-Z a-z 0-9 . _ -")


@dataclass(frozen=True, slots=True)
class Topics:
    """The topics of a deployment. `now_ms` gives their time of creation."""

    log: Log
    registry: Registry
    config: TopicsConfig
    now_ms: Callable[[], int]

    def find(self, name: str) -> Topic:
        """Its settings. Raises TopicNotFound, InvalidParams."""
        topic = self.registry.topics().get(name)
        if topic is None:
            check_name(name)
            raise TopicNotFound(f"topic {name!r} does not exist")
        return topic

    def get(self, name: str) -> Topic:
        """As find, but makes it on the way when `topics.auto_create` is on.

        Raises Unavailable too.
        """
        try:
            return self.find(name)
        except TopicNotFound:
            if not self.config.auto_create:
                raise
        self.add(self.new(name))
        return self.find(name)

    def new(self, name: str) -> Topic:
        """A topic with the default settings, not yet added."""
        return Topic(
            name=name,
            balance=self.config.balance,
            retry_ms=self.config.retry_ms,
            created_at=self.now_ms(),
        )

    def add(self, topic: Topic) -> bool:
        """False when there is one of that name already. The log comes first: a topic that can
        be seen can be written to."""
        check_name(topic.name)
        self.log.create_topic(topic.name)
        return self.registry.put_topic(topic, create=True)
