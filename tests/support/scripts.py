"""Other interpreters that tests start."""

from __future__ import annotations

import os
from pathlib import Path

SUPPORT = Path(__file__).parent
ROOT = SUPPORT.parent.parent
PYTHONPATH = os.pathsep.join((str(SUPPORT), str(ROOT)))


def environment(**extra: str) -> dict[str, str]:
    """This process's environment; the package and what lies here can be imported."""
    return {**os.environ, "PYTHONPATH": PYTHONPATH, **extra}
