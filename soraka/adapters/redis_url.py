"""The URL of the store, which may name several servers. Pure."""

import re

from redis.connection import parse_url

from soraka.adapters.redis_node import Options

FORM = (
    "must be such as redis://user:password@host1:6379,host2:6379/0; rediss:// for TLS; in the "
    "password, / ? # @ : and % are written as %2F %3F %23 %40 %3A %25"
)


def servers(url: str) -> list[Options]:
    """One for each server, all with the same user, password and so on. Raises ValueError, which
    never repeats the URL."""
    if url.startswith("unix://"):
        return [parse_url(url)]
    match = re.fullmatch(r"(rediss?://)([^/?#]*@)?([^/?#]*)(.*)", url)
    if match is None:
        raise ValueError(FORM)
    scheme, user, listed, rest = match.groups()
    hosts = listed.split(",")
    if len(hosts) > 1 and "" in hosts:
        raise ValueError(FORM)
    try:
        return [parse_url(f"{scheme}{user or ''}{host}{rest}") for host in hosts]
    except ValueError:
        raise ValueError(FORM) from None  # its own words may have a part of the password
