"""soraka in one process, killed again and again under load."""

import random
from collections.abc import Iterator
from pathlib import Path

import gevent
import pytest

from tests.acceptance.deployments import Standalone
from tests.faults.conftest import SETTINGS, record, seed_of
from tests.faults.run import Run

KILLS = 20
MARGIN = "SORAKA_STORE_LEASE_MARGIN_MS"


@pytest.fixture
def run(tmp_path: Path) -> Iterator[Run]:
    deployment = Standalone(tmp_path, {MARGIN: SETTINGS[MARGIN]})
    name = f"standalone killed {KILLS} times"
    try:
        deployment.start()
        made = Run(deployment, "topic", tmp_path, seed=seed_of(name), rate=150, name=name)
        yield made
        made.close()
    finally:
        deployment.close()
    if made.verified:
        record(made)


@pytest.mark.timeout(420)
def test_killed_twenty_times(run: Run) -> None:
    process = run.deployment.processes["standalone"]
    chance = random.Random(run.seed)
    for _ in range(KILLS):
        gevent.sleep(chance.uniform(0.2, 1.5))
        with run.fault("killed", may_repeat=True) as fault:
            process.kill()
            fault.struck()
            run.deployment.start()
    run.verify()
