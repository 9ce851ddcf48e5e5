"""The jobs of an executor by name: where a saved task finds its function.

A job is called what its option ``name`` says, or else as its function: module and
qualified name. Aliases are names it had before, under which tasks may still be saved.

A job is held weakly. One that is declared in a view or in an app factory is declared
anew each time; it is found as long as something refers to it, and the last declaration
counts. A decorated function is held by its module.
"""

from __future__ import annotations

import typing as t
import weakref
from functools import partial
from types import FunctionType, MethodType

from .checks import check
from .jobs import ExecutorJob
from .store_errors import DuplicateJobName, JobNotStorable
from .task import name_of

Job = ExecutorJob[..., t.Any]


class JobNames:
    """The jobs of one executor. It can be used from any thread."""

    def __init__(self) -> None:
        self._jobs: weakref.WeakValueDictionary[str, Job] = (
            weakref.WeakValueDictionary()
        )

    def add(self, job: Job, aliases: t.Sequence[str] = ()) -> None:
        """Add a job under its name and its aliases.

        A job without a name is not added: see :func:`job_name`.

        :raises DuplicateJobName: a :exc:`ValueError`, if another function has one of
            the names; nothing is added then.
        """
        own = job_name(job)
        names = [*aliases] if own is None else [own, *aliases]
        for name in names:
            self._refuse_another(name, job)
        for name in names:
            self._jobs[name] = job

    def _refuse_another(self, name: str, job: Job) -> None:
        there = self._jobs.get(name)
        if there is not None and not _are_one(there.fn, job.fn):
            raise DuplicateJobName(name, _place_of(there.fn), _place_of(job.fn))

    def find(self, name: str) -> Job | None:
        """Return the job with that name or alias, or None."""
        return self._jobs.get(name)

    def name_to_save(self, fn: t.Any) -> str:
        """Return the name under which a task of that callable is saved.

        :param fn: what was submitted: a job, a view of one, or anything else.
        :raises JobNotStorable: a :exc:`ValueError`, if another process could not find
            it by a name, or would find something else.
        """
        if not isinstance(fn, ExecutorJob):
            raise JobNotStorable(name_of(fn), "it is not declared with @executor.job")
        name, declared = job_name(fn), fn.declared
        if name is None:
            reason = (
                "it has no name of its own: declare it with @executor.job(name=...)"
            )
            raise JobNotStorable(name_of(declared.fn), reason)
        there = self.find(name)
        if there is None:
            raise JobNotStorable(name, "it is declared on another executor")
        if there.fn is declared.fn or _is_bound_to_nothing(there.fn, declared.fn):
            return name
        reason = (
            "it was declared again since, and a saved task runs the last declaration,"
            " which is bound to other variables. Declare it once"
        )
        raise JobNotStorable(name, reason)

    def known(self) -> list[str]:
        """Return all names and aliases."""
        return [*self._jobs]


def job_name(job: Job) -> str | None:
    """Return the name under which tasks of a job are saved, or None.

    A lambda, a :func:`~functools.partial`, a method of an object and a callable object
    have none unless the option ``name`` gives them one: nothing tells them from others.

    :param job: the job, or a view of it; the name in :meth:`.ExecutorJob.using` is for
        logs and does not count.
    """
    declared = job.declared
    given: str | None = declared.options.get("name")
    if given is not None:
        return given
    return name_of(declared.fn) if _has_own_name(declared.fn) else None


def checked_aliases(value: t.Any) -> tuple[str, ...]:
    """Return the aliases of a job.

    :raises InvalidOption: a :exc:`ValueError`, if it is not a sequence of texts.
    """
    check("aliases", value, _are_texts, "a tuple of texts, as ('mail.deliver',)")
    return tuple(value)


def _are_texts(value: t.Any) -> bool:
    return isinstance(value, list | tuple) and all(
        isinstance(name, str) and name for name in value
    )


def _has_own_name(fn: t.Any) -> bool:
    if isinstance(fn, partial) or (
        isinstance(fn, MethodType) and not isinstance(fn.__self__, type)
    ):
        return False
    name = getattr(fn, "__qualname__", None)
    return isinstance(name, str) and "<lambda>" not in name


def _are_one(first: t.Any, second: t.Any) -> bool:
    """Return True if two declarations are of one function.

    A reloader, a test or a view declares the same code again, as another object.
    """
    return first is second or _source_of(first) == _source_of(second)


def _source_of(fn: t.Any) -> tuple[t.Any, ...]:
    """Return what stays the same when the same code is declared again."""
    while isinstance(fn, partial | MethodType):
        fn = fn.func if isinstance(fn, partial) else fn.__func__
    named = fn if hasattr(fn, "__qualname__") else type(fn)
    code: t.Any = getattr(fn, "__code__", None)
    is_lambda = code is not None and "<lambda>" in named.__qualname__
    return (
        named.__module__,
        named.__qualname__,
        code.co_firstlineno if is_lambda else None,
    )


def _is_bound_to_nothing(*fns: t.Any) -> bool:
    """Return True if declarations of one code cannot differ in what they do."""
    return all(
        isinstance(fn, FunctionType)
        and not (fn.__closure__ or fn.__defaults__ or fn.__kwdefaults__)
        for fn in fns
    )


def _place_of(fn: t.Any) -> str:
    code = getattr(fn, "__code__", None)
    if code is None:
        return name_of(fn)
    return f"{name_of(fn)} ({code.co_filename}, line {code.co_firstlineno})"
