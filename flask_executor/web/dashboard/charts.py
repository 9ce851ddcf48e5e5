"""Charts as SVG, made here: no script, no style attribute, a sentence for who cannot see.

Each takes plain numbers. Colours come from the classes in ``dashboard.css``.
"""

from __future__ import annotations

import typing as t

from markupsafe import Markup, escape

WIDTH, HEIGHT = 600, 120
_AXIS = 18
"""The height of the words under the bars."""


class Bar(t.NamedTuple):
    """One bar: parts that stand on each other, from below."""

    parts: t.Sequence[tuple[str, float]]
    """A class of the style sheet, and a number, for each."""
    title: str
    """What a pointer shows over it."""
    word: str = ""
    """What stands under it."""

    @property
    def height(self) -> float:
        """The sum of its parts."""
        return sum(size for _, size in self.parts)


class Span(t.NamedTuple):
    """A stretch of time on a line of its own."""

    start: float
    end: float
    kind: str
    title: str


def bars(found: t.Sequence[Bar], label: str) -> Markup:
    """Draw bars side by side.

    :param label: says in a sentence what there is to see.
    """
    highest = max((bar.height for bar in found), default=0) or 1
    step = WIDTH / max(len(found), 1)
    drawn = (_bar(bar, i * step, step, highest) for i, bar in enumerate(found))
    base = HEIGHT - _AXIS
    line = f'<line class="axis" x1="0" x2="{WIDTH}" y1="{base}" y2="{base}"/>'
    return _svg("".join(drawn) + line, HEIGHT, label)


def timeline(spans: t.Sequence[Span], label: str) -> Markup:
    """Draw spans below each other, on one scale from the first start to the last end."""
    first = min((span.start for span in spans), default=0)
    length = max((span.end for span in spans), default=1) - first or 1
    drawn = (_span(span, i, first, length) for i, span in enumerate(spans))
    return _svg("".join(drawn), max(14 * len(spans) + 2, 16), label)


def _bar(bar: Bar, left: float, step: float, highest: float) -> str:
    room, top, drawn = HEIGHT - _AXIS - 6, float(HEIGHT - _AXIS), ""
    for kind, size in bar.parts:
        if size:
            tall = max(room * size / highest, 1.5)
            top -= tall
            drawn += _rect(left + step * 0.1, top, step * 0.8, tall, kind)
    # The whole column is sensitive to the pointer, not only what is drawn.
    drawn += _rect(left, 0, step, HEIGHT - _AXIS, "column")
    middle = left + step / 2
    if bar.word:
        drawn += (
            f'<text x="{middle:.1f}" y="{HEIGHT - 4}" text-anchor="middle">'
            f"{escape(bar.word)}</text>"
        )
    return f"<g><title>{escape(bar.title)}</title>{drawn}</g>"


def _span(span: Span, place: int, first: float, length: float) -> str:
    left = WIDTH * (span.start - first) / length
    wide = max(WIDTH * (span.end - span.start) / length, 3)
    left = min(left, WIDTH - wide)
    drawn = _rect(left, 14 * place + 2, wide, 10, span.kind)
    return f"<g><title>{escape(span.title)}</title>{drawn}</g>"


def _rect(x: float, y: float, width: float, height: float, kind: str) -> str:
    return (
        f'<rect class="{escape(kind)}" x="{x:.1f}" y="{y:.1f}" width="{width:.1f}"'
        f' height="{height:.1f}"/>'
    )


def _svg(inside: str, height: float, label: str) -> Markup:
    """Return a drawing that is as wide as its place.

    Everything in ``inside`` was escaped where it was written.
    """
    return Markup(
        f'<svg viewBox="0 0 {WIDTH} {height:.0f}" role="img" aria-label="'
        f'{escape(label)}">{inside}</svg>'
    )
