"""Who calls receive, and what they may do. Without a file of tokens everyone may do everything."""

from dataclasses import dataclass
from pathlib import Path

from soraka.config import ReceiveConfig
from soraka.errors import NotAllowed, NotAuthenticated
from soraka.tokens import Right, Token, Tokens


@dataclass(frozen=True, slots=True)
class Caller:
    """Who asks; without a token one that may do everything."""

    token: Token | None = None

    @property
    def name(self) -> str:
        """'' for everyone without a token."""
        return "" if self.token is None else self.token.name

    def check(self, right: Right, topic: str) -> None:
        """Raises NotAllowed."""
        if self.token is not None and not self.token.may(right, topic):
            raise NotAllowed(f"token: {self.token.name!r} lacks the right to {right} here")


ANYONE = Caller()


class Access:
    """`tokens` is None when no token is needed."""

    def __init__(self, tokens: Tokens | None = None) -> None:
        self._tokens = tokens

    def caller(self, token: str | None) -> Caller:
        """Raises NotAuthenticated."""
        if self._tokens is None:
            return ANYONE
        if not token:
            raise NotAuthenticated("token: is missing")
        found = self._tokens.find(token)
        if found is None:
            raise NotAuthenticated("token: is none of ours, or no longer")
        return Caller(found)


def access_of(limits: ReceiveConfig) -> Access:
    """Raises ConfigError."""
    return Access(Tokens(Path(limits.tokens)) if limits.tokens else None)
