"""Everything soraka raises on purpose.

    SorakaError
    ├── InvalidParams            a request is wrong: the field and the reason
    │   ├── ReservedTopicName
    │   ├── UnknownService
    │   ├── DelayTooLong
    │   ├── TooManyMessages
    │   └── BodyTooLarge
    ├── MessageNotFound
    ├── TopicNotFound
    ├── TooLate
    ├── KeyReused                an idempotency key stands for another message
    ├── Conflict                 not in the state that things are in
    ├── NotAuthenticated         who asks is not known
    ├── NotAllowed               who asks may not
    ├── TooManyAttempts          try again later
    ├── Unavailable              not known whether it took effect: send again
    │   ├── LogUnavailable
    │   ├── StoreUnavailable
    │   ├── RegistryUnavailable
    │   └── PeerUnavailable
    ├── Gap                      a batch does not join on to what the store has read
    ├── DecodeError              bytes that are no record; carries them
    └── ConfigError              a wrong setting; the process does not start

`code` is the `ec` of the API, `status` the HTTP status, `retriable` whether to send again.
"""

from typing import ClassVar


class SorakaError(Exception):
    """Base of all; by itself a system error (ec 500)."""

    code: ClassVar[int] = 500
    status: ClassVar[int] = 500
    retriable: ClassVar[bool] = False


class InvalidParams(SorakaError):
    """A request is wrong. `field` is a dotted path such as `callback.url`."""

    code = 401
    status = 400

    def __init__(self, field: str, reason: str) -> None:
        super().__init__(f"{field}: {reason}")
        self.field = field
        self.reason = reason


class ReservedTopicName(InvalidParams):
    code = 402


class UnknownService(InvalidParams):
    code = 403


class DelayTooLong(InvalidParams):
    code = 501


class TooManyMessages(InvalidParams):
    """More asked for than one answer holds."""

    code = 404


class BodyTooLarge(InvalidParams):
    code = 413
    status = 413


class MessageNotFound(SorakaError):
    code = 405
    status = 404


class TopicNotFound(SorakaError):
    code = 407
    status = 404


class TooLate(SorakaError):
    code = 409
    status = 409


class KeyReused(SorakaError):
    """The idempotency key was sent before, with another message."""

    code = 414
    status = 409


class Conflict(SorakaError):
    """Right by itself, but not as things are: the topic exists, or has pending messages."""

    code = 412
    status = 409


class NotAuthenticated(SorakaError):
    code = 406
    status = 401


class NotAllowed(SorakaError):
    code = 410
    status = 403


class TooManyAttempts(SorakaError):
    code = 429
    status = 429

    def __init__(self, reason: str, retry_after_s: int) -> None:
        super().__init__(reason)
        self.retry_after_s = retry_after_s


class Unavailable(SorakaError):
    """A server did not answer in time. Whether the call took effect is unknown."""

    code = 503
    status = 503
    retriable = True
    retry_after_s: ClassVar[int] = 1


class LogUnavailable(Unavailable):
    pass


class StoreUnavailable(Unavailable):
    pass


class RegistryUnavailable(Unavailable):
    pass


class PeerUnavailable(Unavailable):
    """Another role did not answer over Thrift."""


class Gap(SorakaError):
    """A shard has read less of the partition than the batch assumes."""

    retriable = True

    def __init__(self, partition: str, positions: tuple[int, ...]) -> None:
        super().__init__(f"{partition}: the store has read up to {min(positions)} only")
        self.partition = partition
        self.positions = positions


class DecodeError(SorakaError):
    def __init__(self, reason: str, data: bytes) -> None:
        super().__init__(reason)
        self.data = data


class ConfigError(SorakaError):
    """Names the setting, its value and what is allowed."""


PLAIN: tuple[type[SorakaError], ...] = (
    MessageNotFound,
    TopicNotFound,
    TooLate,
    KeyReused,
    NotAuthenticated,
    NotAllowed,
)
"""Answers of receive that say why and no more. `idl/soraka.thrift` has them by the same names."""
