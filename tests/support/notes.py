"""Lines that an app tells its test through a named pipe, ``SERVER_NOTES``."""

from __future__ import annotations

import os


def note(*words: object) -> None:
    """Tell the test, with the process that says so.

    A short line, which the system never mixes with another's.
    """
    text = " ".join(map(str, (*words, os.getpid())))
    fd = os.open(os.environ["SERVER_NOTES"], os.O_WRONLY)
    try:
        os.write(fd, f"{text}\n".encode())
    finally:
        os.close(fd)
