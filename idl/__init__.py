"""The Thrift contracts, parsed once at import. No generated code."""

from pathlib import Path
from typing import Any

import thriftpy2

_HERE = Path(__file__).parent


def _load(name: str) -> Any:
    return thriftpy2.load(
        str(_HERE / f"{name}.thrift"),
        module_name=f"idl.{name}_thrift",
        include_dirs=[str(_HERE)],
    )


soraka = _load("soraka")
worker = _load("worker")
center = _load("center")

__all__ = ["center", "soraka", "worker"]
