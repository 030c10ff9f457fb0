"""The files of corrections: read strictly, changed one line at a time, and held against the cases of a run."""

from __future__ import annotations

import json

import pytest
from export_samples import example
from hypothesis import given
from hypothesis import strategies as st

from pytest_touchstone.errors import ExportError
from pytest_touchstone.export.corrections import (
    CORRECTIONS_FILE,
    MAX_FAULTS,
    NEEDS_FILE,
    Collected,
    Correction,
    Corrections,
    Needed,
    Placed,
    Uncorrected,
    accept,
    accept_filled,
    named,
    read_needed,
    sort_out,
    take_off,
    write_needed,
)

HASH = "c" * 64


def correction(case_id="late", text="No.", **fields):
    return Correction(**({"suite": "s", "id": case_id, "content_hash": HASH, "correction": text} | fields))


def need(case_id="late", text="", **fields):
    values = {
        "suite": "s",
        "id": case_id,
        "content_hash": HASH,
        "source": "a.yaml:3",
        "why": "it is wrong",
        "input": "Hi",
        "output": "Yes.",
    }
    return Needed(**(values | {"correction": text} | fields))


def write(path, *lines):
    path.write_text("".join(f"{line if isinstance(line, str) else json.dumps(line)}\n" for line in lines), encoding="utf-8")
    return path


def faults(path, read=Corrections.read):
    with pytest.raises(ExportError) as caught:
        read(path)
    return [line.removeprefix(f"{path}:") for line in str(caught.value).splitlines()]


class TestAccepted:
    def test_there_may_be_none(self, tmp_path):
        assert Corrections.read(tmp_path / "none.jsonl").entries == {}

    def test_are_kept_sorted_one_canonical_line_a_case(self, tmp_path):
        path = tmp_path / "folder" / CORRECTIONS_FILE
        accept(path, [correction("b"), correction("a", {"team": "Ä", "n": [1]})])
        accept(path, [correction("b", "Never."), correction("c")])
        assert path.read_text(encoding="utf-8").splitlines() == [
            f'{{"content_hash":"{HASH}","correction":{{"n":[1],"team":"Ä"}},"id":"a","suite":"s"}}',
            f'{{"content_hash":"{HASH}","correction":"Never.","id":"b","suite":"s"}}',
            f'{{"content_hash":"{HASH}","correction":"No.","id":"c","suite":"s"}}',
        ]

    def test_belong_to_the_case_as_it_was(self, tmp_path):
        path = tmp_path / CORRECTIONS_FILE
        accept(path, [correction()])
        known = Corrections.read(path)
        assert known.of(("s", "late"), HASH) == "No."
        assert known.of(("s", "late"), "d" * 64) is None
        assert known.of(("other", "late"), HASH) is None

    def test_a_merge_may_leave_the_same_line_twice(self, tmp_path):
        line = correction().model_dump()
        assert len(Corrections.read(write(tmp_path / "c.jsonl", line, "", line)).entries) == 1

    def test_what_an_editor_may_put_before_and_behind_lines_is_no_fault(self, tmp_path):
        path = tmp_path / "c.jsonl"
        path.write_bytes(b"\xef\xbb\xbf" + json.dumps(correction().model_dump()).encode() + b"\r\n")
        assert len(Corrections.read(path).entries) == 1

    def test_every_fault_is_told_with_its_line(self, tmp_path):
        good = correction().model_dump()
        path = write(
            tmp_path / "c.jsonl",
            good,
            good | {"correction": "Yes."},
            good | {"id": "empty", "correction": " "},
            good | {"id": "number", "correction": 4},
            good | {"id": "half", "correction": "\ud83d"},
            good | {"id": "typed", "suite": 4, "content_hsh": "x"},
            "[1]",
            '{"id": "a", "id": "b"}',
            ">>>>>>> theirs",
        )
        assert faults(path) == [
            "2: case 'late': is corrected a second time (line 1 does it, too), and not in the same way; keep one of the two lines",
            "3: case 'empty': correction: is empty; write it, or remove the line",
            "4: case 'number': correction: is the number 4; give text, an object or a list",
            "5: case 'half': correction: holds half a character; give text, an object or a list",
            "6: case 'typed': suite: is the number 4; give text (quote it)",
            "6: case 'typed': content_hsh: is no field here; did you mean 'content_hash'?",
            "7: is a list; write one JSON object a line; in a merge, keep the lines of both sides",
            "8: says id twice; write one JSON object a line; in a merge, keep the lines of both sides",
            "9: is no JSON; write one JSON object a line; in a merge, keep the lines of both sides",
        ]

    def test_a_field_that_nobody_meant_is_named(self, tmp_path):
        path = write(tmp_path / "c.jsonl", correction().model_dump() | {"zzz": 1})
        assert faults(path) == ["1: case 'late': zzz: is no field here; keep only suite, id, content_hash, correction"]

    def test_of_very_many_faults_the_first_are_told(self, tmp_path):
        told = faults(write(tmp_path / "c.jsonl", *["x"] * 200))
        assert len(told) == MAX_FAULTS + 1
        assert told[-1] == " and more faults"

    def test_a_file_that_cannot_be_used_is_left_alone(self, tmp_path):
        path = write(tmp_path / CORRECTIONS_FILE, "<<<<<<<")
        with pytest.raises(ExportError, match="is no JSON"):
            accept(path, [correction()])
        assert path.read_text() == "<<<<<<<\n"

    @given(st.text(st.characters(exclude_categories=["Cs"])).filter(str.strip), st.text(st.characters(exclude_categories=["Cs"])))
    def test_any_text_comes_back(self, tmp_path_factory, text, case_id):
        path = tmp_path_factory.mktemp("c") / CORRECTIONS_FILE
        accept(path, [correction(case_id, text)])
        assert Corrections.read(path).of(("s", case_id), HASH) == text
        assert len(path.read_text(encoding="utf-8").splitlines()) == 1


class TestList:
    def test_is_made_to_be_filled_in(self, tmp_path):
        write_needed(tmp_path, [need("b"), need("a", output="\u00fcber\x85\u202e\x1b[31m", rubric="r", input={"q": 1})])
        first, second = (tmp_path / NEEDS_FILE).read_text(encoding="utf-8").splitlines()
        assert first == (
            f'{{"id": "a", "suite": "s", "source": "a.yaml:3", "content_hash": "{HASH}", "why": "it is wrong", "rubric": "r", '
            '"input": {"q": 1}, "output": "über\\u0085\\u202e\\u001b[31m", "correction": ""}'
        )
        assert json.loads(second)["id"] == "b"

    def test_there_is_no_empty_list(self, tmp_path):
        write_needed(tmp_path, [need()])
        write_needed(tmp_path, [])
        assert list(tmp_path.iterdir()) == []
        assert read_needed(tmp_path / NEEDS_FILE) == {}

    def test_what_is_filled_in_moves_to_the_accepted_ones(self, tmp_path):
        path = tmp_path / "deep" / CORRECTIONS_FILE
        write_needed(tmp_path, [need("a", "No."), need("b"), need("c", ["x"])])
        assert accept_filled(tmp_path, path) == 2
        assert {key[1]: entry.correction for key, (_, entry) in Corrections.read(path).entries.items()} == {"a": "No.", "c": ["x"]}
        assert set(read_needed(tmp_path / NEEDS_FILE)) == {("s", "b")}
        assert accept_filled(tmp_path, path) == 0

    def test_nothing_is_moved_where_the_accepted_ones_cannot_be_read(self, tmp_path):
        path = write(tmp_path / CORRECTIONS_FILE, "<<<<<<<")
        for text in ("No.", ""):
            write_needed(tmp_path, [need("a", text)])
            with pytest.raises(ExportError, match="is no JSON"):
                accept_filled(tmp_path, path)
            assert read_needed(tmp_path / NEEDS_FILE)["s", "a"].correction == text

    def test_what_was_written_since_stays(self, tmp_path):
        before = need("a", "No.")
        write_needed(tmp_path, [need("a", "Never."), need("b")])
        take_off(tmp_path, [before, need("b")])
        assert [entry.correction for entry in read_needed(tmp_path / NEEDS_FILE).values()] == ["Never."]

    def test_is_read_strictly(self, tmp_path):
        line = need().model_dump()
        path = write(tmp_path / NEEDS_FILE, line, line, {name: value for name, value in line.items() if name != "input"})
        assert faults(path, read_needed) == [
            "2: case 'late': is named a second time; remove one of the lines",
            "3: case 'late': input: is missing; add it, as an export or touchstone correct writes it",
        ]


class TestStates:
    COLLECTED = Collected(
        suites={"a.py::test", "b.py::test[m]"},
        cases={"a.py::test": {"late": (HASH, False), "held": ("h" * 64, True)}, "b.py::test": {"late": (HASH, False)}},
        holdout={"h" * 64, "g" * 64},
        holdout_ids={"held", "gone"},
    )

    @pytest.mark.parametrize(
        ("fields", "state", "hint"),
        [
            ({}, "current", ""),
            ({"suite": "b.py::test[m]"}, "current", ""),
            ({"content_hash": "d" * 64}, "stale", ""),
            ({"id": "held"}, "holdout", ""),
            ({"content_hash": "h" * 64}, "holdout", ""),
            ({"id": "gone"}, "holdout", ""),
            ({"suite": "z", "content_hash": "g" * 64}, "holdout", ""),
            ({"id": "lat"}, "unknown", "late"),
            ({"id": "zzz"}, "unknown", ""),
            ({"suite": "b.py::test[n]"}, "elsewhere", "b.py::test[m]"),
            ({"suite": "z", "id": "held"}, "elsewhere", ""),
        ],
    )
    def test_say_how_a_correction_stands_to_the_cases(self, fields, state, hint):
        entry = correction(
            **(
                {"suite": "a.py::test"}
                | ({"case_id": fields["id"]} if "id" in fields else {})
                | {k: v for k, v in fields.items() if k != "id"}
            )
        )
        [placed] = sort_out(Corrections(file="c", entries={entry.key: (3, entry)}), self.COLLECTED)
        assert (placed.state, placed.hint, placed.line) == (state, hint, 3)

    def test_are_shown_with_the_line(self):
        placed = Placed(state="unknown", line=3, suite="s", case_id="lat", hint="late")
        assert str(placed) == "line 3 s lat (did you mean late?)"


def test_what_a_trial_brings_travels_as_plain_data():
    found = Uncorrected(example=example(), input={"q": ["x"]}, rubric="r", why="w", tried="t", taught="no answer")
    assert Uncorrected.from_dict(json.loads(json.dumps(found.to_dict()))) == found


def test_all_that_the_list_shows_is_shown_to_the_guard():
    shown = Uncorrected(example=example(), input={"q": "x"}, rubric="the rubric", why="the reason").shown()
    assert [message["content"] for message in shown.completion] == ["On its way.", '{"q": "x"}', "the reason", "the rubric"]


def test_names_are_redacted_and_whole():
    assert named("a\udc80", "sk-1", lambda text: text.replace("sk-1", "[KEY]")) == ("a\\udc80", "[KEY]")
