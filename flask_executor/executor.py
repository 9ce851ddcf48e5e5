"""The executor: what users hold.

It finds the app and its state, merges the options of a call, and returns futures. How
calls run, and what their outcomes mean, is decided elsewhere.
"""

from __future__ import annotations

import os
import re
import typing as t
import weakref

from flask import Flask
from werkzeug.local import LocalProxy

from .accepting import accept
from .attached import Attached
from .contexts import current_app
from .declaring import HasJobs
from .dispatch import Dispatcher, Drained
from .errors import ExecutorNotInitialized, InvalidName
from .futures import Callback, FutureCollection, TaskFuture
from .groups import Group
from .job_names import JobNames
from .jobs import ExecutorJob as ExecutorJob
from .options import Given, NoKey, TaskOptions
from .periodic import HasPeriodicJobs, Planning
from .serving import Serving
from .state import AppState, NewDispatcher
from .state import propagate_exceptions_callback as propagate_exceptions_callback
from .submitter import Submitter
from .verbs import HasTasks

_NOTHING: Given = {}


class Executor(HasJobs, HasPeriodicJobs, HasTasks):
    """Run calls in the background, each with a copy of the context it came from.

    It is a :class:`concurrent.futures.Executor`, and looks like the pool under it:
    ``isinstance(executor, ThreadPoolExecutor)`` is true if its type is ``'thread'``.

    :param app: the app to initialize, or None to call :meth:`init_app` later.
    :param name: tells several executors of one app apart. It stands in front of the
        config keys, in upper case and with an underscore.
    :raises InvalidName: a :exc:`ValueError`, if the name holds anything except letters,
        digits and underscores.
    """

    def __init__(self, app: Flask | None = None, name: str = "") -> None:
        _check_name(name)
        self.name = name
        self._default_done_callbacks: list[Callback] = []
        self._planning: Planning = Planning(self)
        self._states: weakref.WeakKeyDictionary[Flask, AppState] = (
            weakref.WeakKeyDictionary()
        )
        self._attached: Attached = Attached(self._states)
        self._attached.add(self._planning.dispatcher_made)
        self._serving: Serving = Serving(self)
        self._last_app: Flask | None = None
        self._last_state: AppState | None = None
        self._job_names = JobNames()
        # flask_executor.testing replaces it.
        self._new_dispatcher: NewDispatcher = Dispatcher
        if app is not None:
            self.init_app(app)

    def init_app(self, app: Flask) -> None:
        """Make the executor work for an app.

        If it is called again for the same app, the executor starts again: the old pool
        is shut down, and the tasks that it had accepted still run.

        :raises InvalidSetting: a :exc:`ValueError`, if ``EXECUTOR_TYPE`` names no pool,
            or ``EXECUTOR_PERIODIC`` is wrong. Other keys are read at first use.
        """
        if issubclass(type(app), LocalProxy):  # people pass current_app, in a view
            app = t.cast(t.Any, app)._get_current_object()
        made = self._attached.made
        names = self._job_names
        state = AppState.of(app, self.name, self._new_dispatcher, made, names)
        replaced = self._states.get(app)
        self._states[app] = self._last_state = state
        self._last_app = app
        app.extensions[self.name + "executor"] = self
        self._planning.init_app(app)
        self._serving.init_app(app)
        if replaced is not None:
            replaced.here().retire()

    def using(self, **options: t.Unpack[TaskOptions]) -> ExecutorView:
        """Return a view of the executor whose tasks have these options.

        The view is a :class:`concurrent.futures.Executor` itself, immutable and cheap,
        and can be used wherever one can. A view of a view has the options of both. They
        count more than a job's own options.

        :raises UnknownOption: a :exc:`TypeError`, if an option does not exist.
        :raises InvalidOption: a :exc:`ValueError`, if a value is not allowed.
        :raises UnsupportedOption: a :exc:`ValueError`, if the pool does not support an
            option; at submit, if the app is not known yet.
        """
        return ExecutorView(self, self.check_call(options))

    def group(self, name: str = "") -> Group:
        """Make a group: many tasks, one handle; see :class:`.Group`.

        :param name: a name for people.
        """
        return Group(self, name)

    def add_default_done_callback(self, fn: Callback) -> None:
        """Call ``fn(future)`` at the end of every call submitted from now on.

        It runs in a copy of the context that submitted the call, on the thread that
        ended it.
        """
        self._default_done_callbacks.append(fn)

    @property
    def futures(self) -> FutureCollection:
        """The stored futures of the current app, by key."""
        replaced: FutureCollection | None = vars(self).get("futures")
        return self._state().futures if replaced is None else replaced

    @futures.setter
    def futures(self, futures: FutureCollection) -> None:
        # It was a plain attribute in 1.0.0: people replace it, and patch it in tests.
        vars(self)["futures"] = futures

    @futures.deleter
    def futures(self) -> None:
        vars(self).pop("futures", None)

    def drain(self, timeout: float | None = None) -> Drained:
        """Accept nothing more for the current app, and give its tasks time to end.

        Tasks that are not due yet are cancelled at once. Tasks that have not begun when
        the time is over are cancelled then. The log says what happened to each. This
        also happens when the process ends, for example on SIGTERM under gunicorn.

        :param timeout: seconds; None is ``EXECUTOR_DRAIN_TIMEOUT``, and if that is None
            too, there is no limit.
        :return: what finished, what was cancelled, and what still runs.
        :raises WaitsForItself: a :exc:`RuntimeError`, if a task calls it.
        """
        dispatcher = self._state().dispatcher
        if timeout is None:
            timeout = dispatcher.settings.drain_timeout
        return dispatcher.drain(timeout)

    def shutdown(self, wait: bool = True, *, cancel_futures: bool = False) -> None:
        """Accept nothing more for the current app.

        See :meth:`concurrent.futures.Executor.shutdown`.

        :param wait: return only when everything that was accepted has run.
        :param cancel_futures: cancel what has not started.
        """
        if self._last_app is not None:
            self._state().shutdown(wait, cancel_futures)

    @property
    def _executor(self) -> Executor:
        return self

    def _submit(
        self,
        fn: t.Any,
        args: tuple[t.Any, ...],
        kwargs: dict[str, t.Any],
        key: t.Any = NoKey,
    ) -> TaskFuture[t.Any]:
        # A copy of _accept: calling it would make each submit slower.
        if key is not NoKey and self._submit_is_overridden():
            return self._send(_NOTHING, fn, args, kwargs, key)
        if self._overrides is not None and (found := self._overrides.take()):
            return found.accept(self, fn, args, kwargs)
        state = self._known_state() or self._state()
        return accept(state, self, _NOTHING, fn, args, kwargs, key)

    def _accept(self, *call: t.Any, **more: t.Any) -> TaskFuture[t.Any]:
        return accept(self._known_state() or self._state(), self, *call, **more)

    def _state(self) -> AppState:
        state = self._known_state()
        if state is None:
            raise ExecutorNotInitialized(self._app_here())
        return state

    def _known_state(self) -> AppState | None:
        app = current_app() or self._last_app
        if app is self._last_app:  # the usual case, and faster than a look-up
            state = self._last_state
        else:
            state = self._states.get(t.cast(Flask, app))
        if state is None or state.pid == os.getpid():
            return state
        return state.here()  # a forked child

    def _app_here(self) -> Flask | None:
        return current_app() or self._last_app

    @property
    def _self(self) -> t.Any:
        """The pool under the executor."""
        return self._state().dispatcher.pool

    @property
    def __class__(self) -> type:
        """The standard library's class whose API the pool has, for ``isinstance``."""
        try:
            found = self._state().pool_class.stdlib_class
        except (AttributeError, ExecutorNotInitialized):
            return type(self)
        return found or type(self)

    @__class__.setter
    def __class__(self, value: type) -> None:
        raise TypeError(f"the class of an executor cannot be set to {value!r}")

    def __getattr__(self, name: str) -> t.Any:
        # What the executor itself does not have, its pool may have.
        if name.startswith("__") or "_states" not in self.__dict__:
            raise AttributeError(name)
        if self._known_state() is None:
            raise AttributeError(f"{name!r}: {ExecutorNotInitialized(current_app())}")
        return getattr(self._self, name)

    def __dir__(self) -> t.Iterable[str]:
        # dir() would list the attributes of __class__, which is another class.
        return {*dir(type(self)), *vars(self)}

    def __repr__(self) -> str:
        app = self._app_here()
        return f"<Executor {self.name!r} of {app!r}>"


class ExecutorView(Submitter):
    """An executor whose tasks have certain options; see :meth:`.Executor.using`."""

    def __init__(self, executor: Executor, options: Given) -> None:
        self.executor = executor
        """The executor of which this is a view."""
        self.options = options
        """The options of all its tasks, checked."""

    def using(self, **options: t.Unpack[TaskOptions]) -> ExecutorView:
        """Return a view with these options added; see :meth:`.Executor.using`."""
        given = self.executor.check_call(options)
        return ExecutorView(self.executor, {**self.options, **given})

    def group(self, name: str = "") -> Group:
        """Make a group whose tasks have these options; see :class:`.Group`."""
        return Group(self, name)

    def check_call(self, options: Given, fn: t.Any = None) -> Given:
        """Check the options of a call; see :meth:`.Executor.using`."""
        return self.executor.check_call(options, fn)

    def _submit(
        self,
        fn: t.Any,
        args: tuple[t.Any, ...],
        kwargs: dict[str, t.Any],
        key: t.Any = NoKey,
    ) -> TaskFuture[t.Any]:
        return self.executor._send(self.options, fn, args, kwargs, key)

    def _app_here(self) -> Flask | None:
        return self.executor._app_here()

    @property
    def _executor(self) -> Executor:
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
