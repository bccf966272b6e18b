"""The pages without a browser: over the sample, and as text."""

import hashlib
import json
import re
from collections.abc import Iterator
from pathlib import Path

import pytest
from flask.testing import FlaskClient

import admin_app
from admin_app import words
from admin_app.accounts import Account
from soraka.errors import InvalidParams
from tests.browser.sample import LONG, msg_id
from tests.browser.sample_app import OPERATOR, VIEWER, sample_app
from tests.browser.screenshots import EMPTY, PAGES

STATIC = Path(admin_app.__file__).parent / "static"
CHARTS = ("counts", "flow", "lateness", "workers")
FOR_OPERATORS = ("access", "audit", "topic-new")


def client(folder: Path, *, user: Account = OPERATOR, empty: bool = False) -> FlaskClient:
    return sample_app(folder, empty=empty, user=user).test_client()


@pytest.fixture(scope="module")
def operator(tmp_path_factory: pytest.TempPathFactory) -> Iterator[FlaskClient]:
    with client(tmp_path_factory.mktemp("pages")) as made:
        yield made


def test_vendored_files_are_those_of_the_manifest() -> None:
    entries = json.loads((STATIC / "vendor" / "manifest.json").read_text())
    listed = {name: file["sha512"] for e in entries for name, file in e["files"].items()}
    found = {
        path.name: hashlib.sha512(path.read_bytes()).hexdigest()
        for path in (STATIC / "vendor").iterdir()
        if path.name != "manifest.json"
    }
    assert found == listed


@pytest.mark.parametrize("path", PAGES.values(), ids=PAGES)
def test_page_is_shown_and_nothing_in_it_breaks_the_content_policy(
    operator: FlaskClient, path: str
) -> None:
    answer = operator.get(path)
    assert answer.status_code == 200
    assert not re.search(r"<script(?![^>]* src=)|<style|\sstyle=|\son\w+=|javascript:", answer.text)
    assert not re.search(r"""(?:src|href|action)="(?:https?:)?//""", answer.text)


@pytest.mark.parametrize("name", EMPTY)
def test_empty_page_says_what_to_do_next(tmp_path: Path, name: str) -> None:
    answer = client(tmp_path, empty=True).get(PAGES[name])
    assert answer.status_code == 200
    assert 'class="empty"' in answer.text or 'class="note"' in answer.text


@pytest.mark.parametrize("name", sorted(set(PAGES) - set(FOR_OPERATORS)))
def test_viewer_gets_no_button_that_changes_anything(tmp_path: Path, name: str) -> None:
    page = client(tmp_path, user=VIEWER).get(PAGES[name]).text
    posts = re.findall(r'<form[^>]*method="post"[^>]*action="([^"]*)"', page)
    assert posts == ["/logout"] or name == "account"
    assert 'type="checkbox"' not in page


@pytest.mark.parametrize("chart", CHARTS)
@pytest.mark.parametrize("empty", [False, True])
def test_chart_has_a_value_for_each_x(tmp_path: Path, chart: str, empty: bool) -> None:
    got = client(tmp_path, empty=empty).get(f"/charts/{chart}.json?minutes=10080").get_json()
    assert all(len(series["values"]) == len(got["x"]) for series in got["series"])
    assert len(got["x"]) <= 720


def test_change_is_asked_for_once_without_scripts(operator: FlaskClient) -> None:
    path = f"/messages/{msg_id(0)}/cancel"
    question = operator.post(path)
    assert question.status_code == 200
    assert f"Cancel message {msg_id(0)}?" in question.text
    done = operator.post(path, data={"confirmed": "yes"})
    assert (done.status_code, done.location) == (303, f"/messages/{msg_id(0)}")
    assert "it will not be called" in operator.get(done.location).text


def test_question_keeps_what_the_form_had(operator: FlaskClient) -> None:
    given = {"action": "postpone", "add_time": "5m", "msg_id": ["a", "b"], "scope": "ticked"}
    question = operator.post("/messages/bulk", data=given).text
    assert "Postpone 2 messages?" in question
    kept = re.findall(r'type="hidden" name="(\w+)" value="([^"]*)"', question)
    assert {("action", "postpone"), ("add_time", "5m"), ("msg_id", "a"), ("msg_id", "b")} <= {*kept}


def test_every_wrong_field_is_told(operator: FlaskClient) -> None:
    form = {"topic_name": "x", "worker_num": "many", "retry_ms": "soon", "retention_ms": "3 weeks"}
    answer = operator.post("/topics/new", data=form)
    assert answer.status_code == 400
    for field in ("worker_num", "retry_ms", "retention_ms"):
        assert re.search(rf'class="error" id="f-{field}-note">{field}: must', answer.text)
    assert 'value="soon"' in answer.text


@pytest.mark.parametrize("query", ["state=asleep", "since=yesterday", "until=99999-01-01"])
def test_wrong_filter_is_told_beside_its_field(operator: FlaskClient, query: str) -> None:
    answer = operator.get(f"/messages?{query}")
    assert answer.status_code == 400
    assert f'id="f-{query.partition("=")[0]}-note"' in answer.text


@pytest.mark.parametrize("start", ["9" * 5000, "9" * 9, "-1", "x"])
def test_a_strange_page_of_topics_is_shown(operator: FlaskClient, start: str) -> None:
    assert operator.get(f"/topics?start={start}").status_code == 200


def test_next_page_keeps_the_filter(operator: FlaskClient) -> None:
    page = operator.get(f"/messages?topic={LONG}&since=2001-02-03T04:05").text
    older = re.search(r'href="(/messages\?[^"]*cursor=[^"]*)"', page)
    assert older is not None
    assert f"topic={LONG}&amp;since=2001-02-03T04%3A05&amp;cursor=" in older[1]


@pytest.mark.parametrize(
    ("path", "status", "words_of_it"),
    [
        (f"/messages/{msg_id(999)}", 404, "The message does not exist."),
        ("/topics/none-of-that", 404, "No such topic"),
    ],
)
def test_what_is_not_there_is_explained(
    operator: FlaskClient, path: str, status: int, words_of_it: str
) -> None:
    answer = operator.get(path)
    assert answer.status_code == status
    assert words_of_it in answer.text


@pytest.mark.parametrize(
    ("again", "field", "status"), [("another", "again", 400), ("correct horse", "old", 401)]
)
def test_own_password_is_refused_beside_its_field(
    operator: FlaskClient, again: str, field: str, status: int
) -> None:
    form = {"old": "x", "password": "correct horse", "again": again}
    answer = operator.post("/account", data=form)
    assert answer.status_code == status
    assert f'class="error" id="f-{field}-note"' in answer.text


def test_new_token_is_shown_once(operator: FlaskClient) -> None:
    made = operator.post("/access/tokens", data={"name": "once", "role": "viewer"}).text
    secret = re.search(r"soraka_[\w-]{20,}", made)
    assert secret is not None
    assert secret[0] not in operator.get("/access").text


@pytest.mark.parametrize(
    ("text", "ms"),
    [("90", 90), ("500ms", 500), (" 10 s ", 10_000), ("5min", 300_000), ("3d", 259_200_000)],
)
def test_durations_are_read(text: str, ms: int) -> None:
    assert words.read_duration("x", text) == ms


@pytest.mark.parametrize("text", ["", "s", "1.5s", "-1s", "5 weeks", "1s 2s"])
def test_what_is_no_duration_is_refused(text: str) -> None:
    with pytest.raises(InvalidParams, match=r"^x: must be a number and a unit"):
        words.read_duration("x", text)


@pytest.mark.parametrize("ms", [0, 1, 999, 1000, 61_000, 300_000, 7_200_000, 259_200_000])
def test_durations_are_written_as_they_are_read(ms: int) -> None:
    assert words.read_duration("x", words.write_duration(ms)) == ms


@pytest.mark.parametrize(
    ("ms", "told"),
    [
        (0, "0 ms"),
        (999, "999 ms"),
        (1500, "1 s"),
        (90_061, "1 min 30 s"),
        (90_000_000, "1 d 1 h"),
        (None, words.NOTHING),
    ],
)
def test_durations_are_told_in_two_units(ms: int | None, told: str) -> None:
    assert words.duration(ms) == told


def test_moments_are_told_exactly() -> None:
    assert words.exact(1_688_063_454_358) == "2023-06-29 18:30:54.358 UTC = 1688063454358 ms"
    assert words.read_moment("x", words.iso(1_688_063_454_358)) == 1_688_063_454_358
    assert words.read_moment("x", "2023-06-29T18:30") == 1_688_063_400_000
    assert words.moment_input("2023-06-29T20:30+02:00") == "2023-06-29T18:30"
