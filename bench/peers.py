"""Peers in folders of their own under ``.bench/``.

Some have our import name, and task queues on a database bring much with them.
"""

from __future__ import annotations

import io
import os
import subprocess
import sys
import tarfile
import tempfile
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
FOLDER = ROOT / ".bench"
ONE = FOLDER / "flask-executor-1"
"""Flask-Executor 1.0.0."""
BEFORE_COMMIT = "41a002e"
BEFORE = FOLDER / f"before-{BEFORE_COMMIT}"
"""This package as it was before the middle was rebuilt."""

RIVALS = {
    "procrastinate": ("procrastinate>=3.10", "psycopg[binary]>=3.1"),
    "django-tasks-db": ("django-tasks-db>=0.13", "django-tasks>=0.12"),
    "huey-sqlite": ("huey>=2.5",),
}
"""What is installed for each queue that has a venv of its own, by its side."""


def command_of(measure: str, side: str) -> list[str]:
    """The command that measures one side."""
    scripts = Path(__file__).parent
    if side in RIVALS:
        python = FOLDER / side / "bin" / "python"
        return [str(python), str(scripts / "rivals.py"), measure, side]
    return [sys.executable, str(scripts / "contenders.py"), measure, side]


def install_rivals() -> None:
    """The queues of others, each in a venv."""
    for name, packages in RIVALS.items():
        folder = FOLDER / name
        if (folder / "installed").exists():
            continue
        subprocess.run([sys.executable, "-m", "venv", str(folder)], check=True)
        install = [str(folder / "bin" / "python"), "-m", "pip", "install", "--quiet"]
        subprocess.run([*install, *packages], check=True)
        (folder / "installed").touch()


def folder_of(side: str) -> Path:
    """Where a contender finds the ``flask_executor`` that it measures."""
    return {"one": ONE, "before": BEFORE}.get(side, ROOT)


def install_one() -> None:
    """Flask-Executor 1.0.0, from PyPI."""
    if not ONE.exists():
        command = [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps"]
        subprocess.run(
            [*command, "--target", str(ONE), "Flask-Executor==1.0.0"], check=True
        )


def unpack_before() -> str | None:
    """The package as it was, from this repository's history; why not, if so."""
    if BEFORE.exists():
        return None
    command = ["git", "archive", "--format=tar", BEFORE_COMMIT, "flask_executor"]
    try:
        done = subprocess.run(command, cwd=ROOT, capture_output=True, check=True)
    except FileNotFoundError:
        return "there is no git"
    except subprocess.CalledProcessError as error:
        return f"commit {BEFORE_COMMIT}: {error.stderr.decode().strip()}"
    FOLDER.mkdir(exist_ok=True)
    # Whole or not at all.
    with tempfile.TemporaryDirectory(dir=FOLDER) as folder:
        with tarfile.open(fileobj=io.BytesIO(done.stdout)) as archive:
            archive.extractall(folder, filter="data")
        os.chmod(folder, 0o755)
        Path(folder).rename(BEFORE)
        Path(folder).mkdir()  # which the block takes away
    return None
