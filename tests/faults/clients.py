"""soraka's public interfaces as a load generator uses them: cheap, and no answer is an error."""

import json
import random
import select
import ssl
from collections.abc import Sequence
from http.client import HTTPConnection, HTTPException, HTTPSConnection
from typing import Any

import gevent

import idl
from soraka import tls
from soraka.errors import PeerUnavailable
from soraka.rpc import RpcClient
from tests.faults.history import Answer
from tests.faults.plan import TTR_MS, Plan

TIMEOUT_S = 5.0
"""Longer than receive waits for the log."""
OK, SYSTEM_ERROR, UNAVAILABLE = 200, 500, 503
NO_ANSWER = 0
Reply = tuple[Answer, int]
"""With the ec, NO_ANSWER without one."""
_t = idl.soraka
_TYPES = {"GET": _t.RequestType.GET, "POST": _t.RequestType.POST}


def reply_of(ec: int) -> Reply:
    if ec == OK:
        return Answer.OK, ec
    unknown = ec in (NO_ANSWER, SYSTEM_ERROR, UNAVAILABLE)
    return Answer.UNKNOWN if unknown else Answer.REFUSED, ec


class Http:
    """JSON over kept connections."""

    def __init__(self, host: str, port: int, secured: ssl.SSLContext | None) -> None:
        self._address = (host, port)
        self._secured = secured
        self._free: list[HTTPConnection] = []

    def post(self, path: str, body: dict[str, Any]) -> dict[str, Any]:
        """The answer; {"ec": NO_ANSWER} for none, whatever the reason."""
        given = self._take()
        kept = False
        try:
            with gevent.Timeout(TIMEOUT_S):
                answer = _exchange(given, path, body)
            kept = True
        except (OSError, HTTPException, ValueError, gevent.Timeout):
            return {"ec": NO_ANSWER}
        finally:
            if kept:
                self._free.append(given)
            else:
                given.close()
        return answer

    def close(self) -> None:
        while self._free:
            self._free.pop().close()

    def _take(self) -> HTTPConnection:
        while self._free:
            kept = self._free.pop()
            if _is_open(kept):
                return kept
            kept.close()
        return self._new()

    def _new(self) -> HTTPConnection:
        if self._secured is None:
            return HTTPConnection(*self._address)
        return HTTPSConnection(*self._address, context=self._secured)


def _is_open(connection: HTTPConnection) -> bool:
    """Not closed by the server while it was kept, as nginx does when it is reloaded. Every client
    looks, since it cannot know what became of a request on such a connection."""
    kept = connection.sock
    return kept is not None and not select.select([kept], [], [], 0)[0]


def _exchange(connection: HTTPConnection, path: str, body: dict[str, Any]) -> dict[str, Any]:
    headers = {"Content-Type": "application/json"}
    connection.request("POST", f"/sorakaq/msg/{path}", json.dumps(body), headers)
    answer: dict[str, Any] = json.loads(connection.getresponse().read())
    return answer


class Thrift:
    """The public Thrift service."""

    def __init__(self, host: str, port: int, secured: tls.Context | None) -> None:
        self._client = RpcClient(
            _t.Soraka, (host, port), timeout_ms=int(TIMEOUT_S * 1000), secured=secured
        )

    def call(self, method: str, **arguments: Any) -> tuple[int, Any]:
        """ec and answer; NO_ANSWER and None for none."""
        try:
            return OK, self._client.call(method, **arguments)
        except PeerUnavailable:
            return NO_ANSWER, None
        except _t.Unavailable:
            return UNAVAILABLE, None
        except _t.InvalidRequest as exc:
            return exc.ec, None
        except _t.TopicNotFound:
            return 407, None
        except _t.MessageNotFound:
            return 405, None
        except _t.TooLate:
            return 409, None

    def close(self) -> None:
        self._client.close()


Address = tuple[str, int, int]
"""Host, HTTP and Thrift port of a receive, or of what is in front of it."""


class Clients:
    """Each request goes to one of the `receives` by chance, a resend maybe to another. `url` is
    where callbacks go, told what to do by their query. `secured`: both over TLS."""

    def __init__(
        self,
        receives: Sequence[Address],
        topic: str,
        url: str,
        secured: tls.Context | None = None,
    ) -> None:
        self._https = [Http(host, http, secured) for host, http, _ in receives]
        self._thrifts = [Thrift(host, thrift, secured) for host, _, thrift in receives]
        self._topic = topic
        self._url = url

    @property
    def _http(self) -> Http:
        return random.choice(self._https)

    @property
    def _thrift(self) -> Thrift:
        return random.choice(self._thrifts)

    def submit(self, msg_id: str, plan: Plan) -> Reply:
        if plan.via.startswith("http"):
            return reply_of(self._http.post("submit", self._item(msg_id, plan))["ec"])
        return reply_of(self._thrift.call("submit", submission=self._struct(msg_id, plan))[0])

    def submit_batch(self, items: list[tuple[str, Plan]]) -> list[Reply]:
        """All of one way. One reply for each."""
        if items[0][1].via.startswith("http"):
            body = self._http.post("submitBatch", {"messages": [self._item(*i) for i in items]})
            ec, results = body["ec"], [r["ec"] for r in body.get("result") or ()]
        else:
            structs = [self._struct(*item) for item in items]
            ec, answers = self._thrift.call("submitBatch", submissions=structs)
            results = [answer.ec for answer in answers or ()]
        return [reply_of(each) for each in (results if ec == OK else [ec] * len(items))]

    def command(self, msg_id: str, command_id: str, add_ms: int, via: str) -> Reply:
        """A cancel when `add_ms` is 0."""
        fields: dict[str, Any] = {
            "topic_name": self._topic,
            "msg_id": msg_id,
            "command_id": command_id,
        }
        if add_ms:
            fields["add_time"] = add_ms
        if via.startswith("http"):
            return reply_of(self._http.post("addTime" if add_ms else "cancel", fields)["ec"])
        return reply_of(self._thrift.call("addTime" if add_ms else "cancel", **fields)[0])

    def get(self, msg_id: str) -> Any | None:
        """The MessageInfo, None when the API knows no such message. Raises Unanswered."""
        ec, info = self._thrift.call("get", msg_id=msg_id)
        if ec not in (OK, 405):
            raise Unanswered(f"get {msg_id}: {ec}")
        return info

    def close(self) -> None:
        for http, thrift in zip(self._https, self._thrifts, strict=True):
            http.close()
            thrift.close()

    def _item(self, msg_id: str, plan: Plan) -> dict[str, Any]:
        return {
            "topic_name": self._topic,
            "msg_id": msg_id,
            "delay_time": plan.delay_ms,
            "ttr": TTR_MS,
            "retry": list(plan.retry_ms),
            "callback": {
                "request_type": plan.method,
                "url": self._callback(plan),
                "params": {"number": plan.number},
            },
        }

    def _struct(self, msg_id: str, plan: Plan) -> Any:
        return _t.Submission(
            topic_name=self._topic,
            msg_id=msg_id,
            delay_time=plan.delay_ms,
            ttr=TTR_MS,
            retry_delays=list(plan.retry_ms),
            callback=_t.Callback(
                request_type=_TYPES[plan.method],
                url=self._callback(plan),
                params=json.dumps({"number": plan.number}),
            ),
        )

    def _callback(self, plan: Plan) -> str:
        return f"{self._url}?failures={plan.failures}&wait_ms={plan.wait_ms}"


class Unanswered(Exception):
    """soraka did not tell where a message is."""
