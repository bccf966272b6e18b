"""The four servers: ports, configuration, command line, and the question that proves them up.

Those whose names end in -tls are the same with TLS, users and passwords: their configuration is
that of the others and some lines more.
"""

import base64
import os
import string
import subprocess
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from . import StackError, jars, probes, secured
from .install import find

CONF = Path(__file__).parent / "conf"
# Quick to start rather than fast for long: ZooKeeper and Kafka's format tool never get hot.
QUICK = ("-XX:TieredStopAtLevel=1", "-XX:+UseSerialGC", "-Xshare:auto")


class Template(string.Template):
    """`@{name}`, because nginx has a use for the dollar sign."""

    delimiter = "@"


@dataclass(frozen=True)
class Spec:
    """One kind of server.

    `ports` are those it listens on, with their usual numbers, the clients' one first; `peers` are
    those it calls. `templates` make one file, with the name of the first. `argv` gets its path,
    which must be one of the arguments: a process is known as ours by it. `prepare` runs before
    each start. `answers` is asked at the port `asked`, the clients' by default.
    """

    name: str
    programs: tuple[str, ...]
    ports: Mapping[str, int]
    templates: tuple[str, ...]
    argv: Callable[[Path], list[str]]
    answers: Callable[[int, Path], bool]
    asked: str = ""
    peers: Mapping[str, int] = field(default_factory=dict)
    prepare: Callable[[Path], None] | None = None
    section: str = ""

    @property
    def port_names(self) -> list[str]:
        """The ports it listens on and those it calls."""
        return [*self.ports, *self.peers]

    @property
    def secure(self) -> bool:
        """Whether it has TLS."""
        return self.name.endswith("-tls")

    def is_up(self, ports: Mapping[str, int], tls: Path) -> bool:
        """Whether it answers at `ports`; `tls` has the certificates."""
        return self.answers(ports[self.asked or next(iter(self.ports))], tls)

    def write(self, stack: Path, ports: Mapping[str, int]) -> Path:
        """Write the configuration for `ports` below `stack` and return its path."""
        home = stack / self.name
        home.mkdir(parents=True, exist_ok=True)
        config = home / self.templates[0]
        values = {
            **{name.replace("_tls", ""): number for name, number in ports.items()},
            "home": home,
            "logs": stack / "logs",
            "tls": stack / "tls",
            "user": secured.USER,
            "password": secured.PASSWORD,
        }
        text = "".join((CONF / template).read_text() for template in self.templates)
        config.write_text(Template(text).substitute(values))
        return config


def _program(name: str) -> str:
    return find(name) or name


def _java(config: Path, main: str, *flags: str) -> list[str]:
    return [
        _program("java"),
        *flags,
        "-Djava.net.preferIPv4Stack=true",
        f"-Dlog4j2.configurationFile={CONF / 'log4j2.properties'}",
        "-cp",
        f"{jars.folder()}/*",
        main,
        str(config),
    ]


def _redis(config: Path) -> list[str]:
    return [_program("redis-server"), str(config)]


def _nginx(config: Path) -> list[str]:
    return [_program("nginx"), "-p", str(config.parent), "-e", "stderr", "-c", str(config)]


def _zookeeper(config: Path) -> list[str]:
    # A transaction log is allocated ahead in steps of 64 MB unless told otherwise (in KB).
    main = "org.apache.zookeeper.server.ZooKeeperServerMain"
    return _java(config, main, "-Xmx128m", *QUICK, "-Dzookeeper.preAllocSize=1024")


def _kafka(config: Path) -> list[str]:
    return _java(config, "kafka.Kafka", "-Xms128m", "-Xmx512m", *QUICK)


def _certify(config: Path) -> None:
    secured.make(config.parent.parent / "tls")


def _prepare_kafka_tls(config: Path) -> None:
    _certify(config)
    scram = f"SCRAM-SHA-512=[name={secured.USER},password={secured.PASSWORD}]"
    _format_kafka(config, "--add-scram", scram)


def _format_kafka(config: Path, *options: str) -> None:
    """Make the data directory of a new node; a KRaft node does not start without."""
    if (config.parent / "data" / "meta.properties").exists():
        return
    # The first byte 0 keeps the id from beginning with a dash, which would read as an option.
    cluster = base64.urlsafe_b64encode(b"\0" + os.urandom(15)).decode().rstrip("=")
    command = _java(config, "kafka.tools.StorageTool", "-Xmx128m", *QUICK)
    command[-1:] = ["format", "--cluster-id", cluster, "--config", str(config), *options]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        raise StackError(f"Kafka's storage could not be formatted:\n{done.stdout}{done.stderr}")


PLAIN = (
    Spec(
        name="redis",
        programs=("redis-server",),
        ports={"redis": 6379},
        templates=("redis.conf",),
        argv=_redis,
        answers=probes.redis,
        section='[store]\nadapter = "redis"\nurl = "redis://127.0.0.1:@{redis}/0"\n',
    ),
    Spec(
        name="zookeeper",
        programs=("java",),
        ports={"zookeeper": 2181},
        templates=("zookeeper.cfg", "zookeeper-plain.cfg"),
        argv=_zookeeper,
        answers=probes.zookeeper,
        section='[registry]\nadapter = "zookeeper"\nhosts = "127.0.0.1:@{zookeeper}"\n',
    ),
    Spec(
        name="nginx",
        programs=("nginx",),
        ports={"nginx": 8088, "nginx_admin": 8087},
        templates=("nginx.conf",),
        argv=_nginx,
        answers=probes.nginx,
        peers={"receive": 9088, "admin": 9087},
        section="[admin]\ntrusted_proxies = 1\n",
    ),
    # Last, because its preparation takes time that the others use to start.
    Spec(
        name="kafka",
        programs=("java",),
        ports={"kafka": 9092, "kafka_controller": 9093},
        templates=("kafka.properties",),
        argv=_kafka,
        answers=probes.kafka,
        prepare=_format_kafka,
        section='[log]\nadapter = "kafka"\nbootstrap = "127.0.0.1:@{kafka}"\n',
    ),
)
AUTH = f'username = "{secured.USER}"\npassword = "{secured.PASSWORD}"\n'
WITH_TLS = (
    Spec(
        name="redis-tls",
        programs=("redis-server", "openssl"),
        ports={"redis_tls": 6380},
        templates=("redis.conf", "redis-tls.conf"),
        argv=_redis,
        answers=probes.redis_tls,
        prepare=_certify,
        section='[store]\nadapter = "redis"\n'
        f'url = "rediss://{secured.USER}:{secured.PASSWORD}@@127.0.0.1:@{{redis_tls}}/0"\n',
    ),
    Spec(
        name="zookeeper-tls",
        programs=("java", "openssl"),
        ports={"zookeeper_tls": 2281},
        templates=("zookeeper.cfg", "zookeeper-tls.cfg"),
        argv=_zookeeper,
        answers=probes.zookeeper_tls,
        prepare=_certify,
        section='[registry]\nadapter = "zookeeper"\nhosts = "127.0.0.1:@{zookeeper_tls}"\n'
        f"tls = true\n{AUTH}",
    ),
    Spec(
        name="kafka-tls",
        programs=("java", "openssl"),
        ports={"kafka_tls": 9094, "kafka_tls_controller": 9095, "kafka_tls_inside": 9096},
        templates=("kafka.properties", "kafka-tls.properties"),
        argv=_kafka,
        answers=probes.kafka,
        asked="kafka_tls_inside",
        prepare=_prepare_kafka_tls,
        section='[log]\nadapter = "kafka"\nbootstrap = "127.0.0.1:@{kafka_tls}"\n'
        f"tls = true\n{AUTH}",
    ),
)
SPECS = PLAIN + WITH_TLS
BY_NAME = {spec.name: spec for spec in SPECS}
USUAL_PORTS = {
    name: number for spec in SPECS for name, number in {**spec.ports, **spec.peers}.items()
}
