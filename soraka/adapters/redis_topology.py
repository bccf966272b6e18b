"""From the settings to where the shards are.

single    one server; the URL is its address
sentinel  one master at a time; the URL has the sentinels, with the user, password and database of
          the servers that they watch; TLS or none for both
cluster   a Redis Cluster; the URL has some of its servers
"""

from soraka.adapters.redis_cluster import ClusterTopology
from soraka.adapters.redis_node import Limits, Node, OneNode, Options, Topology
from soraka.adapters.redis_sentinel import SentinelTopology
from soraka.adapters.redis_url import servers
from soraka.tls import Context


def open_topology(
    mode: str,
    url: str,
    *,
    secured: Context | None,
    sentinel_master: str,
    sentinel_user: str,
    sentinel_password: str,
    limits: Limits,
) -> Topology:
    """`secured` is for a rediss:// URL. Raises ValueError for settings that cannot be right;
    connects to nothing yet."""
    found = [{**options, "secured": secured} if secured else options for options in servers(url)]
    if mode == "single":
        if len(found) > 1:
            raise ValueError("several servers: store.redis_mode must be sentinel or cluster")
        return OneNode(Node(found[0], limits))
    if "path" in found[0]:
        raise ValueError(f"a socket has no place in store.redis_mode = {mode!r}")
    if mode == "cluster":
        if found[0].get("db"):
            raise ValueError("a cluster has no database but 0")
        return ClusterTopology(found, limits)
    sentinels = [_sentinel(options, sentinel_user, sentinel_password) for options in found]
    return SentinelTopology(sentinels, sentinel_master, found[0], limits)


def _sentinel(options: Options, user: str, password: str) -> Options:
    """Sentinels have a user and password of their own, or none, and no databases."""
    own = {k: v for k, v in options.items() if k not in ("username", "password", "db")}
    own.setdefault("port", 26379)
    if user:
        own["username"] = user
    return {**own, "password": password} if password else own
