"""Config keys: every value is understood or refused by name."""

from __future__ import annotations

import logging
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor
from dataclasses import fields

import pytest
from flask import Flask, g
from limits import LIMIT

from flask_executor import Executor, InvalidSetting
from flask_executor.settings import KEEP, Settings, config_key

KEPT = {"failed": 60.0, "succeeded": None}


@pytest.mark.parametrize(
    ("key", "value", "meant"),
    [
        ("TYPE", "Thread", "thread"),
        ("TYPE", " PROCESS ", "process"),
        ("TYPE", "sync", "sync"),
        ("MAX_WORKERS", "5", 5),
        ("MAX_WORKERS", "", None),
        ("MAX_WORKERS", None, None),
        ("FUTURES_MAX_LENGTH", "100", 100),
        ("FUTURES_TTL", "1.5", 1.5),
        ("FUTURES_TTL", "None", None),
        ("PROPAGATE_EXCEPTIONS", "YES", True),
        ("PROPAGATE_EXCEPTIONS", "f", False),
        ("LOG_EXCEPTIONS", "0", False),
        ("LOG_EXCEPTIONS", 1, True),
        ("PUSH_APP_CONTEXT", "No", False),
        ("PUSH_APP_CONTEXT", "t", True),
        ("COPY_G", "ALL", "all"),
        ("START_METHOD", "Spawn", "spawn"),
        ("START_METHOD", "", None),
        ("APP", "wsgi:app", "wsgi:app"),
        ("MAX_WORKERS", 3.0, 3),
        ("MAX_WORKERS", "3.0", 3),
        ("RETRY", 2.0, 2),
        ("FUTURES_MAX_LENGTH", 0, 0),
        ("FUTURES_MAX_LENGTH", "0", 0),
        ("FUTURES_TTL", None, None),
        ("TYPE", "SYNC", "sync"),
        ("START_METHOD", " NONE ", None),
        ("STORE", "sqlite:///tasks.db", "sqlite:///tasks.db"),
        ("STORE", " flask-sqlalchemy ", "flask-sqlalchemy"),
        ("STORE", "none", None),
        ("GUARANTEE", "At_Least_Once", "at_least_once"),
        ("STORE_RUN", "no", False),
        ("STORE_LEASE", "12.5", 12.5),
        ("STORE_MAX_LOST", "5", 5),
        ("STORE_KEEP", {"failed": "60", "succeeded": None}, KEPT),
        ("STORE_KEEP", {}, {}),
    ],
)
def test_values_are_understood(key: str, value: object, meant: object) -> None:
    """Strings from the environment are read in any case."""
    settings = Settings.read({f"MY_EXECUTOR_{key}": value}, "MY_")
    assert getattr(settings, key.lower()) == meant


@pytest.mark.parametrize(
    ("key", "value", "allowed"),
    [
        ("MAX_WORKERS", "0", "whole number above 0"),
        ("MAX_WORKERS", -1, "None or a whole number"),
        ("MAX_WORKERS", "many", "whole number"),
        ("MAX_WORKERS", 2.5, "whole number"),
        ("MAX_WORKERS", True, "whole number"),
        ("FUTURES_MAX_LENGTH", "x", "whole number"),
        ("FUTURES_TTL", "soon", "seconds"),
        ("FUTURES_TTL", -1, "seconds"),
        ("FUTURES_TTL", True, "seconds"),
        ("FUTURES_TTL", "inf", "seconds"),
        ("PROPAGATE_EXCEPTIONS", "maybe", "'true'"),
        ("PUSH_APP_CONTEXT", "on", "True or False"),
        ("MAX_WORKERS", [], "whole number"),
        ("FUTURES_TTL", "nan", "seconds"),
        ("MAX_WORKERS", "2.5", "whole number"),
        ("MAX_WORKERS", float("inf"), "whole number"),
        ("MAX_PENDING", float("nan"), "whole number"),
        ("FUTURES_MAX_LENGTH", -1, "None or a whole number, 0 or more"),
        ("COPY_G", "some", "'safe', 'all', 'none'"),
        ("START_METHOD", "teleport", "'spawn'"),
        ("APP", "no-colon", "'module:app'"),
        ("APP", 3, "'module:app'"),
        ("STORE", "tasks.db", "'sqlite:///tasks.db', 'postgresql+psycopg://...'"),
        ("STORE", 3, "or 'flask-sqlalchemy'"),
        ("GUARANTEE", "exactly_once", "'at_most_once', 'at_least_once'"),
        ("STORE_RUN", "web", "True or False"),
        ("STORE_LEASE", 0, "a number of seconds above 0"),
        ("STORE_MAX_LOST", 0, "a whole number above 0"),
        ("STORE_KEEP", 60, "a dictionary of seconds, or None, by state: succeeded"),
        ("STORE_KEEP", {"running": 60}, "timed_out, interrupted"),
        ("STORE_KEEP", {"failed": -1}, "a dictionary of seconds"),
        ("TIMEOUT", 0, "seconds above 0"),
    ],
)
def test_values_are_refused(key: str, value: object, allowed: str) -> None:
    """Anything else names the key, the value and what is allowed."""
    with pytest.raises(ValueError) as info:
        Settings.read({f"MY_EXECUTOR_{key}": value}, "MY_")
    assert isinstance(info.value, InvalidSetting)
    message = str(info.value)
    assert f"MY_EXECUTOR_{key}" in message
    assert repr(value) in message
    assert allowed in message


@pytest.mark.parametrize("blank", ["", "  ", None])
def test_blank_is_not_set(blank: str | None) -> None:
    """None, and a text without content, is the default, whatever the key."""
    config = {config_key("MY_", spec.name): blank for spec in fields(Settings)}
    if blank is None:  # keeps what has finished
        del config["MY_EXECUTOR_FUTURES_TTL"]
    assert Settings.read(config, "MY_") == Settings()


@pytest.mark.parametrize(
    ("key", "nearest"),
    [
        ("EXECUTOR_MAX_WORKER", "EXECUTOR_MAX_WORKERS"),
        ("EXECUTOR_WORKERS", "EXECUTOR_MAX_WORKERS"),
        ("EXECUTOR_TPYE", "EXECUTOR_TYPE"),
        ("EXCUTOR_TYPE", "EXECUTOR_TYPE"),
        ("EXECUTORS_MAX_WORKERS", "EXECUTOR_MAX_WORKERS"),
        ("CUSTOM_EXECUTOR_TPYE", "CUSTOM_EXECUTOR_TYPE"),
        ("CUSTOM_EXECUTOR_PROPAGATE_EXCEPTION", "CUSTOM_EXECUTOR_PROPAGATE_EXCEPTIONS"),
    ],
)
def test_a_misspelt_key(
    app: Flask, caplog: pytest.LogCaptureFixture, key: str, nearest: str
) -> None:
    """It is a warning in the app's log that names the nearest key, once."""
    app.config[key] = 3
    with Executor(app) as plain, Executor(app, name="custom") as custom:
        for executor in (plain, custom) * 2:
            assert executor.submit(abs, -1).result(LIMIT) == 1
    (record,) = caplog.records
    assert (record.name, record.levelno) == ("tests", logging.WARNING)
    assert record.getMessage() == (
        f"{key} is not a setting of Flask-Executor: did you mean {nearest}?"
    )


def test_keys_that_are_not_ours(app: Flask, caplog: pytest.LogCaptureFixture) -> None:
    """Keys of other extensions, of the app and of other executors are left alone."""
    app.config.update(
        SCHEDULER_EXECUTORS={"default": {"type": "threadpool"}},
        EXECUTOR_URL="http://executor",
        EXECUTOR_GRPC_CHANNEL="x",
        EXECUTOR="x",
        EXECUTIVE_SUMMARY="x",
        MAIL_EXECUTOR_TYPE="process",
        MAIL_EXECUTOR_MAX_WORKER=1,
        EXECUTOR_EXECUTOR_MAX_WORKERS=1,
        CELERY_WORKER_POOL="threads",
    )
    with Executor(app) as executor:
        executor.submit(abs, -1).result(LIMIT)
    assert not caplog.records


@pytest.mark.parametrize("value", ["celery", "loop", 3])
def test_a_type_that_does_not_exist(app: Flask, value: object) -> None:
    """It is refused by init_app, with the words that are allowed."""
    app.config["MY_EXECUTOR_TYPE"] = value
    allowed = "'thread', 'process', 'pebble', 'sync'"
    match = f"MY_EXECUTOR_TYPE = {value!r} .* one of {allowed}"
    with pytest.raises(InvalidSetting, match=match):
        Executor(app, name="my")


def test_defaults() -> None:
    """What holds where nothing is configured, as the contract has it."""
    settings = Settings.read({}, "")
    assert settings == Settings()
    assert settings.type == "thread" and settings.max_workers is None
    assert settings.futures_max_length is None and settings.futures_ttl == 86_400
    assert settings.propagate_exceptions is False and settings.log_exceptions is True
    assert settings.push_app_context is True and settings.copy_g == "safe"
    assert settings.start_method is None and settings.app is None
    assert settings.store is None and settings.guarantee == "ephemeral"
    assert settings.store_run is True and settings.store_lease == 30
    assert settings.store_max_lost == 3
    day = 86_400
    ended = {"succeeded": day, "cancelled": day, "failed": 14 * day}
    ended |= {"timed_out": 14 * day, "interrupted": 14 * day}
    assert settings.keep_times == ended


def test_keep_times_of_some_states() -> None:
    """EXECUTOR_STORE_KEEP sets those of its states; the others have their defaults."""
    settings = Settings.read({"EXECUTOR_STORE_KEEP": KEPT}, "")
    assert settings.keep_times == {**KEEP, **KEPT}
    assert settings.keep_times["cancelled"] == 86_400


def test_a_prefix_reads_its_own_keys_only() -> None:
    """An executor with a name ignores the keys without it, and the other way round."""
    config = {"EXECUTOR_MAX_WORKERS": 1, "A_EXECUTOR_MAX_WORKERS": 2}
    assert Settings.read(config, "").max_workers == 1
    assert Settings.read(config, "A_").max_workers == 2
    assert Settings.read(config, "B_").max_workers is None


def test_init_app_shows_the_defaults(app: Flask) -> None:
    """init_app puts the defaults of every key in the config, and changes none."""
    app.config["CUSTOM_EXECUTOR_TYPE"] = "Process"
    Executor(app, name="custom")
    assert app.config["CUSTOM_EXECUTOR_TYPE"] == "Process"
    assert app.config["CUSTOM_EXECUTOR_FUTURES_TTL"] == 86_400
    assert app.config["CUSTOM_EXECUTOR_PUSH_APP_CONTEXT"] is True


@pytest.mark.parametrize(
    ("kind", "pool_class"),
    [
        ("THREAD", ThreadPoolExecutor),
        ("process", ProcessPoolExecutor),
        ("Sync", Executor),
    ],
)
def test_the_type_of_a_named_executor(app: Flask, kind: str, pool_class: type) -> None:
    """NAME_EXECUTOR_TYPE decides which pool is under it."""
    app.config["MY_EXECUTOR_TYPE"] = kind
    app.config["EXECUTOR_TYPE"] = "celery"
    executor = Executor(app, name="my")
    assert isinstance(executor, pool_class)
    executor.shutdown()


def test_a_bad_value_is_raised_at_first_use(app: Flask) -> None:
    """Every key but the type may be set after init_app; a bad one is named then."""
    executor = Executor(app, name="a_1")
    app.config["A_1_EXECUTOR_MAX_WORKERS"] = "many"
    with pytest.raises(InvalidSetting, match="A_1_EXECUTOR_MAX_WORKERS = 'many'"):
        executor.submit(abs, 1)
    app.config["A_1_EXECUTOR_MAX_WORKERS"] = "2"
    assert executor.submit(abs, -1).result(LIMIT) == 1
    assert executor._max_workers == 2
    executor.shutdown()


def test_the_standard_librarys_default(app: Flask) -> None:
    """EXECUTOR_MAX_WORKERS = None is as many as the standard library would take."""
    app.config["EXECUTOR_MAX_WORKERS"] = ""
    executor = Executor(app)
    bare = ThreadPoolExecutor()
    assert executor._max_workers == bare._max_workers
    bare.shutdown()
    executor.shutdown()


def test_push_app_context_false_leaves_g(app: Flask, executor: Executor) -> None:
    """EXECUTOR_PUSH_APP_CONTEXT = False means that g is not carried."""
    app.config["EXECUTOR_PUSH_APP_CONTEXT"] = "no"
    with app.app_context():
        g.x = 1
        assert executor.submit(lambda: "x" in g).result(LIMIT) is False


def test_init_app_again_takes_a_new_type(
    app: Flask, executor: Executor, caplog: pytest.LogCaptureFixture
) -> None:
    """A type changed before init_app is called again is taken, without a warning."""
    app.config["EXECUTOR_TYPE"] = "sync"
    executor.init_app(app)
    assert executor.submit(abs, -1).done()
    assert not [r for r in caplog.records if r.levelno >= logging.WARNING]
