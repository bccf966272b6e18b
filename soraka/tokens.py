"""API tokens for receive: a file of their hashes, and what each may do on which topics.

A file, as that of admin's accounts: no request waits for a server to learn who asks. Every process
reads it again when it has changed. The tokens themselves are not in it.
"""

import fnmatch
import hashlib
import json
import logging
import re
import secrets
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from enum import StrEnum
from functools import lru_cache
from pathlib import Path
from typing import Any

from soraka.errors import ConfigError, Conflict, InvalidParams
from soraka.files import alone, replace, stamp

log = logging.getLogger(__name__)

BEGIN = "soraka_"
"""Of every token, so that a lost one is recognised."""
LOOK_S = 1.0
"""The file is looked at so often at most."""
MAX_PATTERNS = 100
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._@-]{0,63}")
_PATTERN = re.compile(r"[A-Za-z0-9._*-]{1,128}")


class Right(StrEnum):
    SUBMIT = "submit"
    COMMAND = "command"
    """Cancel, add time."""
    READ = "read"


@dataclass(frozen=True, slots=True, kw_only=True)
class Token:
    """`hash` is the SHA-256 of the token: it is long and random, so no slower one is needed.

    The rest are patterns of topics, where `*` stands for any text, also an empty one.
    """

    name: str
    hash: str
    submit: tuple[str, ...] = ()
    command: tuple[str, ...] = ()
    read: tuple[str, ...] = ()
    created_at: int = 0

    def may(self, right: Right, topic: str) -> bool:
        patterns: tuple[str, ...] = getattr(self, right)
        return _compiled(patterns).fullmatch(topic) is not None


class Tokens:
    """Raises ConfigError when the file is not there, or cannot be used."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._looked = time.monotonic()
        self._stamp, self._by_hash = _loaded(path)

    def find(self, token: str) -> Token | None:
        """None for one that is none of ours, or no longer: for LOOK_S after its removal it may
        still be found."""
        if time.monotonic() - self._looked > LOOK_S:
            self._look()
        # What is looked up is no secret, so the time it takes tells nothing.
        return self._by_hash.get(_digest(token))

    def _look(self) -> None:
        """A file that cannot be read counts as it was, and is complained of."""
        self._looked = time.monotonic()
        try:
            if stamp(self._path) != self._stamp:
                self._stamp, self._by_hash = _loaded(self._path)
        except (OSError, ConfigError) as exc:
            log.error("tokens.unreadable", extra={"path": str(self._path), "reason": str(exc)})


def add(path: Path, name: str, rights: Mapping[Right, Sequence[str]]) -> str:
    """The token, which is kept nowhere. Makes the file. Raises InvalidParams, Conflict,
    ConfigError, OSError."""
    if not _NAME.fullmatch(name):
        raise InvalidParams("name", "must be 1 to 64 of the characters A-Z a-z 0-9 . _ @ -")
    _check(rights)
    made = BEGIN + secrets.token_urlsafe(32)
    token = Token(
        name=name,
        hash=_digest(made),
        created_at=int(time.time() * 1000),
        **{right.value: tuple(patterns) for right, patterns in rights.items()},
    )
    path.parent.mkdir(parents=True, exist_ok=True)
    with alone(path.parent):
        known = _read(path) if path.exists() else []
        if name in {one.name for one in known}:
            raise Conflict(f"name: token {name!r} exists already")
        _write(path, [*known, token])
    return made


def remove(path: Path, name: str) -> None:
    """Raises InvalidParams, ConfigError, OSError."""
    with alone(path.parent):
        known = _read(path)
        left = [token for token in known if token.name != name]
        if len(left) == len(known):
            raise InvalidParams("name", f"there is no token {name!r}")
        _write(path, left)


def listed(path: Path) -> list[Token]:
    """By name. Raises ConfigError."""
    return sorted(_read(path), key=lambda token: token.name)


def _check(rights: Mapping[Right, Sequence[str]]) -> None:
    if not any(rights.values()):
        raise InvalidParams("submit", "a token needs topics to submit to, to command or to read")
    for right, patterns in rights.items():
        if len(patterns) > MAX_PATTERNS:
            raise InvalidParams(right, f"must be at most {MAX_PATTERNS} patterns")
        for pattern in patterns:
            if not _PATTERN.fullmatch(pattern):
                raise InvalidParams(right, "must be a topic's name, in which * is any text")


@lru_cache(maxsize=4096)
def _compiled(patterns: tuple[str, ...]) -> re.Pattern[str]:
    # fnmatch's expressions take no exponential time; of its wildcards only * passes _PATTERN
    return re.compile("|".join(map(fnmatch.translate, patterns)) or r"(?!)")


def _loaded(path: Path) -> tuple[tuple[int, ...], dict[str, Token]]:
    try:
        seen = stamp(path)  # first: a change in between is seen the next time
    except OSError as exc:
        remedy = "; `soraka token add` makes it" if isinstance(exc, FileNotFoundError) else ""
        raise ConfigError(f"receive.tokens = {path}: {exc.strerror}{remedy}") from exc
    return seen, {token.hash: token for token in _read(path)}


def _read(path: Path) -> list[Token]:
    try:
        loaded: Any = json.loads(path.read_bytes())
        return [_token(fields) for fields in loaded["tokens"]]
    except OSError as exc:
        raise ConfigError(f"receive.tokens = {path}: {exc.strerror}") from exc
    except (ValueError, TypeError, LookupError, AttributeError, InvalidParams) as exc:
        raise ConfigError(f"receive.tokens = {path}: not tokens of soraka: {exc}") from exc


def _token(fields: Any) -> Token:
    """Raises TypeError, ValueError."""
    if not all(isinstance(fields[right], list) for right in Right):
        raise TypeError("patterns must be lists")
    lists = {right.value: tuple(map(str, fields[right])) for right in Right}
    _check({Right(right): patterns for right, patterns in lists.items()})
    return Token(**{**fields, **lists})


def _write(path: Path, tokens: Sequence[Token]) -> None:
    content = {"tokens": [asdict(token) for token in tokens]}
    replace(path, json.dumps(content, indent=1).encode())


def _digest(token: str) -> str:
    return hashlib.sha256(token.encode(errors="surrogatepass")).hexdigest()
