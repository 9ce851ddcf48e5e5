"""The pytest fixture ``executor_tasks``; the only module here that needs pytest."""

from __future__ import annotations

import typing as t

import pytest

from ..errors import ExecutorNotInitialized
from ..executor import Executor
from .captured import CapturedTasks, capture

if t.TYPE_CHECKING:
    from flask import Flask


@pytest.fixture
def executor_tasks(app: Flask) -> t.Iterator[CapturedTasks]:
    """Capture the tasks of a test; a pytest fixture.

    It calls :func:`capture` with all executors of the app that the fixture ``app``
    returns. A test that leaves tasks behind ends with an error. Import it where pytest
    looks for fixtures, for example in ``conftest.py``.
    """
    executors = [one for one in app.extensions.values() if isinstance(one, Executor)]
    if not executors:
        raise ExecutorNotInitialized(app)
    with capture(*executors) as tasks:
        yield tasks
