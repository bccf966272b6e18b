"""Who may do what. Without a word at its view, an endpoint asks for a login; one that changes
something, whatever its method is but GET, asks for an operator."""

from collections.abc import Callable
from typing import Any, TypeVar

VIEWER = "viewer"
OPERATOR = "operator"
ROLES = (VIEWER, OPERATOR)
OPEN = "open"
"""For everyone, without a login."""
_NEED = "soraka_need"

F = TypeVar("F", bound=Callable[..., Any])


def open_to_all(view: F) -> F:
    """For the few views that need no login."""
    return _marked(view, OPEN)


def viewer_may(view: F) -> F:
    """For a POST that changes nothing of others."""
    return _marked(view, VIEWER)


def operator_only(view: F) -> F:
    """For a GET that tells what is not for viewers."""
    return _marked(view, OPERATOR)


def need_of(view: Callable[..., Any] | None, method: str) -> str:
    """OPEN, VIEWER or OPERATOR; `view` is None for a path that is nothing."""
    usual = VIEWER if method in ("GET", "HEAD") else OPERATOR
    return getattr(view, _NEED, VIEWER if view is None else usual)


def _marked(view: F, need: str) -> F:
    setattr(view, _NEED, need)
    return view
