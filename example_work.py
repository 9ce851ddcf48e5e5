"""The work that the example does in the background: plain Python.

The only thing here that is not is ``current_task``, for progress and cancelling.
"""

from __future__ import annotations

import cmath
import csv
import functools
import io
import itertools
import math
import struct
import typing as t
from zlib import compress, crc32

from flask_executor import current_task

# Summaries.


class Column:
    """What is known of one column so far: a few numbers, however long the column is."""

    BINS = 24

    def __init__(self, name: str) -> None:
        self.name = name
        self.count = 0
        self.total = 0.0
        self.low = math.inf
        self.high = -math.inf
        self._counts = [0] * self.BINS
        self._start = self._width = 0.0

    def add(self, cell: str) -> None:
        """Take in a cell; one that is not a number does not count."""
        number = number_in(cell)
        if number is None:
            return
        self.count += 1
        self.total += number
        self.low = min(self.low, number)
        self.high = max(self.high, number)
        place = self._bin_of(number)  # first: it may make other bins
        self._counts[place] += 1

    def summary(self) -> dict[str, t.Any]:
        """Return the figures, and the chart: how many values are in each range."""
        used = [i for i, count in enumerate(self._counts) if count]
        return {
            "name": self.name,
            "count": self.count,
            "mean": self.total / self.count,
            "min": self.low,
            "max": self.high,
            "chart": self._counts[used[0] : used[-1] + 1],
        }

    def _bin_of(self, number: float) -> int:
        if self.count == 1:
            self._start = number
            self._width = max(abs(number), 1.0) * 1e-9
        while not 0 <= (number - self._start) / self._width < self.BINS:
            self._widen(down=number < self._start)
        return int((number - self._start) / self._width)

    def _widen(self, *, down: bool) -> None:
        # Two bins become one, and there is as much room again, below or above.
        pairs = zip(self._counts[::2], self._counts[1::2], strict=True)
        merged = [one + other for one, other in pairs]
        room = [0] * len(merged)
        self._counts = room + merged if down else merged + room
        if down:
            self._start -= self._width * self.BINS
        self._width *= 2


def number_in(cell: str) -> float | None:
    """Return the number that a cell holds, or None."""
    try:
        number = float(cell)
    except ValueError:
        return None
    return number if abs(number) < 1e300 else None


def rows_in(stream: t.IO[bytes]) -> t.Iterator[list[str]]:
    """Yield the rows of a file; its first line shows what separates the cells."""
    rest = lines_in(stream)
    first = next(rest, "")
    separator = max(",;\t", key=first.count)
    return csv.reader(itertools.chain([first], rest), delimiter=separator)


def lines_in(stream: t.IO[bytes], longest: int = 1_000_000) -> t.Iterator[str]:
    """Yield the lines of a file, none of which may fill the memory.

    The task reports its progress here, and stops here if it is cancelled.
    """
    size = stream.seek(0, io.SEEK_END)
    stream.seek(0)
    text = io.TextIOWrapper(stream, "utf-8-sig", newline="")
    try:
        for number, line in enumerate(iter(lambda: text.readline(longest), "")):
            if number % 100 == 0:
                current_task.raise_if_cancelled()
                current_task.progress(stream.tell(), size, f"{number:,} lines")
            if len(line) == longest:
                raise ValueError(f"A line is longer than {longest:,} characters.")
            yield line
    finally:
        if not stream.closed:
            text.detach()  # the file stays open, for its owner to close


def summary_of(rows: t.Iterator[list[str]]) -> dict[str, t.Any]:
    """Summarise each column that holds numbers."""
    columns = [Column(name.strip() or "(no name)") for name in next(rows, [])]
    if not columns:
        raise ValueError("The file is empty: its first line must name the columns.")
    count = 0
    for row in rows:
        count += bool(row)
        for column, cell in zip(columns, row, strict=False):
            column.add(cell)
    numeric = [column.summary() for column in columns if column.count]
    if not numeric:
        raise ValueError(f"No column holds numbers. Rows read: {count:,}.")
    return {"rows": count, "columns": numeric}


# Pictures.

WIDTH, HEIGHT, SHADES = 320, 240, 64


def julia_set(share: float) -> list[bytes]:
    """Draw one of a family of Julia sets, row by row, where the task can be cancelled.

    :param share: 0 to 1: which of them.
    """
    c = 0.7885 * cmath.exp(0.5j * math.pi * (1 + share))
    return [row_of(c, y) for y in current_task.track(range(HEIGHT))]


def row_of(c: complex, y: int) -> bytes:
    """Return a row of the Julia set of c, a byte for each of its points."""
    shades = bytearray()
    for x in range(WIDTH):
        z = complex(x - WIDTH / 2, y - HEIGHT / 2) * 3 / WIDTH
        shade = 0
        while shade < SHADES - 1 and abs(z) < 2:
            z = z * z + c
            shade += 1
        shades.append(shade)
    return bytes(shades)


def png(rows: list[bytes]) -> bytes:
    """Write a picture as a PNG file."""
    shares = [shade / (SHADES - 1) for shade in range(SHADES)]
    colours = [int(255 * share**power) for share in shares for power in (1.2, 0.4, 0.6)]
    return b"\x89PNG\r\n\x1a\n" + b"".join(
        struct.pack(f">I4s{len(data)}sI", len(data), name, data, crc32(name + data))
        for name, data in (
            (b"IHDR", struct.pack(">2I5B", WIDTH, HEIGHT, 8, 3, 0, 0, 0)),
            (b"PLTE", bytes(colours)),
            (b"IDAT", compress(b"".join(b"\0" + row for row in rows))),
            (b"IEND", b""),
        )
    )


@functools.cache
def sample() -> bytes:
    """Return a CSV file that takes a few seconds."""
    days = []
    for day in range(2000):
        visitors = 400 + 250 * math.sin(day / 58) + 120 * (day * 7919 % 1000) / 1000
        minutes = 4 - math.log((day * 104_729 % 2003 + 40) / 2043)
        days.append(f"{day + 1},{visitors:.0f},{minutes:.2f}\n")
    return b"day,visitors,minutes\n" + "".join(days).encode() * 200
