"""What all parts of the store use: its database, its statements, its writer."""

from __future__ import annotations

import os
import typing as t
from concurrent.futures import Future

from sqlalchemy import Connection, Engine
from sqlalchemy.engine import URL
from sqlalchemy.exc import DBAPIError

from ..errors import StoreRefused, StoreUnavailable
from . import schema
from .batches import Batch, Item
from .changes import Changes
from .database import PATIENCE, Database, Op
from .schema import Schema
from .statements import Statements
from .writer import Writer

T = t.TypeVar("T")


class Core:
    """The database, the tables and the writer of a store.

    The tables are made when they are first needed.

    :param where: a SQLAlchemy URL, or an engine whose database is to be used.
    :param prefix: the first part of the names of the tables.
    :param folder: where a relative path to an SQLite file begins.
    :param clock: tells the time instead of the database; for tests.
    :param name: the first part of the names of the threads.
    :raises StoreRefused: if it cannot be a store.
    """

    # flask_executor.testing replaces them.
    _new_database: t.ClassVar[t.Callable[..., Database]] = Database
    _new_writer: t.ClassVar[t.Callable[..., Writer]] = Writer

    def __init__(
        self,
        where: str | URL | Engine,
        *,
        prefix: str = "executor_",
        folder: str | os.PathLike[str] | None = None,
        clock: t.Callable[[], float] | None = None,
        name: str = "executor",
    ) -> None:
        self.database: Database = self._new_database(where, folder)
        """Connections and transactions."""
        self.schema: Schema = Schema(prefix)
        """The tables."""
        self.sql: Statements = Statements(self.schema, self.database.dialect, clock)
        """Makes statements of texts."""
        self._name = name
        channel = f"{prefix}changes"
        self._changes = Changes(self.database, channel, f"{name}-changes")
        self._writer = self._new_writer(self.database, f"{name}-writer", self.announce)
        self._is_ready = False
        self._now = self.sql.text("SELECT {now}")
        self._prepare()

    def _prepare(self) -> None:
        """Make the statements; each part of the store adds its own."""

    def announce(self) -> None:
        """Tell other processes that something has changed, soon."""
        self._changes.announce()

    def watch(self, changed: t.Callable[[], object]) -> t.Callable[[], None]:
        """Call a function soon after something has changed, and now and then."""
        self.setup()
        return self._changes.watch(changed)

    @property
    def away(self) -> StoreUnavailable | None:
        """Why the last write could not reach the database, or None."""
        return self._writer.away

    def now(self) -> float:
        """Return the time of the database."""
        return t.cast(float, self._read(lambda db: self.sql.run(db, self._now)[0][0]))

    def setup(self) -> None:
        """Make the tables if there are none; refuse those of another version.

        :raises SchemaMismatch: if they have another version.
        :raises StoreRefused: if the database is read-only.
        :raises StoreUnavailable: if the database is away.
        """
        if not self._is_ready:
            try:
                self._setup()
            except StoreUnavailable as error:
                original = getattr(error.__cause__, "orig", error.__cause__)
                name = getattr(original, "sqlite_errorname", "")
                if name.startswith("SQLITE_READONLY"):
                    raise self._read_only() from error
                raise
            self._is_ready = True

    def _setup(self) -> None:
        where = self.database.shown
        if self.database.read(lambda db: schema.version(self.schema, db)) is None:
            self._create()
        self.database.read(lambda db: schema.require(self.schema, db, where))
        # Somebody else may have made the tables: this tells if we may write to them.
        self.database.try_to_write()

    def _create(self) -> None:
        try:
            self.database.write(self._create_if_missing)
        except DBAPIError:
            # PostgreSQL does not let two make one table: the other one has made it.
            if self.database.read(lambda db: schema.version(self.schema, db)) is None:
                raise

    def _create_if_missing(self, db: Connection) -> None:
        if schema.version(self.schema, db) is None:
            schema.create(self.schema, db)

    def _setup_with(self, db: Connection) -> None:
        """Make the tables in somebody else's transaction, where we must.

        On SQLite that transaction may have the write lock; we would wait for ourselves.
        """
        if self._is_ready or self.database.dialect != "sqlite":
            self.setup()
        else:
            self._create_if_missing(db)
            schema.require(self.schema, db, self.database.shown)

    def _read_only(self) -> StoreRefused:
        return StoreRefused(
            self.database.shown,
            "it is read-only; let this process write to the file and to its folder",
        )

    def upgrade(self) -> int:
        """Bring the tables up to date; return how many versions that took."""
        where = self.database.shown
        return self.database.write(lambda db: schema.upgrade(self.schema, db, where))

    def check(self) -> list[str]:
        """Return what is missing in the database: tables, columns, indexes."""
        return self.database.read(lambda db: schema.check(self.schema, db))

    def _read(self, op: Op[T]) -> T:
        self.setup()
        return self.database.read(op)

    def _write_here(self, op: Op[T], *, synced: bool = False) -> T:
        self.setup()
        return self.database.write(op, synced=synced)

    def _queue(
        self, batch: Batch, value: t.Any, about: object = None, **how: bool
    ) -> Future[t.Any]:
        if not how.get("must"):  # otherwise it ends something, so there are tables
            self.setup()
        return self._writer.submit(Item(batch, value, about, **how))

    def wait(self, future: Future[T]) -> T:
        """Return the outcome of a queued write; see :meth:`.Store.wait`."""
        for _ in range(2):
            try:
                return future.result(2 * PATIENCE)
            except TimeoutError:
                if future.cancel():
                    break
        raise StoreUnavailable(
            self.database.shown,
            f"nothing could be written for {2 * PATIENCE:g} seconds",
        )

    def settle(self, timeout: float) -> bool:
        """Wait until what was queued so far is written; False if it took too long."""
        if not self._is_ready:
            return True
        last = self._writer.submit(Item(_write_nothing, None))
        try:
            last.result(timeout)
        except (StoreUnavailable, TimeoutError):
            return False
        return True

    def close(self, timeout: float | None = None) -> bool:
        """Write what is queued, and disconnect."""
        in_time = self._writer.close(timeout)
        self._changes.close()
        self.database.dispose()
        return in_time

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self.database.shown}>"


def _write_nothing(db: Connection, values: t.Sequence[t.Any]) -> list[None]:
    return [None] * len(values)
