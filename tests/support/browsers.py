"""A Chromium for the tests of a module.

Not for the whole session: as long as Playwright runs, so does an event loop on this
thread, and tests that start one of their own would fail.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import tarfile
import typing as t

import pytest
from limits import LIMIT
from playwright.sync_api import Browser, Playwright, expect, sync_playwright

BINARIES = ("chromium-headless-shell", "chromium", "chromium-browser")
"""The first is the same browser without windows: it takes a third of the time."""
CHROMIUM = next(filter(None, map(shutil.which, BINARIES)), None)
OPTIONS = ("--no-sandbox", "--disable-gpu", "--disable-background-networking")
AXE = "axe-core@4.10.3"
VIOLATIONS = """async () => (
  await axe.run({resultTypes: ["violations"]})  // what is right is not described
).violations"""

expect.set_options(timeout=LIMIT * 1000)


def need_chromium(*commands: str) -> None:
    """Skip a module where there is no Chromium, or one of the commands is missing; in
    CI that is a failure.
    """
    missing = [] if CHROMIUM else ["Chromium"]
    missing += [command for command in commands if not shutil.which(command)]
    if missing and not os.environ.get("CI"):
        words = f"There is no {' and no '.join(missing)} here"
        pytest.skip(words, allow_module_level=True)


@pytest.fixture(scope="module")
def playwright() -> t.Iterator[Playwright]:
    with sync_playwright() as playwright:
        yield playwright


@pytest.fixture(scope="module")
def browser(playwright: Playwright) -> t.Iterator[Browser]:
    browser = playwright.chromium.launch(executable_path=CHROMIUM, args=list(OPTIONS))
    yield browser
    browser.close()


@pytest.fixture(scope="session")
def from_npm(request: pytest.FixtureRequest) -> t.Callable[[str, str], bytes]:
    """Reads a file of a package of npm's registry, which is fetched once."""

    def read(package: str, file: str) -> bytes:
        folder = request.config.cache.mkdir(package.partition("@")[0])
        archive = folder / f"{package.replace('@', '-')}.tgz"
        if not archive.exists():
            command = ["npm", "pack", package, "--silent", "--pack-destination", "."]
            subprocess.run(command, cwd=folder, check=True, timeout=LIMIT * 4)
        with tarfile.open(archive) as found:
            source = found.extractfile(f"package/{file}")
            assert source is not None
            return source.read()

    return read
