"""Who may do what. Without a word at its view, an endpoint asks for a login; one that changes
something, whatever its method is but GET, asks for an operator."""

from collections.abc import Callable
from typing import Any, TypeVar

VIEWER = "viewer"
OPERATOR = "operator"
ROLES = (VIEWER, OPERATOR)
OPEN = "open"
"""For everyone, without a login."""
_NEED, _ASKS = "soraka_need", "soraka_asks"

F = TypeVar("F", bound=Callable[..., Any])


def open_to_all(view: F) -> F:
    """For the few views that need no login."""
    return _marked(view, OPEN)


def viewer_may(view: F, *, asks: bool = False) -> F:
    """For a POST that changes nothing of others, or nothing at all: it only asks."""
    setattr(view, _ASKS, asks)
    return _marked(view, VIEWER)


def operator_only(view: F) -> F:
    """For a GET that tells what is not for viewers."""
    return _marked(view, OPERATOR)


def need_of(view: Callable[..., Any] | None, method: str) -> str:
    """OPEN, VIEWER or OPERATOR; `view` is None for a path that is nothing."""
    usual = VIEWER if method in ("GET", "HEAD") else OPERATOR
    return getattr(view, _NEED, VIEWER if view is None else usual)


def only_asks(view: Callable[..., Any] | None) -> bool:
    """Whether its POST is a question, which no audit needs."""
    return bool(getattr(view, _ASKS, False))


def _marked(view: F, need: str) -> F:
    setattr(view, _NEED, need)
    return view
