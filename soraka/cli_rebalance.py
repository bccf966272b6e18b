"""`soraka rebalance`: spreads the pending messages of a topic anew."""

import time
from collections.abc import Iterator, Sequence
from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from soraka.cli_shared import CONFIG, TIMEOUT, errors, load, patch
from soraka.config import Config
from soraka.errors import PeerUnavailable, TopicNotFound

if TYPE_CHECKING:
    from soraka.tls import Context

TRIES = 5
PAUSE_S = 1.0
TELL_EVERY_S = 1.0


@click.command()
@CONFIG
@TIMEOUT
@click.option(
    "--center",
    metavar="IP:PORT",
    help="Thrift address of a center.  [default: those in the registry; 127.0.0.1 and "
    "center.thrift_port where that is of one process]",
)
@click.argument("topic")
def rebalance(file: Path | None, timeout: float, center: str | None, topic: str) -> None:
    """Spreads the pending messages of TOPIC anew over the workers there are now.

    Each gets its share by the topic's strategy; no more is moved than that takes. For after
    workers were added or weights changed. It may be stopped and begun again at any time.
    """
    patch()
    with errors():
        from soraka import tls

        loaded = load(file)
        centers = [center] if center else _centers(loaded, topic)
        _, secured = tls.between_roles(loaded.tls)
        looked_at = moved = 0
        told = time.monotonic()
        for page in _pages(centers, topic, timeout, secured):
            looked_at += page.looked_at
            moved += page.moved
            if time.monotonic() - told >= TELL_EVERY_S:
                told = time.monotonic()
                click.echo(f"looked at {looked_at} messages, moved {moved}", err=True)
    click.echo(f"moved {moved} messages of {topic}")


def _centers(loaded: Config, topic: str) -> list[str]:
    """Addresses; never none. Raises TopicNotFound, RegistryUnavailable."""
    if loaded.registry.adapter == "local":
        if not loaded.center.thrift_port:
            raise click.ClickException("center.thrift_port = 0: give the address with --center")
        return [f"127.0.0.1:{loaded.center.thrift_port}"]
    from soraka import logs
    from soraka.wiring import open_registry

    logs.silence()
    with closing(open_registry(loaded)) as registry:
        if topic not in registry.topics():
            raise TopicNotFound(f"topic {topic!r} does not exist")
        if live := sorted(registry.live("center")):
            return live
    raise click.ClickException("no center is running")


def _pages(
    centers: Sequence[str], topic: str, timeout_s: float, secured: "Context | None"
) -> Iterator[Any]:
    """What each call did. A page may be asked for again, of any center."""
    cursor, failures, begun = "", 0, False
    while cursor or not begun:
        try:
            page = _page(centers[failures % len(centers)], topic, cursor, timeout_s, secured)
        except PeerUnavailable as exc:
            failures += 1
            if failures >= (TRIES + len(centers) if begun else len(centers)):
                raise click.ClickException(f"{exc}: is a center running there?") from exc
            time.sleep(PAUSE_S if begun else 0)
            continue
        begun, failures, cursor = True, 0, page.cursor
        yield page


def _page(center: str, topic: str, cursor: str, timeout_s: float, secured: "Context | None") -> Any:
    import idl
    from soraka.rpc import RpcClient, parse_address

    try:
        address = parse_address(center)
    except ValueError:
        raise click.BadParameter("must be host:port", param_hint="--center") from None
    client = RpcClient(
        idl.center.Center, address, timeout_ms=int(timeout_s * 1000), secured=secured
    )
    with closing(client):
        return client.call("rebalance", topic=topic, cursor=cursor)
