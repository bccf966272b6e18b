"""The `soraka` command: starts the roles, and is a client of a running deployment.

Roles are imported by their commands alone, after gevent has patched the process.
"""

import dataclasses
import json
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import click

from soraka import __version__, config
from soraka.errors import ConfigError, SorakaError

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
_STANDALONE = config.override(
    config.Config(), {"topics": {"auto_create": True}, "process": {"log_format": "text"}}
)


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
    inner = {"host": host, "thrift_port": 0 if thrift_port == 0 else None}
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
    loaded = _load(file)
    from receive_app.wsgi import ReceiveServer  # gunicorn patches its workers by itself

    with _errors():
        ReceiveServer(loaded).run()


@main.command()
@_CONFIG
def center(file: Path | None) -> None:
    """Reads the log, schedules messages in the store and gives them to workers."""
    loaded = _load(file)
    _patch()
    from center.main import run

    with _errors():
        run(loaded)


@main.command()
@_CONFIG
def worker(file: Path | None) -> None:
    """Makes the callbacks at their due times."""
    loaded = _load(file)
    _patch()
    from worker.main import run

    with _errors():
        run(loaded)


@main.command("config")
@_CONFIG
def show_config(file: Path | None) -> None:
    """Prints every setting as it is in force, with its meaning."""
    click.echo(config.describe(_load(file)))


# --------------------------------------------------------------------------- client


@main.command()
@_SERVER
@click.argument("topic")
@click.argument("url")
@click.option("--delay", type=int, help="Milliseconds from now.  [default: 0]")
@click.option("--at", type=int, help="Due time, epoch milliseconds, in place of --delay.")
@click.option("--method", type=click.Choice(["GET", "POST"]), default="POST", show_default=True)
@click.option("--params", help="A JSON object.")
@click.option("--ttr", type=int, help="Deadline of the call, milliseconds.  [default: 1000]")
@click.option("--retry", help="Delays between attempts, e.g. 1000,60000; '' for one attempt.")
@click.option("--id", "msg_id", help="A UUIDv7 of your own, to make the submit repeatable.")
def submit(
    server: str,
    topic: str,
    url: str,
    delay: int | None,
    at: int | None,
    method: str,
    params: str | None,
    ttr: int | None,
    retry: str | None,
    msg_id: str | None,
) -> None:
    """Submits a message to TOPIC that calls URL; prints its id."""
    import idl

    try:
        delays = None if retry is None else [int(item) for item in retry.split(",") if item]
    except ValueError:
        raise click.BadParameter(
            "must be integers, comma-separated", param_hint="--retry"
        ) from None
    submission = idl.soraka.Submission(
        topic_name=topic,
        delay_time=0 if delay is None and at is None else delay,
        deliver_at=at,
        ttr=ttr,
        callback=idl.soraka.Callback(
            request_type=idl.soraka.RequestType._NAMES_TO_VALUES[method], url=url, params=params
        ),
        retry_delays=delays,
        msg_id=msg_id,
    )
    click.echo(_call(server, "submit", submission=submission))


@main.command()
@_SERVER
@click.argument("topic")
@click.argument("msg_id")
def cancel(server: str, topic: str, msg_id: str) -> None:
    """Cancels a message that was not called yet."""
    _call(server, "cancel", topic_name=topic, msg_id=msg_id, command_id=None)
    click.echo("cancelled")


@main.command("add-time")
@_SERVER
@click.argument("topic")
@click.argument("msg_id")
@click.argument("milliseconds", type=int)
def add_time(server: str, topic: str, msg_id: str, milliseconds: int) -> None:
    """Moves the due time of a message MILLISECONDS later."""
    _call(
        server,
        "addTime",
        topic_name=topic,
        msg_id=msg_id,
        add_time=milliseconds,
        command_id=None,
    )
    click.echo("postponed")


@main.command()
@_SERVER
@click.argument("msg_id")
def show(server: str, msg_id: str) -> None:
    """Prints where a message is, as JSON."""
    import idl

    info = _call(server, "get", msg_id=msg_id)
    shown = {key: value for key, value in vars(info).items() if value is not None}
    shown["state"] = idl.soraka.MessageState._VALUES_TO_NAMES[info.state].lower()
    shown["callback"] = vars(info.callback) | {
        "request_type": idl.soraka.RequestType._VALUES_TO_NAMES[info.callback.request_type]
    }
    click.echo(json.dumps(shown, indent=2))


@main.group()
def topic() -> None:
    """Topics of a deployment, in its ZooKeeper. (standalone creates topics by itself.)"""


@topic.command("add")
@_CONFIG
@click.argument("name")
@click.option("--business", default="", help="Whose it is.")
@click.option("--balance", type=click.Choice(["round_robin", "random"]), help="Choice of workers.")
@click.option("--worker", "workers", multiple=True, help="ip:port that may hold it; repeatable.")
@click.option("--retry", type=int, multiple=True, help="Delay before a next attempt; repeatable.")
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
@click.option("--balance", type=click.Choice(["round_robin", "random"]), help="Choice of workers.")
@click.option("--worker", "workers", multiple=True, help="ip:port that may hold it; repeatable.")
@click.option("--retry", type=int, multiple=True, help="Delay before a next attempt; repeatable.")
def topic_update(file: Path | None, name: str, **given: Any) -> None:
    """Changes settings of the topic NAME."""
    with _errors(), _topics(file) as topics:
        topics.registry.put_topic(_changed(topics.get(name), given), create=False)
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


def _call(server: str, method: str, **arguments: Any) -> Any:
    """One call of the public Thrift service; its typed exceptions as one line for people."""
    from thriftpy2.thrift import TException

    import idl
    from soraka.rpc import RpcClient, parse_address

    try:
        address = parse_address(server)
    except ValueError:
        raise click.BadParameter("must be host:port", param_hint="--server") from None
    client = RpcClient(idl.soraka.Soraka, address, timeout_ms=10_000)
    with _errors():
        try:
            return client.call(method, **arguments)
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
    from soraka.wiring import open_topics

    with open_topics(loaded) as topics:
        yield topics


def _changed(topic: Any, given: Mapping[str, Any]) -> Any:
    changes = {key: value for key, value in given.items() if value not in (None, ())}
    if "retry" in changes:
        changes["retry_ms"] = changes.pop("retry")
    return dataclasses.replace(topic, **changes)
