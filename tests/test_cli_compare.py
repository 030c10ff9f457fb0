from __future__ import annotations

import dataclasses
import json
import os
from pathlib import Path

import pytest
from run_samples import SUITE, call, keep, record, run
from test_git import Repository

from pytest_touchstone import baseline
from pytest_touchstone.baseline import BaselineEntry, baseline_path, write_baseline
from pytest_touchstone.cases import content_hash
from pytest_touchstone.cli import main
from pytest_touchstone.gate import Policy
from pytest_touchstone.gate_rules import RULES
from pytest_touchstone.git import Checkout
from pytest_touchstone.runs import RunStore
from pytest_touchstone.trial import Score

DATA = Path(os.environ.get("TOUCHSTONE_DATA", Path(__file__).parents[2] / "shared" / "data")) / "gsm8k"
CASES = 40


class Project:
    def __init__(self, root, capsys):
        self.root = root
        self.capsys = capsys
        self.repository = Repository(root)
        (root / ".touchstone").mkdir()
        (root / ".gitignore").write_text(".touchstone/\n")

    def add(self, failing=(), *, records=None, **changes):
        """A stored run of 40 cases, of which the named ones fail."""
        made = records or [record(f"c{number:02}", "failed" if number in failing else "passed") for number in range(CASES)]
        stored = run(made, **changes)
        RunStore.open(".touchstone/runs.db", base=self.root).add(stored, made, redact=keep)
        return stored

    def accept(self, failing=(), *, suite=SUITE, models=()):
        """A baseline of 40 cases with five trials each."""
        entries = [
            BaselineEntry(
                test=baseline.test_of(suite),
                case_id=f"c{number:02}",
                content_hash=content_hash(input=f"c{number:02}"),
                trials=5,
                passes=0 if number in failing else 5,
                models=models,
                commit="0123456789",
            )
            for number in range(CASES)
        ]
        write_baseline(baseline_path(self.root / suite.partition("::")[0]), entries)

    def outputs(self, name, failing=(), **changes):
        rows = [{"id": f"c{number:02}", "passed": number not in failing, **changes} for number in range(CASES)]
        (self.root / name).write_text("".join(f"{json.dumps(row)}\n" for row in rows))
        return name

    def run(self, *arguments):
        """The exit status, what was printed, and what was complained about."""
        status = main(["compare", *map(str, arguments)])
        printed = self.capsys.readouterr()
        return status, printed.out.splitlines(), printed.err.splitlines()

    def refused(self, *arguments):
        status, out, (complaint,) = self.run(*arguments)
        assert (status, out) == (2, [])
        return complaint.removeprefix("touchstone: ")

    def results(self, *arguments):
        """The exit status and the numbers of the only suite."""
        status, out, err = self.run(*arguments, "--json")
        assert err == []
        data = json.loads("\n".join(out))
        (suite,) = data["decision"]["suites"]
        return status, data, suite


@pytest.fixture
def project(tmp_path, monkeypatch, capsys):
    for name in [name for name in os.environ if name.startswith("GIT_")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("GIT_CONFIG_GLOBAL", os.devnull)
    root = tmp_path / "project"
    root.mkdir()
    monkeypatch.chdir(root)
    return Project(root, capsys)


class TestTheTable:
    def test_a_run_that_regressed(self, project):
        old = project.add()
        new = project.add(failing=range(25), minutes=1)
        status, out, err = project.run(old.id, "latest")
        assert (status, err) == (1, [])
        assert out[:5] == [
            f"before: run {old.id}",
            f"after:  run {new.id}",
            "",
            "suite                             cases  before  after    difference   95 % interval  worse  better      p   decision",
            "evals/test_shop.py::test_refunds     40  100.0%  37.5%  -62.5 points  -75.8 to -47.0     25       0  3e-08  regressed",
        ]
        assert out[6] == f"{SUITE}: regressed: 25 of 40 cases got worse, 0 got better"
        worse = [line for line in out if line.startswith("  worse: ")]
        assert (worse[0], worse[-1], len(worse)) == ("  worse: c00 (1 of 1 before, 0 of 1 now)", "  worse: 5 more", 21)
        assert out[-2:] == ["", "decision: regressed"]
        assert sum(line.startswith("  worse: ") for line in project.run(old.id, "latest", "--all")[1]) == 25

    def test_one_that_did_not(self, project):
        project.add()
        project.add(minutes=1)
        status, out, _ = project.run("latest~1", "latest")
        assert status == 0
        assert out[4].split()[-4:] == ["0", "0", "1", "passed"]
        assert out[-1] == "decision: passed"

    def test_an_undecided_one_warns_or_fails(self, project):
        old, _ = project.add(), project.add(failing=range(4), minutes=1)
        for options, wanted in (((), 0), (("--undecided", "fail"), 3)):
            status, _, suite = project.results(old.id, "latest", *options)
            assert (status, suite["result"]) == (wanted, "undecided")

    def test_by_tag(self, project):
        tagged = [record(f"c{n}", tags=("even",) if n % 2 == 0 else ("odd", "all")) for n in range(20)]
        changed = [
            record(f"c{n}", "passed" if n % 2 == 0 else "failed", tags=("even",) if n % 2 == 0 else ("odd", "all")) for n in range(20)
        ]
        old, new = (
            project.add(records=[*tagged, record("x", suite="plain")]),
            project.add(records=[*changed, record("x", suite="plain")], minutes=1),
        )
        _, out, _ = project.run(old.id, new.id, "--by", "tag")
        assert [line.split()[:4] for line in out[4:9]] == [
            [SUITE, "20", "100.0%", "50.0%"],
            ["all", "10", "100.0%", "0.0%"],
            ["even", "10", "100.0%", "100.0%"],
            ["odd", "10", "100.0%", "0.0%"],
            ["plain", "1", "100.0%", "100.0%"],
        ]
        data = json.loads("\n".join(project.run(old.id, new.id, "--by", "tag", "--json")[1]))
        assert [(tag["suite"], tag["fell"]) for tag in data["by_tag"][SUITE]] == [("all", 10), ("even", 0), ("odd", 10)]

    def test_what_cannot_be_compared_is_told(self, project):
        judged = (Score(name="judge", value=1.0, passed=True, judge="a"),)
        other = (Score(name="judge", value=1.0, passed=True, judge="b"),)
        before = [record("gone"), record("changed"), record("judged", scores=judged), record("same"), record("must")]
        after = [
            record("new"), record("changed", content_hash="0" * 64), record("judged", scores=other), record("same"), record("must", "failed", must_pass=True),
        ]  # fmt: skip
        old, new = project.add(records=before), project.add(records=after, minutes=1)
        status, out, _ = project.run(old.id, new.id)
        assert status == 1
        assert "  not compared: 1 new, 1 removed, 1 changed, 1 judged by another judge" in out
        assert "  worse: must (1 of 1 before, 0 of 1 now)" in out
        assert "  judges: a -> b" in out

    def test_a_quarantined_case_is_not_gated(self, project):
        project.add(records=[record("a"), record("b")])
        project.add(records=[record("a"), record("b", "failed", quarantine="the provider changes")], minutes=1)
        status, out, _ = project.run("latest~1", "latest")
        assert (status, out[-1]) == (0, "decision: passed")
        assert "  not compared: 1 quarantined" in out

    def test_an_interrupted_run_is_told(self, project):
        old = project.add()
        new = project.add(records=[record("c00", "not_run")], minutes=1, complete=False)
        _, out, _ = project.run(old.id, new.id)
        assert out[1] == f"after:  run {new.id}, which ended before every trial was made"

    def test_nothing_in_it_acts_on_a_terminal(self, project):
        bad = "\x1b[31m\u202e"
        judged = (Score(name="judge", value=1.0, passed=True, judge=bad),)
        before, after = (
            [record(f"c{bad}", outcome, suite=f"s{bad}", tags=(bad,), scores=judged) for _ in range(1)] for outcome in ("passed", "failed")
        )
        old, new = (
            project.add(records=before),
            project.add(records=after, minutes=1, options={bad: bad}, checkout=Checkout(commit=bad, branch=bad)),
        )
        for options in ((), ("--by", "tag"), ("--json",)):
            out = "".join(project.run(old.id, new.id, *options)[1])
            assert "u202e" in out
            assert not {"\x1b", "\u202e"} & set(out)


class TestProvenance:
    def test_what_differs_is_told(self, project):
        old = project.add(records=[record(calls=(call(),))], options={"record": "none", "arguments": ["a", "b"]})
        asked = call(model="gpt-next", messages=[{"role": "system", "content": "Be kind."}])
        new = project.add(
            records=[record(calls=(asked,))], minutes=1, checkout=Checkout(commit="f" * 40, dirty=True), options={"record": "none"}
        )
        _, out, _ = project.run(old.id, new.id)
        at = out.index("what else differs")
        assert out[at + 1 : -2] == [
            "  commit: 3b4f2aa9c0 -> ffffffffff+",
            "  branch: main -> -",
            "  models: gpt-test -> gpt-next",
            "  system prompts: 213c22ed72 -> 5499befb38",
            "  options: arguments a, b -> (none)",
        ]

    def test_long_lists_are_cut(self, project):
        old = project.add(records=[record(calls=tuple(call(model=f"m{number}") for number in range(6)))])
        new = project.add(records=[record(calls=(call(model="m0"),))], minutes=1)
        assert "  models: m1, m2, m3, m4, and 1 more -> (none)" in project.run(old.id, new.id)[1]


class TestBaselines:
    def test_the_committed_one(self, project):
        project.accept(failing=[0])
        project.accept(suite="test_other.py::TestShop::test_a")
        new = project.add(failing=range(20), minutes=1)
        status, data, suite = project.results("baseline", new.id, "--suite", SUITE)
        assert (status, data["before"], suite["suite"], suite["counts"]["worse"]) == (1, "baseline", SUITE, 19)
        assert data["differences"]["commit"] == {"before": ["0123456789"], "after": ["3b4f2aa9c0"]}

    def test_a_suite_that_only_one_side_has(self, project):
        project.accept()
        project.accept(suite="test_other.py::test_a")
        new = project.add(minutes=1)
        data = json.loads("\n".join(project.run("baseline", new.id, "--json")[1]))
        assert [suite["suite"] for suite in data["decision"]["suites"]] == [SUITE, "test_other.py::test_a"]

    def test_as_it_was_at_a_commit(self, project):
        project.accept(failing=range(20))
        first = project.repository.commit()
        project.accept()
        status, data, suite = project.results(f"baseline@{first[:7]}", "baseline")
        assert (status, suite["counts"]["better"]) == (0, 20)
        assert data["before"] == f"baseline at {first[:7]} ({first[:10]})"

    def test_there_is_none(self, project):
        assert (
            project.refused("baseline", "latest")
            == f"there is no baseline in {project.root}; pytest --llm-eval --snapshot-update accepts one"
        )
        project.repository.commit()
        assert project.refused("baseline@main", "latest") == "main: no baseline is committed there"
        assert project.refused("baseline@nope", "latest") == f"'nope' is no commit, branch or tag that git knows in {project.root}"

    def test_folders_of_other_people_are_not_searched(self, project):
        project.accept(suite=".tox/test_a.py::test_a")
        project.accept(suite="env/test_a.py::test_a")
        (project.root / "env" / "pyvenv.cfg").write_text("")
        assert project.refused("baseline", "latest").startswith("there is no baseline")

    def test_one_that_cannot_be_read(self, project):
        project.accept()
        path = baseline_path(project.root / "evals" / "test_shop.py")
        path.write_bytes(b"garbage")
        assert project.refused("baseline", "latest").startswith("evals/__snapshots__/test_shop.touchstone:1: ")


class TestCommits:
    def test_the_newest_clean_run(self, project):
        commit = project.repository.commit(a="1")
        clean = project.add(checkout=Checkout(commit=commit, dirty=False))
        project.add(minutes=1, checkout=Checkout(commit=commit, dirty=False), complete=False)
        project.add(minutes=2, checkout=Checkout(commit=commit, dirty=True))
        other = project.add(minutes=3)
        _, data, _ = project.results("main", other.id)
        assert data["before"] == f"run {clean.id} of main ({commit[:10]})"
        assert project.results(commit[:8], other.id)[1]["before"] == f"run {clean.id} of {commit[:8]} ({commit[:10]})"

    def test_else_the_baseline_there(self, project):
        project.accept()
        commit = project.repository.commit()
        other = project.add()
        project.add(checkout=Checkout(commit=commit, dirty=True))
        assert project.results("main", other.id)[1]["before"] == f"baseline at main ({commit[:10]})"

    def test_also_without_a_store(self, project):
        project.accept()
        commit = project.repository.commit()
        assert project.results("main", "baseline")[1]["before"] == f"baseline at main ({commit[:10]})"

    def test_neither(self, project):
        commit = project.repository.commit(a="1")
        wanted = f"main: no run of commit {commit[:10]} is stored"
        assert project.refused("main", "latest") == f"{wanted}, and no baseline is committed there"
        changed = project.add(checkout=Checkout(commit=commit, dirty=True))
        changes = f"; 1 with uncommitted changes do not count ({changed.id})"
        assert project.refused("main", "latest") == f"{wanted}{changes}, and no baseline is committed there"

    def test_digits_name_a_run_before_a_commit(self, project):
        made = project.add()
        assert project.results("2026", made.id)[1]["before"] == f"run {made.id}"

    def test_what_is_nothing(self, project):
        project.add()
        nothing = "is no run, no file, and no commit, branch or tag that git knows here; `touchstone runs` lists the runs"
        assert project.refused("nope", "latest") == f"'nope' {nothing}"
        assert project.refused("1999", "latest") == ".touchstone/runs.db: no run is called '1999'; `touchstone runs` lists them"

    def test_a_broken_store_is_not_passed_over(self, project):
        project.repository.commit(a="1")
        (project.root / ".touchstone" / "runs.db").write_bytes(b"no database at all" * 100)
        assert project.refused("main", "baseline").startswith(".touchstone/runs.db: file is not a database")


class TestOutputs:
    def test_two_files(self, project):
        status, data, suite = project.results(project.outputs("a.jsonl"), project.outputs("b.jsonl", range(20)))
        assert (status, data["before"], data["after"], data["differences"]) == (1, "a.jsonl", "b.jsonl", {})
        assert (suite["suite"], suite["counts"]["worse"]) == ("outputs", 20)
        assert project.results("a.jsonl", "b.jsonl", "--suite", "mine")[2]["suite"] == "mine"

    def test_a_file_takes_the_name_of_the_suite_of_the_other_side(self, project):
        made = project.add()
        _, _, suite = project.results(made.id, project.outputs("b.jsonl"))
        assert (suite["suite"], suite["compared"]) == (SUITE, CASES)

    def test_which_has_to_be_said_where_there_are_several(self, project):
        made = project.add(records=[record("c00"), record("c00", suite="other")])
        name = project.outputs("b.jsonl")
        assert project.refused(made.id, name) == f"a file of outputs belongs to one suite; name it with --suite: {SUITE}, other"
        assert project.results(made.id, name, "--suite", "other")[2]["suite"] == "other"

    def test_a_suite_that_nobody_has(self, project):
        made = project.add()
        assert project.refused(made.id, "latest", "--suite", "x") == f"no suite is called 'x'; there are: {SUITE}"

    def test_outputs_are_judged(self, project):
        (project.root / "cases.yaml").write_text("cases:\n- {id: a, input: x, expected: 'Yes', tags: [t]}\n")
        for name, output in (("a.jsonl", "yes"), ("b.jsonl", "no")):
            (project.root / name).write_text(json.dumps({"id": "a", "output": output}) + "\n")
        how = ("--cases", "cases.yaml", "--scorer", "exact_match(casefold=True)")
        _, _, suite = project.results("a.jsonl", "b.jsonl", *how)
        assert suite["counts"]["worse"] == 1
        assert project.refused("a.jsonl", "b.jsonl").startswith("a.jsonl:1: holds an output that nothing judges yet; add --cases FILE")


class TestTheGate:
    def test_its_options(self, project):
        old, _ = project.add(), project.add(failing=range(8), minutes=1)
        assert project.results(old.id, "latest")[2]["result"] == "regressed"
        assert project.results(old.id, "latest", "--alpha", "0.0001")[2]["result"] == "undecided"
        assert project.results(old.id, "latest", "--margin", "60")[2]["result"] == "passed"
        one, two = (project.results(old.id, "latest", "--sided", sided)[2]["p"] for sided in ("one", "two"))
        assert two == pytest.approx(2 * one)

    def test_the_configuration_of_pytest(self, project):
        old, _ = project.add(), project.add(failing=range(8), minutes=1)
        (project.root / "pytest.ini").write_text("[pytest]\nllm_alpha = 0.0001\nllm_sided =\n")
        assert project.results(old.id, "latest")[2]["result"] == "undecided"
        assert project.results(old.id, "latest", "--alpha", "0.05")[2]["result"] == "regressed"
        (project.root / "pytest.ini").write_text("[pytest]\nllm_min_cases = many\n")
        assert project.refused(old.id, "latest") == "llm_min_cases in pytest's configuration is 'many'; give a number"

    def test_the_names_are_those_of_pytest(self, pytester, capsys):
        with pytest.raises(SystemExit):
            main(["compare", "--help"])
        ours, theirs = capsys.readouterr().out, pytester.runpytest_inprocess("--help").stdout.str()
        fields = {field.name for field in dataclasses.fields(Policy)} - {"suspicious"}
        assert {rule.field for rule in RULES} == fields
        for rule in RULES:
            assert f" --{rule.name} " in ours
            assert f" --llm-{rule.name}=" in theirs
            assert f" {rule.ini} (string)" in theirs

    def test_one_that_cannot_be_meant(self, project):
        project.add()
        assert project.refused("latest", "latest", "--alpha", "2") == "gate: alpha is 2.0; give a number between 0 and 1"


@pytest.mark.skipif(not DATA.is_dir(), reason=f"the data is not at {DATA}")
class TestPublishedResults:
    HOW = ("--cases", DATA / "cases.jsonl", "--fields", "input=input,expected=expected", "--scorer",
           r"""exact_match(extract=r"(?m)^A:(.*)", remove=r"[,$]|\.$")""")  # fmt: skip
    SMALL, LARGE = (DATA / f"outputs.{size}_finetuning.jsonl" for size in ("6b", "175b"))

    def labels(self, path):
        rows = (json.loads(line) for line in path.read_text(encoding="utf-8").splitlines())
        return {row["id"]: row["label_is_correct"] for row in rows}

    def test_the_larger_model_is_better(self, project):
        status, _, suite = project.results(self.SMALL, self.LARGE, *self.HOW, "--sided", "two")
        assert (status, suite["result"], suite["fell"], suite["rose"], suite["compared"]) == (0, "passed", 88, 260, 1319)
        assert suite["p"] == pytest.approx(7.5e-21, rel=0.01)
        assert suite["difference"] == pytest.approx((458 - 286) / 1319)
        assert (suite["baseline_rate"]["rate"], suite["run_rate"]["rate"]) == (pytest.approx(286 / 1319), pytest.approx(458 / 1319))

    def test_the_smaller_one_regressed_on_exactly_these_cases(self, project):
        status, _, suite = project.results(self.LARGE, self.SMALL, *self.HOW)
        assert (status, suite["result"], suite["fell"], suite["rose"]) == (1, "regressed", 260, 88)
        assert suite["p"] == pytest.approx(7.5e-21 / 2, rel=0.01)
        large, small = self.labels(self.LARGE), self.labels(self.SMALL)
        worse = {case["case_id"] for case in suite["cases"] if case["status"] == "worse"}
        assert worse == {name for name in large if large[name] and not small[name]}
