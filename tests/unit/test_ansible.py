"""What of `ansible/` can be told without a host; `tests/deploy` has the rest."""

import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

ROLES = Path(__file__).resolve().parents[2] / "ansible" / "roles"
CHECK = ROLES / "soraka" / "files" / "check-settings"
OURS = ("soraka", "receive", "admin", "center", "worker")


def read(role: str, file: str) -> Any:
    return yaml.safe_load((ROLES / role / file).read_text())


@pytest.mark.parametrize("role", OURS)
def test_what_may_be_set_is_checked_told_and_has_its_default(role: str) -> None:
    defaults = read(role, "defaults/main.yml")
    specs = read(role, "meta/argument_specs.yml")["argument_specs"]
    options = specs["main"]["options"]
    readme = (ROLES / role / "README.md").read_text()
    assert specs["preflight"] == specs["main"]
    assert set(defaults) <= set(options)
    for name, option in options.items():
        assert f"| `{name}` |" in readme, name
        assert name in defaults or option["required"], name
        if "default" in option:
            assert option["default"] == defaults[name], name


@pytest.mark.parametrize(
    ("settings", "told"),
    [
        ("[worker]\nmax_calbacks = 3\n", "worker.max_calbacks: unknown key"),
        ("[store]\nshards = 0\n", "store.shards = 0: must be"),
        ("[registry]\nadapter = 3\n", "registry.adapter = 3"),
    ],
)
def test_settings_are_refused_before_a_host_is_touched(settings: str, told: str) -> None:
    done = check(settings)
    assert done.returncode == 1
    assert done.stderr.startswith(told)


def test_settings_that_are_right_pass() -> None:
    assert check('[store]\nadapter = "redis"\nshards = 16\n').returncode == 0


def check(settings: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, str(CHECK)], input=settings, capture_output=True, text=True, check=False
    )
