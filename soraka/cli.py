"""The `soraka` command: starts the roles, and is a client of a running deployment.

Roles are imported by their commands alone, after gevent has patched the process.
"""

import dataclasses
import json
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import click

from soraka import __version__, config
from soraka.errors import ConfigError, PeerUnavailable, SorakaError, TopicNotFound
from soraka.message import BALANCES, MAX_DELAY_MS

_CONFIG = click.option(
    "--config",
    "file",
    type=click.Path(path_type=Path, dir_okay=False),
    envvar="SORAKA_CONFIG",
    help="TOML file of settings; SORAKA_<SECTION>_<KEY> in the environment overrides it.",
)
_SERVER = click.option(
    "--server",
    default="127.0.0.1:30003",
    envvar="SORAKA_SERVER",
    show_default=True,
    help="Thrift address of receive.",
)
_TIMEOUT = click.option(
    "--timeout",
    type=click.FloatRange(0.001, 3600),
    default=10.0,
    show_default=True,
    help="Seconds to wait for the answer.",
)
_MS = click.IntRange(0, MAX_DELAY_MS)
_I64 = click.IntRange(0, 2**63 - 1)
# The worker and center of a standalone are reached by nobody else: any free port will do.
_STANDALONE = config.override(
    config.Config(),
    {
        "topics": {"auto_create": True},
        "process": {"log_format": "text"},
        "center": {"thrift_port": 0},
        "worker": {"thrift_port": 0},
    },
)


class _List(click.ParamType[Any]):
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


_DELAYS = _List("MS,...", _MS)
_ADDRESSES = _List("IP:PORT,...", click.STRING)


@click.group(context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100})
@click.version_option(__version__)
def main() -> None:
    """A distributed delayed-message queue: "call this URL with these params in N ms".

    \b
    Start here, with nothing but Python:
      soraka standalone
      soraka submit greetings http://127.0.0.1:8000/hello --delay 3000 --params '{"name": "you"}'
      soraka show ID
      soraka cancel greetings ID

    \b
    A deployment runs these, each as often as you like, with one config file:
      soraka receive | center | worker --config soraka.toml
    `soraka config` prints every setting with its meaning.
    """


# --------------------------------------------------------------------------- roles


@main.command()
@_CONFIG
@click.option("--data-dir", type=click.Path(path_type=Path), help="Where everything is kept.")
@click.option("--host", help="Address to listen on.")
@click.option("--receive-port", type=int, help="HTTP port of receive; 0 chooses.")
@click.option("--admin-port", type=int, help="HTTP port of admin; 0 chooses.")
@click.option("--thrift-port", type=int, help="Public Thrift port; 0 chooses.")
def standalone(
    file: Path | None,
    data_dir: Path | None,
    host: str | None,
    receive_port: int | None,
    admin_port: int | None,
    thrift_port: int | None,
) -> None:
    """All roles in one process, kept in SQLite files under --data-dir (default .soraka).

    Topics are created by their first message. Ctrl-C stops it. Nothing accepted is lost, also
    not by kill -9.
    """
    inner = {"host": host}
    sections: dict[str, dict[str, Any]] = {
        "log": {"path": data_dir and str(data_dir / "log.db")},
        "store": {"path": data_dir and str(data_dir / "store.db")},
        "registry": {"path": data_dir and str(data_dir / "topics.json")},
        "receive": {"host": host, "port": receive_port, "thrift_port": thrift_port},
        "admin": {"host": host, "port": admin_port},
        "center": inner,
        "worker": inner,
    }
    loaded = _load(file, sections, base=_STANDALONE)
    _patch()
    from soraka.standalone import run

    with _errors():
        run(loaded)


@main.command()
@_CONFIG
def receive(file: Path | None) -> None:
    """Accepts submits, cancels and add-times, over HTTP and Thrift."""
    loaded = _shared(_load(file))
    from receive_app.wsgi import ReceiveServer  # gunicorn patches its workers by itself

    with _errors():
        ReceiveServer(loaded).run()


@main.command()
@_CONFIG
def center(file: Path | None) -> None:
    """Reads the log, schedules messages in the store and gives them to workers."""
    loaded = _shared(_load(file))
    _patch()
    from center.main import run

    with _errors():
        run(loaded)


@main.command()
@_CONFIG
def worker(file: Path | None) -> None:
    """Makes the callbacks at their due times."""
    loaded = _shared(_load(file))
    _patch()
    from worker.main import run

    with _errors():
        run(loaded)


@main.command("config")
@_CONFIG
@click.option("--standalone", "alone", is_flag=True, help="As `soraka standalone` runs with.")
def show_config(file: Path | None, alone: bool) -> None:
    """Prints every setting as it is in force, with its meaning."""
    click.echo(config.describe(_load(file, base=_STANDALONE if alone else None)))


# --------------------------------------------------------------------------- client


@main.command()
@_SERVER
@_TIMEOUT
@click.argument("topic")
@click.argument("url")
@click.option("--delay", type=_MS, metavar="MS", help="From now, up to 7 days.  [default: 0]")
@click.option("--at", type=_I64, metavar="MS", help="Due time since the epoch, not --delay.")
@click.option("--method", type=click.Choice(["GET", "POST"]), default="POST", show_default=True)
@click.option("--params", metavar="JSON", help="A JSON object.")
@click.option("--ttr", type=_I64, metavar="MS", help="Deadline of the call.  [default: 1000]")
@click.option("--retry", type=_DELAYS, help="Delays between attempts; '' for one attempt.")
@click.option("--id", "msg_id", help="A UUIDv7 of your own, to make the submit repeatable.")
def submit(
    server: str,
    timeout: float,
    topic: str,
    url: str,
    delay: int | None,
    at: int | None,
    method: str,
    params: str | None,
    ttr: int | None,
    retry: tuple[int, ...] | None,
    msg_id: str | None,
) -> None:
    """Submits a message to TOPIC that calls URL; prints its id."""
    _patch()
    import idl

    submission = idl.soraka.Submission(
        topic_name=topic,
        delay_time=0 if delay is None and at is None else delay,
        deliver_at=at,
        ttr=ttr,
        callback=idl.soraka.Callback(
            request_type=idl.soraka.RequestType._NAMES_TO_VALUES[method], url=url, params=params
        ),
        retry_delays=None if retry is None else list(retry),
        msg_id=msg_id,
    )
    click.echo(_call(server, timeout, "submit", submission=submission))


@main.command()
@_SERVER
@_TIMEOUT
@click.argument("topic")
@click.argument("msg_id")
def cancel(server: str, timeout: float, topic: str, msg_id: str) -> None:
    """Cancels a message that was not called yet."""
    _call(server, timeout, "cancel", topic_name=topic, msg_id=msg_id, command_id=None)
    click.echo("cancelled")


# without ignore_unknown_options -5 would be taken for an option
@main.command("add-time", context_settings={"ignore_unknown_options": True})
@_SERVER
@_TIMEOUT
@click.argument("topic")
@click.argument("msg_id")
@click.argument("milliseconds", type=click.IntRange(1, MAX_DELAY_MS))
def add_time(server: str, timeout: float, topic: str, msg_id: str, milliseconds: int) -> None:
    """Moves the due time of a message MILLISECONDS later."""
    _call(
        server,
        timeout,
        "addTime",
        topic_name=topic,
        msg_id=msg_id,
        add_time=milliseconds,
        command_id=None,
    )
    click.echo("postponed")


@main.command()
@_SERVER
@_TIMEOUT
@click.argument("msg_id")
def show(server: str, timeout: float, msg_id: str) -> None:
    """Prints where a message is, as JSON."""
    info = _call(server, timeout, "get", msg_id=msg_id)
    click.echo(json.dumps(_shown(info), indent=2, ensure_ascii=False))


def _shown(info: Any) -> dict[str, Any]:
    """A MessageInfo for people: names for numbers, moments as dates too, params as they are."""
    import idl

    shown: dict[str, Any] = {}
    for key, value in vars(info).items():
        if value is not None:
            shown[key] = value
        if value is not None and key in _MOMENTS:
            shown[f"{key}_utc"] = _utc(value)
    shown["state"] = idl.soraka.MessageState._VALUES_TO_NAMES[info.state].lower()
    shown["callback"] = {
        "request_type": idl.soraka.RequestType._VALUES_TO_NAMES[info.callback.request_type],
        "url": info.callback.url,
    }
    if info.callback.params is not None:
        shown["callback"]["params"] = json.loads(info.callback.params)
    return shown


_MOMENTS = ("created_at", "due_at", "lease_until", "finished_at")


def _utc(epoch_ms: int) -> str:
    moment = datetime.fromtimestamp(epoch_ms // 1000, UTC)
    return f"{moment:%Y-%m-%dT%H:%M:%S}.{epoch_ms % 1000:03}Z"


@main.group()
def topic() -> None:
    """Topics of a deployment, in its ZooKeeper. (standalone creates topics by itself.)"""


_WORKERS = click.option("--workers", type=_ADDRESSES, help="Those that may hold it; '' for all.")
_RETRY = click.option(
    "--retry",
    "retry_ms",
    type=_DELAYS,
    help="Delays between attempts, '' for one. A message keeps what it was at its submit.",
)


@topic.command("add")
@_CONFIG
@click.argument("name")
@click.option("--business", default="", help="Whose it is.")
@click.option("--balance", type=click.Choice(BALANCES), help="Choice of workers.")
@_WORKERS
@_RETRY
def topic_add(file: Path | None, name: str, **given: Any) -> None:
    """Creates the topic NAME and its log."""
    with _errors(), _topics(file) as topics:
        if not topics.add(_changed(topics.new(name), given)):
            raise click.ClickException(f"topic {name!r} exists already")
    click.echo(f"created {name}")


@topic.command("update")
@_CONFIG
@click.argument("name")
@click.option("--business", help="Whose it is.")
@click.option("--balance", type=click.Choice(BALANCES), help="Choice of workers.")
@_WORKERS
@_RETRY
def topic_update(file: Path | None, name: str, **given: Any) -> None:
    """Changes settings of the topic NAME."""
    with _errors(), _topics(file) as topics:
        if not topics.update(_changed(topics.find(name), given)):
            raise TopicNotFound(f"topic {name!r} does not exist")
    click.echo(f"updated {name}")


@topic.command("list")
@_CONFIG
def topic_list(file: Path | None) -> None:
    """Prints the topics, a JSON object per line."""
    with _errors(), _topics(file) as topics:
        for _, found in sorted(topics.registry.topics().items()):
            click.echo(json.dumps(dataclasses.asdict(found)))


# --------------------------------------------------------------------------- shared


def _load(
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


def _shared(loaded: config.Config) -> config.Config:
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
def _errors() -> Iterator[None]:
    """What went wrong, as one line for people."""
    try:
        yield
    except (SorakaError, OSError) as exc:
        raise click.ClickException(str(exc)) from exc


def _patch() -> None:
    from gevent import monkey

    monkey.patch_all()


def _call(server: str, timeout_s: float, method: str, **arguments: Any) -> Any:
    """One call of the public Thrift service; its typed exceptions as one line for people."""
    _patch()  # else no timeout ends a wait
    from thriftpy2.thrift import TException

    import idl
    from soraka.rpc import RpcClient, parse_address

    try:
        address = parse_address(server)
    except ValueError:
        raise click.BadParameter("must be host:port", param_hint="--server") from None
    client = RpcClient(idl.soraka.Soraka, address, timeout_ms=int(timeout_s * 1000))
    with _errors():
        try:
            return client.call(method, **arguments)
        except PeerUnavailable as exc:
            raise click.ClickException(f"{exc}: is soraka running there? (--server)") from exc
        except TException as exc:
            raise click.ClickException(getattr(exc, "em", None) or str(exc)) from exc
        finally:
            client.close()


@contextmanager
def _topics(file: Path | None) -> Iterator[Any]:
    """The topics of the configured deployment."""
    loaded = _load(file)
    if loaded.registry.adapter == "local":
        raise click.ClickException(
            "registry.adapter = 'local': its topics belong to the running standalone, which "
            "creates them by itself; give the --config of a deployment"
        )
    _patch()
    from soraka import logs
    from soraka.wiring import open_topics

    logs.silence()
    with open_topics(loaded) as topics:
        yield topics


def _changed(topic: Any, given: Mapping[str, Any]) -> Any:
    """`topic` with the options that were given, an empty one too."""
    return dataclasses.replace(topic, **{k: v for k, v in given.items() if v is not None})
