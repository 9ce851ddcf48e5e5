"""Sphinx configuration; warnings are errors."""

import json
from pathlib import Path

from docutils import nodes
from docutils.statemachine import StringList
from sphinx.application import Sphinx
from sphinx.util.docutils import SphinxDirective

project = "Flask-Executor"
copyright = "2026, the Flask-Executor 2 contributors"
release = "2.0"
extensions = ["sphinx.ext.autodoc"]
html_theme = "furo"
html_title = "Flask-Executor 2"
html_css_files = ["docs.css"]
html_static_path = ["_static"]
autodoc_member_order = "bysource"
autodoc_typehints = "signature"
autodoc_typehints_format = "short"
exclude_patterns = ["_build"]

DOCS = Path(__file__).parent


class Bench(SphinxDirective):
    """The table of the numbers, as ``make bench`` last wrote it, and its chart."""

    def run(self) -> list[nodes.Node]:
        """Parse the table as if it had been written in the page."""
        report = DOCS / "bench.json"
        chart = DOCS / "_static" / "bench.svg"
        for path in (report, chart):
            self.env.note_dependency(str(path))
        lines = ["Not measured yet in this tree: run ``make bench``."]
        if report.exists():
            lines = bench_table(json.loads(report.read_text()))
        if chart.exists():
            lines += ["", ".. raw:: html", "", *_indented(_inlined(chart.read_text()))]
        return self.parse_text_to_nodes(StringList(lines, str(report)))


def bench_table(report: dict) -> list[str]:
    """The lines of a list table, and of what it was measured on."""
    lines = [".. list-table::", "    :header-rows: 1", "    :class: wide", ""]
    lines += _cells("what, against what", "ratio", "bar", "aim", "holds")
    for row in report["rows"]:
        holds = "yes" if row["ratio"] <= row["bar"] else "**no**"
        ratio = f"{row['ratio']:.2f}"
        lines += _cells(row["title"], ratio, row["bar"], row["aim"], holds)
    facts = ", ".join(f"{name} {value}" for name, value in report["machine"].items())
    return [*lines, "", f"Measured on: {facts}."]


def _cells(first: object, *others: object) -> list[str]:
    return [f"    * - {first}", *(f"      - {other}" for other in others)]


def _inlined(svg: str) -> list[str]:
    return ['<div class="diagram wide">', *svg.splitlines(), "</div>"]


def _indented(lines: list[str]) -> list[str]:
    return [f"    {line}" for line in lines]


def setup(app: Sphinx) -> None:
    """Add the one directive."""
    app.add_directive("bench", Bench)
