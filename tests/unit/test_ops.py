"""The dashboard, the alerts and the documentation name metrics that there are, and all of them."""

import json
import re
from pathlib import Path
from typing import Any

import yaml
from prometheus_client.parser import text_string_to_metric_families

from soraka.metrics import Metrics
from soraka.timed import OPERATIONS

ROOT = Path(__file__).parents[2]
_NAME = re.compile(r"\bsoraka_[a-z_]+\b")
_BALANCED = {"(": ")", "[": "]", "{": "}"}


def exposed() -> dict[str, set[str]]:
    """The names of all samples, as a process exposes them, with their labels."""
    metrics = Metrics()
    # those with labels show when they have a value
    metrics.requests.labels("submit", 200)
    metrics.released.labels("host")
    metrics.store_timer("claim")
    figures = ("held", "in_flight", "cpu", "memory_bytes", "skew_s", "lag_s", "missed")
    metrics.workers.set("a:1", dict.fromkeys(figures, 0.0))
    text = metrics.render()[0].decode()
    names: dict[str, set[str]] = {}
    for family in text_string_to_metric_families(text):
        for sample in family.samples:
            names.setdefault(sample.name, set()).update(sample.labels)
    return names


def dashboard() -> Any:
    return json.loads((ROOT / "ops/grafana-dashboard.json").read_text())


def alerts() -> list[dict[str, Any]]:
    groups = yaml.safe_load((ROOT / "ops/alerts.yml").read_text())["groups"]
    return [rule for group in groups for rule in group["rules"]]


def expressions() -> list[str]:
    shown = [target["expr"] for panel in dashboard()["panels"] for target in panel["targets"]]
    return [*shown, *(rule["expr"] for rule in alerts())]


def test_every_metric_named_exists_with_the_labels_it_is_asked_for() -> None:
    names = exposed()
    for expression in expressions():
        found = _NAME.findall(expression)
        assert found, expression
        assert set(found) <= names.keys(), expression
        labels = set().union(*(names[name] for name in found)) | {"instance"}
        for group in re.findall(r"by \(([^)]*)\)", expression):
            assert set(group.replace(" ", "").split(",")) <= labels, expression
        for matchers in re.findall(r"\{([^}]*)\}", expression):
            assert set(re.findall(r"(\w+)\s*[=!]", matchers)) <= labels, expression


def test_expressions_are_well_formed() -> None:
    for expression in expressions():
        open_now = []
        for sign in re.sub(r'"[^"]*"', "", expression):
            if sign in _BALANCED:
                open_now.append(_BALANCED[sign])
            elif sign in _BALANCED.values():
                assert open_now.pop() == sign, expression
        assert not open_now, expression
        # counters are asked how fast they go, and nothing else is
        for name in _NAME.findall(expression):
            counts = name.endswith(("_total", "_bucket", "_count"))
            wrapped = re.search(rf"\b(rate|increase)\({name}\b", expression) is not None
            assert counts == wrapped, expression


def test_each_alert_says_what_it_is() -> None:
    named = [rule["alert"] for rule in alerts()]
    assert len(set(named)) == len(named)
    for rule in alerts():
        assert rule["annotations"]["summary"]
        assert rule["labels"]["severity"] in ("info", "warning", "critical")


def test_panels_do_not_overlap() -> None:
    taken: set[tuple[int, int]] = set()
    for panel in dashboard()["panels"]:
        at = panel["gridPos"]
        cells = {
            (x, y)
            for x in range(at["x"], at["x"] + at["w"])
            for y in range(at["y"], at["y"] + at["h"])
        }
        assert not cells & taken, panel["title"]
        assert at["x"] + at["w"] <= 24
        taken |= cells


def test_operations_lists_every_metric_and_no_other() -> None:
    text = (ROOT / "docs/operations.md").read_text()
    families = {re.sub(r"_(bucket|sum|count)$", "", name) for name in exposed()}
    listed = set(_NAME.findall(text))
    assert listed == families


def test_the_values_of_labels_are_bounded() -> None:
    assert len(OPERATIONS) < 40
    assert {"claim", "settle", "schedule", "due"} <= OPERATIONS
