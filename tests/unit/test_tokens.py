"""The file of API tokens, and what a token may do."""

import json
import logging
import stat
from collections.abc import Sequence
from pathlib import Path

import gevent
import pytest

from soraka import tokens
from soraka.errors import ConfigError, Conflict, InvalidParams
from soraka.tokens import Right, Token, Tokens


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "new" / "tokens.json"


@pytest.fixture(autouse=True)
def at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tokens, "LOOK_S", 0.0)


def add(path: Path, name: str, **rights: Sequence[str]) -> str:
    return tokens.add(path, name, {Right(right): given for right, given in rights.items()})


def test_a_token_is_found_by_what_was_printed_alone(path: Path) -> None:
    made = add(path, "shop", submit=["shop.*"])
    assert made.startswith(tokens.BEGIN)
    assert made not in path.read_text()
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    known = Tokens(path)
    found = known.find(made)
    assert found is not None
    assert (found.name, found.submit, found.command, found.read) == ("shop", ("shop.*",), (), ())
    for wrong in (made[:-1], "", found.hash, "shop", "é", "\ud800"):
        assert known.find(wrong) is None


def test_changes_are_seen_by_running_processes(path: Path) -> None:
    first = add(path, "first", read=["*"])
    known = Tokens(path)
    second = add(path, "second", read=["*"])
    assert known.find(second) is not None
    tokens.remove(path, "first")
    assert known.find(first) is None
    assert [token.name for token in tokens.listed(path)] == ["second"]


def test_changes_are_looked_for_now_and_then(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    made = add(path, "first", read=["*"])
    known = Tokens(path)
    monkeypatch.setattr(tokens, "LOOK_S", 3600.0)
    tokens.remove(path, "first")
    assert known.find(made) is not None
    monkeypatch.setattr(tokens, "LOOK_S", 0.0)
    assert known.find(made) is None


def test_a_file_that_breaks_counts_as_it_was(path: Path, caplog: pytest.LogCaptureFixture) -> None:
    made = add(path, "first", read=["*"])
    known = Tokens(path)
    for broken in ("", "{}", '{"tokens": [{"name": "x"}]}', '{"tokens": [3]}'):
        caplog.clear()
        path.write_text(broken)
        with caplog.at_level(logging.ERROR):
            assert known.find(made) is not None
        assert "tokens.unreadable" in caplog.text
    path.unlink()
    assert known.find(made) is not None


@pytest.mark.parametrize(
    "text",
    [
        "",
        "[]",
        '{"tokens": [{}]}',
        '{"tokens": [{"name": "a", "hash": "h", "submit": "*", "command": [], "read": []}]}',
        '{"tokens": [{"name": "a", "hash": "h", "submit": ["[a]"], "command": [], "read": []}]}',
    ],
)
def test_a_file_that_is_none_stops_the_start(tmp_path: Path, text: str) -> None:
    path = tmp_path / "tokens.json"
    path.write_text(text)
    with pytest.raises(ConfigError, match=r"receive\.tokens = "):
        Tokens(path)


def test_a_file_that_is_not_there_stops_the_start(path: Path) -> None:
    with pytest.raises(ConfigError, match="`soraka token add` makes it"):
        Tokens(path)


def test_wrong_tokens_are_not_made(path: Path) -> None:
    for name in ("", "a b", "-a", "a" * 65, "é"):
        with pytest.raises(InvalidParams) as refused:
            add(path, name, submit=["*"])
        assert refused.value.field == "name"
    for patterns in (["a b"], [""], ["a?"], ["[a]"], ["a" * 129], ["a"] * 101):
        with pytest.raises(InvalidParams) as refused:
            add(path, "a", command=patterns)
        assert refused.value.field == "command"
    with pytest.raises(InvalidParams):
        add(path, "a", submit=[])
    assert not path.exists()
    add(path, "a", submit=["*"])
    with pytest.raises(Conflict):
        add(path, "a", submit=["*"])
    with pytest.raises(InvalidParams):
        tokens.remove(path, "b")


def test_many_writers_lose_nothing(path: Path) -> None:
    path.parent.mkdir()
    pool = gevent.get_hub().threadpool
    making = [pool.spawn(add, path, f"t{i}", submit=["*"]) for i in range(20)]
    made = {one.get() for one in making}
    known = Tokens(path)
    assert len(made) == 20
    assert all(known.find(token) for token in made)
    assert len(json.loads(path.read_text())["tokens"]) == 20


@pytest.mark.parametrize(
    ("patterns", "topic", "may"),
    [
        (["orders"], "orders", True),
        (["orders"], "orders2", False),
        (["orders"], "xorders", False),
        (["or.ers"], "orders", False),
        (["*"], "anything.at-all_9", True),
        (["shop.*"], "shop.", True),
        (["shop.*"], "shop", False),
        (["shop.*"], "myshop.a", False),
        (["*.eu", "orders"], "a.eu", True),
        (["*.eu", "orders"], "orders", True),
        (["*.eu", "orders"], "a.euorders", False),
        (["a*b*c"], "a.b.b.c", True),
        (["a*b*c"], "a.c.b", False),
        (["*a" * 64], "a" * 128, True),
        (["*a" * 60], "a" * 59 + "b" * 69, False),
        ([], "orders", False),
    ],
)
def test_patterns(patterns: list[str], topic: str, may: bool) -> None:
    token = Token(name="a", hash="", command=tuple(patterns))
    assert token.may(Right.COMMAND, topic) is may
    assert not token.may(Right.SUBMIT, topic)
    assert not token.may(Right.READ, topic)
