"""What is read: single tasks, pages of tasks, counts.

No query here looks at the whole table: each has an index whose order it follows, or
stops at a limit. Nothing is unpickled.
"""

from __future__ import annotations

import typing as t
from dataclasses import fields

from ..records import Record
from .claims import loaded

_JSON = frozenset({"meta", "source", "progress"})
_NAMES = tuple(field.name for field in fields(Record))
COLUMNS = ", ".join(_NAMES)
"""The columns of a record, in its order."""


def record(row: t.Any) -> Record:
    """Return a row of :data:`COLUMNS` as a record."""
    values = dict(zip(_NAMES, row, strict=True))
    for name in _JSON:
        values[name] = loaded(values[name])
    if values["state"] == "held":
        values["state"] = "waiting"
    values["cancel"] = bool(values["cancel"])
    return Record(**values)
