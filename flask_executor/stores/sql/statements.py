"""Statements as texts, for both databases.

``{task}`` is a table, ``{now}`` the time of the database, ``{given}`` the rows that a
statement gets, as one JSON text. One text for any number of rows means one statement
that the database can keep prepared.
"""

from __future__ import annotations

import json
import typing as t

from sqlalchemy import Connection, TextClause, TextualSelect, column, text

from .schema import Schema

Statement: t.TypeAlias = TextClause | TextualSelect

_TYPES = {"sqlite": {}, "postgresql": {"int": "bigint", "real": "double precision"}}
_CLOCK = {
    "sqlite": "((julianday('now') - 2440587.5) * 86400.0)",
    # now() is the time at which the transaction began. As a query of its own it is
    # asked once per statement; otherwise once per row, and no index could be used.
    "postgresql": (
        "(SELECT CAST(extract(epoch FROM clock_timestamp()) AS double precision))"
    ),
}


class Statements:
    """Makes statements of texts, and runs them.

    :param clock: tells the time instead of the database; for tests.
    """

    def __init__(
        self, schema: Schema, dialect: str, clock: t.Callable[[], float] | None = None
    ) -> None:
        self.schema: Schema = schema
        self.is_sqlite: bool = dialect == "sqlite"
        self._clock = clock
        self._now = "CAST(:clock AS double precision)" if clock else _CLOCK[dialect]

    def text(
        self, statement: str, returned: t.Sequence[str] = (), **parts: str
    ) -> Statement:
        """Return a statement with its tables and parts filled in.

        ``{by_id}`` lets SQLite find the rows by their ids, and not by another index.

        :param returned: the columns that it returns. If they are many, it saves time
            to name them.
        """
        parts["by_id"] = "NOT INDEXED" if self.is_sqlite else ""
        filled = statement.format(now=self._now, **self.schema.names, **parts)
        made = text(filled)
        return made.columns(*map(column, returned)) if returned else made

    def given(self, **columns: str) -> str:
        """Return a table ``g`` of the rows in the parameter ``rows``.

        :param columns: the type of each: ``text``, ``int`` or ``real``.
        """
        if self.is_sqlite:
            fields = ", ".join(f"json_extract(value, '$.{c}') AS {c}" for c in columns)
            return f"(SELECT {fields} FROM json_each(:rows)) AS g"
        types = _TYPES["postgresql"]
        fields = ", ".join(
            f"{c} {types.get(kind, kind)}" for c, kind in columns.items()
        )
        return f"json_to_recordset(CAST(:rows AS json)) AS g({fields})"

    def indexed_by(self, index: str) -> str:
        """Return a clause that lets SQLite use an index, and nothing for PostgreSQL.

        SQLite has no statistics of the tables. It would guess that few tasks have any
        one state, and begin there.
        """
        return f"INDEXED BY {self.schema.prefix}{index}" if self.is_sqlite else ""

    def among(self, column: str, parameter: str, kind: str = "text") -> str:
        """Return a condition: the column is one of a JSON list of values."""
        if self.is_sqlite:
            return f"{column} IN (SELECT value FROM json_each(:{parameter}))"
        kind = _TYPES["postgresql"].get(kind, kind)
        source = f"json_array_elements_text(CAST(:{parameter} AS json))"
        return f"{column} = ANY(ARRAY(SELECT CAST(v AS {kind}) FROM {source} AS v))"

    def run(
        self,
        db: Connection,
        statement: Statement,
        rows: t.Sequence[t.Mapping[str, t.Any]] | None = None,
        **values: t.Any,
    ) -> list[t.Any]:
        """Run a statement; return its rows, if it has any.

        :param rows: the rows of ``{given}``.
        """
        if rows is not None:
            values["rows"] = json.dumps(rows)
        if self._clock is not None and ":clock" in str(statement):
            values["clock"] = self._clock()
        result = db.execute(statement, values)
        return [*result] if result.returns_rows else []

    def run_for_each(
        self,
        db: Connection,
        statement: Statement,
        rows: t.Sequence[t.Mapping[str, t.Any]],
    ) -> None:
        """Run a statement that returns nothing, once for each of its parameters."""
        if self.is_sqlite:  # the module has the same names, and takes half the time
            raw = t.cast(t.Any, db.connection.dbapi_connection)
            raw.executemany(t.cast(TextClause, statement).text, rows)
        else:
            db.execute(statement, rows)
