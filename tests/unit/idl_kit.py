"""What differs between two versions of a Thrift contract, and what of it breaks those made from the
older one. Parsed as soraka parses it."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from thriftpy2.parser import parse
from thriftpy2.thrift import TType

Contract = dict[str, dict[str, str]]
"""By name of a type or method: what each of its fields, values and so on is, in words."""

CLOSED = ("argument", "answer 0")
"""Of a method: what none can be added to. 0 is its result."""


def contract(path: Path) -> Contract:
    """Of one file, without those it includes."""
    module = parse(str(path), include_dirs=[str(path.parent)], enable_cache=False)
    meta = module.__thrift_meta__
    constants = {name: repr(value) for name, value in vars(module).items() if name.isupper()}
    found: Contract = {"constants": constants}
    for struct in [*meta["structs"], *meta["unions"], *meta["exceptions"]]:
        found[f"struct {struct.__name__}"] = _fields(struct)
    for enum in meta["enums"]:
        found[f"enum {enum.__name__}"] = {str(v): n for v, n in enum._VALUES_TO_NAMES.items()}
    for service in meta["services"]:
        for method in service.thrift_services:
            found[f"method {service.__name__}.{method}"] = _method(service, method)
    return found


def changed(old: Contract, new: Contract) -> bool:
    """Whether anything but the version and the comments did."""
    return _without_version(old) != _without_version(new)


def breaks(old: Contract, new: Contract) -> list[str]:
    """What is not allowed, in words; empty when those made from `old` can go on."""
    found = [f"{name}: removed" for name in old if name not in new]
    for name in old.keys() & new.keys():
        found += _breaks_within(name, old[name], new[name])
    return sorted(found)


def _breaks_within(name: str, old: dict[str, str], new: dict[str, str]) -> Iterator[str]:
    for key, was in old.items():
        if key not in new:
            yield f"{name}: {key} ({was}) removed"
        elif new[key] != was and key != "VERSION":
            yield f"{name}: {key} was ({was}), is ({new[key]})"
    for key, value in new.items():
        if key not in old and (key.startswith(CLOSED) or value.startswith("required")):
            yield f"{name}: {key} ({value}) added"


def _without_version(given: Contract) -> Contract:
    constants = {k: v for k, v in given["constants"].items() if k != "VERSION"}
    return {**given, "constants": constants}


def _fields(struct: Any) -> dict[str, str]:
    defaults = dict(struct.default_spec)
    return {str(i): _field(spec, defaults) for i, spec in struct.thrift_spec.items()}


def _field(spec: tuple[Any, ...], defaults: dict[str, Any]) -> str:
    kind, name, *of, required = spec
    need = "required" if required else "optional"
    default = "" if defaults.get(name) is None else f" = {defaults[name]!r}"
    return f"{need} {_type(kind, *of)} {name}{default}"


def _type(kind: int, of: Any = None) -> str:
    """Of lists and maps with what is in them."""
    name = TType._VALUES_TO_NAMES[kind].lower()
    if of is None:
        return name
    if isinstance(of, type):
        return f"{name} {of.__name__}"
    if isinstance(of, int):
        return f"{name}<{_type(of)}>"
    if kind == TType.MAP:
        return f"{name}<{', '.join(_type(*_pair(inner)) for inner in of)}>"
    return f"{name}<{_type(*_pair(of))}>"


def _pair(of: Any) -> tuple[Any, ...]:
    return of if isinstance(of, tuple) else (of,)


def _method(service: Any, method: str) -> dict[str, str]:
    """Its arguments are those of one struct, its result and exceptions of another: 0 is the
    result."""
    arguments = _fields(getattr(service, f"{method}_args"))
    result = getattr(service, f"{method}_result")
    shown = {f"argument {i}": text for i, text in arguments.items()}
    shown |= {f"answer {i}": text for i, text in _fields(result).items()}
    return {**shown, "answer": "none" if result.oneway else "one"}
