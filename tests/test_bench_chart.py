"""The chart of the benchmark: one scale, sorted, and no text on a line or a bar."""

from __future__ import annotations

import json
import re
from xml.etree import ElementTree

from test_docs import ROOT

from bench.chart import chart
from bench.rows import CONTRACT

SVG = "{http://www.w3.org/2000/svg}"
LETTER = 7.9
"""What a letter of 14 px takes at most, in a sans-serif face, on average."""
SHARES = {"missed by far": 9.9, "missed": 1.1, "close to it": 0.95, "held": 0.4}
TITLES = [row.title for row in CONTRACT]

DRAWN = ElementTree.fromstring(
    chart(
        [
            {"title": title, "ratio": share * 3.5, "bar": 3.5}
            for title, share in {**dict.fromkeys(TITLES, 0.1), **SHARES}.items()
        ]
    )
)


def extent(text: ElementTree.Element) -> tuple[float, float]:
    """Where a text begins and ends."""
    x, width = float(text.get("x", 0)), LETTER * len(text.text or "")
    anchor = text.get("text-anchor", "start")
    start = x - width * {"start": 0, "middle": 0.5, "end": 1}[anchor]
    return start, start + width


def test_bars_are_sorted_on_one_scale() -> None:
    """Each bar is as long as its share of what is allowed; the longest is the first."""
    widths = [float(bar.get("width", 0)) for bar in DRAWN.iter(f"{SVG}rect")]
    assert widths == sorted(widths, reverse=True)
    lines = [float(line.get("x1", 0)) for line in DRAWN.iter(f"{SVG}line")]
    allowed = lines[-1] - lines[0]
    shares = [min(share, 1.2) for share in SHARES.values()]
    assert widths[:4] == [round(share * allowed) for share in shares]


def test_no_text_touches_a_line_or_a_bar() -> None:
    """Texts beside the bars end before them, or begin after all of them."""
    lines = [
        (line.get("x1"), float(line.get("y1", 0))) for line in DRAWN.iter(f"{SVG}line")
    ]
    top = min(y for _, y in lines)
    left = float(next(DRAWN.iter(f"{SVG}rect")).get("x", 0))
    right = left + max(float(bar.get("width", 0)) for bar in DRAWN.iter(f"{SVG}rect"))
    beside = 0
    for text in DRAWN.iter(f"{SVG}text"):
        start, end = extent(text)
        if float(text.get("y", 0)) > top:
            assert end < left or start > right, text.text
            beside += 1
    assert beside == 2 * (len(TITLES) + len(SHARES))


def test_the_chart_is_the_last_one_measured() -> None:
    """docs/_static/bench.svg has a bar for each row of the table beside it."""
    drawn = (ROOT / "docs/_static/bench.svg").read_text()
    measured = json.loads((ROOT / "docs/bench.json").read_text())["tables"]["contract"]
    assert "of the bar" in drawn
    assert len(re.findall("<rect", drawn)) == len(measured) == len(CONTRACT)
