"""Worker processes of every kind: what they inherit, and what tasks start in them."""

from __future__ import annotations

import multiprocessing
import subprocess
import sys
import typing as t
from pathlib import Path

import pytest
from limits import LIMIT
from scripts import environment

SCRIPT = """
import multiprocessing
import os
import signal
import sys
import threading

from flask import Flask
from flask_executor import Executor

import children_app

app = Flask("script")
app.config.update(
    EXECUTOR_TYPE=sys.argv[1],
    EXECUTOR_MAX_WORKERS=1,
    EXECUTOR_START_METHOD=sys.argv[2],
)
executor = Executor(app)

if __name__ == "__main__":
"""


class Ended(t.NamedTuple):
    code: int
    lines: list[str]
    errors: str


@pytest.fixture
def script(tmp_path: Path) -> t.Callable[..., Ended]:
    """Run a script, with the head above, to its end."""

    def run(kind: str, method: str, body: str) -> Ended:
        path = tmp_path / "script.py"
        path.write_text(SCRIPT + body)
        # Python 3.12 warns of each fork beside threads; here that is the point.
        options = ["-W", "ignore:This process:DeprecationWarning"]
        done = subprocess.run(
            [sys.executable, *options, str(path), kind, method],
            env=environment(),
            capture_output=True,
            text=True,
            timeout=LIMIT,
        )
        return Ended(done.returncode, done.stdout.splitlines(), done.stderr)

    return run


KINDS = [
    ("thread", "fork"),
    *(("process", method) for method in multiprocessing.get_all_start_methods()),
    *(("pebble", method) for method in multiprocessing.get_all_start_methods()),
]


@pytest.mark.parametrize(("kind", "method"), KINDS)
def test_a_process_of_a_task(
    script: t.Callable[..., Ended], kind: str, method: str
) -> None:
    """A process that a task forks ends with its own exit code: 0, or what it says."""
    ended = script(
        kind,
        method,
        """
    for code in (0, 5):
        print(executor.submit(children_app.forked, code).result(20))
""",
    )
    assert ended == (0, ["0", "5"], "")


@pytest.mark.parametrize("method", multiprocessing.get_all_start_methods())
def test_a_thread_that_a_task_leaves(
    script: t.Callable[..., Ended], method: str
) -> None:
    """A thread that goes on after its task runs to its end, which the worker awaits."""
    ended = script(
        "process",
        method,
        """
    executor.submit(children_app.leave_a_thread).result(20)
""",
    )
    assert ended == (0, ["the thread ends"], "")


METHODS = [(kind, method) for kind, method in KINDS if kind != "thread"]


@pytest.mark.parametrize(
    ("kind", "method", "mask"),
    [
        *((*pool, "*signal.valid_signals()") for pool in METHODS),
        ("process", "forkserver", "signal.SIGCHLD"),
        ("pebble", "forkserver", "signal.SIGCHLD"),
    ],
)
def test_a_thread_that_blocks_signals(
    script: t.Callable[..., Ended], kind: str, method: str, mask: str
) -> None:
    """A pool that it starts notices a dead worker, whose place another one takes; the
    worker blocks nothing, the pool's threads what they did, and the script ends.
    """
    ended = script(
        kind,
        method,
        f"""
    def view():
        signal.pthread_sigmask(signal.SIG_BLOCK, [{mask}])
        masks.append(children_app.blocked())
        future = executor.submit(children_app.blocked)
        future.add_done_callback(lambda _: masks.append(children_app.blocked()))
        print(future.result(20))
        lost = executor.submit(children_app.end_by, signal.SIGTERM)
        print(type(lost.exception(20)).__name__)
        print(executor.submit(abs, -1).result(20))

    app.config["EXECUTOR_LOG_EXCEPTIONS"] = False
    masks = []
    thread = threading.Thread(target=view)
    thread.start()
    thread.join()
    print(masks[0] == masks[1])
""",
    )
    assert ended == (0, ["[]", "WorkerLost", "1", "True"], "")


@pytest.mark.parametrize("kind", ["process", "pebble"])
@pytest.mark.parametrize("method", multiprocessing.get_all_start_methods())
def test_a_daemonic_process(
    script: t.Callable[..., Ended], kind: str, method: str
) -> None:
    """It may have no children, so a submit to worker processes is refused there, by
    name; coroutines run.
    """
    ended = script(
        kind,
        method,
        f"""
    context = multiprocessing.get_context("{method}")
    process = context.Process(target=children_app.submit, args=["{kind}"], daemon=True)
    process.start()
    process.join(20)
    print(process.exitcode)
""",
    )
    refused, *others = ended.lines
    assert refused.startswith("ChildrenNotAllowed builtins.abs was not accepted:")
    assert (ended.code, others, ended.errors) == (0, ["{}", "2", "0"], "")


@pytest.mark.parametrize("kind", ["thread", "process", "pebble"])
@pytest.mark.parametrize("method", multiprocessing.get_all_start_methods())
def test_a_process_of_multiprocessing(
    script: t.Callable[..., Ended], kind: str, method: str
) -> None:
    """At its end all runs that it had accepted, once, and it ends: also where its own
    parent has a pool.
    """
    ended = script(
        kind,
        method,
        f"""
    print(executor.submit(abs, -1).result(20), flush=True)
    context = multiprocessing.get_context("{method}")
    process = context.Process(target=children_app.submit_and_leave, args=sys.argv[1:])
    process.start()
    process.join(20)
    print(process.exitcode)
    process.kill()
""",
    )
    assert ended.lines == ["1", "note 0", "note 1", "note 2", "0"]
    assert ended.code == 0
    assert ended.errors.count("is drained: ") <= 1  # none if it was that quick
    assert "Traceback" not in ended.errors, ended.errors
