"""The command line of `dev/stack`."""

import argparse
import signal
import sys
from collections.abc import Sequence
from pathlib import Path

from . import StackError, commands, install
from .ports import Choice
from .specs import BY_NAME, PLAIN, SPECS, USUAL_PORTS, Spec
from .state import Stack, opened

EPILOG = """\
up prints the configuration for the roles, which is also DIR/soraka.toml; DIR/stack.json has ports,
pids and command lines, DIR/logs the output of each server. A stack keeps its ports and data until
`down --wipe`.

Exit status: 0 done (status: all servers answer), 1 failed, 2 wrong usage, 3 not installed.
"""


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command and return its exit status."""
    options = _parser().parse_args(argv)
    signal.signal(signal.SIGTERM, _interrupt)
    try:
        return _dispatch(options)
    except StackError as error:
        print(f"dev/stack: {error}", file=sys.stderr)
        return error.code
    except KeyboardInterrupt:
        return 130


def _dispatch(options: argparse.Namespace) -> int:
    if options.command == "install":
        install.install()
        return 0
    directory = options.dir.resolve()
    if options.command == "status":
        return 0 if commands.status(Stack.load(directory)) else 1
    if options.command == "down" and not directory.exists():
        return 0
    with opened(directory) as stack:
        _change(stack, options)
    return 0


def _change(stack: Stack, options: argparse.Namespace) -> None:
    if options.command == "up":
        commands.up(stack, options.only, _choice(options), options.timeout)
        print(stack.toml(), end="")
    elif options.command == "down":
        commands.down(stack, options.wipe)
    elif options.command == "start":
        commands.start(stack, options.name, options.timeout)
    else:
        commands.stop(stack, [options.name], signal.Signals[f"SIG{options.signal}"])


def _choice(options: argparse.Namespace) -> Choice:
    given = {name: getattr(options, f"{name}_port") for name in USUAL_PORTS}
    single = {name: port for name, port in given.items() if port is not None}
    auto = options.ports == "auto"
    return Choice(single, None if auto else options.ports, auto)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="dev/stack",
        description="Redis, Kafka, ZooKeeper and nginx on 127.0.0.1, for development and tests.",
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    commands_of = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    commands_of.add_parser("install", help="install the system packages and fetch the jars")
    up = commands_of.add_parser("up", help="start what does not run, wait until all answer")
    _add_up_options(up)
    down = commands_of.add_parser("down", help="end all servers")
    down.add_argument("--wipe", action="store_true", help="remove the directory too")
    status = commands_of.add_parser("status", help="show the servers")
    start = commands_of.add_parser("start", help="start one server again, same ports and data")
    stop = commands_of.add_parser("stop", help="end one server")
    stop.add_argument("--signal", choices=["TERM", "INT", "KILL"], default="TERM")
    for single in (start, stop):
        single.add_argument("name", choices=list(BY_NAME))
    for waiting in (up, start):
        waiting.add_argument("--timeout", type=float, default=60, help="seconds (60)")
    for command in (up, down, status, start, stop):
        command.add_argument("--dir", type=Path, default=Path(".stack"), help="(.stack)")
    return parser


def _add_up_options(up: argparse.ArgumentParser) -> None:
    up.add_argument(
        "--only",
        type=_specs,
        default=PLAIN,
        metavar="NAME,...",
        help=f"these servers alone, of {', '.join(BY_NAME)}; not one kind with TLS and without",
    )
    up.add_argument(
        "--ports",
        "--port-base",
        type=_ports,
        metavar="auto|BASE",
        help="free ports, or consecutive ones from BASE; the usual ones otherwise",
    )
    for name, number in USUAL_PORTS.items():
        role = "nginx passes requests on to" if name in ("receive", "admin") else "listens on"
        option = f"--{name.replace('_', '-')}-port"
        up.add_argument(option, type=_port, metavar="N", help=f"{role} this port ({number})")


def _specs(text: str) -> list[Spec]:
    names = text.split(",")
    unknown = sorted(set(names) - set(BY_NAME))
    if unknown:
        raise argparse.ArgumentTypeError(f"no server is called {', '.join(unknown)}")
    both = [name for name in names if f"{name}-tls" in names]
    if both:
        raise argparse.ArgumentTypeError(f"{both[0]} with TLS and without are two stacks")
    return [spec for spec in SPECS if spec.name in names]


def _ports(text: str) -> int | str:
    return text if text == "auto" else _port(text)


def _port(text: str) -> int:
    number = int(text)
    if not 0 < number < 65_536:
        raise argparse.ArgumentTypeError(f"{number} is not a port")
    return number


def _interrupt(_number: int, _frame: object) -> None:
    raise KeyboardInterrupt
