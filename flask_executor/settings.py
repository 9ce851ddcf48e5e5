"""``EXECUTOR_*`` and ``NAME_EXECUTOR_*`` keys, read into one frozen object.

The fields of :class:`Settings` are the table of every key: its default stands beside
it, and the metadata names the parser that checks it.
"""

from __future__ import annotations

import multiprocessing
import typing as t
from dataclasses import dataclass, field, fields

from .errors import InvalidSetting

_TRUE = frozenset({"true", "yes", "t", "1"})
_FALSE = frozenset({"false", "no", "f", "0"})

Parser = t.Callable[[t.Any], t.Any]


class _Refused(Exception):
    """A parser's word that the value is not allowed; its text says what is."""


def str2bool(value: object) -> bool:
    """Read a truth value as people write it in the environment, in any case.

    :raises ValueError: for anything but true, yes, t, 1, false, no, f and 0.
    """
    word = str(value).strip().lower()
    if word in _TRUE:
        return True
    if word in _FALSE:
        return False
    raise ValueError(f"{value!r} is neither true nor false: use 'true' or 'false'.")


def _boolean(value: object) -> bool:
    try:
        return str2bool(value)
    except ValueError:
        raise _Refused(
            "True or False, or 'true', 'yes', 't', '1', 'false', 'no', 'f', '0'"
        ) from None


def _word(value: object) -> str:
    return str(value).strip().lower()


def _one_of(*words: str) -> Parser:
    def parse(value: object) -> str:
        word = _word(value)
        if word not in words:
            raise _Refused("one of " + ", ".join(map(repr, words)))
        return word

    return parse


def _optional(parse: Parser) -> Parser:
    def parse_or_none(value: object) -> t.Any:
        if value is None or value == "" or str(value).lower() == "none":
            return None
        try:
            return parse(value)
        except _Refused as refused:
            raise _Refused(f"None or {refused}") from None

    return parse_or_none


def _positive_int(value: object) -> int:
    try:
        if isinstance(value, bool | float):
            raise ValueError
        number = int(t.cast(str, value))
    except (TypeError, ValueError):
        number = 0
    if number < 1:
        raise _Refused("a whole number above 0")
    return number


def _seconds(value: object) -> float:
    try:
        if isinstance(value, bool):
            raise ValueError
        number = float(t.cast(str, value))
    except (TypeError, ValueError):
        number = -1.0
    if not 0 <= number < float("inf"):
        raise _Refused("a number of seconds, 0 or more")
    return number


def _some_seconds(value: object) -> float:
    seconds = _seconds(value)
    if seconds == 0:
        raise _Refused("a number of seconds above 0")
    return seconds


def _app_reference(value: object) -> str:
    module, _, name = str(value).partition(":")
    if not (isinstance(value, str) and module and name):
        raise _Refused("'module:app' or 'module:factory'")
    return value


def _start_method(value: object) -> str:
    return t.cast(str, _one_of(*multiprocessing.get_all_start_methods())(value))


def _key(default: t.Any, parse: Parser) -> t.Any:
    return field(default=default, metadata={"parse": parse})


@dataclass(frozen=True, kw_only=True, slots=True)
class Settings:
    """What the config says of one executor, checked.

    A field ``x`` is read from ``EXECUTOR_X``, or ``NAME_EXECUTOR_X`` for an executor
    with a name.
    """

    type: str = _key("thread", _word)
    """Which pool runs calls: ``'thread'``, ``'process'``, ``'pebble'``, ``'sync'``. The
    pools themselves say which words there are."""
    max_workers: int | None = _key(None, _optional(_positive_int))
    """How many calls run at once; None is the standard library's default."""
    futures_max_length: int | None = _key(None, _optional(_positive_int))
    """How many futures ``executor.futures`` keeps; None is no bound."""
    futures_ttl: float | None = _key(86_400.0, _optional(_seconds))
    """Seconds for which a finished future stays stored; None keeps it."""
    propagate_exceptions: bool = _key(False, _boolean)
    """Raise failures from a done-callback, as 1.0.0 did, in place of logging them."""
    log_exceptions: bool = _key(True, _boolean)
    """Log each failed task once through ``app.logger``."""
    push_app_context: bool = _key(True, _boolean)
    """Carry ``g`` into the task; False gives it an empty ``g``."""
    copy_g: str = _key("safe", _one_of("safe", "all", "none"))
    """Which names of ``g`` a task sees: all but what has a ``close`` method, all, or
    none."""
    start_method: str | None = _key(None, _optional(_start_method))
    """How worker processes start; None is ``forkserver``, or ``spawn`` where there is
    none."""
    max_pending: int | None = _key(None, _optional(_positive_int))
    """How many tasks may wait; beyond it a submit raises ``QueueFull``."""
    timeout: float | None = _key(None, _optional(_some_seconds))
    """Seconds that each run of a task may take, where it does not say so itself."""
    retry: int | None = _key(None, _optional(_positive_int))
    """How often a failing task runs at most, where it does not say so itself."""
    drain_timeout: float | None = _key(None, _optional(_seconds))
    """Seconds that leaving the process gives its tasks to end; None is no bound."""
    app: str | None = _key(None, _optional(_app_reference))
    """Where worker processes find the app: ``'module:app'`` or ``'module:factory'``."""

    @property
    def g_carried(self) -> str:
        """Which names of ``g`` a task sees, all settings considered."""
        return self.copy_g if self.push_app_context else "none"

    @classmethod
    def read(cls, config: t.Mapping[str, t.Any], prefix: str) -> Settings:
        """Read and check every key of the executor with this prefix.

        :param config: the app's config.
        :param prefix: ``''``, or the upper-case name and an underscore.
        :raises InvalidSetting: naming the key, the value and what is allowed.
        """
        return cls(**{f.name: read_key(config, prefix, f.name) for f in fields(cls)})


def read_key(config: t.Mapping[str, t.Any], prefix: str, name: str) -> t.Any:
    """Read one field of :class:`Settings`, or its default where the key is not set.

    :raises InvalidSetting: naming the key, the value and what is allowed.
    """
    spec = Settings.__dataclass_fields__[name]
    key = config_key(prefix, name)
    value = config.get(key, spec.default)
    try:
        return spec.metadata["parse"](value)
    except _Refused as refused:
        raise InvalidSetting(key, value, str(refused)) from None


def config_key(prefix: str, name: str) -> str:
    """The config key of a field, such as ``MAIL_EXECUTOR_TYPE``."""
    return f"{prefix}EXECUTOR_{name.upper()}"
