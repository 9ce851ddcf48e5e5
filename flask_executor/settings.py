"""``EXECUTOR_*`` and ``NAME_EXECUTOR_*`` keys, read into one frozen object.

The fields of :class:`Settings` are the table of every key: its default stands beside
it, and the metadata names the parser that checks it.

``None`` and an empty text mean that a key is not set, so its default is used. Only for
``EXECUTOR_FUTURES_TTL`` has ``None`` a meaning: a finished future stays.
"""

from __future__ import annotations

import multiprocessing
import re
import typing as t
from dataclasses import dataclass, field, fields
from difflib import get_close_matches
from types import MappingProxyType

from .errors import InvalidSetting

GUARANTEES = ("ephemeral", "at_most_once", "at_least_once")
"""The values of the option ``guarantee``."""

_DAY = 86_400.0
KEEP: t.Mapping[str, float | None] = MappingProxyType(
    {
        "succeeded": _DAY,
        "cancelled": _DAY,
        "failed": 14 * _DAY,
        "timed_out": 14 * _DAY,
        "interrupted": 14 * _DAY,
    }
)
"""Seconds for which a store remembers tasks that have ended, by state."""

_TRUE = frozenset({"true", "yes", "t", "1"})
_FALSE = frozenset({"false", "no", "f", "0"})

Parser = t.Callable[[t.Any], t.Any]


class _Refused(Exception):
    """Raised by a parser for a value that is not allowed; its text says what is."""


def str2bool(value: object) -> bool:
    """Read True or False as people write them in the environment, in any case.

    :raises ValueError: if it is not true, yes, t, 1, false, no, f or 0.
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
    """Parse a key that may be None: that is its default."""

    def parse_or_none(value: object) -> t.Any:
        if value is None or str(value).strip().lower() == "none":
            return None
        try:
            return parse(value)
        except _Refused as refused:
            raise _Refused(f"None or {refused}") from None

    return parse_or_none


def _integer(value: object) -> int:
    """Return a whole number: that of 5, 5.0, ``'5'`` or ``'5.0'``.

    :raises ValueError: if it is none of these.
    """
    number = float("nan") if isinstance(value, bool) else float(t.cast(str, value))
    if not number.is_integer():
        raise ValueError(value)
    return int(number)


def _at_least(least: int, allowed: str) -> Parser:
    def parse(value: object) -> int:
        try:
            number = _integer(value)
        except (TypeError, ValueError, OverflowError):
            raise _Refused(allowed) from None
        if number < least:
            raise _Refused(allowed)
        return number

    return parse


_positive_int = _at_least(1, "a whole number above 0")
_whole_number = _at_least(0, "a whole number, 0 or more")


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


def _jobs(value: object) -> dict[str, t.Any]:
    if not isinstance(value, dict):
        raise _Refused("a dictionary of jobs by name")
    return value


def _url(value: object) -> str:
    text = str(value).strip()
    if text != "flask-sqlalchemy" and "://" not in text:
        raise _Refused(
            "'sqlite:///tasks.db', 'postgresql+psycopg://...' or 'flask-sqlalchemy'"
        )
    return text


def _keep(value: object) -> dict[str, float | None]:
    allowed = f"a dictionary of seconds, or None, by state: {', '.join(KEEP)}"
    if not isinstance(value, t.Mapping) or not KEEP.keys() >= value.keys():
        raise _Refused(allowed)
    try:
        return {state: _optional(_seconds)(kept) for state, kept in value.items()}
    except _Refused:
        raise _Refused(allowed) from None


def _start_method(value: object) -> str:
    return t.cast(str, _one_of(*multiprocessing.get_all_start_methods())(value))


def _key(default: t.Any, parse: Parser, *, none_is_a_value: bool = False) -> t.Any:
    metadata = {"parse": parse, "none_is_a_value": none_is_a_value}
    return field(default=default, metadata=metadata)


@dataclass(frozen=True, kw_only=True, slots=True)
class Settings:
    """The config of one executor, checked.

    A field ``x`` is read from ``EXECUTOR_X``, or ``NAME_EXECUTOR_X`` for an executor
    with a name.
    """

    type: str = _key("thread", _word)
    """Which pool runs calls: ``'thread'``, ``'process'``, ``'pebble'``, ``'sync'``. The
    modules of the pools define the names."""
    max_workers: int | None = _key(None, _optional(_positive_int))
    """How many calls run at once; None is the standard library's default."""
    futures_max_length: int | None = _key(None, _optional(_whole_number))
    """How many futures ``executor.futures`` keeps. None sets no limit; with 0, a future
    is removed when it finishes."""
    futures_ttl: float | None = _key(
        86_400.0, _optional(_seconds), none_is_a_value=True
    )
    """Seconds for which a finished future stays stored; None keeps it."""
    propagate_exceptions: bool = _key(False, _boolean)
    """Raise failures in a done-callback, as 1.0.0 did, instead of logging them."""
    log_exceptions: bool = _key(True, _boolean)
    """Log each failed task once through ``app.logger``."""
    push_app_context: bool = _key(True, _boolean)
    """Carry ``g`` into the task; False gives it an empty ``g``."""
    copy_g: str = _key("safe", _one_of("safe", "all", "none"))
    """Which names of ``g`` a task sees: ``'safe'``, all except values with a ``close``
    method; ``'all'``; or ``'none'``."""
    start_method: str | None = _key(None, _optional(_start_method))
    """How worker processes start; None is ``forkserver``, or ``spawn`` on systems
    without it."""
    max_pending: int | None = _key(None, _optional(_positive_int))
    """How many tasks may wait; beyond it a submit raises ``QueueFull``."""
    timeout: float | None = _key(None, _optional(_some_seconds))
    """Seconds that each run of a task may take, if the task has no ``timeout``."""
    retry: int | None = _key(None, _optional(_positive_int))
    """How often a failing task runs at most, if the task has no ``retry``."""
    drain_timeout: float | None = _key(None, _optional(_seconds))
    """Seconds that tasks have to end when the process ends; None sets no limit."""
    app: str | None = _key(None, _optional(_app_reference))
    """Where worker processes find the app: ``'module:app'`` or ``'module:factory'``."""
    serializer: str = _key("pickle", _one_of("pickle", "json"))
    """How arguments and results are saved: ``'pickle'``, or ``'json'``, with which
    nothing is unpickled."""
    store: str | None = _key(None, _optional(_url))
    """Where tasks are remembered: a SQLAlchemy URL, or ``'flask-sqlalchemy'``."""
    guarantee: str = _key("ephemeral", _one_of(*GUARANTEES))
    """What becomes of a task whose process dies, if the task has no ``guarantee``."""
    store_run: bool = _key(True, _boolean)
    """Run saved tasks in processes that serve requests; False: in workers alone."""
    store_lease: float = _key(30.0, _some_seconds)
    """Seconds after which a process that does not renew its lease counts as dead."""
    store_max_lost: int = _key(3, _positive_int)
    """How many processes may die with a task before it has failed."""
    store_keep: t.Mapping[str, float | None] | None = _key(None, _optional(_keep))
    """Seconds for which tasks that have ended are remembered, by state, where they are
    not those of :data:`KEEP`; None for a state keeps its tasks."""
    store_max_bytes: int = _key(1_000_000, _positive_int)
    """How many bytes are saved of one call, or of one result."""
    store_request: str = _key("safe", _one_of("safe", "all", "none"))
    """What a saved task sees of the request: ``'safe'``, all except credentials and the
    body; ``'all'``, with the body; or ``'none'``."""
    periodic: t.Mapping[str, t.Any] | None = _key(None, _optional(_jobs))
    """Periodic jobs by name, each a dictionary; see :doc:`/howto/periodic`."""
    events_max: int = _key(2, _whole_number)
    """How many requests for the status of tasks may wait at once in one process: event
    streams, and those with ``Prefer: wait``. The others are answered at once."""
    events_seconds: float = _key(25.0, _some_seconds)
    """Seconds for which such a request waits at most."""

    @property
    def keep_times(self) -> dict[str, float | None]:
        """Seconds for which tasks that have ended are remembered, for every state."""
        return {**KEEP, **(self.store_keep or {})}

    @property
    def g_carried(self) -> str:
        """Which names of ``g`` a task sees; none if ``push_app_context`` is False."""
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
    """Read one field of :class:`Settings`, or its default if the key is not set.

    :raises InvalidSetting: naming the key, the value and what is allowed.
    """
    spec = Settings.__dataclass_fields__[name]
    key = config_key(prefix, name)
    value = config.get(key, spec.default)
    if _is_blank(value) or (value is None and not spec.metadata["none_is_a_value"]):
        value = spec.default
    try:
        return spec.metadata["parse"](value)
    except _Refused as refused:
        raise InvalidSetting(key, value, str(refused)) from None


def _is_blank(value: object) -> bool:
    return isinstance(value, str) and not value.strip()


def prefix_of(name: str) -> str:
    """Return what the config keys of an executor with this name begin with."""
    return f"{name.upper()}_" if name else ""


def config_key(prefix: str, name: str) -> str:
    """Return the config key of a field, such as ``MAIL_EXECUTOR_TYPE``."""
    return f"{prefix}EXECUTOR_{name.upper()}"


_NAMES = [spec.name.upper() for spec in fields(Settings)]
_OF_ANY_EXECUTOR = re.compile(rf".*EXECUTOR_({'|'.join(_NAMES)})")


def misspelt(config: t.Mapping[str, t.Any], prefix: str) -> dict[str, str]:
    """Return the keys that look like one of this executor's and are not, each with the
    nearest one that exists.

    A key that resembles none of them is ignored: it may be the app's own.
    """
    found = {}
    for key in filter(lambda key: isinstance(key, str), config):
        if key.startswith(f"{prefix}EX") and not _OF_ANY_EXECUTOR.fullmatch(key):
            nearest = _nearest(key.removeprefix(prefix))
            if nearest is not None:
                found[key] = config_key(prefix, nearest)
    return found


def _nearest(key: str) -> str | None:
    """Return the field whose key is most like this one, which has no prefix."""
    if key.startswith("EXECUTOR_"):
        near = get_close_matches(key.removeprefix("EXECUTOR_"), _NAMES, 1, 0.6)
        return near[0] if near else None
    # The word itself is misspelt: accept only what is very similar.
    near = get_close_matches(key, [config_key("", name) for name in _NAMES], 1, 0.85)
    return near[0].removeprefix("EXECUTOR_") if near else None
