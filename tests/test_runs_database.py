from __future__ import annotations

import sqlite3
import sys

import postgres
import pytest
from run_samples import keep, record, run

from pytest_touchstone.errors import StoreError
from pytest_touchstone.runs import RunStore
from pytest_touchstone.runs_database import PATIENCE_S, SqlAlchemyDatabase, SqliteDatabase, database

ADVICE = "check llm_store or TOUCHSTONE_STORE, for example postgresql+psycopg://user:password@host/name"


def said(error):
    return str(error.value)


class TestSqlite:
    def test_a_path_is_relative_to_the_base(self, tmp_path):
        made = database("a/runs.db", tmp_path)
        assert isinstance(made, SqliteDatabase)
        assert (made.path, made.name, made.exists()) == (tmp_path / "a" / "runs.db", "a/runs.db", False)

    def test_only_writing_creates_the_file(self, tmp_path):
        made = database("deep/runs ?#%.db", tmp_path)
        with pytest.raises(StoreError), made.transaction():
            pass
        assert not made.path.parent.exists()
        with made.transaction(write=True) as statements:
            statements.execute("CREATE TABLE t (a INTEGER)")
        assert [path.name for path in made.path.parent.iterdir()] == ["runs ?#%.db"]

    def test_what_is_raised_takes_everything_back(self, tmp_path):
        made = database("runs.db", tmp_path)
        with pytest.raises(KeyError), made.transaction(write=True) as statements:
            statements.execute("CREATE TABLE t (a INTEGER)")
            raise KeyError
        with made.transaction() as statements:
            assert statements.execute("SELECT COUNT(*) FROM sqlite_master") == [(0,)]

    @pytest.mark.parametrize(
        ("content", "why"),
        [
            (b"no database at all" * 100, "file is not a database; it is no database; move it away, and the next run begins a new one"),
            (
                b"SQLite format 3\0" + b"\x10\0\1\1\0\x40\x20\x20" + b"\xff" * 5000,
                "database disk image is malformed; it is damaged; move it away, and the next run begins a new one",
            ),
        ],
    )
    def test_what_is_no_database(self, tmp_path, content, why):
        (tmp_path / "runs.db").write_bytes(content)
        with pytest.raises(StoreError) as error:
            RunStore.open("runs.db", base=tmp_path)
        assert said(error) == f"runs.db: {why}"
        assert (tmp_path / "runs.db").read_bytes() == content

    def test_a_damaged_page(self, tmp_path):
        store = RunStore.open("runs.db", base=tmp_path)
        store.add(run(), [record(str(number), output="x" * 3000) for number in range(20)], redact=keep)
        data = bytearray((tmp_path / "runs.db").read_bytes())
        data[3 * 4096 :] = b"\xaa" * (len(data) - 3 * 4096)
        (tmp_path / "runs.db").write_bytes(data)
        with pytest.raises(StoreError, match=r"^runs\.db: database disk image is malformed; it is damaged; move it away"):
            RunStore.open("runs.db", base=tmp_path).add(run(), [record()], redact=keep)

    def test_another_process_that_does_not_end(self, tmp_path, monkeypatch):
        RunStore.open("runs.db", base=tmp_path)
        monkeypatch.setattr("pytest_touchstone.runs_database.PATIENCE_S", 0)
        other = sqlite3.connect(tmp_path / "runs.db", isolation_level=None)
        other.execute("BEGIN EXCLUSIVE")
        with pytest.raises(StoreError) as error:
            RunStore.open("runs.db", base=tmp_path).add(run(), [record()], redact=keep)
        other.close()
        assert (
            said(error) == f"runs.db: database is locked; another process has been writing for {PATIENCE_S:g} seconds; end it, or try again"
        )

    def test_a_folder_that_takes_no_file(self, tmp_path):
        (tmp_path / "runs.db").mkdir()
        with pytest.raises(
            StoreError, match=r"^runs\.db: unable to open database file; make sure that its folder exists and may be written"
        ):
            RunStore.open("runs.db", base=tmp_path)

    def test_any_other_error(self, tmp_path):
        made = database("runs.db", tmp_path)
        wanted = r'^runs\.db: near "SELEC": syntax error; nothing was changed$'
        with pytest.raises(StoreError, match=wanted), made.transaction(write=True) as statements:
            statements.execute("SELEC 1")


class TestSqlAlchemy:
    @pytest.fixture(autouse=True)
    def needed(self):
        postgres.skip_without("sqlalchemy", "psycopg")

    def test_the_name_holds_no_credentials(self):
        made = database("postgresql+psycopg://ci:p%40ss@db.internal:5433/evals?sslpassword=other", None)
        assert isinstance(made, SqlAlchemyDatabase)
        assert (made.name, made.exists()) == ("postgresql://db.internal:5433/evals", True)
        assert "pass" not in repr(made)
        assert database("sqlite://", None).name == "sqlite:///"

    def test_only_postgresql_needs_a_lock(self):
        assert "pg_advisory_xact_lock" in database("postgresql+psycopg://db/evals", None).lock
        assert database("sqlite://", None).lock == ""

    @pytest.mark.parametrize("url", ["postgresql://u:hunter22@[::1/x", "post gres://u:hunter22@h/x", "postgresql://u:hunter22@h:port/x"])
    def test_a_url_that_cannot_be_read_is_not_shown(self, url):
        with pytest.raises(StoreError) as error:
            database(url, None)
        shown = "the URL of the run store cannot be read (it is not shown: it may hold a password); write driver://user:password@host/name"
        assert said(error) == shown
        assert error.value.__suppress_context__

    def test_a_kind_that_nobody_knows(self):
        with pytest.raises(StoreError) as error:
            database("nosuchdb://u:hunter22@h/x", None)
        assert said(error) == f"run store nosuchdb://h/x: Can't load plugin: sqlalchemy.dialects:nosuchdb; {ADVICE}"

    def test_a_driver_that_is_not_installed(self, monkeypatch):
        monkeypatch.setitem(sys.modules, "psycopg2", None)
        with pytest.raises(StoreError) as error:
            database("postgresql+psycopg2://u:hunter22@h/x", None)
        assert said(error) == f"run store postgresql://h/x: its driver psycopg2 is not installed; {ADVICE}"

    def test_options_that_a_driver_does_not_take(self):
        with pytest.raises(StoreError, match=r"^run store sqlite://host/x: "):
            database("sqlite://u:hunter22@host/x", None).transaction().__enter__()

    def test_a_server_that_is_not_there(self, tmp_path):
        secret = "hunter22/secret"
        with pytest.raises(StoreError) as error:
            RunStore.open(f"postgresql+psycopg://hunter22%2Fsecret:hunter22%2Fsecret@/evals?host={tmp_path}", base=tmp_path)
        assert said(error).startswith("run store postgresql:///evals: connection is bad: ")
        assert secret not in said(error)
        assert said(error).endswith(ADVICE)
        assert error.value.__suppress_context__

    def test_parameters_are_in_no_message(self, tmp_path):
        made = database(f"sqlite:///{tmp_path / 'runs.db'}", None)
        with pytest.raises(StoreError) as error, made.transaction(write=True) as statements:
            statements.execute("INSERT INTO nowhere VALUES (:a)", {"a": "an output"})
        assert said(error) == f"run store sqlite:///{tmp_path / 'runs.db'}: no such table: nowhere; {ADVICE}"

    def test_no_row_is_no_statement(self, tmp_path):
        made = database(f"sqlite:///{tmp_path / 'runs.db'}", None)
        with made.transaction(write=True) as statements:
            statements.execute_many("INSERT INTO nowhere VALUES (:a)", [])

    def test_it_waits_no_longer_than_it_should(self):
        from sqlalchemy import event

        asked = []
        for url in ("postgresql+psycopg://h/x", "postgresql+psycopg://h/x?connect_timeout=3"):
            made = database(url, None)

            @event.listens_for(made._engine, "do_connect")
            def connect(dialect, record, arguments, options):
                asked.append(options["connect_timeout"])
                raise ConnectionRefusedError

            with pytest.raises(ConnectionRefusedError), made.transaction():
                pass
        assert asked == [10, "3"]


def test_without_sqlalchemy(monkeypatch, tmp_path):
    monkeypatch.setitem(sys.modules, "sqlalchemy", None)
    with pytest.raises(StoreError) as error:
        database("postgresql://u:hunter22@h/x", tmp_path)
    assert said(error) == "the run store is a database URL, which needs SQLAlchemy; run: pip install 'pytest-touchstone[store]'"
