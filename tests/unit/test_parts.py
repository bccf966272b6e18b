"""Where a record goes: by its key alone."""

from collections import Counter

import pytest

from soraka.message import SLICE_MS, part_of
from tests.unit.receive_kit import uuid7

NOW = 1_795_689_793_842


def test_ids_of_one_moment_are_together_and_all_parts_get_their_share() -> None:
    begins = NOW // SLICE_MS * SLICE_MS
    moment = {part_of(uuid7(begins + ms), 8) for ms in range(SLICE_MS)}
    assert len(moment) == 1
    shares = Counter(part_of(uuid7(NOW + ms), 8) for ms in range(8 * SLICE_MS))
    assert shares == dict.fromkeys(range(8), SLICE_MS)


@pytest.mark.parametrize(
    "key", ["", "x", "order-2026-11-26-0000000000000000000", "ž" * 36, "7f4cf3c7"]
)
def test_any_key_has_its_part(key: str) -> None:
    """Others may write to the log."""
    assert part_of(key, 8) == part_of(key, 8) in range(8)
