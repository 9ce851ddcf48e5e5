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
extensions = ["sphinx.ext.autodoc", "sphinx_copybutton"]
copybutton_prompt_text = "$ "
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
    """A table of the numbers, as ``make bench`` last wrote it.

    Its argument names the table. That of the contract has bars, and so a chart.
    """

    required_arguments = 1

    def run(self) -> list[nodes.Node]:
        """Parse the table as if it had been written in the page."""
        report = DOCS / "bench.json"
        chart = DOCS / "_static" / "bench.svg"
        for path in (report, chart):
            self.env.note_dependency(str(path))
        (name,) = self.arguments
        lines = ["Not measured yet in this tree: run ``make bench``."]
        if report.exists():
            lines = bench_table(json.loads(report.read_text()), name)
        if name == "contract" and chart.exists():
            lines += ["", ".. raw:: html", "", *_indented(_inlined(chart.read_text()))]
        return self.parse_text_to_nodes(StringList(lines, str(report)))


def bench_table(report: dict, name: str) -> list[str]:
    """The lines of a list table, and of what it was measured on."""
    rows = report["tables"].get(name)
    if rows is None:
        return ["Not measured yet in this tree: run ``make bench``."]
    lines = _with_bars(rows) if name == "contract" else _without_bars(rows)
    return [*lines, "", _measured_on(report)]


def _with_bars(rows: list[dict]) -> list[str]:
    lines = _table("what, against what", "ratio", "bar", "aim", "holds")
    for row in rows:
        holds = "yes" if row["ratio"] <= row["bar"] else "**no**"
        ratio = f"{row['ratio']:.2f}"
        lines += _cells(row["title"], ratio, row["bar"], row["aim"], holds)
    return lines


def _without_bars(rows: list[dict]) -> list[str]:
    # What one sync takes stands only where rows wait for the disk.
    has_syncs = any(row.get("sync") for row in rows)
    syncs = ["one sync"] if has_syncs else []
    lines = _table("what, against what", "here", "there", *syncs, "ratio")
    for row in rows:
        shown = ("ours", "peer", "sync") if has_syncs else ("ours", "peer")
        figures = (_figure(row, row.get(side)) for side in shown)
        lines += _cells(row["title"], *figures, f"{row['ratio']:.2f}")
    return lines


def _figure(row: dict, value: float | None) -> str:
    if value is None:
        return ""
    if row["unit"] == "B":
        return f"{value:,.0f} bytes"
    per_second = f" ({1 / value:,.0f}/s)" if row["measure"] == "progress" else ""
    return f"{value * 1e6:.1f} µs{per_second}"


class Soak(SphinxDirective):
    """What the last ``make soak`` counted; its argument names the report."""

    required_arguments = 1

    def run(self) -> list[nodes.Node]:
        """Parse the table as if it had been written in the page."""
        report = DOCS / f"{self.arguments[0]}.json"
        self.env.note_dependency(str(report))
        lines = ["Not run yet in this tree: run ``make soak``."]
        if report.exists():
            lines = soak_table(json.loads(report.read_text()))
        return self.parse_text_to_nodes(StringList(lines, str(report)))


def soak_table(report: dict) -> list[str]:
    """The lines of a list table, and of what else there is to tell."""
    rows = report["pools"]
    kind = "pool" if "memory" in report else "database"
    lines = _table(kind, *next(iter(rows.values())))
    for name, row in {**rows, "all": _sums(rows)}.items():
        lines += _cells(name, *(f"{number:,}" for number in row.values()))
    left = ", ".join(f"{count} {what}" for what, count in report["left"].items())
    told = (
        f"Lost or counted wrong: {len(report['wrong'])}. Left behind: {left}."
        f" {_memory_of(report)} Workers killed from outside: {report['killed']}."
    )
    return [*lines, "", told, "", _measured_on(report)]


def _memory_of(report: dict) -> str:
    if "memory" not in report:
        return ""
    first, *_, last = report["memory"]
    return (
        f"Memory after the first tenth {first} MiB, at the end {last} MiB"
        f" ({last / first - 1:+.1%}); blocks of memory in use by Python then"
        f" {report['blocks'][0]:,} and {report['blocks'][-1]:,}."
    )


def _sums(rows: dict[str, dict[str, int]]) -> dict[str, int]:
    first, *_ = rows.values()
    return {name: sum(row[name] for row in rows.values()) for name in first}


def _measured_on(report: dict) -> str:
    facts = ", ".join(f"{name} {value}" for name, value in report["machine"].items())
    return f"Measured on: {facts}."


def _table(*names: str) -> list[str]:
    head = [".. list-table::", "    :header-rows: 1", "    :class: wide", ""]
    return [*head, *_cells(*names)]


def _cells(first: object, *others: object) -> list[str]:
    return [f"    * - {first}", *(f"      - {other}" for other in others)]


def _inlined(svg: str) -> list[str]:
    return ['<div class="diagram chart">', *svg.splitlines(), "</div>"]


def _indented(lines: list[str]) -> list[str]:
    return [f"    {line}" for line in lines]


def setup(app: Sphinx) -> None:
    """Add the directives that show figures."""
    app.add_directive("bench", Bench)
    app.add_directive("soak", Soak)
