"""Orders that are reminded of unless they are paid: schedules callbacks, and receives them.

python app.py        # soraka at SORAKA_URL, this app at 127.0.0.1:PORT
"""

import os
from collections.abc import Mapping
from contextlib import suppress
from datetime import timedelta
from typing import Any

from flask import Flask, request

from soraka.client import Client, MessageNotFound, TooLate

TOPIC = "reminders"


def create_app(soraka: Client, own_url: str) -> Flask:
    """`own_url` is where soraka reaches this app."""
    app = Flask(__name__)
    orders: dict[str, dict[str, Any]] = {}
    seen: set[str] = set()

    @app.post("/orders")
    def order() -> Mapping[str, Any]:
        fields = request.get_json()
        number = str(fields["order"])
        msg_id = soraka.submit(
            TOPIC,
            f"{own_url}/remind",
            delay=timedelta(seconds=fields["remind_after_s"]),
            params={"order": number},
            # sent again by a client that got no answer, it is one reminder still
            idempotency_key=f"remind-{number}",
        )
        orders.setdefault(number, {"reminder": msg_id, "paid": False, "reminded": 0})
        return orders[number]

    @app.post("/orders/<number>/paid")
    def paid(number: str) -> Mapping[str, Any]:
        orders[number]["paid"] = True
        with suppress(TooLate):  # it was reminded already, or is just being
            soraka.cancel(TOPIC, orders[number]["reminder"])
        return orders[number]

    @app.post("/orders/<number>/later")
    def later(number: str) -> Mapping[str, Any]:
        by = timedelta(seconds=request.get_json()["by_s"])
        soraka.postpone(TOPIC, orders[number]["reminder"], by)
        return orders[number]

    @app.get("/orders/<number>")
    def shown(number: str) -> Mapping[str, Any]:
        try:
            reminder = soraka.get(orders[number]["reminder"]).state.value
        except MessageNotFound:
            reminder = "accepted"  # for a moment, until it is in the store
        return {**orders[number], "reminder_is": reminder}

    @app.post("/remind")
    def remind() -> Mapping[str, Any]:
        """The callback. It may come twice: its message id tells."""
        msg_id = request.headers["Soraka-Message-Id"]
        if msg_id not in seen:
            seen.add(msg_id)
            orders[request.get_json()["order"]]["reminded"] += 1
        return {"result": True}  # anything but a 2xx, or "result": false, is tried again

    return app


if __name__ == "__main__":
    port = int(os.environ.get("PORT", "8000"))
    client = Client(
        os.environ.get("SORAKA_URL", "http://127.0.0.1:9088"), token=os.environ.get("SORAKA_TOKEN")
    )
    create_app(client, f"http://127.0.0.1:{port}").run(port=port, threaded=True)
