from __future__ import annotations

import json
from datetime import date

import pytest

from pytest_touchstone.cases import Case, Quarantine
from pytest_touchstone.cli_outputs import Row, evidence_of, parse_scorer, read_cases, read_outputs
from pytest_touchstone.errors import GoldenError, ScorerError, SettingsError
from pytest_touchstone.gate import Evidence

HOW = 'write {"id": "late", "output": "No."} or {"id": "late", "passed": true}'
CASES = {
    case.id: case
    for case in (
        Case(id="late", input="x", expected="No.", tags=("refunds",), must_pass=True),
        Case(id="gift", input="y", expected="Yes."),
    )
}


@pytest.fixture
def written(tmp_path):
    def write(*lines):
        path = tmp_path / "out.jsonl"
        path.write_bytes(b"\n".join(line if isinstance(line, bytes) else json.dumps(line).encode() for line in lines))
        return path

    return write


class TestRows:
    def test_outputs_and_verdicts(self, written):
        path = written(
            {"id": "a", "output": {"x": 1}, "label": 1}, b"", {"id": "b", "passed": False, "tags": ["t"]}, {"id": "a", "output": None}
        )
        assert read_outputs(path, "out.jsonl") == [
            Row(line=1, case_id="a", output={"x": 1}),
            Row(line=3, case_id="b", passed=False, tags=("t",)),
            Row(line=4, case_id="a", output=None),
        ]

    @pytest.mark.parametrize(
        ("line", "problem"),
        [
            (b"{", "is no JSON object"),
            (b"[" * 100_000, "is no JSON object"),
            (b"\xff", "is no JSON object"),
            ([1], "is no JSON object"),
            ({"output": 1}, "has no text as 'id'"),
            ({"id": "", "output": 1}, "has no text as 'id'"),
            ({"id": 1, "output": 1}, "has no text as 'id'"),
            ({"id": "a", "passed": 1}, "has a 'passed' that is neither true nor false"),
            ({"id": "a"}, "has neither 'output' nor 'passed'"),
            ({"id": "a", "passed": True, "tags": "t"}, "has 'tags' that are no list of texts"),
            ({"id": "a", "passed": True, "tags": [1]}, "has 'tags' that are no list of texts"),
        ],
    )
    def test_a_line_that_cannot_be_used(self, written, line, problem):
        with pytest.raises(SettingsError) as error:
            read_outputs(written({"id": "a", "passed": True}, line), "out.jsonl")
        assert str(error.value) == f"out.jsonl:2: {problem}; {HOW}"

    def test_all_are_told_up_to_twenty(self, written):
        with pytest.raises(SettingsError) as error:
            read_outputs(written(*[[]] * 30), "out.jsonl")
        assert [line.partition(": ")[0] for line in str(error.value).splitlines()] == [f"out.jsonl:{number}" for number in range(1, 21)]

    def test_no_row(self, written):
        with pytest.raises(SettingsError, match=r"^out\.jsonl: holds no row; write a line for each trial, such as \{\"id\": \"late\""):
            read_outputs(written(b" "), "out.jsonl")


class TestEvidence:
    def test_outputs_are_judged_and_cases_without_a_row_did_not_run(self):
        rows = [Row(line=1, case_id="late", output="No."), Row(line=2, case_id="late", output="Yes.")]
        assert evidence_of(rows, CASES, [parse_scorer("exact_match")], "out") == {
            "late": Evidence(
                case_id="late", content_hash=CASES["late"].content_hash, trials=2, passes=1, tags=("refunds",), must_pass=True
            ),
            "gift": Evidence(case_id="gift", content_hash=CASES["gift"].content_hash, not_run=1),
        }

    def test_a_case_in_quarantine_is_not_gated(self):
        held = Case(id="gift", input="y", quarantine=Quarantine(reason="slow vendor", until=date(2026, 12, 31)))
        found = evidence_of([Row(line=1, case_id="gift", passed=False)], {"gift": held}, [], "out")
        assert found["gift"] == Evidence(case_id="gift", content_hash=held.content_hash, trials=1, quarantined="slow vendor")

    def test_verdicts_need_no_cases(self):
        rows = [Row(line=1, case_id="a", passed=True, tags=("t",)), Row(line=2, case_id="b", passed=False)]
        assert evidence_of(rows, None, [], "out") == {
            "a": Evidence(case_id="a", content_hash="", trials=1, passes=1, tags=("t",)),
            "b": Evidence(case_id="b", content_hash="", trials=1),
        }

    def test_every_scorer_has_to_pass(self):
        scorers = [parse_scorer("contains('o')"), parse_scorer("exact_match")]
        found = evidence_of([Row(line=1, case_id="late", output="no"), Row(line=2, case_id="late", output="No.")], CASES, scorers, "out")
        assert (found["late"].trials, found["late"].passes) == (2, 1)

    def test_what_cannot_be_scored_is_no_failure(self):
        slow = [Row(line=1, case_id="late", output="a" * 40 + "b")]
        found = evidence_of(slow, CASES, [lambda _: _unscored()], "out")
        assert (found["late"].trials, found["late"].unscored) == (0, 1)

    @pytest.mark.parametrize(("cases", "scorers"), [(None, ["exact_match"]), (CASES, [])])
    def test_an_output_that_nothing_judges(self, cases, scorers):
        with pytest.raises(SettingsError) as error:
            evidence_of([Row(line=1, case_id="late", passed=True), Row(line=2, case_id="late", output="x")], cases, scorers, "out.jsonl")
        assert str(error.value) == (
            "out.jsonl:2: holds an output that nothing judges yet; add --cases FILE, the golden file, and --scorer NAME, "
            "such as --scorer exact_match, or write 'passed' into each row"
        )

    def test_a_row_of_no_case(self):
        with pytest.raises(SettingsError) as error:
            evidence_of([Row(line=4, case_id="x", passed=True), Row(line=5, case_id="y", passed=True)], CASES, [], "out.jsonl")
        assert str(error.value) == "out.jsonl:4: no case is called 'x' (2 such rows); give --cases the file that they belong to"

    def test_a_scorer_that_cannot_work_on_a_case(self):
        cases = {"a": Case(id="a", input="x")}
        with pytest.raises(ScorerError, match="expected"):
            evidence_of([Row(line=1, case_id="a", output="x")], cases, [parse_scorer("exact_match")], "out")


def _unscored():
    from pytest_touchstone.trial import Score

    return Score.unscored("mine", "no verdict")


class TestScorers:
    @pytest.mark.parametrize(
        ("text", "name"),
        [
            ("exact_match", "exact_match"),
            (" exact_match() ", "exact_match"),
            (r"""exact_match(extract=r"(?m)^A:(.*)", remove="[,$]")""", "exact_match"),
            ("contains('a', 'b')", "contains"),
            ("json_match", "json_match"),
            ("numeric_match(rel_tol=0.1)", "numeric_match"),
            ("regex_match('a+')", "regex_match"),
        ],
    )
    def test_they_go_by_name(self, text, name):
        assert parse_scorer(text).name == name

    @pytest.mark.parametrize(
        "text",
        ["", "judge('good')", "exact_match(", "exact_match(extract=open('x'))", "__import__('os')", "a.b()", "exact_match(**{})()", "1"],
    )
    def test_what_is_none(self, text):
        with pytest.raises(SettingsError) as error:
            parse_scorer(text)
        assert str(error.value) == (
            f"--scorer {text}: names no scorer that needs no model; use one of contains, exact_match, json_match, numeric_match, regex_match, "
            'such as exact_match(extract="A:(.*)")'
        )

    def test_an_option_that_it_does_not_have(self):
        with pytest.raises(SettingsError, match=r"^--scorer exact_match\(tolerance=1\): .*unexpected keyword argument 'tolerance'$"):
            parse_scorer("exact_match(tolerance=1)")

    def test_options_are_written_out(self):
        with pytest.raises(SettingsError, match=r"unexpected keyword argument '\*\*'$"):
            parse_scorer("exact_match(**{'extract': 'a'})")

    def test_an_option_that_it_cannot_use(self):
        with pytest.raises(ScorerError, match="extract"):
            parse_scorer("exact_match(extract='(')")


class TestCases:
    def test_fields_are_named(self, tmp_path, monkeypatch):
        monkeypatch.chdir(tmp_path)
        (tmp_path / "q.jsonl").write_text('{"id": "a", "question": "x", "answer": "y", "more": 1}\n')
        (case,) = read_cases("q.jsonl", "input=question,expected=answer").values()
        assert (case.id, case.input, case.expected) == ("a", "x", "y")
        with pytest.raises(GoldenError, match="question"):
            read_cases("q.jsonl", None)

    @pytest.mark.parametrize("text", ["question", "input=", "reference=x", "=x"])
    def test_fields_that_cannot_be_read(self, text):
        with pytest.raises(SettingsError) as error:
            read_cases("q.jsonl", text)
        wanted = "write name=field, separated by commas, with the names input, expected, id, split, group: input=question,expected=answer"
        assert str(error.value) == f"--fields {text}: {wanted}"
