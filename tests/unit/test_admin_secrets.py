"""Secrets of topics in admin: made and told once, in no list, page, audit or log after that."""

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from soraka.signing import key_of, new_secret
from tests.unit.admin_kit import TOPIC, Client, Kit

SECRET = re.compile(r"whsec_[A-Za-z0-9+/]{20,}=*")


@pytest.fixture
def kit(tmp_path: Path) -> Iterator[Kit]:
    made = Kit(tmp_path)
    yield made
    made.close()


@pytest.fixture
def operator(kit: Kit) -> Client:
    return kit.client("operator")


def secrets_of(kit: Kit) -> tuple[str, ...]:
    return kit.parts.registry.topics()[TOPIC].secrets


def refused(answer: Any, status: int, ec: int, em: str) -> None:
    assert (answer.status_code, answer.json["ec"]) == (status, ec), answer.text
    assert em in answer.json["em"]


def test_a_rotation_by_the_api(kit: Kit, operator: Client) -> None:
    first = operator.result("/topic/addSecret", topic_name=TOPIC)["secret"]
    assert secrets_of(kit) == (first,)
    key_of(first)
    own = new_secret()
    assert operator.result("/topic/addSecret", topic_name=TOPIC, secret=own) == {"secret": None}
    assert secrets_of(kit) == (own, first)
    assert operator.result("/topic/get", topic_name=TOPIC)["secret_num"] == 2
    refused(operator.post("/topic/addSecret", topic_name=TOPIC), 409, 412, "two secrets already")
    # other settings leave them
    operator.result("/topic/update", topic_name=TOPIC, business="shop")
    assert operator.result("/topic/removeSecret", topic_name=TOPIC, which="older")
    assert secrets_of(kit) == (own,)
    refused(
        operator.post("/topic/removeSecret", topic_name=TOPIC, which="older"), 409, 412, "1 secret"
    )
    assert operator.result("/topic/removeSecret", topic_name=TOPIC, which="all")
    assert secrets_of(kit) == ()
    assert operator.got("/topic/list")[0]["secret_num"] == 0


def test_what_is_wrong_is_refused_by_name(kit: Kit, operator: Client) -> None:
    wrong = "whsec_tooShortToBeOne"
    refused(
        operator.post("/topic/addSecret", topic_name=TOPIC, secret=wrong), 400, 401, "secret: must"
    )
    refused(operator.post("/topic/addSecret", topic_name="absent"), 404, 407, "absent")
    refused(operator.post("/topic/removeSecret", topic_name=TOPIC), 400, 401, "which: ")
    refused(
        operator.post("/topic/removeSecret", topic_name=TOPIC, which="both"), 400, 401, "which: "
    )
    refused(
        operator.post("/topic/update", topic_name=TOPIC, secrets=[new_secret()]),
        400,
        401,
        "secrets",
    )
    assert secrets_of(kit) == ()


def test_a_viewer_may_not(kit: Kit) -> None:
    viewer = kit.client("viewer")
    for path, fields in (("addSecret", {}), ("removeSecret", {"which": "all"})):
        answer = viewer.post(f"/topic/{path}", topic_name=TOPIC, **fields)
        refused(answer, 403, 410, "operator")
    assert "signatures" not in viewer.flask.get(f"/topics/{TOPIC}").text
    assert secrets_of(kit) == ()


def page(client: Client, path: str, **form: str) -> Any:
    return client.flask.post(path, data=form, headers=client.headers)


def test_a_rotation_by_the_pages(kit: Kit, operator: Client) -> None:
    here = f"/topics/{TOPIC}"
    made = SECRET.findall(page(operator, f"{here}/secrets", secret="").text)
    assert (made, secrets_of(kit)) == ([made[0]], (made[0],))
    own = new_secret()
    answer = page(operator, f"{here}/secrets", secret=own)
    assert SECRET.findall(answer.text) == []
    assert secrets_of(kit) == (own, made[0])
    assert "signed with 2 secrets" in answer.text
    assert page(operator, f"{here}/secrets").status_code == 303  # two already: told on the page
    assert "two secrets already" in operator.flask.get(here).text
    asked = page(operator, f"{here}/secrets/older/remove")
    assert "Remove the older secret of orders?" in asked.text
    assert len(secrets_of(kit)) == 2
    assert page(operator, f"{here}/secrets/older/remove", confirmed="yes").status_code == 303
    assert secrets_of(kit) == (own,)
    page(operator, f"{here}/secrets/all/remove", confirmed="yes")
    assert secrets_of(kit) == ()
    assert "not signed" in operator.flask.get(here).text
    wrong = page(operator, f"{here}/secrets", secret="whsec_no")
    assert wrong.status_code == 400
    assert "Must be whsec_ and 24 to 64 bytes in base64." in wrong.text


def test_no_secret_is_told_again(
    kit: Kit, operator: Client, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("DEBUG")
    own = new_secret()
    operator.result("/topic/addSecret", topic_name=TOPIC)
    page(operator, f"/topics/{TOPIC}/secrets", secret=own)
    known = secrets_of(kit)
    assert len(known) == 2
    for answer in (
        operator.get("/topic/list"),
        operator.post("/topic/get", topic_name=TOPIC),
        operator.flask.get(f"/topics/{TOPIC}"),
        operator.flask.get("/topics"),
        operator.flask.get("/audit"),
        operator.get("/audit/list"),
    ):
        assert answer.status_code == 200
        assert not [secret for secret in known if secret in answer.text]
    noted = Path(kit.config.admin.audit).read_text()
    assert "api.topic_addSecret" in noted
    assert "pages.add_secret" in noted
    logged = str([vars(record) for record in caplog.records])
    assert not [secret for secret in known if secret in noted or secret in logged]
    operator.result("/topic/removeSecret", topic_name=TOPIC, which="older")
    assert operator.got("/audit/list")[0]["details"] == {"topic_name": TOPIC, "which": "older"}
