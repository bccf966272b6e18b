"""Takes callbacks whose signatures are right: receiver.py PORT, the secret in SORAKA_SECRET."""

import base64
import hmac
import os
import sys
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

TOLERANCE_S = 300
MAX_BODY = 1 << 20
KEY = base64.b64decode(os.environ["SORAKA_SECRET"].removeprefix("whsec_"))


def genuine(msg_id: str, timestamp: str, signatures: str, body: bytes) -> bool:
    if not (msg_id and timestamp.isascii() and timestamp.isdigit() and len(timestamp) < 12):
        return False
    if abs(time.time() - int(timestamp)) > TOLERANCE_S:
        return False
    signed = f"{msg_id}.{timestamp}.".encode() + body
    right = b"v1," + base64.b64encode(hmac.digest(KEY, signed, "sha256"))
    # several while the secret changes; compared in constant time
    return any(hmac.compare_digest(right, one.encode()) for one in signatures.split(" "))


class Receiver(BaseHTTPRequestHandler):
    done: set[str] = set()  # noqa: RUF012 - a table of yours, with what the callback changes

    def do_POST(self) -> None:
        length = self.headers.get("Content-Length", "")
        if not (length.isascii() and length.isdigit() and int(length) <= MAX_BODY):
            self.close_connection = True
            self.answer(413)
            return
        body = self.rfile.read(int(length))
        sent = [
            self.headers.get(f"webhook-{name}", "") for name in ("id", "timestamp", "signature")
        ]
        if not genuine(*sent, body):
            self.answer(401)  # tried again later
            return
        if sent[0] not in self.done:  # it may come twice
            self.done.add(sent[0])
            print(sent[0], body.decode(), flush=True)
        self.answer(200, b'{"result": true}')

    def answer(self, status: int, body: bytes = b"") -> None:
        self.send_response(status)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        pass


ThreadingHTTPServer(("127.0.0.1", int(sys.argv[1])), Receiver).serve_forever()
