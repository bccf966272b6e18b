"""Where a client finds soraka, and its token: a file of the user's, with a section per profile.

    [default]
    server = "10.0.0.5:30003"
    token = "soraka_..."

    [staging]
    server = "10.1.0.5:30003"
    url = "https://soraka.staging.example"

`server` is the Thrift address of receive, `url` what `soraka.client` uses in its place. With `ca`,
a PEM file of the authority of their certificates, Thrift is over TLS.
"""

import logging
import os
import ssl
import stat
import tomllib
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any

from soraka.errors import ConfigError

log = logging.getLogger(__name__)

DEFAULT = "default"
LOCAL = "127.0.0.1:30003"
NAME, FILE, TOKEN = "SORAKA_PROFILE", "SORAKA_PROFILES", "SORAKA_TOKEN"
"""In the environment: the profile, its file, and a token in place of the profile's."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Profile:
    server: str = LOCAL
    url: str = ""
    token: str | None = None
    ca: str = ""

    @property
    def client_url(self) -> str:
        return self.url or f"thrift{'s' if self.ca else ''}://{self.server}"

    def trusted(self) -> ssl.SSLContext | None:
        """What `ca` stands for; None without one. Raises ConfigError."""
        try:
            return ssl.create_default_context(cafile=self.ca) if self.ca else None
        except OSError as exc:  # ssl.SSLError too
            raise ConfigError(f"ca: {self.ca}: {exc.strerror or exc}") from exc

    def at(self, server: str | None) -> "Profile":
        """The same at another Thrift address, which is not told the token of this one."""
        if server in (None, self.server):
            return self
        return Profile(server=server or LOCAL, token=os.environ.get(TOKEN))


def load(name: str | None = None, file: Path | None = None) -> Profile:
    """The profile of that name. Without a name that of the environment, or `default`, which is
    that of a standalone on this machine when there is no file. Raises ConfigError."""
    wanted = name or os.environ.get(NAME) or DEFAULT
    path = file or default_file()
    known = _read(path) if path.exists() else {}
    if wanted not in known and (wanted != DEFAULT or file is not None):
        raise ConfigError(f"profile {wanted!r}: is not in {path}")
    found = _profile(f"{path}: {wanted}", known.get(wanted, {}))
    if found.token is not None:
        _complain_when_open(path)
    given = os.environ.get(TOKEN)
    return replace(found, token=given) if given else found


def default_file() -> Path:
    """SORAKA_PROFILES of the environment, or in the user's folder of settings."""
    named = os.environ.get(FILE)
    if named:
        return Path(named)
    # not Path.expanduser, which raises for a user without a home
    return Path(os.environ.get("XDG_CONFIG_HOME") or os.path.expanduser("~/.config"), "soraka.toml")


def _read(path: Path) -> dict[str, Any]:
    try:
        return tomllib.loads(path.read_text("utf-8"))
    except OSError as exc:
        raise ConfigError(f"{path}: {exc.strerror}") from exc
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as exc:
        raise ConfigError(f"{path}: not TOML: {exc}") from exc


def _profile(where: str, given: Any) -> Profile:
    allowed = [field.name for field in fields(Profile)]
    if not isinstance(given, dict):
        raise ConfigError(f"{where}: must be a section, with {', '.join(allowed)}")
    for key, value in given.items():
        if key not in allowed:
            raise ConfigError(f"{where}.{key}: unknown key; allowed: {', '.join(allowed)}")
        if not isinstance(value, str) or not value:
            raise ConfigError(f"{where}.{key}: must be a text")
    return Profile(**given)


def _complain_when_open(path: Path) -> None:
    if path.stat().st_mode & (stat.S_IRGRP | stat.S_IROTH):
        log.warning("%s holds a token, and others can read it: chmod 600", path)
