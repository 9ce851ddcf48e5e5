"""The pytest fixtures; the only module here that needs pytest."""

from __future__ import annotations

import typing as t

import pytest

from ..dispatch.shutdown import dispatchers_here
from ..errors import ExecutorNotInitialized
from ..executor import Executor
from .captured import CapturedTasks, capture

if t.TYPE_CHECKING:
    from pathlib import Path

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


@pytest.fixture
def executor_store(tmp_path: Path) -> t.Iterator[str]:
    """Return the URL of an empty store, an SQLite file; a pytest fixture.

    Give it to an app as ``EXECUTOR_STORE``. Each app that has it is one process for the
    store. When the test ends, these apps end as processes do: what waits is cancelled,
    what runs is waited for, and no thread is left.
    """
    url = f"sqlite:///{tmp_path / 'executor.db'}"
    yield url
    for one in dispatchers_here():
        if one.settings.store == url:
            one.shutdown(wait=False, cancel_futures=True)
            one.leave()
