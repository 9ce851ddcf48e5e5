"""Values as bytes for another process, each by itself; it logs which are not sent."""

from __future__ import annotations

import io
import logging
import pickle
import typing as t
from importlib import import_module
from sys import modules

from .copying import PLAIN, is_proxy

_log = logging.getLogger("flask_executor")

_MOST_LOGGED = 1000
_logged: set[tuple[str, str, str]] = set()


def dumps(value: t.Any) -> bytes:
    """Pickle a value; a proxy in it goes by the name that a module has for it.

    In another process the proxy stands for another object. So the object stays here,
    and the proxy is not resolved.

    :raises pickle.PicklingError: for a proxy that no module names.
    """
    data = io.BytesIO()
    _Pickler(data).dump(value)
    return data.getvalue()


class _Pickler(pickle.Pickler):
    def reducer_override(self, value: t.Any) -> t.Any:
        return (_named, _name_of(value)) if is_proxy(value) else NotImplemented


def _named(module: str, name: str) -> t.Any:
    return getattr(import_module(module), name)


def _name_of(proxy: t.Any) -> tuple[str, str]:
    """Return where another process finds a proxy.

    That is the module of the function behind it, or one of Flask's modules.
    """
    behind = object.__getattribute__(proxy, "_LocalProxy__wrapped")
    for module in (getattr(behind, "__module__", ""), "flask.globals"):
        names = vars(modules[module]).copy() if module in modules else {}
        for name, value in names.items():
            if value is proxy:
                return module, name
    raise pickle.PicklingError("no module has a name for this proxy")


class _Pickled:
    """A value pickled by itself: if it does not unpickle, the others still do."""

    __slots__ = ("data",)

    def __init__(self, data: bytes) -> None:
        self.data = data


def serialize(values: t.Mapping[str, t.Any], where: str) -> dict[str, t.Any]:
    """Serialize the values of a mapping that can be sent to another process.

    :func:`deserialize` takes them. The debug log names the other values.

    :param where: the name of the mapping in that log.
    """
    sent = {}
    for name, value in values.items():
        if type(value) in PLAIN:
            sent[name] = value
            continue
        try:
            sent[name] = _Pickled(dumps(value))
        except Exception as error:
            _log_once(where, name, type(value).__qualname__, error)
    return sent


def deserialize(values: t.Mapping[str, t.Any]) -> dict[str, t.Any]:
    """Return the values, in the other process."""
    received = {}
    for name, value in values.items():
        try:
            received[name] = (
                pickle.loads(value.data) if isinstance(value, _Pickled) else value
            )
        except Exception as error:
            _log_once("the worker", name, "pickle", error)
    return received


def _log_once(where: str, name: str, kind: str, error: Exception) -> None:
    # By name and kind: the reason often holds an address, which is always new.
    key = (where, name, kind)
    if key in _logged or len(_logged) >= _MOST_LOGGED:
        return
    _logged.add(key)
    _log.debug(
        "%r (%s) in %s is not transferred to a worker process: %s",
        name,
        kind,
        where,
        error,
    )
