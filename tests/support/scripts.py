"""Other interpreters that tests start."""

from __future__ import annotations

import configparser
import os
import socket
import subprocess
import sys
import typing as t
from contextlib import contextmanager
from multiprocessing import spawn
from pathlib import Path

import pytest
from limits import LIMIT

SUPPORT = Path(__file__).parent
ROOT = SUPPORT.parent.parent
PYTHONPATH = os.pathsep.join((str(SUPPORT), str(ROOT)))


_COVERAGE = "COVERAGE_PROCESS_CONFIG"
_coverage: dict[str, str] = {}


def measure_only_what_asks() -> None:
    """Measure no other interpreter unless its test asks: that takes as much CPU time as
    what most of them do.
    """
    if config := os.environ.pop(_COVERAGE, None):
        _coverage[_COVERAGE] = config


@contextmanager
def workers_not_measured() -> t.Iterator[None]:
    """Measure no worker process that starts meanwhile: for work that computes, and is
    not ours. That takes twice as long if it is measured.
    """
    prepare = spawn.get_preparation_data

    def prepare_without_coverage(name: str) -> dict[str, t.Any]:
        prepared = prepare(name)
        prepared.pop("stowaway", None)  # by which coverage starts there
        return prepared

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(spawn, "get_preparation_data", prepare_without_coverage)
        yield


def environment(*, measured: bool = False, **extra: str) -> dict[str, str]:
    """This process's environment; the package and what lies here can be imported.

    :param measured: for what runs nowhere but in a process of its own.
    """
    coverage = _coverage if measured else {}
    return {**os.environ, **coverage, "PYTHONPATH": PYTHONPATH, **extra}


def commands(folder: Path) -> Path:
    """Write down the commands of the package, as an installation does it; return the
    folder that is to be in the path.
    """
    config = configparser.ConfigParser()
    config.read(ROOT / "setup.cfg")
    lines = config["options.entry_points"]["flask.commands"]
    info = folder / "commands" / "flask_executor_commands-1.dist-info"
    info.mkdir(parents=True, exist_ok=True)
    (info / "METADATA").write_text("Name: flask-executor-commands\nVersion: 1\n")
    (info / "entry_points.txt").write_text(f"[flask.commands]\n{lines.strip()}\n")
    return info.parent


def problems(errors: str) -> str:
    """What a script has said on its standard error, without that it waits for tasks:
    they may have ended by then, or not.
    """
    lines = errors.splitlines(keepends=True)
    return "".join(line for line in lines if " to finish: " not in line)


def run_code(code: str) -> subprocess.CompletedProcess[str]:
    """Run code in another interpreter, and return what it has said."""
    return subprocess.run(
        [sys.executable, "-c", code],
        env=environment(),
        capture_output=True,
        text=True,
        timeout=LIMIT,
    )


def cannot_at_exit(what: str) -> pytest.MarkDecorator:
    """Skip where Python itself cannot do that while the interpreter ends, as 3.12.1
    cannot (CPython's issue 113964).
    """
    probe = f"import os, threading; threading._register_atexit(lambda: {what})"
    done = subprocess.run([sys.executable, "-c", probe], capture_output=True)
    return pytest.mark.skipif(b"RuntimeError" in done.stderr, reason="Python cannot")


def free_port() -> int:
    """Return a port of this machine on which nobody listens."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        return int(listener.getsockname()[1])
