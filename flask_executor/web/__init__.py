"""What an app can show of its tasks over HTTP; each part is a blueprint.

A part is imported when its name is first used here, and no other part with it.
"""

from __future__ import annotations

import typing as t
from importlib import import_module

if t.TYPE_CHECKING:
    from .dashboard import Dashboard as Dashboard
    from .health import Health as Health
    from .status import StatusAPI as StatusAPI

_MODULES = {"Dashboard": "dashboard", "Health": "health", "StatusAPI": "status"}

__all__ = ["Dashboard", "Health", "StatusAPI"]


def __getattr__(name: str) -> t.Any:
    if name not in _MODULES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f".{_MODULES[name]}", __name__), name)


def __dir__() -> list[str]:
    return sorted(__all__)
