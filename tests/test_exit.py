"""Leaving the interpreter, and forking it: nothing hangs, nothing accepted is lost."""

from __future__ import annotations

import os
import select
import signal
import subprocess
import sys
import typing as t
from pathlib import Path

import pytest
from limits import LIMIT
from scripts import cannot_at_exit, environment, problems

HEAD = """
import asyncio
import os
import select
import signal
import sys
import threading

from flask import Flask
from flask_executor import Executor, ExecutorShutDown
import process_app

app = Flask("script")
app.config.update(
    EXECUTOR_MAX_WORKERS=1,
    PROCESSES_EXECUTOR_TYPE="process",
    PROCESSES_EXECUTOR_MAX_WORKERS=1,
    PROCESSES_EXECUTOR_START_METHOD=os.environ.get("METHOD"),
    SYNC_EXECUTOR_TYPE="sync",
)
executor = Executor(app)
processes = Executor(app, "processes")
sync = Executor(app, "sync")


def say(*words):
    os.write(1, (" ".join(map(str, words)) + "\\n").encode())


async def say_later(*words):
    for _ in range(5):
        await asyncio.sleep(0)
    say(*words)

"""


class Ended(t.NamedTuple):
    code: int
    lines: list[str]
    errors: str


@pytest.fixture
def script(tmp_path: Path) -> t.Callable[..., Ended]:
    """Run a script, with the head above, to its end."""

    def run(body: str, **env: str) -> Ended:
        with start(tmp_path, body, **env) as process:
            try:
                out, errors = process.communicate(timeout=LIMIT)
            finally:
                process.kill()
        return Ended(process.returncode, out.splitlines(), problems(errors))

    return run


def start(directory: Path, body: str, **env: str) -> subprocess.Popen[str]:
    path = directory / "script.py"
    path.write_text(HEAD + body)
    # Python 3.12 warns of each fork beside threads; here that is the point.
    options = ["-X", "faulthandler", "-W", "ignore:This process:DeprecationWarning"]
    return subprocess.Popen(
        [sys.executable, *options, str(path)],
        env=environment(measured=True, **env),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


@pytest.mark.holds("g-exit")
def test_exit_runs_what_was_accepted(script: t.Callable[..., Ended]) -> None:
    """At the end of a script all runs that was accepted: in line, and on the loop."""
    ended = script(
        """
if __name__ == "__main__":
    for number in range(3):
        executor.submit(say, "thread", number)
        executor.submit(say_later, "loop", number)
    say("end")
"""
    )
    assert (ended.code, ended.errors) == (0, "")
    assert sorted(ended.lines) == sorted(
        ["end", *(f"{kind} {n}" for kind in ("thread", "loop") for n in range(3))]
    )


@cannot_at_exit("threading.Thread(target=print).start()")
def test_exit_runs_what_coroutines_ask_of_threads(
    script: t.Callable[..., Ended],
) -> None:
    """A coroutine may still use a thread then; those are joined only afterwards."""
    ended = script(
        """
async def ask_a_thread():
    await asyncio.sleep(0)
    await asyncio.to_thread(say, "thread")


if __name__ == "__main__":
    executor.submit(ask_a_thread)
"""
    )
    assert ended == (0, ["thread"], "")


@pytest.mark.parametrize(
    "method",
    [
        pytest.param("fork", marks=cannot_at_exit("os.fork() or os._exit(0)")),
        "forkserver",
        "spawn",
    ],
)
@pytest.mark.holds("g-exit")
def test_exit_runs_what_processes_accepted(
    script: t.Callable[..., Ended], method: str
) -> None:
    """The same for worker processes, none of which outlives the script."""
    ended = script(
        """
if __name__ == "__main__":
    for number in range(3):
        processes.submit(say, "process", number)
    processes.submit(os.getpid).add_done_callback(lambda f: say("pid", f.result()))
""",
        METHOD=method,
    )
    assert (ended.code, ended.errors) == (0, "")
    *lines, last = ended.lines
    assert lines == ["process 0", "process 1", "process 2"]
    with pytest.raises(ProcessLookupError):
        os.kill(int(last.split()[1]), 0)


@pytest.mark.holds("g-exit")
def test_exit_code_is_the_scripts(script: t.Callable[..., Ended]) -> None:
    """sys.exit() with tasks in line runs them, and keeps its code."""
    ended = script(
        """
if __name__ == "__main__":
    executor.submit(say, "ran")
    sys.exit(3)
"""
    )
    assert (ended.code, ended.lines) == (3, ["ran"])


def test_submit_while_the_interpreter_ends(script: t.Callable[..., Ended]) -> None:
    """A submit that comes too late is refused, by each pool; it does not hang."""
    ended = script(
        """
import atexit


def late():
    for one, fn in ((executor, say), (executor, say_later), (processes, say)):
        try:
            one.submit(fn, "too late")
        except ExecutorShutDown as error:
            say("refused", str(error).partition(":")[0])


if __name__ == "__main__":
    atexit.register(late)
    for one, fn in ((executor, say), (executor, say_later), (processes, say)):
        one.submit(fn, "in time").result()
"""
    )
    assert (ended.code, ended.errors) == (0, "")
    refused = "refused cannot schedule new futures after shutdown"
    assert ended.lines == ["in time"] * 3 + [refused] * 3


def test_a_callback_submits_while_the_process_ends(
    script: t.Callable[..., Ended],
) -> None:
    """Then no executor accepts anything, from no code, as in the standard library."""
    ended = script(
        """
def submit_till_the_end(future):
    try:
        while True:
            executor.submit(abs, -1)
    except ExecutorShutDown as error:
        say("refused", isinstance(error, RuntimeError))
    try:
        sync.submit(abs, -1)  # it is used for the first time
    except ExecutorShutDown:
        say("refused")


if __name__ == "__main__":
    added = threading.Event()
    executor.submit(added.wait).add_done_callback(submit_till_the_end)
    added.set()
"""
    )
    assert ended == (0, ["refused True", "refused"], "")


def test_an_executor_that_was_never_used(script: t.Callable[..., Ended]) -> None:
    """Without a task there is no thread, no process, and nothing to end."""
    ended = script(
        """
if __name__ == "__main__":
    say(threading.active_count())
"""
    )
    assert ended == (0, ["1"], "")


@pytest.mark.holds("g-sigterm-plain", "g-lost")
def test_sigterm_to_a_plain_process(tmp_path: Path) -> None:
    """What runs, waits or is not due is lost with it, and nothing is said."""
    body = """
if __name__ == "__main__":
    begun = threading.Event()

    def run():
        begun.set()
        threading.Event().wait(30)
        say("ran")

    executor.submit(run)
    executor.submit(say, "in the queue")
    executor.using(delay=0.1).submit(say, "not due")
    begun.wait(30)
    say("submitted")
    threading.Event().wait(30)
"""
    with start(tmp_path, body) as process:
        assert process.stdout is not None and process.stderr is not None
        assert process.stdout.readline() == "submitted\n"
        process.terminate()
        assert process.wait(LIMIT) == -signal.SIGTERM
        assert process.stdout.read() + process.stderr.read() == ""


@pytest.mark.holds("g-exit")
def test_ctrl_c_while_waiting(tmp_path: Path) -> None:
    """Ctrl+C ends a wait for a result; what was accepted still runs."""
    body = """
if __name__ == "__main__":
    gate = threading.Event()
    future = executor.submit(gate.wait, 30)
    executor.submit(say, "ran")
    try:
        say("waiting")
        future.result()
    except KeyboardInterrupt:
        say("interrupted")
        gate.set()
"""
    with start(tmp_path, body) as process:
        try:
            assert process.stdout is not None
            assert process.stdout.readline() == "waiting\n"
            process.send_signal(signal.SIGINT)
            out, errors = process.communicate(timeout=LIMIT)
        finally:
            process.kill()
    assert (process.returncode, out) == (0, "interrupted\nran\n")
    assert problems(errors) == ""


@pytest.mark.holds("g-killed", "g-neighbours")
def test_workers_end_with_a_killed_parent(tmp_path: Path) -> None:
    """When the parent is killed, its worker processes end, too."""
    body = """
if __name__ == "__main__":
    processes.submit(say, "warm").result()
    say(processes.submit(os.getpid).result())
    signal.pause()
"""
    with start(tmp_path, body) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "warm\n"
        process.stdout.readline()
        process.kill()
        # Each of them holds the script's output open: with the last, it ends.
        assert select.select([process.stdout], [], [], LIMIT)[0]
        assert process.stdout.read() == ""


FORK = """
def fork(body):
    # Run in a forked child, which leaves as a script does.
    pid = os.fork()
    if not pid:
        try:
            body()
        except BaseException as error:
            say("child failed", repr(error))
        sys.exit(0)
    return pid


def code_of(pid):
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])


def in_child(body):
    return code_of(fork(body))

"""


@pytest.mark.parametrize("method", ["fork", "forkserver", "spawn"])
@pytest.mark.holds("g-fork", "g-fork-futures")
def test_a_forked_child_starts_anew(
    script: t.Callable[..., Ended], method: str
) -> None:
    """A child has pools of its own and no futures; the parent goes on with its own."""
    ended = script(
        FORK
        + """
def use(who):
    with app.app_context():
        say(who, executor.submit(abs, -1).result(), executor.futures.keys())
        say(who, executor.submit(asyncio.sleep, 0, 2).result())
        say(who, processes.submit(abs, -3).result())
        say(who, sync.submit(abs, -4).result())
        executor.submit_stored(who, abs, 0)


if __name__ == "__main__":
    use("parent")
    say("code", in_child(lambda: use("child")))
    say("code", in_child(lambda: None))
    use("same parent")
    say(executor.futures.keys())
""",
        METHOD=method,
    )
    assert (ended.code, ended.errors) == (0, "")
    assert ended.lines == [
        *("parent 1 []", "parent 2", "parent 3", "parent 4"),
        *("child 1 []", "child 2", "child 3", "child 4", "code 0", "code 0"),
        "same parent 1 ['parent']",
        *("same parent 2", "same parent 3", "same parent 4"),
        "['parent', 'same parent']",
    ]


def test_a_fork_at_any_moment(script: t.Callable[..., Ended]) -> None:
    """A fork beside threads that submit leaves a child that works, and ends."""
    ended = script(
        FORK
        + """
def submit_on(one, fn):
    while not done.is_set():
        one.submit(fn, -1).result()


def use():
    assert executor.submit(abs, -1).result(20) == 1
    assert executor.submit(asyncio.sleep, 0, 2).result(20) == 2
    assert processes.submit(abs, -3).result(20) == 3


if __name__ == "__main__":
    done = threading.Event()
    work = ((executor, abs), (executor, asyncio.sleep), (processes, abs))
    threads = [threading.Thread(target=submit_on, args=a) for a in work]
    use()  # all is imported then, as it is before a server forks
    for thread in threads:
        thread.start()
    children = [fork(use) for _ in range(8)]
    done.set()
    for thread in threads:
        thread.join()
    say([code_of(child) for child in children].count(0))
""",
        METHOD="forkserver",
    )
    assert (ended.code, ended.lines) == (0, ["8"]), ended.errors
