"""The schema of the run store: numbered migrations, each applied once, and never changed after a release."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pytest_touchstone.errors import StoreError

if TYPE_CHECKING:
    from pytest_touchstone.runs_database import Database, Statements

# What is asked for has a column; the rest of a record is JSON. Texts that are keys have a length, which some databases need.
MIGRATIONS: tuple[tuple[str, ...], ...] = (
    (
        """
        CREATE TABLE touchstone_run (
            id VARCHAR(64) NOT NULL PRIMARY KEY,
            started VARCHAR(32) NOT NULL,
            ended VARCHAR(32) NOT NULL,
            complete INTEGER NOT NULL,
            exit_status INTEGER NOT NULL,
            git_commit VARCHAR(64),
            git_dirty INTEGER,
            git_branch TEXT,
            options TEXT NOT NULL,
            versions TEXT NOT NULL,
            models TEXT NOT NULL,
            judges TEXT NOT NULL,
            prompts TEXT NOT NULL
        )
        """,
        "CREATE INDEX touchstone_run_started ON touchstone_run (started)",
        """
        CREATE TABLE touchstone_trial (
            run_id VARCHAR(64) NOT NULL REFERENCES touchstone_run (id) ON DELETE CASCADE,
            place INTEGER NOT NULL,
            suite TEXT NOT NULL,
            case_id TEXT NOT NULL,
            content_hash VARCHAR(64) NOT NULL,
            trial_number INTEGER NOT NULL,
            outcome VARCHAR(16) NOT NULL,
            output TEXT,
            duration_s DOUBLE PRECISION,
            details TEXT NOT NULL,
            PRIMARY KEY (run_id, place)
        )
        """,
        """
        CREATE TABLE touchstone_call (
            run_id VARCHAR(64) NOT NULL REFERENCES touchstone_run (id) ON DELETE CASCADE,
            trial_place INTEGER NOT NULL,
            place INTEGER NOT NULL,
            role VARCHAR(16) NOT NULL,
            provider TEXT NOT NULL,
            model TEXT NOT NULL,
            prompt_hash VARCHAR(64) NOT NULL,
            input_tokens BIGINT,
            output_tokens BIGINT,
            cached_tokens BIGINT,
            cost_usd DOUBLE PRECISION,
            cost_reason TEXT NOT NULL,
            latency_s DOUBLE PRECISION,
            status INTEGER,
            error TEXT,
            replayed INTEGER NOT NULL,
            PRIMARY KEY (run_id, trial_place, place)
        )
        """,
    ),
    ("ALTER TABLE touchstone_run ADD COLUMN gate TEXT",),
    ("ALTER TABLE touchstone_call ADD COLUMN host TEXT",),
)
KNOWN = len(MIGRATIONS)


def migrate(database: Database) -> None:
    """Bring the database to the newest schema; nothing is written where it has it.

    Raises:
        StoreError: a newer version of pytest-touchstone has written it, or the database refused.
    """
    if _check(_version_read(database), database) == KNOWN:
        return
    with database.transaction(write=True) as statements:
        if database.lock:
            statements.execute(database.lock)
        statements.execute("CREATE TABLE IF NOT EXISTS touchstone_schema (version INTEGER NOT NULL PRIMARY KEY)")
        for version in range(_check(_version(statements), database) + 1, KNOWN + 1):
            for statement in MIGRATIONS[version - 1]:
                statements.execute(statement)
            statements.execute("INSERT INTO touchstone_schema (version) VALUES (:version)", {"version": version})


def _version_read(database: Database) -> int:
    """The version of the schema; 0 also where that cannot be read, because migrating then says why."""
    if not database.exists():
        return 0
    try:
        with database.transaction() as statements:
            return _version(statements)
    except StoreError:
        return 0


def _version(statements: Statements) -> int:
    ((version,),) = statements.execute("SELECT MAX(version) FROM touchstone_schema")
    return version or 0


def _check(version: int, database: Database) -> int:
    if version > KNOWN:
        msg = (
            f"{database.name}: it was written by a newer pytest-touchstone (schema {version}, this one knows {KNOWN}); "
            "upgrade pytest-touchstone, or name another store with llm_store"
        )
        raise StoreError(msg)
    return version
