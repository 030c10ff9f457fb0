"""Targets of failed cases beside the golden files: corrections and a teacher, end to end, with and without xdist."""

from __future__ import annotations

import json

import anthropic  # noqa: F401 - kept across the sessions inside this process, which forget what they import themselves
import httpcore2  # noqa: F401 - as anthropic
import openai  # noqa: F401 - as anthropic
import pytest
from providers import FakeProvider, Reply

from pytest_touchstone.plugin.targets import Targets
from pytest_touchstone.settings import Settings

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

ASK = 'client.chat.completions.create(model="app-1", messages=messages)'
ASYNC_TEST = (
    TEST.replace("openai.OpenAI()", "openai.AsyncOpenAI()")
    .replace("def test_it", "async def test_it")
    .replace(ASK, f"(await {ASK})")
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


def test_a_teacher_is_asked_what_the_app_asked_and_never_about_holdout(project, runner, world):
    runner.run(*TEACH)
    system = {"role": "system", "content": "Be nice."}
    asked = [[system, {"role": "user", "content": text}] for text in ("Say something nice to Ann.", "Name a colour in one word.")]
    assert sorted(world.teacher_prompts(), key=str) == sorted(asked, key=str)


def test_a_teacher_is_asked_from_async_bodies(project, runner, world):
    project.makepyfile(test_suite=ASYNC_TEST)
    runner.run(*TEACH)
    assert rows(project)["Say something nice to Ann."] == "how lovely"
    assert manifest(project)["by_target_source"] == {"teacher": 2, "wire": 1}


def test_a_teacher_is_asked_where_tests_run_alone(project, runner, world):
    runner.run(*TEACH, "--llm-concurrency", "1")
    assert manifest(project)["by_target_source"] == {"teacher": 2, "wire": 1}


def test_a_teacher_of_another_provider_gets_the_same_prompt(project, runner, world):
    runner.run(*EXPORT, "--llm-teacher", "anthropic:teacher-2", "-k", "polite")
    [body] = [body for model, body in world.asked if model == "teacher-2"]
    assert (body["system"], body["messages"]) == ("Be nice.", [{"role": "user", "content": "Say something nice to Ann."}])
    assert rows(project) == {"Say something nice to Ann.": "how lovely"}


def test_expected_is_taken_before_a_teacher_is_asked(project, runner, world):
    (project.path / "cases.yaml").write_text(CASES.replace("rubric: One word.", "rubric: One word., expected: red"), encoding="utf-8")
    runner.run(*TEACH)
    assert manifest(project)["by_target_source"] == {"expected": 1, "teacher": 1, "wire": 1}
    assert len(world.teacher_prompts()) == 1


def test_a_teacher_is_not_asked_about_cases_in_quarantine_or_errors(project, runner, world):
    held = "split: train, quarantine: {reason: flaky, until: 9999-12-31}"
    (project.path / "cases.yaml").write_text(CASES.replace("split: train, tags: [tone]", held), encoding="utf-8")
    project.makepyfile(test_suite=TEST.replace("    case.check", "    assert case.id != 'short' or 1 / 0\n    case.check"))
    runner.run(*TEACH)
    assert world.teacher_prompts() == []
    assert needed(project) == {}
    assert reasons(project)["short"].startswith("error")


def test_a_teachers_answers_are_replayed_without_keys_and_network(project, runner, world, monkeypatch):
    runner.run(*TEACH)
    before = (project.path / "training" / "train.jsonl").read_bytes()
    (project.path / "training" / "train.jsonl").unlink()
    world.asked.clear()
    for provider in ("OPENAI", "ANTHROPIC"):
        monkeypatch.delenv(f"{provider}_API_KEY")
    result = runner.run(*TEACH, "--llm-record", "none")
    assert (project.path / "training" / "train.jsonl").read_bytes() == before
    assert world.asked == []
    result.stdout.fnmatch_lines(["teacher: 4 calls, *now, *when recorded"])
    assert result.ret == 1


def test_a_teacher_without_a_recording_is_no_error_of_the_trial(project, runner, world):
    runner.run(*EXPORT)
    result = runner.run(*TEACH, "--llm-record", "none")
    assert "teacher openai:teacher-1 was not asked: no recording holds its answer" in reasons(project)["polite"]
    assert manifest(project)["written"] == 1
    result.stdout.fnmatch_lines(["export: teacher openai:teacher-1: 2 failed trials without another target: 2 no answer"])
    result.assert_outcomes(passed=1, failed=3)


def test_a_teacher_counts_in_the_budget(project, runner, world):
    result = runner.run(*TEACH, "--llm-max-calls", "2", "-k", "polite", "--llm-concurrency", "1")
    assert "the teacher openai:teacher-1 was not asked: the budget of 2 calls is spent" in reasons(project)["polite"]
    assert world.teacher_prompts() == []
    result.assert_outcomes(failed=1)


@pytest.mark.parametrize(
    ("said", "why"),
    [
        (Reply(refusal="I would rather not."), "the teacher openai:teacher-1 refused: I would rather not."),
        (Reply(text="how lov", finish="length"), "the teacher openai:teacher-1 was cut off at 8,192 tokens"),
        (Reply(finish="content_filter"), "the teacher openai:teacher-1 was stopped by the provider's content filter"),
        (
            Reply(tool_calls=(("weather", "{}"),)),
            "the teacher openai:teacher-1 called tools, and what the app would make of that is not known",
        ),
        (Reply(text=" "), "the teacher openai:teacher-1 answered with nothing"),
        (Reply(text="go away "), "the teacher openai:teacher-1 gave the answer that failed"),
        (Reply(text="so so"), "the answer of the teacher openai:teacher-1 does not pass judge: as it is"),
        (
            Reply(status=400, error="no such thing"),
            "the teacher openai:teacher-1 was not asked: the server refused the request (HTTP 400: no such thing)",
        ),
    ],
)
def test_every_case_without_a_target_says_why(project, runner, world, said, why):
    world.says = {"Ann": said}
    result = runner.run(*TEACH, "-k", "polite")
    assert reasons(project)["polite"] == f"no verified target: the case has neither expected nor reference; {why}"
    assert needed(project)["polite"]["why"].endswith(why)
    result.assert_outcomes(failed=1)


@pytest.mark.parametrize(
    ("body", "why"),
    [
        (
            "    case.check(lowercase)\n    assert 'lovely' in case.output\n",
            "the test failed by something other than case.check(...), which cannot be run on another answer",
        ),
        (
            "    case.check(judge())\n    case.check(lowercase)\n",
            "the test checks more after what failed; give all scorers to one case.check(...)",
        ),
        (
            "    case.output = case.output.upper()\n    case.check(judge())\n",
            "the app's output is not its model's answer as it stands, so it is not known what it would make of another",
        ),
    ],
)
def test_a_teacher_is_not_asked_where_its_answer_cannot_be_checked(project, runner, world, body, why):
    project.makepyfile(test_suite=TEST.replace("    case.check(lowercase, judge())\n", body))
    result = runner.run(*TEACH, "-k", "polite")
    assert reasons(project)["polite"].endswith(f"; the teacher openai:teacher-1 was not asked: {why}")
    assert world.teacher_prompts() == []
    result.stdout.fnmatch_lines(["export: teacher openai:teacher-1: 1 failed trial without another target: 1 not asked"])


@pytest.mark.parametrize("test", [TEST, ASYNC_TEST], ids=["sync", "async"])
def test_what_a_scorer_raises_at_a_teachers_answer_is_no_fault_of_the_trial(project, runner, world, test):
    strict = "def lowercase(trial):\n    if 'lovely' in trial.output:\n        pytest.fail('too lovely')\n"
    project.makepyfile(test_suite=test.replace("def lowercase(trial):\n", strict))
    result = runner.run(*TEACH, "-k", "polite")
    assert reasons(project)["polite"].endswith("; the teacher openai:teacher-1 was stopped: Failed: too lovely")
    result.assert_outcomes(failed=1)


def test_a_correction_becomes_a_target(project, runner, world):
    runner.run(*EXPORT)
    fill(project, polite="you are kind", short="RED")
    world.asked.clear()
    result = runner.run(*EXPORT)
    assert rows(project) == {"Say something nice to Ann.": "you are kind", "Say thanks.": "thank you"}
    example = next(entry for entry in manifest(project)["examples"] if entry["case_id"] == "polite")
    assert (example["kind"], example["target_source"], example["checks"]) == ("fix", "correction", ["lowercase"])
    why = "failed judge 0.00: as it is; no verified target: correction does not pass lowercase: no reason given"
    assert {name: line["why"] for name, line in needed(project).items()} == {"short": why}
    accepted = lines_of(project.path / "training" / "corrections.jsonl")
    assert [(line["suite"], line["id"], line["correction"]) for line in accepted] == [
        (SUITE, "polite", "you are kind"),
        (SUITE, "short", "RED"),
    ]
    result.stdout.fnmatch_lines(
        [
            "export: 2 corrections accepted from *training/needs_correction.jsonl into *training/corrections.jsonl",
            f"export: 1 case needs a correction: {SUITE} short; *",
        ]
    )


def test_corrections_may_lie_elsewhere(project, runner, world):
    runner.run(*EXPORT)
    fill(project, polite="you are kind")
    runner.run(*EXPORT, "--llm-corrections", "evals/mine.jsonl")
    assert not (project.path / "training" / "corrections.jsonl").exists()
    project.makeini("[pytest]\nllm_judge = openai:judge-1\nllm_corrections = evals/mine.jsonl\n")
    runner.run(*EXPORT)
    assert rows(project)["Say something nice to Ann."] == "you are kind"


def test_corrections_that_cannot_be_used_are_named(project, runner, world):
    runner.run(*EXPORT)
    hashes = {entry["case_id"]: entry["content_hash"] for entry in [*manifest(project)["not_exported"], *manifest(project)["examples"]]}
    given = [
        {"suite": SUITE, "id": "polite", "content_hash": "0" * 64},
        {"suite": SUITE, "id": "shortt", "content_hash": hashes["short"]},
        {"suite": SUITE, "id": "held", "content_hash": hashes["held"]},
        {"suite": SUITE, "id": "short", "content_hash": hashes["held"]},
        {"suite": "test_suit.py::test_it", "id": "short", "content_hash": hashes["short"]},
    ]
    path = project.path / "training" / "corrections.jsonl"
    path.write_text("".join(json.dumps({**line, "correction": "how lovely"}) + "\n" for line in given), encoding="utf-8")
    result = runner.run(*EXPORT)
    assert rows(project) == {"Say thanks.": "thank you"}
    stale = "made for what their cases said before, and not used; give them anew"
    result.stdout.fnmatch_lines(
        [
            f"export: 1 correction is {stale}: *corrections.jsonl: line 1 {SUITE} polite",
            f"export: 2 corrections are of holdout cases, and never used; remove their lines: *: line 3 {SUITE} held, line 4 {SUITE} short",
            f"export: 1 correction is of no case of their suites; *: line 2 {SUITE} shortt (did you mean short[?])",
            f"export: 1 correction is of suites that this run did not collect: *: line 5 * (did you mean {SUITE}[?])",
        ]
    )
    states = {(placed["line"], placed["state"]) for placed in manifest(project)["run"]["corrections"]}
    assert states == {(1, "stale"), (2, "unknown"), (3, "holdout"), (4, "holdout"), (5, "elsewhere")}


def test_a_selection_makes_no_correction_unknown(project, runner, world):
    runner.run(*EXPORT)
    fill(project, polite="you are kind", short="red")
    for selection in (["-k", "fine"], ["--llm-split", "holdout"], [f"{SUITE}[fine]"]):
        result = runner.run(*EXPORT, *selection)
        assert manifest(project)["run"]["corrections"] == []
        assert "correction is" not in result.stdout.str()


@pytest.mark.parametrize(
    "text", ["say something nice to the king of spain.", "thank you! <b>say something nice to the  king of spain.</b>"]
)
@pytest.mark.parametrize("by", ["correction", "teacher"])
def test_a_target_that_holds_a_holdout_input_is_not_written(project, runner, world, text, by):
    if by == "teacher":
        world.says = {"Ann": f"lovely\n{text}"}
        runner.run(*TEACH)
    else:
        runner.run(*EXPORT)
        fill(project, polite=text)
        runner.run(*EXPORT)
    assert "Say something nice to Ann." not in rows(project)
    assert reasons(project)["polite"] == "leak: completion[0] (assistant) holds a holdout input"
    assert not any("spain" in line.lower() for line in (project.path / "training" / "train.jsonl").read_text().splitlines())


def test_a_case_that_moves_to_holdout_after_its_correction_is_never_written(project, runner, world):
    runner.run(*EXPORT)
    fill(project, polite="you are kind")
    moved = CASES.replace("rubric: Nice., split: train", "rubric: Nice., split: holdout")
    (project.path / "cases.yaml").write_text(moved, encoding="utf-8")
    result = runner.run(*TEACH)
    assert "Say something nice to Ann." not in rows(project)
    assert set(needed(project)) == set()
    assert all("Ann" not in str(prompt) for prompt in world.teacher_prompts())
    result.stdout.fnmatch_lines([f"export: 1 correction is of holdout cases, and never used; remove their lines: *: line 1 {SUITE} polite"])


def test_the_list_holds_nothing_of_a_holdout_case(project, runner, world):
    twin = "  - {id: twin, input: say something nice to the king of SPAIN., rubric: x, split: train}\n"
    quoting = "  - {id: quoting, input: Go on., rubric: Say something nice to the King of Spain., split: train}\n"
    (project.path / "cases.yaml").write_text(CASES + twin + quoting, encoding="utf-8")
    runner.run(*EXPORT)
    assert set(needed(project)) == {"polite", "short"}
    assert reasons(project)["twin"] == "leak: the input of the case is a holdout input"
    assert reasons(project)["quoting"].startswith("leak: completion[")


def test_what_is_filled_in_while_the_tests_run_is_kept(project, runner, world):
    runner.run(*EXPORT)
    project.makeconftest(
        """
        import json, pathlib

        def pytest_llm_scorers():
            path = pathlib.Path("training/needs_correction.jsonl")
            lines = [json.loads(line) for line in path.read_text().splitlines()]
            path.write_text("".join(json.dumps({**line, "correction": "you are kind"}) + "\\n" for line in lines))
            return []
        """
    )
    runner.run(*EXPORT)
    accepted = lines_of(project.path / "training" / "corrections.jsonl")
    assert [line["correction"] for line in accepted] == ["you are kind", "you are kind"]
    assert needed(project) == {}


def test_each_trial_may_have_a_target_and_a_case_is_listed_once(project, runner, world):
    world.says = {"colour": "WRONG CASE"}
    runner.run(*TEACH, "--llm-repeat", "2")
    assert set(needed(project)) == {"short"}
    assert manifest(project)["trials"] == 8
    assert manifest(project)["written"] + manifest(project)["left_out"] == 8


def test_a_process_that_runs_tests_tells_faults_too(tmp_path):
    path = tmp_path / "corrections.jsonl"
    path.write_text("<<<<<<<", encoding="utf-8")
    with pytest.raises(pytest.UsageError, match="is no JSON; write one JSON object a line"):
        Targets(Settings(export=tmp_path, corrections=path), redact=str)


def test_faults_of_the_files_are_told_before_anything_is_asked(project, runner, world):
    (project.path / "training").mkdir()
    path = project.path / "training" / "corrections.jsonl"
    path.write_text('{"suite": "s", "id": "a", "content_hash": "c", "corrections": "x"}\n<<<<<<< ours\n', encoding="utf-8")
    result = runner.run(*EXPORT)
    assert result.ret == pytest.ExitCode.USAGE_ERROR
    result.stderr.fnmatch_lines(
        [
            "*corrections.jsonl:1: case 'a': correction: is missing; add it, as an export or touchstone correct writes it",
            "*corrections.jsonl:1: case 'a': corrections: is no field here; did you mean 'correction'?",
            "*corrections.jsonl:2: is no JSON; write one JSON object a line; in a merge, keep the lines of both sides",
        ]
    )
    assert world.asked == []


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--llm-teacher", "openai:x"), "--llm-teacher answers for what --llm-export writes; add --llm-export DIR, or leave it out"),
        (
            ("--llm-corrections", "x.jsonl"),
            "--llm-corrections says what is right in what --llm-export writes; add --llm-export DIR, or leave it out",
        ),
        (("--llm-export", "t", "--llm-teacher", "gpt-5"), "--llm-teacher: the model 'gpt-5' names no provider; *"),
    ],
)
def test_options_that_cannot_be_used_are_refused(project, runner, arguments, message):
    result = runner.run("--llm-eval", *arguments)
    assert result.ret == pytest.ExitCode.USAGE_ERROR
    result.stderr.fnmatch_lines([f"*{message}"])


def test_a_plan_and_a_collection_accept_nothing_and_count_no_teacher(project, runner, world):
    runner.run(*TEACH, "-k", "polite")
    (project.path / "training" / "needs_correction.jsonl").unlink(missing_ok=True)
    runner.run(*EXPORT)
    fill(project, polite="you are kind")
    runner.run(*EXPORT, "--collect-only")
    result = runner.run(*EXPORT, "--llm-plan", "-k", "polite")
    assert not (project.path / "training" / "corrections.jsonl").exists()
    row = next(line.split() for line in result.stdout.lines if line.startswith(SUITE))
    assert row[3:5] == ["2", "1"]
