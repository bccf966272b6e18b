"""How long admin's pages and API take with what `bench.archive` has left in a Redis.

    python -m bench.archive --redis redis://127.0.0.1:6379/0
    python -m bench.pages   --redis redis://127.0.0.1:6379/0

Each is asked for some times in turn, through the whole application but without a socket. `blocked`
is the longest that one command held Redis meanwhile, from its SLOWLOG.
"""

from gevent import monkey

monkey.patch_all()

import argparse  # noqa: E402
import tempfile  # noqa: E402
from collections.abc import Callable, Iterator  # noqa: E402
from contextlib import closing, contextmanager  # noqa: E402
from pathlib import Path  # noqa: E402
from typing import Any  # noqa: E402

import redis  # noqa: E402

from admin_app.accounts import Accounts  # noqa: E402
from admin_app.server import Admin  # noqa: E402
from bench.archive import OWNERS, SHARDS, SLOW_US, TOPICS, measure  # noqa: E402
from soraka.config import Config, override  # noqa: E402
from soraka.message import State  # noqa: E402
from soraka.metrics import Metrics  # noqa: E402
from soraka.ports import Query  # noqa: E402
from soraka.wiring import Parts  # noqa: E402


@contextmanager
def opened(url: str) -> Iterator[tuple[Parts, Callable[[str, str, dict[str, Any] | None], object]]]:
    """The adapters, and what asks for a path of admin as an operator's script does."""
    with tempfile.TemporaryDirectory() as folder:
        home = Path(folder)
        config = override(
            Config(),
            {
                "log": {"path": str(home / "log.db")},
                "store": {"adapter": "redis", "url": url, "shards": SHARDS},
                "registry": {"path": str(home / "topics.json")},
                "admin": {"accounts": str(home / "admin.json"), "audit": str(home / "audit")},
            },
        )
        with closing(Parts(config)) as parts:
            parts.clock.sync()
            for name in TOPICS:
                parts.topics.add(parts.topics.new(name))
            token = Accounts(home / "admin.json").add_token("bench", "operator", "bench")
            admin = Admin(config, Metrics())
            with closing(admin):
                admin.open(parts)
                client = admin.app.test_client()

                def ask(method: str, path: str, body: dict[str, Any] | None = None) -> object:
                    headers = {"Authorization": f"Bearer {token}"}
                    answer = client.open(path, method=method, headers=headers, json=body)
                    assert answer.status_code == 200, (path, answer.status_code, answer.text[:300])
                    return answer

                yield parts, ask


def requests(example: str) -> list[tuple[str, str, dict[str, Any] | None]]:
    pages = [
        *("/", "/topics", f"/topics/{TOPICS[1]}", "/messages", f"/messages/{example}", "/dead"),
        *("/messages?state=pending", "/messages?state=succeeded", f"/messages?topic={TOPICS[1]}"),
        *(f"/messages?prefix={example[:8]}", "/instances", "/monitor?minutes=10080", "/audit"),
    ]
    calls: list[tuple[str, dict[str, Any]]] = [
        ("/sorakaq/msg/list", {"instance": OWNERS[0], "start_time": 0, "num": 500}),
        ("/sorakaq/msg/query", {"num": 500}),
        ("/sorakaq/msg/detail", {"msg_id": example}),
        ("/sorakaq/topic/get", {"topic_name": TOPICS[1]}),
    ]
    return [
        *(("GET", path, None) for path in pages),
        ("GET", "/sorakaq/topic/list", None),
        ("GET", "/sorakaq/monitor/elapsedTime", None),
        ("GET", "/sorakaq/monitor/workerMsg", None),
        *(("POST", path, body) for path, body in calls),
    ]


def main() -> None:
    parser = argparse.ArgumentParser(prog="bench.pages", description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--redis", metavar="URL", required=True, help="as bench.archive left it")
    options = parser.parse_args()
    client = redis.Redis.from_url(options.redis)
    client.config_set("slowlog-log-slower-than", SLOW_US)
    with opened(options.redis) as (parts, ask):
        (example,), _ = parts.store.search(Query(TOPICS, [State.PENDING]), "", 1)
        print(f"{'ms':38} {'median':>8} {'worst':>8} {'blocked':>8}   (blocked 0: under 1 ms)")
        for method, path, body in requests(example.message.msg_id):
            name = path.replace(example.message.msg_id, "ID")
            measure(client, name, lambda m=method, p=path, b=body: ask(m, p, b))  # type: ignore[misc]


if __name__ == "__main__":
    main()
