"""Where callbacks may go: rules about host names and about addresses. Pure.

A rule about hosts is a name, `*.example.com` for all names below one, or `*`; one about addresses
is a network as 10.0.0.0/8, or an address. Of the rules that hold for a destination the narrowest
decides, of two alike the denial; a destination without a rule is denied. A host must pass those
about hosts, and an address that is connected to those about addresses: one in a URL must pass
both.

What an address means counts, not how it is written: 0xa9fea9fe, 2852039166 and
::ffff:169.254.169.254 are 169.254.169.254.
"""

import re
import socket
from collections.abc import Iterable
from functools import lru_cache
from ipaddress import (
    IPv4Address,
    IPv4Network,
    IPv6Address,
    IPv6Network,
    ip_address,
    ip_network,
)
from typing import NamedTuple

Address = IPv4Address | IPv6Address
Network = IPv4Network | IPv6Network

EVERY_HOST = "*"
EVERY_NETWORK = "0.0.0.0/0, ::/0"
UNSAFE_NETWORKS = (
    "0.0.0.0/8, 169.254.0.0/16, 100.100.100.200, 168.63.129.16, 192.0.0.192, "
    "::, fe80::/10, fd00:ec2::/32, fd00:c1::a9fe:a9fe, fd20:ce::254, fd00:42::42"
)
"""This host by another name, link-local addresses, and where clouds tell a machine its secrets."""

MAX_REMEMBERED = 4096
_PATTERN = re.compile(r"\*|(\*\.)?[0-9a-z_-]+(\.[0-9a-z_-]+)*")
_WITH_IPV4 = tuple(map(IPv6Network, ("64:ff9b::/96", "64:ff9b:1::/48", "::/96", "::ffff:0:0:0/96")))
"""Whose last 32 bits are one: for NAT64, everywhere and within one network; compatible with IPv4,
and translated."""
_LOOPBACK = 1


class _HostRule(NamedTuple):
    pattern: str
    denies: bool

    def holds_for(self, host: str) -> bool:
        if self.pattern.startswith("*."):
            return host.endswith(self.pattern[1:])
        return self.pattern in (EVERY_HOST, host)

    def order(self) -> tuple[bool, int, bool]:
        return "*" in self.pattern, -len(self.pattern), not self.denies


class _NetworkRule(NamedTuple):
    network: Network
    denies: bool

    def order(self) -> tuple[int, bool]:
        return -self.network.prefixlen, not self.denies


class Destinations:
    """The rules are comma-separated texts, as in the settings. Raises ValueError for wrong ones."""

    def __init__(
        self,
        *,
        allowed_hosts: str = EVERY_HOST,
        denied_hosts: str = "",
        allowed_networks: str = EVERY_NETWORK,
        denied_networks: str = UNSAFE_NETWORKS,
    ) -> None:
        hosts = [
            *(_HostRule(pattern, denies=False) for pattern in host_patterns(allowed_hosts)),
            *(_HostRule(pattern, denies=True) for pattern in host_patterns(denied_hosts)),
        ]
        nets = [
            *(_NetworkRule(network, denies=False) for network in networks(allowed_networks)),
            *(_NetworkRule(network, denies=True) for network in networks(denied_networks)),
        ]
        self._host_rules = sorted(hosts, key=_HostRule.order)
        self._network_rules = sorted(nets, key=_NetworkRule.order)
        self.why_host_denied = lru_cache(MAX_REMEMBERED)(self._why_host_denied)
        """Of a host as a URL has it: why nothing may be called there, as far as can be told
        without looking it up; None when something may."""
        self.why_address_denied = lru_cache(MAX_REMEMBERED)(self._why_address_denied)
        """Of an address to connect to, as text; None when it may be."""

    def _why_host_denied(self, host: str) -> str | None:
        address = literal(host)
        name = plain(host) if address is None else str(address)
        rule = next((rule for rule in self._host_rules if rule.holds_for(name)), None)
        if rule is None or rule.denies:
            return _denied(name, rule.pattern if rule else None)
        return None if address is None else self.why_address_denied(str(address))

    def _why_address_denied(self, text: str) -> str | None:
        for address in _meanings(ip_address(text)):
            rules = (rule for rule in self._network_rules if address in rule.network)
            rule = next(rules, None)
            if rule is None or rule.denies:
                return _denied(str(address), str(rule.network) if rule else None)
        return None


def literal(host: str) -> Address | None:
    """The address that a host in a URL is, in any form the system takes for one; None for a name.
    An IPv6 address may be in brackets."""
    host = plain(host)
    if ":" in host:
        try:
            address = IPv6Address(host)
        except ValueError:
            return None
        return address.ipv4_mapped or address
    if not host[:1].isdigit():  # a name: the usual case
        return None
    try:
        return IPv4Address(socket.inet_aton(host))
    except (OSError, UnicodeError):
        return None


def plain(host: str) -> str:
    """A host in the one form that rules are compared with."""
    return host.strip("[]").rstrip(".").lower()


def host_patterns(text: str) -> list[str]:
    """Raises ValueError."""
    return [_pattern(item) for item in items(text)]


def by_host(text: str) -> list[tuple[str, str]]:
    """Items `PATTERN=VALUE`, or `VALUE` alone for every host; the narrowest pattern first. Raises
    ValueError."""
    found = []
    for item in items(text):
        pattern, equals, value = item.rpartition("=")
        if equals and not value:
            raise ValueError(f"{item!r} has nothing after its =")
        found.append((_pattern(pattern) if equals else EVERY_HOST, value))
    return sorted(found, key=lambda pair: _HostRule(pair[0], denies=False).order())


def holds_for(pattern: str, host: str) -> bool:
    """Whether a rule about hosts is about this one."""
    address = literal(host)
    name = plain(host) if address is None else str(address)
    return _HostRule(pattern, denies=False).holds_for(name)


def networks(text: str) -> list[Network]:
    """Raises ValueError."""
    found = [ip_network(item) for item in items(text)]
    for network in found:
        if isinstance(network, IPv6Network) and network.network_address.ipv4_mapped:
            raise ValueError(f"{network} holds IPv4 addresses: write them as such")
    return found


def items(text: str) -> list[str]:
    """Of a comma-separated setting."""
    return [item.strip() for item in text.split(",") if item.strip()]


def _pattern(text: str) -> str:
    pattern = plain(text)
    address = literal(pattern)
    if address is not None:
        return str(address)
    if not _PATTERN.fullmatch(pattern):
        raise ValueError(f"{text!r} is not a host name, *.name, or *")
    return pattern


def _meanings(address: Address) -> Iterable[Address]:
    """All that a packet to it may reach: with an IPv4 address in it, the host that has that one."""
    if isinstance(address, IPv4Address):
        return (address,)
    if address.ipv4_mapped:  # the system sends it over IPv4
        return (address.ipv4_mapped,)
    inner = address.sixtofour or (address.teredo[1] if address.teredo else None)
    if int(address) > _LOOPBACK and any(address in network for network in _WITH_IPV4):
        inner = IPv4Address(int(address) & 0xFFFFFFFF)
    return (address, inner) if inner else (address,)


def _denied(what: str, rule: str | None) -> str:
    why = f"denied ({rule})" if rule else "none of those allowed"
    return f"destination {what} is {why}"
