"""The store only moves forward: files of every older version are opened, those of newer ones are refused."""

from __future__ import annotations

import sqlite3
from pathlib import Path

import pytest
from run_samples import full_record, keep, record, run

from pytest_touchstone import runs_schema
from pytest_touchstone.errors import StoreError
from pytest_touchstone.runs import GateWord, RunStore

STORES = Path(__file__).parent / "stores"


def dump(path):
    connection = sqlite3.connect(path)
    text = "\n".join(connection.iterdump())
    connection.close()
    return text


def restore(version, path):
    connection = sqlite3.connect(path)
    connection.executescript((STORES / f"v{version}.sql").read_text(encoding="utf-8"))
    connection.close()


def test_there_is_a_stored_file_of_every_version():
    assert sorted(path.name for path in STORES.iterdir()) == [f"v{version}.sql" for version in range(1, runs_schema.KNOWN + 1)]


@pytest.mark.parametrize("version", range(1, runs_schema.KNOWN + 1))
def test_a_file_of_every_version_is_read_and_written(version, tmp_path):
    restore(version, tmp_path / "runs.db")
    store = RunStore.open("runs.db", base=tmp_path)
    (old,) = store.runs()
    assert (old.id, old.complete, old.exit_status) == ("20260131-235959-0a1b2c", True, 1)
    assert (old.checkout.branch, old.options, old.models) == ("main", {"record": "none"}, ("gpt-test",))
    assert old.gate == (None if version == 1 else GateWord(result="regressed", lines=("refunds: regressed", "  worse: gift")))
    failed, passed = store.records(old)
    assert (failed.outcome, failed.must_pass, failed.tags, failed.number) == ("failed", True, ("refunds", "ünïcode"), 3)
    assert [(score.name, score.passed) for score in failed.scores] == [("exact_match", False), ("judge", None)]
    assert [(call.role, call.cost_usd, call.replayed) for call in failed.calls] == [("app", 0.5, True), ("judge", None, False)]
    assert failed.calls[0].host == ("api.openai.com" if version >= 3 else "")
    assert (passed.case_id, passed.reason) == ("gift", "")
    store.add(run(minutes=1), [record()], redact=keep)
    assert len(store.runs()) == 2


def test_the_newest_file_is_what_is_created_today(tmp_path):
    RunStore.open("runs.db", base=tmp_path)
    restore(runs_schema.KNOWN, tmp_path / "stored.db")
    tables = [[line for line in dump(tmp_path / name).splitlines() if "INSERT" not in line] for name in ("runs.db", "stored.db")]
    assert tables[0] == tables[1]


def test_each_migration_is_applied_once_and_noted(tmp_path, monkeypatch):
    RunStore.open("runs.db", base=tmp_path)
    more = (*runs_schema.MIGRATIONS, ("ALTER TABLE touchstone_run ADD COLUMN note TEXT",))
    monkeypatch.setattr(runs_schema, "MIGRATIONS", more)
    monkeypatch.setattr(runs_schema, "KNOWN", len(more))
    before = (tmp_path / "runs.db").stat().st_mtime_ns
    for _ in range(2):
        RunStore.open("runs.db", base=tmp_path)
    assert "note TEXT" in dump(tmp_path / "runs.db")
    connection = sqlite3.connect(tmp_path / "runs.db")
    assert connection.execute("SELECT version FROM touchstone_schema ORDER BY version").fetchall() == [
        (version,) for version in range(1, len(more) + 1)
    ]
    connection.close()
    assert (tmp_path / "runs.db").stat().st_mtime_ns > before


def test_a_migration_that_fails_leaves_the_file_as_it_was(tmp_path, monkeypatch):
    RunStore.open("runs.db", base=tmp_path).add(run(), [full_record()], redact=keep)
    before = dump(tmp_path / "runs.db")
    monkeypatch.setattr(runs_schema, "MIGRATIONS", (*runs_schema.MIGRATIONS, ("CREATE TABLE half (a INTEGER)", "CREATE NONSENSE")))
    monkeypatch.setattr(runs_schema, "KNOWN", runs_schema.KNOWN + 1)
    with pytest.raises(StoreError, match=r"^runs\.db: near \"NONSENSE\": syntax error; nothing was changed$"):
        RunStore.open("runs.db", base=tmp_path)
    assert dump(tmp_path / "runs.db") == before


def test_a_store_of_the_newest_version_is_not_written(tmp_path):
    RunStore.open("runs.db", base=tmp_path)
    (tmp_path / "runs.db").chmod(0o400)
    before = (tmp_path / "runs.db").stat().st_mtime_ns
    assert RunStore.open("runs.db", base=tmp_path).runs() == []
    assert (tmp_path / "runs.db").stat().st_mtime_ns == before


def test_a_newer_one_is_refused(tmp_path):
    RunStore.open("runs.db", base=tmp_path)
    connection = sqlite3.connect(tmp_path / "runs.db")
    connection.execute("INSERT INTO touchstone_schema VALUES (7)")
    connection.commit()
    connection.close()
    with pytest.raises(StoreError) as error:
        RunStore.open("runs.db", base=tmp_path)
    assert str(error.value) == (
        "runs.db: it was written by a newer pytest-touchstone (schema 7, this one knows 3); "
        "upgrade pytest-touchstone, or name another store with llm_store"
    )
