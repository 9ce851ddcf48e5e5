"""Plain values: copied at any depth, and compared with their copy.

A task could change containers that the view still uses, so it gets copies of them.
Other objects are shared: copying one that knows a session or a lock would break it.
"""

from __future__ import annotations

import copy
import io
import typing as t
from collections import deque
from functools import lru_cache
from types import FunctionType

from flask.json.provider import DefaultJSONProvider
from werkzeug.local import LocalProxy
from werkzeug.routing import Rule

T = t.TypeVar("T")

PLAIN = frozenset({str, bytes, int, float, bool, type(None)})
"""Types of values that cannot change."""

_SHARED = PLAIN | {FunctionType, io.TextIOWrapper, Rule, DefaultJSONProvider}
"""Common types of values in requests and sessions that are no containers."""


def own_copy(value: T) -> T:
    """Return a copy of a container, with copies of the containers in it.

    Values that cannot change, and those that are no containers, stay the same objects.
    """
    return t.cast(T, _own_copy(value, {}))


def is_proxy(value: t.Any) -> bool:
    """Return True if it stands for another object; ``isinstance`` would resolve it."""
    return issubclass(type(value), LocalProxy)


def own_values(own: dict[t.Any, t.Any]) -> None:
    """Copy the containers that a plain dict shares with the one it was copied from."""
    # Most hold no container, and this costs far less than to look at each value.
    if not _SHARED.issuperset(map(type, own.values())):
        _own_values(own, {})


def _own_values(own: dict[t.Any, t.Any], memo: dict[int, t.Any]) -> None:
    for key, item in own.items():
        if type(item) not in _SHARED:
            own[key] = _own_copy(item, memo)


@lru_cache(maxsize=1024)
def _is_subclass(kind: t.Any) -> bool:
    """Return True if it is a container of its own kind, as ``defaultdict`` is."""
    return issubclass(kind, (dict, list, set, deque))


def _own_copy(value: t.Any, memo: dict[int, t.Any]) -> t.Any:
    kind: t.Any = type(value)
    if (copied := memo.get(id(value))) is not None:
        return copied
    if kind is dict:
        own = memo[id(value)] = value.copy()
        if not PLAIN.issuperset(map(type, own.values())):
            _own_values(own, memo)
        return own
    if kind is list:
        own = memo[id(value)] = value.copy()
        if not PLAIN.issuperset(map(type, own)):
            own[:] = [_own_copy(item, memo) for item in own]
        return own
    if kind is tuple:
        if PLAIN.issuperset(map(type, value)):
            return value
        return tuple(_own_copy(item, memo) for item in value)
    if kind in (set, bytearray):
        return kind(value)
    return _own_copy_of_subclass(value, memo) if _is_subclass(kind) else value


def _own_copy_of_subclass(value: t.Any, memo: dict[int, t.Any]) -> t.Any:
    try:
        own = copy.copy(value)
    except Exception:
        return value
    memo[id(value)] = own
    if own is value:  # it cannot change, like an ImmutableMultiDict
        return value
    if isinstance(own, dict):
        # Not through the class's own methods: they may note a change, or refuse one.
        # dict.copy() uses them, for some: a MultiDict would lose values on Python 3.14.
        values = dict(dict.items(own))
        _own_values(values, memo)
        dict.update(own, values)
    elif isinstance(own, list):
        # Here, too, not through the class's own methods.
        list.__setitem__(own, slice(None), [_own_copy(item, memo) for item in own])
    elif isinstance(own, deque):
        for index, item in enumerate(list(own)):
            own[index] = _own_copy(item, memo)
    return own


def same(own: t.Any, value: t.Any) -> bool:
    """Return True if a value still looks like an :func:`own_copy` of it."""
    if own is value:
        return True
    kind = type(own)
    if kind is not type(value):
        return False
    if kind in PLAIN:
        return bool(own == value)
    if issubclass(kind, dict):
        return list(own) == list(value) and _same_items(own, value)
    if issubclass(kind, (list, tuple, deque)):
        return len(own) == len(value) and all(map(same, own, value))
    if issubclass(kind, (set, bytearray)):
        return bool(own == value)
    return False


def _same_items(own: t.Any, value: t.Any) -> bool:
    for key, item in dict.items(own):
        now = dict.__getitem__(value, key)
        if item is not now and not same(item, now):  # most are the same object
            return False
    return True
