"""The docs are true: examples run, the picture of the rooms is the code's."""

from __future__ import annotations

import ast
import re
import textwrap
import typing as t
from dataclasses import fields
from pathlib import Path

import pytest

from flask_executor.settings import Settings

ROOT = Path(__file__).parent.parent
PAGES = [ROOT / "README.rst", *sorted((ROOT / "docs").rglob("*.rst"))]
BLOCK = re.compile(r"\.\. code-block:: python\n\n((?:    .*\n|\n)+)")


def blocks(page: Path) -> str:
    return "\n".join(map(textwrap.dedent, BLOCK.findall(page.read_text() + "\n")))


@pytest.mark.parametrize(
    "page",
    [page for page in PAGES if blocks(page)],
    ids=lambda page: str(page.relative_to(ROOT)),
)
def test_examples_run(page: Path) -> None:
    """The examples of a page run, one after another."""
    code = compile(blocks(page), str(page), "exec")
    exec(code, {"__name__": f"docs_{page.stem}"})


def rooms() -> list[str]:
    text = (ROOT / "docs/explanation/architecture.rst").read_text()
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


@pytest.mark.parametrize("page", ["reference/config.rst", "howto/migrating.rst"])
def test_every_key_is_documented(page: str) -> None:
    """The config reference and the migration guide name every key."""
    text = (ROOT / "docs" / page).read_text()
    for field in fields(Settings):
        assert f"EXECUTOR_{field.name.upper()}" in text
