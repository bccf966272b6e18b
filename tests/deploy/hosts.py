"""Hosts by number: python -m tests.deploy.hosts {up,exec,ssh,off,on,down} ... (see README.md)."""

import argparse
import json
import os
import shutil
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from tests.deploy import host, image, inventory, room
from tests.deploy.host import Host
from tests.deploy.room import Room

FIRST_ADDRESS = 11


class Hosts:
    """All of one room. `home` is theirs; `hosts` by name."""

    def __init__(self, home: Path, its_room: Room, names: Sequence[str] = ()) -> None:
        self.home = home
        self.room = its_room
        self.hosts: dict[str, Host] = {}
        for name in names:
            self._place(name)

    @classmethod
    def begin(cls, home: Path, *, lasting: bool = False) -> "Hosts":
        """An empty room; it ends with this process, unless it is `lasting`."""
        image.packages()  # makes the base tree, too
        home.mkdir(parents=True, exist_ok=True)
        made = cls(home, room.start(str(home), lasting=lasting))
        host.make_key(home / "key")
        made._record()
        return made

    @classmethod
    def found(cls, home: Path) -> "Hosts":
        """Those that another process began. Raises FileNotFoundError when there are none."""
        state = json.loads((home / "hosts.json").read_text())
        return cls(home, Room(state["room"]), state["hosts"])

    def __getitem__(self, name: str) -> Host:
        return self.hosts[name]

    def add(self, *names: str) -> None:
        """Returns when they have booted."""
        new = [self._place(name) for name in names]
        for each in new:
            each.create()
            each.boot()
        self._record()
        for each in new:
            each.wait()

    def replace(self, name: str, by: str) -> None:
        """`name` is gone for good; from now on it is what `by` was, with that one's address."""
        self.hosts[f"old {name}"] = self.hosts[name]
        self.hosts[name] = self.hosts.pop(by)

    def write_inventory(self, groups: inventory.Groups, **variables: Any) -> Path:
        """`groups`: names of hosts by group. The file is in `home`."""
        file = self.home / "inventory.yml"
        addresses = {name: each.address for name, each in self.hosts.items() if " " not in name}
        # the connections of each room by themselves: addresses are the same in all
        ssh = [*host.ssh_options(self.home), f"-oControlPath={self.home}/%C"]
        text = inventory.text(addresses, groups, ssh, variables)
        file.write_text(text)
        return file

    def argv(self, *command: str) -> list[str]:
        """What runs `command` on the machine that ansible is to run on; it ends with the room."""
        return ["nsenter", f"--target={self.room.pid}", "--net", "--pid", "--", *command]

    def close(self) -> None:
        """Safe to repeat."""
        self.room.close()
        for name in list(self.hosts):
            self.hosts.pop(name).destroy()
        shutil.rmtree(self.home, ignore_errors=True)

    def _place(self, name: str) -> Host:
        number = FIRST_ADDRESS + len(self.hosts)
        self.hosts[name] = Host(self.room, self.home, name, number)
        return self.hosts[name]

    def _record(self) -> None:
        state = {"room": self.room.pid, "hosts": list(self.hosts)}
        (self.home / "hosts.json").write_text(json.dumps(state))


def main() -> int:
    options = _parser().parse_args()
    home = options.dir.resolve()
    if options.command == "up":
        return _up(home, options.number, options.layout)
    hosts = Hosts.found(home)
    if not room.is_room(hosts.room.pid, str(home)):
        print("their room is gone", file=sys.stderr)
        if options.command != "down":
            return 1
    if options.command == "down":
        hosts.close()
    elif options.command == "exec":
        command = hosts.argv(*options.argv)
        os.execvp(command[0], command)
    elif options.command == "ssh":
        done = hosts[options.name].ssh(" ".join(options.argv), timeout_s=600)
        print(done.stdout + done.stderr, end="")
        return done.returncode
    elif options.command == "off":
        hosts[options.name].power_off()
    else:
        hosts[options.name].boot()
        hosts[options.name].wait()
    return 0


def _up(home: Path, number: int, layout: str) -> int:
    hosts = Hosts.begin(home, lasting=True)
    try:
        hosts.add(*(f"host{i}" for i in range(1, number + 1)))
        groups = inventory.LAYOUTS[layout]
        print(hosts.write_inventory(groups).read_text(), end="")
    except BaseException:
        hosts.close()
        raise
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m tests.deploy.hosts")
    commands = parser.add_subparsers(dest="command", required=True)
    up = commands.add_parser("up", help="boot so many; prints an inventory")
    up.add_argument("number", type=int)
    up.add_argument("--layout", choices=list(inventory.LAYOUTS), default="bare")
    execute = commands.add_parser("exec", help="run a command that reaches them: -- COMMAND ...")
    ssh = commands.add_parser("ssh", help="run a command on one, as root: NAME -- COMMAND")
    off = commands.add_parser("off", help="pull the plug of one")
    on = commands.add_parser("on", help="boot it again")
    down = commands.add_parser("down", help="take all away")
    for single in (ssh, off, on):
        single.add_argument("name")
    for long in (execute, ssh):
        long.add_argument("argv", nargs="+")
    for command in (up, execute, ssh, off, on, down):
        command.add_argument("--dir", type=Path, required=True)
    return parser


if __name__ == "__main__":
    sys.exit(main())
