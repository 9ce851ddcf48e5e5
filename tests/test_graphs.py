"""Random graphs of tasks that wait for each other, in every way there is."""

from __future__ import annotations

import sys
import typing as t

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from limits import LIMIT

from bench.graphs import Graph


@pytest.fixture
def hasty() -> t.Iterator[None]:
    """Let Python switch between threads as often as it can."""
    before = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    yield
    sys.setswitchinterval(before)


@pytest.mark.usefixtures("hasty")
@settings(
    derandomize=True,
    database=None,
    deadline=None,
    max_examples=400,
    suppress_health_check=[*HealthCheck],
)
@given(seed=st.integers(0, 2**32), size=st.integers(2, 30))
def test_every_task_of_a_graph_ends(seed: int, size: int) -> None:
    """Every task ends, no limit is exceeded, and nothing stays in the table."""
    assert Graph(seed, size).run(LIMIT) == []
