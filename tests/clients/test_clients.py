"""The clients of `examples/`, each made by the official compiler and on the official library. All
run at the same time, while what they speak to is taken away below them."""

import json
import os
import signal
import socket
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import redis

import idl
from soraka import tokens
from soraka.rpc import RpcServer
from soraka.tokens import Right, Tokens
from tests.acceptance.sink import Sink, wait_until
from tests.clients.conftest import APPEND_TIMEOUT_MS, Behind
from tests.clients.programs import CLIENTS, LANGUAGES, Program
from tests.servers import FullStack
from tests.unit.receive_kit import TOPIC, Kit

pytestmark = pytest.mark.timeout(180)

TOUR = [
    "sent again, the same",
    "batch 200 200 401",
    "is PENDING",
    "later by a minute",
    "is CANCELLED",
    "TooLate: too late: it is being called, was called, was cancelled, or is dead",
    "KeyReused: idempotency_key: was sent before, with another message",
    "InvalidRequest: delay_time: must be at least 0 ms",
    "MessageNotFound: msg_id: no such message, or its retention has passed",
    "TopicNotFound: topic '{topic}.none' does not exist",
    "ready",
]
REFUSED = 'soraka_requests_total{ec="503"'


@dataclass
class Told:
    """What the clients printed: their tours, and then by language and line the message ids."""

    tours: dict[str, list[str]]
    msg_ids: dict[str, dict[str, str]]
    exits: dict[str, int]
    unavailable: float


class Speakers:
    """All clients at once."""

    def __init__(self, programs: dict[str, Program]) -> None:
        self._programs = programs
        self.msg_ids: dict[str, dict[str, str]] = {language: {} for language in programs}

    def say(self, what: str) -> None:
        for language, program in self._programs.items():
            program.say(json.dumps({"from": language, "what": what}))

    def hear(self, what: str) -> None:
        for language, program in self._programs.items():
            self.msg_ids[language][what] = program.line()

    def submit(self, what: str) -> None:
        self.say(what)
        self.hear(what)


@pytest.fixture(scope="module")
def module_sink() -> Iterator[Sink]:
    made = Sink()
    yield made
    made.close()


@pytest.fixture(scope="module")
def told(
    behind: Behind,
    module_sink: Sink,
    full_stack: FullStack,
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[Told]:
    """Of clients that go through the death of each receive, and through a log that stands still."""
    folder = tmp_path_factory.mktemp("logs")
    programs = {
        language: client(language, behind, module_sink.url("/line"), folder, behind.token)
        for language in LANGUAGES
    }
    try:
        tours = {language: _tour(program) for language, program in programs.items()}
        speakers = Speakers(programs)
        speakers.submit("all is well")
        first, second = behind.receives
        first.kill()
        speakers.submit("the first is dead")
        first.start()
        behind.wait_answers()
        speakers.submit("the first is back")
        with _standing_still(full_stack.kafka.pid):
            kept = _kept_keys(full_stack)
            speakers.say("the second dies in the middle of the call")
            # each of them has its key in the store, and waits for the log
            wait_until(lambda: _kept_keys(full_stack) == kept + len(programs), 10)
            second.kill()
        speakers.hear("the second dies in the middle of the call")
        before = behind.counted(REFUSED)
        with _standing_still(full_stack.kafka.pid):
            speakers.say("the log stands still")
            time.sleep(APPEND_TIMEOUT_MS / 1000 + 1.5)  # for so long that it is refused
        speakers.hear("the log stands still")
        unavailable = behind.counted(REFUSED) - before
        speakers.submit("all is well again")
        exits = {language: program.end() for language, program in programs.items()}
        yield Told(tours, speakers.msg_ids, exits, unavailable)
    finally:
        for program in programs.values():
            program.close()


def client(language: str, behind: Behind, url: str, folder: Path, token: str) -> Program:
    """Without a token for ''."""
    environ = {"SORAKA_TOKEN": token} if token else {}
    command = [*CLIENTS[language], "127.0.0.1", str(behind.port), behind.topic, url]
    return Program(command, environ, folder / f"{language}.log")


def _tour(program: Program) -> list[str]:
    lines = [program.line()]
    while lines[-1] != "ready":
        lines.append(program.line())
    return lines


@contextmanager
def _standing_still(pid: int | None) -> Iterator[None]:
    assert pid is not None
    os.kill(pid, signal.SIGSTOP)
    try:
        yield
    finally:
        os.kill(pid, signal.SIGCONT)


def _kept_keys(full_stack: FullStack) -> int:
    with redis.Redis.from_url(full_stack.redis.url) as client:
        return sum(1 for _ in client.scan_iter("*:k:*"))


@pytest.mark.parametrize("language", LANGUAGES)
def test_each_call_and_each_error(language: str, told: Told, behind: Behind) -> None:
    first, *rest = told.tours[language]
    assert first.startswith("submitted ")
    assert rest == [line.format(topic=behind.topic) for line in TOUR]
    assert told.exits[language] == 0


@pytest.mark.parametrize("language", LANGUAGES)
def test_calls_go_on_while_instances_die(language: str, told: Told, module_sink: Sink) -> None:
    msg_ids = told.msg_ids[language]
    assert len(set(msg_ids.values())) == len(msg_ids) == 6
    for what, msg_id in msg_ids.items():
        (call, *_) = module_sink.wait(msg_id, timeout_s=30)
        assert call.json() == {"from": language, "what": what}
    # what was sent again is still one message
    mine = {c.msg_id for c in module_sink.calls if c.json()["from"] == language}
    assert mine == set(msg_ids.values())


def test_each_met_a_log_that_stood_still(told: Told) -> None:
    assert told.unavailable >= len(LANGUAGES)


@pytest.mark.parametrize("language", LANGUAGES)
def test_a_token_is_needed(language: str, behind: Behind, tmp_path: Path) -> None:
    _refused(client(language, behind, "http://127.0.0.1:9/", tmp_path, ""), "NotAuthenticated: ")


@pytest.mark.parametrize("language", LANGUAGES)
def test_a_token_needs_the_right(language: str, behind: Behind, tmp_path: Path) -> None:
    token = behind.token_of_another
    _refused(client(language, behind, "http://127.0.0.1:9/", tmp_path, token), "NotAllowed: ")


class Busy:
    """A receive that has no room for the first two tokens that are given, of each client."""

    def __init__(self, kit: Kit) -> None:
        self._kit = kit
        self.refused = 0

    def __getattr__(self, name: str) -> Any:
        return getattr(self._kit.handler, name)

    def authenticate(self, token: str) -> None:
        if self.refused < 2:
            self.refused += 1
            raise idl.soraka.Unavailable(em="too many bytes are being read", retry_after=50)
        self._kit.handler.authenticate(token)


@pytest.mark.parametrize("language", LANGUAGES)
def test_a_token_that_was_not_taken_is_given_again(language: str, tmp_path: Path) -> None:
    made = tokens.add(tmp_path / "tokens.json", "mine", dict.fromkeys(Right, ("*",)))
    with closing(Kit(tmp_path, tokens=Tokens(tmp_path / "tokens.json"))) as kit:
        busy = Busy(kit)
        server = RpcServer(idl.soraka.Soraka, busy, socket.create_server(("127.0.0.1", 0)))
        server.start()
        environ = {"SORAKA_TOKEN": made}
        address = ["127.0.0.1", str(server.port), TOPIC, "http://127.0.0.1:9/"]
        program = Program([*CLIENTS[language], *address], environ, tmp_path / "log")
        try:
            assert program.line().startswith("submitted ")
        finally:
            program.close()
            server.stop(1)
        assert busy.refused == 2


def _refused(program: Program, error: str) -> None:
    try:
        assert program.end() == 1
        assert program.errors.startswith(error)
        assert "\n" not in program.errors.strip()
    finally:
        program.close()
