"""`--llm-export` end to end: what is written, what is left out, and that no holdout case gets through."""

from __future__ import annotations

import json

import anthropic  # noqa: F401 - as openai
import httpcore2  # noqa: F401 - as openai
import openai  # noqa: F401 - kept across the sessions inside this process, which forget what they import themselves
import pytest
from providers import FakeProvider, Reply

CASES = """
cases:
  - {id: wrong, input: What is the capital of France?, expected: Paris, split: train, tags: [geo]}
  - {id: right, input: What is the capital of Italy?, expected: Rome, split: train}
  - {id: held, input: What is the capital of Spain?, expected: Madrid, split: holdout}
  - {id: twin, input: what is the  capital of SPAIN?, expected: Madrid, split: train}
  - {id: broken, input: boom, expected: x, split: train}
  - {id: judged, input: Say something nice., rubric: nice, split: train}
"""

TEST = """
import openai
import pytest
from pytest_touchstone import exact_match

client = openai.OpenAI()

@pytest.mark.golden("cases.yaml")
def test_it(case):
    if case.id == "broken":
        raise OSError("the app is broken")
    messages = [{"role": "system", "content": "Answer in one word."}, {"role": "user", "content": case.input}]
    case.output = client.chat.completions.create(model="gpt-test", messages=messages).choices[0].message.content
    if case.expected is None:
        assert "nice" in case.output
    else:
        case.check(exact_match())
"""


@pytest.fixture
def project(pytester, monkeypatch):
    (pytester.path / "cases.yaml").write_text(CASES, encoding="utf-8")
    pytester.makepyfile(test_suite=TEST)
    with FakeProvider(Reply(text="Rome")) as provider:
        monkeypatch.setenv("OPENAI_BASE_URL", provider.openai_url)
        monkeypatch.setenv("OPENAI_API_KEY", "sk-planted-0123456789abcdef")
        yield pytester


def exported(pytester):
    lines = (pytester.path / "training" / "train.jsonl").read_text(encoding="utf-8").splitlines()
    return [json.loads(line) for line in lines], json.loads((pytester.path / "training" / "manifest.json").read_text(encoding="utf-8"))


def test_failures_with_a_target_and_passing_cases_are_written(project, runner):
    result = runner.run("--llm-eval", "--llm-export", "training")
    rows, manifest = exported(project)
    system = {"role": "system", "content": "Answer in one word."}
    prompts = {row["prompt"][-1]["content"]: row for row in rows}
    assert set(prompts) == {"What is the capital of France?", "What is the capital of Italy?"}
    assert prompts["What is the capital of France?"]["prompt"][0] == system
    assert prompts["What is the capital of France?"]["completion"] == [{"role": "assistant", "content": "Paris"}]
    assert prompts["What is the capital of Italy?"]["completion"] == [{"role": "assistant", "content": "Rome"}]
    assert (manifest["trials"], manifest["written"], manifest["left_out"]) == (6, 2, 4)
    assert manifest["by_kind"] == {"fix": 1, "replay": 1}
    reasons = {entry["case_id"]: entry["reason"] for entry in manifest["not_exported"]}
    assert set(reasons) == {"held", "twin", "broken", "judged"}
    assert reasons["held"] == "holdout"
    assert reasons["twin"].startswith("leak")
    assert reasons["broken"].startswith("error")
    assert reasons["judged"].startswith("no verified target")
    result.stdout.fnmatch_lines(["export: 2 examples written to *training (1 fix, 1 replay)", "export: 4 trials left out (*)"])
    assert result.ret == 1


def test_a_part_of_the_passing_cases_may_be_taken(project, runner):
    result = runner.run("--llm-eval", "--llm-export", "training", "--llm-replay", "0")
    rows, manifest = exported(project)
    assert [row["completion"][0]["content"] for row in rows] == ["Paris"]
    reasons = {entry["case_id"]: entry["reason"] for entry in manifest["not_exported"]}
    assert reasons["right"] == "not replayed: --llm-replay 0 leaves this case out"
    result.stdout.fnmatch_lines(["export: 1 example written to *training (1 fix)", "export: 5 trials left out (*1 not replayed*)"])


@pytest.mark.parametrize("part", ["-0.1", "1.5", "half", "nan"])
def test_a_part_that_is_none_is_refused(project, runner, part):
    result = runner.run("--llm-eval", "--llm-export", "training", f"--llm-replay={part}")
    assert result.ret == pytest.ExitCode.USAGE_ERROR
    result.stderr.fnmatch_lines([f"*argument --llm-replay: '{part}' is not a number from 0 to 1"])


def test_replay_without_an_export_is_refused(project, runner):
    result = runner.run("--llm-eval", "--llm-replay", "0.5")
    assert result.ret == pytest.ExitCode.USAGE_ERROR
    result.stderr.fnmatch_lines(["*--llm-replay chooses what --llm-export writes; add --llm-export DIR, or leave it out"])


def test_cases_in_quarantine_are_left_out_whether_they_failed_or_passed(project, runner):
    held = "split: train, quarantine: {reason: the vendor answers at random, until: 9999-12-31}"
    (project.path / "cases.yaml").write_text(CASES.replace("split: train", held), encoding="utf-8")
    result = runner.run("--llm-eval", "--llm-export", "training")
    manifest = json.loads((project.path / "training" / "manifest.json").read_text(encoding="utf-8"))
    reasons = {entry["case_id"]: entry["reason"] for entry in manifest["not_exported"]}
    assert manifest["written"] == 0
    assert reasons["wrong"] == reasons["right"] == "quarantined as flaky: the vendor answers at random"
    assert manifest["left_out_by_reason"]["quarantined as flaky"] == 3
    assert reasons["twin"].startswith("leak")
    assert reasons["broken"].startswith("error")
    result.stdout.fnmatch_lines(["quarantined: 5 cases, 4 of them did not pass (-v says why)"])


@pytest.mark.parametrize("arguments", [["--llm-split", "train"], ["-k", "twin"], ["--llm-limit", "4", "--llm-split", "train"]])
def test_a_holdout_case_that_is_not_selected_still_guards(project, runner, arguments):
    runner.run("--llm-eval", "--llm-export", "training", *arguments)
    for path in (project.path / "training").iterdir():
        assert "spain" not in path.read_text(encoding="utf-8").lower()


def test_a_hook_changes_and_drops_examples(project, runner):
    project.makeconftest(
        """
        def pytest_llm_example(example, trial):
            assert trial.split == "train"
            if trial.id == "right":
                return False
            example["prompt"][0]["content"] = "Be brief."
        """
    )
    runner.run("--llm-eval", "--llm-export", "training")
    rows, manifest = exported(project)
    assert [row["prompt"][0]["content"] for row in rows] == ["Be brief."]
    reasons = {entry["case_id"]: entry["reason"] for entry in manifest["not_exported"]}
    assert reasons["right"] == "dropped by a pytest_llm_example hook"


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("raise KeyError('oops')", "export: case 'wrong': a pytest_llm_example hook raised KeyError: 'oops'"),
        (
            "example['completion'] = []",
            "export: case 'wrong': the example cannot be exported: the completion must be exactly one assistant message",
        ),
        ("example.clear()", "export: case 'wrong': "),
    ],
)
def test_a_hooks_mistake_stops_the_export_and_names_the_case(project, runner, line, message):
    project.makeconftest(f"def pytest_llm_example(example, trial):\n    {line}\n")
    result = runner.run("--llm-eval", "--llm-export", "training", "-k", "wrong")
    assert message in result.stdout.str()
    assert result.ret == pytest.ExitCode.USAGE_ERROR
    assert not (project.path / "training" / "train.jsonl").exists()


def test_a_hook_takes_the_data_away_once(project, runner):
    project.makeconftest(
        """
        def pytest_llm_export(dataset, config):
            with open(config.rootpath / "taken.jsonl", "ab") as taken:
                taken.write(dataset.train_file.read_bytes())
            assert dataset.manifest.written == 2
            assert dataset.folder == config.rootpath / "training"
            assert "spain" not in dataset.train_file.read_text().lower()
        """
    )
    result = runner.run("--llm-eval", "--llm-export", "training")
    assert "export: a pytest_llm_export" not in result.stdout.str()
    assert (project.path / "taken.jsonl").read_bytes() == (project.path / "training" / "train.jsonl").read_bytes()


def test_a_hook_is_told_that_there_are_no_data(project, runner):
    project.makeconftest("def pytest_llm_export(dataset, config):\n    print('training file:', dataset.train_file)\n")
    result = runner.run("--llm-eval", "--llm-export", "training", "-k", "judged", "-s")
    result.stdout.fnmatch_lines(["*training file: None*"])


def test_a_hook_that_raises_is_told_and_the_data_stay(project, runner):
    project.makeconftest("def pytest_llm_export(dataset, config):\n    raise OSError('the hub refused sk-planted-0123456789abcdef')\n")
    result = runner.run("--llm-eval", "--llm-export", "training", "-k", "right")
    result.stdout.fnmatch_lines(
        ["export: 1 example written to *", "export: a pytest_llm_export hook raised OSError: the hub refused [[]*]"]
    )
    assert "sk-planted" not in result.stdout.str()
    assert len(exported(project)[0]) == 1
    assert result.ret == pytest.ExitCode.USAGE_ERROR


def test_a_hook_takes_nothing_where_the_export_was_stopped(project, runner):
    project.makeconftest(
        """
        def pytest_llm_example(example, trial):
            example.clear()

        def pytest_llm_export(dataset, config):
            (config.rootpath / "called").touch()
        """
    )
    runner.run("--llm-eval", "--llm-export", "training", "-k", "right")
    assert not (project.path / "called").exists()


def test_a_hook_cannot_smuggle_a_holdout_case_in(project, runner):
    project.makeconftest(
        "def pytest_llm_example(example, trial):\n    example['prompt'][-1]['content'] = 'What is the capital of Spain?'\n"
    )
    runner.run("--llm-eval", "--llm-export", "training")
    assert not (project.path / "training" / "train.jsonl").exists()
    manifest = json.loads((project.path / "training" / "manifest.json").read_text(encoding="utf-8"))
    assert manifest["written"] == 0
    assert manifest["left_out"] == 6


def test_a_case_that_is_moved_to_holdout_after_it_was_exported_is_told(project, runner):
    runner.run("--llm-eval", "--llm-export", "training")
    moved = CASES.replace("expected: Paris, split: train", "expected: Paris, split: holdout")
    (project.path / "cases.yaml").write_text(moved.replace("id: wrong", "id: renamed"), encoding="utf-8")
    result = runner.run("--llm-eval", "--llm-export", "training")
    told = "1 holdout case had been in earlier exports, so what was trained on those cannot be measured by them"
    result.stdout.fnmatch_lines([f"export: {told}: test_suite.py::test_it wrong"])
    rows, manifest = exported(project)
    assert [row["prompt"][-1]["content"] for row in rows] == ["What is the capital of Italy?"]
    assert [entry["case_id"] for entry in manifest["holdout_taught"]] == ["wrong"]


def test_a_broken_ledger_is_told_before_anything_is_asked(project, runner):
    runner.run("--llm-eval", "--llm-export", "training")
    (project.path / "training" / "ledger.jsonl").write_text("=======\n", encoding="utf-8")
    result = runner.run("--llm-eval", "--llm-export", "training")
    assert result.ret == pytest.ExitCode.USAGE_ERROR
    result.stderr.fnmatch_lines(["*ledger.jsonl:1: cannot be read as an entry of the ledger (lines at fault: 1); restore the file*"])
    assert "golden cases" not in result.stdout.str()


def test_a_folder_that_cannot_be_used_is_told_before_anything_is_asked(project, runner):
    (project.path / "training").write_text("a file", encoding="utf-8")
    result = runner.run("--llm-eval", "--llm-export", "training")
    assert result.ret == pytest.ExitCode.USAGE_ERROR
    assert "training" in result.stderr.str()
    assert "golden cases" not in result.stdout.str()


def test_what_did_not_run_is_in_the_manifest(project, runner):
    runner.run("--llm-eval", "--llm-export", "training", "-x")
    manifest = json.loads((project.path / "training" / "manifest.json").read_text(encoding="utf-8"))
    assert manifest["trials"] == 6
    assert manifest["written"] + manifest["left_out"] == 6


def test_a_run_in_which_nothing_is_selected_leaves_an_earlier_export_as_it_was(project, runner):
    runner.run("--llm-eval", "--llm-export", "training")
    before = files(project.path / "training")
    result = runner.run("--llm-eval", "--llm-export", "training", "-k", "no_such_case")
    result.stdout.fnmatch_lines([f"export: not written, as no trial has run; {project.path / 'training'} is left as it was"])
    assert files(project.path / "training") == before


def test_an_error_of_collection_leaves_an_earlier_export_as_it_was(project):
    project.runpytest("--llm-eval", "--llm-export", "training")
    before = files(project.path / "training")
    project.makepyfile(test_broken="import a_module_that_is_not_there")
    result = project.runpytest("--llm-eval", "--llm-export", "training")
    assert result.ret == pytest.ExitCode.INTERRUPTED
    result.stdout.fnmatch_lines([f"export: not written, as no trial has run; {project.path / 'training'} is left as it was"])
    assert files(project.path / "training") == before


def files(folder):
    return {path.name: path.read_bytes() for path in folder.iterdir() if path.is_file()}


FIELD = """
import json
import openai
import pytest
from pytest_touchstone import exact_match

client = openai.OpenAI()

@pytest.mark.golden("cases.yaml")
def test_it(case):
    answer = client.chat.completions.create(model="gpt-test", messages=[{"role": "user", "content": case.input}])
    case.output = json.loads(answer.choices[0].message.content)["team"]
    case.check(exact_match())
"""


@pytest.mark.parametrize(
    ("answer", "exported_as"),
    [
        ({"team": "billing"}, '{"team": "returns"}'),
        ({"team": "billing", "why": "A bill is named."}, None),
    ],
)
def test_what_a_field_should_hold_is_no_answer_of_the_model(project, runner, monkeypatch, answer, exported_as):
    (project.path / "cases.yaml").write_text(
        "cases: [{id: parcel, input: It came broken., expected: returns, split: train}]", encoding="utf-8"
    )
    project.makepyfile(test_suite=FIELD)
    with FakeProvider(Reply(text=json.dumps(answer))) as provider:
        monkeypatch.setenv("OPENAI_BASE_URL", provider.openai_url)
        result = runner.run("--llm-eval", "--llm-export", "training")
    manifest = json.loads((project.path / "training" / "manifest.json").read_text(encoding="utf-8"))
    if exported_as is None:
        assert manifest["left_out_by_reason"] == {"not the model's answer": 1}
        result.stdout.fnmatch_lines(["export: 1 trial left out (1 not the model's answer)"])
    else:
        rows, _ = exported(project)
        assert rows[0]["completion"] == [{"role": "assistant", "content": exported_as}]
