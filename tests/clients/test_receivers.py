"""The receivers of `examples/`: against signatures of the official library, and real callbacks."""

import base64
import hmac
import time
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from itertools import count
from pathlib import Path

import pytest
import requests
from standardwebhooks import Webhook

from soraka.client import Client, MessageNotFound, State
from soraka.signing import new_secret
from tests.acceptance.deployments import free_port
from tests.acceptance.sink import wait_until
from tests.clients.conftest import Behind
from tests.clients.programs import LANGUAGES, RECEIVERS, Program

pytestmark = pytest.mark.timeout(120)

SECRET, OTHER = new_secret(), new_secret()
BODY = '{"ö": "€"}'
_ids = count(1)


@dataclass
class Receiver:
    program: Program
    url: str

    def post(self, headers: dict[str, str], body: str = BODY) -> requests.Response:
        return requests.post(self.url, data=body.encode(), headers=headers, timeout=10)


def start(language: str, secret: str, folder: Path) -> Receiver:
    port = free_port()
    log = folder / f"{language}.log"
    program = Program([*RECEIVERS[language], str(port)], {"SORAKA_SECRET": secret}, log)
    made = Receiver(program, f"http://127.0.0.1:{port}/callback")
    try:
        wait_until(lambda: _listens(made), 20, log.read_text)
    except BaseException:
        program.close()
        raise
    return made


def _listens(receiver: Receiver) -> bool:
    assert not receiver.program.has_ended, receiver.program.errors
    try:
        return receiver.post({}).status_code == 401
    except requests.ConnectionError:
        return False


@pytest.fixture(scope="module", params=LANGUAGES)
def receiver(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Receiver]:
    made = start(request.param, SECRET, tmp_path_factory.mktemp("receiver"))
    yield made
    made.program.close()


def signed(secret: str = SECRET, *, ago_s: int = 0, body: str = BODY) -> dict[str, str]:
    """Headers by the official library, with an id of its own."""
    msg_id, at = f"msg-{next(_ids)}", int(time.time()) - ago_s
    signature = Webhook(secret).sign(msg_id, datetime.fromtimestamp(at, UTC), body)
    return headers(msg_id, str(at), signature)


def headers(msg_id: str, timestamp: str, signature: str) -> dict[str, str]:
    return {"webhook-id": msg_id, "webhook-timestamp": timestamp, "webhook-signature": signature}


def by_hand(msg_id: str, timestamp: str) -> dict[str, str]:
    """A right signature over a timestamp that the library would not write."""
    key = base64.b64decode(SECRET.removeprefix("whsec_"))
    mac = hmac.digest(key, f"{msg_id}.{timestamp}.{BODY}".encode(), "sha256")
    return headers(msg_id, timestamp, f"v1,{base64.b64encode(mac).decode()}")


def accepted(receiver: Receiver, sent: dict[str, str]) -> None:
    answer = receiver.post(sent)
    assert (answer.status_code, answer.json()) == (200, {"result": True})
    assert receiver.program.line() == f"{sent['webhook-id']} {BODY}"


def test_one_that_comes_twice_is_done_once(receiver: Receiver) -> None:
    sent, next_ = signed(), signed()
    accepted(receiver, sent)
    again = receiver.post(sent)
    assert (again.status_code, again.json()) == (200, {"result": True})
    accepted(receiver, next_)  # so the second printed nothing


@pytest.mark.parametrize("ago_s", [290, -290])
def test_clocks_may_differ(receiver: Receiver, ago_s: int) -> None:
    accepted(receiver, signed(ago_s=ago_s))


@pytest.mark.parametrize("more", ["v1,AAAA {}", "{} v1,AAAA", "v1a,AAAA {}", "v2,AAAA {} v1,x"])
def test_one_right_signature_is_enough(receiver: Receiver, more: str) -> None:
    sent = signed()
    sent["webhook-signature"] = more.format(sent["webhook-signature"])
    accepted(receiver, sent)


def test_both_secrets_of_a_rotation(receiver: Receiver) -> None:
    sent = signed()
    at = datetime.fromtimestamp(int(sent["webhook-timestamp"]), UTC)
    other = Webhook(OTHER).sign(sent["webhook-id"], at, BODY)
    sent["webhook-signature"] = f"{other} {sent['webhook-signature']}"
    accepted(receiver, sent)


@pytest.mark.parametrize(
    "wrong",
    [
        {"webhook-id": "msg-0"},
        {"webhook-id": ""},
        {"webhook-signature": "v1,"},
        {"webhook-signature": "v1"},
        {"webhook-signature": ""},
    ],
)
def test_what_is_not_as_it_was_signed(receiver: Receiver, wrong: dict[str, str]) -> None:
    assert receiver.post({**signed(), **wrong}).status_code == 401


def test_another_secret(receiver: Receiver) -> None:
    assert receiver.post(signed(OTHER)).status_code == 401


def test_another_time(receiver: Receiver) -> None:
    sent = signed()
    sent["webhook-timestamp"] = str(int(sent["webhook-timestamp"]) - 1)
    assert receiver.post(sent).status_code == 401


def test_another_body(receiver: Receiver) -> None:
    assert receiver.post(signed(body='{"ö": "$"}')).status_code == 401


@pytest.mark.parametrize("ago_s", [310, -310])
def test_what_is_too_old_or_too_new(receiver: Receiver, ago_s: int) -> None:
    assert receiver.post(signed(ago_s=ago_s)).status_code == 401


@pytest.mark.parametrize("name", ["webhook-id", "webhook-timestamp", "webhook-signature"])
def test_every_header_is_needed(receiver: Receiver, name: str) -> None:
    sent = signed()
    del sent[name]
    assert receiver.post(sent).status_code == 401


@pytest.mark.parametrize("form", ["v2,{}", "v1a,{}", "{}", "V1,{}", "v1,{}x", "v1,{}v1,{}"])
def test_other_forms_of_the_right_signature(receiver: Receiver, form: str) -> None:
    sent = signed()
    text = sent["webhook-signature"].removeprefix("v1,")
    sent["webhook-signature"] = form.format(text, text)
    assert receiver.post(sent).status_code == 401


@pytest.mark.parametrize("form", ["+{}", "{}.0", "{}e0", "-{}", "0x{:x}", "{}{:0>40}", "now"])
def test_other_forms_of_a_time(receiver: Receiver, form: str) -> None:
    now = int(time.time())
    assert receiver.post(by_hand("by-hand", form.format(now, now))).status_code == 401


def test_a_plain_time_by_hand_is_right(receiver: Receiver) -> None:
    accepted(receiver, by_hand(f"by-hand-{next(_ids)}", str(int(time.time()))))


def test_a_body_that_is_too_large(receiver: Receiver) -> None:
    body = "x" * (2 << 20)
    with suppress(requests.ConnectionError):  # it need not read the rest
        assert receiver.post(signed(body=body), body).status_code == 413
    accepted(receiver, signed())


@pytest.mark.parametrize("language", LANGUAGES)
def test_real_callbacks(language: str, behind: Behind, tmp_path: Path) -> None:
    knows, does_not = tmp_path / "right", tmp_path / "wrong"
    knows.mkdir()
    does_not.mkdir()
    right = start(language, behind.secret, knows)
    try:
        wrong = start(language, OTHER, does_not)
        try:
            _call(behind, right, wrong)
        finally:
            wrong.program.close()
    finally:
        right.program.close()


def _call(behind: Behind, right: Receiver, wrong: Receiver) -> None:
    with Client(behind.cluster.url, token=behind.token) as client:

        def state(msg_id: str) -> State | None:
            try:
                return client.get(msg_id).state
            except MessageNotFound:
                return None

        def call(receiver: Receiver, number: int) -> str:
            given = {"params": {"n": number}, "retry": [], "ttr": timedelta(seconds=10)}
            return client.submit(behind.topic, receiver.url, **given)

        good, bad = call(right, 1), call(wrong, 2)
        wait_until(lambda: state(good) == State.SUCCEEDED, 30)
        assert right.program.line() == f'{good} {{"n":1}}'
        wait_until(lambda: state(bad) == State.DEAD, 30)
        assert "401" in client.get(bad).reason
