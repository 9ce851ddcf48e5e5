"""Checks of values that people write; what is refused, is with what is allowed."""

from __future__ import annotations

import json
import sys
import typing as t
from datetime import timedelta

from .errors import InvalidOption


def check(
    name: str, value: t.Any, is_right: t.Callable[[t.Any], bool], allowed: str
) -> t.Any:
    """Return a value, if it is allowed.

    :raises InvalidOption: otherwise.
    """
    if not is_right(value):
        raise InvalidOption(name, value, allowed)
    return value


def is_number(value: t.Any) -> bool:
    """Return True for a number that is not True or False."""
    return isinstance(value, int | float) and not isinstance(value, bool)


def is_count(value: t.Any) -> bool:
    """Return True for a whole number above 0."""
    return isinstance(value, int) and not isinstance(value, bool) and value >= 1


def are_exceptions(value: tuple[t.Any, ...]) -> bool:
    """Return True for exception classes, at least one."""
    return bool(value) and all(
        isinstance(one, type) and issubclass(one, BaseException) for one in value
    )


def seconds(name: str, value: t.Any) -> float:
    """Return seconds, of a number or a timedelta.

    :raises InvalidOption: if it is neither, negative or infinite.
    """
    if isinstance(value, timedelta):
        value = value.total_seconds()
    allowed = "a number of seconds, 0 or more, or a timedelta"
    check(name, value, is_number, allowed)
    return float(check(name, value, lambda v: 0 <= v < float("inf"), allowed))


def is_hashable(value: t.Any) -> bool:
    """Return True for what can be the key of a dictionary."""
    try:
        hash(value)
    except TypeError:
        return False
    return True


def is_session(value: t.Any) -> bool:
    """Return True for a session of SQLAlchemy, which this does not import."""
    orm = sys.modules.get("sqlalchemy.orm")
    return orm is not None and isinstance(value, orm.Session | orm.scoped_session)


def is_json(value: t.Any, longest: int) -> bool:
    """Return True for a value that JSON carries unchanged, in so many characters."""
    try:
        text = json.dumps(value, allow_nan=False)
        return len(text) <= longest and bool(json.loads(text) == value)
    except (TypeError, ValueError, RecursionError):
        return False
