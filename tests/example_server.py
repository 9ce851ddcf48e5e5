"""The example as a server process, which tests start, ask and end."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import tempfile
import threading
import typing as t
import urllib.parse
import urllib.request
from contextlib import contextmanager
from http.cookiejar import CookieJar
from pathlib import Path

from limits import LIMIT

SCRIPT = Path(__file__).parent.parent / "example_app.py"
FOLDER = tempfile.TemporaryDirectory()
# Before the example is imported: the tests leave nothing in its instance folder.
os.environ["EXAMPLE_FOLDER"] = FOLDER.name


class Server:
    """A server process, what it has written, and a visitor with cookies.

    It has a folder of its own, unless ``EXAMPLE_FOLDER`` is given.
    """

    def __init__(self, *command: str, **env: str) -> None:
        self._folder = tempfile.TemporaryDirectory()
        env = {"EXAMPLE_FOLDER": self._folder.name, **env}
        self.folder = Path(env["EXAMPLE_FOLDER"])
        self.process = subprocess.Popen(
            [sys.executable, *command],
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            cwd=SCRIPT.parent,
            env={**os.environ, "PYTHONUNBUFFERED": "1", **env},
            start_new_session=True,
        )
        self.lines: list[str] = []
        self.url = ""
        self._begun = threading.Event()
        self._reader = threading.Thread(target=self._read)
        self._reader.start()
        cookies = urllib.request.HTTPCookieProcessor(CookieJar())
        self._visitor = urllib.request.build_opener(cookies)

    def _read(self) -> None:
        for line in t.cast(t.IO[str], self.process.stdout):
            self.lines.append(line)
            if found := re.search(r"http://127\.0\.0\.1:\d+", line):
                self.url = self.url or found[0]
                self._begun.set()
        self._begun.set()

    def wait(self) -> None:
        assert self._begun.wait(LIMIT)
        assert self.url, self.lines

    def ask(self, path: str, **form: str) -> t.Any:
        data = urllib.parse.urlencode(form).encode() if form else None
        request = urllib.request.Request(
            self.url + path, data, {"Accept": "application/json"}
        )
        with self._visitor.open(request, timeout=LIMIT) as answer:
            return answer.read().decode()

    def interrupt(self) -> int:
        """As Ctrl-C does: the whole group of processes gets the signal."""
        os.killpg(self.process.pid, signal.SIGINT)
        status = self.process.wait(LIMIT)
        self._reader.join(LIMIT)
        return status

    def kill(self) -> None:
        self.process.kill()
        self.process.wait(LIMIT)
        self._reader.join(LIMIT)
        t.cast(t.IO[str], self.process.stdout).close()
        self._folder.cleanup()


@contextmanager
def server(*command: str, **env: str) -> t.Iterator[Server]:
    server = Server(*command, **env)
    try:
        server.wait()
        yield server
    finally:
        server.kill()
