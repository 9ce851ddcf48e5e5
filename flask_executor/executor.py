"""The executor: the reception desk.

It finds the app, reads settings, takes snapshots and hands out futures; how calls run
and what becomes of them is decided elsewhere.
"""

from __future__ import annotations

import concurrent.futures
import itertools
import os
import re
import threading
import time
import typing as t
import weakref
from concurrent.futures import Future, ProcessPoolExecutor, ThreadPoolExecutor
from dataclasses import fields

from flask import Flask

from .calls import Call, Chunk, CoroutineChunk, is_coroutine_function
from .contexts import Snapshot, current_app, keep_uploads
from .dispatch import Dispatcher, Drained
from .errors import ExecutorNotInitialized, InvalidName, NotCallable, UnsupportedOption
from .futures import Callback, FutureCollection, TaskFuture
from .groups import Group
from .jobs import ExecutorJob as ExecutorJob
from .options import (
    Given,
    JobOptions,
    NoKey,
    Options,
    TaskOptions,
    checked,
    unsupported,
)
from .pools import pool_module
from .settings import Settings, config_key, read_key

P = t.ParamSpec("P")
T = t.TypeVar("T")

_NOTHING: Given = {}
_UNSAID = object()

_NewDispatcher = t.Callable[[Settings, str, Flask], Dispatcher]

_POOL_CLASSES: dict[str, type[concurrent.futures.Executor]] = {
    "thread": ThreadPoolExecutor,
    "process": ProcessPoolExecutor,
    "pebble": ProcessPoolExecutor,
}


def propagate_exceptions_callback(future: Future[t.Any]) -> None:
    """Raise what a task raised; a default done-callback where
    ``EXECUTOR_PROPAGATE_EXCEPTIONS`` is true.
    """
    if not future.cancelled() and (error := future.exception()) is not None:
        raise error


class Submitting(concurrent.futures.Executor):
    """The verbs that an executor and its views have in common."""

    options: Given = _NOTHING
    """What was given for all its tasks, as it counts."""

    @property
    def _desk(self) -> Executor:
        """The executor itself."""
        raise NotImplementedError

    def using(self, **options: t.Unpack[TaskOptions]) -> ExecutorView:
        """A view of the executor whose tasks have these options.

        It is a :class:`concurrent.futures.Executor` itself, immutable and cheap, and
        goes wherever one goes. Options given to a view are added to those it has; a
        job's own options give way to them.

        :raises UnknownOption: a :exc:`TypeError`.
        :raises InvalidOption: a :exc:`ValueError`.
        :raises UnsupportedOption: a :exc:`ValueError`, where the pool cannot honour
            one; at submit, where the app is not known yet.
        """
        given = self._desk.check_call(options)
        return ExecutorView(self._desk, {**self.options, **given})

    def group(self, name: str = "") -> Group:
        """A group: many tasks, one handle; see :class:`.Group`.

        :param name: for people.
        """
        return Group(self, name)

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

    def submit(
        self, fn: t.Callable[..., t.Any], /, *args: t.Any, **kwargs: t.Any
    ) -> TaskFuture[t.Any]:
        """Run ``fn(*args, **kwargs)`` in the background, in a copy of this context.

        A coroutine function runs on the executor's event loop thread.

        :return: the future, at once.
        :raises ExecutorNotInitialized: a :exc:`RuntimeError`, where there is no app.
        :raises ExecutorShutDown: a :exc:`RuntimeError`, after :meth:`shutdown`.
        :raises CallNotPicklable: where no worker process could import the callable.
        :raises QueueFull: where ``EXECUTOR_MAX_PENDING`` tasks wait already.
        :raises werkzeug.exceptions.HTTPException: where the request's body, which
            nobody has read yet, is too large or was broken off.
        """
        return self._desk._accept(self.options, fn, args, kwargs)

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

    def submit_stored(
        self,
        future_key: t.Hashable,
        fn: t.Callable[..., t.Any],
        /,
        *args: t.Any,
        **kwargs: t.Any,
    ) -> TaskFuture[t.Any]:
        """Submit a call and store its future in :attr:`futures`.

        :param future_key: anything hashable.
        :raises DuplicateKey: a :exc:`ValueError`, where the key is taken; nothing was
            submitted then.
        """
        return self._desk._accept(self.options, fn, args, kwargs, key=future_key)

    def map(
        self,
        fn: t.Callable[..., T],
        *iterables: t.Iterable[t.Any],
        timeout: float | None = None,
        chunksize: int = 1,
    ) -> t.Iterator[T]:
        """Call ``fn`` for each item, and give the results in order.

        The iterables are read and the calls submitted at once. Closing the iterator,
        and a failure, cancel what has not started.

        :param timeout: seconds from this call on for which a result is waited for;
            then :exc:`TimeoutError`.
        :param chunksize: how many calls make one task, run one after another in one
            context. A failure loses the earlier results of its chunk.
        :raises ValueError: for a chunksize below 1, and with the option ``key``, which
            names one task.
        """
        if chunksize < 1:
            raise ValueError(f"chunksize must be >= 1, not {chunksize!r}.")
        job = fn if isinstance(fn, ExecutorJob) else None
        if "key" in {**self.options, **(job.options if job else {})}:
            raise UnsupportedOption(
                "key", "map", "it names one task, and map makes many; use submit_stored"
            )
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
        job: ExecutorJob[..., t.Any] | None,
    ) -> list[TaskFuture[t.Any]]:
        accept = self._desk._accept
        futures: list[TaskFuture[t.Any]] = []
        try:
            for args in calls:
                futures.append(accept(self.options, fn, args, {}, job=job))
        except BaseException:  # nobody will have the handles
            for future in futures:
                future.cancel()
            raise
        return futures


class Executor(Submitting):
    """Run calls in the background, each with a copy of the context it came from.

    It is a :class:`concurrent.futures.Executor`, and answers for the pool under it:
    ``isinstance(executor, ThreadPoolExecutor)`` holds where its type is ``'thread'``.

    :param app: the app to initialize, or None to call :meth:`init_app` later.
    :param name: for several executors on one app; it stands in front of the config
        keys, in upper case and with an underscore.
    :raises InvalidName: a :exc:`ValueError`, for anything but letters, digits and
        underscores.
    """

    def __init__(self, app: Flask | None = None, name: str = "") -> None:
        _check_name(name)
        self.name = name
        self._prefix = f"{name.upper()}_" if name else ""
        self._default_done_callbacks: list[Callback] = []
        self._states: weakref.WeakKeyDictionary[Flask, _AppState] = (
            weakref.WeakKeyDictionary()
        )
        self._last_app: Flask | None = None
        self._last_state: _AppState | None = None
        # Tests have other ones made: flask_executor.testing.
        self._new_dispatcher: _NewDispatcher = Dispatcher
        if app is not None:
            self.init_app(app)

    def init_app(self, app: Flask) -> None:
        """Make the executor work for an app.

        Called again for the same app, it starts anew: the pool that was there is shut
        down, and what it had accepted still runs.

        :raises InvalidSetting: for an ``EXECUTOR_TYPE`` that is none; every other key
            is read at first use.
        """
        # People pass current_app, in a view.
        app = getattr(app, "_get_current_object", lambda: app)()
        kind = read_key(app.config, self._prefix, "type")
        for spec in fields(Settings):
            app.config.setdefault(config_key(self._prefix, spec.name), spec.default)
        replaced = self._states.get(app)
        new = self._new_dispatcher
        state = _AppState(app, self.name, self._prefix, kind, new)
        self._states[app] = self._last_state = state
        self._last_app = app
        app.extensions[self.name + "executor"] = self
        if replaced is not None:
            replaced.here().retire()

    @t.overload
    def job(self, fn: t.Callable[P, T], /) -> ExecutorJob[P, T]: ...

    @t.overload
    def job(
        self, /, **options: t.Unpack[JobOptions]
    ) -> t.Callable[[t.Callable[P, T]], ExecutorJob[P, T]]: ...

    def job(self, fn: t.Any = _UNSAID, /, **options: t.Any) -> t.Any:
        """Declare a job: a function with ``submit``, ``submit_stored`` and ``map``.

        With options, as in ``@executor.job(priority=5)``, they count for each of its
        tasks, unless the call says otherwise. It works before :meth:`init_app`, too.

        :raises NotCallable: a :exc:`TypeError`.
        :raises CallNotPicklable: where the type is ``'process'`` or ``'pebble'`` and
            the function is not at the top level of its module.
        :raises UnknownOption: a :exc:`TypeError`.
        :raises InvalidOption: a :exc:`ValueError`.
        :raises UnsupportedOption: a :exc:`ValueError`, where the pool cannot honour
            one; at submit, where the app is not known yet.
        """
        if fn is _UNSAID:
            return lambda fn: self._declare(fn, options)
        return self._declare(fn, options)

    def _declare(self, fn: t.Any, options: Given) -> ExecutorJob[..., t.Any]:
        if not callable(fn):
            raise NotCallable(fn)
        state = self._known_state()
        if state is not None:
            state.check_job(fn)
        return ExecutorJob(self, fn, self._checked(options, fn))

    def check_call(self, options: Given, fn: t.Any = None) -> Given:
        """The options of a call, checked, as they count.

        :param fn: what is called, where that is known.

        :raises UnsupportedOption: for what the pool cannot honour, or only a job.
        """
        if "max_concurrency" in options:
            raise UnsupportedOption(
                "max_concurrency",
                "one call",
                "it counts the tasks of a job: @executor.job(max_concurrency=2)",
            )
        return self._checked(options, fn)

    def _checked(self, options: Given, fn: t.Any) -> Given:
        given = checked(options)
        state = self._known_state()
        if given and state is not None:
            state.refuse_unsupported(given, fn)
        return given

    def add_default_done_callback(self, fn: Callback) -> None:
        """Call ``fn(future)`` at the end of every call submitted from now on, in a
        copy of its submitter's context, on the thread that ended it.
        """
        self._default_done_callbacks.append(fn)

    @property
    def futures(self) -> FutureCollection:
        """The stored futures of the current app, by key."""
        replaced: FutureCollection | None = vars(self).get("futures")
        return self._state().futures if replaced is None else replaced

    @futures.setter
    def futures(self, futures: FutureCollection) -> None:
        # A plain attribute in 1.0.0: people replace it, and patch it in tests.
        vars(self)["futures"] = futures

    @futures.deleter
    def futures(self) -> None:
        vars(self).pop("futures", None)

    def drain(self, timeout: float | None = None) -> Drained:
        """Accept nothing more for the current app, and give its tasks the time to end.

        What is not due yet is cancelled at once, what has not begun when the time is
        over is cancelled then; the log says what became of each. Leaving the process
        does the same, as on SIGTERM under gunicorn.

        :param timeout: seconds; None is ``EXECUTOR_DRAIN_TIMEOUT``, and where that is
            None as long as it takes.
        :return: what finished, what was cancelled, and what still runs.
        :raises WaitsForItself: a :exc:`RuntimeError`, from within a task.
        """
        dispatcher = self._state().dispatcher
        if timeout is None:
            timeout = dispatcher.settings.drain_timeout
        return dispatcher.drain(timeout)

    def shutdown(self, wait: bool = True, *, cancel_futures: bool = False) -> None:
        """Accept nothing more for the current app, as
        :meth:`concurrent.futures.Executor.shutdown`.

        :param wait: return only when all that was accepted has run.
        :param cancel_futures: cancel what has not started.
        """
        if self._last_app is not None:
            self._state().shutdown(wait, cancel_futures)

    @property
    def _desk(self) -> Executor:
        return self

    def _accept(
        self,
        given: Given,
        fn: t.Callable[..., t.Any],
        args: t.Sequence[t.Any],
        kwargs: dict[str, t.Any],
        *,
        key: t.Any = NoKey,
        job: ExecutorJob[..., t.Any] | None = None,
    ) -> TaskFuture[t.Any]:
        state = self._known_state() or self._state()
        dispatcher = state.dispatcher
        if type(fn) is ExecutorJob:
            # Of all its views, only the job that was declared pickles by its name.
            job, fn = fn, fn.declared
        options = dispatcher.defaults
        if given or job is not None:
            options = dispatcher.options_of(job, given)
            key = options.key if key is NoKey else key
            job = None if job is None else job.declared
        app = t.cast(Flask, state.app())
        future: TaskFuture[t.Any] = TaskFuture(app, None if key is NoKey else key)
        call = Call(fn, args, kwargs)
        task = dispatcher.register(future, call, options)
        try:
            if key is not NoKey:
                self.futures.add(key, future)
            _take_context(dispatcher, app, call)
            callbacks = self._default_done_callbacks
            if dispatcher.settings.propagate_exceptions:
                callbacks = [*callbacks, propagate_exceptions_callback]
            dispatcher.submit(task, callbacks, job=job)
        except BaseException:
            if key is not NoKey:
                self.futures.discard(key, future)
            dispatcher.withdraw(task)
            raise
        return future

    def _state(self) -> _AppState:
        state = self._known_state()
        if state is None:
            raise ExecutorNotInitialized(current_app() or self._last_app)
        return state

    def _known_state(self) -> _AppState | None:
        app = current_app() or self._last_app
        if app is self._last_app:  # most often, and quicker than to look it up
            state = self._last_state
        else:
            state = self._states.get(t.cast(Flask, app))
        return None if state is None else state.here()

    @property
    def _self(self) -> t.Any:
        """The pool under the executor."""
        return self._state().dispatcher.pool

    @property
    def __class__(self) -> type:
        """The standard library's class whose API the pool has, for ``isinstance``."""
        try:
            kind = self._state().kind
        except (AttributeError, ExecutorNotInitialized):
            return type(self)
        return _POOL_CLASSES.get(kind, type(self))

    @__class__.setter
    def __class__(self, value: type) -> None:
        raise TypeError(f"the class of an executor cannot be set to {value!r}")

    def __getattr__(self, name: str) -> t.Any:
        # What the executor itself does not have, the pool under it may.
        if name.startswith("__") or "_states" not in self.__dict__:
            raise AttributeError(name)
        if self._known_state() is None:
            raise AttributeError(f"{name!r}: {ExecutorNotInitialized(current_app())}")
        return getattr(self._self, name)

    def __dir__(self) -> t.Iterable[str]:
        # Not those of __class__, which dir() would ask.
        return {*dir(type(self)), *vars(self)}

    def __repr__(self) -> str:
        app = current_app() or self._last_app
        return f"<Executor {self.name!r} of {app!r}>"


class ExecutorView(Submitting):
    """An executor whose tasks have certain options; see :meth:`.Executor.using`."""

    def __init__(self, executor: Executor, options: Given) -> None:
        self.executor = executor
        """The executor of which this is a view."""
        self.options = options
        """What was given, as it counts."""

    @property
    def _desk(self) -> Executor:
        return self.executor

    @property
    def futures(self) -> FutureCollection:
        """The stored futures of the current app, by key."""
        return self.executor.futures

    def shutdown(self, wait: bool = True, *, cancel_futures: bool = False) -> None:
        """Shut the executor down: a view has no pool of its own."""
        self.executor.shutdown(wait, cancel_futures=cancel_futures)

    def __repr__(self) -> str:
        return f"<ExecutorView of {self.executor!r} with {self.options!r}>"


def _check_name(name: object) -> None:
    if not (isinstance(name, str) and re.fullmatch(r"[A-Za-z0-9_]*", name)):
        raise InvalidName(name)


def _take_context(dispatcher: Dispatcher, app: Flask, call: Call) -> None:
    """Take what a call is to see, now."""
    if dispatcher.pool.runs_in_caller and current_app() is not None:
        return
    call.snapshot = Snapshot.take(app, copy_g=dispatcher.g_carried)
    if call.args or call.kwargs:
        call.args, call.kwargs = keep_uploads(call.args), keep_uploads(call.kwargs)


class _AppState:
    """What one executor keeps for one app: settings, futures and a dispatcher, each
    made at first use.
    """

    def __init__(
        self, app: Flask, name: str, prefix: str, kind: str, new: _NewDispatcher
    ) -> None:
        self.app = weakref.ref(app)
        self.kind = kind
        self.new_dispatcher = new
        # Here and not at first use, beside which a server may fork: the lock of a
        # module that is being imported stays locked in the child.
        pool_module(kind)
        self._name = name
        self._prefix = prefix
        self._pid = os.getpid()
        self._in_children: dict[int, _AppState] = {}
        self._lock = threading.RLock()
        self._settings: Settings | None = None
        self._futures: FutureCollection | None = None
        self._dispatcher: Dispatcher | None = None

    def here(self) -> _AppState:
        """The state of this process: itself, or in a forked child one that starts anew,
        since the threads of a pool do not outlive a fork, and a lock may be held in it.

        Told by the process, for not every server that forks lets Python know (uWSGI).
        """
        pid = os.getpid()
        if pid == self._pid:
            return self
        found = self._in_children.get(pid)
        # Of two threads that make one, both get the first.
        return found or self._in_children.setdefault(pid, self._made_anew())

    def _made_anew(self) -> _AppState:
        app = t.cast(Flask, self.app())
        new = self.new_dispatcher
        return _AppState(app, self._name, self._prefix, self.kind, new)

    @property
    def settings(self) -> Settings:
        """What the config says, read at first use."""
        with self._lock:
            if self._settings is None:
                self._settings = self._read_settings()
            return self._settings

    @property
    def futures(self) -> FutureCollection:
        """The stored futures."""
        with self._lock:
            if self._futures is None:
                self._futures = FutureCollection(
                    self.settings.futures_max_length,
                    ttl=self.settings.futures_ttl,
                    app=self.app(),
                )
            return self._futures

    @property
    def dispatcher(self) -> Dispatcher:
        """The dispatcher, and with it the pool."""
        return self._dispatcher or self._make_dispatcher()

    def _make_dispatcher(self) -> Dispatcher:
        with self._lock:
            if self._dispatcher is None:
                self._dispatcher = self.new_dispatcher(
                    self.settings, self._thread_name(), t.cast(Flask, self.app())
                )
            return self._dispatcher

    def check_job(self, fn: t.Any) -> None:
        """Refuse a job that no worker of this app's pool could import."""
        if self.kind in ("process", "pebble") and not is_coroutine_function(fn):
            pool_module(self.kind).POOL.check_declared(fn)

    def refuse_unsupported(self, given: Given, fn: t.Any) -> None:
        """Refuse options that this app's pool cannot honour for that callable."""
        if fn is None:  # a coroutine function may come
            kinds = [self.kind, "loop"]
        else:
            kinds = ["loop" if is_coroutine_function(fn) else self.kind]
        options = Options().overlaid(given)
        refusals = [unsupported(options, pool_module(kind).POOL) for kind in kinds]
        if refusals[0] is not None and all(refusals):
            raise refusals[0]

    def shutdown(self, wait: bool, cancel_futures: bool) -> None:
        """Accept nothing more."""
        self.dispatcher.shutdown(wait, cancel_futures)

    def retire(self) -> None:
        """Accept nothing more, where anything was accepted."""
        if self._dispatcher is not None:
            self._dispatcher.shutdown(wait=False, cancel_futures=False)

    def _read_settings(self) -> Settings:
        app = t.cast(Flask, self.app())
        settings = Settings.read(app.config, self._prefix)
        if settings.type == self.kind:
            return settings
        key = config_key(self._prefix, "type")
        app.logger.warning(
            "%s was changed to %r after init_app; it stays %r. Set it before, or call"
            " init_app again.",
            key,
            settings.type,
            self.kind,
        )
        return Settings.read({**app.config, key: self.kind}, self._prefix)

    def _thread_name(self) -> str:
        return f"{self._name}-executor" if self._name else "executor"


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
    """Yield what chunks hold, dropping each; it can be closed as a map's can."""
    for chunk in chunks:
        chunk.reverse()
        while chunk:
            yield chunk.pop()
