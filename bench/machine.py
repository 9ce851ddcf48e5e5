"""What the figures were measured on."""

from __future__ import annotations

import os
import platform
import typing as t
from importlib.metadata import version
from pathlib import Path


def facts(**others: object) -> dict[str, str]:
    """The size of this machine and what runs on it, for the pages that show figures.

    :param others: what else is to be told.
    """
    told = {
        "Python": platform.python_version(),
        "Flask": version("flask"),
        "cores": os.cpu_count(),
        "RAM": _memory(),
        **others,
    }
    return {name: str(value) for name, value in told.items() if value is not None}


def resident() -> int | None:
    """Bytes of memory that this process holds; None where the system does not say."""
    try:
        pages = int(Path("/proc/self/statm").read_text().split()[1])
    except OSError:
        return None
    return pages * os.sysconf("SC_PAGE_SIZE")


def _memory() -> str | None:
    names: t.Any = getattr(os, "sysconf_names", {})
    if "SC_PHYS_PAGES" not in names:  # Windows
        return None
    size = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    return f"{size / 2**30:.0f} GiB"
