"""Kills the workers of a soak while they work."""

from __future__ import annotations

import os
import random
import signal
import threading
import typing as t

from ledger import Ledger

KILLS = 4
"""How many workers are killed from outside in each tenth."""


class Killer:
    """Kills workers from outside while a tenth runs.

    :param workers: what tells the processes that may be killed.
    """

    def __init__(
        self, chance: random.Random, workers: t.Callable[[], list[int]], ledger: Ledger
    ) -> None:
        self._chance = chance
        self._workers = workers
        self._ledger = ledger
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._serve, daemon=True)

    def __enter__(self) -> None:
        self._thread.start()

    def __exit__(self, *exc: object) -> None:
        self._over.set()
        self._thread.join()

    def _serve(self) -> None:
        for _ in range(KILLS):
            if self._over.wait(self._chance.uniform(0.5, 2)):
                return
            if there := self._workers():
                self._kill(self._chance.choice(there))

    def _kill(self, pid: int) -> None:
        try:
            os.kill(pid, signal.SIGKILL)
        except ProcessLookupError:
            return
        self._ledger.count("killed")
