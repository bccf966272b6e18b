"""admin on the SQLite adapters, with a topic `orders`, two accounts and a real clock."""

import re
import tempfile
import uuid
from collections.abc import Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Any

from flask.testing import FlaskClient

from admin_app.accounts import Accounts
from admin_app.app import create_app
from admin_app.audit import Audit
from admin_app.service import Service
from soraka import config as settings
from soraka import wire
from soraka.message import Callback, Message
from soraka.metrics import Metrics
from soraka.ports import ClaimKind, Ended, NewMessage, Outcome, Record
from soraka.wiring import Parts
from tests.unit.receive_kit import uuid7

TOPIC = "orders"
WORKER = "127.0.0.1:30002"
PASSWORDS = {"operator": "operator's password", "viewer": "viewer's password"}
"""An operator and a viewer."""


@cache
def _accounts_file() -> bytes:
    """Made once: hashing passwords takes its time."""
    with tempfile.TemporaryDirectory() as folder:
        accounts = Accounts(Path(folder) / "admin.json")
        accounts.set_password("operator", PASSWORDS["operator"], "operator")
        accounts.set_password("viewer", PASSWORDS["viewer"], "viewer")
        return (Path(folder) / "admin.json").read_bytes()


class Kit:
    def __init__(self, folder: Path, **admin: Any) -> None:
        self.config = settings.override(
            settings.Config(),
            {
                "log": {"path": str(folder / "log.db")},
                "store": {"path": str(folder / "store.db")},
                "registry": {"path": str(folder / "topics.json")},
                "admin": {
                    "accounts": str(folder / "admin.json"),
                    "audit": str(folder / "audit.jsonl"),
                    **admin,
                },
            },
        )
        self.parts = Parts(self.config)
        self.parts.clock.sync()
        self.parts.topics.add(self.parts.topics.new(TOPIC))
        (folder / "admin.json").write_bytes(_accounts_file())
        self.accounts = Accounts(folder / "admin.json")
        self.audit = Audit(folder / "audit.jsonl")
        self.service = Service(self.parts)
        self.metrics = Metrics()
        self.app = self.make_app()
        self._position = -1

    def make_app(self) -> Any:
        return create_app(
            self.service,
            self.accounts,
            self.audit,
            config=self.config.admin,
            ready=self.service.down,
            metrics=self.metrics.render,
        )

    def close(self) -> None:
        self.service.bulk.close()
        self.parts.close()

    def now_ms(self) -> int:
        return self.parts.clock.now_ms()

    def client(self, name: str = "") -> "Client":
        """Of a browser that is logged in, or of nobody."""
        client = Client(self.app.test_client())
        if name:
            answer = client.login(name, PASSWORDS[name])
            assert answer.status_code == 303, answer.text
        return client

    def script(self, role: str) -> "Client":
        """Of a script with a new token."""
        token = self.accounts.add_token(f"t-{uuid.uuid4().hex}", role, "test")
        return Client(self.app.test_client(), {"Authorization": f"Bearer {token}"})

    def put(
        self, count: int = 1, *, topic: str = TOPIC, due_in_ms: int = 60_000, retry: int = 0
    ) -> list[str]:
        """Pending messages, in log and store, as receive and center put them there."""
        now = self.now_ms()
        messages = [
            Message(
                msg_id=uuid7(now),
                topic=topic,
                created_at=now,
                due_at=now + due_in_ms,
                ttr_ms=1000,
                callback=Callback(method="POST", url="http://127.0.0.1:9/hook", params='{"n":1}'),
                retry_ms=(0,) * retry,
            )
            for _ in range(count)
        ]
        records = [Record(m.msg_id, wire.encode(m)) for m in messages]
        self.parts.log.append(topic, records)
        first = self._position + 1
        entries = [NewMessage(first + n, m, WORKER) for n, m in enumerate(messages)]
        store, last = self.parts.store, first + count - 1
        store.schedule("test", store.positions("test"), last, entries)
        self._position = last
        return [message.msg_id for message in messages]

    def kill(self, msg_ids: Sequence[str]) -> None:
        """Due ones become dead letters."""
        claims = self.parts.store.claim(msg_ids)
        assert {claim.kind for claim in claims} == {ClaimKind.FIRE}
        outcomes = [
            Outcome(msg_id, claim.lease, Ended.DEAD, 0, "HTTP 500", self.now_ms(), 7, WORKER, 500)
            for msg_id, claim in zip(msg_ids, claims, strict=True)
        ]
        assert all(self.parts.store.settle(outcomes))

    def states(self, msg_ids: Sequence[str]) -> list[str]:
        return [str(s.state) if s else "absent" for s in self.parts.store.get(msg_ids)]


class Client:
    """A browser, with its cookies and the CSRF token of its session, or a script."""

    def __init__(self, client: FlaskClient, headers: Mapping[str, str] | None = None) -> None:
        self.flask = client
        self.headers = dict(headers or {})

    def login(self, name: str, password: str, **more: str) -> Any:
        """The answer to the form; on success later requests carry the CSRF token of the session."""
        form = {"name": name, "password": password, "csrf_token": self.csrf_of_page(), **more}
        answer = self.flask.post("/login", data=form)
        if answer.status_code == 303:
            self.headers["X-CSRFToken"] = self.got("/account/me")["csrf_token"]
        return answer

    def csrf_of_page(self) -> str:
        """That in the form of the login."""
        found = re.search(r'name="csrf_token" value="([^"]+)"', self.flask.get("/login").text)
        assert found, "no CSRF token in the form"
        return found[1]

    def get(self, path: str, **args: Any) -> Any:
        return self.flask.get(f"/sorakaq{path}", query_string=args, headers=self.headers)

    def post(self, path: str, **fields: Any) -> Any:
        return self.flask.post(f"/sorakaq{path}", json=fields, headers=self.headers)

    def result(self, path: str, **fields: Any) -> Any:
        """Of a POST that must succeed."""
        answer = self.post(path, **fields)
        assert (answer.status_code, answer.json["ec"]) == (200, 200), answer.text
        return answer.json["result"]

    def got(self, path: str, **args: Any) -> Any:
        """Of a GET that must succeed."""
        answer = self.get(path, **args)
        assert (answer.status_code, answer.json["ec"]) == (200, 200), answer.text
        return answer.json["result"]
