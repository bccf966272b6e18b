"""Where callbacks may go: which rule holds, and what an address means however it is written."""

from typing import Any

import pytest

from soraka import config
from soraka.destinations import Destinations
from soraka.errors import ConfigError

METADATA = "169.254.169.254"
SPELLINGS = {
    "dotted": METADATA,
    "decimal": "2852039166",
    "octal": "0251.0376.0251.0376",
    "one octal number": "025177524776",
    "hex": "0xa9fea9fe",
    "hex parts": "0xA9.0xFE.0xA9.0xFE",
    "two parts": "169.16689662",
    "three parts": "169.254.43518",
    "mixed": "0xa9.254.0251.254",
    "a dot at its end": "169.254.169.254.",
    "mapped": "[::ffff:169.254.169.254]",
    "mapped in hex": "[::FFFF:A9FE:A9FE]",
    "mapped at length": "[0:0:0:0:0:ffff:a9fe:a9fe]",
    "compatible": "[::169.254.169.254]",
    "translated": "[::ffff:0:169.254.169.254]",
    "NAT64": "[64:ff9b::a9fe:a9fe]",
    "NAT64 of one network": "[64:ff9b:1::a9fe:a9fe]",
    "Teredo": "[2001:0:4136:e378:8000:63bf:5601:5601]",
    "6to4": "[2002:a9fe:a9fe::1]",
}


@pytest.mark.parametrize("host", SPELLINGS.values(), ids=SPELLINGS)
def test_an_address_is_known_however_it_is_written(host: str) -> None:
    why = Destinations().why_host_denied(host)
    assert why == f"destination {METADATA} is denied (169.254.0.0/16)"
    assert Destinations(denied_networks="").why_host_denied(host) is None


@pytest.mark.parametrize(
    "host",
    [
        "0.0.0.0",
        "0",
        "0x0",
        "[::]",
        "[::ffff:0.0.0.0]",
        "169.254.0.1",
        "169.254.170.2",
        "[fe80::1]",
        "[fe80::a9fe:a9fe]",
        "100.100.100.200",
        "168.63.129.16",
        "192.0.0.192",
        "[fd00:ec2::254]",
        "[fd20:ce::254]",
        "[fd00:c1::a9fe:a9fe]",
        "[fd00:42::42]",
    ],
)
def test_link_local_and_metadata_addresses_are_denied_by_default(host: str) -> None:
    assert Destinations().why_host_denied(host) is not None


@pytest.mark.parametrize(
    "host",
    [
        "127.0.0.1",
        "10.0.0.1",
        "[::1]",
        "192.0.2.1",
        "[2001:db8::1]",
        "100.100.100.201",
        "hooks.example",
        "169.254.169.254.example",
        "0xa9fea9fe.example",
        "fe80",
        "face.example",
    ],
)
def test_others_are_allowed_by_default(host: str) -> None:
    assert Destinations().why_host_denied(host) is None


@pytest.mark.parametrize(
    ("rules", "allowed", "denied"),
    [
        (
            {"denied_hosts": "*.internal, db.example"},
            ["internal", "internal.example", "xdb.example", "a.db.example"],
            ["a.internal", "a.b.INTERNAL.", "DB.example"],
        ),
        (
            {"allowed_hosts": "*.example.com, hooks.test"},
            ["a.example.com", "hooks.test"],
            ["example.com", "evilexample.com", "a.hooks.test", "10.0.0.1", "[::1]"],
        ),
        (
            {"denied_hosts": "*.example", "allowed_hosts": "*, *.good.example, one.example"},
            ["a.good.example", "one.example", "elsewhere"],
            ["good.example", "two.example"],
        ),
        ({"denied_hosts": "one.example", "allowed_hosts": "one.example"}, [], ["one.example"]),
        ({"denied_hosts": "127.0.0.1, [::1]"}, ["127.0.0.2"], ["0x7f.1", "[0:0::1]"]),
        (
            {"denied_networks": "10.0.0.0/8", "allowed_networks": "0.0.0.0/0, 10.1.0.0/16"},
            ["10.1.2.3", "192.0.2.1"],
            ["10.2.0.1", "[::ffff:10.2.0.1]", "[2001:db8::1]"],
        ),
        (
            {"denied_networks": "", "allowed_networks": "10.0.0.0/8"},
            ["10.2.0.1", "[::ffff:10.2.0.1]"],
            ["11.0.0.1", "[64:ff9b::10.2.0.1]"],
        ),
        (
            {"denied_networks": "10.0.0.0/8", "allowed_networks": "10.0.0.0/8"},
            [],
            ["10.0.0.1"],
        ),
    ],
)
def test_the_narrowest_rule_decides(
    rules: dict[str, str], allowed: list[str], denied: list[str]
) -> None:
    made = Destinations(**rules)
    assert [host for host in allowed if made.why_host_denied(host)] == []
    assert [host for host in denied if not made.why_host_denied(host)] == []


def test_why_is_told() -> None:
    made = Destinations(denied_hosts="*.internal", allowed_hosts="*.example, *.internal")
    for host, why in (
        ("db.internal", "destination db.internal is denied (*.internal)"),
        ("other.test", "destination other.test is none of those allowed"),
    ):
        assert made.why_host_denied(host) == why
    assert Destinations(allowed_networks="10.0.0.0/8").why_address_denied("192.0.2.1") == (
        "destination 192.0.2.1 is none of those allowed"
    )


def test_a_scope_of_an_address_changes_nothing() -> None:
    assert Destinations().why_address_denied("fe80::1%eth0") is not None


@pytest.mark.parametrize(
    ("key", "value", "told"),
    [
        ("allowed_networks", "10.0.0.0/33", "10.0.0.0/33"),
        ("denied_networks", "10.0.0.1/8", "host bits"),
        ("denied_networks", "::ffff:10.0.0.0/104", "write them as such"),
        ("denied_networks", "hooks.example", "hooks.example"),
        ("denied_hosts", "http://a.example", "'http://a.example' is not a host name"),
        ("denied_hosts", "a.*.example", "is not a host name"),
        ("allowed_hosts", "a b", "is not a host name"),
        ("ca_files", "a.example=", "nothing after its ="),
        ("client_certificates", "a/b=file.pem", "is not a host name"),
    ],
)
def test_a_wrong_rule_is_refused_by_the_name_of_its_setting(
    key: str, value: str, told: str
) -> None:
    outbound: dict[str, Any] = {"outbound": {key: value}}
    with pytest.raises(ConfigError, match=rf"^outbound\.{key}: ") as refused:
        config.override(config.Config(), outbound)
    assert told in str(refused.value)


def test_the_settings_are_those_rules() -> None:
    made = config.OutboundConfig(denied_hosts="a.example").destinations()
    assert made.why_host_denied("a.example")
    assert made.why_host_denied(METADATA)
    assert not made.why_host_denied("b.example")
