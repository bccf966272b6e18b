"""A worker whose timer gets stuck after a while: python -m tests.faults.stuck_worker worker.

Its session lives on, its pager, its server and its settler go on; it claims nothing more.
"""

from gevent import monkey

monkey.patch_all()

import os  # noqa: E402
import time  # noqa: E402

import gevent  # noqa: E402

from soraka import cli  # noqa: E402
from worker.loop import Loop  # noqa: E402

AFTER = "STUCK_AFTER_S"
FOREVER_S = 1e6


def main() -> None:
    turn = Loop._turn
    stuck_at = time.monotonic() + float(os.environ[AFTER])

    def stuck(self: Loop) -> float:
        if time.monotonic() > stuck_at:
            print("timer.stuck", flush=True)
            gevent.sleep(FOREVER_S)
        return turn(self)

    Loop._turn = stuck  # type: ignore[method-assign]
    cli.main()


if __name__ == "__main__":
    main()
