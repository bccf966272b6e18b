"""Params of a callback: what is taken, and what becomes of it."""

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from receive_app.rules import params_text
from soraka.config import ReceiveConfig
from soraka.errors import InvalidParams

MAX_BYTES = ReceiveConfig().max_params_bytes


@pytest.mark.parametrize(
    ("method", "params"),
    [
        ("POST", "[1]"),
        ("POST", "1"),
        ("POST", ""),
        ("POST", "{"),
        ("POST", '{"a": NaN}'),
        ("POST", '{"a": 1, "a": 2}'),
        ("POST", '{"a": -Infinity}'),
        ("POST", '{"a": "\ud800"}'),
        ("POST", '{"a": ' + "[" * 100_000),
        ("POST", '{"a":' * 4000 + "1" + "}" * 4000),
        ("POST", '{"a": ' + "9" * 5000 + "}"),
        ("POST", '{"a": "' + "x" * 65_530 + '"}'),
        ("POST", '{"a": "' + "é" * 32_765 + '"}'),
        ("GET", '{"a": {"b": 1}}'),
        ("GET", '{"a": [[1]]}'),
        ("GET", '{"a": 1e999}'),
        ("GET", '{"a": "\\ud800"}'),
        ("GET", '{"\\ud800": 1}'),
    ],
)
def test_bad_params_are_refused(method: str, params: str) -> None:
    with pytest.raises(InvalidParams) as refused:
        params_text(params, method, MAX_BYTES)
    assert refused.value.field == "callback.params"


@pytest.mark.parametrize(
    ("method", "params"),
    [
        ("POST", None),
        ("POST", "{}"),
        ("POST", ' {"a": {"b": [1, {"c": null}]}} '),
        ("POST", '{"a": "' + "x" * 65_527 + '"}'),
        ("GET", '{"a": 1, "b": [1, "x", true], "c": null, "d": 1.5}'),
    ],
)
def test_good_params_stay_as_they_are(method: str, params: str | None) -> None:
    assert params_text(params, method, MAX_BYTES) == params


@pytest.mark.parametrize(
    ("method", "params"),
    [
        ("POST", {"a": float("nan")}),
        ("POST", {"a": [None, {"b": float("inf")}]}),
        ("POST", {"a": "\ud800"}),
        ("POST", {"\ud800": 1}),
        ("POST", {"a": "x" * MAX_BYTES}),
        ("GET", {"a": {}}),
        ("GET", {"a": float("-inf")}),
    ],
)
def test_bad_objects_are_refused(method: str, params: dict[str, Any]) -> None:
    with pytest.raises(InvalidParams) as refused:
        params_text(params, method, MAX_BYTES)
    assert refused.value.field == "callback.params"


@pytest.mark.parametrize("params", [{"a": "\ud800"}, {"\ud800": [1]}, '{"a": "\ud800"}'])
def test_half_of_a_surrogate_pair_is_told_as_that(params: dict[str, Any] | str) -> None:
    with pytest.raises(InvalidParams, match="half of a surrogate pair"):
        params_text(params, "POST", MAX_BYTES)


def test_an_object_nested_too_deeply_is_refused() -> None:
    deep: dict[str, Any] = {}
    for _ in range(100_000):
        deep = {"a": deep}
    with pytest.raises(InvalidParams, match="nested too deeply"):
        params_text(deep, "POST", MAX_BYTES)


values = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(st.characters(exclude_categories=["Cs"])),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=5), inner),
    max_leaves=10,
)


@given(st.dictionaries(st.text(st.characters(exclude_categories=["Cs"])), values, max_size=5))
def test_an_object_becomes_its_text(params: dict[str, Any]) -> None:
    text = params_text(params, "POST", MAX_BYTES)
    assert text is not None
    assert json.loads(text) == params
    assert params_text({"a": [1, {"ü": None}]}, "POST", MAX_BYTES) == '{"a":[1,{"ü":null}]}'
