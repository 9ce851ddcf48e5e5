"""The servers that are killed, and those who visit them."""

from __future__ import annotations

import contextlib
import http.client
import os
import random
import signal
import subprocess
import sys
import threading
import time
import typing as t
import urllib.error
import urllib.request
from pathlib import Path

from scripts import free_port

HERE = Path(__file__).parent
ROOT = HERE.parents[1]
LEASE = 2.0
"""Seconds after which a process counts as dead."""


class Site:
    """Gunicorn with four workers, and two dedicated ones, on one store.

    :param url: the store.
    :param folder: where the effects of tasks are noted.
    """

    def __init__(self, url: str, folder: Path) -> None:
        self.url = url
        self.port = free_port()
        self.effects = folder / "effects"
        self.effects.touch()
        self._env = os.environ | {
            "CRASH_STORE": url,
            "CRASH_EFFECTS": str(self.effects),
            "CRASH_LEASE": str(LEASE),
            "PYTHONPATH": os.pathsep.join([str(ROOT), str(HERE)]),
        }
        self.log = folder / "log"
        self._log = open(self.log, "ab")  # noqa: SIM115
        self.server: subprocess.Popen[bytes] | None = None
        self.workers: list[subprocess.Popen[bytes]] = []

    def start(self, workers: int = 2) -> None:
        """Start the server, and the dedicated workers that are not there."""
        words = ["-w", "4", "-b", f"127.0.0.1:{self.port}", "--threads", "4"]
        command = [sys.executable, "-m", "gunicorn", *words, "crash_app:app"]
        self.server = self._start(command)
        self.workers += [self.new_worker() for _ in range(workers)]
        self.wait_until_it_answers()

    def new_worker(self) -> subprocess.Popen[bytes]:
        """Start a dedicated worker."""
        words = ["--app", "crash_app:app", "executor", "worker"]
        return self._start([sys.executable, "-m", "flask", *words])

    def _start(self, command: list[str]) -> subprocess.Popen[bytes]:
        return subprocess.Popen(
            command, env=self._env, stdout=self._log, stderr=self._log, cwd=HERE
        )

    def wait_until_it_answers(self) -> None:
        deadline = time.monotonic() + 60
        while self.ask("GET", "/state/none") is None:
            assert time.monotonic() < deadline, "the server does not answer"
            time.sleep(0.05)

    def ask(self, method: str, path: str) -> str | None:
        """Return the answer; None if there was none."""
        url = f"http://127.0.0.1:{self.port}{path}"
        asked = urllib.request.Request(url, method=method)
        try:
            with urllib.request.urlopen(asked, timeout=15) as answer:
                return t.cast(str, answer.read().decode())
        except urllib.error.HTTPError as error:
            error.close()
        except (http.client.HTTPException, OSError, ValueError):
            pass
        return None

    def processes(self) -> list[int]:
        """Return the processes that run tasks."""
        assert self.server is not None
        path = Path(f"/proc/{self.server.pid}/task/{self.server.pid}/children")
        with contextlib.suppress(OSError):
            forked = [int(pid) for pid in path.read_text().split()]
            alive = [one.pid for one in self.workers if one.poll() is None]
            return forked + alive
        return []

    def replace_the_dead(self) -> None:
        """Start again what a supervisor would."""
        dead = [one for one in self.workers if one.poll() is not None]
        self.workers = [one for one in self.workers if one.poll() is None]
        self.workers += [self.new_worker() for _ in dead]
        if self.server is not None and self.server.poll() is not None:
            self.start(workers=0)

    def kill_server(self) -> None:
        """Kill the arbiter; its workers notice, and end."""
        assert self.server is not None
        children = self.processes()
        self.server.kill()
        self.server.wait()
        for pid in children:
            if pid not in [one.pid for one in self.workers]:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)

    def stop(self) -> None:
        """Stop everything."""
        if self.server is not None and self.server.poll() is None:
            self.kill_server()
        for one in self.workers:
            one.kill()
            one.wait()
        self._log.close()


class Visitors:
    """Submits tasks all the time, and remembers which were accepted."""

    def __init__(self, site: Site) -> None:
        self._site = site
        self._ended = threading.Event()
        self._number = 0
        self.accepted: dict[str, tuple[str, str]] = {}
        """The job and the key of each task that was accepted, by its id."""
        self._threads = [threading.Thread(target=self._visit) for _ in range(3)]
        self._lock = threading.Lock()

    def __enter__(self) -> None:
        for thread in self._threads:
            thread.start()

    def __exit__(self, *_: object) -> None:
        self._ended.set()
        for thread in self._threads:
            thread.join()

    def _visit(self) -> None:
        rng = random.Random()
        while not self._ended.is_set():
            with self._lock:
                self._number += 1
                key = f"k{self._number}"
            job = rng.choice(["again", "again", "once", "brief"])
            seconds = rng.choice([0, 0, 0.01, 0.2])
            path = f"/submit/{job}?key={key}&s={seconds}"
            uid = self._site.ask("POST", path)
            if uid:
                self.accepted[uid] = job, key
            time.sleep(0.01)
