"""The names of jobs: where a saved task finds its function, in every process."""

from __future__ import annotations

import gc
import importlib
import sys
import typing as t
import weakref
from functools import partial
from pathlib import Path

import pytest
from flask import Flask
from limits import LIMIT

from flask_executor import (
    DuplicateJobName,
    Executor,
    ExecutorJob,
    InvalidOption,
    JobNotStorable,
    UnsupportedOption,
)
from flask_executor.job_names import job_name


def send(to: str = "ada") -> str:
    return f"sent to {to}"


def store() -> None: ...


class Mailer:
    def send(self) -> None: ...

    @classmethod
    def open(cls) -> None: ...

    def __call__(self) -> None: ...


def find(executor: Executor, name: str) -> t.Any:
    return executor._job_names.find(name)


def test_a_job_is_found_by_its_name(executor: Executor) -> None:
    """By default that is the module and the qualified name of its function."""
    job = executor.job(send)
    assert job_name(job) == f"{__name__}.send"
    assert find(executor, f"{__name__}.send") is job
    assert find(executor, "send") is None
    opened = executor.job(Mailer.open)
    assert find(executor, f"{__name__}.Mailer.open") is opened


def test_a_stable_name(executor: Executor) -> None:
    """With the option name a function can move; aliases are names it had before."""
    job = executor.job(name="mail.send", aliases=("mail.deliver", "send"))(send)
    for name in ("mail.send", "mail.deliver", "send"):
        assert find(executor, name) is job
    assert find(executor, f"{__name__}.send") is None
    assert sorted(executor._job_names.known()) == ["mail.deliver", "mail.send", "send"]
    assert job.submit("eve").result(LIMIT) == "sent to eve"
    future = job.submit()
    future.result(LIMIT)
    assert future.task.name == "mail.send", "the log calls it so, too"
    assert "aliases" not in job.options


def test_the_name_of_a_call_is_for_logs(executor: Executor) -> None:
    """The name that a view of a job has does not change under which it is saved."""
    job = executor.job(name="mail.send")(send)
    view = job.using(name="to ada")
    assert job_name(view) == "mail.send"
    assert find(executor, "to ada") is None


def test_two_functions_of_one_name(executor: Executor) -> None:
    """They are refused where the second is declared, and both are named."""
    first = executor.job(name="mail.send", aliases=["mail.deliver"])(send)
    for options in (
        {"name": "mail.send"},
        {"name": "mail.deliver"},
        {"aliases": ("mail.deliver",)},
        {"name": "other", "aliases": ("mail.send",)},
    ):
        with pytest.raises(DuplicateJobName) as info:
            executor.job(**t.cast(t.Any, options))(store)
        assert isinstance(info.value, ValueError)
        for word in (f"{__name__}.send (", f"{__name__}.store (", ".py, line "):
            assert word in str(info.value)
    assert find(executor, "mail.send") is first
    assert find(executor, "other") is None, "nothing of a refused one is declared"
    own_name = executor.job(store)
    with pytest.raises(DuplicateJobName, match=r"store' is the name of the job"):
        executor.job(name=f"{__name__}.store")(send)
    assert find(executor, f"{__name__}.store") is own_name


def test_each_executor_has_its_own(app: Flask, executor: Executor) -> None:
    """Jobs of two executors may have one name."""
    other = Executor(app, name="other")
    one = executor.job(name="mail")(send)
    two = other.job(name="mail")(store)
    assert find(executor, "mail") is one and find(other, "mail") is two
    other.shutdown()


def test_one_function_declared_twice(executor: Executor) -> None:
    """The last declaration counts, with its options."""
    first = executor.job(name="mail.send")(send)
    second = executor.job(name="mail.send", priority=5)(send)
    assert find(executor, "mail.send") is second
    quick = executor.job(name="mail.quick")(send)
    assert find(executor, "mail.quick") is quick, "one function may be two jobs"
    assert first.submit().result(LIMIT) == "sent to ada"


def test_a_module_that_is_reloaded(
    executor: Executor, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its functions are declared anew, also if they have moved in it."""
    text = "from tests_hold import executor\n@executor.job(name='m')\ndef f(): {}\n"
    monkeypatch.setitem(sys.modules, "tests_hold", t.cast(t.Any, Holder(executor)))
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setattr(sys, "dont_write_bytecode", True)
    (tmp_path / "reloaded_jobs.py").write_text(text.format("return 1"))
    module: t.Any = importlib.import_module("reloaded_jobs")
    assert find(executor, "m")() == 1
    (tmp_path / "reloaded_jobs.py").write_text("\n\n" + text.format("return 2 "))
    importlib.invalidate_caches()
    importlib.reload(module)
    assert find(executor, "m") is module.f
    assert find(executor, "m")() == 2
    del sys.modules["reloaded_jobs"]


class Holder:
    def __init__(self, executor: Executor) -> None:
        self.executor = executor


def test_what_has_no_name_of_its_own(executor: Executor) -> None:
    """A lambda, a partial, a method or a callable object needs the option name."""
    first, second = partial(send, "ada"), partial(send, "eve")
    of_send = executor.job(send)
    unnamed: list[t.Any] = [lambda: 1, first, second, Mailer().send, Mailer()]
    jobs = [executor.job(fn) for fn in unnamed]
    assert [job_name(job) for job in jobs] == [None] * 5
    assert executor._job_names.known() == [f"{__name__}.send"]
    assert find(executor, f"{__name__}.send") is of_send
    for number, fn in enumerate(unnamed):
        named = executor.job(name=f"job {number}")(fn)
        assert job_name(named) == f"job {number}"
        assert find(executor, f"job {number}") is named


def test_nameless_code_under_one_name(executor: Executor) -> None:
    """Code that is declared again is one job; other code is refused."""

    def declare(number: int) -> t.Any:
        return executor.job(name="later")(lambda: number)

    first, second = declare(1), declare(2)
    assert find(executor, "later") is second is not first
    with pytest.raises(DuplicateJobName):
        executor.job(name="later")(lambda: 3)
    held = executor.job(name="part")(partial(send, "ada"))
    assert find(executor, "part") is held
    again = executor.job(name="part")(partial(send, "eve"))
    assert find(executor, "part") is again
    with pytest.raises(DuplicateJobName):
        executor.job(name="part")(Mailer())


def test_what_a_task_is_saved_under(executor: Executor) -> None:
    """A job that every process finds has its name; anything else is refused."""
    job = executor.job(name="mail.send")(send)
    save = executor._job_names.name_to_save
    assert save(job) == save(job.using(name="to ada")) == "mail.send"
    again = executor.job(name="mail.send", priority=1)(send)
    assert save(job) == save(again) == "mail.send", "both run one function"
    other = Executor(name="other")
    for refused, reason in (
        (send, r"test_job_names\.send cannot be saved: it is not declared"),
        (
            executor.job(lambda: 1),
            r"no name of its own: declare it with @executor\.job",
        ),
        (executor.job(Mailer()), "no name of its own"),
        (other.job(name="x")(send), "x cannot be saved: it is declared on another"),
    ):
        with pytest.raises(JobNotStorable, match=reason):
            save(refused)


def test_an_earlier_declaration(executor: Executor) -> None:
    """It is refused if the last one, which would run after a crash, may differ."""

    def declare(number: int) -> t.Any:
        @executor.job
        def bound() -> int:
            return number

        @executor.job
        def free() -> int:
            return 1

        return bound, free

    save = executor._job_names.name_to_save
    (first, first_free), (second, second_free) = declare(1), declare(2)
    with pytest.raises(JobNotStorable, match=r"bound cannot be saved: it was declared"):
        save(first)
    assert save(second).endswith("declare.<locals>.bound")
    assert save(first_free) == save(second_free)
    parts = [executor.job(name="part")(partial(send, to)) for to in ("ada", "eve")]
    with pytest.raises(JobNotStorable, match="bound to other variables"):
        save(parts[0])
    assert save(parts[1]) == "part"


def declared_in_a_view(executor: Executor, big: object) -> ExecutorJob[..., t.Any]:
    @executor.job(name="in.view", aliases=("of.view",))
    def job() -> object:
        return big

    return job


class Big:
    """Something that a request holds."""


def test_jobs_of_a_view_are_forgotten(executor: Executor) -> None:
    """A job is not kept for its name: with its last user it goes, and what it holds."""
    seen: list[weakref.ref[t.Any]] = []
    for _ in range(3):
        big = Big()
        job = declared_in_a_view(executor, big)
        seen += [weakref.ref(big), weakref.ref(job)]
        assert find(executor, "in.view") is find(executor, "of.view") is job
        assert job.submit().result(LIMIT) is big
    del job, big
    executor.shutdown()
    gc.collect()
    assert [ref() for ref in seen] == [None] * 6
    assert executor._job_names.known() == []
    executor.job(name="in.view")(send)  # the name is free again


def test_jobs_of_an_app_factory(executor: Executor) -> None:
    """A job that views of the app use is found as long as the app is there."""

    def create_app() -> Flask:
        app = Flask("made")

        @executor.job
        def greet() -> str:
            return "hello"

        app.add_url_rule("/", view_func=lambda: greet.submit().result(LIMIT))
        return app

    app = create_app()
    name = f"{__name__}.{test_jobs_of_an_app_factory.__name__}.<locals>.create_app"
    name += ".<locals>.greet"
    first = weakref.ref(find(executor, name))
    executor.init_app(app)
    gc.collect()
    assert app.test_client().get("/").text == "hello"
    assert find(executor, name) is first() is not None
    newer = create_app()
    assert find(executor, name) is not first()
    executor.shutdown()
    del newer


@pytest.mark.parametrize("aliases", ["mail", ("mail", 3), (None,), ("",), 7, None])
def test_aliases_are_texts(executor: Executor, aliases: t.Any) -> None:
    """Anything else is refused, a text alone, too: its letters would be the names."""
    with pytest.raises(InvalidOption, match=r"aliases = .* use a tuple of texts"):
        executor.job(aliases=aliases)(send)


def test_aliases_are_the_jobs(executor: Executor) -> None:
    """One call has no aliases: the error says where they belong."""
    job = executor.job(send)
    for using in (executor.using, executor.using().using, job.using):
        with pytest.raises(UnsupportedOption, match=r"@executor\.job\(aliases="):
            t.cast(t.Any, using)(aliases=("x",))


def test_declared_before_init_app(app: Flask) -> None:
    """A job that is declared before there is an app is found, too."""
    executor = Executor()
    job = executor.job(name="early")(send)
    executor.init_app(app)
    assert find(executor, "early") is job
    executor.shutdown()
