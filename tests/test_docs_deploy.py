"""docs/howto/production.rst and observability.rst do what they say, on real servers."""

from __future__ import annotations

import os
import re
import shlex
import signal
import subprocess
import sys
import urllib.request
from http.cookiejar import CookieJar
from pathlib import Path

from limits import LIMIT
from scripts import cannot_at_exit
from test_docs import DOCS, ROOT, examples, text_of, unpack

PRODUCTION = DOCS / "howto/production.rst"
LOG_IN = """
from flask import session

from portal import create_app as make


def create_app():
    app = make()
    app.logger.setLevel("INFO")

    @app.get("/log-in")
    def log_in():
        session["user"] = "ada"
        return ""

    return app
"""


@cannot_at_exit("threading.Thread(target=print).start()")
def test_gunicorn_finishes_what_it_accepted(tmp_path: Path) -> None:
    """With the page's file and command, SIGTERM lets tasks and their mails finish."""
    unpack(DOCS / "howto/realistic-app.rst", tmp_path)
    unpack(PRODUCTION, tmp_path)
    (tmp_path / "entry.py").write_text(LOG_IN)
    (command,) = re.findall(r"^    \$ (gunicorn .+)$", text_of(PRODUCTION), re.M)
    tool, target = shlex.split(command)
    assert (tool, target) == ("gunicorn", "portal:create_app()")
    server = subprocess.Popen(
        # The same, with a way to log in, on a port that is free.
        [sys.executable, "-m", tool, "-b", "127.0.0.1:0", "entry:create_app()"],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(ROOT), "PYTHONUNBUFFERED": "1"},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
    )
    assert server.stdout is not None
    said = ""
    try:
        while "Booting worker" not in said and (line := server.stdout.readline()):
            said += line
        url = re.search(r"Listening at: (http://\S+)", said)
        assert url and "gthread" in said, said
        client = urllib.request.build_opener(
            urllib.request.HTTPCookieProcessor(CookieJar())
        )
        client.open(f"{url[1]}/log-in", timeout=LIMIT)
        for year in range(2000, 2005):
            client.open(f"{url[1]}/reports/{year}", data=b"", timeout=LIMIT)
        server.send_signal(signal.SIGTERM)
        said += server.communicate(timeout=2 * LIMIT)[0]
    finally:
        server.poll() is None and os.killpg(server.pid, signal.SIGKILL)
    assert server.returncode == 0, said
    assert said.count("To ada: Your report") == 5, said
    assert "WorkerLost" not in said, said


def test_times_are_in_order() -> None:
    """Draining ends before gunicorn's patience, and that before the machine's."""
    (drain,) = set(
        re.findall(
            r"EXECUTOR_DRAIN_TIMEOUT=(\d+)", text_of(DOCS / "howto/realistic-app.rst")
        )
    )
    text = text_of(PRODUCTION)
    found = [re.findall(pattern, text) for pattern in (
        r"graceful_timeout = (\d+)", r"TimeoutStopSec=(\d+)",
        r"docker stop --time (\d+)", r"terminationGracePeriodSeconds: (\d+)",
    )]  # fmt: skip
    graceful, *machine = [int(one) for (one,) in found]
    assert int(drain) < graceful < min(machine)


def test_cron_command(tmp_path: Path) -> None:
    """The crontab's command runs the job and leaves."""
    unpack(PRODUCTION, tmp_path)
    (command,) = re.findall(r"bin/(flask --app tidy tidy)", text_of(PRODUCTION))
    done = subprocess.run(
        [sys.executable, "-m", *shlex.split(command)],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        timeout=LIMIT,
    )
    assert done.stdout == "deleted: 7\n", done.stderr


def test_no_file_of_the_page_is_empty() -> None:
    """The tests above see the files they mean to see."""
    names = {example.file for example in examples(PRODUCTION) if example.file}
    assert names == {"gunicorn.conf.py", "tidy.py"}
