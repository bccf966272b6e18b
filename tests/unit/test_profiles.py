"""The file of profiles: which server, whose token."""

from pathlib import Path

import pytest

from soraka import profiles
from soraka.errors import ConfigError
from soraka.profiles import LOCAL, Profile
from tests.certificates import Authority

TEXT = """
[default]
server = "10.0.0.1:1"
token = "soraka_a"
[staging]
url = "https://staging"
"""


@pytest.fixture(autouse=True)
def file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """That of the user, who has nothing in the environment."""
    for name in (profiles.NAME, profiles.FILE, profiles.TOKEN):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path))
    path = tmp_path / "soraka.toml"
    path.write_text(TEXT)
    path.chmod(0o600)
    return path


def test_the_profile_that_is_named(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    default = Profile(server="10.0.0.1:1", token="soraka_a")
    assert profiles.load() == profiles.load("default") == default
    assert default.client_url == "thrift://10.0.0.1:1"
    staging = profiles.load("staging")
    assert staging == Profile(server=LOCAL, url="https://staging")
    assert staging.client_url == "https://staging"
    monkeypatch.setenv(profiles.NAME, "staging")
    assert profiles.load() == staging
    assert profiles.load("default") == default
    with pytest.raises(ConfigError, match="profile 'prod': is not in "):
        profiles.load("prod")


def test_without_a_file_it_is_this_machine(
    file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file.unlink()
    assert profiles.load() == Profile()
    assert Profile().client_url == f"thrift://{LOCAL}"
    with pytest.raises(ConfigError):
        profiles.load("staging")
    with pytest.raises(ConfigError):
        profiles.load(file=tmp_path / "not-there.toml")
    other = tmp_path / "other.toml"
    other.write_text('[default]\nserver = "a:2"\n')
    monkeypatch.setenv(profiles.FILE, str(other))
    assert profiles.load().server == "a:2"


def test_a_token_goes_to_its_own_server_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    found = profiles.load()
    assert found.at(None) == found.at("10.0.0.1:1") == found
    assert found.at("10.9.9.9:1") == Profile(server="10.9.9.9:1")
    monkeypatch.setenv(profiles.TOKEN, "soraka_b")
    assert profiles.load().token == "soraka_b"
    assert found.at("10.9.9.9:1") == Profile(server="10.9.9.9:1", token="soraka_b")


def test_a_profile_with_an_authority_is_spoken_to_over_tls(file: Path, tmp_path: Path) -> None:
    Authority(tmp_path / "ca")
    pem = tmp_path / "ca" / "ca.pem"
    file.write_text(f'[default]\nserver = "a:2"\ntoken = "soraka_a"\nca = "{pem}"\n')
    found = profiles.load()
    assert (found.ca, found.client_url) == (str(pem), "thrifts://a:2")
    (known,) = found.trusted().get_ca_certs()  # type: ignore[union-attr]
    assert "soraka" in str(known["subject"])
    assert profiles.load().at("b:2") == Profile(server="b:2")
    for wrong, why in (("/none.pem", "No such file"), (str(file), "NO_CERTIFICATE")):
        with pytest.raises(ConfigError, match=f"ca: {wrong}: .*{why}"):
            Profile(ca=wrong).trusted()
    assert Profile().trusted() is None


def test_the_token_of_the_environment_takes_the_place_of_that_alone(
    file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file.write_text('[default]\nserver = "a:2"\nurl = "https://a"\nca = "x.pem"\n')
    monkeypatch.setenv(profiles.TOKEN, "soraka_b")
    assert profiles.load() == Profile(server="a:2", url="https://a", ca="x.pem", token="soraka_b")


def test_a_file_with_a_token_that_others_may_read_is_complained_of(
    file: Path, caplog: pytest.LogCaptureFixture
) -> None:
    profiles.load()
    assert caplog.text == ""
    file.chmod(0o644)
    profiles.load("staging")  # it has none
    assert caplog.text == ""
    assert profiles.load().token == "soraka_a"
    assert "chmod 600" in caplog.text


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("[default", "not TOML"),
        ("default = 3", "default: must be a section, with server, url, token, ca"),
        ("[default]\nport = 3", r"default\.port: unknown key; allowed: server, url, token, ca"),
        ("[default]\nserver = 3", r"default\.server: must be a text"),
        ("[default]\ntoken = ''", r"default\.token: must be a text"),
    ],
)
def test_wrong_files(file: Path, text: str, told: str) -> None:
    file.write_text(text)
    with pytest.raises(ConfigError, match=told):
        profiles.load()
