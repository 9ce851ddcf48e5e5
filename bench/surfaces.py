"""What it costs to look at tasks: metrics, traces, or only that these are there."""

from __future__ import annotations

import importlib
import os
import pkgutil
import tempfile
import typing as t

ALLOWED = {"and 2 us": 2e-6, "and 5 us": 5e-6}
"""Seconds for each task that a side gets on top, by its name."""


def import_all(executor: t.Any) -> None:
    """Import every surface, and use none."""
    for name in ("web", "metrics"):
        room = importlib.import_module(f"flask_executor.{name}")
        for module in pkgutil.walk_packages(room.__path__, f"{room.__name__}."):
            importlib.import_module(module.name)
    for name in ("cli", "tracing"):
        importlib.import_module(f"flask_executor.{name}")


def count(executor: t.Any) -> None:
    """Count the tasks of an executor."""
    from flask_executor.metrics import Metrics

    Metrics(executor)


def count_for_many(executor: t.Any) -> None:
    """Count them in files, as several processes do."""
    os.environ["PROMETHEUS_MULTIPROC_DIR"] = tempfile.mkdtemp()
    count(executor)


def trace(executor: t.Any) -> None:
    """Make spans that go nowhere."""
    from flask_executor.tracing import instrument

    instrument(executor)


USES: dict[str, t.Callable[[t.Any], object]] = {
    "imported": import_all,
    "metrics": count,
    "multiprocess": count_for_many,
    "tracing": trace,
}
"""What a side does with its executor, by its name."""
