"""The first two minutes: what README, index and tutorial say to type works as written.

The commands run in an empty folder, with a fresh virtual environment into which this
tree was installed as the pages say. Pip takes Flask from PyPI.
"""

from __future__ import annotations

import os
import re
import shlex
import shutil
import socket
import subprocess
import sys
import tarfile
import textwrap
import threading
import time
import typing as t
import urllib.error
import urllib.request
import zipfile
from contextlib import contextmanager
from pathlib import Path

import pytest
from limits import LIMIT
from test_docs import DOCS, ROOT, examples

# One venv for all of them, and time for pip to download.

INSTALL_LIMIT = 300
"""Seconds for pip, which may have to download."""

BUILT = shutil.ignore_patterns(
    ".git", ".*cache*", ".venv", ".ci-venvs", "__pycache__", "_build", "*.egg-info",
    "build", "dist", "instance", ".bench", ".peers", ".hypothesis", ".coverage*",
)  # fmt: skip
QUICK_STARTS = [ROOT / "README.rst", DOCS / "index.rst"]


def console(page: Path) -> list[str]:
    """The commands of a page and what they print, block by block."""
    text = page.read_text().replace(
        ".. include:: install.txt", (DOCS / "install.txt").read_text()
    )
    found = re.findall(r"\.\. code-block:: console\n\n((?:    .*\n|\n)+)", text)
    return [textwrap.dedent(block).strip() for block in found]


def command(page: Path, start: str) -> str:
    """The command of a page that begins like this."""
    (found,) = {
        line[2:]
        for block in console(page)
        for line in block.splitlines()
        if line.startswith(f"$ {start}")
    }
    return found


@pytest.fixture(scope="module")
def tree(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A checkout: a copy, for a build leaves things behind."""
    tree = tmp_path_factory.mktemp("checkout") / "tree"
    shutil.copytree(ROOT, tree, ignore=BUILT)
    return tree


class Shell:
    """Types commands, with the tools of one virtual environment."""

    def __init__(self, venv: Path) -> None:
        self.env = {**os.environ, "PATH": f"{venv / 'bin'}:{os.environ['PATH']}"}
        for name in ("PYTHONPATH", "FLASK_APP", "FLASK_RUN_PORT", "FLASK_DEBUG"):
            self.env.pop(name, None)

    def type(self, command: str, folder: Path) -> str:
        """Run it to its end, and give what it printed."""
        done = subprocess.run(
            ["bash", "-c", command],
            cwd=folder,
            env=self.env,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=INSTALL_LIMIT,
        )
        assert done.returncode == 0, f"{command}: {done.stdout}"
        return done.stdout

    @contextmanager
    def serve(self, command: str, folder: Path) -> t.Iterator[Served]:
        """Run a server on a port that is free, until the block ends."""
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            port = probe.getsockname()[1]
        process = subprocess.Popen(
            [*shlex.split(command), "--port", str(port)],
            cwd=folder,
            env={**self.env, "PYTHONUNBUFFERED": "1"},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            start_new_session=True,  # the reloader's child ends with it
        )
        served = Served(process, port)
        try:
            served.wait_for("Running on")
            yield served
        finally:
            os.killpg(process.pid, 15)
            process.wait(LIMIT)
            served.reader.join(LIMIT)


class Served:
    """A server under way: its address, and its log so far."""

    def __init__(self, process: subprocess.Popen[str], port: int) -> None:
        self.port = port
        self.log = ""
        self._news = threading.Condition()
        self.reader = threading.Thread(target=self._read, args=(process.stdout,))
        self.reader.start()

    def _read(self, stream: t.IO[str]) -> None:
        with stream:
            for line in stream:
                with self._news:
                    self.log += line
                    self._news.notify_all()

    def wait_for(self, text: str) -> None:
        """Wait until the log has a text."""
        with self._news:
            assert self._news.wait_for(lambda: text in self.log, LIMIT), self.log

    def end_of(self, command: str) -> str:
        """Ask for a status until it is none of a task that waits or runs."""
        deadline = time.monotonic() + LIMIT
        while True:
            code, body = self.curl(command)
            assert code == 200 and time.monotonic() < deadline, body
            if '"waiting"' not in body and '"running"' not in body:
                return body

    def curl(self, command: str) -> tuple[int, str]:
        """Ask as curl would: the status code and the body."""
        tool, *words = shlex.split(command.replace(":5000", f":{self.port}"))
        assert tool == "curl"
        method, data, url = None, None, words[-1]
        for option, value in zip(words[:-1:2], words[1:-1:2], strict=True):
            if option == "-X":
                method = value
            else:
                assert option == "-d"
                data = value.encode()
        asked = urllib.request.Request(url, data, method=method)
        try:
            with urllib.request.urlopen(asked, timeout=LIMIT) as answer:
                return answer.status, answer.read().decode()
        except urllib.error.HTTPError as error:
            with error:  # Python 3.14 warns if nobody closes it
                return error.code, error.read().decode()


@pytest.fixture(scope="module")
def shell(tree: Path, tmp_path_factory: pytest.TempPathFactory) -> Shell:
    """A fresh virtual environment, with what the pages' first command installs."""
    venv = tmp_path_factory.mktemp("fresh") / ".venv"
    subprocess.run([sys.executable, "-m", "venv", str(venv)], check=True)
    shell = Shell(venv)
    installs = {command(page, "pip install .") for page in [*QUICK_STARTS, TUTORIAL]}
    (install,) = installs
    shell.type(install, tree)
    return shell


TUTORIAL = DOCS / "tutorial.rst"


@pytest.mark.parametrize("page", [*QUICK_STARTS, TUTORIAL], ids=lambda page: page.name)
def test_the_first_command_installs_this(page: Path) -> None:
    """Each page begins with an install line for today, one for later, and why."""
    first, later, *_ = console(page)
    assert (first, later) == ("$ pip install .", '$ pip install "Flask-Executor>=2"')
    text = page.read_text() + (DOCS / "install.txt").read_text()
    assert "the newest version on PyPI is 1.0.0" in text


@pytest.mark.parametrize("page", QUICK_STARTS, ids=lambda page: page.name)
def test_quick_start(page: Path, shell: Shell, tmp_path: Path) -> None:
    """Pasted and run, it signs up twice, and tells each client only its own status."""
    (tmp_path / "app.py").write_text(examples(page)[0].code)
    with shell.serve(command(page, "flask run"), tmp_path) as served:
        sign_up = command(page, "curl -d")
        paths = set()
        for _ in range(2):
            code, body = served.curl(sign_up)
            assert code == 202, served.log
            paths.add(re.fullmatch(r'\{"status":"(.+)"\}\n', body)[1])  # type: ignore[index]
        assert len(paths) == 2
        served.wait_for("INFO in app: Welcome, ada@example.org, from 127.0.0.1")
        ask = command(page, "curl http")
        for path in paths:
            key = path.removeprefix("/sign-up/")
            assert served.end_of(ask.replace("KEY", key)) == '{"state":"succeeded"}\n'
        assert served.curl(ask.replace("KEY", "ada@example.org"))[0] == 404
        assert " 500 " not in served.log


def test_readme_goes_on(shell: Shell, tmp_path: Path) -> None:
    """With the second example added, the app counts and tells its progress."""
    first, second = examples(ROOT / "README.rst")
    (tmp_path / "app.py").write_text(first.code + second.code)
    with shell.serve("flask run", tmp_path) as served:
        code, body = served.curl("curl -X POST http://127.0.0.1:5000/sums")
        path = re.fullmatch(r'\{"status":"(.+)"\}\n', body)
        assert code == 202 and path
        ask = f"curl http://127.0.0.1:5000{path[1]}"
        assert served.end_of(ask) == '{"done":1.0,"state":"succeeded"}\n'


def test_tutorial(shell: Shell, tmp_path: Path) -> None:
    """Each command of the tutorial prints what the tutorial says."""
    pieces = examples(TUTORIAL)
    (tmp_path / "tour.py").write_text(
        "\n".join(piece.code for piece in pieces if piece.file is None)
    )
    asked = 0
    with shell.serve(command(TUTORIAL, "flask"), tmp_path) as served:
        for block in console(TUTORIAL):
            for said in re.findall(r"^\$ (curl .+)\n((?:[^$].*\n?)*)", block, re.M):
                code, body = served.curl(said[0])
                assert code < 400, served.log
                if '"state"' in body:
                    body = served.end_of(said[0])
                assert body.strip() == said[1].strip()
                asked += 1
        served.wait_for("/noted: 1024")
        served.wait_for("ValueError: invalid literal")
    assert asked == 8
    for piece in pieces:
        if piece.file:
            (tmp_path / piece.file).write_text(piece.code)
    shell.type(command(TUTORIAL, "pip install pytest"), tmp_path)
    assert "1 passed" in shell.type(command(TUTORIAL, "python -m pytest"), tmp_path)


def files_of(folder: Path) -> set[str]:
    """What a copy of the tree holds."""
    return {
        path.relative_to(folder).as_posix()
        for path in folder.rglob("*")
        if path.is_file() and "egg-info" not in path.as_posix()
    }


def built(folder: Path, kind: str) -> tuple[set[str], Path]:
    """Build an ``'sdist'`` or a ``'wheel'`` of a clean copy of this checkout.

    :return: the files of the copy, and the archive.
    """
    tree = folder / "tree"
    shutil.copytree(ROOT, tree, ignore=BUILT)
    files = files_of(tree)
    build = f"import setuptools.build_meta as backend; backend.build_{kind}('dist')"
    subprocess.run(
        [sys.executable, "-c", build],
        cwd=tree,
        check=True,
        capture_output=True,
        timeout=INSTALL_LIMIT,
    )
    (archive,) = (tree / "dist").iterdir()
    return files, archive


def test_sdist_is_complete(tmp_path: Path) -> None:
    """The sdist has all that its tests, docs and example need, and links."""
    files, archive = built(tmp_path, "sdist")
    with tarfile.open(archive) as packed:
        packed.extractall(tmp_path / "sdist", filter="data")
    (folder,) = (tmp_path / "sdist").iterdir()
    assert files - files_of(folder) == set()
    assert "Project-URL: " in (folder / "PKG-INFO").read_text()


def test_wheel_is_complete(tmp_path: Path) -> None:
    """The wheel has every file of the package: templates, styles and scripts too."""
    files, archive = built(tmp_path, "wheel")
    wanted = {path for path in files if path.startswith("flask_executor/")}
    with zipfile.ZipFile(archive) as packed:
        assert wanted - {*packed.namelist()} == set()
    assert "flask_executor/web/dashboard/templates/base.html" in wanted


def make(*words: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        ["make", *words], cwd=ROOT, capture_output=True, text=True, timeout=LIMIT
    )


def test_make_names_the_interpreter_that_is_missing(tmp_path: Path) -> None:
    """Without a Python, make says which one it looked for, and what to type."""
    done = make("lint", "PYTHON=python-of-nobody", f"VENV={tmp_path}/venv")
    assert done.returncode != 0
    assert "There is no python-of-nobody here" in done.stdout
    assert "make PYTHON=python3.12" in done.stdout


def test_make_demo_takes_a_port() -> None:
    """PORT goes to the example; without it the example chooses."""
    assert "example_app.py --port 8123\n" in make("-n", "demo", "PORT=8123").stdout
    assert "--port" not in make("-n", "demo", "PORT=").stdout
