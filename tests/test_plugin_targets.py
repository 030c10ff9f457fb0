"""Targets of failed cases beside the golden files: corrections and a teacher, end to end, with and without xdist."""

from __future__ import annotations

import json

import anthropic  # noqa: F401 - kept across the sessions inside this process, which forget what they import themselves
import httpcore2  # noqa: F401 - as anthropic
import openai  # noqa: F401 - as anthropic
import pytest
from providers import FakeProvider, Reply

CASES = """
cases:
  - {id: polite, input: Say something nice to Ann., rubric: Nice., split: train, tags: [tone]}
  - {id: short, input: Name a colour in one word., rubric: One word., split: train}
  - {id: fine, input: Say thanks., rubric: Thanks., split: train}
  - {id: held, input: Say something nice to the King of Spain., rubric: Nice., split: holdout}
"""

TEST = """
import openai
import pytest

client = openai.OpenAI()


def lowercase(trial):
    return trial.output == trial.output.lower()


@pytest.mark.golden("cases.yaml")
def test_it(case, judge):
    messages = [{"role": "system", "content": "Be nice."}, {"role": "user", "content": case.input}]
    case.output = client.chat.completions.create(model="app-1", messages=messages).choices[0].message.content
    case.check(lowercase, judge())
"""

ASYNC_TEST = (
    TEST.replace("openai.OpenAI()", "openai.AsyncOpenAI()")
    .replace("def test_it", "async def test_it")
    .replace(
        'client.chat.completions.create(model="app-1", messages=messages).choices',
        '(await client.chat.completions.create(model="app-1", messages=messages)).choices',
    )
    .replace("case.check(", "await case.acheck(")
)


class World:
    """An app, a judge and a teacher behind one loopback server; `says` maps a word of the prompt to what the teacher answers."""

    def __init__(self):
        self.says = {}
        self.asked = []

    def __call__(self, seen):
        model, text = (
            seen.json["model"],
            json.dumps(seen.json["messages"][1:] if seen.path.endswith("completions") else seen.json["messages"]),
        )
        self.asked.append((model, seen.json))
        if model == "judge-1":
            output = text.rpartition("begin output")[2]
            verdict = "pass" if "thank" in output or "lovely" in output else "fail"
            return Reply(text=json.dumps({"reason": "as it is", "verdict": verdict}))
        if model.startswith("teacher"):
            said = next((reply for word, reply in self.says.items() if word in text), "how lovely")
            return said if isinstance(said, Reply) else Reply(text=said)
        return Reply(text="thank you" if "thanks" in text else "go away")

    def teacher_prompts(self):
        return [body["messages"] for model, body in self.asked if model.startswith("teacher")]


@pytest.fixture
def world():
    return World()


@pytest.fixture
def project(pytester, monkeypatch, world):
    (pytester.path / "cases.yaml").write_text(CASES, encoding="utf-8")
    pytester.makepyfile(test_suite=TEST)
    pytester.makeini("[pytest]\nllm_judge = openai:judge-1\n")
    with FakeProvider(world) as provider:
        monkeypatch.setenv("OPENAI_BASE_URL", provider.openai_url)
        monkeypatch.setenv("OPENAI_API_KEY", "sk-planted-0123456789abcdef")
        monkeypatch.setenv("ANTHROPIC_BASE_URL", provider.anthropic_url)
        monkeypatch.setenv("ANTHROPIC_API_KEY", "sk-ant-planted-0123456789abcdef")
        yield pytester


EXPORT = ("--llm-eval", "--llm-export", "training")
TEACH = (*EXPORT, "--llm-teacher", "openai:teacher-1")
SUITE = "test_suite.py::test_it"


def lines_of(path):
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()] if path.exists() else []


def rows(project):
    return {row["prompt"][-1]["content"]: row["completion"][0]["content"] for row in lines_of(project.path / "training" / "train.jsonl")}


def manifest(project):
    return json.loads((project.path / "training" / "manifest.json").read_text(encoding="utf-8"))


def needed(project):
    return {line["id"]: line for line in lines_of(project.path / "training" / "needs_correction.jsonl")}


def fill(project, **corrections):
    path = project.path / "training" / "needs_correction.jsonl"
    lines = [{**line, "correction": corrections.get(line["id"], "")} for line in lines_of(path)]
    path.write_text("".join(json.dumps(line) + "\n" for line in lines), encoding="utf-8")


def reasons(project):
    return {entry["case_id"]: entry["reason"] for entry in manifest(project)["not_exported"]}


def test_failures_without_a_target_are_listed(project, runner):
    result = runner.run(*EXPORT)
    assert set(needed(project)) == {"polite", "short"}
    line = needed(project)["polite"]
    assert list(line) == ["id", "suite", "source", "content_hash", "why", "rubric", "input", "output", "correction"]
    assert (line["suite"], line["source"], line["rubric"]) == (SUITE, "cases.yaml:3", "Nice.")
    assert (line["input"], line["output"], line["correction"]) == ("Say something nice to Ann.", "go away", "")
    assert line["why"].startswith("failed judge 0.00: as it is; no verified target: the case has neither expected nor reference")
    how = "fill in *training/needs_correction.jsonl, or run touchstone correct *training"
    result.stdout.fnmatch_lines([f"export: 2 cases need a correction: {SUITE} polite, {SUITE} short; {how}"])


def test_a_teachers_answers_become_targets(project, runner, world):
    world.says = {"colour": "WRONG CASE", "Ann": "how lovely"}
    result = runner.run(*TEACH)
    assert rows(project) == {"Say something nice to Ann.": "how lovely", "Say thanks.": "thank you"}
    example = next(entry for entry in manifest(project)["examples"] if entry["case_id"] == "polite")
    assert (example["kind"], example["target_source"], example["checks"]) == ("fix", "teacher", ["lowercase", "judge"])
    said = "no verified target: the case has neither expected nor reference; the answer of the teacher openai:teacher-1 does not pass lowercase"
    assert reasons(project)["short"] == said
    assert set(needed(project)) == {"short"}
    result.stdout.fnmatch_lines(
        [
            "app: 4 calls, *",
            "judges: 4 calls, *",
            "teacher: 4 calls, *",
            "in all: 12 calls, *",
            "export: teacher openai:teacher-1: 2 failed trials without another target: 1 passed, 1 did not pass",
        ]
    )
    assert result.ret == 1
