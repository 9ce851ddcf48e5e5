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
import threading
import types
import typing as t
from dataclasses import fields
from pathlib import Path

import pytest
from flask import Flask
from limits import LIMIT

from flask_executor import Executor
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
ALONE = ("-p", "no:cacheprovider")
NO_PLUGINS = {"PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1"}
"""The plugins of our tests are not the reader's: they take a second to load, and
pytest-flask pushes a context of its own."""


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
        env={**os.environ, "PYTHONPATH": str(ROOT), **NO_PLUGINS},
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
        run("-m", "pytest", "-q", "--rootdir=.", *ALONE, folder=tmp_path)
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


ARCHITECTURE = DOCS / "explanation/architecture.rst"
PACKAGE = ROOT / "flask_executor"


def rooms() -> list[tuple[str, bool]]:
    """The files of the package as the page lists them, in import order, each with its
    mark. The door of a package comes behind its modules.
    """
    block = ARCHITECTURE.read_text().split(".. code-block:: text\n\n")[1]
    found: list[tuple[str, bool]] = []
    package = door = None
    for line in block.splitlines():
        if not line.startswith("    "):
            break
        name, mark = line.split()[0], "◆" in line
        if line.startswith("        "):
            found.append((f"{package}{name}.py", mark))
            continue
        found += [door] if door else []
        package = name if name.endswith("/") else None
        door = (f"{name}__init__.py", mark) if package else None
        found += [] if package else [(f"{name}.py", mark)]
    return [*found, *([door] if door else [])]


def modules() -> dict[str, str]:
    """The text of every module, by its file's name in the package."""
    files = {
        path.relative_to(PACKAGE).as_posix(): path.read_text()
        for path in PACKAGE.rglob("*.py")
    }
    return {name: text for name, text in files.items() if name != "__init__.py"}


def file_of(parts: t.Sequence[str]) -> str | None:
    """The file of a module of ours, or None if there is no such module."""
    path = PACKAGE.joinpath(*parts)
    if path.is_dir():
        path /= "__init__"
    file = path.with_suffix(".py")
    return file.relative_to(PACKAGE).as_posix() if file.exists() else None


def imports(text: str) -> t.Iterator[tuple[int, str, str]]:
    """Every import of a module, wherever it stands: the dots in front, the module, and
    a name that is taken from there, or nothing.
    """
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.ImportFrom):
            yield from ((node.level, node.module or "", a.name) for a in node.names)
        elif isinstance(node, ast.Import):
            yield from ((0, alias.name, "") for alias in node.names)


def imported(file: str, text: str) -> t.Iterator[str]:
    """The files of the package that a module imports."""
    above = file.split("/")
    for level, module, name in imports(text):
        parts = [*above[: len(above) - level], *module.split(".")] if level else []
        if module.split(".")[0] == "flask_executor" and not level:
            parts = module.split(".")[1:]
        elif not level:
            continue
        parts = [part for part in parts if part]
        found = (file_of([*parts, name]) if name else None) or file_of(parts)
        assert found is not None, (file, module, name)
        yield found


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("from ..task import Task", "task.py"),
        ("from .. import task", "task.py"),
        ("from . import base", "pools/base.py"),
        ("from .base import Pool", "pools/base.py"),
        ("from . import Pool", "pools/__init__.py"),
        ("from ..contexts import Snapshot", "contexts/__init__.py"),
        ("from ..contexts.snapshot import Snapshot", "contexts/snapshot.py"),
        ("import flask_executor.task", "task.py"),
        ("from flask_executor import Task", "__init__.py"),
        ("def f():\n    from .base import Pool", "pools/base.py"),
        ("if TYPE_CHECKING:\n    from ..task import Task", "task.py"),
    ],
)
def test_every_import_is_seen(text: str, found: str) -> None:
    """The test of the order sees imports of every form and at every place."""
    assert list(imported("pools/thread.py", text)) == [found]


def test_rooms_import_in_order() -> None:
    """A module imports only those that are listed above it; every one is listed."""
    order = [name for name, _ in rooms()]
    texts = modules()
    assert sorted(order) == sorted(texts)
    place = {name: number for number, name in enumerate([*order, "__init__.py"])}
    pairs = [(file, other) for file in order for other in imported(file, texts[file])]
    assert [pair for pair in pairs if place[pair[1]] >= place[pair[0]]] == []
    assert len(pairs) > 100


def of_flask(text: str) -> set[str]:
    """What a module imports from Flask, with dots."""
    return {
        f"{module}.{name}".rstrip(".")
        for level, module, name in imports(text)
        if not level and module.split(".")[0] == "flask"
    }


def test_diamonds_mark_what_imports_flask() -> None:
    """The list marks the modules that import Flask, and the packages with such."""
    texts = modules()
    for file, mark in rooms():
        folder = file.removesuffix("__init__.py")
        parts = [text for name, text in texts.items() if name.startswith(folder)]
        known = any(map(of_flask, parts if folder != file else [texts[file]]))
        assert known == mark, file


def test_only_contexts_knows_contexts_of_flask() -> None:
    """No other room imports more of Flask than the class of apps and what loads one,
    except the surfaces, which are views.
    """
    outside = set()
    for file, text in modules().items():
        if not file.startswith(("contexts/", "metrics/", "web/")):
            outside |= of_flask(text)
        elif file != "contexts/flask_versions.py":
            assert not of_flask(text) & {"flask.ctx", "flask.globals"}, file
    assert outside == {
        *("flask.Flask", "flask.cli.ScriptInfo", "flask.cli.with_appcontext"),
    }


def test_the_drawing_shows_the_rooms() -> None:
    """The drawing has the rooms of the list, in the same order, with the same marks."""
    drawing = (DOCS / "_static/rooms.svg").read_text()
    drawn = re.findall(r'class="(?:soft )?name"[^>]*>([^<]+?)( ◆)?</text>', drawing)
    block = ARCHITECTURE.read_text().split(".. code-block:: text\n\n")[1]
    listed = re.findall(r"^    +(\S+)( ◆)? ", block.split("\n\n")[0], re.MULTILINE)
    assert drawn == listed


def story() -> tuple[list[str], list[str]]:
    """The functions that the story of one call names: all, and those of a call that
    does not raise.
    """
    page = ARCHITECTURE.read_text()
    text = page.split("The story of one call\n")[1].split("The contract of a pool\n")[0]
    steps = text.split("\n#. ")[1:]
    usual = [step for step in steps if not step.startswith("**If the function raises")]
    assert len(steps) - len(usual) == 1
    named = re.compile(r"``(\w+\.\w+)``")
    return named.findall("".join(steps)), named.findall("".join(usual))


def called(fn: t.Callable[[], object]) -> list[set[str]]:
    """The functions of the package that a call goes through, each by its names."""
    seen: list[set[str]] = []

    def note(frame: types.FrameType, event: str, _: object) -> None:
        code = frame.f_code
        path = Path(code.co_filename)
        if event == "call" and path.is_relative_to(PACKAGE):
            seen.append({code.co_qualname, f"{path.stem}.{code.co_qualname}"})

    app = Flask("story")
    executor = Executor(app)
    with app.test_request_context("/"):
        before = sys.getprofile(), threading.getprofile()
        threading.setprofile(note)
        sys.setprofile(note)
        try:
            future = executor.submit(fn)
        finally:
            sys.setprofile(before[0])
            threading.setprofile(before[1])
        future.exception(LIMIT)
        executor.shutdown()
    return seen


@pytest.mark.parametrize("raises", [False, True])
def test_the_story_of_a_call_is_true(raises: bool) -> None:
    """A call goes through the functions that its story names, in that order."""
    everything, usual = story()
    assert len(usual) > 15
    assert len(everything) > len(usual)
    ahead = iter(called((lambda: 1 // 0) if raises else (lambda: 1)))
    for name in everything if raises else usual:
        assert any(name in names for names in ahead), name


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
    for module in ("errors", "pool_errors", "run_errors", "store_errors"):
        listed = set(re.findall(rf":exc:`~flask_executor\.{module}\.(\w+)`", page))
        source = (PACKAGE / f"{module}.py").read_text()
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
    for path in Path(__file__).parent.rglob("test_*.py"):
        for names in marks.findall(path.read_text()):
            named.update(re.findall(r'"(.+?)"', names))
    assert sorted(named) == sorted(ids)
