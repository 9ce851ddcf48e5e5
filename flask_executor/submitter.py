"""The verbs of everything that takes calls: executors, their views, and groups.

They are abstract: a subclass defines how one call is accepted, and inherits ``submit``,
``submit_stored`` and ``map``. So jobs and groups do not need to know the executor.
"""

from __future__ import annotations

import concurrent.futures
import itertools
import time
import typing as t

from flask import Flask

from .calls import Chunk, CoroutineChunk, is_coroutine_function
from .futures import FutureCollection, TaskFuture
from .options import MISSING, Given, NoKey, TaskOptions, by_keyword, refuse_single

P = t.ParamSpec("P")
T = t.TypeVar("T")

_NOTHING: Given = {}


class Declared:
    """What a submitter knows of a job."""

    options: Given
    """The options of all its tasks, checked."""

    @property
    def declared(self) -> t.Any:
        """The job as it was declared: itself, or the job of which this is a view."""
        raise NotImplementedError


class Verbs:
    """``submit`` and ``submit_stored``, with their types."""

    @t.overload
    def submit(
        self,
        fn: t.Callable[P, t.Coroutine[t.Any, t.Any, T]],
        /,
        *args: P.args,
        **kwargs: P.kwargs,
    ) -> TaskFuture[T]: ...

    @t.overload
    def submit(
        self, fn: t.Callable[P, T], /, *args: P.args, **kwargs: P.kwargs
    ) -> TaskFuture[T]: ...

    @t.overload
    def submit(
        self, /, *, fn: t.Callable[..., t.Any], **kwargs: t.Any
    ) -> TaskFuture[t.Any]: ...

    def submit(
        self, fn: t.Any = MISSING, /, *args: t.Any, **kwargs: t.Any
    ) -> TaskFuture[t.Any]:
        """Run ``fn(*args, **kwargs)`` in the background, in a copy of this context.

        A coroutine function runs on the executor's event loop thread.

        :return: the future, at once.
        :raises ExecutorNotInitialized: a :exc:`RuntimeError`, if there is no app.
        :raises ExecutorShutDown: a :exc:`RuntimeError`, after
            :meth:`.Executor.shutdown`.
        :raises CallNotPicklable: if no worker process could import the callable.
        :raises QueueFull: if ``EXECUTOR_MAX_PENDING`` tasks wait already.
        :raises NotUnique: a :exc:`ValueError`, if the option ``unique`` has a value
            that another task has, which has not ended.
        :raises werkzeug.exceptions.HTTPException: if nobody has read the request's
            body yet, and it is too large or was broken off.
        """
        if fn is MISSING:
            fn = by_keyword("fn", kwargs, "submit")
        return self._submit(fn, args, kwargs)

    @t.overload
    def submit_stored(
        self,
        future_key: t.Hashable,
        fn: t.Callable[P, t.Coroutine[t.Any, t.Any, T]],
        /,
        *args: P.args,
        **kwargs: P.kwargs,
    ) -> TaskFuture[T]: ...

    @t.overload
    def submit_stored(
        self,
        future_key: t.Hashable,
        fn: t.Callable[P, T],
        /,
        *args: P.args,
        **kwargs: P.kwargs,
    ) -> TaskFuture[T]: ...

    @t.overload
    def submit_stored(
        self,
        future_key: t.Hashable,
        /,
        *,
        fn: t.Callable[..., t.Any],
        **kwargs: t.Any,
    ) -> TaskFuture[t.Any]: ...

    @t.overload
    def submit_stored(
        self,
        /,
        *,
        future_key: t.Hashable,
        fn: t.Callable[..., t.Any],
        **kwargs: t.Any,
    ) -> TaskFuture[t.Any]: ...

    def submit_stored(
        self,
        future_key: t.Hashable = MISSING,
        fn: t.Any = MISSING,
        /,
        *args: t.Any,
        **kwargs: t.Any,
    ) -> TaskFuture[t.Any]:
        """Submit a call and store its future in :attr:`.Executor.futures`.

        It raises what :meth:`submit` raises.

        :param future_key: anything hashable.
        :raises DuplicateKey: a :exc:`ValueError`, if the key is taken; nothing was
            submitted then.
        """
        if future_key is MISSING:
            future_key = by_keyword("future_key", kwargs, "submit_stored")
        if fn is MISSING:
            fn = by_keyword("fn", kwargs, "submit_stored")
        return self._submit(fn, args, kwargs, future_key)

    def _submit(
        self,
        fn: t.Any,
        args: tuple[t.Any, ...],
        kwargs: dict[str, t.Any],
        key: t.Any = NoKey,
    ) -> TaskFuture[t.Any]:
        """Accept a call, and store its future if there is a key."""
        raise NotImplementedError


OWN_SUBMIT: t.Any = Verbs.submit
"""The ``submit`` of this package; another one was overridden or patched."""


class Submitter(Verbs, concurrent.futures.Executor):
    """The verbs that an executor and its views have in common."""

    options: Given = _NOTHING
    """The options of all its tasks, checked."""

    @property
    def futures(self) -> FutureCollection:
        """The stored futures of the current app, by key."""
        raise NotImplementedError

    def using(self, **options: t.Unpack[TaskOptions]) -> Submitter:
        """Return a view whose tasks have these options."""
        raise NotImplementedError

    def check_call(self, options: Given, fn: t.Any = None) -> Given:
        """Check the options of a call, as far as is known now.

        :param fn: what is called, if that is known.
        :raises UnsupportedOption: if the pool cannot honour one, or only a job has it.
        """
        raise NotImplementedError

    def map(
        self,
        fn: t.Callable[..., T],
        *iterables: t.Iterable[t.Any],
        timeout: float | None = None,
        chunksize: int = 1,
    ) -> t.Iterator[T]:
        """Call ``fn`` for each item, and return the results in order.

        The iterables are read and the calls submitted at once. Closing the iterator
        cancels what has not started; so does a failure.

        :param timeout: seconds to wait for a result, counted from this call on; then
            :exc:`TimeoutError` is raised.
        :param chunksize: how many calls make one task. They run one after another in
            one context. A failure loses the earlier results of its chunk.
        :raises ValueError: if the chunksize is below 1, and with the options ``key``
            and ``unique``, which name one task.
        """
        if chunksize < 1:
            raise ValueError(f"chunksize must be >= 1, not {chunksize!r}.")
        job = _job_of(fn)
        refuse_single("map", job.options if job else _NOTHING, self.options)
        deadline = None if timeout is None else time.monotonic() + timeout
        calls = zip(*iterables, strict=False)
        if chunksize == 1:
            return _results(self._submit_all(fn, calls, job), deadline)
        chunks = iter(lambda: list(itertools.islice(calls, chunksize)), [])
        called = fn if job is None else job.declared
        run = CoroutineChunk(fn) if is_coroutine_function(fn) else Chunk(called)
        futures = self._submit_all(run, ((chunk,) for chunk in chunks), job)
        return _one_by_one(_results(futures, deadline))

    def _submit_all(
        self,
        fn: t.Callable[..., t.Any],
        calls: t.Iterable[t.Sequence[t.Any]],
        job: Declared | None,
    ) -> list[TaskFuture[t.Any]]:
        accept = self._executor._accept
        futures: list[TaskFuture[t.Any]] = []
        try:
            for args in calls:
                futures.append(accept(self.options, fn, args, {}, NoKey, job))
        except BaseException:  # the caller gets no futures
            for future in futures:
                future.cancel()
            raise
        return futures

    @property
    def _executor(self) -> t.Any:
        """The executor itself; for a view, the executor of which it is a view."""
        raise NotImplementedError

    def _accept(
        self,
        given: Given,
        fn: t.Any,
        args: t.Sequence[t.Any],
        kwargs: dict[str, t.Any],
        key: t.Any = NoKey,
        job: t.Any = None,
        held_by: object = None,
    ) -> TaskFuture[t.Any]:
        """Accept a call; only the executor itself does.

        :param given: the options of the call.
        :param key: the key for its future, if it is not that of the options.
        :param job: the job whose options are merged, if it is not ``fn`` itself.
        :param held_by: the object that has reserved the key already, or None.
        """
        raise NotImplementedError

    def _app_here(self) -> Flask | None:
        """Return the app that a call submitted here and now would belong to."""
        raise NotImplementedError


def _job_of(fn: t.Any) -> Declared | None:
    return fn if isinstance(fn, Declared) else None


def _results(
    futures: list[TaskFuture[T]], deadline: float | None
) -> t.Generator[T, None, None]:
    """Yield results in order, dropping each; cancel the rest when left."""
    futures.reverse()
    try:
        while futures:
            yield _result(futures.pop(), deadline)
    finally:
        for future in futures:
            future.cancel()


def _result(future: TaskFuture[T], deadline: float | None) -> T:
    try:
        try:
            if deadline is None:
                return future.result()
            return future.result(deadline - time.monotonic())
        finally:
            future.cancel()
    finally:
        # A traceback must not keep the future alive through this frame.
        del future


def _one_by_one(chunks: t.Iterable[list[T]]) -> t.Generator[T, None, None]:
    """Yield the results in chunks, dropping each; as a generator it can be closed."""
    for chunk in chunks:
        chunk.reverse()
        while chunk:
            yield chunk.pop()
