"""How far a run went: `rewrite` and the evidence for pruning, after full runs and after partial ones."""

from __future__ import annotations

import anthropic  # noqa: F401 - as openai
import httpcore2  # noqa: F401 - as openai
import openai  # noqa: F401 - kept across the sessions inside this process, which forget what they import themselves
import pytest
from providers import FakeProvider, Reply, whole
from running import Runner

from pytest_touchstone.recording.evidence import read_evidence
from pytest_touchstone.recording.store import read_recording

APP = """
import openai

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
    case.check(lambda trial: trial.output == trial.expected)
"""

CASES = """
cases:
  - {id: a, input: one, expected: ok, split: train}
  - {id: b, input: two, expected: ok, split: holdout}
"""


class Shop:
    """A project with one golden test of two cases."""

    def __init__(self, pytester, provider, runner):
        self.pytester = pytester
        self.provider = provider
        self.path = pytester.path / "__recordings__" / "test_suite.jsonl"
        self.runner = runner

    def run(self, *args):
        return self.runner.run("--llm-eval", *args)

    def change(self, old, new, file="cases.yaml"):
        path = self.pytester.path / file
        text = path.read_text(encoding="utf-8")
        assert old in text
        path.write_text(text.replace(old, new), encoding="utf-8")

    def asked(self):
        """What was asked in the calls that are recorded."""
        return sorted(entry.request["body"]["json"]["messages"][0]["content"] for entry in read_recording(self.path))

    def evidence(self):
        return read_evidence(self.pytester.path / ".touchstone" / "used.jsonl")


@pytest.fixture
def spread(shop, runner):
    """The project with the ways to run it: in this process, and spread over the workers of pytest-xdist."""
    shop.runner = runner
    return shop


@pytest.fixture
def shop(pytester, monkeypatch):
    (pytester.path / "app.py").write_text(APP, encoding="utf-8")
    (pytester.path / "cases.yaml").write_text(CASES, encoding="utf-8")
    pytester.makepyfile(test_suite=TEST)
    pytester.syspathinsert()
    with FakeProvider(Reply(text="ok")) as provider:
        monkeypatch.setenv("OPENAI_BASE_URL", provider.openai_url)
        monkeypatch.setenv("OPENAI_API_KEY", "a-key-for-tests-only")
        yield Shop(pytester, provider, Runner(pytester=pytester, arguments=()))


def notes(result):
    return [line for line in result.outlines if line.startswith("recordings: ")]


def test_rewrite_leaves_exactly_what_a_full_run_asked(spread):
    spread.run().assert_outcomes(passed=2)
    spread.change("two", "three")
    spread.run("--llm-record", "all").assert_outcomes(passed=2)
    assert spread.asked() == ["one", "three", "two"]
    result = spread.run("--llm-record", "rewrite")
    result.assert_outcomes(passed=2)
    assert notes(result) == ["recordings: 1 recording that no test asked for dropped from __recordings__/test_suite.jsonl"]
    assert spread.asked() == ["one", "three"]
    spread.provider.stop()
    spread.run("--llm-record", "none").assert_outcomes(passed=2)


def test_recording_anew_leaves_the_file_as_it_is_where_only_ids_differ(shop):
    shop.run().assert_outcomes(passed=2)
    before = shop.path.read_bytes()
    shop.provider.answer = lambda seen: Reply(body={**whole(seen, Reply(text="ok")), "id": "chatcmpl-another", "created": 5})
    result = shop.run("--llm-record", "rewrite")
    result.assert_outcomes(passed=2)
    assert len(shop.provider.requests) == 4
    assert (notes(result), shop.path.read_bytes()) == ([], before)


TOOL_APP = """
import openai

client = openai.OpenAI()


def answer(text):
    messages = [{"role": "user", "content": text}]
    call = client.chat.completions.create(model="gpt-test", messages=messages).choices[0].message.tool_calls[0]
    messages += [{"role": "assistant", "tool_calls": [call.model_dump()]}, {"role": "tool", "tool_call_id": call.id, "content": "refunded"}]
    return client.chat.completions.create(model="gpt-test", messages=messages).choices[0].message.content
"""


def test_a_conversation_with_tools_stays_as_it_is_and_replays(shop):
    def answer(seen):
        if len(seen.json["messages"]) > 1:
            assert seen.json["messages"][-1]["tool_call_id"].startswith(f"call_{turn}_")
            return Reply(text="ok")
        body = whole(seen, Reply(tool_calls=(("refund", "{}"),)))
        body["choices"][0]["message"]["tool_calls"][0]["id"] = f"call_{turn}_{seen.json['messages'][0]['content']}"
        return Reply(body={**body, "id": f"chatcmpl-{turn}"})

    (shop.pytester.path / "app.py").write_text(TOOL_APP, encoding="utf-8")
    shop.provider.answer = answer
    turn = "first"
    shop.run().assert_outcomes(passed=2)
    before = shop.path.read_bytes()
    turn = "second"
    result = shop.run("--llm-record", "rewrite")
    result.assert_outcomes(passed=2)
    assert (notes(result), shop.path.read_bytes()) == ([], before)
    shop.provider.stop()
    shop.run("--llm-record", "none").assert_outcomes(passed=2)


def test_further_trials_stay_until_a_run_makes_them(shop):
    shop.run("--llm-repeat", "2").assert_outcomes(passed=4)
    assert shop.evidence().modules[0].trials == 2
    assert shop.evidence().modules[0].tests == {"test_it[a]", "test_it[b]"}
    shop.change("two", "three")
    result = shop.run("--llm-record", "rewrite")
    assert notes(result)[1:] == [
        "recordings: 1 recording that no test asked for dropped from __recordings__/test_suite.jsonl",
        ("recordings: 2 recordings that no test asked for stay in __recordings__/test_suite.jsonl: only 1 trial of each case was run"),
    ]
    assert shop.asked() == ["one", "one", "three", "two"]
    shop.run("--llm-record", "rewrite", "--llm-repeat", "2").assert_outcomes(passed=4)
    assert shop.asked() == ["one", "one", "three", "three"]


@pytest.mark.parametrize(
    ("args", "why"),
    [
        (["-k", "a"], "some of its golden tests were deselected"),
        (["--llm-limit", "1"], "some of its golden tests were deselected"),
        (["--llm-split", "train"], "some of its golden tests were deselected"),
        (["test_suite.py::test_it[a]"], "only a part of it was asked for (test_suite.py::test_it[a])"),
        (["--lf"], "--lf ran only what had failed"),
    ],
)
def test_after_a_partial_run_nothing_is_dropped(shop, args, why):
    shop.run().assert_outcomes(passed=2)
    result = shop.run("--llm-record", "rewrite", *args)
    assert result.ret == 0
    assert shop.asked() == ["one", "two"]
    [run] = shop.evidence().modules
    assert (run.module, run.partial) == ("test_suite.py", why)
    if args != ["--lf"]:
        count = "1 recording that no test asked for stays in __recordings__/test_suite.jsonl"
        assert notes(result) == [f"recordings: {count}: test_suite.py did not run in full: {why}"]


def test_nor_where_a_trial_did_not_run(shop):
    shop.run().assert_outcomes(passed=2)
    shop.change(
        "case.output = answer(case.input)",
        'pytest.skip("not today") if case.id == "b" else None; case.output = answer(case.input)',
        "test_suite.py",
    )
    result = shop.run("--llm-record", "rewrite")
    assert shop.asked() == ["one", "two"]
    result.stdout.fnmatch_lines(["recordings: 1 recording * stays in *: test_suite.py did not run in full: 1 of its 2 trials did not run"])


def test_nor_where_the_run_was_stopped(shop):
    shop.run().assert_outcomes(passed=2)
    shop.change("expected: ok, split: train", "expected: no, split: train")
    shop.run("--llm-record", "rewrite", "-x").assert_outcomes(failed=1)
    assert shop.asked() == ["one", "two"]
    assert shop.evidence().modules[0].partial == "1 of its 2 trials did not run"


def test_collecting_only_leaves_the_evidence_of_the_last_run(shop):
    shop.run().assert_outcomes(passed=2)
    shop.run("--collect-only", "-k", "a")
    shop.run("--llm-plan", "-k", "a")
    assert shop.evidence().modules[0].partial == ""


def test_nor_where_a_trial_is_an_error(shop):
    shop.run().assert_outcomes(passed=2)
    shop.change("case.output = answer(case.input)", 'case.output = answer(case.input) if case.id == "a" else 1 / 0', "test_suite.py")
    result = shop.run("--llm-record", "rewrite")
    assert shop.asked() == ["one", "two"]
    result.stdout.fnmatch_lines(
        ["recordings: 1 recording * stays in *: test_suite.py did not run in full: 1 of its 2 trials ended in an error"]
    )


def test_nor_what_a_failing_test_may_not_have_come_to(shop):
    shop.run().assert_outcomes(passed=2)
    shop.change("case.output = answer(case.input)", 'assert case.id == "a"; case.output = answer(case.input)', "test_suite.py")
    result = shop.run("--llm-record", "rewrite")
    assert shop.asked() == ["one", "two"]
    result.stdout.fnmatch_lines(["recordings: 1 recording * stays in *: their tests did not pass, and may have stopped before they asked"])


def test_nor_where_a_worker_died(shop):
    shop.run().assert_outcomes(passed=2)
    shop.change(
        "case.output = answer(case.input)",
        'import os; os._exit(1) if case.id == "b" else None; case.output = answer(case.input)',
        "test_suite.py",
    )
    shop.run("--llm-record", "rewrite", "-n", "2", "--max-worker-restart=0", "-p", "no:syrupy")
    assert shop.asked() == ["one", "two"]
    assert shop.evidence().modules[0].partial == "a worker process died, and what it had asked for is not known"


def test_nor_where_a_part_cannot_be_collected(shop):
    shop.run().assert_outcomes(passed=2)
    shop.pytester.makepyfile(test_other="import nothing_of_this_name")
    result = shop.run("--llm-record", "rewrite", "--continue-on-collection-errors")
    assert result.ret == 1
    evidence = shop.evidence()
    assert (evidence.modules[0].partial, evidence.selected) == ("", "test_other.py was not collected")


def test_nor_where_pytest_or_a_plugin_broke(shop):
    shop.run().assert_outcomes(passed=2)
    shop.pytester.makeconftest("def pytest_runtest_logfinish(nodeid):\n    raise ValueError(nodeid)\n")
    result = shop.run("--llm-record", "rewrite")
    assert result.ret == 3
    assert shop.evidence().modules[0].partial == "the run ended with an error of pytest or a plugin"


def test_nor_from_a_file_that_cannot_be_used(shop):
    shop.run().assert_outcomes(passed=2)
    before = shop.path.read_bytes() + b"=======\n"
    shop.path.write_bytes(before)
    result = shop.run("--llm-record", "rewrite")
    assert result.ret == 10
    assert notes(result) == [
        "recordings: nothing was dropped from __recordings__/test_suite.jsonl, because it cannot be used:",
        (
            "recordings: __recordings__/test_suite.jsonl:4: is a merge conflict marker; keep the lines of both sides, delete the markers "
            "(or set merge=union in .gitattributes)"
        ),
    ]
    assert shop.path.read_bytes() == before


def test_tests_that_are_not_golden_and_the_usual_paths_do_not_matter(shop):
    shop.pytester.makeini("[pytest]\ntestpaths = .\n")
    shop.pytester.makepyfile(test_plain="def test_plain():\n    pass\n")
    result = shop.run("-k", "it")
    result.assert_outcomes(passed=2, deselected=1)
    assert (shop.evidence().not_whole, shop.evidence().modules[0].partial) == ("", "")


def test_a_folder_that_cannot_be_written_costs_the_evidence_only(shop):
    shop.run().assert_outcomes(passed=2)
    used = shop.pytester.path / ".touchstone" / "used.jsonl"
    used.unlink()
    used.mkdir()
    result = shop.run("--llm-record", "none")
    assert (result.ret, notes(result)) == (0, [])


def test_a_test_that_is_gone_is_dropped_by_a_whole_run_only(shop):
    shop.run().assert_outcomes(passed=2)
    shop.change("id: b, input: two", "id: c, input: three")
    stays = "1 recording that no test asked for stays in __recordings__/test_suite.jsonl"
    why = "it was given paths, or was started below the rootdir"
    result = shop.run("--llm-record", "rewrite", "test_suite.py")
    assert notes(result) == [
        "recordings: 1 call recorded in __recordings__/test_suite.jsonl",
        f"recordings: {stays}: they may belong to a test that moved, and the run was not a whole one: {why}",
    ]
    shop.run("--llm-record", "rewrite")
    assert shop.asked() == ["one", "three"]


def test_a_replay_leaves_evidence_too_and_off_leaves_none(spread):
    spread.run("--llm-record", "off").assert_outcomes(passed=2)
    assert not (spread.pytester.path / ".touchstone" / "used.jsonl").exists()
    spread.run().assert_outcomes(passed=2)
    spread.run("--llm-record", "none").assert_outcomes(passed=2)
    evidence = spread.evidence()
    assert (evidence.selected, evidence.not_whole) == ("", "")
    [run] = evidence.modules
    assert (run.partial, run.tests, run.unfinished, run.trials) == ("", {"test_it[a]", "test_it[b]"}, frozenset(), 1)
    assert [len(asked) for asked in evidence.asked.values()] == [2]
    assert (spread.pytester.path / ".touchstone" / ".gitignore").read_text() == "*\n"


class TestRequestHook:
    CONFTEST = """
    import re

    def pytest_llm_request(request):
        for message in request["body"]["messages"]:
            message["content"] = re.sub(r"at \\d+", "at some time", message["content"])
    """

    def test_what_a_hook_takes_out_does_not_count_and_is_still_sent(self, shop):
        shop.pytester.makeconftest(self.CONFTEST)
        shop.change("answer(case.input)", 'answer(case.input + " at 5")', "test_suite.py")
        shop.run().assert_outcomes(passed=2)
        assert {request.json["messages"][0]["content"] for request in shop.provider.requests} == {"one at 5", "two at 5"}
        assert shop.asked() == ["one at some time", "two at some time"]
        shop.change(" at 5", " at 6", "test_suite.py")
        shop.run("--llm-record", "none").assert_outcomes(passed=2)

    def test_a_hook_that_raises_makes_the_trial_an_error(self, shop):
        shop.pytester.makeconftest("def pytest_llm_request(request):\n    raise ValueError('no body')\n")
        result = shop.run()
        assert result.ret == 10
        assert "has no key: a pytest_llm_request hook raised ValueError: no body" in result.stdout.str()

    def test_ignored_fields_do_not_count(self, shop):
        shop.pytester.makeini("[pytest]\nllm_record_ignore =\n    messages.*.name\n    /seed\n")
        shop.change('"content": text}]', '"content": text, "name": "n1"}], seed=1', "app.py")
        shop.run().assert_outcomes(passed=2)
        shop.change('"n1"}], seed=1', '"n2"}], seed=2', "app.py")
        shop.run("--llm-record", "none").assert_outcomes(passed=2)

    def test_a_path_that_is_none_is_a_usage_error(self, shop):
        shop.pytester.makeini("[pytest]\nllm_record_ignore = a..b\n")
        result = shop.run()
        assert result.ret == 4
        assert (
            "ini llm_record_ignore: 'a..b' is not a path to a field of a JSON body; "
            "write it as metadata.session, messages.*.name or /metadata/session"
        ) in result.stderr.str()
