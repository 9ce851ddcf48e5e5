"""The surfaces that a browser sees: each is imported when somebody asks for it."""

from __future__ import annotations

import typing as t
from importlib import import_module

if t.TYPE_CHECKING:
    from .dashboard import Dashboard as Dashboard

_MODULES = {"Dashboard": ".dashboard"}
"""Where each name is: an app that uses one surface does not pay for the others."""

__all__ = ["Dashboard"]


def __getattr__(name: str) -> t.Any:
    if name not in _MODULES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(_MODULES[name], __name__), name)
