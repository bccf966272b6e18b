"""No trick of a URL or of DNS leads a callback where it may not go: receive and worker, with real
connections. The denied address is 127.0.0.2, where a server of ours waits for what gets through."""

import socket
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

import pytest
from gevent.server import StreamServer

from receive_app import rules
from receive_app.ingress import Ingress
from receive_app.rpc import Handler
from soraka import wire
from soraka.destinations import Destinations
from soraka.errors import InvalidParams
from soraka.message import Callback, Message, State, Submission
from tests.unit.receive_kit import TOPIC, Kit, uuid7
from tests.unit.sinks import Sink, ok, sink
from tests.unit.test_destinations import SPELLINGS
from tests.unit.worker_kit import Rig
from worker.callback import Caller
from worker.dns import Resolver
from worker.judge import Answer, Failure
from worker.request import Request, build

GOOD, BAD = "127.0.0.1", "127.0.0.2"
RULES = Destinations(denied_networks=f"{BAD}, 169.254.0.0/16")
DENIED = Failure(f"destination {BAD} is denied ({BAD}/32)", final=True)
BAD_SPELLINGS = {
    "dotted": BAD,
    "decimal": "2130706434",
    "octal": "0177.0.0.02",
    "hex": "0x7f000002",
    "short": "127.2",
    "mapped": "[::ffff:127.0.0.2]",
    "mapped in hex": "[::ffff:7f00:2]",
    "wide digits": "１２７.０.０.２",  # noqa: RUF001 (a name that IDNA makes an address of)
    "wide dots": "127。0。0。2",
}


@pytest.fixture
def good() -> Iterator[Sink]:
    with sink() as made:
        yield made


@contextmanager
def listening_at_the_denied(port: int) -> Iterator[Sink]:
    """At the same port, as a hostile answer of DNS cannot change that."""
    made = Sink(port=port)
    server = StreamServer((BAD, port), made.serve)
    server.start()
    try:
        yield made
    finally:
        server.stop(timeout=0.1)


@pytest.fixture
def bad(good: Sink) -> Iterator[Sink]:
    with listening_at_the_denied(good.port) as made:
        yield made


def request(url: str) -> Request:
    message = Message(
        msg_id="01890a5d-ac96-774b-bcce-b302099a8057",
        topic=TOPIC,
        created_at=1,
        due_at=2,
        ttr_ms=2000,
        callback=Callback(method="POST", url=url, params="{}"),
    )
    return build(message, attempt=1, due_at=2)


def called(url: str, look_up: Callable[..., Any] = socket.getaddrinfo) -> Answer | Failure:
    resolver = Resolver(look_up=look_up)
    made = Caller(max_response_bytes=4096, resolver=resolver, destinations=RULES)
    with closing(made):
        return made(request(url))


def answers(*hosts: str) -> list[tuple[Any, ...]]:
    """As getaddrinfo gives them."""
    return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", (host, 0)) for host in hosts]


# --------------------------------------------------------------- worker


def test_the_server_at_the_denied_address_is_there(good: Sink, bad: Sink) -> None:
    with closing(Caller(max_response_bytes=4096)) as caller:
        assert caller(request(f"http://{BAD}:{bad.port}/")) == Answer(200, b"{}")
    assert bad.connections == 1


@pytest.mark.parametrize("host", BAD_SPELLINGS.values(), ids=BAD_SPELLINGS)
def test_a_denied_address_is_not_connected_to(good: Sink, bad: Sink, host: str) -> None:
    assert called(f"http://{host}:{bad.port}/") == DENIED
    assert bad.connections == 0


def test_a_name_that_resolves_to_a_denied_address(good: Sink, bad: Sink) -> None:
    result = called(f"http://hooks.example:{bad.port}/", lambda *_: answers(BAD))
    assert result == Failure(f"{DENIED.reason}: address of hooks.example", final=True)
    assert bad.connections == 0


def test_a_name_that_resolves_to_a_mapped_address(good: Sink, bad: Sink) -> None:
    mapped = [(socket.AF_INET6, socket.SOCK_STREAM, 6, "", ("::ffff:127.0.0.2", 0, 0, 0))]
    result = called(f"http://hooks.example:{bad.port}/", lambda *_: mapped)
    assert isinstance(result, Failure)
    assert (result.final, bad.connections) == (True, 0)


def test_of_several_addresses_the_denied_are_left_out(good: Sink, bad: Sink) -> None:
    result = called(f"http://hooks.example:{bad.port}/", lambda *_: answers(BAD, GOOD))
    assert result == Answer(200, b"{}")
    assert (good.connections, bad.connections) == (1, 0)


class Rebinding:
    """A hostile DNS server: a good address for the check, the denied one for who asks again."""

    def __init__(self, *turns: str) -> None:
        self._turns = list(turns)
        self.asked = 0

    def __call__(self, *_: Any) -> list[tuple[Any, ...]]:
        turn = self._turns[min(self.asked, len(self._turns) - 1)]
        self.asked += 1
        return answers(turn)


def test_a_name_whose_answer_changes_between_check_and_use(good: Sink, bad: Sink) -> None:
    dns = Rebinding(GOOD, BAD)
    assert called(f"http://hooks.example:{bad.port}/", dns) == Answer(200, b"{}")
    assert dns.asked == 1  # what was checked is what was connected to
    assert (good.connections, bad.connections) == (1, 0)


def test_a_name_whose_answer_changes_between_two_calls(good: Sink, bad: Sink) -> None:
    dns = Rebinding(GOOD, BAD, BAD)
    resolver = Resolver(look_up=dns, ttl_s=0, stale_s=0)
    caller = Caller(max_response_bytes=4096, resolver=resolver, destinations=RULES)
    good.reply = ok(extra="Connection: close\r\n")
    url = f"http://hooks.example:{bad.port}/"
    with closing(caller):
        assert caller(request(url)) == Answer(200, b"{}")
        result = caller(request(url))
    assert result == Failure(f"{DENIED.reason}: address of hooks.example", final=True)
    assert dns.asked == 2
    assert (good.connections, bad.connections) == (1, 0)


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
def test_a_redirect_to_a_denied_address_is_not_followed(good: Sink, bad: Sink, status: int) -> None:
    there = f"http://{BAD}:{bad.port}/"
    good.reply = ok(b"", status=f"{status} Elsewhere", extra=f"Location: {there}\r\n")
    assert called(good.url) == Answer(status)
    assert (len(good.seen), bad.connections) == (1, 0)


@pytest.mark.parametrize(
    "url",
    [
        "http://127.0.0.1@127.0.0.2:{port}/",
        "http://127.0.0.1:80@127.0.0.2:{port}/",
        "http://127.0.0.2:{port}@127.0.0.1:{port}/",
        "http://127.0.0.1%40127.0.0.2:{port}/",
        "http://127.0.0.1\\@127.0.0.2:{port}/",
        "http://127.0.0.1&@127.0.0.2:{port}/",
        "http://127.0.0.1 @127.0.0.2:{port}/",
        "http://127.0.0.1\t@127.0.0.2:{port}/",
        "http://[::1]@127.0.0.2:{port}/",
        "http://@127.0.0.2:{port}/",
        "http://:@127.0.0.2:{port}/",
    ],
)
def test_userinfo_hides_no_host(good: Sink, bad: Sink, url: str) -> None:
    """Neither accepted nor, when it comes another way, called."""
    written = url.format(port=bad.port)
    with pytest.raises(InvalidParams, match=r"callback\.url"):
        rules.check_url(written, 2048)
    with pytest.raises(InvalidParams, match=r"callback\.url"):
        called(written)
    assert (good.connections, bad.connections) == (0, 0)


@pytest.mark.parametrize("sign", ["#", "?", "/"])
def test_what_follows_the_host_is_none(good: Sink, bad: Sink, sign: str) -> None:
    """Receive and worker agree on where the host ends."""
    url = f"http://{GOOD}:{good.port}{sign}@{BAD}:{bad.port}/"
    assert rules.check_url(url, 2048) == GOOD
    assert called(url) == Answer(200, b"{}")
    assert (good.connections, bad.connections) == (1, 0)


def test_a_denied_name_is_not_even_looked_up() -> None:
    asked: list[str] = []

    def look_up(host: str, *_: Any) -> list[tuple[Any, ...]]:
        asked.append(host)
        return answers(GOOD)

    made = Caller(
        max_response_bytes=4096,
        resolver=Resolver(look_up=look_up),
        destinations=Destinations(denied_hosts="*.internal"),
    )
    with closing(made):
        result = made(request("http://db.INTERNAL./"))
    assert result == Failure("destination db.internal is denied (*.internal)", final=True)
    assert asked == []


def test_a_message_for_a_denied_destination_is_dead_at_once_with_the_reason(
    tmp_path: Path, good: Sink, bad: Sink
) -> None:
    rig = Rig(tmp_path / "store.db")
    rig.caller = Caller(max_response_bytes=4096, destinations=RULES)
    with closing(rig):
        rig.loop()
        (msg_id,) = rig.put(f"http://{BAD}:{bad.port}/", retry_ms=(0, 0, 0))
        ended = rig.ends(msg_id)
        # its circuit is closed, and nothing else is held up
        rig.all_end(rig.put(good.url), State.SUCCEEDED)
    assert (ended.state, ended.reason, ended.attempt) == (State.DEAD, DENIED.reason, 1)
    assert bad.connections == 0


# --------------------------------------------------------------- receive


@pytest.fixture
def kit(tmp_path: Path) -> Iterator[Kit]:
    made = Kit(tmp_path)
    made.ingress = Ingress(
        log=made.log,
        store=made.parts.store,
        reader=made.parts.store,
        topics=made.parts.topics.get,
        known_topics=made.parts.topics.find,
        clock=made.parts.clock,
        encode=wire.encode,
        new_id=lambda: uuid7(made.now_ms()),
        limits=made.config.receive,
        early_ms=made.config.store.early_ms,
        why_denied=made.config.outbound.destinations().why_host_denied,
    )
    made.handler = Handler(made.ingress, limits=made.config.receive)
    yield made
    made.close()


def submission(url: str) -> Submission:
    return Submission(
        topic=TOPIC, callback=Callback(method="POST", url=url, params="{}"), delay_ms=1
    )


@pytest.mark.parametrize("host", SPELLINGS.values(), ids=SPELLINGS)
def test_receive_refuses_a_denied_address_and_names_the_field(kit: Kit, host: str) -> None:
    with pytest.raises(InvalidParams) as refused:
        kit.ingress.submit(submission(f"http://{host}/latest/meta-data/"))
    assert refused.value.field == "callback.url"
    assert refused.value.reason == "destination 169.254.169.254 is denied (169.254.0.0/16)"
    assert kit.logged() == []


def test_a_batch_refuses_it_alone(kit: Kit) -> None:
    first, second = kit.ingress.submit_batch(
        [submission("http://169.254.169.254/"), submission("http://10.0.0.1/")]
    )
    assert isinstance(first, InvalidParams)
    assert isinstance(second, str)


def test_what_only_a_look_up_tells_is_accepted(kit: Kit) -> None:
    kit.ingress.submit(submission("http://metadata.example/"))
    assert len(kit.logged()) == 1
