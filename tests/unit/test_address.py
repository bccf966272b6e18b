"""How addresses are written."""

from soraka.address import at


def test_an_address_is_written_as_in_a_url() -> None:
    assert at("::1", 80) == "[::1]:80"
    assert at("10.0.0.1", 80) == "10.0.0.1:80"
