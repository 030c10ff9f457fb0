"""Databases behind the run store: SQLite with what Python brings, any other through SQLAlchemy.

Both take the same SQL, with parameters written `:name`.
"""

from __future__ import annotations

import contextlib
import sqlite3
from typing import TYPE_CHECKING, Any, Protocol, cast

from pytest_touchstone.errors import StoreError
from pytest_touchstone.recording.redact import is_secret_name

if TYPE_CHECKING:
    from collections.abc import Generator, Mapping, Sequence
    from contextlib import AbstractContextManager
    from pathlib import Path

    from sqlalchemy import URL, Connection, Engine

Row = tuple[Any, ...]

PATIENCE_S = 30.0
CONNECT_TIMEOUT_S = 10

_ADVICE = {
    "SQLITE_NOTADB": "it is no database; move it away, and the next run begins a new one",
    "SQLITE_CORRUPT": "it is damaged; move it away, and the next run begins a new one",
    "SQLITE_BUSY": f"another process has been writing for {PATIENCE_S:g} seconds; end it, or try again",
    "SQLITE_FULL": "make room on the disk",
    "SQLITE_READONLY": "give yourself the right to write it, or name another with llm_store",
    "SQLITE_CANTOPEN": "make sure that its folder exists and may be written, or name another with llm_store",
}


class Statements(Protocol):
    """Runs SQL inside one transaction."""

    def execute(self, sql: str, values: Mapping[str, object] | None = None) -> list[Row]:
        """Run one statement; the rows that it gives, if any."""
        ...

    def execute_many(self, sql: str, rows: Sequence[Mapping[str, object]]) -> None:
        """Run one statement for each of the rows."""
        ...


class Database(Protocol):
    """A database; `name` is how messages call it, without credentials, and `lock` is SQL that has writers of the schema wait, if needed."""

    name: str
    lock: str

    def exists(self) -> bool:
        """Whether there is anything to read."""
        ...

    def transaction(self, *, write: bool = False) -> AbstractContextManager[Statements]:
        """All of what is written inside is kept, or, where anything is raised, none of it.

        Raises:
            StoreError: the database refused; says which, why and what to do.
        """
        ...


def database(target: str, base: Path) -> Database:
    """The database that a path (relative to the folder `base`) or a URL names; nothing is opened yet.

    Raises:
        StoreError: the URL cannot be used, or what it needs is not installed.
    """
    return SqlAlchemyDatabase(target) if is_url(target) else SqliteDatabase(base / target, name=target)


def is_url(target: str) -> bool:
    """Whether a store is named by a URL rather than a path.

    >>> is_url(".touchstone/runs.db"), is_url("postgresql+psycopg://db/evals")
    (False, True)
    """
    return "://" in target


class SqliteDatabase:
    """A file; a process that is killed while it writes leaves it as it was."""

    lock = ""  # whoever writes has the file for itself

    def __init__(self, path: Path, *, name: str) -> None:
        self.path = path
        self.name = name

    def exists(self) -> bool:
        """Whether the file is there."""
        return self.path.exists()

    @contextlib.contextmanager
    def transaction(self, *, write: bool = False) -> Generator[Statements]:
        """As `Database.transaction`; only writing creates the file."""
        try:
            with contextlib.closing(self._connect(write=write)) as connection:
                connection.execute("BEGIN IMMEDIATE" if write else "BEGIN")
                yield _SqliteStatements(connection)
                connection.execute("COMMIT")  # closing without it takes everything back
        except sqlite3.Error as error:
            code = getattr(error, "sqlite_errorname", "")
            advice = next((advice for kind, advice in _ADVICE.items() if code.startswith(kind)), "nothing was changed")
            msg = f"{self.name}: {error}; {advice}"
            raise StoreError(msg) from error

    def _connect(self, *, write: bool) -> sqlite3.Connection:
        # Without "c" nothing is created; a file that may only be read is opened for reading.
        if write:
            self.path.parent.mkdir(parents=True, exist_ok=True)
        uri = f"{self.path.absolute().as_uri()}?mode={'rwc' if write else 'rw'}"
        return sqlite3.connect(uri, uri=True, timeout=PATIENCE_S, isolation_level=None)


class _SqliteStatements:
    def __init__(self, connection: sqlite3.Connection) -> None:
        self._connection = connection

    def execute(self, sql: str, values: Mapping[str, object] | None = None) -> list[Row]:
        return self._connection.execute(sql, cast("Any", values or {})).fetchall()

    def execute_many(self, sql: str, rows: Sequence[Mapping[str, object]]) -> None:
        self._connection.executemany(sql, cast("Any", rows))


class SqlAlchemyDatabase:
    """A database server, or whatever else SQLAlchemy reaches.

    Neither messages nor `name` hold what the URL says beyond the kind of database, its host and its name.
    """

    def __init__(self, url: str) -> None:
        self._url = _parsed(url)
        hidden = [value for name, value in self._url.query.items() if is_secret_name(name)]
        self._secrets = sorted({str(secret) for secret in (self._url.password, *hidden) if secret}, key=len, reverse=True)
        port = f":{self._url.port}" if self._url.port else ""
        self.name = f"{self._url.get_backend_name()}://{self._url.host or ''}{port}/{self._url.database or ''}"
        self._engine = self._make_engine()
        self.lock = "SELECT pg_advisory_xact_lock(7026370)" if self._engine.dialect.name == "postgresql" else ""

    def exists(self) -> bool:
        """Always: what a server lacks is created."""
        return True

    @contextlib.contextmanager
    def transaction(self, *, write: bool = False) -> Generator[Statements]:  # noqa: ARG002 - a server tells by the statements
        """As `Database.transaction`, on a connection of its own."""
        from sqlalchemy.exc import SQLAlchemyError

        try:
            with self._engine.begin() as connection:
                yield _SqlAlchemyStatements(connection)
        except SQLAlchemyError as error:
            raise self._error(str(getattr(error, "orig", None) or error)) from None  # the chain would show parameters

    def _make_engine(self) -> Engine:
        from sqlalchemy import create_engine
        from sqlalchemy.exc import SQLAlchemyError
        from sqlalchemy.pool import NullPool

        driver = self._url.get_driver_name() if "+" in self._url.drivername else ""
        waits = driver.startswith("psycopg") and "connect_timeout" not in self._url.query
        try:
            return create_engine(
                self._url,
                poolclass=NullPool,
                hide_parameters=True,
                connect_args={"connect_timeout": CONNECT_TIMEOUT_S} if waits else {},
            )
        except ImportError as error:
            missing = f"its driver {error.name} is not installed"
            raise self._error(missing) from None
        except (SQLAlchemyError, TypeError) as error:
            raise self._error(str(error)) from None

    def _error(self, said: str) -> StoreError:
        lines = said.strip().splitlines() or ["no reason given"]
        line = lines[0]
        for secret in self._secrets:
            line = line.replace(secret, "[redacted]")
        return StoreError(
            f"run store {self.name}: {line}; check llm_store or TOUCHSTONE_STORE, for example postgresql+psycopg://user:password@host/name"
        )


def _parsed(url: str) -> URL:
    try:
        from sqlalchemy import make_url
        from sqlalchemy.exc import ArgumentError
    except ImportError:
        msg = "the run store is a database URL, which needs SQLAlchemy; run: pip install 'pytest-touchstone[store]'"
        raise StoreError(msg) from None
    try:
        return make_url(url)
    except (ArgumentError, ValueError):
        msg = "the URL of the run store cannot be read (it is not shown: it may hold a password); write driver://user:password@host/name"
        raise StoreError(msg) from None


class _SqlAlchemyStatements:
    def __init__(self, connection: Connection) -> None:
        self._connection = connection

    def execute(self, sql: str, values: Mapping[str, object] | None = None) -> list[Row]:
        from sqlalchemy import text

        result = self._connection.execute(text(sql), dict(values or {}))
        return [tuple(row) for row in result] if result.returns_rows else []

    def execute_many(self, sql: str, rows: Sequence[Mapping[str, object]]) -> None:
        from sqlalchemy import text

        if rows:
            self._connection.execute(text(sql), [dict(row) for row in rows])
