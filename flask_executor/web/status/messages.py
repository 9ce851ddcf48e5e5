"""What users may read of a failure: what the class of its exception allows.

The text of an exception can hold paths, queries and data of others. So a class says
itself what users may read: it has an attribute or a property ``public_message``.
"""

from __future__ import annotations

import sys
import typing as t

_NAME = "public_message"
_SENTENCES = {
    "failed": "The task failed.",
    "timed_out": "The task took too long.",
    "interrupted": "The task was interrupted.",
}


def sentence_for(state: str) -> str | None:
    """Return what is said of an end without a message; None if it is no failure."""
    return _SENTENCES.get(state)


def message_of(error: BaseException | None) -> str | None:
    """Return what users may read of an exception, or None."""
    if not hasattr(type(error), _NAME):
        return None
    try:
        message = getattr(error, _NAME)
    except Exception:  # the app's own property may fail
        return None
    return message if isinstance(message, str) else None


def class_named(name: str | None) -> type | None:
    """Return the class that a record names, if its module was imported here."""
    parts = (name or "").split(".")
    for cut in range(len(parts) - 1, 0, -1):
        if (module := sys.modules.get(".".join(parts[:cut]))) is not None:
            return _class_in(module, parts[cut:])
    return None


def fixed_message(kind: type) -> str | None:
    """Return the message that all exceptions of a class have, or None."""
    message = getattr(kind, _NAME, None)
    return message if isinstance(message, str) else None


def has_message(kind: type | None) -> t.TypeGuard[type]:
    """Return True if exceptions of a class say what users may read."""
    return kind is not None and hasattr(kind, _NAME)


def _class_in(module: t.Any, names: list[str]) -> type | None:
    found = module
    for name in names:
        found = getattr(found, name, None)
    return found if isinstance(found, type) else None
