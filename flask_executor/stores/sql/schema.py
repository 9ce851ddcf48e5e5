"""The tables: made at first use, checked, brought up to date."""

from __future__ import annotations

import typing as t

from sqlalchemy import (
    BigInteger,
    Boolean,
    Column,
    Connection,
    Double,
    Index,
    Integer,
    LargeBinary,
    MetaData,
    SmallInteger,
    Table,
    Text,
    insert,
    inspect,
    select,
    text,
    update,
)

from ..errors import SchemaMismatch

VERSION = 3
"""The version of the tables that this code needs."""
UPGRADES: dict[int, tuple[str, ...]] = {
    1: ("ALTER TABLE {attempt} ADD COLUMN error_text TEXT",),
    2: (
        "ALTER TABLE {task} ADD COLUMN request TEXT",
        "CREATE INDEX {task}_request ON {task} (request, id) WHERE request IS NOT NULL",
        "CREATE INDEX {task}_retried_from ON {task} (retried_from, id)"
        " WHERE retried_from IS NOT NULL",
    ),
}
"""By version: the statements that lead from it to the next one. Words in braces are
tables."""
BUCKETS = 26
"""How many buckets a histogram of the statistics has."""

# SQLite counts rows only in a column of exactly this type.
_ID = BigInteger().with_variant(Integer, "sqlite")


class Schema:
    """The tables of one store.

    :param prefix: the first part of the name of each table and index.
    """

    def __init__(self, prefix: str) -> None:
        self.prefix: str = prefix
        self.metadata: MetaData = MetaData()
        """For those who compare databases: these tables are ours."""
        for define in _TABLES.values():
            define(self)

    @property
    def names(self) -> dict[str, str]:
        """The full name of each table."""
        return {name: self.prefix + name for name in TABLES}

    def table(self, name: str) -> Table:
        """Return one of the tables."""
        return self.metadata.tables[self.prefix + name]

    def define(self, name: str, *columns: Column[t.Any], **options: t.Any) -> Table:
        """Add a table."""
        options["sqlite_autoincrement"] = name in ("task", "grp")
        return Table(self.prefix + name, self.metadata, *columns, **options)

    def index(self, name: str, *columns: t.Any, where: str = "", **more: t.Any) -> None:
        """Add an index, over the rows that ``where`` names if it is given."""
        if where:
            more |= {"sqlite_where": text(where), "postgresql_where": text(where)}
        Index(f"{self.prefix}{name}", *columns, **more)


def _text(name: str, *, null: bool = True, key: bool = False) -> Column[str]:
    return Column(name, Text, nullable=null and not key, primary_key=key)


def _number(
    name: str, kind: t.Any = Double, default: str | None = None
) -> Column[t.Any]:
    # Times are seconds since the epoch. NULL is for what has not happened.
    return Column(name, kind, nullable=default is None, server_default=default)


def _meta(schema: Schema) -> None:
    schema.define("meta", Column("version", Integer, nullable=False))


def _worker(schema: Schema) -> None:
    table = schema.define(
        "worker",
        _text("id", key=True),
        _text("state", null=False),
        _number("lease_until"),
        _number("started"),
        _text("host"),
        _number("pid", BigInteger),
        _text("code_version"),
        _text("info"),
        _text("ask"),
        _text("answer"),
    )
    # Few are alive; the dead are kept for a while.
    schema.index("worker_alive", table.c.lease_until, where="state = 'alive'")
    schema.index("worker_started", table.c.started)


def _task(schema: Schema) -> None:
    table = schema.define(
        "task",
        Column("id", _ID, primary_key=True, autoincrement=True),
        *(_text(name, null=False) for name in ("uid", "name", "state", "guarantee")),
        *(_text(name) for name in _TASK_TEXTS),
        *(_number(name) for name in ("due", "submitted", "claimed", "begun")),
        *(_number(name) for name in ("finished", "timeout")),
        *(_number(name, Integer, "0") for name in ("epoch", "attempt", "lost")),
        *(_number(name, SmallInteger, "0") for name in ("priority", "cancel")),
        *(_number(name, BigInteger) for name in ("group_id", "result_size")),
    )
    _identities(schema, table.c)
    _queues(schema, table.c)
    _lists(schema, table.c)


_TASK_TEXTS = (
    "key",
    "job",
    "meta",
    "owner",
    "parent",
    "source",
    "request",
    "retry",
    "unique_key",
    "progress",
    "code_version",
    "error_class",
    "error_text",
    "traceback",
    "retried_from",
)


def _identities(schema: Schema, c: t.Any) -> None:
    schema.index("task_uid", c.uid, unique=True)
    schema.index("task_key", c.key, unique=True, where="key IS NOT NULL")
    one = "unique_key IS NOT NULL AND finished IS NULL"
    schema.index("task_unique", c.unique_key, unique=True, where=one)


def _queues(schema: Schema, c: t.Any) -> None:
    # The job is in it so that those of unknown or paused jobs are passed over without
    # a look at the table. What is not due is not in it: every claim would walk over it.
    ready = "state = 'waiting'"
    schema.index("task_ready", c.priority.desc(), c.id, c.job, where=ready)
    due = "owner IS NULL AND state IN ('delayed', 'retrying')"
    schema.index("task_due", c.due, where=due)
    owned = "owner IS NOT NULL AND finished IS NULL"
    schema.index("task_owned", c.owner, where=owned)
    schema.index("task_asked", c.owner, where=f"cancel = 1 AND {owned}")


def _lists(schema: Schema, c: t.Any) -> None:
    schema.index("task_state", c.state, c.id)
    schema.index("task_job", c.job, c.id)
    schema.index("task_name", c.name, c.id)
    schema.index("task_keyed", c.id, where="key IS NOT NULL")
    schema.index("task_group", c.group_id, c.id, where="group_id IS NOT NULL")
    schema.index("task_parent", c.parent, c.id, where="parent IS NOT NULL")
    schema.index("task_request", c.request, c.id, where="request IS NOT NULL")
    repeats = "retried_from IS NOT NULL"
    schema.index("task_retried_from", c.retried_from, c.id, where=repeats)
    schema.index("task_error", c.error_class, c.id, where="error_class IS NOT NULL")
    # A job that fails rarely has its failures far apart among a million successes.
    schema.index("task_troubled", c.job, c.id, where=TROUBLED)
    schema.index("task_ended", c.state, c.finished, where="finished IS NOT NULL")


TROUBLED = "state IN ('failed', 'timed_out', 'interrupted', 'cancelled')"
"""Queries must repeat this literally: otherwise SQLite does not use the index."""


def _bytes(schema: Schema, name: str) -> None:
    # Beside the task, so that its rows stay small.
    schema.define(
        name,
        Column("task_id", _ID, primary_key=True, autoincrement=False),
        _text("format", null=False),
        Column("data", LargeBinary, nullable=False),
        Column("signature", LargeBinary, nullable=False),
    )


def _payload(schema: Schema) -> None:
    _bytes(schema, "payload")


def _result(schema: Schema) -> None:
    _bytes(schema, "result")


def _grp(schema: Schema) -> None:
    table = schema.define(
        "grp",
        Column("id", _ID, primary_key=True, autoincrement=True),
        _text("name", null=False),
        _number("total", BigInteger, "0"),
        _number("done", BigInteger, "0"),
        _number("failed", BigInteger, "0"),
        _number("closed", SmallInteger, "0"),
        _number("opened"),
    )
    schema.index("grp_name", table.c.name, table.c.id)


def _tick(schema: Schema) -> None:
    schema.define(
        "tick",
        _text("job", key=True),
        Column("at", Double, primary_key=True),
        _number("task_id", BigInteger),
    )


def _schedule(schema: Schema) -> None:
    schema.define(
        "schedule",
        _text("job", key=True),
        _text("spec"),
        _text("timezone"),
        Column("paused", Boolean, nullable=False),
        _number("next"),
    )


def _attempt(schema: Schema) -> None:
    # No primary key: a number may come again after a lost reply to a commit.
    table = schema.define(
        "attempt",
        Column("task_id", BigInteger, nullable=False),
        Column("number", Integer, nullable=False),
        _number("begun"),
        _number("ended"),
        _text("end", null=False),
        _text("error_class"),
        _text("error_text"),
    )
    schema.index("attempt_task", table.c.task_id, table.c.number)


def _stat(schema: Schema) -> None:
    counts = [f"{kind}{i}" for kind in ("wait", "run") for i in range(BUCKETS)]
    schema.define(
        "stat",
        Column("minute", BigInteger, primary_key=True, autoincrement=False),
        _text("job", key=True),
        _text("end", key=True),
        _number("n", BigInteger, "0"),
        _number("wait_sum", Double, "0"),
        _number("run_sum", Double, "0"),
        *(_number(name, BigInteger, "0") for name in counts),
    )


_TABLES: dict[str, t.Callable[[Schema], None]] = {
    "meta": _meta,
    "worker": _worker,
    "task": _task,
    "payload": _payload,
    "result": _result,
    "grp": _grp,
    "tick": _tick,
    "schedule": _schedule,
    "attempt": _attempt,
    "stat": _stat,
}
TABLES = tuple(_TABLES)
"""The names of the tables, without the prefix."""


def version(schema: Schema, db: Connection) -> int | None:
    """Return the version of the tables; None if there are none."""
    meta = schema.table("meta")
    if not inspect(db).has_table(meta.name):
        return None
    return t.cast("int | None", db.execute(select(meta.c.version)).scalar())


def create(schema: Schema, db: Connection) -> None:
    """Make the tables, in the transaction of the connection."""
    schema.metadata.create_all(db)
    if db.dialect.name == "postgresql":
        # Each task is updated a few times; dead rows would slow down the claims.
        how = "SET (autovacuum_vacuum_scale_factor = 0.01)"
        db.execute(text(f"ALTER TABLE {schema.table('task').name} {how}"))
    db.execute(insert(schema.table("meta")).values(version=VERSION))


def require(schema: Schema, db: Connection, where: str) -> None:
    """Refuse tables of another version.

    :raises SchemaMismatch: with both versions.
    """
    found = version(schema, db)
    if found is not None and found != VERSION:
        raise SchemaMismatch(where, found, VERSION)


def upgrade(schema: Schema, db: Connection, where: str) -> int:
    """Bring the tables up to date; return how many versions that took.

    :raises SchemaMismatch: if they are newer than this code.
    """
    found = version(schema, db)
    if found is None:
        create(schema, db)
        return 1
    if found > VERSION:
        raise SchemaMismatch(where, found, VERSION)
    for step in range(found, VERSION):
        for statement in UPGRADES[step]:
            db.execute(text(statement.format(**schema.names)))
    db.execute(update(schema.table("meta")).values(version=VERSION))
    return VERSION - found


def check(schema: Schema, db: Connection) -> list[str]:
    """Return what is missing in the database: tables, columns, indexes."""
    found, missing = inspect(db), []
    for table in schema.metadata.sorted_tables:
        if not found.has_table(table.name):
            missing.append(f"table {table.name}")
            continue
        columns = {column["name"] for column in found.get_columns(table.name)}
        indexes = {index["name"] for index in found.get_indexes(table.name)}
        missing += [f"column {c}" for c in table.columns if c.name not in columns]
        missing += [f"index {i.name}" for i in table.indexes if i.name not in indexes]
    return missing
