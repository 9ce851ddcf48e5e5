"""The state of one executor for one app: settings, futures and a dispatcher."""

from __future__ import annotations

import os
import threading
import typing as t
import weakref

from flask import Flask

from .app_config import (
    has_store,
    kind_of,
    read_settings,
    refuse_unsupported,
    show_defaults,
)
from .app_config import propagate_exceptions_callback as propagate_exceptions_callback
from .calls import is_coroutine_function
from .dispatch import Dispatcher
from .futures import FutureCollection
from .options import Given
from .pools import CoroutinePool, pool_module
from .settings import Settings, prefix_of

NewDispatcher = t.Callable[[Settings, str, Flask], Dispatcher]


class AppState:
    """The state of one executor for one app; each part is made at first use.

    :param name: the name of the executor.
    :param prefix: the prefix of its config keys.
    :param kind: the pool that the type names.
    :param new: makes a dispatcher.
    :param made: is told of each dispatcher that was made.
    :param job_names: finds the jobs of saved tasks.
    """

    def __init__(
        self,
        app: Flask,
        name: str,
        prefix: str,
        kind: str,
        new: NewDispatcher,
        made: t.Callable[[Dispatcher], object],
        job_names: t.Any,
    ) -> None:
        self.app: weakref.ref[Flask] = weakref.ref(app)
        """The app, or None if it was deleted."""
        self.kind = kind
        """Which pool runs calls."""
        self.new_dispatcher = new
        """Makes the dispatcher."""
        self._made = made
        self._job_names = job_names
        # Here and not at first use: a server may fork at that moment, and in the child
        # the lock of a module that is being imported would stay locked.
        self.pool_class: t.Any = pool_module(kind).POOL
        """The class of the pool."""
        self._name = name
        self._prefix = prefix
        self.pid: int = os.getpid()
        """The process that this is for."""
        self._in_children: dict[int, AppState] = {}
        self._lock = threading.RLock()
        self._settings: Settings | None = None
        self._futures: FutureCollection | None = None
        self.ready: Dispatcher | None = None
        """The dispatcher, if it is made already."""

    @classmethod
    def of(
        cls,
        app: Flask,
        name: str,
        new: NewDispatcher,
        made: t.Callable[[Dispatcher], object],
        job_names: t.Any,
    ) -> AppState:
        """Make the state of an executor for an app, and put all defaults in its config.

        :raises InvalidSetting: if there is no such ``EXECUTOR_TYPE``; every other key
            is read at first use.
        """
        prefix = prefix_of(name)
        kind = kind_of(app.config, prefix)
        show_defaults(app.config, prefix)
        return cls(app, name, prefix, kind, new, made, job_names)

    def here(self) -> AppState:
        """Return the state of this process: itself, or a new one in a forked child.

        The threads of a pool do not survive a fork, and locks may stay locked in it.
        The process id is compared, because not every server tells Python that it forks
        (uWSGI does not).
        """
        pid = os.getpid()
        if pid == self.pid:
            return self
        found = self._in_children.get(pid)
        # Of two threads that make one, both get the first.
        return found or self._in_children.setdefault(pid, self._made_anew())

    def _made_anew(self) -> AppState:
        app = t.cast(Flask, self.app())
        facts = self._name, self._prefix, self.kind, self.new_dispatcher
        return AppState(app, *facts, self._made, self._job_names)

    @property
    def settings(self) -> Settings:
        """The settings, read from the config at first use."""
        with self._lock:
            if self._settings is None:
                app = t.cast(Flask, self.app())
                self._settings = read_settings(app, self._prefix, self.kind)
            return self._settings

    @property
    def futures(self) -> FutureCollection:
        """The stored futures."""
        if (made := self._futures) is not None:
            return made
        with self._lock:
            if self._futures is None:
                self._futures = self._new_futures()
            return self._futures

    def _new_futures(self) -> FutureCollection:
        length, ttl = self.settings.futures_max_length, self.settings.futures_ttl
        if self.settings.store is None:
            return FutureCollection(length, ttl=ttl, app=self.app())
        node = self.dispatcher.node
        return t.cast(FutureCollection, node.new_futures(length, ttl))

    @property
    def dispatcher(self) -> Dispatcher:
        """The dispatcher, and with it the pool."""
        return self.ready or self._make_dispatcher()

    def _make_dispatcher(self) -> Dispatcher:
        with self._lock:
            if self.ready is not None:
                return self.ready
            app, name = t.cast(Flask, self.app()), self._thread_name()
            made = self.new_dispatcher(self.settings, name, app)
            if self.settings.store is not None:
                made.node = self._new_node(made, name)
            self.ready = made
        # Not under the lock: it may import modules of the app.
        self._made(made)
        return made

    def serve(self) -> None:
        """Run saved tasks of all processes in this one, which serves requests."""
        self.dispatcher.node.serve()

    def _new_node(self, dispatcher: Dispatcher, name: str) -> t.Any:
        """Return what ties a dispatcher to the store that the config names."""
        from .sharing import new_node

        make = dispatcher.make_node or new_node
        return make(dispatcher, self._job_names, name, self._name)

    def check_job(self, fn: t.Any) -> None:
        """Refuse a job that no worker of this app's pool could import."""
        self._pool_class_for(fn).check_declared(fn)

    def refuse_unsupported(self, given: Given, fn: t.Any) -> None:
        """Refuse options that this app's pool cannot honour for that callable."""
        if fn is None:  # a coroutine function may come
            pools = [self.pool_class, CoroutinePool]
        else:
            pools = [self._pool_class_for(fn)]
        # The settings are read at first use, and to declare a job is no use.
        stores = has_store(t.cast(Flask, self.app()), self._prefix)
        refuse_unsupported(given, pools, stores=stores)

    def _pool_class_for(self, fn: t.Any) -> t.Any:
        if is_coroutine_function(fn):
            return CoroutinePool
        return self.pool_class

    def shutdown(self, wait: bool, cancel_futures: bool) -> None:
        """Accept nothing more."""
        self.dispatcher.shutdown(wait, cancel_futures)

    def retire(self) -> None:
        """Accept nothing more, if anything was accepted."""
        if self.ready is not None:
            self.ready.shutdown(wait=False, cancel_futures=False)

    def _thread_name(self) -> str:
        return f"{self._name}-executor" if self._name else "executor"
