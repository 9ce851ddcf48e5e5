"""Opening the store that ``EXECUTOR_STORE`` names."""

from __future__ import annotations

import typing as t

from flask import Flask

from ..dispatch import Dispatcher
from ..stores.errors import StoreRefused
from .node import Node


def new_node(dispatcher: Dispatcher, names: t.Any, name: str, executor: str) -> Node:
    """Return what ties a dispatcher to its store.

    :param names: finds the jobs of saved tasks.
    :param name: for threads and messages.
    :param executor: the name of the executor, a part of the names of its tables.
    :raises StoreRefused: a :exc:`ValueError`, if the database cannot be a store, or
        SQLAlchemy is not installed.
    """
    app, where = dispatcher.app, t.cast(str, dispatcher.settings.store)
    try:
        from ..stores.sql import SqlStore
    except ImportError as error:
        raise not_installed(where, error) from None
    database: t.Any = _engine_of(app) if where == "flask-sqlalchemy" else where
    clock = dispatcher.timer.clock
    store = SqlStore(
        database,
        prefix=prefix_of_tables(executor),
        folder=app.instance_path,
        clock=clock.time if clock.is_manual else None,
        name=name,
    )
    return Node(dispatcher, store, names, name)


def not_installed(where: str, error: ImportError) -> StoreRefused:
    """Return what to raise if a package is missing without which there is no store."""
    reason = f"{error.name} is not installed: pip install 'Flask-Executor[store]'"
    return StoreRefused(where, reason)


def prefix_of_tables(executor: str) -> str:
    """Return the first part of the names of the tables of an executor."""
    return f"executor_{executor.lower()}_" if executor else "executor_"


def _engine_of(app: Flask) -> t.Any:
    """Return the engine of the app's own Flask-SQLAlchemy."""
    extension = app.extensions.get("sqlalchemy")
    if extension is None:
        reason = "the app has no Flask-SQLAlchemy: call db.init_app(app) first"
        raise StoreRefused("flask-sqlalchemy", reason)
    with app.app_context():
        return extension.engine
