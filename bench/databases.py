"""The databases that the rows of the store are measured on, synced as they are used."""

from __future__ import annotations

import atexit
import contextlib
import os
import pwd
import shutil
import signal
import socket
import subprocess
import tempfile
import time
import typing as t
from pathlib import Path

PARENTS = {
    "sqlite": Path(__file__).resolve().parent.parent / ".bench",
    "postgresql": Path("/var/tmp"),
}
"""Where the databases lie: not where /tmp lies in memory, where nothing is synced."""
_closing = contextlib.ExitStack()
atexit.register(_closing.close)


def url_of(kind: str) -> str:
    """The URL of a new, empty database, which goes with this process."""
    return _sqlite() if kind == "sqlite" else _postgresql()


def is_there(kind: str) -> bool:
    """Return True if that database can be started on this machine."""
    return kind == "sqlite" or _binaries() is not None


def new_folder(kind: str) -> Path:
    """A folder on the disk of such a database, which goes with this process."""
    PARENTS[kind].mkdir(exist_ok=True)
    folder = Path(tempfile.mkdtemp(dir=PARENTS[kind]))
    _closing.callback(shutil.rmtree, folder, ignore_errors=True)
    return folder


def close() -> None:
    """Stop and remove them all now."""
    _closing.close()


def _sqlite() -> str:
    return f"sqlite:///{new_folder('sqlite')}/tasks.db"


def _binaries() -> Path | None:
    found = sorted(Path("/usr/lib/postgresql").glob("*/bin"))
    return found[-1] if found else None


def _postgresql() -> str:
    binaries = _binaries()
    if binaries is None:
        raise SystemExit("PostgreSQL is not installed")
    folder = new_folder("postgresql")
    options: dict[str, t.Any] = {"cwd": "/", "stdout": subprocess.DEVNULL}
    if os.geteuid() == 0:  # which it refuses
        user = pwd.getpwnam("postgres")
        os.chown(folder, user.pw_uid, user.pw_gid)
        options |= {"user": user.pw_uid, "group": user.pw_gid, "extra_groups": []}
    data, port = folder / "data", _free_port()
    words = ["-D", data, "-A", "trust", "-U", "postgres", "-E", "UTF8"]
    subprocess.run([binaries / "initdb", *words], check=True, **options)
    settings = [f"port={port}", "listen_addresses=127.0.0.1"]
    settings.append("unix_socket_directories=")
    server = subprocess.Popen(
        [binaries / "postgres", "-D", data, *(w for s in settings for w in ("-c", s))],
        stderr=subprocess.DEVNULL,
        **options,
    )
    _closing.callback(server.wait)
    _closing.callback(server.send_signal, signal.SIGQUIT)
    _wait_for(port)
    return f"postgresql+psycopg://postgres@127.0.0.1:{port}/postgres"


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def _wait_for(port: int) -> None:
    import psycopg

    while True:
        try:
            psycopg.connect(
                f"host=127.0.0.1 port={port} user=postgres dbname=postgres"
            ).close()
            return
        except psycopg.OperationalError:
            time.sleep(0.05)
