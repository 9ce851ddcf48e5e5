"""Charts as SVG, made here: no script, no style attribute, each with a sentence.

Each takes plain numbers. Colours come from the classes in ``dashboard.css``. A drawing
is stretched to the width of its place, so words stand beside it and not in it.
"""

from __future__ import annotations

import typing as t

from markupsafe import Markup

WIDTH, HEIGHT = 600, 100
_LINE = 16
"""The height of one line of a timeline."""


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
    """Draw bars side by side, with their words under them.

    :param label: says in a sentence what there is to see.
    """
    highest = max((bar.height for bar in found), default=0) or 1
    step = WIDTH / max(len(found), 1)
    drawn = [_bar(bar, i * step, step, highest) for i, bar in enumerate(found)]
    words = [Markup("<i>{}</i>").format(bar.word) for bar in found]
    under = Markup('<p class="words" aria-hidden="true">{}</p>')
    return _svg(drawn, HEIGHT, label) + under.format(Markup("").join(words))


def timeline(spans: t.Sequence[Span], label: str) -> Markup:
    """Draw spans below each other, from the first start to the last end."""
    first = min((span.start for span in spans), default=0)
    length = max((span.end for span in spans), default=1) - first or 1
    drawn = [_span(span, i, first, length) for i, span in enumerate(spans)]
    return _svg(drawn, _LINE * len(spans), label)


def _bar(bar: Bar, left: float, step: float, highest: float) -> Markup:
    # The whole column is sensitive to the pointer, not only what is drawn.
    top, drawn = float(HEIGHT), [_rect(left, 0, step, HEIGHT, "column")]
    for kind, size in bar.parts:
        if size:
            tall = max((HEIGHT - 2) * size / highest, 1.5)
            top -= tall
            drawn.append(_rect(left + step * 0.1, top, step * 0.8, tall, kind))
    return _titled(bar.title, drawn)


def _span(span: Span, place: int, first: float, length: float) -> Markup:
    wide = max(WIDTH * (span.end - span.start) / length, 3)
    left = min(WIDTH * (span.start - first) / length, WIDTH - wide)
    drawn = _rect(left, _LINE * place + 3, wide, _LINE - 6, span.kind)
    return _titled(span.title, [drawn])


def _titled(title: str, drawn: t.Sequence[Markup]) -> Markup:
    inside = Markup("").join(drawn)
    return Markup("<g><title>{}</title>{}</g>").format(title, inside)


def _rect(x: float, y: float, width: float, height: float, kind: str) -> Markup:
    return Markup(
        '<rect class="{}" x="{:.1f}" y="{:.1f}" width="{:.1f}" height="{:.1f}"/>'
    ).format(kind, x, y, width, height)


def _svg(drawn: t.Sequence[Markup], height: float, label: str) -> Markup:
    return Markup(
        '<svg viewBox="0 0 {} {}" width="100%" height="{}" preserveAspectRatio="none"'
        ' role="img" aria-label="{}">{}</svg>'
    ).format(WIDTH, height, height, label, Markup("").join(drawn))
