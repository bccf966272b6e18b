"""The directory of one stack.

lock           one command at a time
stack.json     ports, pids, directories and the exact command lines
soraka.toml    configuration for the roles
tls/           certificates, with servers that have TLS
NAME/          configuration and data of one server
logs/NAME.log  its output, appended
"""

import contextlib
import fcntl
import json
import shutil
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path

from . import StackError, secured
from .processes import is_ours
from .specs import BY_NAME, SPECS, Spec, Template


@dataclass
class Server:
    """One server as stack.json records it; `pid` is None when it was stopped by us."""

    ports: dict[str, int]
    argv: list[str]
    dir: str
    config: str
    log: str
    pid: int | None = None

    @property
    def running(self) -> bool:
        """Whether the recorded pid is alive and still ours."""
        return is_ours(self.pid, self.config)

    @property
    def port(self) -> int:
        """The port for clients, the first of its ports."""
        return next(iter(self.ports.values()))


@dataclass
class Stack:
    """The servers of one directory, in the order in which they start."""

    dir: Path
    servers: dict[str, Server]

    @classmethod
    def load(cls, directory: Path) -> "Stack":
        """Read stack.json; a directory without one is an empty stack."""
        try:
            recorded = json.loads((directory / "stack.json").read_text())
        except FileNotFoundError:
            return cls(directory, {})
        except ValueError as error:
            raise StackError(f"{directory / 'stack.json'} is damaged: {error}") from error
        servers = {name: Server(**values) for name, values in recorded["servers"].items()}
        return cls(directory, servers)

    def save(self) -> None:
        """Write stack.json and soraka.toml; readers never see half a file."""
        self.servers = {spec.name: self.servers[spec.name] for spec in self.specs}
        recorded = {
            "dir": str(self.dir),
            "config": str(self.dir / "soraka.toml"),
            "ports": self.ports,
            "servers": {name: asdict(server) for name, server in self.servers.items()},
        }
        self._replace("stack.json", json.dumps(recorded, indent=2) + "\n")
        self._replace("soraka.toml", self.toml())

    @property
    def specs(self) -> list[Spec]:
        """The kinds of the recorded servers."""
        return [spec for spec in SPECS if spec.name in self.servers]

    @property
    def ports(self) -> dict[str, int]:
        """All recorded ports by name."""
        return {
            name: port for server in self.servers.values() for name, port in server.ports.items()
        }

    @property
    def tls(self) -> Path:
        """Where the certificates are, if any server has TLS."""
        return self.dir / "tls"

    def get(self, name: str) -> Server:
        """Return the record of `name`, or say that this stack has no such server."""
        if name not in self.servers:
            raise StackError(f"no {name} in {self.dir}: dev/stack up --only {name} adds it")
        return self.servers[name]

    def configure(self, name: str, ports: dict[str, int]) -> None:
        """Write the configuration of the idle server `name` for `ports`, and record it."""
        spec = BY_NAME[name]
        config = spec.write(self.dir, ports)
        log = self.dir / "logs" / f"{name}.log"
        log.parent.mkdir(exist_ok=True)
        argv = spec.argv(config)
        self.servers[name] = Server(ports, argv, str(config.parent), str(config), str(log))

    def toml(self) -> str:
        """The configuration that the roles need to use these servers."""
        sections = [spec.section for spec in self.specs if spec.section]
        text = Template("\n".join(sections)).substitute(self.ports)
        if any(spec.secure for spec in self.specs):
            text += "\n" + secured.section(self.tls)
        return text

    def wipe(self) -> None:
        """Remove the directory, provided that it is a stack's: `--dir .` must not wipe a home."""
        if not (self.dir / "stack.json").exists():
            raise StackError(f"{self.dir} has no stack.json and is left alone")
        shutil.rmtree(self.dir)

    def _replace(self, name: str, text: str) -> None:
        scratch = self.dir / f"{name}.new"
        scratch.write_text(text)
        scratch.rename(self.dir / name)


@contextlib.contextmanager
def opened(directory: Path) -> Iterator[Stack]:
    """Load the stack of `directory` and keep other commands away from it."""
    directory.mkdir(parents=True, exist_ok=True)
    with (directory / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield Stack.load(directory)
