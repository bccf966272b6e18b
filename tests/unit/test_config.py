"""Settings: where they come from, and how wrong ones are refused."""

import subprocess
import sys
from pathlib import Path

import pytest

from soraka import config
from soraka.errors import ConfigError


def test_defaults_need_no_file() -> None:
    assert config.load(None, {}) == config.Config()


def test_the_environment_overrides_the_file(tmp_path: Path) -> None:
    file = tmp_path / "soraka.toml"
    file.write_text('[log]\npartitions = 7\nbootstrap = "a:1"\n[topics]\nretry_ms = [5, 6]\n')
    environ = {
        "SORAKA_LOG_PARTITIONS": "9",
        "SORAKA_TOPICS_AUTO_CREATE": "true",
        "SORAKA_CONFIG": "x",
    }
    loaded = config.load(file, environ)
    assert (loaded.log.partitions, loaded.log.bootstrap) == (9, "a:1")
    assert loaded.topics.auto_create is True
    assert loaded.topics.retry_ms == (5, 6)


def test_a_base_lies_below_the_file(tmp_path: Path) -> None:
    file = tmp_path / "soraka.toml"
    file.write_text("[topics]\nauto_create = false\n")
    base = config.override(config.Config(), {"topics": {"auto_create": True}})
    assert config.load(None, {}, base=base).topics.auto_create is True
    assert config.load(file, {}, base=base).topics.auto_create is False


def test_what_describe_prints_is_read_back(tmp_path: Path) -> None:
    changed = config.override(
        config.Config(), {"topics": {"retry_ms": [1]}, "log": {"group": 'a"b'}}
    )
    file = tmp_path / "soraka.toml"
    file.write_text(config.describe(changed))
    assert config.load(file, {}) == changed
    assert "# " in config.describe(changed)


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("[logs]\n", "logs: unknown section; allowed: admin, center"),
        ("log = 3\n", "log = 3: must be a section"),
        ("[log]\npartition = 3\n", "log.partition: unknown key; allowed: adapter"),
        ('[log]\nadapter = "pulsar"\n', "log.adapter = 'pulsar': must be one of sqlite, kafka"),
        ("[log]\npartitions = 0\n", "log.partitions = 0: must be an integer from 1 to 1024"),
        ("[log]\npartitions = true\n", "log.partitions = True: must be an integer"),
        ('[log]\npartitions = "3"\n', "log.partitions = '3': must be an integer"),
        ("[log]\nbootstrap = 3\n", "log.bootstrap = 3: must be a text"),
        ("[topics]\nauto_create = 1\n", "topics.auto_create = 1: must be true or false"),
        ("[topics]\nretry_ms = [-1]\n", "topics.retry_ms = (-1,): must be a list of up to 32"),
        ("[topics]\nretry_ms = 5\n", "topics.retry_ms = 5: must be a list"),
        ("[log\n", "not TOML"),
        (
            '[log]\ndead_letter_topic = "soraka.topic.x"\n',
            "must not begin with log.topic_prefix",
        ),
        ("[worker]\npage_ms = 3000\n", "must be less than worker.horizon_ms"),
    ],
)
def test_a_wrong_file_is_refused_by_name(tmp_path: Path, text: str, told: str) -> None:
    file = tmp_path / "soraka.toml"
    file.write_text(text)
    with pytest.raises(ConfigError) as refused:
        config.load(file, {})
    assert told in str(refused.value)


@pytest.mark.parametrize(
    ("name", "value", "told"),
    [
        ("SORAKA_LOG_PARTITIONS", "many", "SORAKA_LOG_PARTITIONS = 'many': must be an integer"),
        ("SORAKA_LOG_PARTITION", "3", "SORAKA_LOG_PARTITION: unknown setting"),
        ("SORAKA_TOPICS_AUTO_CREATE", "yes", "must be true or false"),
        ("SORAKA_TOPICS_RETRY_MS", "1,b", "must be integers, comma-separated"),
    ],
)
def test_a_wrong_variable_is_refused_by_name(name: str, value: str, told: str) -> None:
    with pytest.raises(ConfigError) as refused:
        config.load(None, {name: value})
    assert told in str(refused.value)


SHARED = {"registry": {"adapter": "zookeeper"}}


@pytest.mark.parametrize("section", ["receive", "center", "worker"])
@pytest.mark.parametrize("host", ["0.0.0.0", "::", ""])
def test_who_listens_everywhere_must_say_where_it_is(section: str, host: str) -> None:
    listening = {**SHARED, section: {"host": host}}
    with pytest.raises(ConfigError, match=rf"^{section}\.advertise = ''.*{section}\.host"):
        config.override(config.Config(), listening)
    with pytest.raises(ConfigError, match=rf"^{section}\.advertise = '0\.0\.0\.0'"):
        config.override(
            config.Config(), {**SHARED, section: {"host": host, "advertise": "0.0.0.0"}}
        )
    told = config.override(
        config.Config(), {**SHARED, section: {"host": host, "advertise": "10.0.0.7"}}
    )
    assert getattr(told, section).advertise == "10.0.0.7"


def test_one_process_alone_may_listen_everywhere() -> None:
    everywhere = {section: {"host": "0.0.0.0"} for section in ("receive", "center", "worker")}
    assert config.override(config.Config(), everywhere).worker.host == "0.0.0.0"


def test_a_file_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="cannot be read"):
        config.load(tmp_path / "none.toml", {})


FILES = {"ca": "ca.pem", "certificate": "own.pem", "key": "own.key"}


@pytest.mark.parametrize(
    ("settings", "told"),
    [
        *(
            ({"tls": {**FILES, "thrift": True, key: ""}}, f"tls.{key} = '': must be a PEM file")
            for key in FILES
        ),
        ({"tls": {"key": "own.key"}}, "tls.certificate = '': must be given with tls.key"),
        ({"tls": {"certificate": "own.pem"}}, "tls.key = '': must be given with tls.certificate"),
        ({"log": {"username": "me"}}, "log.password = '': must be given with log.username"),
        ({"log": {"password": "hush"}}, "log.username = '': must be given with log.password"),
        ({"registry": {"username": "me"}}, "registry.password = '': must be given"),
        ({"registry": {"password": "hush"}}, "registry.username = '': must be given"),
        ({"registry": {"username": "a:b", "password": "hush"}}, "registry.username = 'a:b'"),
        ({"store": {"sentinel_user": "me"}}, "store.sentinel_password: must be given"),
        ({"log": {"password": ["hush"]}}, "log.password: must be a text"),
        ({"registry": {"password": ["hush"]}}, "registry.password: must be a text"),
    ],
)
def test_secured_connections_by_half_are_refused_by_name(
    settings: dict[str, dict[str, object]], told: str
) -> None:
    with pytest.raises(ConfigError) as refused:
        config.override(config.Config(), settings)
    assert str(refused.value).startswith(told)
    assert "hush" not in str(refused.value)


def test_secrets_may_come_from_the_environment() -> None:
    loaded = config.load(
        None, {"SORAKA_LOG_USERNAME": "me", "SORAKA_LOG_PASSWORD": "x", "SORAKA_SERVER_CA": "y"}
    )
    assert (loaded.log.username, loaded.log.password) == ("me", "x")


def test_settings_are_read_where_nothing_else_is_installed() -> None:
    """As Ansible does on the host it runs on."""
    check = Path(__file__).parents[2] / "ansible/roles/soraka/files/check-settings"
    for text, code in ((b"", 0), (b"[store]\nshards = 0\n", 1)):
        done = subprocess.run(
            [sys.executable, "-S", check], input=text, capture_output=True, check=False
        )
        assert done.returncode == code, done.stderr
        assert b"Traceback" not in done.stderr
