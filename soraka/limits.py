"""What may be set, and what is usual.

It needs the standard library alone, as `soraka/config.py` does: settings are checked where nothing
else is installed, too.
"""

DAY_MS = 24 * 60 * 60 * 1000
MAX_DELAY_MS = 7 * DAY_MS
DEFAULT_TTR_MS = 1000
DEFAULT_RETRY_MS = (1_000, 10_000, 60_000, 300_000, 3_000_000)
MAX_RETRIES = 32
DEFAULT_WEIGHT = 100
BALANCES = (
    "round_robin",
    "random",
    "weighted_round_robin",
    "weighted_random",
    "least_loaded",
)
WEIGHTS = ("instance", "load")
