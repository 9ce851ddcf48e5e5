"""What can be sent to another process by value, and what is left behind."""

from __future__ import annotations

import logging
import pickle
import typing as t

from .copying import PLAIN

_log = logging.getLogger("flask_executor")

_MOST_TOLD = 1000
_told: set[tuple[str, str, str]] = set()


class _Pickled:
    """A value in its own envelope: one that does not land takes no other along."""

    __slots__ = ("data",)

    def __init__(self, data: bytes) -> None:
        self.data = data


def packed(values: t.Mapping[str, t.Any], where: str) -> dict[str, t.Any]:
    """What of a mapping can travel to another process; see :func:`unpacked`.

    :param where: what the debug log calls the mapping, which lists what cannot.
    """
    travels = {}
    for name, value in values.items():
        if type(value) in PLAIN:
            travels[name] = value
            continue
        try:
            travels[name] = _Pickled(pickle.dumps(value))
        except Exception as error:
            _left_behind(where, name, type(value).__qualname__, error)
    return travels


def unpacked(values: t.Mapping[str, t.Any]) -> dict[str, t.Any]:
    """The mapping again, in the other process."""
    arrived = {}
    for name, value in values.items():
        try:
            arrived[name] = (
                pickle.loads(value.data) if isinstance(value, _Pickled) else value
            )
        except Exception as error:
            _left_behind("the worker", name, "pickle", error)
    return arrived


def _left_behind(where: str, name: str, kind: str, error: Exception) -> None:
    # Once by name and kind: the reason often holds an address, which is always new.
    key = (where, name, kind)
    if key in _told or len(_told) >= _MOST_TOLD:
        return
    _told.add(key)
    _log.debug(
        "%r (%s) in %s does not travel to a worker process: %s",
        name,
        kind,
        where,
        error,
    )
