"""The file of accounts, and `soraka admin` over it."""

import json
import stat
import subprocess
import sys
from pathlib import Path

import gevent
import pytest
from click.testing import CliRunner, Result
from werkzeug.security import check_password_hash

from admin_app.accounts import Accounts
from admin_app.audit import Audit
from soraka.cli import main
from soraka.errors import ConfigError, Conflict, InvalidParams

PASSWORD = "a long password"


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "new" / "admin.json"


@pytest.fixture
def accounts(path: Path) -> Accounts:
    made = Accounts(path)
    made.set_password("operator", PASSWORD, "operator")
    return made


def test_the_first_start_makes_one_operator_once(path: Path) -> None:
    password = Accounts(path).first_start()
    assert password is not None
    again = Accounts(path)
    assert again.first_start() is None
    (admin,) = again.all()
    assert (admin.name, admin.role) == ("admin", "operator")
    assert check_password_hash(admin.password_hash, password)
    assert password not in path.read_text()


def test_the_file_is_for_its_owner_alone_and_replaced_as_a_whole(
    accounts: Accounts, path: Path
) -> None:
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    before = path.stat().st_ino
    accounts.set_password("viewer", PASSWORD, "viewer")
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert path.stat().st_ino != before
    assert [file.name for file in path.parent.iterdir()] == [path.name]


ADD = """
import sys
from pathlib import Path
from admin_app.accounts import Accounts
from soraka.errors import Conflict

accounts = Accounts(Path(sys.argv[1]))
print("ready", flush=True)
password = input()
try:
    accounts.add("viewer", password, "viewer")
    print("added")
except Conflict as exc:
    print(exc)
"""


def test_of_several_that_add_one_name_one_does(accounts: Accounts, path: Path) -> None:
    """A process each, all at once: a password takes long to hash."""
    adding = [
        subprocess.Popen(
            [sys.executable, "-c", ADD, path],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            bufsize=1,
        )
        for _ in range(3)
    ]
    for process in adding:
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
    for number, process in enumerate(adding):
        assert process.stdin is not None
        process.stdin.write(f"a long password {number}\n")
    said = [process.communicate(timeout=60)[0] for process in adding]
    assert sorted(said) == ["added\n", *["name: account 'viewer' exists already\n"] * 2]
    account = accounts.get("viewer")
    assert account is not None
    winner = said.index("added\n")
    assert check_password_hash(account.password_hash, f"a long password {winner}")


def test_processes_see_what_others_change(accounts: Accounts, path: Path) -> None:
    other = Accounts(path)
    other.set_password("viewer", PASSWORD, "viewer")
    assert [account.name for account in accounts.all()] == ["operator", "viewer"]
    token = accounts.add_token("t", "viewer", "operator")
    found = other.by_token(token)
    assert found is not None
    assert (found.name, found.created_by) == ("t", "operator")
    accounts.end_session("s", 1 << 48)
    accounts.end_session("past", 1)
    accounts.end_session("t", 1 << 48)
    assert (other.has_ended("s"), other.has_ended("t"), other.has_ended("past")) == (
        True,
        True,
        False,
    )
    assert other.secret_key == accounts.secret_key


def test_changes_at_once_lose_nothing(accounts: Accounts, path: Path) -> None:
    def add(name: str) -> None:
        Accounts(path).add_token(name, "viewer", "operator")

    gevent.joinall([gevent.spawn(add, f"t{n}") for n in range(20)], raise_error=True)
    assert len(accounts.tokens()) == 20


def test_the_last_operator_stays(accounts: Accounts) -> None:
    accounts.set_password("viewer", PASSWORD, "viewer")
    for change in (
        lambda: accounts.set_role("operator", "viewer"),
        lambda: accounts.set_password("operator", PASSWORD, "viewer"),
        lambda: accounts.remove("operator"),
    ):
        with pytest.raises(Conflict, match="last operator"):
            change()
    accounts.set_role("viewer", "operator")
    accounts.remove("operator")
    assert [account.name for account in accounts.all()] == ["viewer"]


def test_a_new_password_is_a_new_epoch(accounts: Accounts) -> None:
    before = accounts.get("operator")
    accounts.set_password("operator", PASSWORD)
    after = accounts.get("operator")
    assert before is not None
    assert after is not None
    assert before.epoch != after.epoch
    assert (after.role, after.created_at) == ("operator", before.created_at)


@pytest.mark.parametrize(
    ("name", "password", "role", "field"),
    [
        ("", PASSWORD, "viewer", "name"),
        ("a:b", PASSWORD, "viewer", "name"),
        ("a\nb", PASSWORD, "viewer", "name"),
        ("new", "short", "viewer", "password"),
        ("new", "x" * 257, "viewer", "password"),
        ("new", PASSWORD, "god", "role"),
        ("new", PASSWORD, None, "role"),
    ],
)
def test_what_is_wrong_is_refused_by_name(
    accounts: Accounts, name: str, password: str, role: str | None, field: str
) -> None:
    with pytest.raises(InvalidParams) as caught:
        accounts.set_password(name, password, role)
    assert caught.value.field == field
    assert len(accounts.all()) == 1


def test_what_is_not_there_cannot_be_changed(accounts: Accounts) -> None:
    for change in (
        lambda: accounts.set_role("nobody", "viewer"),
        lambda: accounts.remove("nobody"),
        lambda: accounts.revoke_token("nothing"),
    ):
        with pytest.raises(InvalidParams, match="there is no"):
            change()


@pytest.mark.parametrize("content", ["", "{", "[]", "{}", '{"secret_key": "x", "accounts": 1}'])
def test_a_file_that_cannot_be_understood_stops_the_start(path: Path, content: str) -> None:
    path.parent.mkdir()
    path.write_text(content)
    with pytest.raises(ConfigError, match=r"admin\.accounts = .*admin\.json"):
        Accounts(path)
    assert path.read_text() == content


def test_one_that_is_damaged_later_counts_as_it_was(
    accounts: Accounts, path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    path.write_text("{")
    assert [account.name for account in accounts.all()] == ["operator"]
    assert "accounts.unreadable" in caplog.messages
    with pytest.raises(ConfigError):
        accounts.set_role("operator", "operator")  # nothing is written over it
    assert path.read_text() == "{"


def test_one_that_is_deleted_comes_back_with_the_next_change(
    accounts: Accounts, path: Path
) -> None:
    path.unlink()
    accounts.end_session("s", 1 << 48)
    assert [account.name for account in Accounts(path).all()] == ["operator"]


# ------------------------------------------------------------------------------- audit


def test_the_audit_lists_the_latest_first_and_skips_what_was_cut_off(tmp_path: Path) -> None:
    audit = Audit(tmp_path / "audit.jsonl")
    assert audit.latest(5) == []
    for n in range(3):
        audit.add(
            who="operator",
            action="a",
            source="::1",
            ec=400 + n,
            reason="x",
            details={"name": "y" * 500},
        )
    with (tmp_path / "audit.jsonl").open("a") as file:
        file.write('{"at": 1, "wh\n')
    assert [entry["ec"] for entry in audit.latest(2)] == [402, 401]
    assert len(audit.latest(1)[0]["details"]["name"]) < 250
    assert stat.S_IMODE((tmp_path / "audit.jsonl").stat().st_mode) == 0o600
    lines = (tmp_path / "audit.jsonl").read_text().splitlines()
    assert json.loads(lines[0])["who"] == "operator"


# ------------------------------------------------------------------------ soraka admin


def run(*arguments: str, password: str = "") -> str:
    done = CliRunner().invoke(main, ["admin", *arguments], input=password)
    assert done.exit_code == 0, done.output
    return done.stdout


def test_the_command_sets_passwords_and_makes_tokens(tmp_path: Path) -> None:
    folder = f"--data-dir={tmp_path}"
    said = run("set-password", "operator", folder, "--role=operator", password=f"{PASSWORD}\n")
    assert said == "password of operator is set\n"
    generated = run("set-password", "viewer", folder, "--role", "viewer", "--generate")
    assert generated.startswith("password of viewer: ")
    token = run("add-token", "deploy", folder, "--role=operator").strip()
    accounts = Accounts(tmp_path / "admin.json")
    operator, viewer = accounts.all()
    assert check_password_hash(operator.password_hash, PASSWORD)
    assert check_password_hash(viewer.password_hash, generated.split()[-1])
    assert accounts.by_token(token) is not None
    noted = Audit(tmp_path / "audit.jsonl").latest(5)
    assert [(entry["action"], entry["details"]["name"]) for entry in noted] == [
        ("add-token", "deploy"),
        ("set-password", "viewer"),
        ("set-password", "operator"),
    ]
    listed = run("list", folder).split("\n")
    assert [line.split() for line in listed if line] == [
        ["account", "operator", "operator"],
        ["account", "viewer", "viewer"],
        ["token", "operator", "deploy"],
    ]


def test_the_command_finds_the_file_in_the_config_before_or_after(tmp_path: Path) -> None:
    config = tmp_path / "soraka.toml"
    config.write_text(f'[admin]\naccounts = "{tmp_path / "a.json"}"\n')
    run("--config", str(config), "set-password", "operator", "--role=operator", "--generate")
    assert "operator" in run("list", "--config", str(config))


@pytest.mark.parametrize("command", ["set-password", "add-token"])
def test_the_command_makes_no_folder_and_says_which_file_it_changed(
    tmp_path: Path, command: str
) -> None:
    def called(folder: Path) -> Result:
        options = ["--role=operator", f"--data-dir={folder}"]
        return CliRunner().invoke(main, ["admin", command, "x", *options], input=f"{PASSWORD}\n")

    absent = tmp_path / "misspelt"
    failed = called(absent)
    assert failed.exit_code == 1
    assert failed.stderr == f"Error: --data-dir: there is no folder '{absent}'\n"
    assert not absent.exists()
    assert called(tmp_path).stderr == f"changed {tmp_path / 'admin.json'}\n"


def test_the_command_says_what_is_wrong(tmp_path: Path) -> None:
    done = CliRunner().invoke(
        main, ["admin", "set-password", "x", f"--data-dir={tmp_path}"], input="short\n"
    )
    assert done.exit_code == 1
    assert "Error: password: must be from 10 to 256 characters long" in done.output
    refused = CliRunner().invoke(main, ["admin"])
    assert "registry.adapter = 'local'" in refused.output
