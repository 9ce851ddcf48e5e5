"""Functions that a worker of pebble imports: they wait, crash, and tell how far they
are.
"""

from __future__ import annotations

import os
import signal
import socket
import typing as t
from pathlib import Path

from flask_executor import current_task


def pid() -> int:
    return os.getpid()


def wait_at(port: int) -> bytes:
    """Tell who listens there which process this is, and wait for a byte."""
    with socket.create_connection(("127.0.0.1", port), 30) as connection:
        connection.sendall(f"{os.getpid()}\n".encode())
        return connection.recv(1)


def stubborn(port: int) -> bytes:
    """The same, deaf to SIGTERM."""
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    return wait_at(port)


def crash(code: int) -> None:
    """Leave without a word; below 0 by that signal."""
    if code < 0:
        os.kill(os.getpid(), -code)
    os._exit(code)


def crash_until(path: str, attempts: int) -> int:
    """Be killed in the first attempts, which a file counts."""
    with open(path, "a") as file:
        file.write("x")
    if len(Path(path).read_text()) < attempts:
        crash(-signal.SIGKILL)
    return t.cast(int, current_task.attempt)


def wait_once(port: int, path: str) -> bool:
    """Wait in the first attempt; whether that one's process has ended by the next."""
    if current_task.attempt == 1:
        Path(path).write_text(str(os.getpid()))
        wait_at(port)
    try:
        os.kill(int(Path(path).read_text()), 0)
    except ProcessLookupError:
        return True
    return False


def report_and_wait(port: int) -> tuple[t.Any, ...]:
    """Report once, wait, and report to the end."""
    current_task.progress(1, 4, "x" * 5000)
    wait_at(port)
    for done in range(2, 5):
        current_task.progress(done, 4)
    return current_task.id, current_task.name, current_task.key, current_task.attempt


def report_for_ever(port: int) -> None:
    """Report as fast as it goes."""
    with socket.create_connection(("127.0.0.1", port), 30) as connection:
        connection.sendall(f"{os.getpid()}\n".encode())
    while True:
        # Of another interval each report would be passed on.
        current_task.progress(99, 100, "z" * 900)


def note(path: str, text: str) -> None:
    with open(path, "a") as file:
        file.write(text + "\n")
