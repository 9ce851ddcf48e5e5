"""How calls run: one module for each pool, imported when the config names it.

:data:`CoroutinePool`, which runs coroutine functions beside any of them, is imported at
once: what it does at the end of the process must come after what others do, so it has
to be registered first.
"""

from __future__ import annotations

import typing as t
from importlib import import_module

from .base import Pool as Pool
from .loop import LoopPool as CoroutinePool

POOLS = ("thread", "process", "pebble", "sync")
"""The values of ``EXECUTOR_TYPE``: the modules of this package that have a pool."""


def pool_module(kind: str) -> t.Any:
    """Return the module of a pool.

    It has the class as ``POOL``, and a function ``make(settings, name, app)`` that
    returns a :class:`.Pool` whose workers start with the first task.
    """
    return import_module(f".{kind}", __name__)


__all__ = ["POOLS", "CoroutinePool", "Pool", "pool_module"]
