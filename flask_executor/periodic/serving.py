"""Which processes run periodic jobs: those that serve."""

from __future__ import annotations

import multiprocessing
import os
import sys
import threading
import typing as t

from flask import Flask

from ..dispatch.events import stack_of

_WAITS_FOR_CHILD = "restart_with_reloader"


def may_start_at_submit(app: Flask) -> bool:
    """Return True if the first submit starts periodic jobs in this process.

    Not in a test, in a command of ``flask`` (``flask run`` starts them with its first
    request), in an interactive Python, or in a worker process.
    """
    return not (
        app.testing
        or os.environ.get("FLASK_RUN_FROM_CLI") == "true"
        or hasattr(sys, "ps1")
        or multiprocessing.parent_process() is not None
    )


def is_reloader_parent() -> bool:
    """Return True in the process that only starts the server again when code changes.

    Its main thread stands in werkzeug's reloader and waits for the child. The module
    alone says nothing: it is also imported in the child, and maybe elsewhere.
    """
    if "werkzeug._reloader" not in sys.modules:
        return False
    if os.environ.get("WERKZEUG_RUN_MAIN") == "true":
        return False
    main = t.cast(int, threading.main_thread().ident)
    # Not the name alone: the lines of this function may be in that text.
    return f", in {_WAITS_FOR_CHILD}" in stack_of(main)
