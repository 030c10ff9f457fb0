"""`--llm-export-format` and `--llm-export-call` end to end."""

from __future__ import annotations

import json

import anthropic  # noqa: F401 - as openai
import httpcore2  # noqa: F401 - as openai
import openai  # noqa: F401 - kept across the sessions inside this process, which forget what they import themselves
import pytest
from providers import FakeProvider, Reply

CASES = """
cases:
  - {id: wrong, input: What is the capital of France?, expected: Paris, split: train}
  - {id: right, input: What is the capital of Italy?, expected: Rome, split: train}
  - {id: held, input: What is the capital of Spain?, expected: Madrid, split: holdout}
"""

TEST = """
import openai
import pytest
from pytest_touchstone import exact_match

client = openai.OpenAI()

def ask(*texts):
    messages = [{"role": "user" if number % 2 == 0 else "assistant", "content": text} for number, text in enumerate(texts)]
    return client.chat.completions.create(model="gpt-test", messages=messages).choices[0].message.content

@pytest.mark.golden("cases.yaml")
def test_it(case):
    draft = ask(f"Draft: {case.input}")
    case.output = ask(case.input, draft, "In one word.")
    case.check(exact_match())
"""


@pytest.fixture
def project(pytester, monkeypatch):
    (pytester.path / "cases.yaml").write_text(CASES, encoding="utf-8")
    pytester.makepyfile(test_suite=TEST)
    with FakeProvider(
        lambda seen: Reply(text="It is Rome" if b"Draft" in seen.body and b"one word" not in seen.body else "Rome")
    ) as provider:
        monkeypatch.setenv("OPENAI_BASE_URL", provider.openai_url)
        monkeypatch.setenv("OPENAI_API_KEY", "sk-planted-0123456789abcdef")
        yield pytester


def rows_of(pytester, name):
    return [json.loads(line) for line in (pytester.path / "training" / name).read_text(encoding="utf-8").splitlines()]


def manifest_of(pytester):
    return json.loads((pytester.path / "training" / "manifest.json").read_text(encoding="utf-8"))


def test_formats_are_written_beside(project, runner):
    result = runner.run(
        "--llm-eval", "--llm-export", "training", "--llm-export-format", "messages,preference", "--llm-export-format", "openai", "--llm-export-format=trl"
    )  # fmt: skip
    (pair,) = rows_of(project, "preference/train.jsonl")
    assert (pair["chosen"], pair["rejected"]) == ([{"role": "assistant", "content": "Paris"}], [{"role": "assistant", "content": "Rome"}])
    assert [row["messages"][-1]["content"] for row in rows_of(project, "messages/train.jsonl")] == ["Rome", "Paris"]
    assert not (project.path / "training" / "openai").exists()
    result.stdout.fnmatch_lines(
        [
            "export: 2 examples written to *training (1 fix, 1 replay)",
            "export: 1 trial left out (1 holdout)",
            "export: messages: 2 examples of 2",
            "export: openai: 0 examples of 2 (2 too few)",
            "export: preference: 1 example of 2 (1 no pair of answers)",
        ]
    )
    for path in (project.path / "training").rglob("*.json*"):
        assert "spain" not in path.read_text(encoding="utf-8").lower()


def test_formats_and_the_call_may_stand_in_the_ini_file(project, runner):
    project.makeini("[pytest]\nllm_export_formats =\n    messages, bedrock\n    preference\nllm_export_call = first\n")
    runner.run("--llm-eval", "--llm-export", "training")
    assert set(manifest_of(project)["formats"]) == {"messages", "bedrock", "preference"}
    assert [row["prompt"][0]["content"] for row in rows_of(project, "train.jsonl")] == ["Draft: What is the capital of Italy?"]
    runner.run("--llm-eval", "--llm-export", "training", "--llm-export-format", "openai", "--llm-export-call", "last")
    assert set(manifest_of(project)["formats"]) == {"openai"}
    left = sorted(path.name for path in (project.path / "training").iterdir())
    assert left == ["README.md", "ledger.jsonl", "manifest.json", "report.json", "train.jsonl"]


def test_all_calls_of_a_trial_that_passed_are_trained_on_and_the_last_of_one_that_failed(project, runner):
    result = runner.run("--llm-eval", "--llm-export", "training", "--llm-export-call", "all")
    rows = [(row["prompt"][0]["content"], row["completion"][0]["content"]) for row in rows_of(project, "train.jsonl")]
    assert rows == [
        ("Draft: What is the capital of Italy?", "It is Rome"),
        ("What is the capital of Italy?", "Rome"),
        ("What is the capital of France?", "Paris"),
    ]
    manifest = manifest_of(project)
    assert (manifest["trials"], manifest["offered"], manifest["written"], manifest["left_out"]) == (3, 5, 3, 2)
    assert [(entry["case_id"], entry["call"]) for entry in manifest["examples"]] == [("right", 1), ("right", 2), ("wrong", 2)]
    reasons = {entry["case_id"]: (entry.get("call"), entry["reason"]) for entry in manifest["not_exported"]}
    assert reasons == {"held": (None, "holdout"), "wrong": (1, "earlier call: the trial failed, and only its last answer has a target")}
    result.stdout.fnmatch_lines(["export: 2 calls left out (1 earlier call, 1 holdout)"])


def test_the_first_call_of_a_trial_that_failed_has_no_target(project, runner):
    runner.run("--llm-eval", "--llm-export", "training", "--llm-export-call", "first")
    manifest = manifest_of(project)
    assert [(entry["case_id"], entry["call"]) for entry in manifest["examples"]] == [("right", 1)]
    assert manifest["left_out_by_reason"] == {"earlier call": 1, "holdout": 1}
    assert manifest["trials"] == manifest["offered"] == 3


def test_a_hook_gets_the_rejected_answer_and_each_call(project, runner):
    project.makeconftest(
        """
        def pytest_llm_example(example, trial):
            if trial.id == "wrong":
                assert example["rejected"] == [{"role": "assistant", "content": "Rome"}]
                example["rejected"][0]["content"] = "Milan"
            if example["prompt"][0]["content"].startswith("Draft"):
                return False
        """
    )
    runner.run("--llm-eval", "--llm-export", "training", "--llm-export-call", "all", "--llm-export-format", "preference")
    assert rows_of(project, "preference/train.jsonl")[0]["rejected"] == [{"role": "assistant", "content": "Milan"}]
    dropped = [entry for entry in manifest_of(project)["not_exported"] if entry["reason"] == "dropped by a pytest_llm_example hook"]
    assert [(entry["case_id"], entry["call"]) for entry in dropped] == [("right", 1)]


def test_a_hook_cannot_smuggle_a_holdout_case_in_as_the_rejected_answer(project, runner):
    project.makeconftest(
        "def pytest_llm_example(example, trial):\n    example['rejected'] = [{'role': 'assistant', 'content': 'What is the capital of Spain?'}]\n"
    )
    runner.run("--llm-eval", "--llm-export", "training", "--llm-export-format", "preference")
    assert manifest_of(project)["written"] == 0
    assert not (project.path / "training" / "preference").exists()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--llm-export=training", "--llm-export-format=opnai"], "*argument --llm-export-format: 'opnai' is no export format; use one of trl, messages, preference, openai, *datasets"),
        (["--llm-export=training", "--llm-export-format= , "], "*argument --llm-export-format: ' , ' is no export format; use one of *"),
        (["--llm-export=training", "--llm-export-call=2"], "*argument --llm-export-call: invalid choice: '2' (choose from *last*first*all*"),
        (["--llm-export-format=openai"], "*--llm-export-format chooses how --llm-export writes; add --llm-export DIR, or leave it out"),
        (["--llm-export-call=all"], "*--llm-export-call chooses what --llm-export writes; add --llm-export DIR, or leave it out"),
    ],
)  # fmt: skip
def test_options_that_cannot_be_used(project, runner, arguments, message):
    result = runner.run("--llm-eval", *arguments)
    assert result.ret == pytest.ExitCode.USAGE_ERROR
    result.stderr.fnmatch_lines([message])


@pytest.mark.parametrize(
    ("line", "message"),
    [
        (
            "llm_export_formats = opnai",
            "*ini llm_export_formats: 'opnai' is no export format; use one of trl, *, for example llm_export_formats = openai",
        ),
        ("llm_export_call = 2", "*ini llm_export_call is '2'; use one of last, first, all"),
    ],
)
def test_ini_values_that_cannot_be_used(project, runner, line, message):
    project.makeini(f"[pytest]\n{line}\n")
    result = runner.run("--llm-eval")
    assert result.ret == pytest.ExitCode.USAGE_ERROR
    result.stderr.fnmatch_lines([message])


def test_a_place_that_is_taken_is_told_before_anything_is_asked(project, runner):
    (project.path / "training" / "openai").mkdir(parents=True)
    (project.path / "training" / "openai" / "train.jsonl").write_text("mine", encoding="utf-8")
    result = runner.run("--llm-eval", "--llm-export", "training", "--llm-export-format", "openai")
    assert result.ret == pytest.ExitCode.USAGE_ERROR
    result.stderr.fnmatch_lines(["*was not written by an export (its manifest does not list it); move it away or choose another folder"])
    assert "golden cases" not in result.stdout.str()
