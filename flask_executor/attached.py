"""What comes with each dispatcher of an executor: periodic jobs, and surfaces."""

from __future__ import annotations

import os
import typing as t
import weakref

from .dispatch import Dispatcher

Attach = t.Callable[[Dispatcher], object]


class Attached:
    """Functions that are called with each dispatcher of an executor, once.

    :param states: what the executor keeps for its apps.
    """

    def __init__(self, states: t.Mapping[t.Any, t.Any]) -> None:
        self._states = states
        self._fns: list[
            tuple[Attach, weakref.WeakKeyDictionary[Dispatcher, object]]
        ] = []

    def add(self, fn: Attach) -> None:
        """Call a function with each dispatcher: those there are, and later ones.

        Each app has one dispatcher in each process. A forked child makes its own.
        """
        # First, so that no dispatcher that is made meanwhile is missed.
        self._fns.append((fn, weakref.WeakKeyDictionary()))
        for state in [*self._states.values()]:
            if state.pid == os.getpid() and state.ready is not None:
                self.made(state.ready)

    def made(self, dispatcher: Dispatcher) -> None:
        """Call all functions with a dispatcher that is new."""
        for fn, known in self._fns:
            me = object()
            # Of two threads that come with it at once, the first one calls.
            if known.setdefault(dispatcher, me) is me:
                fn(dispatcher)
