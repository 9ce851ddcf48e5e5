"""Jobs: functions that can be submitted."""

from __future__ import annotations

import typing as t
from functools import update_wrapper

from .calls import is_coroutine_function, mark_coroutine_function
from .futures import TaskFuture
from .options import MISSING, Given, TaskOptions, by_keyword
from .submitter import Declared, Submitter
from .task import name_of

P = t.ParamSpec("P")
T = t.TypeVar("T")
R = t.TypeVar("R")

_NOTHING: Given = {}


class _Elsewhere:
    """A verb of another task queue; its error names the verb of this package.

    Not ``__getattr__``: that would slow down each look for an attribute that a job does
    not have, and there are such looks each time that it is submitted.
    """

    def __init__(self, instead: str) -> None:
        self._instead = instead

    def __set_name__(self, owner: type, name: str) -> None:
        self._name = name

    def __get__(self, job: object, owner: type) -> t.NoReturn:
        raise AttributeError(
            f"{self._name!r} is not an attribute of a job: use {self._instead}.",
            name=self._name,
            obj=job,
        )


class ExecutorJob(Declared, t.Generic[P, T]):
    """A function declared with ``@executor.job``.

    Calling it runs the function inline, so a job may call itself. It keeps the
    function's name, docstring and signature, and it is pickled by name.

    :param executor: the executor on which it is declared.
    :param fn: the function.
    :param options: the options of each of its tasks, unless the call has others.
    :param declared: the job of which this is a view, or None.
    """

    executor: Submitter
    """The executor on which it was declared."""
    fn: t.Callable[P, T]
    """The function itself."""
    options: Given
    """The options that it was declared with, and those of :meth:`using`."""
    __name__: str
    __qualname__: str

    def __init__(
        self,
        executor: Submitter,
        fn: t.Callable[P, T],
        options: Given = _NOTHING,
        declared: ExecutorJob[P, T] | None = None,
    ) -> None:
        update_wrapper(self, fn)
        self.executor = executor
        self.fn = fn
        self.options = options
        self._declared = declared
        if is_coroutine_function(fn):
            mark_coroutine_function(self)

    def using(self, **options: t.Unpack[TaskOptions]) -> ExecutorJob[P, T]:
        """Return a view of the job with these options; see :meth:`.Executor.using`."""
        given = self.executor.check_call(options, self.fn)
        return ExecutorJob(
            self.executor, self.fn, {**self.options, **given}, self.declared
        )

    @property
    def declared(self) -> ExecutorJob[P, T]:
        """The job as it was declared: itself, or the job of which this is a view."""
        return self._declared or self

    def __call__(self, /, *args: P.args, **kwargs: P.kwargs) -> T:
        return self.fn(*args, **kwargs)

    @t.overload
    def submit(
        self: ExecutorJob[P, t.Coroutine[t.Any, t.Any, R]],
        /,
        *args: P.args,
        **kwargs: P.kwargs,
    ) -> TaskFuture[R]: ...

    @t.overload
    def submit(self, /, *args: P.args, **kwargs: P.kwargs) -> TaskFuture[T]: ...

    def submit(self, /, *args: t.Any, **kwargs: t.Any) -> TaskFuture[t.Any]:
        """Submit the job; see :meth:`.Executor.submit`."""
        return self.executor.submit(self, *args, **kwargs)

    @t.overload
    def submit_stored(
        self: ExecutorJob[P, t.Coroutine[t.Any, t.Any, R]],
        future_key: t.Hashable,
        /,
        *args: P.args,
        **kwargs: P.kwargs,
    ) -> TaskFuture[R]: ...

    @t.overload
    def submit_stored(
        self, future_key: t.Hashable, /, *args: P.args, **kwargs: P.kwargs
    ) -> TaskFuture[T]: ...

    @t.overload
    def submit_stored(
        self, /, *, future_key: t.Hashable, **kwargs: t.Any
    ) -> TaskFuture[t.Any]: ...

    def submit_stored(
        self, future_key: t.Hashable = MISSING, /, *args: t.Any, **kwargs: t.Any
    ) -> TaskFuture[t.Any]:
        """Submit the job under a key; see :meth:`.Executor.submit_stored`."""
        if future_key is MISSING:
            future_key = by_keyword("future_key", kwargs, "submit_stored")
        return self.executor.submit_stored(future_key, self, *args, **kwargs)

    def map(
        self,
        *iterables: t.Iterable[t.Any],
        timeout: float | None = None,
        chunksize: int = 1,
    ) -> t.Iterator[T]:
        """Call the job for each item; see :meth:`.Executor.map`."""
        return self.executor.map(
            t.cast("t.Callable[..., T]", self),
            *iterables,
            timeout=timeout,
            chunksize=chunksize,
        )

    if not t.TYPE_CHECKING:
        # The verbs that users of Celery, Dramatiq and RQ try first.
        delay = _Elsewhere("job.submit(...)")
        send = _Elsewhere("job.submit(...)")
        enqueue = _Elsewhere("job.submit(...)")
        apply_async = _Elsewhere(
            "job.submit(...), or job.using(delay=seconds).submit(...)"
        )

    def __dir__(self) -> t.Iterable[str]:
        return [name for name in super().__dir__() if hasattr(self, name)]

    def __reduce__(self) -> str:
        # By name, like a function: that name in its module is this job.
        return getattr(self, "__qualname__", repr(self))

    def __repr__(self) -> str:
        return f"<ExecutorJob {name_of(self.fn)}>"
