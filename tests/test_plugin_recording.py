"""Recordings through pytest: record, replay without key and network, misses, and keys that stay out of every file."""

from __future__ import annotations

import json

import anthropic  # noqa: F401 - as openai
import httpcore2  # noqa: F401 - as openai
import openai  # noqa: F401 - kept across the sessions inside this process, which forget what they import themselves
import pytest
from providers import FakeProvider, Reply

APP = """
import openai
import os

client = openai.OpenAI()


def answer(text):
    reply = client.chat.completions.create(model="gpt-test", messages=[{"role": "user", "content": text}])
    return reply.choices[0].message.content
"""

TEST = """
import pytest
from app import answer

@pytest.mark.golden("cases.yaml")
def test_it(case):
    case.output = answer(case.input)
    assert len(case.calls) == 1
    case.check(lambda trial: trial.output == trial.expected)
"""

CASES = """
cases:
  - {id: a, input: one, expected: ok, split: train}
  - {id: b, input: two, expected: ok, split: train}
"""

KEY = "sk-planted-0123456789abcdef"


@pytest.fixture
def provider(pytester, monkeypatch):
    (pytester.path / "app.py").write_text(APP, encoding="utf-8")
    (pytester.path / "cases.yaml").write_text(CASES, encoding="utf-8")
    pytester.makepyfile(test_suite=TEST)
    pytester.syspathinsert()
    with FakeProvider(Reply(text="ok")) as provider:
        monkeypatch.setenv("OPENAI_BASE_URL", provider.openai_url)
        monkeypatch.setenv("OPENAI_API_KEY", KEY)
        yield provider


def test_a_run_records_and_the_next_replays_without_key_or_server(provider, pytester, runner, monkeypatch):
    result = runner.run("--llm-eval")
    result.assert_outcomes(passed=2)
    result.stdout.fnmatch_lines(["recordings: 2 calls recorded in __recordings__/test_suite.jsonl"])
    assert len(provider.requests) == 2
    provider.stop()
    monkeypatch.delenv("OPENAI_API_KEY")
    monkeypatch.setenv("CI", "true")
    replayed = runner.run("--llm-eval")
    replayed.assert_outcomes(passed=2)
    replayed.stdout.fnmatch_lines(
        ["touchstone: recordings none, judge none", "test_suite.py::test_it *2 *2 *0 *0 *0 *0 *100.0% *2 *22 *14 *unknown"]
    )


def test_a_conftest_may_build_its_client_without_a_key(provider, pytester, runner, monkeypatch):
    runner.run("--llm-eval").assert_outcomes(passed=2)
    monkeypatch.delenv("OPENAI_API_KEY")
    pytester.makeconftest("from app import client")
    runner.run("--llm-eval", "--llm-record", "none").assert_outcomes(passed=2)


def test_no_key_reaches_a_file_or_the_terminal(provider, pytester, runner):
    provider.answer = Reply(text=f"the key is {KEY}")
    result = runner.run("--llm-eval", "--junitxml=out.xml", "--llm-export", "training")
    result.assert_outcomes(failed=2)
    assert KEY not in result.stdout.str() + result.stderr.str()
    for path in pytester.path.rglob("*"):
        if path.is_file() and "__pycache__" not in path.parts:
            assert KEY.encode() not in path.read_bytes(), path


def test_no_key_in_an_exceptions_message_is_shown(provider, pytester, runner):
    (pytester.path / "app.py").write_text(APP + f"\ndef answer(text):\n    raise ValueError(chr(115) + {KEY[1:]!r})\n", encoding="utf-8")
    result = runner.run("--llm-eval", "--junitxml=out.xml")
    assert result.ret == 10
    assert "ValueError" in result.stdout.str()
    assert KEY not in result.stdout.str() + (pytester.path / "out.xml").read_text(encoding="utf-8")


def test_a_miss_is_an_error_that_shows_what_changed_and_how_to_record_it(provider, pytester, runner):
    runner.run("--llm-eval").assert_outcomes(passed=2)
    (pytester.path / "app.py").write_text(APP.replace('"content": text', '"content": text + "!"'), encoding="utf-8")
    result = runner.run("--llm-eval", "--llm-record", "none", "-k", "a")
    assert result.ret == 10
    assert len(provider.requests) == 2
    result.stdout.fnmatch_lines(
        ["*ERROR at call of test_it?a?*", "*-*one*", "*+*one!*", "*pytest --llm-eval --llm-record missing *test_suite.py::test_it?a?*"]
    )


def test_a_miss_cannot_be_swallowed(provider, pytester, runner):
    (pytester.path / "app.py").write_text(
        APP
        + "\ndef answer(text):\n    try:\n        client.chat.completions.create(model='m', messages=[])\n    except BaseException:\n        pass\n    return 'ok'\n",
        encoding="utf-8",
    )
    pytester.makepyfile(test_suite=TEST.replace("    assert len(case.calls) == 1\n", ""))
    result = runner.run("--llm-eval", "--llm-record", "none")
    assert result.ret == 10
    result.stdout.fnmatch_lines(["test_suite.py::test_it *2 *0 *0 *2 *0 *0 *"])


def test_a_miss_swallowed_before_another_error_is_the_error_shown(provider, pytester):
    (pytester.path / "app.py").write_text(
        APP
        + "\ndef answer(text):\n    try:\n        client.chat.completions.create(model='m', messages=[])\n    except BaseException:\n        raise ValueError('no answer')\n",
        encoding="utf-8",
    )
    result = pytester.runpytest_inprocess("--llm-eval", "--llm-record", "none")
    result.stdout.fnmatch_lines(["E*RecordingMiss*"])


def test_replay_blocks_the_network(provider, pytester, runner):
    pytester.makepyfile(
        test_suite="""
        import socket
        import pytest

        @pytest.mark.golden("cases.yaml", limit=1)
        def test_it(case):
            socket.create_connection(("192.0.2.1", 80), timeout=0.01)
        """
    )
    result = runner.run("--llm-eval", "--llm-record", "none")
    assert result.ret == 10
    assert "recordings are only replayed (--llm-record none), and something tried to reach 192.0.2.1:80." in result.stdout.str()


def test_calls_of_a_shared_fixture_belong_to_no_trial(provider, pytester, runner):
    pytester.makepyfile(
        test_suite="""
        import pytest
        from app import answer

        @pytest.fixture(scope="module")
        def warm():
            return answer("warm up")

        @pytest.fixture
        def own():
            return answer("own")

        @pytest.mark.golden("cases.yaml", limit=1)
        def test_it(case, warm, own):
            assert [call.messages[0]["content"] for call in case.calls] == ["own"]
        """
    )
    runner.run("--llm-eval").assert_outcomes(passed=1)
    provider.stop()
    runner.run("--llm-eval", "--llm-record", "none").assert_outcomes(passed=1)


def test_a_broken_recording_is_an_error_that_names_file_and_line(provider, pytester, runner):
    runner.run("--llm-eval").assert_outcomes(passed=2)
    path = pytester.path / "__recordings__" / "test_suite.jsonl"
    path.write_text(path.read_text(encoding="utf-8").replace('"ok"', '"OK"'), encoding="utf-8")
    result = runner.run("--llm-eval", "--llm-record", "none")
    assert result.ret == 10
    assert "__recordings__/test_suite.jsonl:2" in result.stdout.str()
    assert "Traceback" not in result.stdout.str()
    assert "recorder.py" not in result.stdout.str()
    assert "ERROR at teardown" not in result.stdout.str()


def test_async_bodies_replay_what_sync_ones_recorded(provider, pytester, runner):
    runner.run("--llm-eval").assert_outcomes(passed=2)
    provider.stop()
    pytester.makepyfile(
        test_suite="""
        import openai
        import pytest

        client = openai.AsyncOpenAI()

        @pytest.mark.golden("cases.yaml")
        async def test_it(case):
            reply = await client.chat.completions.create(model="gpt-test", messages=[{"role": "user", "content": case.input}])
            case.output = reply.choices[0].message.content
            await case.acheck(lambda trial: trial.output == trial.expected)
        """
    )
    runner.run("--llm-eval", "--llm-record", "none").assert_outcomes(passed=2)


def test_off_stores_nothing(provider, pytester, runner):
    runner.run("--llm-eval", "--llm-record", "off").assert_outcomes(passed=2)
    assert not (pytester.path / "__recordings__").exists()


def test_a_provider_that_is_down_is_an_error(provider, pytester, runner):
    provider.stop()
    result = runner.run("--llm-eval", "-k", "a")
    assert result.ret == 10
    result.stdout.fnmatch_lines(["*APIConnectionError*"])
    assert "site-packages" not in result.stdout.str()


def test_a_judge_is_asked_recorded_and_counted_apart(provider, pytester, runner):
    pytester.makepyfile(
        test_suite="""
        import pytest
        from app import answer

        @pytest.mark.golden("cases.yaml")
        def test_it(case, judge):
            case.output = answer(case.input)
            case.check(judge("Polite."))
            assert (len(case.calls), len(case.judge_calls)) == (1, 1)
        """
    )
    provider.answer = lambda seen: Reply(text='{"reason": "polite", "verdict": "pass"}' if "Polite." in seen.body.decode() else "ok")
    arguments = ["--llm-eval", "--llm-judge", "openai:judge-model"]
    result = runner.run(*arguments)
    result.assert_outcomes(passed=2)
    result.stdout.fnmatch_lines(["judges: 2 calls, 22 + 14 tokens, cost unknown"])
    provider.stop()
    runner.run(*arguments, "--llm-record", "none").assert_outcomes(passed=2)


def test_an_assert_that_pytest_shortens_shows_no_end_of_a_secret(provider, pytester, runner):
    pytester.makepyfile(
        test_suite="""
        import os
        import pytest

        @pytest.mark.golden([{"id": str(n), "input": str(n), "split": "train"} for n in (92, 98, 104, 110)])
        def test_it(case):
            before = int(case.input)
            said = "a" * before + os.environ["OPENAI_API_KEY"] + "b" * (215 - before)
            assert not said
        """
    )
    result = runner.run("--llm-eval", "--junitxml=out.xml", "-vv")
    shown = result.stdout.str() + (pytester.path / "out.xml").read_text(encoding="utf-8")
    result = runner.run("--llm-eval", "--junitxml=out.xml")
    shown += result.stdout.str() + (pytester.path / "out.xml").read_text(encoding="utf-8")
    result.assert_outcomes(failed=4)
    assert "a...b" in shown.replace("[redacted]", "")
    for size in range(6, len(KEY)):
        assert KEY[:size] not in shown
        assert KEY[-size:] not in shown


def test_a_judge_is_replayed_where_the_judged_output_holds_a_secret(provider, pytester, runner):
    pytester.makepyfile(
        test_suite="""
        import pytest
        from app import answer

        @pytest.mark.golden("cases.yaml")
        def test_it(case, judge):
            case.output = answer(case.input)
            case.check(judge("Polite."))
        """
    )
    verdict = Reply(text=json.dumps({"reason": "Courteous.", "verdict": "pass"}))
    provider.answer = lambda seen: verdict if seen.json["model"] == "judge-model" else Reply(text=f"the key is {KEY}")
    arguments = ["--llm-eval", "--llm-judge", "openai:judge-model"]
    runner.run(*arguments).assert_outcomes(passed=2)
    provider.stop()
    runner.run(*arguments, "--llm-record", "none").assert_outcomes(passed=2)


def test_without_a_judge_configured_the_error_says_how(provider, pytester, runner):
    pytester.makepyfile(
        test_suite="""
        import pytest

        @pytest.mark.golden("cases.yaml", limit=1)
        def test_it(case, judge):
            case.output = "x"
            case.check(judge("Polite."))
        """
    )
    result = runner.run("--llm-eval")
    assert result.ret == 10
    assert "--llm-judge" in result.stdout.str()
