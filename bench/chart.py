"""The chart of the contract: each ratio as a share of its bar."""

from __future__ import annotations

import typing as t

# The chart, in pixels: a letter at most, what is allowed, the column of figures; and
# how far beyond its bar, as a share of it, a ratio is drawn.
LETTER, ALLOWED, FIGURE, LONGEST = 8, 280, 112, 1.2
TOP, STEP = 44, 34


def holds(result: dict[str, t.Any]) -> bool:
    """Return True if there is no bar, or it is kept.

    A difference that is lost in noise may be below zero: that keeps no bar.
    """
    return result["bar"] is None or 0 < result["ratio"] <= result["bar"]


def chart(results: list[dict[str, t.Any]]) -> str:
    """Draw each ratio as a share of its bar, on one scale, the closest to it first.

    Figures stand in a column right of all bars, so that none touches a line.
    """
    rows = sorted(results, key=lambda row: row["ratio"] / row["bar"], reverse=True)
    left = LETTER * max(len(row["title"]) for row in rows)
    right, bottom = left + LONGEST * ALLOWED + FIGURE, TOP + len(rows) * STEP
    return (
        '<svg xmlns="http://www.w3.org/2000/svg"'
        f' viewBox="0 0 {right:.0f} {bottom + 8}"'
        ' font-family="sans-serif" font-size="14" fill="currentColor" role="img"'
        ' aria-label="Ratios as shares of what is allowed">'
        + "".join(_mark(left, share, bottom) for share in (0, 0.5, 1))
        + "".join(_bar(row, left, TOP + n * STEP) for n, row in enumerate(rows))
        + "</svg>\n"
    )


def _mark(left: float, share: float, bottom: int) -> str:
    """A line of the scale, with its name above it."""
    x, dashes = left + share * ALLOWED, ' stroke-dasharray="3 4"' if share < 1 else ""
    name = f"{share:.0%}" + (" of the bar" if share == 1 else "")
    return (
        f'<line x1="{x:.0f}" y1="{TOP - 14}" x2="{x:.0f}" y2="{bottom}"'
        f' stroke="currentColor"{dashes}/>'
        f'<text x="{x:.0f}" y="{TOP - 20}" text-anchor="middle">{name}</text>'
    )


def _bar(row: dict[str, t.Any], left: float, y: int) -> str:
    width = min(row["ratio"] / row["bar"], LONGEST) * ALLOWED
    colour = "#2a7" if holds(row) else "#c33"
    figure = f"{row['ratio']:.2f} of {row['bar']:g}"
    right = left + LONGEST * ALLOWED + FIGURE - 4
    return (
        f'<text x="0" y="{y + 14}">{row["title"]}</text>'
        f'<rect x="{left:.0f}" y="{y}" width="{width:.0f}" height="18"'
        f' fill="{colour}"/>'
        f'<text x="{right:.0f}" y="{y + 14}" text-anchor="end">{figure}</text>'
    )
