"""What a signature costs a callback: making its request, and signing it with one secret or two.

    python -m bench.signing

Best of several rounds on one core, in µs of wall-clock time; nothing is sent.
"""

import json
import timeit
from collections.abc import Callable
from functools import partial

from soraka.message import Callback, Message
from soraka.signing import new_secret, signer_of
from worker.request import Request, build, signed

TURNS, ROUNDS = 20_000, 7
MSG_ID = "01890a5d-ac96-774b-bcce-b302099a8057"
NOW = 1_700_000_000_000
SIZES = (100, 1000, 10_000, 64_000)


def main() -> None:
    print(f"{'body bytes':>10} {'request':>9} {'+ 1 secret':>11} {'+ 2 secrets':>12}")
    one, two = (new_secret(),), (new_secret(), new_secret())
    for size in SIZES:
        message = _message(size)
        make = partial(build, message, attempt=1, due_at=NOW)
        request = make()
        calls = (make, partial(_sign, request, one), partial(_sign, request, two))
        base, once, twice = map(_micros, calls)
        print(f"{size:>10} {base:>9.2f} {once:>11.2f} {twice:>12.2f}")


def _sign(request: Request, secrets: tuple[str, ...]) -> Request:
    """As a worker does it: the signer is looked up each time."""
    return signed(request, signer_of(secrets), MSG_ID, NOW)


def _micros(call: Callable[[], object]) -> float:
    return min(timeit.repeat(call, number=TURNS, repeat=ROUNDS)) / TURNS * 1e6


def _message(size: int) -> Message:
    params = json.dumps({"x": "y" * (size - len(json.dumps({"x": ""})))})
    return Message(
        msg_id=MSG_ID,
        topic="orders",
        created_at=1,
        due_at=2,
        ttr_ms=1000,
        callback=Callback(method="POST", url="http://hooks.example/orders/close", params=params),
    )


if __name__ == "__main__":
    main()
