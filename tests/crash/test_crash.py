"""Tasks survive what is promised that they survive: real servers, really killed."""

from __future__ import annotations

import pytest
from harness import run


@pytest.mark.parametrize("kind", ["sqlite", "postgresql"])
def test_nothing_is_lost_or_repeated(kind: str) -> None:
    """While processes are killed and stopped at random, no accepted task that runs at
    least once is lost, none that runs at most once runs twice, each end is written once
    and by the newest claim, each tick has one task, and all processes say the same of
    each key. The server dies, too, and the database restarts or its disk is full.
    """
    result = run(kind, kills=2, seed=7)
    assert not result["faults"], (result["faults"], result["done"], result["log"])
    assert result["accepted"] > 20
