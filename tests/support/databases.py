"""The databases of the store's tests: files of SQLite, and a real PostgreSQL."""

from __future__ import annotations

import contextlib
import os
import pwd
import shutil
import signal
import subprocess
import tempfile
import time
import typing as t
from pathlib import Path

import psycopg
import pytest
from limits import LIMIT
from scripts import free_port

FAST = {
    "fsync": "off",
    "shared_buffers": "16MB",
    "deadlock_timeout": "50ms",
    "max_connections": "60",
}
INSTALL = (
    "PostgreSQL is not installed, so half of the tests of the store cannot run: install"
    " it, as with 'apt-get install postgresql'"
)


def postgresql_folder() -> Path:
    """Return the folder of initdb and postgres; skip the test if there is none."""
    found = [*Path("/usr/lib/postgresql").glob("*/bin/initdb")]
    if which := shutil.which("initdb"):
        found.append(Path(which))
    if found:
        return max(found).resolve().parent
    if os.environ.get("CI") == "true":
        pytest.fail(INSTALL)
    pytest.skip(INSTALL)


class Server:
    """A PostgreSQL of its own, in a temporary folder, which can be stopped."""

    def __init__(self) -> None:
        self._bin = postgresql_folder()
        self._folder = Path(tempfile.mkdtemp(prefix="postgresql-"))
        self.port = free_port()
        self._options: dict[str, t.Any] = {"cwd": "/", "stdin": subprocess.DEVNULL}
        if os.geteuid() == 0:  # which it refuses
            user = pwd.getpwnam("postgres")
            os.chown(self._folder, user.pw_uid, user.pw_gid)
            self._options |= {"user": user.pw_uid, "group": user.pw_gid}
            self._options["extra_groups"] = []
        words = ["-D", self._data, "-A", "trust", "-U", "postgres", "-E", "UTF8"]
        done = subprocess.run(
            [self._bin / "initdb", *words, "--no-sync", "--no-locale"],
            capture_output=True,
            timeout=2 * LIMIT,
            **self._options,
        )
        assert done.returncode == 0, done.stderr
        self.start()

    @property
    def _data(self) -> Path:
        return self._folder / "data"

    @property
    def url(self) -> str:
        return f"postgresql+psycopg://postgres@127.0.0.1:{self.port}/postgres"

    def start(self) -> None:
        """Start it, and return when it answers."""
        options = {"port": self.port, "listen_addresses": "127.0.0.1"} | FAST
        options["unix_socket_directories"] = ""
        words = [word for k, v in options.items() for word in ("-c", f"{k}={v}")]
        with open(self._folder / "log", "ab") as log:
            self._process = subprocess.Popen(
                [self._bin / "postgres", "-D", self._data, *words],
                stdout=log,
                stderr=log,
                **self._options,
            )
        deadline = time.monotonic() + LIMIT
        while True:
            try:
                self.connect().close()
                return
            except psycopg.OperationalError:
                assert time.monotonic() < deadline
                assert self._process.poll() is None
                time.sleep(0.02)

    def connect(self) -> psycopg.Connection:
        """Return a connection of its own, which commits each statement."""
        words = f"host=127.0.0.1 port={self.port} user=postgres dbname=postgres"
        return psycopg.connect(words, autocommit=True)

    def stop(self, how: signal.Signals = signal.SIGQUIT) -> None:
        """Stop it: by default at once, as ``pg_ctl stop -m immediate``."""
        self._process.send_signal(how)
        self._process.wait(LIMIT)

    def remove(self) -> None:
        with contextlib.suppress(ProcessLookupError):
            self.stop()
        shutil.rmtree(self._folder, ignore_errors=True)
