import pytest

from soraka import __version__
from soraka.errors import InvalidParams
from soraka.message import Callback, Message
from worker.request import Origin, build

ID = "01890a5d-ac96-774b-bcce-b302099a8057"


def message(
    url: str, *, method: str = "GET", params: str | None = None, topic: str = "orders"
) -> Message:
    return Message(
        msg_id=ID,
        topic=topic,
        created_at=1,
        due_at=2,
        ttr_ms=1500,
        callback=Callback(method=method, url=url, params=params),
    )


def uri(url: str, params: str | None = None) -> str:
    data = build(message(url, params=params), attempt=1, due_at=5).data
    return data.split(b" ")[1].decode()


def test_a_post_to_the_byte() -> None:
    request = build(
        message("http://h.example:81/a?b=c", method="POST", params='{"ö": 1}'),
        attempt=3,
        due_at=77,
    )
    assert request.origin == Origin("http", "h.example", 81)
    assert request.ttr_ms == 1500
    assert (
        request.data
        == (
            "POST /a?b=c HTTP/1.1\r\n"
            "Host: h.example:81\r\n"
            f"User-Agent: soraka/{__version__}\r\n"
            "Accept: */*\r\n"
            f"Soraka-Message-Id: {ID}\r\n"
            "Soraka-Topic: orders\r\n"
            "Soraka-Attempt: 3\r\n"
            "Soraka-Due-At: 77\r\n"
            "Content-Type: application/json\r\n"
            "Content-Length: 9\r\n"
            "\r\n"
            '{"ö": 1}'
        ).encode()
    )


def test_a_post_without_params_has_an_empty_body() -> None:
    data = build(message("http://h/", method="POST"), attempt=1, due_at=1).data
    assert data.endswith(b"Content-Length: 0\r\n\r\n")
    assert b"Content-Type" not in data


@pytest.mark.parametrize(
    ("url", "origin", "host"),
    [
        ("https://H.Example/x", Origin("https", "h.example", 443), "h.example"),
        ("http://h:80/", Origin("http", "h", 80), "h"),
        ("https://h:80/", Origin("https", "h", 80), "h:80"),
        ("http://[::1]:8080/", Origin("http", "::1", 8080), "[::1]:8080"),
        ("http://bücher.example/", Origin("http", "xn--bcher-kva.example", 80), None),
    ],
)
def test_origin_and_host(url: str, origin: Origin, host: str | None) -> None:
    request = build(message(url), attempt=1, due_at=1)
    assert request.origin == origin
    assert f"\r\nHost: {host or origin.host}\r\n".encode() in request.data


@pytest.mark.parametrize(
    ("url", "wanted"),
    [
        ("http://h", "/"),
        ("http://h?a=1", "/?a=1"),
        ("http://h/a%20b?x=%26#frag", "/a%20b?x=%26"),
        ("http://h/a b?c d", "/a%20b?c%20d"),
        ("http://h/ü", "/%C3%BC"),
        ("http://h/\x7f", "/%7F"),
    ],
)
def test_uri(url: str, wanted: str) -> None:
    assert uri(url) == wanted


@pytest.mark.parametrize(
    ("params", "query"),
    [
        (None, ""),
        ("{}", ""),
        (
            '{"a": 1, "b": "x y&z", "c": true, "d": false, "e": null}',
            "a=1&b=x+y%26z&c=true&d=false&e=",
        ),
        ('{"a": [1, "b", false], "c": []}', "a=1&a=b&a=false"),
        ('{"a": 1.5, "b": {"c": [1]}}', "a=1.5&b=%7B%22c%22%3A%5B1%5D%7D"),
        ('{"ü\\r\\n": "\\r\\nX: y"}', "%C3%BC%0D%0A=%0D%0AX%3A+y"),
        ('{"a": "\\ud800"}', "a=%3F"),
    ],
)
def test_params_of_a_get_go_into_the_query(params: str | None, query: str) -> None:
    assert uri("http://h/p", params) == (f"/p?{query}" if query else "/p")
    assert uri("http://h/p?old=1", params) == (f"/p?old=1&{query}" if query else "/p?old=1")


@pytest.mark.parametrize("params", ["[1]", "1", "nonsense", "[" * 100_000])
def test_params_that_are_no_object(params: str) -> None:
    with pytest.raises(InvalidParams, match=r"callback\.params: not a JSON object"):
        build(message("http://h/", params=params), attempt=1, due_at=1)


@pytest.mark.parametrize(
    "url",
    [
        "",
        "h/x",
        "ftp://h/x",
        "http://",
        "http:///x",
        "http://u:p@h/",
        "http://h:0/",
        "http://h:99999/",
        "http://h:x/",
        "http://[::1/",
        "http://a b/",
        "http://" + "a" * 70 + "ü.example/",
    ],
)
def test_urls_of_no_use(url: str) -> None:
    with pytest.raises(InvalidParams, match=r"callback\.url"):
        build(message(url), attempt=1, due_at=1)


@pytest.mark.parametrize("bad", ["\r\nX-Evil: 1", "\nX-Evil: 1", "\r", "\x00", "\u2028"])
def test_nothing_breaks_out_of_its_line(bad: str) -> None:
    url = f"http://h/p{bad}?q{bad}#{bad}"
    data = build(message(url, topic=f"t{bad}"), attempt=1, due_at=1).data
    lines = data.split(b"\r\n")
    assert len(lines) == 10
    assert not any(line.lower().startswith(b"x-evil") for line in lines)
    assert all(0x20 <= byte < 0x7F for line in lines for byte in line)
