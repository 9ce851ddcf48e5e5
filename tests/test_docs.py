"""The docs are true: examples run, tables and drawings are those of the code.

Python in a page that names no file runs from top to bottom, as one script. A line that
ends in ``# -> value`` must have that value. What a test adds stands in a comment of the
page, which no reader sees::

    .. Check:

        assert future.done()

A comment ``.. Check test_x.py:`` is a file of that name, beside those with a caption.
"""

from __future__ import annotations

import ast
import os
import re
import subprocess
import sys
import textwrap
import typing as t
from dataclasses import fields
from pathlib import Path

import pytest

from flask_executor.settings import Settings, read_key

ROOT = Path(__file__).parent.parent
DOCS = ROOT / "docs"
PAGES = [ROOT / "README.rst", *sorted(DOCS.rglob("*.rst"))]
CODE = r"\n(?P<code>(?:    .*\n|\n)+)"
SHOWN = re.compile(
    r"^\.\. code-block:: python\n(?:    :caption: (?P<file>\S+)\n)?" + CODE,
    re.MULTILINE,
)
CHECK = re.compile(r"^\.\. Check(?: (?P<file>\S+))?:\n" + CODE, re.MULTILINE)
VALUE = re.compile(r"^(\s*)(\S.*?)  # -> (.+)$", re.MULTILINE)
FILE = re.compile(
    r"^\.\. code-block:: [\w+]+\n    :caption: (?P<file>\S+)\n" + CODE, re.MULTILINE
)
SERVED = {"README.rst", "docs/index.rst", "docs/tutorial.rst"}
"""Their examples are one app, which tests/test_first_minutes.py serves."""
FOR_TESTS = re.compile(
    r"^\s*assert |AssertionError|test_client|\.(result|exception|wait)\([^)]*timeout=",
    re.MULTILINE,
)
"""What belongs in a test, and not into code that a reader keeps."""
PATIENCE = 120
"""Seconds that the examples of a page may take."""


class Example(t.NamedTuple):
    """One block of Python; with a caption it is a file of that name."""

    file: str | None
    code: str


def text_of(page: Path) -> str:
    return page.read_text() + "\n"


def blocks(pattern: re.Pattern[str], page: Path) -> list[tuple[int, Example]]:
    """The blocks of one kind, each with its place in the page."""
    return [
        (match.start(), Example(match["file"], textwrap.dedent(match["code"])))
        for match in pattern.finditer(text_of(page))
    ]


def unpack(page: Path, folder: Path) -> None:
    """Write the files that a page shows, of any kind, into a folder."""
    for _, (file, code) in blocks(FILE, page):
        path = folder / t.cast(str, file)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(code)


def examples(page: Path) -> list[Example]:
    """What a reader sees."""
    return [example for _, example in blocks(SHOWN, page)]


def by_name(page: Path) -> str:
    return page.relative_to(ROOT).as_posix()


WITH_EXAMPLES = [page for page in PAGES if examples(page)]


def run(*words: str, folder: Path) -> None:
    """Run Python as a reader would, with warnings as errors."""
    done = subprocess.run(
        [sys.executable, "-W", "error", *words],
        cwd=folder,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        timeout=PATIENCE,
    )
    assert done.returncode == 0, f"{words}: {done.stdout}{done.stderr}"


@pytest.mark.parametrize("page", WITH_EXAMPLES, ids=by_name)
def test_examples_run(page: Path, tmp_path: Path) -> None:
    """The examples of a page run: tests with pytest, which import the page's other
    files; these by themselves where there are no tests; the rest from top to bottom.
    """
    found = sorted(blocks(SHOWN, page) + blocks(CHECK, page))
    code = "\n".join(example.code for _, example in found if not example.file)
    if code and by_name(page) not in SERVED:
        script = tmp_path / "alone" / "page.py"
        script.parent.mkdir()
        script.write_text(VALUE.sub(r"\1assert (\2) == (\3)", code))
        run(script.name, folder=script.parent)
    unpack(page, tmp_path)
    for file, code in (example for _, example in blocks(CHECK, page) if example.file):
        (tmp_path / t.cast(str, file)).write_text(code)
    if any(tmp_path.glob("test_*.py")):
        # pytest-flask is not the reader's, and pushes a context of its own.
        alone = ["-p", "no:cacheprovider", "-p", "no:flask", "-p", "no:xdist"]
        run("-m", "pytest", "-q", "--rootdir=.", *alone, folder=tmp_path)
    else:
        for path in sorted({*tmp_path.glob("*.py")} - {tmp_path / "gunicorn.conf.py"}):
            run(path.name, folder=tmp_path)


@pytest.mark.parametrize("page", PAGES, ids=by_name)
def test_every_example_is_seen(page: Path) -> None:
    """No Python in the docs escapes these tests by the way it is written down."""
    text = text_of(page)
    assert len(examples(page)) == len(re.findall(r"code-block:: *python", text))
    assert len(blocks(CHECK, page)) == len(
        re.findall(r"^ *\.\. *check", text, re.M | re.I)
    )
    assert not re.search(r"^ *(\.\. code::|>>> )", text, re.MULTILINE)
    assert not re.search(r"^(?! *\.\. ).*:: *$", text, re.MULTILINE)  # no literal block


@pytest.mark.parametrize("page", WITH_EXAMPLES, ids=by_name)
def test_examples_hold_nothing_of_a_test(page: Path) -> None:
    """What a reader copies neither asserts nor gives up waiting; tests do."""
    for file, code in examples(page):
        if not (file or "").startswith("test_"):
            assert (found := FOR_TESTS.search(code)) is None, found


def test_the_readme_points_at_what_is_there() -> None:
    """Every file and folder of the docs that README.rst names exists."""
    names = re.findall(r"``(docs/[^`]*)``", (ROOT / "README.rst").read_text())
    built = {"docs/_build/html"}
    assert len(names) > 3
    assert [n for n in names if n not in built and not (ROOT / n).exists()] == []


def rooms() -> list[str]:
    text = (DOCS / "explanation/architecture.rst").read_text()
    block = text.split(".. code-block:: text")[1].split("``files.py``")[0]
    return [line.split()[0] for line in block.splitlines() if line.strip()]


def room_of(path: Path) -> str:
    parts = path.relative_to(ROOT / "flask_executor").parts
    return parts[0] + "/" if len(parts) > 1 else parts[0]


def imported(path: Path) -> t.Iterator[str]:
    """The rooms that a module imports when it is loaded."""
    package = path.parent
    for node in ast.parse(path.read_text()).body:
        if isinstance(node, ast.ImportFrom) and node.level:
            base = package if node.level == 1 else package.parent
            names = [node.module] if node.module else [a.name for a in node.names]
            for name in names:
                target = base.joinpath(*name.split("."))
                module = target.with_suffix(".py")
                if module.exists():
                    yield room_of(module)
                elif target.is_dir():
                    yield room_of(target / "__init__.py")


def test_rooms_import_in_order() -> None:
    """A module imports only from the rooms above its own."""
    order = rooms()
    modules = sorted((ROOT / "flask_executor").rglob("*.py"))
    checked = 0
    for path in modules:
        room = room_of(path)
        if room == "__init__.py":
            continue
        for other in imported(path):
            checked += 1
            assert other == room or order.index(other) < order.index(room), (
                path,
                other,
            )
    assert {room_of(path) for path in modules} - {"__init__.py"} == set(order)
    assert checked > 20


def test_the_drawing_shows_the_rooms() -> None:
    """The drawing of the rooms has those of the list, in the same order, and marks
    those that import Flask.
    """
    drawing = (DOCS / "_static/rooms.svg").read_text()
    drawn = re.findall(r'class="name"[^>]*>([^<]+?)( ◆)?</text>', drawing)
    assert [name for name, _ in drawn] == rooms()
    for name, mark in drawn:
        room = ROOT / "flask_executor" / name
        modules = room.glob("*.py") if room.is_dir() else [room]
        knows = any(
            re.search(r"^(?:from|import) flask\b", module.read_text(), re.MULTILINE)
            for module in modules
        )
        assert knows == bool(mark), name


@pytest.mark.parametrize("page", ["reference/config.rst", "howto/migrating.rst"])
def test_every_key_is_documented(page: str) -> None:
    """The config reference and the migration guide name every key."""
    text = (DOCS / page).read_text()
    for field in fields(Settings):
        assert f"EXECUTOR_{field.name.upper()}" in text


def literals(cell: str) -> list[t.Any]:
    """The Python values that stand in double backquotes."""
    return [ast.literal_eval(word) for word in re.findall(r"``([^`]+)``", cell)]


def config_table() -> dict[str, list[str]]:
    """The cells of each row of the table of keys, by key."""
    text = (DOCS / "reference/config.rst").read_text()
    rows = re.findall(
        r"^    \* - :confval:`(\w+)`\n      - (.+)\n      - (.+)\n      - (.+)$",
        text,
        re.MULTILINE,
    )
    return {key: cells for key, *cells in rows}


def test_the_config_table_is_the_code() -> None:
    """It has every key in order, with its default; what it allows is allowed."""
    table = config_table()
    assert list(table) == [f"EXECUTOR_{f.name.upper()}" for f in fields(Settings)]
    for field, (default, allowed, _) in zip(
        fields(Settings), table.values(), strict=True
    ):
        assert literals(default) == [field.default], field.name
        for value in literals(allowed):
            key = f"EXECUTOR_{field.name.upper()}"
            assert read_key({key: value}, "", field.name) == value


def test_each_key_has_its_paragraph() -> None:
    """Below the table every key is described, with the same default."""
    text = (DOCS / "reference/config.rst").read_text()
    found = re.findall(r"^\.\. confval:: (\w+)\n    :default: (.+)$", text, re.M)
    defaults = {key: literals(value) for key, value in found}
    assert defaults == {
        f"EXECUTOR_{f.name.upper()}": [f.default] for f in fields(Settings)
    }


def test_every_error_is_explained() -> None:
    """The table of the page on failures has each exception of the package."""
    page = (DOCS / "howto/failures.rst").read_text()
    listed = set(re.findall(r":exc:`~flask_executor\.errors\.(\w+)`", page))
    source = (ROOT / "flask_executor/errors.py").read_text()
    assert listed == set(re.findall(r"^class (\w+)", source, re.MULTILINE))


def test_each_guarantee_has_its_tests() -> None:
    """Each one has an id, which a test names; each id that a test names is there."""
    page = (DOCS / "explanation" / "guarantees.rst").read_text()
    promised = page.partition("What is not promised")[0]
    items = re.findall(r"^(?:- |    \* - )(.*)", promised, re.MULTILINE)
    assert [one for one in items if not one.startswith(".. _g-")] == ["when"]
    ids = re.findall(r"\.\. _(g-[a-z-]+):", page)
    named = set()
    marks = re.compile(r"^ *@pytest\.mark\.holds\(([^)]*)", re.MULTILINE)
    for path in Path(__file__).parent.glob("test_*.py"):
        for names in marks.findall(path.read_text()):
            named.update(re.findall(r'"(.+?)"', names))
    assert sorted(named) == sorted(ids)
