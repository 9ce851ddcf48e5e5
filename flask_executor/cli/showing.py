"""What commands print: texts that a terminal can show, or one JSON object per line."""

from __future__ import annotations

import dataclasses
import json
import os
import sys
import typing as t
from datetime import UTC, datetime

import click

from ..current import Progress

_COLOURS = {
    "succeeded": "green",
    "running": "cyan",
    "failed": "red",
    "timed_out": "red",
    "interrupted": "red",
    "retrying": "yellow",
    "cancelled": "bright_black",
}


class Out:
    """The output of a command.

    :param as_json: True if a program reads it.
    """

    def __init__(self, as_json: bool) -> None:
        self.as_json: bool = as_json
        self.is_terminal: bool = sys.stdout.isatty()

    def tell(self, facts: t.Mapping[str, t.Any], *lines: str) -> None:
        """Print facts as JSON, or else lines for people."""
        if self.as_json:
            # ASCII: nothing in it can control a terminal.
            click.echo(json.dumps(_plain(facts)))
        else:
            self.print(*lines)

    def print(self, *lines: str) -> None:
        """Print lines whose parts are escaped already, unless a program reads."""
        for line in () if self.as_json else lines:
            click.echo(line)

    def state(self, state: str, width: int = 0) -> str:
        """Return the name of a state, in its colour if there are colours."""
        text = state.ljust(width)
        colour = _COLOURS.get(state)
        if colour is None or not self._has_colours:
            return text
        return click.style(text, fg=colour)

    @property
    def _has_colours(self) -> bool:
        is_plain = os.environ.get("NO_COLOR") or os.environ.get("TERM") == "dumb"
        return self.is_terminal and not is_plain

    def table(self, head: t.Sequence[str], rows: t.Sequence[t.Sequence[str]]) -> None:
        """Print a table for people; a column that is called ``state`` is coloured."""
        cells = [[escaped(cell) for cell in row] for row in rows]
        widths = [max(map(len, column)) for column in zip(head, *cells, strict=True)]
        self.print(_joined(word.ljust(w) for word, w in zip(head, widths, strict=True)))
        for row in cells:
            shown = [
                self.state(cell, width) if name == "state" else cell.ljust(width)
                for name, cell, width in zip(head, row, widths, strict=True)
            ]
            self.print(_joined(shown))


def _joined(cells: t.Iterable[str]) -> str:
    return "  ".join(cells).rstrip()


def escaped(value: object, keep: str = "") -> str:
    """Return a text in which nothing controls a terminal.

    Names, keys, errors and ``meta`` may come from people who mean no good: what does
    not print, such as an escape, a line break or a mark that turns the direction of
    writing, is shown as in a Python string.

    :param keep: characters that stay.
    """
    return "".join(
        one
        if one.isprintable() or one in keep
        else one.encode("unicode_escape").decode()
        for one in str(value)
    )


def indented(text: str) -> list[str]:
    """Return the lines of a long text, to be printed below something."""
    return [f"    {escaped(line)}" for line in text.rstrip("\n").split("\n")]


def facts_of(record: t.Any) -> dict[str, t.Any]:
    """Return a record as facts."""
    names = [field.name for field in dataclasses.fields(record)]
    return {name: getattr(record, name) for name in names}


def ago(moment: datetime | None) -> str:
    """Return how long ago something was."""
    if moment is None:
        return ""
    seconds = (datetime.now(UTC) - moment).total_seconds()
    return duration(abs(seconds))


def duration(seconds: float) -> str:
    """Return some seconds for people: ``3.2s``, ``41s``, ``12m``, ``7h``, ``3d``."""
    for unit, length in (("d", 86_400), ("h", 3600), ("m", 60)):
        if seconds >= 2 * length:
            return f"{seconds / length:.0f}{unit}"
    return f"{seconds:.1f}s" if seconds < 10 else f"{seconds:.0f}s"


def number(count: int, what: str, ending: str = "s") -> str:
    """Return a number of things: ``1 task``, ``7 tasks``."""
    return f"{count} {what}" if count == 1 else f"{count} {what}{ending}"


def _plain(value: t.Any) -> t.Any:
    """Return a value that JSON has."""
    if isinstance(value, datetime):
        return value.astimezone(UTC).isoformat().replace("+00:00", "Z")
    if isinstance(value, Progress):
        return value._asdict()
    if isinstance(value, t.Mapping):
        return {str(name): _plain(one) for name, one in value.items()}
    if isinstance(value, list | tuple | set | frozenset):
        return [_plain(one) for one in value]
    is_plain = value is None or type(value) in (str, int, float, bool)
    return value if is_plain else str(value)
