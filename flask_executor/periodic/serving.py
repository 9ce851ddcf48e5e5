"""Which processes run periodic jobs: those that serve."""

from __future__ import annotations

import multiprocessing
import os
import sys

from flask import Flask


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

    werkzeug imports that module when it does so, in both processes.
    """
    is_child = os.environ.get("WERKZEUG_RUN_MAIN") == "true"
    return "werkzeug._reloader" in sys.modules and not is_child
