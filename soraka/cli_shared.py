"""What the commands of `soraka` share: options, settings, errors as one line, one Thrift call."""

import os
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from functools import wraps
from pathlib import Path
from typing import Any, NamedTuple

import click

from soraka import config, profiles
from soraka.errors import ConfigError, PeerUnavailable, SorakaError
from soraka.limits import MAX_DELAY_MS

CONFIG = click.option(
    "--config",
    "file",
    type=click.Path(path_type=Path, dir_okay=False),
    envvar="SORAKA_CONFIG",
    help="TOML file of settings; SORAKA_<SECTION>_<KEY> in the environment overrides it.",
)
_PROFILE = click.option(
    "--profile",
    metavar="NAME",
    help="Section of the file of profiles (SORAKA_PROFILES, or ~/.config/soraka.toml): server, "
    "token, ca.  [default: SORAKA_PROFILE, or default]",
)
_SERVER = click.option(
    "--server",
    envvar="SORAKA_SERVER",
    help="Thrift address of receive.  [default: that of the profile, or 127.0.0.1:30003]",
)
_CA = click.option(
    "--ca",
    type=click.Path(path_type=Path, dir_okay=False),
    envvar="SORAKA_SERVER_CA",
    help="PEM file of the CA of its certificate, when it speaks TLS (tls.thrift).  [default: ca of "
    "the profile]",
)
TIMEOUT = click.option(
    "--timeout",
    type=click.FloatRange(0.001, 3600),
    default=10.0,
    show_default=True,
    help="Seconds to wait for the answer.",
)
MS = click.IntRange(0, MAX_DELAY_MS)


class List(click.ParamType[Any]):
    """Comma-separated; '' for none. Each item is what `item` makes of it."""

    name = "list"

    def __init__(self, metavar: str, item: click.ParamType[Any]) -> None:
        self._metavar = metavar
        self._item = item

    def get_metavar(self, *_: Any, **__: Any) -> str:
        return self._metavar

    def convert(
        self, value: Any, param: click.Parameter | None, ctx: click.Context | None
    ) -> tuple[Any, ...]:
        items = [item.strip() for item in value.split(",")] if value.strip() else []
        return tuple(self._item.convert(item, param, ctx) for item in items)


DELAYS = List("MS,...", MS)
ADDRESSES = List("IP:PORT,...", click.STRING)


def load(
    file: Path | None,
    sections: Mapping[str, Mapping[str, Any]] | None = None,
    base: config.Config | None = None,
) -> config.Config:
    """Settings; `sections` come from the command line and override, but for None."""
    given = {
        section: {key: value for key, value in keys.items() if value is not None}
        for section, keys in (sections or {}).items()
    }
    try:
        return config.override(config.load(file, os.environ, base=base), given)
    except ConfigError as exc:
        raise click.ClickException(str(exc)) from exc


def shared(loaded: config.Config) -> config.Config:
    """Refuses adapters that other processes see nothing of."""
    alone = [
        f"{section}.adapter = {adapter!r}"
        for section, adapter, own in (
            ("registry", loaded.registry.adapter, "local"),
            ("log", loaded.log.adapter, "sqlite"),
            ("store", loaded.store.adapter, "sqlite"),
        )
        if adapter == own
    ]
    if alone:
        raise click.ClickException(
            f"{', '.join(alone)}: of one process alone, so this role would find no other; run "
            "`soraka standalone`, or give the --config of a deployment with ZooKeeper, Kafka and "
            "Redis (`dev/stack up` starts them and prints one)"
        )
    return loaded


@contextmanager
def errors() -> Iterator[None]:
    """What went wrong, as one line for people."""
    try:
        yield
    except (SorakaError, OSError) as exc:
        raise click.ClickException(str(exc)) from exc


def patch() -> None:
    from gevent import monkey

    monkey.patch_all()


class Target(NamedTuple):
    """The receive that a command calls."""

    server: str
    token: str | None
    timeout_s: float
    ca: Path | None = None
    """Of its certificate, when it speaks TLS."""


def for_clients(command: Callable[..., None]) -> Callable[..., None]:
    """Options of a command that calls receive; it gets a `target`."""

    @_PROFILE
    @_SERVER
    @_CA
    @TIMEOUT
    @wraps(command)
    def run(
        profile: str | None, server: str | None, ca: Path | None, timeout: float, **given: Any
    ) -> None:
        with errors():
            found = profiles.load(profile).at(server)
        trusted = ca or (Path(found.ca) if found.ca else None)
        command(Target(found.server, found.token, timeout, trusted), **given)

    return run


def call(target: Target, method: str, **arguments: Any) -> Any:
    """One call of the public Thrift service; its typed exceptions as one line for people."""
    patch()  # else no timeout ends a wait
    from thriftpy2.thrift import TException

    import idl
    from soraka import tls
    from soraka.rpc import RpcClient, parse_address

    try:
        address = parse_address(target.server)
    except ValueError:
        raise click.BadParameter("must be host:port", param_hint="--server") from None
    with errors():
        trusted = config.TlsConfig(ca=str(target.ca))
        client = RpcClient(
            idl.soraka.Soraka,
            address,
            timeout_ms=int(target.timeout_s * 1000),
            secured=tls.client(trusted, "--ca") if target.ca else None,
        )
        try:
            if target.token is not None:
                client.call("authenticate", token=target.token)
            return client.call(method, **arguments)
        except PeerUnavailable as exc:
            raise click.ClickException(f"{exc}: is soraka running there? (--server)") from exc
        except TException as exc:
            raise click.ClickException(getattr(exc, "em", None) or str(exc)) from exc
        finally:
            client.close()
