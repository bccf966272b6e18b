"""A client of soraka's Thrift service: client.py HOST PORT TOPIC URL

Shows each call and each error, then submits a message for each line of its standard input. A token,
if one is needed, is in SORAKA_TOKEN. In Python soraka.client does all this by itself.
"""

import os
import sys
import time
from collections.abc import Callable
from typing import TypeVar

from soraka_client import Soraka
from soraka_client.ttypes import (
    Callback,
    InvalidRequest,
    KeyReused,
    MessageInfo,
    MessageNotFound,
    MessageState,
    NotAllowed,
    NotAuthenticated,
    RequestType,
    Submission,
    TooLate,
    TopicNotFound,
    Unavailable,
)
from thrift.protocol.TBinaryProtocol import TBinaryProtocol
from thrift.protocol.TProtocol import TProtocolException
from thrift.transport.TSocket import TSocket
from thrift.transport.TTransport import TFramedTransport, TTransportException

TIMEOUT_MS = 10_000
"""Longer than soraka takes to say that it is unavailable."""
PATIENCE_S = 60
UNKNOWN = "01890a5d-ac96-774b-bcce-b302099a8057"
FINAL = (
    InvalidRequest,  # wrong, and stays wrong
    TopicNotFound,  # an operator has to make the topic
    MessageNotFound,  # never was, or has been forgotten
    TooLate,  # called, cancelled or dead by now
    KeyReused,  # this key stands for another message
    NotAuthenticated,  # without a token, or with a wrong one
    NotAllowed,  # the token lacks the right
)

T = TypeVar("T")


class Connection:
    """Opened when needed, and anew after it broke."""

    def __init__(self, host: str, port: int) -> None:
        socket = TSocket(host, port)
        socket.setTimeout(TIMEOUT_MS)
        self._transport = TFramedTransport(socket)
        self._client = Soraka.Client(TBinaryProtocol(self._transport))

    def call(self, ask: Callable[[Soraka.Client], T]) -> T:
        """Asks until there is an answer. Each call carries ids, so that it is safe to repeat."""
        deadline = time.monotonic() + PATIENCE_S
        pause = 0.1
        while True:
            try:
                return ask(self._opened())
            except Unavailable as error:
                wait, failed = error.retry_after / 1000, error
            except (TTransportException, TProtocolException, OSError) as error:
                # what was asked may have been done, or not; a late answer must not be the next
                self._transport.close()
                wait, pause, failed = pause, min(2 * pause, 2), error
            if time.monotonic() + wait > deadline:
                raise failed
            time.sleep(wait)

    def close(self) -> None:
        self._transport.close()

    def _opened(self) -> Soraka.Client:
        if not self._transport.isOpen():
            self._transport.open()
            if token := os.environ.get("SORAKA_TOKEN"):
                try:
                    self._client.authenticate(token)
                except BaseException:
                    self._transport.close()  # else the next call would go without it
                    raise
        return self._client


def main(host: str, port: str, topic: str, url: str) -> None:
    soraka = Connection(host, int(port))
    run = f"python-{os.getpid()}-{time.time_ns()}"
    try:
        tour(soraka, topic, url, run)
        for number, line in enumerate(sys.stdin):
            message = submission(topic, url, f"{run}-{number}", delay_ms=0, params=line.strip())
            tell(soraka.call(lambda client, m=message: client.submit(m)))
    except FINAL as error:
        sys.exit(described(error))
    finally:
        soraka.close()


def tour(soraka: Connection, topic: str, url: str, run: str) -> None:
    """Each call and each error."""
    one = submission(topic, url, f"{run}-one")
    msg_id = soraka.call(lambda client: client.submit(one))
    tell(f"submitted {msg_id}")
    if soraka.call(lambda client: client.submit(one)) == msg_id:
        tell("sent again, the same")

    batch = [submission(topic, url, f"{run}-{name}") for name in ("two", "three")]
    batch.append(submission(topic, url, f"{run}-four", delay_ms=-1))
    results = soraka.call(lambda client: client.submitBatch(batch))
    tell("batch " + " ".join(str(result.ec) for result in results))

    tell(f"is {MessageState._VALUES_TO_NAMES[found(soraka, msg_id).state]}")
    later = f"later-{msg_id}"
    soraka.call(lambda client: client.addTime(topic, msg_id, 60_000, later))
    tell("later by a minute")
    soraka.call(lambda client: client.cancel(topic, msg_id, f"cancel-{msg_id}"))
    tell(f"is {MessageState._VALUES_TO_NAMES[found(soraka, msg_id).state]}")

    refused(soraka, lambda client: client.addTime(topic, msg_id, 60_000, f"again-{msg_id}"))
    other = submission(topic, url, f"{run}-one", delay_ms=1)
    refused(soraka, lambda client: client.submit(other))
    refused(soraka, lambda client: client.submit(batch[2]))
    refused(soraka, lambda client: client.get(UNKNOWN))
    refused(soraka, lambda client: client.cancel(f"{topic}.none", UNKNOWN, "none"))
    tell("ready")


def submission(
    topic: str, url: str, key: str, *, delay_ms: int = 3_600_000, params: str = "{}"
) -> Submission:
    callback = Callback(request_type=RequestType.POST, url=url, params=params)
    return Submission(topic_name=topic, delay_time=delay_ms, callback=callback, idempotency_key=key)


def found(soraka: Connection, msg_id: str) -> MessageInfo:
    """Just submitted, it may not be in the store yet."""
    deadline = time.monotonic() + PATIENCE_S
    while True:
        try:
            return soraka.call(lambda client: client.get(msg_id))
        except MessageNotFound:
            if time.monotonic() > deadline:
                raise
            time.sleep(0.1)


def refused(soraka: Connection, ask: Callable[[Soraka.Client], object]) -> None:
    try:
        soraka.call(ask)
        tell("accepted")
    except FINAL as error:
        tell(described(error))


def described(error: Exception) -> str:
    """The name of the error and its text; for a wrong request that begins with the field."""
    return f"{type(error).__name__}: {error.em}"


def tell(text: str) -> None:
    print(text, flush=True)


if __name__ == "__main__":
    main(*sys.argv[1:5])
