"""Accounts, API tokens and the key that signs sessions, in one file.

A file and not the store: a store that lost everything must not lock operators out. Several
processes share it: each reads it again when it has changed, and changes it as a whole, under a
lock.
Passwords and tokens themselves are not in it.
"""

import hashlib
import json
import logging
import re
import secrets
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

from werkzeug.security import generate_password_hash

from admin_app.access import OPERATOR, ROLES
from soraka.errors import ConfigError, Conflict, InvalidParams
from soraka.files import alone, stamp
from soraka.files import replace as replace_file

log = logging.getLogger(__name__)

FIRST = "admin"
MIN_PASSWORD, MAX_PASSWORD = 10, 256
TOKEN_BEGIN = "soraka_"  # noqa: S105 of every token, so that a lost one is recognised
MAX_ACCOUNTS = 1000
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._@-]{0,63}")


@dataclass(frozen=True, slots=True, kw_only=True)
class Account:
    """`epoch` is anew with each password: sessions name it, so older ones end."""

    name: str
    role: str
    password_hash: str
    epoch: str
    created_at: int = 0

    @property
    def is_operator(self) -> bool:
        return self.role == OPERATOR


@dataclass(frozen=True, slots=True, kw_only=True)
class Token:
    """`hash` is the SHA-256 of the token: it is long and random, so no slower one is needed."""

    name: str
    role: str
    hash: str
    created_by: str = ""
    created_at: int = 0

    @property
    def is_operator(self) -> bool:
        return self.role == OPERATOR


@dataclass(frozen=True, slots=True, kw_only=True)
class _Content:
    """What the file holds. `ended` are sessions that were logged out, until they would expire."""

    secret_key: str
    accounts: Mapping[str, Account] = field(default_factory=dict)
    tokens: Mapping[str, Token] = field(default_factory=dict)
    ended: Mapping[str, int] = field(default_factory=dict)


class Accounts:
    """Raises ConfigError when the file is there and cannot be used. Names of accounts and tokens
    are apart."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._stamp: tuple[int, ...] = ()
        self._content = _Content(secret_key="")
        path.parent.mkdir(parents=True, exist_ok=True)
        if path.exists():
            self._stamp, self._content = stamp(path), _read(path)

    def first_start(self) -> str | None:
        """The password of a new account `admin`, an operator; None when there are accounts."""
        password = secrets.token_urlsafe(15)
        hashed = generate_password_hash(password)
        with self._changing() as change:
            if self._content.accounts:
                return None
            change(accounts={FIRST: _account(FIRST, OPERATOR, hashed)})
        return password

    @property
    def secret_key(self) -> str:
        return self._now().secret_key

    def all(self) -> list[Account]:
        """By name."""
        return [account for _, account in sorted(self._now().accounts.items())]

    def get(self, name: str) -> Account | None:
        return self._now().accounts.get(name)

    def set_password(self, name: str, password: str, role: str | None = None) -> None:
        """Makes the account when it is new, which needs a role. Its other sessions end. Raises
        InvalidParams, Conflict."""
        self._put(name, password, role, new=False)

    def add(self, name: str, password: str, role: str) -> None:
        """Raises InvalidParams, Conflict when there is one of that name."""
        self._put(name, password, role, new=True)

    def set_role(self, name: str, role: str) -> None:
        """Raises InvalidParams, Conflict when no operator would be left."""
        check_role(role)
        with self._changing() as change:
            known = self._known(name)
            changed = {**self._content.accounts, name: replace(known, role=role)}
            change(accounts=_with_operator(changed))

    def remove(self, name: str) -> None:
        """Its sessions end. Raises InvalidParams, Conflict when no operator would be left."""
        with self._changing() as change:
            self._known(name)
            left = {n: a for n, a in self._content.accounts.items() if n != name}
            change(accounts=_with_operator(left))

    def tokens(self) -> list[Token]:
        """By name."""
        return [token for _, token in sorted(self._now().tokens.items())]

    def add_token(self, name: str, role: str, created_by: str) -> str:
        """The token, which is kept nowhere. Raises InvalidParams, Conflict."""
        check_name("name", name)
        check_role(role)
        made = TOKEN_BEGIN + secrets.token_urlsafe(32)
        with self._changing() as change:
            if name in self._content.tokens:
                raise Conflict(f"name: token {name!r} exists already")
            token = Token(
                name=name,
                role=role,
                hash=_digest(made),
                created_by=created_by,
                created_at=_now_ms(),
            )
            change(tokens={**self._content.tokens, name: token})
        return made

    def revoke_token(self, name: str) -> None:
        """Raises InvalidParams."""
        with self._changing() as change:
            if name not in self._content.tokens:
                raise InvalidParams("name", f"there is no token {name!r}")
            change(tokens={n: t for n, t in self._content.tokens.items() if n != name})

    def by_token(self, token: str) -> Token | None:
        if not token.startswith(TOKEN_BEGIN):
            return None
        digest = _digest(token)  # what is compared is no secret, so the time tells nothing
        return next((t for t in self._now().tokens.values() if t.hash == digest), None)

    def end_session(self, session_id: str, until_ms: int) -> None:
        """It counts no more, on no process; remembered until it would have expired by itself."""
        with self._changing() as change:
            now = _now_ms()
            kept = {known: until for known, until in self._content.ended.items() if until > now}
            change(ended={**kept, session_id: until_ms})

    def has_ended(self, session_id: str) -> bool:
        return session_id in self._now().ended

    def _put(self, name: str, password: str, role: str | None, *, new: bool) -> None:
        check_name("name", name)
        check_password(password)
        if role is not None:
            check_role(role)
        hashed = generate_password_hash(password)
        with self._changing() as change:
            accounts = dict(self._content.accounts)
            known = accounts.get(name)
            if new and known is not None:
                raise Conflict(f"name: account {name!r} exists already")
            if role is None and known is None:
                raise InvalidParams("role", f"is needed for the new account {name!r}")
            if known is None and len(accounts) >= MAX_ACCOUNTS:
                raise Conflict(f"name: there are {MAX_ACCOUNTS} accounts already")
            account = _account(name, role or (known.role if known else ""), hashed)
            if known is not None:
                account = replace(account, created_at=known.created_at)
            change(accounts=_with_operator({**accounts, name: account}))

    def _known(self, name: str) -> Account:
        known = self._content.accounts.get(name)
        if known is None:
            raise InvalidParams("name", f"there is no account {name!r}")
        return known

    def _now(self) -> _Content:
        """As the file is. One that cannot be read counts as it was, and is complained of."""
        try:
            now = stamp(self._path)
            if now != self._stamp:
                self._content, self._stamp = _read(self._path), now
        except (OSError, ConfigError) as exc:
            log.error("accounts.unreadable", extra={"path": str(self._path), "reason": str(exc)})
        return self._content

    @contextmanager
    def _changing(self) -> Iterator[Callable[..., None]]:
        """Alone, on what the file holds now. Gives what to call with the fields that change."""
        with alone(self._path.parent):
            if self._path.exists():
                self._content = _read(self._path)
            elif not self._content.secret_key:  # new; one that was deleted meanwhile comes back
                self._content = _Content(secret_key=secrets.token_hex(32))
            yield self._change

    def _change(self, **changes: Any) -> None:
        content = replace(self._content, **changes)
        replace_file(self._path, json.dumps(asdict(content), indent=1, sort_keys=True).encode())
        self._content, self._stamp = content, stamp(self._path)


def _read(path: Path) -> _Content:
    """Raises ConfigError."""
    try:
        loaded: Any = json.loads(path.read_bytes())
        return _Content(
            secret_key=str(loaded["secret_key"]),
            accounts={name: Account(**a) for name, a in loaded["accounts"].items()},
            tokens={name: Token(**t) for name, t in loaded["tokens"].items()},
            ended=dict(loaded.get("ended", {})),
        )
    except OSError as exc:
        raise ConfigError(f"admin.accounts = {path}: {exc.strerror}") from exc
    except (ValueError, TypeError, LookupError, AttributeError) as exc:
        raise ConfigError(f"admin.accounts = {path}: not the accounts of soraka: {exc}") from exc


def _account(name: str, role: str, hashed: str) -> Account:
    return Account(
        name=name,
        role=role,
        password_hash=hashed,
        epoch=secrets.token_hex(8),
        created_at=_now_ms(),
    )


def _with_operator(accounts: dict[str, Account]) -> dict[str, Account]:
    if not any(account.is_operator for account in accounts.values()):
        raise Conflict("role: the last operator must stay one")
    return accounts


def check_name(field_name: str, name: str) -> None:
    """Raises InvalidParams."""
    if not _NAME.fullmatch(name):
        raise InvalidParams(field_name, "must be 1 to 64 of the characters A-Z a-z 0-9 . _ @ -")


def check_role(role: str) -> None:
    """Raises InvalidParams, field `role`."""
    if role not in ROLES:
        raise InvalidParams("role", f"must be one of {', '.join(ROLES)}")


def check_password(password: str) -> None:
    """Raises InvalidParams, field `password`."""
    if not MIN_PASSWORD <= len(password) <= MAX_PASSWORD:
        raise InvalidParams(
            "password", f"must be from {MIN_PASSWORD} to {MAX_PASSWORD} characters long"
        )


def _digest(token: str) -> str:
    return hashlib.sha256(token.encode(errors="surrogatepass")).hexdigest()


def _now_ms() -> int:
    return int(time.time() * 1000)
