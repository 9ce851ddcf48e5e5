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

from .context import Snapshot, current_app, keep_uploads
from .dispatch import Dispatcher, is_coroutine_function
from .errors import ExecutorNotInitialized, InvalidName, NotCallable
from .futures import Callback, FutureCollection, TaskFuture
from .jobs import ExecutorJob as ExecutorJob
from .pools import pool_module
from .settings import Settings, config_key, read_key
from .worker import Call, Chunk, CoroutineChunk

P = t.ParamSpec("P")
T = t.TypeVar("T")

_POOL_CLASSES: dict[str, type[concurrent.futures.Executor]] = {
    "thread": ThreadPoolExecutor,
    "process": ProcessPoolExecutor,
}


def propagate_exceptions_callback(future: Future[t.Any]) -> None:
    """Raise what a task raised; a default done-callback where
    ``EXECUTOR_PROPAGATE_EXCEPTIONS`` is true.
    """
    if not future.cancelled() and (error := future.exception()) is not None:
        raise error


class Executor(concurrent.futures.Executor):
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
        self._states[app] = _AppState(app, self.name, self._prefix, kind)
        self._last_app = app
        app.extensions[self.name + "executor"] = self
        if replaced is not None:
            replaced.here().retire()

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
        :raises werkzeug.exceptions.HTTPException: where the request's body, which
            nobody has read yet, is too large or was broken off.
        """
        dispatcher = self._state().dispatcher
        return self._submit(dispatcher, TaskFuture(dispatcher.app), fn, args, kwargs)

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
        dispatcher = self._state().dispatcher
        future: TaskFuture[t.Any] = TaskFuture(dispatcher.app, future_key)
        self.futures.add(future_key, future)
        try:
            return self._submit(dispatcher, future, fn, args, kwargs)
        except BaseException:
            self.futures.discard(future_key, future)
            raise

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
        :raises ValueError: for a chunksize below 1.
        """
        if chunksize < 1:
            raise ValueError(f"chunksize must be >= 1, not {chunksize!r}.")
        deadline = None if timeout is None else time.monotonic() + timeout
        calls = zip(*iterables, strict=False)
        if chunksize == 1:
            return _results(self._submit_all(fn, calls), deadline)
        chunks = iter(lambda: list(itertools.islice(calls, chunksize)), [])
        run = CoroutineChunk(fn) if is_coroutine_function(fn) else Chunk(fn)
        futures = self._submit_all(run, ((chunk,) for chunk in chunks))
        return _one_by_one(_results(futures, deadline))

    def job(self, fn: t.Callable[P, T]) -> ExecutorJob[P, T]:
        """Declare a job: a function with ``submit``, ``submit_stored`` and ``map``.

        It works before :meth:`init_app`, too.

        :raises NotCallable: a :exc:`TypeError`.
        :raises CallNotPicklable: where the type is ``'process'`` and the function is
            not at the top level of its module.
        """
        if not callable(fn):
            raise NotCallable(fn)
        state = self._known_state()
        if state is not None:
            state.check_job(fn)
        return ExecutorJob(self, fn)

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

    def shutdown(self, wait: bool = True, *, cancel_futures: bool = False) -> None:
        """Accept nothing more for the current app, as
        :meth:`concurrent.futures.Executor.shutdown`.

        :param wait: return only when all that was accepted has run.
        :param cancel_futures: cancel what has not started.
        """
        if self._last_app is not None:
            self._state().shutdown(wait, cancel_futures)

    def _submit(
        self,
        dispatcher: Dispatcher,
        future: TaskFuture[t.Any],
        fn: t.Callable[..., t.Any],
        args: t.Sequence[t.Any],
        kwargs: dict[str, t.Any],
    ) -> TaskFuture[t.Any]:
        call = _with_context(dispatcher, future.app, fn, args, kwargs)
        dispatcher.submit(future, call, self._callbacks(dispatcher.settings))
        return future

    def _submit_all(
        self, fn: t.Callable[..., t.Any], calls: t.Iterable[t.Sequence[t.Any]]
    ) -> list[TaskFuture[t.Any]]:
        dispatcher = self._state().dispatcher
        return [
            self._submit(dispatcher, TaskFuture(dispatcher.app), fn, args, {})
            for args in calls
        ]

    def _callbacks(self, settings: Settings) -> list[Callback]:
        if settings.propagate_exceptions:
            return [*self._default_done_callbacks, propagate_exceptions_callback]
        return self._default_done_callbacks

    def _state(self) -> _AppState:
        state = self._known_state()
        if state is None:
            raise ExecutorNotInitialized(current_app() or self._last_app)
        return state

    def _known_state(self) -> _AppState | None:
        app = current_app() or self._last_app
        state = None if app is None else self._states.get(app)
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


def _check_name(name: object) -> None:
    if not (isinstance(name, str) and re.fullmatch(r"[A-Za-z0-9_]*", name)):
        raise InvalidName(name)


def _with_context(
    dispatcher: Dispatcher,
    app: Flask,
    fn: t.Any,
    args: t.Sequence[t.Any],
    kwargs: dict[str, t.Any],
) -> Call:
    """A call with what it is to see, taken now."""
    if dispatcher.pool.runs_in_caller and current_app() is not None:
        return Call(fn, args, kwargs, None)
    snapshot = Snapshot.take(app, copy_g=dispatcher.settings.g_carried)
    if args or kwargs:
        args, kwargs = keep_uploads(args), keep_uploads(kwargs)
    return Call(fn, args, kwargs, snapshot)


class _AppState:
    """What one executor keeps for one app: settings, futures and a dispatcher, each
    made at first use.
    """

    def __init__(self, app: Flask, name: str, prefix: str, kind: str) -> None:
        self.app = weakref.ref(app)
        self.kind = kind
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
        return _AppState(app, self._name, self._prefix, self.kind)

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
                self._dispatcher = Dispatcher(
                    self.settings, self._thread_name(), t.cast(Flask, self.app())
                )
            return self._dispatcher

    def check_job(self, fn: t.Any) -> None:
        """Refuse a job that no worker of this app's pool could import."""
        if self.kind == "process" and not is_coroutine_function(fn):
            from .pools._parcels import check_declared

            check_declared(fn)

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
