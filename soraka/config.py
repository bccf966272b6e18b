"""Settings: defaults, then a TOML file, then `SORAKA_<SECTION>_<KEY>` from the environment.

A wrong key or value is refused with its name, the value and what is allowed. The sections and
keys are the dataclasses below; each `help` is shown by `soraka config`.
"""

import dataclasses
import json
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, get_type_hints

from soraka.destinations import (
    EVERY_HOST,
    EVERY_NETWORK,
    UNSAFE_NETWORKS,
    Destinations,
    by_host,
    host_patterns,
    networks,
)
from soraka.errors import ConfigError
from soraka.limits import BALANCES, DAY_MS, DEFAULT_RETRY_MS, MAX_DELAY_MS, WEIGHTS

ENV_PREFIX = "SORAKA_"
REDIS_MODES = ("single", "sentinel", "cluster")
SECRET = (
    ("log", "password"),
    ("store", "url"),
    ("store", "sentinel_password"),
    ("registry", "password"),
)
"""Settings with passwords, which no error repeats."""
NO_SETTINGS = ("CONFIG", "SERVER", "SERVER_CA", "PROFILE", "PROFILES", "TOKEN")
"""In the environment for the command, with this prefix too."""
EVERYWHERE = ("", "0.0.0.0", "::")  # noqa: S104
"""Hosts to listen on that are no address to reach anybody at."""


def _set(default: Any, help: str, **rules: Any) -> Any:
    """A field with its rules: `choices`, or `min` and `max` (inclusive)."""
    return field(default=default, metadata={"help": help, **rules})


def _port(default: int, help: str) -> Any:
    return _set(default, f"{help}; 0 lets the system choose", min=0, max=65535)


@dataclass(frozen=True, slots=True, kw_only=True)
class TlsConfig:
    """[tls]: the certificate of this process, for all its secured connections."""

    ca: str = _set(
        "", "PEM file of the CAs that certificates of others must be of; '': the system's"
    )
    certificate: str = _set("", "PEM file of our certificate and those between it and the CA")
    key: str = _set("", "PEM file of its key, without a passphrase")
    thrift: bool = _set(
        False, "Thrift over TLS; the roles ask each other for certificates, receive asks nobody"
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class LogConfig:
    """[log]: the durable log of submissions and commands."""

    adapter: str = _set("sqlite", "where it is", choices=("sqlite", "kafka"))
    path: str = _set(".soraka/log.db", "sqlite: the database file")
    bootstrap: str = _set("127.0.0.1:9092", "kafka: host:port, comma-separated")
    tls: bool = _set(False, "kafka: over TLS, see [tls]")
    username: str = _set("", "kafka: user of SASL, SCRAM-SHA-512; '': no SASL")
    password: str = _set("", "kafka: of the user")
    topic_prefix: str = _set("soraka.topic.", "kafka: prefix of the Kafka topics")
    dead_letter_topic: str = _set("soraka.dead-letter", "kafka: where undecodable records go")
    group: str = _set("soraka-center", "consumer group of the centers")
    partitions: int = _set(4, "kafka: partitions of a new topic", min=1, max=1024)
    replication: int = _set(1, "kafka: replicas of a new topic", min=1, max=9)
    append_timeout_ms: int = _set(3000, "then a submit is answered 503", min=100, max=60_000)
    max_inflight_bytes: int = _set(
        64 << 20, "bytes not yet acknowledged; beyond it 503", min=1 << 20, max=4 << 30
    )
    retention_ms: int = _set(3_600_000, "sqlite: how long read records are kept", min=0)


@dataclass(frozen=True, slots=True, kw_only=True)
class StoreConfig:
    """[store]: pending and recently finished messages."""

    adapter: str = _set("sqlite", "where it is", choices=("sqlite", "redis"))
    path: str = _set(".soraka/store.db", "sqlite: the database file")
    redis_mode: str = _set(
        "single", "redis: one server, or how several are kept", choices=REDIS_MODES
    )
    url: str = _set(
        "redis://127.0.0.1:6379/0",
        "redis: its URL; the sentinels, or servers of the cluster, as "
        "redis://user:password@a:1,b:2/0; rediss:// for TLS, see [tls]",
    )
    sentinel_master: str = _set("mymaster", "redis, sentinel: the name of the master")
    sentinel_user: str = _set("", "redis, sentinel: ACL user of the sentinels; '': their default")
    sentinel_password: str = _set("", "redis, sentinel: of the sentinels; url has the master's")
    shards: int = _set(8, "redis: key groups; never change it on a filled store", min=1, max=1024)
    timeout_ms: int = _set(2000, "of one call", min=50, max=60_000)
    retention_ms: int = _set(DAY_MS, "how long finished messages are kept", min=60_000)
    dead_retention_ms: int = _set(30 * DAY_MS, "how long dead letters are kept", min=60_000)
    lease_margin_ms: int = _set(2000, "a lease lasts ttr and this", min=100, max=600_000)
    early_ms: int = _set(
        600_000, "msg_ids the store does not know may be this old", min=1000, max=DAY_MS
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class RegistryConfig:
    """[registry]: live instances and topic settings."""

    adapter: str = _set("local", "where it is", choices=("local", "zookeeper"))
    path: str = _set(".soraka/topics.json", "local: the file of topic settings")
    hosts: str = _set("127.0.0.1:2181", "zookeeper: host:port, comma-separated")
    root: str = _set("/soraka", "zookeeper: the root node")
    tls: bool = _set(False, "zookeeper: over TLS, see [tls]")
    username: str = _set(
        "", "zookeeper: digest user, to whom alone the nodes that soraka makes are open; '': to all"
    )
    password: str = _set("", "zookeeper: of the user")
    session_timeout_ms: int = _set(6000, "a silent instance counts as dead", min=1000, max=120_000)


@dataclass(frozen=True, slots=True, kw_only=True)
class TopicsConfig:
    """[topics]: what a topic is without settings of its own."""

    auto_create: bool = _set(False, "a submit to an unknown topic creates it")
    balance: str = _set("round_robin", "how workers are chosen", choices=BALANCES)
    weigh_by: str = _set(
        "instance", "weights of workers: set by hand, or by their load", choices=WEIGHTS
    )
    max_concurrent_dispatches: int = _set(
        0, "callbacks of one topic under way at one worker; 0: no limit", min=0, max=100_000
    )
    retry_ms: tuple[int, ...] = _set(
        DEFAULT_RETRY_MS, "delays before the next attempts", min=0, max=MAX_DELAY_MS, items=32
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class ReceiveConfig:
    """[receive]: the role that accepts submissions."""

    host: str = _set("127.0.0.1", "address to listen on, HTTP and Thrift")
    advertise: str = _set("", "address others reach it at; default: host")
    port: int = _port(9088, "HTTP port")
    thrift_port: int = _port(30003, "public Thrift port")
    processes: int = _set(1, "gunicorn workers", min=1, max=64)
    max_connections: int = _set(
        4000, "open per process and port; over it the idlest is closed", min=10, max=100_000
    )
    max_body_bytes: int = _set(4 << 20, "of an HTTP request", min=1 << 10, max=256 << 20)
    max_frame_bytes: int = _set(4 << 20, "of a Thrift request", min=1 << 10, max=256 << 20)
    max_reading_bytes: int = _set(
        64 << 20, "of all requests being read or answered; beyond it 503", min=1 << 20, max=16 << 30
    )
    max_batch: int = _set(1000, "messages in one batch", min=1, max=10_000)
    max_url_length: int = _set(2048, "characters of a url", min=64, max=65_536)
    max_params_bytes: int = _set(64 << 10, "of params, as JSON text", min=64, max=16 << 20)
    max_ttr_ms: int = _set(60_000, "the longest ttr", min=1000, max=3_600_000)
    read_timeout_ms: int = _set(10_000, "for a request to arrive whole", min=100, max=600_000)
    idle_timeout_ms: int = _set(300_000, "a silent Thrift connection is closed", min=1000)
    idempotency_ms: int = _set(
        600_000,
        "an idempotency key holds for this; at most the retention and store.early_ms",
        min=1000,
        max=DAY_MS,
    )
    tokens: str = _set("", "the file of API tokens that callers need one of; '': none is needed")


@dataclass(frozen=True, slots=True, kw_only=True)
class AdminConfig:
    """[admin]: the role for people."""

    host: str = _set("127.0.0.1", "address to listen on")
    advertise: str = _set("", "address others reach it at; default: host")
    port: int = _port(9087, "HTTP port")
    processes: int = _set(1, "gunicorn workers", min=1, max=16)
    accounts: str = _set(".soraka/admin.json", "the file of accounts and API tokens")
    audit: str = _set(".soraka/audit.jsonl", "the file of what was changed by whom")
    secure_cookies: bool = _set(False, "cookies over TLS alone; set it behind a TLS proxy")
    trusted_proxies: int = _set(
        0, "proxies in front, whose X-Forwarded-For and -Proto are believed", min=0, max=8
    )
    metrics_public: bool = _set(
        False, "/metrics without a token for all, not only from this host past no proxy"
    )
    session_ms: int = _set(12 * 3_600_000, "a login ends after this", min=60_000, max=30 * DAY_MS)
    idle_ms: int = _set(3_600_000, "a login unused for this ends", min=60_000, max=30 * DAY_MS)
    login_attempts: int = _set(10, "per account in five minutes", min=1, max=1000)
    login_attempts_per_address: int = _set(50, "in five minutes", min=1, max=100_000)
    max_connections: int = _set(
        500, "open per process; over it the idlest is closed", min=10, max=100_000
    )
    max_body_bytes: int = _set(1 << 20, "of a request", min=1 << 10, max=64 << 20)
    read_timeout_ms: int = _set(10_000, "for a request to arrive whole", min=100, max=600_000)


@dataclass(frozen=True, slots=True, kw_only=True)
class CenterConfig:
    """[center]: the role that reads the log and dispatches."""

    host: str = _set("127.0.0.1", "address to listen on")
    advertise: str = _set("", "address others reach it at; default: host")
    thrift_port: int = _port(30001, "Thrift port")
    health_port: int = _port(0, "HTTP port of /healthz, /readyz, /metrics")
    reconcile_ms: int = _set(1000, "between looks for messages of absent workers", min=50)
    absent_ms: int = _set(
        3000, "an absent worker's messages go to others after this", min=0, max=600_000
    )
    sweep_ms: int = _set(
        30_000, "overdue messages of a live worker go to others after this", min=1000
    )
    rpc_timeout_ms: int = _set(1000, "of a call to a worker", min=50, max=60_000)
    resume_per_second: int = _set(
        500, "messages of a topic that was paused go out so fast", min=1, max=100_000
    )
    heartbeat_ms: int = _set(
        1000, "between heartbeats; a worker that misses 3 gets nothing new", min=50, max=60_000
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class WorkerConfig:
    """[worker]: the role that makes the callbacks."""

    host: str = _set("127.0.0.1", "address to listen on")
    advertise: str = _set("", "address others reach it at; default: host")
    thrift_port: int = _port(30002, "Thrift port")
    health_port: int = _port(0, "HTTP port of /healthz, /readyz, /metrics")
    horizon_ms: int = _set(3000, "how far ahead due messages are held", min=200, max=60_000)
    page_ms: int = _set(1000, "between looks at the due index", min=50, max=30_000)
    max_held: int = _set(50_000, "messages held for the horizon", min=100, max=10_000_000)
    max_callbacks: int = _set(1000, "callbacks under way at once", min=1, max=100_000)
    max_per_host: int = _set(200, "of them to one host", min=1, max=100_000)
    max_response_bytes: int = _set(64 << 10, "read of a response body", min=0, max=16 << 20)
    rpc_timeout_ms: int = _set(1000, "of a call to a center", min=50, max=60_000)
    weight: int = _set(100, "its share of messages beside others'; 0: none", min=0, max=10_000)
    breaker_failures: int = _set(
        20, "calls in a row without an answer open a host's circuit; 0: never", min=0, max=100_000
    )
    breaker_open_ms: int = _set(
        5000, "until an open circuit is probed; doubles up to 60 s", min=100, max=60_000
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class OutboundConfig:
    """[outbound]: where callbacks may go, and whom they trust. For receive and worker."""

    allowed_hosts: str = _set(
        EVERY_HOST, "names, *.name or *, comma-separated; the narrowest that holds decides"
    )
    denied_hosts: str = _set("", "the same; of two alike this one decides")
    allowed_networks: str = _set(
        EVERY_NETWORK, "networks or addresses, comma-separated; the narrowest that holds decides"
    )
    denied_networks: str = _set(UNSAFE_NETWORKS, "the same; of two alike this one decides")
    ca_files: str = _set(
        "", "PEM files trusted in place of the system's: FILE, or HOST=FILE, comma-separated"
    )
    client_certificates: str = _set(
        "", "PEM files with certificate and key: FILE, or HOST=FILE, comma-separated"
    )

    def destinations(self) -> Destinations:
        """The rules in it."""
        return Destinations(
            allowed_hosts=self.allowed_hosts,
            denied_hosts=self.denied_hosts,
            allowed_networks=self.allowed_networks,
            denied_networks=self.denied_networks,
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class ProcessConfig:
    """[process]: what all roles share."""

    log_level: str = _set(
        "info", "least level logged", choices=("debug", "info", "warning", "error")
    )
    log_format: str = _set("json", "form of a log line", choices=("json", "text"))
    drain_ms: int = _set(10_000, "for what is in flight, after SIGTERM", min=0, max=600_000)


@dataclass(frozen=True, slots=True, kw_only=True)
class Config:
    """All settings. Source: `load`."""

    tls: TlsConfig = TlsConfig()
    log: LogConfig = LogConfig()
    store: StoreConfig = StoreConfig()
    registry: RegistryConfig = RegistryConfig()
    topics: TopicsConfig = TopicsConfig()
    receive: ReceiveConfig = ReceiveConfig()
    admin: AdminConfig = AdminConfig()
    center: CenterConfig = CenterConfig()
    worker: WorkerConfig = WorkerConfig()
    outbound: OutboundConfig = OutboundConfig()
    process: ProcessConfig = ProcessConfig()


def load(file: Path | None, environ: Mapping[str, str], *, base: "Config | None" = None) -> Config:
    """Settings from `file` (if any) and `environ`, over `base`. Raises ConfigError."""
    sections = _from_file(file) if file else {}
    for name, (section, key) in _environment_names().items():
        if name in environ:
            kind = _keys(section)[key].type
            sections.setdefault(section, {})[key] = _parse(name, environ[name], kind)
    _refuse_unknown_environment(environ)
    return override(base or Config(), sections)


def override(config: Config, sections: Mapping[str, Mapping[str, Any]]) -> Config:
    """`config` with some keys changed: {section: {key: value}}. Raises ConfigError."""
    known = {f.name for f in dataclasses.fields(Config)}
    changed: dict[str, Any] = {}
    for section, values in sections.items():
        if section not in known:
            raise ConfigError(f"{section}: unknown section; allowed: {', '.join(sorted(known))}")
        if not isinstance(values, Mapping):
            raise ConfigError(f"{section} = {values!r}: must be a section, [{section}]")
        for key, value in values.items():
            values = {**values, key: _checked(section, key, value)}
        changed[section] = dataclasses.replace(getattr(config, section), **values)
    config = dataclasses.replace(config, **changed)
    _check_whole(config)
    return config


def describe(config: Config) -> str:
    """The settings as a TOML file with a comment per key."""
    lines: list[str] = []
    for section in dataclasses.fields(config):
        lines.append(f"[{section.name}]")
        for key in _keys(section.name).values():
            value = getattr(getattr(config, section.name), key.name)
            lines.append(f"# {key.metadata['help']} ({_allowed(key)})")
            lines.append(f"{key.name} = {_toml(value)}")
        lines.append("")
    return "\n".join(lines)


def _toml(value: Any) -> str:
    return json.dumps(list(value) if isinstance(value, tuple) else value)


def _from_file(file: Path) -> dict[str, Any]:
    try:
        return tomllib.loads(file.read_text("utf-8"))
    except OSError as exc:
        raise ConfigError(f"{file}: cannot be read: {exc.strerror}") from exc
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as exc:
        raise ConfigError(f"{file}: not TOML: {exc}") from exc


def _keys(section: str) -> dict[str, dataclasses.Field[Any]]:
    kind = get_type_hints(Config)[section]
    return {f.name: f for f in dataclasses.fields(kind)}


def _environment_names() -> dict[str, tuple[str, str]]:
    return {
        f"{ENV_PREFIX}{section.name}_{key}".upper(): (section.name, key)
        for section in dataclasses.fields(Config)
        for key in _keys(section.name)
    }


def _refuse_unknown_environment(environ: Mapping[str, str]) -> None:
    known = {*_environment_names(), *(f"{ENV_PREFIX}{name}" for name in NO_SETTINGS)}
    for name in environ:
        if name.startswith(ENV_PREFIX) and name not in known:
            raise ConfigError(
                f"{name}: unknown setting; the form is {ENV_PREFIX}<SECTION>_<KEY>, "
                "`soraka config` lists them"
            )


def _parse(name: str, text: str, kind: Any) -> Any:
    try:
        if kind is bool:
            return {"true": True, "false": False}[text.strip().lower()]
        if kind is int:
            return int(text)
        if kind is not str:
            return [int(item) for item in text.split(",") if item.strip()]
    except (KeyError, ValueError):
        wanted = {bool: "true or false", int: "an integer"}.get(kind, "integers, comma-separated")
        raise ConfigError(f"{name} = {text!r}: must be {wanted}") from None
    return text


def _checked(section: str, key: str, value: Any) -> Any:
    keys = _keys(section)
    if key not in keys:
        allowed = ", ".join(sorted(keys))
        raise ConfigError(f"{section}.{key}: unknown key; allowed: {allowed}")
    setting = keys[key]
    if setting.type not in (bool, int, str) and isinstance(value, list | tuple):
        value = tuple(value)
    if not _fits(setting, value):
        shown = "" if (section, key) in SECRET else f" = {value!r}"
        raise ConfigError(f"{section}.{key}{shown}: must be {_allowed(setting)}")
    return value


def _fits(setting: dataclasses.Field[Any], value: Any) -> bool:
    rules = setting.metadata
    if setting.type is int:
        return type(value) is int and rules.get("min", value) <= value <= rules.get("max", value)
    if setting.type in (bool, str):
        return type(value) is setting.type and value in rules.get("choices", (value,))
    return (
        isinstance(value, tuple)
        and len(value) <= rules["items"]
        and all(type(item) is int and rules["min"] <= item <= rules["max"] for item in value)
    )


def _allowed(setting: dataclasses.Field[Any]) -> str:
    rules = setting.metadata
    if "choices" in rules:
        return "one of " + ", ".join(rules["choices"])
    if setting.type is bool:
        return "true or false"
    if setting.type is str:
        return "a text"
    bounds = f"from {rules.get('min')} to {rules['max']}" if "max" in rules else "at least 0"
    if "max" not in rules and "min" in rules:
        bounds = f"at least {rules['min']}"
    if setting.type is int:
        return f"an integer {bounds}"
    return f"a list of up to {rules['items']} integers {bounds}"


def _check_whole(config: Config) -> None:
    _check_advertised(config)
    _check_secured(config)
    _check_outbound(config.outbound)
    if config.store.redis_mode == "sentinel" and not config.store.sentinel_master:
        raise ConfigError("store.sentinel_master = '': must be the name the sentinels know it by")
    if config.log.dead_letter_topic.startswith(config.log.topic_prefix):
        raise ConfigError(
            f"log.dead_letter_topic = {config.log.dead_letter_topic!r}: must not begin with "
            f"log.topic_prefix = {config.log.topic_prefix!r}"
        )
    if config.worker.page_ms >= config.worker.horizon_ms:
        raise ConfigError(
            f"worker.page_ms = {config.worker.page_ms}: must be less than "
            f"worker.horizon_ms = {config.worker.horizon_ms}"
        )


def _check_outbound(outbound: OutboundConfig) -> None:
    for keys, read in (
        (("allowed_hosts", "denied_hosts"), host_patterns),
        (("allowed_networks", "denied_networks"), networks),
        (("ca_files", "client_certificates"), by_host),
    ):
        for key in keys:
            try:
                read(getattr(outbound, key))
            except ValueError as exc:
                raise ConfigError(f"outbound.{key}: {exc}") from None


def _check_advertised(config: Config) -> None:
    """The local registry is of one process, which reaches itself at such an address too."""
    if config.registry.adapter == "local":
        return
    for section in ("receive", "admin", "center", "worker"):
        values = getattr(config, section)
        if values.host in EVERYWHERE and values.advertise in EVERYWHERE:
            raise ConfigError(
                f"{section}.advertise = {values.advertise!r}: must be the address of this machine "
                f"with {section}.host = {values.host!r}, or all announce themselves at one address"
            )


def _check_secured(config: Config) -> None:
    """Certificates and users; secrets are told of, not told."""
    tls = config.tls
    if tls.thrift:
        for key in ("ca", "certificate", "key"):
            if not getattr(tls, key):
                raise ConfigError(f"tls.{key} = '': must be a PEM file with tls.thrift = true")
    _check_pair("tls.certificate", tls.certificate, "tls.key", tls.key)
    for section, user, password in (
        ("log", config.log.username, config.log.password),
        ("registry", config.registry.username, config.registry.password),
    ):
        _check_pair(f"{section}.username", user, f"{section}.password", password)
    if config.store.sentinel_user and not config.store.sentinel_password:
        raise ConfigError("store.sentinel_password: must be given with store.sentinel_user")
    if ":" in config.registry.username:
        raise ConfigError(f"registry.username = {config.registry.username!r}: must have no colon")


def _check_pair(one: str, its: str, other: str, others: str) -> None:
    if bool(its) is not bool(others):
        there, missing = (one, other) if its else (other, one)
        raise ConfigError(f"{missing} = '': must be given with {there}, or neither")
