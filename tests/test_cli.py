"""The commands ``flask executor ...`` that show and change tasks."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
import typing as t
from datetime import UTC, datetime
from pathlib import Path

import pytest
from click.testing import Result
from flask import Flask
from flask.cli import ScriptInfo
from limits import LIMIT
from processes import Process, declare, reached, until
from scripts import PYTHONPATH, commands
from store_fixtures import empty_file, sqlite_url

from flask_executor import Executor, StoreUnavailable, bulk
from flask_executor.cli import executor as group
from flask_executor.cli import showing
from flask_executor.cli.watching import Overview

__all__ = ["empty_file", "sqlite_url"]

Invoke = t.Callable[..., Result]
SHORT = {"EXECUTOR_STORE_LEASE": 3}
EVIL = "\x1b[31mred\x1b]0;title\x07\x9b2J\r\u202e"
"""A text that would change colours, the title and the screen of a terminal."""


class Terminal:
    """The app as a command line sees it, in a process of its own."""

    def __init__(self, app: Flask) -> None:
        self._app = app

    def __call__(self, *words: str, code: int = 0) -> Result:
        """Run a command that must end with that code."""
        info = ScriptInfo(create_app=lambda: self._app, set_debug_flag=False)
        runner = self._app.test_cli_runner()
        found = runner.invoke(group, words, obj=info)
        assert found.exit_code == code, (found.output, found.exception)
        return found

    def json(self, *words: str, code: int = 0) -> list[t.Any]:
        """Return the objects that a command prints, one per line."""
        found = self(*words, "--json", code=code)
        return [json.loads(line) for line in found.stdout.splitlines()]


@pytest.fixture
def server(sqlite_url: str) -> t.Iterator[Process]:
    """A process that runs saved tasks."""
    made = Process(sqlite_url, **SHORT).serve()
    yield made
    made.close(cancel_futures=True)


@pytest.fixture
def shell(sqlite_url: str) -> t.Iterator[Process]:
    """The process in which commands are typed."""
    made = Process(sqlite_url, EXECUTOR_STORE_RUN=False, **SHORT)
    yield made
    made.close(cancel_futures=True)


@pytest.fixture
def flask(shell: Process) -> Terminal:
    return Terminal(shell.app)


def fail(text: str) -> None:
    raise ValueError(text)


def ended(process: Process, *futures: t.Any) -> None:
    for future in futures:
        future.exception(LIMIT)
        until(lambda future=future: process.record(future).finished)


def known_in(process: Process, job: str) -> None:
    """Return when a process sees that another one knows a job."""
    until(lambda: any(job in one.jobs for one in process.executor.workers()))


def failed(process: Process, text: str = "no") -> t.Any:
    """Let a task fail."""
    future = declare(process, fail, name="bad").submit(text)
    ended(process, future)
    return future


# What is there


def test_tasks_are_listed(server: Process, flask: Terminal) -> None:
    """Newest first, filtered, page by page."""
    assert flask("list").output == "No tasks.\n"
    assert flask.json("list") == []
    good = declare(server, lambda: None, name="good").using(meta={"n": 1})
    with server.app.test_request_context("/pay"):
        made = [good.submit_stored("k", *()), failed(server)]
    made.append(good.submit())
    ended(server, made[0], made[2])
    newest = [one.task.id for one in made][::-1]
    lines = flask("list").output.splitlines()
    assert lines[0].split() == ["id", "state", "age", "name", "key", "error"]
    assert [line.split()[0] for line in lines[1:]] == newest
    assert "failed" in lines[2]
    assert lines[2].endswith("ValueError")
    assert "'k'" in lines[3]
    page = flask("list", "--limit", "2").output.splitlines()
    assert page[-1] == f"For older ones add: --before {newest[1]}"
    [old] = flask.json("list", "--before", newest[1])
    assert (old["id"], old["key"], old["meta"]) == (newest[2], "k", {"n": 1})
    moment = datetime.fromisoformat(old["submitted_at"])
    assert old["submitted_at"].endswith("Z")
    assert moment.tzinfo is not None
    assert abs((datetime.now(UTC) - moment).total_seconds()) < LIMIT
    for words, number in (
        (("--request", old["request"]), 2),
        (("--request", "nobody"), 0),
        (("--state", "failed"), 1),
        (("--job", "good"), 2),
        (("--name", "bad"), 1),
        (("--error", "ValueError"), 1),
        (("--error", "KeyError"), 0),
        (("--group", "g"), 0),
        (("--parent", newest[0]), 0),
    ):
        assert len(flask.json("list", *words)) == number, words
    assert "'done' is not one of" in flask("list", "--state", "done", code=2).output
    said = flask("list", "--before", "nobody", code=3).output
    assert "There is no task 'nobody'" in said


def test_a_task_is_shown(server: Process, flask: Terminal) -> None:
    """By its id or its key: what is known, its attempts, its traceback."""
    future = declare(server, fail, name="bad").submit_stored("k", "no")
    ended(server, future)
    said = flask("show", future.task.id).output
    assert f"id              {future.task.id}\n" in said
    assert "state           failed\n" in said
    assert "error           no\n" in said
    assert "    1  failed after 0.0s: ValueError: no\n" in said
    assert "    raise ValueError(text)\n" in said
    assert "why             It has ended: it has failed with ValueError.\n" in said
    assert flask("show", "k").output.splitlines()[0] == said.splitlines()[0]
    [facts] = flask.json("show", "k")
    assert facts["attempts"][0]["error"] == "no"
    assert facts["why"]["code"] == "ended"
    assert "There is no task 'x'" in flask("show", "x", code=3).output


def test_why_a_task_waits(server: Process, flask: Terminal) -> None:
    """The sentence, and the code for programs."""
    future = declare(server, lambda: None).using(delay=7200).submit()
    id = future.task.id
    assert flask("why", id).output == "It is not due: that is in 2 hours.\n"
    [facts] = flask.json("why", id)
    assert (facts["id"], facts["code"]) == (id, "delayed")
    assert facts["facts"]["seconds"] == pytest.approx(7200, abs=LIMIT)
    flask("why", "x", code=3)


def test_nothing_can_control_the_terminal(
    server: Process, shell: Process, flask: Terminal
) -> None:
    """Names, keys, errors, meta: what does not print is shown as in Python."""
    job = declare(server, fail, name=EVIL)
    known_in(shell, EVIL)
    with server.app.test_request_context(f"/{EVIL[0]}x"):
        future = job.using(meta={EVIL: EVIL}).submit_stored(EVIL, EVIL)
    ended(server, future)
    id = future.task.id
    for words, code in (
        (("list",), 0),
        (("show", id), 0),
        (("show", EVIL), 0),
        (("why", id), 0),
        (("show", EVIL + "x"), 3),
        (("cancel", id), 5),
        (("pause", EVIL), 0),
        (("resume", EVIL), 0),
        (("pause", EVIL + "x"), 3),
        (("run", "x"), 3),
        (("status",), 0),
        (("top",), 0),
        (("stacks", "--timeout", str(LIMIT)), 0),
        (("stacks", EVIL), 3),
        (("retry", "--name", EVIL), 1),
        (("list", "--json"), 0),
        (("show", id, "--json"), 0),
    ):
        result = flask(*words, code=code)
        bad = {one for one in result.output if not one.isprintable()} - {"\n"}
        assert bad == set(), (words, bad)
    assert "\\x1b[31mred\\x1b]0;title\\x07\\x9b2J\\r\\u202e" in flask("list").output


@pytest.mark.parametrize(
    ("given", "shown"),
    [
        ("plain text, äöü 中 🙂", "plain text, äöü 中 🙂"),
        ("\x1b[0m", "\\x1b[0m"),
        ("a\nb\tc\0", "a\\nb\\tc\\x00"),
        ("\udc80\u2028\u200f", "\\udc80\\u2028\\u200f"),
    ],
)
def test_what_does_not_print_is_escaped(given: str, shown: str) -> None:
    """As in a Python string, so that people see what is there."""
    assert showing.escaped(given) == shown
    assert showing.escaped("a\nb", keep="\n") == "a\nb"


# How things stand


def test_the_status(server: Process, flask: Terminal) -> None:
    """Counts, the longest wait, processes: the exit code is 0 if all is well."""
    failed(server)
    said = flask("status").output.splitlines()
    assert said[0] == "healthy"
    assert said[1] == "tasks         1 failed"
    assert said[2] == "longest wait  none"
    assert said[3] == "processes     1 alive, 1 runs saved tasks; 0 of 2 slots busy"
    [facts] = flask.json("status")
    assert facts["healthy"]
    assert (facts["tasks"]["failed"], facts["oldest_wait"]) == (1, None)
    assert (facts["processes"], facts["runners"], facts["slots"]) == (1, 1, 2)


def test_an_unhealthy_status(shell: Process, flask: Terminal) -> None:
    """Tasks wait, and nobody runs them: the exit code is 1."""
    declare(shell, lambda: None).submit()
    said = flask("status", code=1).output
    assert said.startswith("unhealthy\n")
    assert "1 task waits, and no process is there that runs saved tasks: start" in said
    [facts] = flask.json("status", code=1)
    assert not facts["healthy"]
    assert len(facts["problems"]) == 1
    assert 0 <= facts["oldest_wait"] < LIMIT


def test_a_job_that_nobody_knows(
    server: Process, shell: Process, flask: Terminal
) -> None:
    """It is named, though another process runs saved tasks."""
    declare(shell, lambda: None, name="new").submit()
    until(lambda: shell.executor.workers())
    said = flask("status", code=1).output
    assert "tasks wait of the job new, which no process knows that runs tasks" in said


def test_health(server: Process, flask: Terminal, monkeypatch: t.Any) -> None:
    """0 if the store answers in time, 4 if it is away."""
    assert flask("health").output.startswith("The store answers, after ")
    [facts] = flask.json("health")
    assert facts["healthy"]
    monkeypatch.setattr("flask_executor.cli.watching._SLOW", 0.0)
    assert flask.json("health", code=1)[0]["healthy"] is False


def test_top_shows_what_runs(server: Process, flask: Terminal) -> None:
    """Once, if nobody looks; as often as it is told to."""
    began, gate = threading.Event(), threading.Event()

    def hold() -> None:
        began.set()
        gate.wait(LIMIT)

    future = declare(server, hold, name="long").submit()
    reached(began)
    until(lambda: server.record(future).state == "running")
    lines = flask("top").output.splitlines()
    assert lines[0] == "tasks         1 running"
    assert lines[-2].split() == ["id", "name", "for", "attempt", "progress"]
    assert lines[-1].split()[:2] == [future.task.id, "long"]
    found = flask.json("top", "--times", "2", "--interval", "0.1")
    assert [one["running"][0]["name"] for one in found] == ["long", "long"]
    gate.set()
    ended(server, future)


def test_top_goes_on_while_the_database_is_away(
    flask: Terminal, monkeypatch: pytest.MonkeyPatch
) -> None:
    """On a terminal it says so, and looks again; Ctrl-C ends it without a word."""
    looks = 0

    def of(executor: object) -> t.NoReturn:
        nonlocal looks
        looks += 1
        if looks == 3:
            raise KeyboardInterrupt
        raise StoreUnavailable("sqlite:///t.db", "it is gone")

    monkeypatch.setattr(Overview, "of", of)
    assert "it is gone" in flask("top", code=4).output
    monkeypatch.setattr(showing.Out, "is_terminal", True, raising=False)
    looks = 1
    monkeypatch.setattr(showing.Out, "__init__", _terminal)
    said = flask("top", "--interval", "0.1").output
    assert said.count("it is gone") == 1


def _terminal(out: showing.Out, as_json: bool) -> None:
    out.as_json, out.is_terminal = as_json, True


@pytest.mark.parametrize(
    ("variable", "value", "is_coloured"),
    [("NO_COLOR", "", True), ("NO_COLOR", "1", False), ("TERM", "dumb", False)],
)
def test_colours(
    monkeypatch: pytest.MonkeyPatch, variable: str, value: str, is_coloured: bool
) -> None:
    """Only on a terminal, and only if nobody minds."""
    monkeypatch.delenv("NO_COLOR", raising=False)
    monkeypatch.setenv("TERM", "xterm")
    out = showing.Out(False)
    out.is_terminal = False
    assert out.state("failed") == "failed"
    out.is_terminal = True
    monkeypatch.setenv(variable, value)
    assert ("\x1b[" in out.state("failed", 9)) == is_coloured
    assert out.state("waiting", 9) == "waiting  "


# Changes


def test_one_task_is_cancelled(server: Process, flask: Terminal) -> None:
    """By its id or its key; 5 if it has ended, 3 if there is none."""
    job = declare(server, lambda: None)
    first = job.using(delay=600).submit()
    second = job.using(delay=600).submit_stored("k")
    assert flask("cancel", first.task.id).output.endswith("is cancelled.\n")
    [facts] = flask.json("cancel", "k")
    assert facts == {"id": second.task.id, "state": "cancelled"}
    said = flask("cancel", first.task.id, code=5).output
    assert f"Task {first.task.id} has ended: it is cancelled." in said
    flask("cancel", "x", code=3)
    until(lambda: first.cancelled() and second.cancelled())


def test_a_task_that_runs_is_asked(server: Process, flask: Terminal) -> None:
    """It decides when it stops."""
    began, gate = threading.Event(), threading.Event()
    future = declare(server, lambda: began.set() or gate.wait(LIMIT)).submit()
    reached(began)
    until(lambda: server.record(future).state == "running")
    said = flask("cancel", future.task.id).output
    assert said == f"Task {future.task.id} was asked to stop.\n"
    gate.set()
    ended(server, future)


def test_several_tasks_are_cancelled(server: Process, flask: Terminal) -> None:
    """Those after one that fails, too; the worst code counts."""
    job = declare(server, lambda: None).using(delay=600)
    first, second = job.submit(), job.submit()
    said = flask("cancel", first.task.id, "x", second.task.id, code=3).output
    assert said.count("is cancelled.") == 2
    assert "Error: There is no task 'x'" in said


def test_a_failed_task_is_run_again(server: Process, flask: Terminal) -> None:
    """As a new one, by another process; what cannot be is a conflict."""
    future = failed(server)
    [facts] = flask.json("retry", future.task.id)
    assert facts["retried_from"] == future.task.id
    until(lambda: server.executor.task(facts["id"]).state == "failed")
    assert "runs again as " in flask("retry", facts["id"]).output
    job = declare(server, lambda: None, guarantee="ephemeral", name="plain")
    plain = job.submit_stored("k")
    ended(server, plain)
    said = flask("retry", "k", code=5).output
    assert f"Task {plain.task.id} (plain) cannot be run again" in said


def test_what_matches_is_counted_first(server: Process, flask: Terminal) -> None:
    """Nothing is changed without --yes; the exit code says that it was not."""
    job = declare(server, lambda: None, name="mine").using(delay=600)
    made = [job.submit() for _ in range(3)]
    words = "cancel", "--job", "mine"
    said = flask(*words, code=1).output
    assert said == "3 tasks match.\nNothing was changed: add --yes to cancel them.\n"
    assert flask.json(*words, code=1) == [{"matched": 3, "done": 0}]
    assert not any(future.done() for future in made)
    said = flask(*words, "--yes").output
    assert said == "3 tasks of 3 cancelled, or asked to stop.\n"
    assert flask(*words, "--yes").output == flask(*words).output == "0 tasks match.\n"
    until(lambda: all(future.cancelled() for future in made))


def test_all_that_failed_is_run_again(
    server: Process, flask: Terminal, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What is refused is said, and is a conflict."""
    failed(server)
    job = declare(server, lambda: fail("x"), guarantee="ephemeral", name="plain")
    ended(server, job.submit_stored("k"))
    monkeypatch.setattr(bulk, "MOST", 2)
    assert (
        "2 tasks or more match." in flask("retry", "--state", "failed", code=1).output
    )
    result = flask("retry", "--state", "failed", "--yes", code=5)
    assert result.stdout.startswith("1 task of 2 run again.\nTask ")
    assert "its arguments were not saved" in result.stdout
    assert "1 task not: ended meanwhile, or refused." in result.stderr


@pytest.mark.parametrize(
    "words",
    [
        ("cancel",),
        ("cancel", "--yes"),
        ("retry", "x", "--job", "j"),
        ("cancel", "--state", "failed"),
        ("retry", "--state", "waiting"),
        ("show",),
        ("purge", "--older", "soon"),
        ("drain",),
        ("drain", "x", "--all"),
        ("nonsense",),
    ],
)
def test_wrong_usage(flask: Terminal, words: tuple[str, ...]) -> None:
    """The exit code is 2, and nothing is changed."""
    flask(*words, code=2)


def test_jobs_are_paused_and_resumed(
    server: Process, shell: Process, flask: Terminal
) -> None:
    """For every process; a slip in the name is found."""
    declare(server, lambda: None, name="mail.send")
    known_in(shell, "mail.send")
    assert flask("pause", "mail.send").output == "The job mail.send is paused.\n"
    assert server.store.paused() == ["mail.send"]
    said = flask("pause", "mail.sent", code=3).output
    assert "with the name 'mail.sent'; did you mean 'mail.send'?" in said
    assert flask.json("resume", "mail.send") == [{"job": "mail.send", "paused": False}]
    assert server.store.paused() == []


# Jobs


def test_a_job_with_a_guarantee_is_left_to_others(
    server: Process, shell: Process, flask: Terminal
) -> None:
    """It is saved, and the command does not wait for it."""
    seen: list[t.Any] = []
    for process in (server, shell):
        declare(process, lambda *args: seen.append(args), name="note")
    [facts] = flask.json("run", "note", "7", "tea", '{"a": null}')
    until(lambda: seen)
    assert seen == [(7, "tea", {"a": None})]
    assert server.executor.task(facts["id"]).worker == server.node.presence.me


def test_a_job_that_nobody_would_run(shell: Process, flask: Terminal) -> None:
    """It is saved all the same, and the command says what is missing."""
    declare(shell, lambda: None, name="note")
    result = flask("run", "note")
    assert result.stdout.endswith(" is saved.\n")
    assert "No process is there that runs saved tasks" in result.stderr


def test_any_other_job_runs_here(shell: Process, flask: Terminal) -> None:
    """The command ends as the task does."""
    seen: list[int] = []
    declare(shell, seen.append, name="note", guarantee="ephemeral")
    declare(shell, fail, name="bad", guarantee="ephemeral")
    assert flask("run", "note", "7").output.endswith("it is succeeded.\n")
    assert seen == [7]
    result = flask("run", "bad", "it broke", code=1)
    assert "bad has not succeeded: ValueError: it broke" in result.stderr
    [facts] = flask.json("run", "bad", "it broke", code=1)
    assert (facts["state"], facts["error_class"]) == ("failed", "ValueError")


def test_a_job_that_is_not_declared(shell: Process, flask: Terminal) -> None:
    """The names that are declared are listed."""
    said = flask("run", "x", code=3).output
    assert "No job is declared with the name 'x', nor with any other" in said
    declare(shell, lambda: None, name="mail.send")
    declare(shell, lambda: None, name="tidy")
    said = flask("run", "xyz", code=3).output
    assert "with the name 'xyz'; there are: mail.send, tidy." in said


# Processes


def test_stacks_of_processes(server: Process, flask: Terminal) -> None:
    """Of all, or of one by its id or place; what runs a task is named."""
    began, gate = threading.Event(), threading.Event()

    def hold_on() -> None:
        began.set()
        gate.wait(LIMIT)

    future = declare(server, hold_on, name="long").submit()
    reached(began)
    [worker] = server.executor.workers()
    place = f"{worker.host}:{worker.pid}"
    patient = "stacks", "--timeout", str(LIMIT)  # the machine may be busy
    said = flask(*patient).output
    assert said.startswith(f"{place} {worker.id}\n  executor_0 runs long (")
    assert "in hold_on\n" in said
    found = flask.json(*patient, place)
    assert (found[0]["worker"], found[0]["task_id"]) == (worker.id, future.task.id)
    assert "There is no process 'x'" in flask("stacks", "x", code=3).output
    said = flask("stacks", worker.id, "--timeout", "0", code=1).output
    assert f"Process {place} has not told its stacks" in said
    gate.set()
    ended(server, future)


def test_a_server_is_not_drained(server: Process, flask: Terminal) -> None:
    """It is said that it goes on."""
    until(lambda: server.executor.workers())
    [worker] = server.executor.workers()
    said = flask("drain", worker.id, code=1).output
    assert "is no dedicated worker, and goes on" in said
    assert "No dedicated worker" in flask("drain", "--all", code=3).output
    assert not server.executor._state().dispatcher.table.closed


def test_nobody_is_there(flask: Terminal) -> None:
    """3: no process is found."""
    assert "No process is alive" in flask("stacks", code=3).output


# What is stored


def test_what_has_ended_is_removed(server: Process, flask: Terminal) -> None:
    """After its number is known, by state and age."""
    job = declare(server, lambda: None)
    ended(server, job.submit(), failed(server))
    assert flask("purge").output == "0 tasks ended so long ago.\n", "not for days"
    words = "purge", "--older", "0s"
    said = flask(*words, code=1).output
    assert said == "2 tasks ended so long ago.\nNothing was removed: add --yes.\n"
    [facts] = flask.json(*words, "--state", "failed", "--yes")
    assert facts == {"matched": 1, "done": 1}
    assert flask(*words, "--yes").output == "1 task removed.\n"
    assert server.executor.tasks() == []
    assert flask("purge", "--older", "2h").output == "0 tasks ended so long ago.\n"


# The store


@pytest.mark.parametrize(
    "words",
    [
        ("status",),
        ("list",),
        ("show", "x"),
        ("why", "x"),
        ("cancel", "x"),
        ("retry", "x"),
        ("pause", "x"),
        ("stacks",),
        ("top",),
        ("health",),
        ("drain", "--all"),
        ("purge",),
    ],
)
def test_without_a_store(app: Flask, words: tuple[str, ...]) -> None:
    """One sentence says why nothing of other processes can be seen."""
    Executor(app)
    said = Terminal(app)(*words, code=1).output
    assert "Error: EXECUTOR_STORE is not set, so there is no store, and this" in said
    assert "each process knows only its own" in said
    assert "'sqlite:///tasks.db'" in said


def test_a_job_runs_without_a_store(app: Flask, executor: Executor) -> None:
    """In this process, by its name."""
    job = executor.job(name="add")(lambda x, y: x + y)
    assert job(1, 2) == 3
    assert Terminal(app)("run", "add", "1", "2").output.endswith("it is succeeded.\n")


@pytest.mark.parametrize(
    "words",
    [("status",), ("list",), ("show", "x"), ("cancel", "x"), ("top",), ("purge",)],
)
def test_a_database_that_is_away(app: Flask, words: tuple[str, ...]) -> None:
    """The exit code is 4."""
    app.config["EXECUTOR_STORE"] = "postgresql://db@127.0.0.1:1/x"
    executor = Executor(app)
    assert "is not available" in Terminal(app)(*words, code=4).output
    executor.shutdown()
    executor._states[app].dispatcher.node.leaving.close()


APP = """
from flask import Flask
from flask_executor import Executor
app = Flask("cli_app")
app.config.update(SECRET_KEY="x", EXECUTOR_STORE={url!r}, EXECUTOR_STORE_LEASE=3)
executor = Executor(app)
mail = Executor(app, name="mail")
app.config["MAIL_EXECUTOR_STORE"] = {url!r}

@executor.job(name="double", guarantee="at_least_once")
def double(number):
    return 2 * number
"""


class RealFlask:
    """Runs ``flask`` as people do."""

    def __init__(self, folder: Path, url: str) -> None:
        (folder / "cli_app.py").write_text(APP.format(url=url))
        folders = str(commands(folder)), str(folder), PYTHONPATH
        self.env = {**os.environ, "PYTHONPATH": os.pathsep.join(folders)}

    def start(self, *words: str) -> subprocess.Popen[str]:
        return subprocess.Popen(
            [sys.executable, "-m", "flask", "--app", "cli_app", "executor", *words],
            env=self.env,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )

    def __call__(self, *words: str) -> tuple[int, str, str]:
        process = self.start(*words)
        out, err = process.communicate(timeout=LIMIT)
        return process.returncode, out, err


@pytest.fixture
def real(tmp_path: Path, sqlite_url: str) -> RealFlask:
    return RealFlask(tmp_path, sqlite_url)


def test_real_processes(real: RealFlask, shell: Process) -> None:
    """A task is submitted, run by a worker that is drained then, and seen."""
    code, out, err = real("run", "double", "21")
    assert (code, out.endswith(" is saved.\n")) == (0, True), err
    assert "No process is there that runs saved tasks" in err
    worker = real.start("worker", "--name", "press")
    try:
        until(lambda: shell.executor.counts()["succeeded"])
        code, out, err = real("drain", "press")
        assert (code, err) == (0, "")
        assert out.endswith("press drains.\n")
        assert worker.wait(LIMIT) == 0
    finally:
        worker.kill()
        said = worker.communicate(timeout=LIMIT)[1]
    assert "press drains: 0 to finish." in said
    [task] = [json.loads(line) for line in real("list", "--json")[1].splitlines()]
    assert (task["job"], task["state"], task["attempt"]) == ("double", "succeeded", 1)
    code, _, err = real("list", "--executor", "male")
    assert code == 3
    assert "has no executor named 'male', only '', mail" in err


def test_the_executor_is_chosen(shell: Process, flask: Terminal) -> None:
    """Each has its own tables, of which nothing is there yet."""
    config = shell.app.config
    mail = Executor(name="mail")
    config["MAIL_EXECUTOR_STORE"] = config["EXECUTOR_STORE"]
    mail.init_app(shell.app)
    declare(shell, lambda: None).submit()
    assert flask("list", "--executor", "mail").output == "No tasks.\n"
    assert flask.json("status", "--executor", "mail")[0]["processes"] == 0
    assert len(flask.json("list")) == 1
    with shell.app.app_context():
        mail.shutdown()
        mail._state().dispatcher.node.leaving.close()


LAZY = """
import sys
from flask.cli import main
try:
    main()
finally:
    names = "flask_executor.cli.", "sqlalchemy"
    print(sorted(m for m in sys.modules if m.startswith(names)), file=sys.stderr)
"""


def test_commands_are_imported_when_they_are_called(real: RealFlask) -> None:
    """``flask --help`` imports none of them, and neither that nor ours SQLAlchemy."""

    def imported(*words: str) -> tuple[str, list[str]]:
        run = [sys.executable, "-c", LAZY, "--app", "cli_app", *words]
        found = subprocess.run(
            run, env=real.env, capture_output=True, text=True, timeout=LIMIT
        )
        assert found.returncode == 0, found.stderr
        return found.stdout, json.loads(found.stderr.strip().replace("'", '"'))

    text, modules = imported("--help")
    assert "executor" in text
    assert modules == []
    text, modules = imported("executor", "--help")
    assert not any(name.startswith("sqlalchemy") for name in modules)
    for name in ("status", "list", "purge", "worker", "store"):
        assert f"\n  {name} " in text
    _, modules = imported("executor", "run", "--help")
    ours = "common", "jobs", "showing"
    assert modules == [f"flask_executor.cli.{name}" for name in ours]
