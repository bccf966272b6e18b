"""Answers of soraka as its errors, and what may be sent again."""

from soraka import errors
from soraka.errors import InvalidParams, SorakaError, Unavailable

_BY_CODE = {kind.code: kind for kind in errors.PLAIN}
_ABOUT_FIELDS: dict[int, type[InvalidParams]] = {
    kind.code: kind
    for kind in (
        errors.InvalidParams,
        errors.ReservedTopicName,
        errors.DelayTooLong,
        errors.BodyTooLarge,
    )
}


class Again(Unavailable):
    """Not known whether it took effect; may be sent again after `wait_s`. `answered`: the server
    said so itself."""

    def __init__(self, reason: str, wait_s: float = 0.0, *, answered: bool = False) -> None:
        super().__init__(reason)
        self.wait_s = wait_s
        self.answered = answered


def error_of(ec: int, em: str, wait_s: float = 0.0) -> SorakaError:
    """The error that an answer stands for."""
    if ec in (SorakaError.code, Unavailable.code):
        return Again(em, wait_s or Unavailable.retry_after_s, answered=True)
    if ec in _ABOUT_FIELDS:
        field, _, reason = em.partition(": ")
        return _ABOUT_FIELDS[ec](field, reason)
    return _BY_CODE.get(ec, SorakaError)(em)
