"""The options of a task: their names, their values, and their precedence.

Options are checked where they are written and kept as plain dictionaries.
:meth:`Options.overlaid` merges them: call over job over config.
"""

from __future__ import annotations

import typing as t
from dataclasses import dataclass, fields
from datetime import UTC, datetime, timedelta

from .checks import check, is_count, is_hashable, is_json, is_session, seconds
from .errors import InvalidOption, TaskTimeout, UnknownOption, UnsupportedOption
from .retry import Retry as Retry
from .settings import GUARANTEES, Settings

Given = t.Mapping[str, t.Any]


class NoKey:
    """Means that a task has no key, because None can be a key."""


MISSING: t.Any = object()
"""Means that an argument was not given by position."""


def by_keyword(name: str, kwargs: dict[str, t.Any], verb: str) -> t.Any:
    """Take an argument that is missing by position out of the keyword arguments.

    An argument given by position is ours; all other keywords belong to the callable.
    """
    try:
        return kwargs.pop(name)
    except KeyError:
        raise TypeError(
            f"{verb}() is missing the argument {name!r}: give it by position, or as"
            f" {name}=."
        ) from None


class TaskOptions(t.TypedDict, total=False):
    """The options of :meth:`.Executor.using` and :meth:`.ExecutorJob.using`."""

    priority: int
    """−100 to 100; a larger one is run sooner, equal ones in the order of arrival."""
    timeout: float | timedelta | None
    """Seconds from the start of a run until it ends with :exc:`.TaskTimeout`."""
    delay: float | timedelta | None
    """Seconds from now until it may start."""
    run_at: datetime | None
    """The moment from which it may start, with a time zone."""
    retry: int | Retry | None
    """How it is tried again after a failure; a number is the number of attempts."""
    name: str | None
    """Its name in logs and signals."""
    key: t.Hashable
    """The key under which its future is stored."""
    guarantee: t.Literal["ephemeral", "at_most_once", "at_least_once"]
    """What becomes of it if its process dies; other than ``'ephemeral'`` only with a
    store, and for jobs."""
    meta: t.Any
    """A small JSON value that is kept with it, such as its owner."""
    session: t.Any
    """A session of SQLAlchemy, such as ``db.session``: the task is a row of its
    transaction, so it runs if, and when, that commits; only with a store, and for tasks
    with a guarantee. None: it is saved at once."""
    request: t.Literal["safe", "all", "none"]
    """What a saved task sees of the request; only with a store."""
    unique: t.Hashable
    """A value that only one task at a time may have until it ends, or None."""
    on_taken: t.Literal["raise", "return", "replace"]
    """What to do if another task has that value: raise :exc:`.NotUnique`, the default;
    return the future of that task; or cancel that task, if it waits."""


class JobOptions(TaskOptions, total=False):
    """The options of :meth:`.Executor.job`."""

    max_concurrency: int | None
    """How many tasks of this job may run at once."""
    aliases: t.Sequence[str]
    """Names that the job had before, under which tasks may still be saved."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Options:
    """The options of one task, merged."""

    priority: int = 0
    timeout: float | None = None
    delay: float | None = None
    run_at: datetime | None = None
    retry: Retry | None = None
    max_concurrency: int | None = None
    name: str | None = None
    key: t.Any = NoKey
    guarantee: str = "ephemeral"
    meta: t.Any = None
    session: t.Any = None
    request: str | None = None
    unique: t.Hashable = None
    on_taken: str = "raise"

    @classmethod
    def of(cls, settings: Settings) -> Options:
        """Return the options that the config sets."""
        retry = None if settings.retry is None else Retry(attempts=settings.retry)
        guarantee = settings.guarantee if settings.store else "ephemeral"
        return cls(timeout=settings.timeout, retry=retry, guarantee=guarantee)

    def overlaid(self, *given: Given) -> Options:
        """Return these options with others over them; of two, the last one is used.

        Precedence is decided here and nowhere else. ``delay`` and ``run_at`` both say
        when a task may start, so each replaces the other.
        """
        laid = {name: getattr(self, name) for name in OPTIONS}
        for layer in given:
            if "delay" in layer or "run_at" in layer:
                laid["delay"] = laid["run_at"] = None
            laid.update(layer)
        return Options(**laid)

    def wait(self, now: float) -> float | None:
        """Return the seconds until the task may start, or None for at once.

        :param now: seconds since the epoch.
        """
        if self.run_at is not None:
            return max(0.0, self.run_at.timestamp() - now)
        return self.delay


OPTIONS = tuple(field.name for field in fields(Options))
"""The names of all options."""

_NONE = Options()
_ASKED_FOR = frozenset(OPTIONS) - {"max_concurrency"}
"""The options that one call may have."""
_NEED_A_STORE = "guarantee", "request", "session"


def checked(given: Given) -> dict[str, t.Any]:
    """Check options and convert them: a timedelta to seconds, a number to Retry.

    :raises UnknownOption: a :exc:`TypeError`, if an option does not exist.
    :raises InvalidOption: a :exc:`ValueError`, if a value is not allowed.
    """
    for name in given:
        if name not in OPTIONS:
            raise UnknownOption(name, OPTIONS)
    if given.get("delay") is not None and given.get("run_at") is not None:
        raise InvalidOption("delay", given["delay"], "either delay or run_at")
    return {name: _CHECKS[name](name, value) for name, value in given.items()}


def hint_at_options(error: BaseException, kwargs: t.Mapping[str, t.Any]) -> None:
    """Add a note to the error of a call that was given an option as a keyword.

    :param error: what the call raised.
    :param kwargs: the keyword arguments of the call.
    """
    if type(error) is not TypeError:
        return
    for name in _ASKED_FOR.intersection(kwargs):
        if f"unexpected keyword argument '{name}'" in str(error):
            error.add_note(
                f"Keyword arguments of submit go to the callable. If {name!r} is meant"
                f" for the executor, use executor.using({name}=...).submit(...)."
            )


def unsupported(
    options: Options, pool: t.Any, *, has_store: bool = False
) -> UnsupportedOption | None:
    """Return an error for the first option that is not supported here, or None.

    :param pool: the pool or its class; its flags say what it supports.
    :param has_store: True if tasks can be saved.
    """
    needs_store = () if has_store or pool.runs_in_caller else _NEED_A_STORE
    for name in needs_store:
        if getattr(options, name) != getattr(_NONE, name):
            where = "an executor without a store"
            return UnsupportedOption(name, where, "set EXECUTOR_STORE")
    where = f"EXECUTOR_TYPE = {pool.kind!r}"
    for name in OPTIONS:
        if name not in pool.honours and getattr(options, name) != getattr(_NONE, name):
            return UnsupportedOption(name, where, "use EXECUTOR_TYPE = 'thread'")
    retry = options.retry
    if retry is None or pool.stops_runs or not _names_timeouts(retry):
        return None
    return UnsupportedOption(
        "retry on TaskTimeout",
        where,
        "a run goes on there after its timeout, and a task must not run twice at once."
        " Use a coroutine function or EXECUTOR_TYPE = 'pebble', which can be stopped",
    )


def _names_timeouts(retry: Retry) -> bool:
    return any(issubclass(error, TaskTimeout) for error in retry.on)


def _priority(name: str, value: t.Any) -> int:
    allowed = "a whole number from -100 to 100"
    check(name, value, lambda v: isinstance(v, int) and -100 <= v <= 100, allowed)
    return int(value)


def _timeout(name: str, value: t.Any) -> float | None:
    if value is None:
        return None
    limit = seconds(name, value)
    return float(check(name, limit, bool, "None, or more than 0 seconds"))


def _delay(name: str, value: t.Any) -> float | None:
    return None if value is None else seconds(name, value)


def _run_at(name: str, value: t.Any) -> datetime | None:
    if value is None:
        return None
    allowed = "a datetime with a time zone, as datetime.now(timezone.utc) has"
    check(name, value, lambda v: isinstance(v, datetime), allowed)
    check(name, value, lambda v: v.utcoffset() is not None, allowed)
    try:
        return t.cast(datetime, value.astimezone(UTC))
    except OverflowError:
        allowed = "a datetime that is within the years 1 to 9999 in UTC, too"
        raise InvalidOption(name, value, allowed) from None


def _retry(name: str, value: t.Any) -> Retry | None:
    if value is None or isinstance(value, Retry):
        return value
    allowed = "None, a number of attempts above 0, or a Retry"
    return Retry(attempts=check(name, value, is_count, allowed))


def _max_concurrency(name: str, value: t.Any) -> int | None:
    allowed = "None or a whole number above 0"
    check(name, value, lambda v: v is None or is_count(v), allowed)
    return t.cast("int | None", value)


def _name(name: str, value: t.Any) -> str | None:
    check(
        name, value, lambda v: v is None or (isinstance(v, str) and v != ""), "a text"
    )
    return t.cast("str | None", value)


def _key(name: str, value: t.Any) -> t.Hashable:
    hash(value)
    return t.cast(t.Hashable, value)


def _meta(name: str, value: t.Any) -> t.Any:
    allowed = "a JSON value of at most 2,000 characters, as {'user': 7}"
    return check(name, value, lambda v: is_json(v, 2_000), allowed)


def _session(name: str, value: t.Any) -> t.Any:
    allowed = "None, or a Session or scoped_session of SQLAlchemy, as db.session"
    return check(name, value, lambda v: v is None or is_session(v), allowed)


def _one_of(*words: str) -> t.Callable[[str, t.Any], str]:
    *others, last = map(repr, words)
    allowed = f"{', '.join(others)} or {last}"

    def parse(name: str, value: t.Any) -> str:
        return t.cast(str, check(name, value, lambda v: v in words, allowed))

    return parse


def _unique(name: str, value: t.Any) -> t.Hashable:
    check(name, value, is_hashable, "None, or a value that is hashable, as a text")
    return t.cast(t.Hashable, value)


def refuse_single(verb: str, *given: Given) -> None:
    """Refuse options that only one task can have, for a verb that makes many.

    :raises UnsupportedOption: for ``key``, and ``unique`` unless it is None.
    """
    laid: dict[str, t.Any] = {}
    for layer in given:
        laid.update(layer)
    if "key" in laid:
        single, instead = "key", "submit_stored"
    elif laid.get("unique") is not None:
        single, instead = "unique", "submit"
    else:
        return
    rule = f"it names one task, and {verb} makes many; use {instead}"
    raise UnsupportedOption(single, verb, rule)


_CHECKS: dict[str, t.Callable[[str, t.Any], t.Any]] = {
    "priority": _priority,
    "timeout": _timeout,
    "delay": _delay,
    "run_at": _run_at,
    "retry": _retry,
    "max_concurrency": _max_concurrency,
    "name": _name,
    "key": _key,
    "guarantee": _one_of(*GUARANTEES),
    "meta": _meta,
    "session": _session,
    "request": _one_of("safe", "all", "none"),
    "unique": _unique,
    "on_taken": _one_of("raise", "return", "replace"),
}
