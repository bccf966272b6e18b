"""What most tests of the worker begin with."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.unit.sinks import Sink, sink
from tests.unit.worker_kit import Rig


@pytest.fixture
def rig(tmp_path: Path) -> Iterator[Rig]:
    made = Rig(tmp_path / "store.db")
    yield made
    made.close()


@pytest.fixture
def server() -> Iterator[Sink]:
    with sink() as made:
        yield made
