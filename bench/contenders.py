"""What is measured, and on which side: the process that ``run.py`` starts for each.

``python contenders.py MEASURE SIDE`` makes ready, says so, and then measures one round
for each line that it reads, and prints the figure: seconds for each call, or bytes.
"""

from __future__ import annotations

import gc
import sys

import table_contract  # noqa: F401 - these enter their measures
import table_options  # noqa: F401
import table_peers  # noqa: F401
import table_store  # noqa: F401
import table_surfaces  # noqa: F401
from sides import MEASURES

COLD = ("later", "later_memory")
"""Measures whose rounds are so long that they need no round to warm up."""


def contend(name: str, side: str) -> None:
    """A line in, a round, its figure out."""
    measured = MEASURES[name](side)
    if name not in COLD:
        measured()
    print("ready", flush=True)
    for _ in sys.stdin:
        gc.collect()
        print(measured(), flush=True)


if __name__ == "__main__":
    contend(*sys.argv[1:])
