"""What is done to the servers: processes die or freeze, the database goes away."""

from __future__ import annotations

import contextlib
import os
import random
import resource
import signal
import time
import typing as t
from collections import Counter
from collections.abc import Iterator

from crash_site import LEASE, Site
from databases import Server


class Chaos:
    """Strikes a site.

    :param database: a PostgreSQL that is restarted; None: SQLite, whose disk is full
        at times.
    """

    def __init__(self, site: Site, seed: int, database: Server | None) -> None:
        self._site = site
        self._random = random.Random(seed)
        self._database = database
        self.done: Counter[str] = Counter()

    def strike(self, kills: int) -> None:
        """Kill so many processes, and do other bad things in between."""
        tens = -(-kills // 10)
        disaster = self.fill_disk if self._database is None else self.restart_database
        strikes = [self.kill] * kills + [self.kill_arbiter] * tens
        strikes += [self.freeze] * 2 * tens + [disaster] * 2 * tens
        self._random.shuffle(strikes)
        for one in strikes:
            self.done[one.__name__] += 1
            one()
            self._site.replace_the_dead()

    def kill(self) -> None:
        """Kill one process."""
        with self._one_of(self._site.processes()) as pid:
            os.kill(pid, signal.SIGKILL)
        time.sleep(self._random.uniform(0.1, 0.6))

    def kill_arbiter(self) -> None:
        """Kill the server with all its workers."""
        self._site.kill_server()

    def freeze(self) -> None:
        """Stop a process until others have declared it dead, and let it go on."""
        with self._one_of(self._site.processes()) as pid:
            os.kill(pid, signal.SIGSTOP)
            time.sleep(LEASE + 2)
            os.kill(pid, signal.SIGCONT)

    def restart_database(self) -> None:
        """Stop PostgreSQL at once, as ``pg_ctl stop -m immediate``, and start it."""
        database = t.cast(Server, self._database)
        database.stop()
        time.sleep(0.3)
        database.start()

    def fill_disk(self) -> None:
        """Let the files of all processes grow no more, for a while."""
        notes = [self._site.effects, self._site.log]
        limit = max(file.stat().st_size for file in notes) + 50_000
        self._limit_files(limit)
        time.sleep(2)
        self._limit_files(resource.RLIM_INFINITY)

    def _limit_files(self, size: int) -> None:
        for pid in self._site.processes():
            with contextlib.suppress(ProcessLookupError):
                resource.prlimit(
                    pid, resource.RLIMIT_FSIZE, (size, resource.RLIM_INFINITY)
                )

    @contextlib.contextmanager
    def _one_of(self, processes: list[int]) -> Iterator[int]:
        """Choose a process; it may be gone at any moment."""
        with contextlib.suppress(ProcessLookupError):
            yield self._random.choice(processes)
