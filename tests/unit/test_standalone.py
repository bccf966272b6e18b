"""What standalone says when it is up."""

import pytest

from soraka.config import Config, override
from soraka.standalone import greeting


@pytest.mark.parametrize(
    ("host", "told"),
    [
        ("127.0.0.1", "127.0.0.1"),
        ("0.0.0.0", "127.0.0.1"),
        ("::", "127.0.0.1"),
        ("::1", "[::1]"),
        ("10.1.2.3", "10.1.2.3"),
    ],
)
def test_the_greeting_names_an_address_that_can_be_called(host: str, told: str) -> None:
    said = greeting(
        override(Config(), {"receive": {"host": host}, "admin": {"host": host}}), 9088, 30003, 9087
    )
    assert f"HTTP    http://{told}:9088 " in said
    assert f"Thrift  {told}:30003\n" in said
    assert f"Admin   http://{told}:9087\n" in said
    assert f"http://{told}:9088/sorakaq/msg/submit" in said
