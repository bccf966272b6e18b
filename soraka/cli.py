"""The `soraka` command: starts the roles, and is a client of a running deployment.

Roles are imported by their commands alone, after gevent has patched the process.
"""

from pathlib import Path
from typing import Any

import click

from soraka import (
    __version__,
    cli_admin,
    cli_messages,
    cli_rebalance,
    cli_rebuild,
    cli_token,
    cli_topic,
    config,
)
from soraka.cli_shared import CONFIG, errors, load, patch, shared

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
      soraka receive | admin | center | worker --config soraka.toml
    `soraka config` prints every setting with its meaning.

    Commands that call a deployment find it, and their token, in ~/.config/soraka.toml:

    \b
      [default]
      server = "10.0.0.5:30003"
      token = "soraka_..."
    """


@main.command()
@CONFIG
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
    files = {"accounts": "admin.json", "audit": "audit.jsonl"}
    kept = {key: data_dir and str(data_dir / name) for key, name in files.items()}
    sections: dict[str, dict[str, Any]] = {
        "log": {"path": data_dir and str(data_dir / "log.db")},
        "store": {"path": data_dir and str(data_dir / "store.db")},
        "registry": {"path": data_dir and str(data_dir / "topics.json")},
        "receive": {"host": host, "port": receive_port, "thrift_port": thrift_port},
        "admin": {"host": host, "port": admin_port, **kept},
        "center": inner,
        "worker": inner,
    }
    loaded = load(file, sections, base=_STANDALONE)
    patch()
    from soraka.standalone import run

    with errors():
        run(loaded)


@main.command()
@CONFIG
def receive(file: Path | None) -> None:
    """Accepts submits, cancels and add-times, over HTTP and Thrift."""
    loaded = shared(load(file))
    from receive_app.wsgi import ReceiveServer  # gunicorn patches its workers by itself

    with errors():
        ReceiveServer(loaded).run()


@main.command()
@CONFIG
def center(file: Path | None) -> None:
    """Reads the log, schedules messages in the store and gives them to workers."""
    loaded = shared(load(file))
    patch()
    from center.main import run

    with errors():
        run(loaded)


@main.command()
@CONFIG
def worker(file: Path | None) -> None:
    """Makes the callbacks at their due times."""
    loaded = shared(load(file))
    patch()
    from worker.main import run

    with errors():
        run(loaded)


@main.command("config")
@CONFIG
@click.option("--standalone", "alone", is_flag=True, help="As `soraka standalone` runs with.")
def show_config(file: Path | None, alone: bool) -> None:
    """Prints every setting as it is in force, with its meaning."""
    click.echo(config.describe(load(file, base=_STANDALONE if alone else None)))


for command in (
    cli_admin.admin,
    cli_messages.submit,
    cli_messages.cancel,
    cli_messages.add_time,
    cli_messages.show,
    cli_topic.topic,
    cli_token.token,
    cli_rebalance.rebalance,
    cli_rebuild.rebuild,
):
    main.add_command(command)
