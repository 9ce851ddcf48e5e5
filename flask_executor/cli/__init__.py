"""The commands ``flask executor ...``.

This package is loaded for each command of ``flask``. So the commands are imported when
they are called, and the store where that is needed.
"""

from __future__ import annotations

import importlib
import typing as t

import click

_MODULES = {
    "status": "watching",
    "top": "watching",
    "health": "watching",
    "list": "looking",
    "show": "looking",
    "why": "looking",
    "cancel": "changing",
    "retry": "changing",
    "run": "jobs",
    "pause": "jobs",
    "resume": "jobs",
    "stacks": "processes",
    "worker": "running",
    "drain": "processes",
    "purge": "tables",
    "store": "tables",
}
"""In which module each command is; ``--help`` has them in this order."""


class _Commands(click.Group):
    """Commands that are imported when they are called, or for their help."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        """Return the names of the commands."""
        return [*_MODULES]

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """Return a command, or None."""
        if cmd_name not in _MODULES:
            return None
        name = f"{__name__}.{_MODULES[cmd_name]}"
        commands: t.Any = importlib.import_module(name).COMMANDS
        return t.cast(click.Command, commands[cmd_name])


@click.group("executor", cls=_Commands)
def executor() -> None:
    """See and change the tasks of Flask-Executor, and run saved ones.

    \b
    Exit codes: 0 done, 1 no, 2 wrong usage, 3 not found, 4 the store is away,
    5 a conflict: the task has ended, or its key is taken.
    """
