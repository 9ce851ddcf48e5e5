"""Which processes run saved tasks of others: those that serve requests.

Nothing here imports the store. Without ``EXECUTOR_STORE``, this ends with the first
request.
"""

from __future__ import annotations

import logging
import os
import sys
import typing as t
import weakref

import click
from flask import Flask

from .app_config import has_store
from .contexts import at_each_request
from .log import Log
from .settings import prefix_of


class Serving:
    """Lets the processes that serve an app run its saved tasks.

    :param executor: the executor; its states say for which apps.
    """

    def __init__(self, executor: t.Any) -> None:
        self._executor = executor
        # No lock here: it might be held for ever in a forked child.
        self._done: weakref.WeakSet[t.Any] = weakref.WeakSet()
        # Receivers of signals are referred to weakly.
        self._receivers: weakref.WeakKeyDictionary[Flask, object] = (
            weakref.WeakKeyDictionary()
        )

    def init_app(self, app: Flask) -> None:
        """Wait for the first request of an app."""
        if app not in self._receivers:
            self._receivers[app] = at_each_request(app, self._serves)

    def _serves(self, app: Flask, environ: t.Mapping[str, t.Any]) -> None:
        """Run saved tasks in a process that serves; called for each request."""
        state = self._executor._states.get(app)
        state = None if state is None else state.here()
        if state is None or state in self._done:
            return
        try:
            if not has_store(app, prefix_of(self._executor.name)):
                self._receivers.pop(app, None)
            elif not (app.testing or _is_by_hand()):
                self._done.add(state)
                state.serve()
        except Exception as error:  # it is not the fault of this request
            self._done.add(state)
            message = "Process %s runs no saved tasks of others"
            Log(app).write(logging.ERROR, message, os.getpid(), error=error)


def _is_by_hand() -> bool:
    """Return True if somebody makes requests by hand, as in a shell or a command.

    ``flask run`` is a command, too, but its requests come on threads of the server, or
    while it is the command that runs.
    """
    if hasattr(sys, "ps1"):  # an interactive Python, and flask shell
        return True
    command = click.get_current_context(silent=True)
    return command is not None and command.info_name != "run"
