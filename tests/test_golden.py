"""Golden sources: what each format gives, what each fault says, and that nothing a file holds can do harm."""

from __future__ import annotations

import csv
import functools
import io
import json
import os
import socket
import sys
from datetime import date
from decimal import Decimal
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet
import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from pytest_touchstone import golden_formats, golden_yaml
from pytest_touchstone.cases import Case, Quarantine, default_split
from pytest_touchstone.errors import GoldenError
from pytest_touchstone.golden import Fields, load
from pytest_touchstone.golden_arrow import plain

TWO = [
    {"id": "late", "input": "Can I?", "expected": "No."},
    {"id": "gift", "input": {"q": "Swap?"}, "tags": ["a", "b"], "split": "holdout"},
]


@pytest.fixture
def home(tmp_path, monkeypatch):
    folder = tmp_path / "root" / "evals"
    folder.mkdir(parents=True)
    monkeypatch.chdir(folder)
    return folder


def read(*sources, **options):
    """The cases of sources beside the current folder's files, whose root folder is one above."""
    return load(sources, base=Path(), rootdir=Path(".."), **options)


def cases(*sources, **options):
    return [(case.id, case.input, case.expected) for case in read(*sources, **options).cases]


def faults(*sources, **options):
    with pytest.raises(GoldenError) as caught:
        read(*sources, **options)
    return str(caught.value).splitlines()


def write(name, content):
    path = Path(name)
    path.parent.mkdir(parents=True, exist_ok=True)
    if isinstance(content, bytes):
        path.write_bytes(content)
    else:
        path.write_text(content, encoding="utf-8")
    return path


# --- what each format gives ---


@pytest.mark.parametrize(
    ("name", "content", "lines"),
    [
        (
            "c.yaml",
            "- {id: late, input: Can I?, expected: No.}\n\n- id: gift\n  input: {q: Swap?}\n  tags: [a, b]\n  split: holdout\n",
            (1, 3),
        ),
        (
            "c.yml",
            "cases:\n- {id: late, input: Can I?, expected: No.}\n- {id: gift, input: {q: Swap?}, tags: [a, b], split: holdout}",
            (2, 3),
        ),
        ("c.json", json.dumps(TWO, indent=1), (2, 7)),
        ("c.json", '\n{"cases":\n[' + ",\n\n".join(map(json.dumps, TWO)) + "\n]}\n", (3, 5)),
        ("c.jsonl", "\n".join(map(json.dumps, TWO)), (1, 2)),
        ("c.ndjson", "\r\n\r\n".join(map(json.dumps, TWO)) + "\r\n\r\n", (1, 3)),
        ("c.YAML", "\ufeff" + json.dumps(TWO), (1, 1)),
        ("c.json", "\ufeff" + json.dumps(TWO), (1, 1)),
        ("c.jsonl", "\ufeff" + "\n".join(map(json.dumps, TWO)), (1, 2)),
    ],
)
def test_a_file_gives_its_cases_with_their_lines(home, name, content, lines):
    write(name, content)
    late, gift = read(name).cases
    assert (late.id, late.input, late.expected, late.split, late.source) == ("late", "Can I?", "No.", "train", f"evals/{name}:{lines[0]}")
    assert (gift.id, gift.input, gift.tags, gift.split, gift.source) == (
        "gift", {"q": "Swap?"}, ("a", "b"), "holdout", f"evals/{name}:{lines[1]}",
    )  # fmt: skip


@pytest.mark.parametrize(("name", "delimiter"), [("c.csv", ","), ("c.tsv", "\t")])
def test_a_table_gives_one_case_a_row(home, name, delimiter):
    text = io.StringIO()
    rows = [
        ["id", " input ", "expected", "tags", "must_pass", "metadata", "rubric"],
        ["1", "two\nlines", "42", "a, b", "TRUE", '{"n": [1]}', ""],
        [],
        ["2", 'say "hi"', "", "a;b;", "false", "", "kind"],
    ]
    csv.writer(text, delimiter=delimiter).writerows(rows)
    write(name, text.getvalue())
    first, second = read(name).cases
    assert (first.id, first.input, first.expected, first.tags, first.must_pass, first.metadata) == (
        "1", "two\nlines", "42", ("a", "b"), True, {"n": [1]},
    )  # fmt: skip
    assert (first.source, second.source) == (f"evals/{name}:2", f"evals/{name}:5")
    assert (second.input, second.expected, second.tags, second.must_pass, second.rubric) == ('say "hi"', None, ("a", "b"), False, "kind")


def test_a_table_with_a_byte_order_mark(home):
    write("c.csv", "\ufeffid,input\na,x\n")
    assert cases("c.csv") == [("a", "x", None)]


def test_parquet_gives_one_case_a_row(home):
    rows = [
        {"id": 1, "input": "a", "expected": {"n": Decimal("1.50"), "when": None}, "tags": ["x"], "metadata": None},
        {"id": 2, "input": "b", "expected": {"n": None, "when": None}, "tags": None, "metadata": None},
    ]
    pyarrow.parquet.write_table(pa.Table.from_pylist(rows), "c.parquet")
    first, second = read("c.parquet").cases
    assert (first.id, first.input, first.expected, first.tags, first.source) == (
        "1", "a", {"n": "1.50", "when": None}, ("x",), "evals/c.parquet row 1",
    )  # fmt: skip
    assert (second.id, second.tags, second.source) == ("2", (), "evals/c.parquet row 2")


HELD = Quarantine(reason="slow vendor", until=date(2026, 12, 31))


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("c.yaml", "- {id: a, input: x, quarantine: {reason: slow vendor, until: 2026-12-31}}\n- {id: b, input: y, quarantine: }\n"),
        (
            "c.json",
            '[{"id": "a", "input": "x", "quarantine": {"reason": "slow vendor", "until": "2026-12-31"}}, {"id": "b", "input": "y"}]',
        ),
        (
            "c.jsonl",
            '{"id": "a", "input": "x", "quarantine": {"until": "2026-12-31", "reason": "slow vendor"}}\n{"id": "b", "input": "y"}\n',
        ),
        ("c.csv", 'id,input,quarantine\na,x,"{""reason"": ""slow vendor"", ""until"": ""2026-12-31""}"\nb,y,\n'),
        ("c.tsv", 'id\tinput\tquarantine\na\tx\t"{""reason"": ""slow vendor"", ""until"": ""2026-12-31""}"\nb\ty\t\n'),
    ],
)
def test_every_format_may_quarantine_a_case(home, name, content):
    write(name, content)
    held, other = read(name, today=date(2026, 12, 31)).cases
    assert (held.quarantine, other.quarantine) == (HELD, None)


@pytest.mark.parametrize("until", [date(2026, 12, 31), "2026-12-31"])
def test_rows_and_dicts_may_quarantine_a_case(home, until):
    rows = [
        {"id": "a", "input": "x", "quarantine": {"reason": "slow vendor", "until": until}},
        {"id": "b", "input": "y", "quarantine": None},
    ]
    pyarrow.parquet.write_table(pa.Table.from_pylist(rows), "c.parquet")
    for source in ("c.parquet", rows):
        assert [case.quarantine for case in read(source, today=date(2026, 12, 31)).cases] == [HELD, None]


def test_a_quarantine_in_defaults_is_that_of_every_case_without_its_own(home):
    write(
        "c.yaml",
        "defaults: {quarantine: {reason: r, until: 2099-12-31}}\ncases: [{input: a}, {input: b, quarantine: {reason: s, until: 2099-12-30}}]",
    )
    assert [case.quarantine and case.quarantine.reason for case in read("c.yaml").cases] == ["r", "s"]


def test_a_quarantine_that_is_over_is_told_with_all_other_faults(home):
    ended = "quarantine: its quarantine ended on 2026-12-31; mend the case, remove the field, or give it a new date"
    write(
        "c.yaml",
        "- id: a\n  input: x\n  quarantine: {reason: r, until: 2026-12-31}\n- {input: z, id: b, splt: train}\n- input: y\n  quarantine: {reason: r, until: 2026-12-31}\n",
    )
    write("d.yaml", "defaults:\n  quarantine: {reason: r, until: 2026-12-31}\ncases: [{input: a}, {input: b}]")
    write("e.csv", 'id,input,quarantine\na2,x,"{""reason"": ""r"", ""until"": ""2026-12-31""}"\n')
    made = Case(id="made", input="x", quarantine=HELD)
    assert faults("c.yaml", "d.yaml", "e.csv", [made], today=date(2027, 1, 1)) == [
        f"evals/c.yaml:3: case 'a': {ended}",
        "evals/c.yaml:4: case 'b': splt: is no field of a case; did you mean 'split'?",
        f"evals/c.yaml:6: {ended}",
        f"evals/d.yaml:2: {ended}",
        f"evals/e.csv:2: case 'a2': {ended}",
        f"list[0]: case 'made': {ended}",
    ]


def test_the_last_day_of_a_quarantine_is_held_against_the_clock(home):
    assert faults([{"id": "a", "input": "x", "quarantine": {"reason": "r", "until": "2000-01-01"}}]) == [
        "list[0]: case 'a': quarantine: its quarantine ended on 2000-01-01; mend the case, remove the field, or give it a new date"
    ]
    assert read([{"id": "a", "input": "x", "quarantine": {"reason": "r", "until": "9999-12-31"}}]).cases


def test_faults_of_a_quarantine_are_told_where_it_stands(home):
    write("c.yaml", "- id: a\n  input: x\n  quarantine:\n    reason: r\n    untill: 2026-12-31\n- {id: b, input: y, quarantine: yes}\n")
    write("c.csv", 'id,input,quarantine\nc,x,flaky\nd,y,"{""reason"": 1, ""reason"": 2}"\n')
    assert faults("c.yaml", "c.csv") == [
        "evals/c.yaml:3: case 'a': quarantine.untill: is no field of a quarantine; did you mean 'until'?",
        "evals/c.yaml:3: case 'a': quarantine.until: is missing; add it",
        "evals/c.yaml:6: case 'b': quarantine: is text 'yes'; give an object with 'reason' and 'until'",
        "evals/c.csv:2: case 'c': quarantine: is not JSON: Expecting value; write a JSON object",
        "evals/c.csv:3: has the key 'reason' twice; remove one of the two",
        "evals/c.csv:3: case 'd': quarantine.reason: is the number 2; give text (quote it)",
        "evals/c.csv:3: case 'd': quarantine.until: is missing; add it",
    ]


def test_arrow_values_become_json_values():
    table = pa.table(
        {
            "t": pa.array([0], pa.timestamp("s")),
            "b": pa.array([b"ok"]),
            "x": pa.array([b"\xff"]),
            "m": pa.array([[("k", 1)]], pa.map_(pa.string(), pa.int64())),
        }
    )
    row = {name: plain(value) for name, value in table.to_pylist()[0].items()}
    assert row == {"t": "1970-01-01T00:00:00", "b": "ok", "x": b"\xff", "m": [["k", 1]]}


def save(folder, *parts, files=1):
    """A folder as `datasets.save_to_disk` writes it: the names of the parts make it a DatasetDict."""
    for part in parts or ("",):
        (Path(folder) / part).mkdir(parents=True)
        names = [f"data-{number:05}-of-{files:05}.arrow" for number in range(files)]
        for name in names:
            table = pa.Table.from_pylist([{"question": f"{part}{name[5:10]}{row}", "answer": str(row)} for row in range(2)])
            with pa.ipc.new_stream(Path(folder) / part / name, table.schema) as stream:
                stream.write_table(table)
        state = {"_data_files": [{"filename": name} for name in names], "_split": None}
        (Path(folder) / part / "state.json").write_text(json.dumps(state), encoding="utf-8")
    if parts:
        (Path(folder) / "dataset_dict.json").write_text(json.dumps({"splits": list(parts)}), encoding="utf-8")


QA = Fields(input="question", expected="answer")


def test_a_saved_dataset_gives_its_rows_over_all_files(home):
    save("qa", files=2)
    found = read("qa", fields=QA).cases
    assert [(case.input, case.source) for case in found] == [
        ("000000", "evals/qa row 1"), ("000001", "evals/qa row 2"), ("000010", "evals/qa row 3"), ("000011", "evals/qa row 4"),
    ]  # fmt: skip


def test_parts_of_a_saved_dataset_dict_other_than_train_are_holdout(home):
    save("qa", "test", "train")
    found = read("qa", fields=QA).cases
    assert [case.source for case in found] == ["evals/qa/test row 1", "evals/qa/test row 2", "evals/qa/train row 1", "evals/qa/train row 2"]
    assert [case.split for case in found[:2]] == ["holdout", "holdout"]
    assert [case.split for case in found[2:]] == [default_split(case.id) for case in found[2:]]


def test_a_dataset_that_the_real_library_saved(home):
    datasets = pytest.importorskip("datasets")
    datasets.disable_progress_bars()
    datasets.Dataset.from_list([{"question": "a", "answer": "b"}]).save_to_disk("real")
    assert [(case.input, case.expected) for case in read("real", fields=QA).cases] == [("a", "b")]


def test_a_glob_finds_saved_datasets_and_files_but_no_other_folders(home):
    save("data/qa")
    (home / "data" / "empty").mkdir()
    write("data/x.jsonl", '{"question": "x", "answer": "y"}')
    assert [case.source for case in read("data/*", fields=QA).cases] == [
        "evals/data/qa row 1", "evals/data/qa row 2", "evals/data/x.jsonl:1",
    ]  # fmt: skip


def test_pyarrow_missing_names_the_extra(home, monkeypatch):
    save("qa")
    write("c.parquet", "x")
    monkeypatch.setitem(__import__("sys").modules, "pyarrow.parquet", None)
    monkeypatch.setitem(__import__("sys").modules, "pyarrow.ipc", None)
    assert faults("c.parquet", "qa") == [
        "evals/c.parquet: needs pyarrow, which is not installed; pip install 'pytest-touchstone[parquet]'",
        "evals/qa: needs pyarrow, which is not installed; pip install 'pytest-touchstone[parquet]'",
    ]


# --- Python sources ---


def test_dicts_cases_lists_and_callables_concatenate(home):
    write("c.jsonl", '{"id": "f", "input": "f"}')

    def more():
        yield {"id": "d", "input": "d"}
        yield Case(id="e", input="e")

    sources = [
        {"id": "a", "input": "a"},
        [Case(id="b", input="b"), "c.jsonl", Path("c2.jsonl")],
        more,
        (case for case in [{"id": "g", "input": "g"}]),
    ]
    write("c2.jsonl", '{"id": "h", "input": "h"}')
    found = read(*sources).cases
    assert [(case.id, case.source) for case in found] == [
        ("a", "argument[0]"), ("b", "list[0]"), ("f", "evals/c.jsonl:1"), ("h", "evals/c2.jsonl:1"), ("d", "more[0]"), ("e", "more[1]"),
        ("g", "generator[0]"),
    ]  # fmt: skip


def test_a_case_keeps_the_source_it_names():
    assert read([Case(id="a", input="a", source="wiki:3")]).cases[0].source == "wiki:3"


def test_callables_are_named(home):
    def build(count):
        return [{"input": str(number)} for number in range(count)]

    class Maker:
        def __call__(self):
            return build(1)

    assert read(functools.partial(build, 1)).cases[0].source == "build[0]"
    assert read(Maker()).cases[0].source == "Maker[0]"


class Broken(Exception):
    pass


def test_a_callable_that_raises_is_told_with_its_cause():
    def boom():
        message = "no\x1b network"
        raise Broken(message)

    with pytest.raises(GoldenError) as caught:
        read(boom)
    assert str(caught.value) == r"boom: raised Broken: 'no\x1b network'; correct the function; it returns the cases"
    assert isinstance(caught.value.__cause__, Broken)


def test_an_iterable_that_breaks_off_is_told():
    def half():
        yield {"id": "a", "input": "a"}
        message = "gone"
        raise Broken(message)

    expected = "raised Broken: 'gone'; correct the function; it returns the cases"
    assert faults(half, half()) == [
        f"half: {expected}",
        "generator[0]: case 'a': id: is already the id of half[0]; give each case an id of its own",
        f"generator: {expected}",
    ]


def test_what_is_no_source_is_told():
    async def later():
        return []

    one = Case(id="a", input="a")
    fix = "return a list of dicts or Cases"
    assert faults(later, lambda: None, lambda: "x", dict, lambda: one, 3, b"x", [4], lambda: ["c.yaml"], [{"id": "a", 1: 2}]) == [
        "later: is an async function; give a plain one, which may call asyncio.run",
        f"<lambda>: returned null; {fix}",
        f"<lambda>: returned text 'x'; {fix}",
        f"dict: returned an object; {fix}",
        f"<lambda>: returned a Python Case; {fix}",
        "@pytest.mark.golden: argument[5]: is the number 3; give a path, a callable, a dict, a Case, or a list of these",
        "@pytest.mark.golden: argument[6]: is a Python bytes; give a path, a callable, a dict, a Case, or a list of these",
        "@pytest.mark.golden: list[0]: is the number 4; give a path, a callable, a dict, a Case, or a list of these",
        "<lambda>[0]: is text 'c.yaml'; give an object with the fields of a case",
        "list[0]: has the field name the number 1; use text as field names",
    ]


def test_sources_without_cases_are_told():
    assert faults([], list, iter([])) == [
        "list: holds no cases; add a case",
        "list: holds no cases; add a case, or leave it out",
        "list_iterator: holds no cases; an iterator can be read only once, so give a list or a function; add a case",
    ]


def test_arguments_are_checked_together():
    assert faults(fields=Fields(input=3, id=""), where="x", split="tset", limit=-1) == [
        "@pytest.mark.golden: names no source; give a file, a glob, a callable or a list of cases",
        "@pytest.mark.golden: input: is the number 3; give the name of a field",
        "@pytest.mark.golden: id: is text ''; give the name of a field",
        "@pytest.mark.golden: where: is text 'x'; give a function of a case that returns a bool",
        "@pytest.mark.golden: split: is text 'tset'; use 'train' or 'holdout'",
        "@pytest.mark.golden: limit: is the number -1; give a whole number from 0 up",
    ]

    async def where(case):
        return True

    assert faults([], where=where, limit=True) == [
        "@pytest.mark.golden: where: is an async function; give a function of a case that returns a bool",
        "@pytest.mark.golden: limit: is true; give a whole number from 0 up",
    ]


# --- selection, ids, splits ---


NUMBERS = [{"id": f"n{number}", "input": str(number), "split": "holdout" if number % 2 else "train"} for number in range(8)]


def ids(**options):
    return [case.id for case in read(NUMBERS, **options).cases]


def test_selection_is_where_then_split_then_limit():
    assert ids(limit=2) == ["n0", "n1"]
    assert ids(limit=0) == []
    assert ids(split="holdout", limit=2) == ["n1", "n3"]
    assert ids(where=lambda case: case.input > "2", split="train", limit=2) == ["n4", "n6"]
    assert ids(where=lambda case: case.input if case.id == "n3" else "") == ["n3"]


def test_every_holdout_case_is_known_where_asked_for():
    golden = read(NUMBERS, where=lambda case: case.id == "n0", limit=1, complete=True)
    assert [case.id for case in golden.cases] == ["n0"]
    assert [case.id for case in golden.holdout] == ["n1", "n3", "n5", "n7"]
    assert read(NUMBERS).holdout == ()


def test_where_that_raises_is_told_with_its_case():
    def pick(case):
        return case.metadata["team"]

    with pytest.raises(GoldenError) as caught:
        read([{"id": "a", "input": "x"}], where=pick)
    assert str(caught.value) == (
        "list[0]: case 'a': where: pick raised KeyError: \"'team'\"; correct the function; it is called with each Case"
    )
    assert isinstance(caught.value.__cause__, KeyError)


def test_cases_of_a_group_have_the_split_of_its_name(home):
    held = next(name for name in map(str, range(100)) if default_split(name) == "holdout")
    train = next(name for name in map(str, range(100)) if default_split(name) == "train")
    write("c.json", json.dumps([{"id": str(n), "input": "x", "group": held if n % 2 else train} for n in range(100)]))
    found = read("c.json").cases
    assert {case.group: case.split for case in found} == {held: "holdout", train: "train"}
    assert all(case.split == default_split(case.group) for case in found)


def test_a_case_without_an_id_has_the_split_of_its_group(home):
    held = next(name for name in map(str, range(100)) if default_split(name) == "holdout")
    cases = read([{"input": str(number), "group": held} for number in range(20)]).cases
    assert {case.split for case in cases} == {"holdout"}
    assert len({default_split(case.id) for case in cases}) == 2


def test_a_group_may_be_mapped_and_does_not_move_the_content(home):
    found = read([{"id": "a", "input": "x", "article": {"no": "7"}}], fields=Fields(group="article.no")).cases
    assert [(case.group, case.split) for case in found] == [("7", default_split("7"))]
    assert found[0].content_hash == Case(id="b", input="x").content_hash


def test_a_group_whose_cases_name_a_split_has_that(home):
    train = next(name for name in map(str, range(100)) if default_split(name) == "train")
    write("c.yaml", f"- {{id: a, input: x, group: '{train}', split: holdout}}\n- {{id: b, input: y, group: '{train}', split: holdout}}\n")
    assert [case.split for case in read("c.yaml").cases] == ["holdout", "holdout"]


def test_a_group_that_is_torn_apart_is_a_fault_wherever_its_cases_stand(home):
    write("c.yaml", "cases:\n  - {id: a, input: x, group: g, split: train}\n  - id: b\n    input: y\n    group: g\n    split: holdout\n")
    write(
        "d.jsonl",
        '{"id": "c", "input": "z", "group": "g", "split": "train"}\n{"id": "d", "input": "z", "group": "g", "split": "holdout"}\n',
    )
    twin = Case(id="e", input="z", group="g", split="holdout")
    problem = "group: is 'g', which is train at evals/c.yaml:2; this case is holdout"
    fix = "give all cases of a group the same split, or this one another group"
    places = ("evals/c.yaml:5: case 'b'", "evals/d.jsonl:2: case 'd'", "argument[2]: case 'e'")
    assert faults("c.yaml", "d.jsonl", twin) == [f"{place}: {problem}; {fix}" for place in places]


@pytest.mark.parametrize(
    ("group", "problem"), [("", "group: is empty; give at least one character"), (3, "group: is the number 3; give text (quote it)")]
)
def test_a_group_is_text(home, group, problem):
    assert faults([{"id": "a", "input": "x", "group": group}]) == [f"list[0]: case 'a': {problem}"]


def test_an_id_is_derived_from_content_and_moves_with_it(home):
    write("c.yaml", "- {input: x, tags: [a]}\n- {id: null, input: y, split: holdout}\n")
    first, second = read("c.yaml").cases
    assert first.id == "case-" + Case(id="any", input="x").content_hash[:10]
    assert (first.split, second.split) == (default_split(first.id), "holdout")
    write("d.json", '[{"input": "y"}, {"input": "x"}]')
    assert [case.id for case in read("d.json").cases] == [second.id, first.id]


def test_number_ids_become_text(home):
    write("c.yaml", "- {id: 7, input: x}\n- {id: 007, input: x}\n")
    assert [case.id for case in read("c.yaml").cases] == ["7", "007"]


def test_duplicate_ids_are_told_across_files(home):
    write("a.yaml", "- {id: late, input: x}\n- {id: late, input: y}\n- {input: same}\n")
    write("b.jsonl", '{"id": "late", "input": "z"}\n{"input": "same", "tags": ["t"]}\n')
    same = "case-" + Case(id="any", input="same").content_hash[:10]
    assert faults("a.yaml", "b.jsonl") == [
        "evals/a.yaml:2: case 'late': id: is already the id of evals/a.yaml:1; give each case an id of its own",
        "evals/b.jsonl:1: case 'late': id: is already the id of evals/a.yaml:1; give each case an id of its own",
        f"evals/b.jsonl:2: case '{same}': has no id and the same content as evals/a.yaml:3; remove one of the two, or give both an id",
    ]


def test_what_an_id_may_not_be(home):
    write("c.json", '[{"id": true, "input": "x"}, {"id": "a\\u0000", "input": "x"}, {"id": 1.5, "input": "x"}, {"id": "", "input": "x"}]')
    assert faults("c.json") == [
        "evals/c.json:1: id: is true; give text (quote it)",
        r"evals/c.json:1: case 'a\x00': id: holds the control character U+0000 at position 1; use letters, digits, spaces and punctuation",
        "evals/c.json:1: id: is the number 1.5; give text (quote it)",
        "evals/c.json:1: case '': id: is empty; give at least one character",
    ]


# --- field mapping ---


def test_a_mapping_takes_a_data_set_as_it_is():
    record = {"q": {"text": "What?"}, "a": "This.", "key": 5, "set": "holdout", "input": "other", "score": float("nan"), "raw": b"abc", "when": pa.scalar(0, pa.date32()).as_py(),
              "more": {1: ("x", Decimal(2))}, "metadata": {"score": 1}, "rubric": "r"}  # fmt: skip
    case = read([record], fields=Fields(input="q.text", expected="a", id="key", split="set")).cases[0]
    assert (case.id, case.input, case.expected, case.split, case.rubric) == ("5", "What?", "This.", "holdout", "r")
    assert case.metadata == {
        "q": {"text": "What?"}, "input": "other", "score": 1, "raw": "<3 bytes>", "when": "1970-01-01", "more": {"1": ["x", "2"]},
    }  # fmt: skip


def test_a_number_that_is_none_is_null_in_metadata():
    assert read([{"q": "x", "a": float("inf"), "b": 1.5}], fields=Fields(input="q")).cases[0].metadata == {"a": None, "b": 1.5}


def test_a_field_named_like_the_path_wins_and_optional_fields_may_lack():
    found = read(
        [{"q.text": "flat", "q": {"text": "deep"}}, {"q": {"text": "deep"}, "a": None}], fields=Fields(input="q.text", expected="a", id="k")
    )
    assert [(case.input, case.expected) for case in found.cases] == [("flat", None), ("deep", None)]


def test_a_mapped_field_is_faulted_under_its_own_name():
    endless = []
    endless.append(endless)
    records = [
        {"qestion": "x", "id": "a"},
        {},
        {"question": 3, "part": "dev", "id": "b"},
        {"question": "x", "x": endless, "id": "c"},
        {"question": [{"role": "usr"}], "id": "d", "metadata": 4, "x": 1},
    ]
    assert faults(records, fields=Fields(input="question", split="part")) == [
        "list[0]: case 'a': input: has no field 'question' to take it from; correct input=...; did you mean 'qestion'?",
        "list[1]: input: has no field 'question' to take it from; correct input=...; it has none",
        "list[2]: case 'b': question: is the number 3; give text (quote it), an object, or a list of messages",
        "list[2]: case 'b': part: is text 'dev'; use 'train' or 'holdout'",
        "list[3]: case 'c': metadata: is nested more than 100 levels deep; flatten it, or keep it as text",
        "list[4]: case 'd': question[0].role: is text 'usr'; use 'system', 'developer', 'user', 'assistant' or 'tool'",
        "list[4]: case 'd': metadata: is the number 4; give an object",
    ]
    assert faults([{"other": 1, "b": 2}], fields=Fields(input="question.text")) == [
        "list[0]: input: has no field 'question.text' to take it from; correct input=...; it has 'other', 'b'",
    ]


# --- defaults and unknown fields ---


def test_defaults_fill_what_a_case_lacks(home):
    write(
        "c.yaml",
        "defaults: {tags: [a], split: holdout, metadata: {x: 1, y: 1}}\ncases:\n- {id: a, input: x, tags: [b], metadata: {y: 2}}\n- {id: b, input: x, tags: ~}\n",
    )
    first, second = read("c.yaml").cases
    assert (first.tags, first.split, first.metadata) == (("b",), "holdout", {"x": 1, "y": 2})
    assert (second.tags, second.metadata) == (("a",), {"x": 1, "y": 1})
    write("c.json", '{"cases": [{"id": "a", "input": "x"}], "defaults": {"tags": ["late"]}}')
    assert read("c.json").cases[0].tags == ("late",)


def test_faults_of_defaults_are_told_once_where_they_stand(home):
    write("c.yaml", "defaults:\n  id: x\n  spit: train\n  tags: a\n  rubric:\n  odd:\ncases:\n- {id: a, input: x}\n- {id: b, input: x}\n")
    assert faults("c.yaml") == [
        "evals/c.yaml:2: id: cannot be shared by all cases; remove it from 'defaults'",
        "evals/c.yaml:3: spit: is no field of a case; did you mean 'split'?",
        "evals/c.yaml:6: odd: is no field of a case; put it under 'metadata', or map fields of a data set as it is with input='...'",
        "evals/c.yaml:4: tags: is text 'a'; give a list of texts",
    ]


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        (
            "{defaults: [], cases: {}}",
            ["defaults: is a list; give an object with the fields that all cases share", "cases: is an object; give a list of cases"],
        ),
        (
            "cass: []",
            [
                "cass: is neither 'defaults' nor 'cases'; did you mean 'cases'?",
                "has no 'cases'; write 'cases:' with a list of cases below it, or just a list",
            ],
        ),
        (
            "{cases: [{input: x}], version: 1}",
            ["version: is neither 'defaults' nor 'cases'; keep only 'defaults' and 'cases' at the top level"],
        ),
        ("just text", ["is text 'just text'; give a list of cases"]),
        (
            "[x, 3, [], null, {id: a, input: x}]",
            [f"is {what}; give an object with the fields of a case" for what in ("text 'x'", "the number 3", "a list", "null")],
        ),
    ],
)
def test_documents_of_another_shape_are_told(home, content, expected):
    write("c.yaml", content)
    as_json = yaml.safe_load(content)
    write("c.json", json.dumps(as_json))
    for name in ("c.yaml", "c.json"):
        shape = [fault.replace("'version'", "version").replace("'cass'", "cass") for fault in faults(name)]
        assert shape == [f"evals/{name}:1: {fault}" for fault in expected]


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("c.yaml", ""),
        ("c.yaml", "# none\n"),
        ("c.yaml", "cases:\n"),
        ("c.json", " \n"),
        ("c.json", '{"cases": []}'),
        ("c.jsonl", "\n\n"),
        ("c.csv", ""),
        ("c.csv", "id,input\n"),
    ],
)
def test_a_file_without_cases_is_told(home, name, content):
    write(name, content)
    assert faults(name) == [f"evals/{name}: holds no cases; add a case, or leave it out"]


def test_unknown_fields_are_told(home):
    write("c.json", json.dumps([{"id": "a", "input": "x", "expcted": 1, "source": "y", "question": 2, "a\nb": 3, "n" * 200: 4}]))
    put = "put it under 'metadata', or map fields of a data set as it is with input='...'"
    assert faults("c.json") == [
        "evals/c.json:1: case 'a': expcted: is no field of a case; did you mean 'expected'?",
        "evals/c.json:1: case 'a': source: is set by the loader; put it under 'metadata'",
        f"evals/c.json:1: case 'a': question: is no field of a case; {put}",
        rf"evals/c.json:1: case 'a': 'a\nb': is no field of a case; {put}",
        f"evals/c.json:1: case 'a': '{'n' * 79}...: is no field of a case; {put}",
    ]


def test_faults_of_all_files_come_at_once_in_their_order(home):
    write(
        "a.yaml",
        "cases:\n- id: a\n  input: 3\n  tags:\n    - a\n    - 1\n- id: b\n  input: x\n  input: y\n- id: c\n  input: x\n  split: dev\n",
    )
    write("b.csv", "id,input,tags\nd,,x\ne,x\nf,x,y,z\n")
    assert faults("a.yaml", "b.csv", "c.yaml") == [
        "evals/a.yaml:3: case 'a': input: is the number 3; give text (quote it), an object, or a list of messages",
        "evals/a.yaml:4: case 'a': tags[1]: is the number 1; give text (quote it)",
        "evals/a.yaml:9: has the key 'input' twice; remove one of the two",
        "evals/a.yaml:12: case 'c': split: is text 'dev'; use 'train' or 'holdout'",
        "evals/b.csv:2: case 'd': input: is missing; add it",
        "evals/b.csv:3: has 2 cells where the header has 3; quote cells that hold the delimiter, and leave none out",
        "evals/b.csv:4: has 4 cells where the header has 3; quote cells that hold the delimiter, and leave none out",
        f"evals/c.yaml: does not exist; correct the path; it is relative to '{home}'",
    ]


@pytest.mark.parametrize(("count", "last"), [(101, "1 more fault from here on"), (1300, "1,200 more faults from here on")])
def test_of_many_faults_a_hundred_are_told_in_full(home, count, last):
    write("c.jsonl", "{}\n" * count)
    found = faults("c.jsonl")
    assert len(found) == 101
    assert found[99:] == ["evals/c.jsonl:100: input: is missing; add it", f"evals/c.jsonl:101: {last}; correct those above first"]


def test_long_and_wild_values_are_shortened_and_escaped(home):
    write("c.json", json.dumps([{"id": "a" * 200, "input": "x", "split": "\x1b[31m" + "y" * 500}]))
    assert faults("c.json") == [
        f"evals/c.json:1: case '{'a' * 80}': split: is text '\\x1b[31m{'y' * 71}...; use 'train' or 'holdout'",
    ]


# --- YAML ---


def values(text):
    write("c.yaml", f"- id: a\n  input: x\n  expected: {text}\n")
    return read("c.yaml").cases[0].expected


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("No", "No"), ("yes", "yes"), ("on", "on"), ("2026-01-31", "2026-01-31"), ("1e5", "1e5"), ("007", "007"), ("0o17", "0o17"), ("12:30:00", "12:30:00"),
        ("1_000", "1_000"), ("0b1", "0b1"), ("=", "="), ("true", True), ("FALSE", False), ("~", None), ("42", 42), ("-0x1F", -31), ("1.50", 1.5), (".5", 0.5),
        ("1.0e+3", 1000.0), ("'42'", "42"), ("! 42", "42"), ("!!str 42", "42"), ("!!str", ""), ("!!int '42'", 42), ("!!float 1.5", 1.5), ("!!bool true", True),
        ("!!null ~", None), ("!!map {a: !!seq [1]}", {"a": [1]}), ("{2026: a, yes: b, ~: c}", {"2026": "a", "yes": "b", "~": "c"}), ('"\\u00e9\\0"', "é\0"),
    ],
)  # fmt: skip
def test_yaml_scalars_keep_the_type_that_one_reads(home, text, expected):
    result = values(text)
    assert result == expected
    assert type(result) is type(expected)


def test_yaml_texts_that_other_readers_take_for_booleans_are_inputs(home):
    write("c.yaml", "- {id: no, input: no}\n")
    assert cases("c.yaml") == [("no", "no", None)]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (".nan", "case 'a': expected: is nan, which is no JSON number; use null for a missing number, or write it as text"),
        ("-.inf", "case 'a': expected: is -inf, which is no JSON number; use null for a missing number, or write it as text"),
        ("9" * 5000, "is a number of more than 4,300 digits; quote it, so that it is text"),
        ("!!python/object/apply:os.system ['true']", "has the tag 'tag:yaml.org,2002:python/object/apply:os.system', which is not allowed; write a plain value without a tag"),
        ("!!python/name:os.system", "has the tag 'tag:yaml.org,2002:python/name:os.system', which is not allowed; write a plain value without a tag"),
        ("!mine 3", "has the tag '!mine', which is not allowed; write a plain value without a tag"),
        ("!str 3", "has the tag '!str', which is not allowed; write a plain value without a tag"),
        ("!!set {a}", "has the tag 'tag:yaml.org,2002:set', which is not allowed; write a plain value without a tag"),
        ("!!int x", "has the tag '!!int' but another kind of value; correct the value, or remove the tag"),
        ("{a: 1, a: 2}", "has the key 'a' twice; remove one of the two"),
        ("{[a]: 1}", "has a list or object as a key; use text as keys"),
        ("*gone", "uses the alias '*gone', which no anchor defines; define it above with '&gone'"),
        ("&me [*me]", "uses the alias '*me' inside its own anchor; write the value out"),
        ("[&k a, {*k : 1}]", "has an alias as a key; use text as keys"),
        ("{<<: 3}", "merges (<<) the number 3; merge an object, such as '<<: *defaults'"),
        ("[" * 200, "is nested more than 120 levels deep; flatten it, or keep it as text"),
        ("[" * 110 + "]" * 110, "case 'a': expected: is nested more than 100 levels deep; flatten it, or keep it as text"),
        ("[[" * 100_000, "is nested more than 120 levels deep; flatten it, or keep it as text"),
    ],
)  # fmt: skip
def test_yaml_that_cannot_be_is_told_with_its_line(home, text, expected):
    write("c.yaml", f"- id: a\n  input: x\n  expected: {text}\n")
    assert faults("c.yaml") == [f"evals/c.yaml:3: {expected}"]


def test_yaml_syntax_errors_name_line_and_column(home):
    write("c.yaml", "- id: a\n  input: b: c\n")
    assert faults("c.yaml") == [
        "evals/c.yaml:2: is not YAML: mapping values are not allowed in this context (column 11); correct the syntax; quote texts that hold ': ' or ' #' or begin with one of [ { & * ! | > ' \" % @ `",
    ]


def test_yaml_without_the_c_library_works_alike(home, monkeypatch):
    monkeypatch.delattr(yaml, "CSafeLoader")
    write("c.yaml", "- {id: a, input: no}\n")
    assert cases("c.yaml") == [("a", "no", None)]
    write("c.yaml", '- {id: a, input: "\\ud800"}\n')
    assert faults("c.yaml") == [
        "evals/c.yaml:1: case 'a': input: holds half a character (the surrogate U+D800 at position 0); write the whole character, or remove it",
    ]


def test_an_error_of_the_yaml_library_without_a_mark_is_told(home, monkeypatch):
    def parse(*args, **kwargs):
        message = "odd\x1b"
        raise yaml.YAMLError(message)

    monkeypatch.setattr(yaml, "parse", parse)
    write("c.yaml", "[]")
    assert faults("c.yaml")[0].startswith(r"evals/c.yaml: is not YAML: 'odd\x1b'; correct the syntax")


def test_a_control_character_in_yaml_is_told(home):
    write("c.yaml", "- id: a\n  input: x\x00\n")
    assert faults("c.yaml") == [
        'evals/c.yaml:2: holds the character U+0000, which YAML does not allow; write it as an escape in double quotes ("\\u0007")',
    ]


def test_a_second_yaml_document_is_told(home):
    write("c.yaml", "--- [{id: a, input: x}]\n--- [{id: b, input: x}]\n")
    assert faults("c.yaml") == ["evals/c.yaml:2: starts a second document; keep one document per file: one list of cases without '---'"]


def test_yaml_aliases_and_merges_work(home):
    write(
        "c.yaml",
        "cases:\n- &a\n  id: a\n  input: &text hello\n  tags: &tags [x]\n- {<<: *a, id: b, tags: [y]}\n- {id: c, <<: [{rubric: r}, *a], input: *text, tags: *tags}\n- {'<<': 1}\n",
    )
    assert faults("c.yaml")[0].startswith("evals/c.yaml:8: '<<': is no field of a case")
    write("c.yaml", Path("c.yaml").read_text(encoding="utf-8").replace("- {'<<': 1}\n", ""))
    assert [(case.id, case.input, case.tags, case.rubric) for case in read("c.yaml").cases] == [
        ("a", "hello", ("x",), None), ("b", "hello", ("y",), None), ("c", "hello", ("x",), "r"),
    ]  # fmt: skip


def test_a_fault_in_a_merged_field_names_the_line_it_stands_at(home):
    write("c.yaml", "- &a\n  id: a\n  input: x\n  split: dev\n- <<: *a\n  id: b\n")
    assert [fault.partition(" ")[0] for fault in faults("c.yaml")] == ["evals/c.yaml:4:", "evals/c.yaml:4:"]


def test_a_yaml_bomb_is_refused_without_being_expanded(home):
    lines = ["a0: &a0 [x, x, x, x, x, x, x, x, x]"] + [f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 9)}]" for n in range(1, 30)]
    write("c.yaml", "\n".join(lines))
    assert faults("c.yaml") == ["evals/c.yaml:7: uses aliases that expand to more than 4 Mi characters; write the values out, or use JSONL"]


def test_a_yaml_bomb_of_long_texts_is_refused(home, monkeypatch):
    monkeypatch.setattr(golden_yaml, "MAX_ALIAS_CHARACTERS", 100)
    write("c.yaml", f"- &long {'x' * 60}\n- *long\n- *long\n")
    assert faults("c.yaml") == ["evals/c.yaml:3: uses aliases that expand to more than 4 Mi characters; write the values out, or use JSONL"]


# --- JSON, JSONL, CSV ---


TRAILING_COMMA = (
    "Illegal trailing comma before end of object (column 11)"
    if sys.version_info >= (3, 13)
    else "Expecting property name enclosed in double quotes (column 12)"
)


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        ('[\n{"id": "a",}]', f"2: is not JSON: {TRAILING_COMMA}; correct the syntax"),
        ('[{"id": "a"}', "1: is not JSON: Expecting ',' delimiter (column 13); correct the syntax"),
        ("[1 2]", "1: is not JSON: Expecting ',' delimiter (column 4); correct the syntax"),
        ("[]\n]", "2: is not JSON: Extra data (column 1); correct the syntax"),
        ("{\n3: 4}", "2: is not JSON: Expecting property name enclosed in double quotes (column 1); correct the syntax"),
        ('{"cases" []}', "1: is not JSON: Expecting ':' delimiter (column 10); correct the syntax"),
        ("nope", "1: is not JSON: Expecting value (column 1); correct the syntax"),
        ("\n[" + "[" * 100_000, "2: is not JSON: it is nested too deeply; correct the syntax"),
        ("[\n" + "9" * 5000 + "]", "2: is not JSON: it holds a number of more than 4,300 digits; correct the syntax"),
    ],
)
def test_json_syntax_errors_name_line_and_column(home, content, expected):
    write("c.json", content)
    assert faults("c.json") == [f"evals/c.json:{expected}"]


def test_what_json_forbids_is_told_with_the_line_of_the_case(home):
    write("c.json", '{"cases": 3, "cases": [\n{"id": "a", "input": "x", "expected": NaN},\n{"id": "b", "input": {"k": 1, "k": 2}},\n'
          '{"id": "c", "input": "\\ud800"},\n{"id": "d", "input": {"x": 1e999}}\n]}')  # fmt: skip
    assert faults("c.json") == [
        "evals/c.json:1: has the key 'cases' twice; remove one of the two",
        "evals/c.json:2: holds NaN, which is no JSON number; use null for a missing number, or write it as text",
        "evals/c.json:3: has the key 'k' twice; remove one of the two",
        "evals/c.json:4: case 'c': input: holds half a character (the surrogate U+D800 at position 0); write the whole character, or remove it",
        "evals/c.json:5: case 'd': input.x: is inf, which is no JSON number; use null for a missing number, or write it as text",
    ]


def test_deep_json_that_can_be_read_is_refused_too(home):
    write("c.jsonl", '{"id": "a", "input": "x", "expected": ' + "[" * 150 + "]" * 150 + "}")
    assert faults("c.jsonl") == ["evals/c.jsonl:1: case 'a': expected: is nested more than 100 levels deep; flatten it, or keep it as text"]


def test_every_bad_line_of_jsonl_is_told(home):
    write(
        "c.jsonl",
        b'{"id": "a", "input": "x"}\n{"id": 1, "input"}\n{"id": "b", "input": "\xff"}\n[1]\n{"x": Infinity, "id": "c", "input": "x"}\n'
        + b"[" * 100_000
        + b"\n"
        + b"9" * 5000,
    )
    assert faults("c.jsonl") == [
        "evals/c.jsonl:2: is not JSON: Expecting ':' delimiter (column 18); write one JSON object per line",
        "evals/c.jsonl:3: is not UTF-8 at byte 67 (0xff); save the file as UTF-8",
        "evals/c.jsonl:4: is a list; give an object with the fields of a case",
        "evals/c.jsonl:5: holds Infinity, which is no JSON number; use null for a missing number, or write it as text",
        "evals/c.jsonl:5: case 'c': x: is no field of a case; put it under 'metadata', or map fields of a data set as it is with input='...'",
        "evals/c.jsonl:6: is not JSON: it is nested too deeply; write one JSON object per line",
        "evals/c.jsonl:7: is not JSON: it holds a number of more than 4,300 digits; write one JSON object per line",
    ]


@pytest.mark.parametrize("name", ["c.yaml", "c.json", "c.csv"])
def test_bad_utf8_is_told_with_line_and_byte(home, name):
    write(name, b"id,input\na,x\nb,\xe9t\xe9\n")
    assert faults(name)[-1] == f"evals/{name}:3: is not UTF-8 at byte 15 (0xe9); save the file as UTF-8"


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        ("id,input,id\n", ["1: 'id': is the name of two columns; give each column its own"]),
        ('id,input\na,"x"y\n', ["2: is not valid CSV: ',' expected after '\"'; quote cells that hold quotes, delimiters or line breaks"]),
        ('id,input\na,"x\n', ["2: is not valid CSV: unexpected end of data; quote cells that hold quotes, delimiters or line breaks"]),
        ("id,input\na," + "x" * 140_000, ["2: is not valid CSV: field larger than field limit (131072); use JSONL for texts this long"]),
        (
            "id,input,metadata\na,x,{\n",
            ["2: case 'a': metadata: is not JSON: Expecting property name enclosed in double quotes; write a JSON object"],
        ),
        ('id,input,metadata\na,x,"{""k"": 1, ""k"": 2}"\n', ["2: has the key 'k' twice; remove one of the two"]),
        ("id,input,metadata\na,x,3\n", ["2: case 'a': metadata: is the number 3; give an object"]),
        ("id,input,must_pass\na,x,maybe\n", ["2: case 'a': must_pass: is text 'maybe'; use true or false"]),
        ("input,metadata\nx,{\n", ["2: metadata: is not JSON: Expecting property name enclosed in double quotes; write a JSON object"]),
    ],
)
def test_tables_that_cannot_be_are_told(home, content, expected):
    write("c.csv", content)
    assert faults("c.csv") == [f"evals/c.csv:{fault}" for fault in expected]


def test_a_broken_parquet_file_is_told(home):
    write("c.parquet", b"PAR1 nonsense PAR1")
    write("d.parquet", b"")
    first, second = faults("c.parquet", "d.parquet")
    assert first.startswith("evals/c.parquet: ")
    assert second.startswith("evals/d.parquet: is no readable Parquet file: ")
    assert second.endswith("; write it anew")


def test_a_parquet_file_that_the_system_refuses_is_told(home, monkeypatch):
    def refuse(path):
        raise PermissionError(13, "Permission denied")

    write("c.parquet", b"x")
    monkeypatch.setattr(pyarrow.parquet, "ParquetFile", refuse)
    assert faults("c.parquet") == ["evals/c.parquet: cannot be read: Permission denied; correct the path or its permissions"]


# --- sizes ---


def sparse(name, content, size):
    path = write(name, content)
    os.truncate(path, size)


def test_a_yaml_or_json_file_that_is_too_large_is_refused_unread(home):
    sparse("c.yaml", "- {id: a, input: x}\n", 200 * 2**20)
    sparse("c.json", "[]", 300 * 2**20)
    assert faults("c.yaml", "c.json") == [
        "evals/c.yaml: is larger than the 16 MiB that a YAML file may have; use JSONL (one case per line), which is streamed",
        "evals/c.json: is larger than the 256 MiB that a JSON file may have; use JSONL (one case per line), which is streamed",
    ]


@pytest.mark.parametrize(
    ("name", "content"), [("c.jsonl", '{"id": "a", "input": "x"}\n{"id": "b", "input": "x"}\n'), ("c.csv", "id,input\na,x\nb,x\n")]
)
def test_a_large_stream_is_read_only_up_to_the_limit(home, name, content):
    sparse(name, content, 200 * 2**20)
    assert [case.id for case in read(name, limit=2).cases] == ["a", "b"]
    line = content.count("\n") + 1
    expected = [f"evals/{name}:{line}: is a line of more than 16 MiB; write one record per line"]
    assert faults(name) == faults(name, limit=3) == faults(name, limit=2, complete=True) == faults(name, limit=2, split="train") == expected


def test_a_file_that_holds_more_than_its_size_says_is_refused(home, monkeypatch):
    monkeypatch.setattr(golden_formats, "MAX_JSON_BYTES", 10)
    Path("c.json").symlink_to("/proc/self/maps")
    with pytest.raises(GoldenError, match=r"c\.json: is larger than the 0 MiB that a JSON file may have; use JSONL"):
        load(["c.json"], base=home, rootdir=home / "elsewhere")


# --- paths ---


def test_globs_are_sorted_and_go_deep(home):
    for name in ("b.jsonl", "a.jsonl", "sub/deep/c.jsonl", ".hidden/d.jsonl", "sub/.e.jsonl"):
        write(name, json.dumps({"id": name, "input": "x"}))
    assert [case.id for case in read("*.jsonl").cases] == ["a.jsonl", "b.jsonl"]
    assert [case.id for case in read("**/*.jsonl").cases] == ["a.jsonl", "b.jsonl", "sub/deep/c.jsonl"]
    assert [case.id for case in read(".hidden/*.jsonl").cases] == [".hidden/d.jsonl"]
    assert [case.id for case in read(str(home / "[b]*")).cases] == ["b.jsonl"]
    assert [case.id for case in read("[b].jsonl", "../evals/a.jsonl").cases] == ["b.jsonl", "a.jsonl"]


def test_a_file_whose_name_looks_like_a_glob_is_itself(home):
    write("c[1].jsonl", '{"id": "a", "input": "x"}')
    assert read("c[1].jsonl").cases[0].source == "evals/c[1].jsonl:1"


def test_files_are_named_relative_to_the_root_folder_or_as_given(home):
    outside = home.parent.parent / "out.jsonl"
    write(outside, '{"id": "a", "input": "x"}')
    assert read("../../out.jsonl").cases[0].source == "../../out.jsonl:1"
    assert read(outside).cases[0].source == f"{outside}:1"
    write("in.jsonl", '{"id": "a", "input": "x"}')
    assert read(home / "in.jsonl").cases[0].source == "evals/in.jsonl:1"


def test_paths_that_lead_nowhere_are_told(home):
    where = f"it is relative to '{home}'"
    assert faults("none.yaml", "none*.yaml", "folder/../none.yaml") == [
        f"evals/none.yaml: does not exist; correct the path; {where}",
        f"evals/none*.yaml: matches no file; correct the path; {where}",
        f"evals/none.yaml: does not exist; correct the path; {where}",
    ]
    assert faults("a\0.yaml", "n" * 300 + ".yaml", "")[0::2] == [
        r"evals/a\x00.yaml: does not exist; correct the path; " + where,
        "evals: is a folder, and no data set saved by datasets.save_to_disk; name its files, such as 'evals/*.yaml'",
    ]


def test_a_glob_that_cannot_be_is_told(home, monkeypatch):
    def refuse(*args):
        message = "Invalid pattern"
        raise ValueError(message)

    monkeypatch.setattr(Path, "glob", refuse)
    assert faults("**x.yaml") == ["evals/**x.yaml: is no usable path: ValueError: 'Invalid pattern'; correct the path"]


def test_a_path_may_be_bytes_underneath(home):
    class Place:
        def __fspath__(self):
            return b"c.jsonl"

    write("c.jsonl", '{"id": "a", "input": "x"}')
    assert read(Place()).cases[0].source == "evals/c.jsonl:1"


def test_what_is_no_golden_file_is_told(home):
    write("c.txt", "x")
    write("c", "x")
    endings = ".yaml, .yml, .json, .jsonl, .ndjson, .csv, .tsv, .parquet"
    assert faults("c.txt", "c") == [
        f"evals/c.txt: has the ending '.txt', which is no golden format; use one of {endings}",
        f"evals/c: has no ending; use one of {endings}",
    ]


def test_special_files_are_refused_and_never_hang(home, tmp_path_factory):
    os.mkfifo("pipe.jsonl")
    with socket.socket(socket.AF_UNIX) as server:
        server.bind("sock.jsonl")
    Path("zero.jsonl").symlink_to("/dev/zero")
    fix = "is no regular file; give a file, not a pipe, socket, device or folder"
    assert faults("*.jsonl", "/dev/zero") == [
        f"evals/pipe.jsonl: {fix}",
        f"evals/sock.jsonl: {fix}",
        f"evals/zero.jsonl: {fix}",
        f"/dev/zero: {fix}",
    ]


def test_a_file_that_may_not_be_read_is_told(home, monkeypatch):
    write("c.jsonl", "{}")

    def refuse(*args):
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(Path, "open", refuse)
    assert faults("c.jsonl") == ["evals/c.jsonl: cannot be read: Permission denied; correct the path or its permissions"]


def test_links_must_stay_in_the_root_folder(home):
    outside = home.parent.parent / "secret.jsonl"
    write(outside, '{"id": "secret", "input": "x"}')
    write("in.jsonl", '{"id": "in", "input": "x"}')
    Path("good.jsonl").symlink_to("in.jsonl")
    Path("bad.jsonl").symlink_to(outside)
    Path("dir").symlink_to(outside.parent)
    Path("lost.jsonl").symlink_to("/nowhere/x.jsonl")
    Path("dangling.jsonl").symlink_to("gone.jsonl")
    Path("loop.jsonl").symlink_to("loop.jsonl")
    assert [case.id for case in read("good.jsonl").cases] == ["in"]
    fix = "copy the file into the project, or name it by its real path"
    assert faults("bad.jsonl", "dir/secret.jsonl", "dir/*.jsonl", "lost.jsonl", "dir", "dangling.jsonl", "loop.jsonl") == [
        f"evals/bad.jsonl: leads out of the root folder through a symbolic link, to '{outside}'; {fix}",
        f"evals/dir/secret.jsonl: leads out of the root folder through a symbolic link, to '{outside}'; {fix}",
        f"evals/dir/secret.jsonl: leads out of the root folder through a symbolic link, to '{outside}'; {fix}",
        f"evals/lost.jsonl: leads out of the root folder through a symbolic link, to '/nowhere/x.jsonl'; {fix}",
        f"evals/dir: leads out of the root folder through a symbolic link, to '{outside.parent}'; {fix}",
        "evals/dangling.jsonl: cannot be read: No such file or directory; correct the path or its permissions",
        "evals/loop.jsonl: cannot be read: Too many levels of symbolic links; correct the path or its permissions",
    ]


def test_a_root_folder_that_is_itself_a_link_holds_its_files(home, tmp_path):
    write("in.jsonl", '{"id": "in", "input": "x"}')
    link = tmp_path / "link"
    link.symlink_to(home.parent)
    for base, rootdir in [(link / "evals", link), (home, link), (link / "evals", home.parent)]:
        assert [case.id for case in load(["in.jsonl"], base=base, rootdir=rootdir).cases] == ["in"]


# --- saved data sets that are not what they seem ---


@pytest.mark.parametrize(
    "content",
    ["{", "[]", '{"_data_files": 3}', '{"_data_files": [{"filename": "../x.arrow"}]}', '{"_data_files": [{"filename": 3}]}', "[" * 100_000],
)
def test_a_broken_state_file_is_told(home, content):
    save("qa")
    write("qa/state.json", content)
    assert faults("qa") == ["evals/qa/state.json: does not list the dataset's files; save the dataset again with save_to_disk"]


def test_a_broken_dataset_dict_is_told(home):
    save("qa", "train")
    write("qa/dataset_dict.json", '{"splits": ["../.."]}')
    assert faults("qa") == ["evals/qa/dataset_dict.json: does not list the dataset's files; save the dataset again with save_to_disk"]
    write("qa/dataset_dict.json", b"\xff")
    assert faults("qa") == ["evals/qa/dataset_dict.json:1: is not UTF-8 at byte 0 (0xff); save the file as UTF-8"]
    write("qa/dataset_dict.json", '{"splits": ["gone"]}')
    assert faults("qa") == ["evals/qa/gone/state.json: cannot be read: No such file or directory; correct the path or its permissions"]


def test_files_of_a_data_set_must_stay_in_the_root_folder(home):
    save("qa")
    outside = home.parent.parent / "out.arrow"
    data = Path("qa/data-00000-of-00001.arrow").rename(outside)
    Path("qa/data-00000-of-00001.arrow").symlink_to(data)
    assert faults("qa") == [
        f"evals/qa/data-00000-of-00001.arrow: leads out of the root folder through a symbolic link, to '{outside}'; copy the file into the project, or name it by its real path",
    ]


def test_a_broken_arrow_file_is_told_and_the_others_are_read(home):
    save("qa", files=2)
    write("qa/data-00000-of-00002.arrow", b"nonsense")
    found = faults("qa", fields=Fields(input="nope"))
    assert found[0].startswith("evals/qa: file 'data-00000-of-00002.arrow' is no readable Arrow file: ")
    assert found[1].startswith("evals/qa row 1: input: has no field 'nope' to take it from")


# --- properties ---

texts = st.text(st.characters(codec="utf-8"), max_size=20)
numbers = st.integers(-(2**70), 2**70) | st.floats(allow_nan=False, allow_infinity=False)
jsons = st.recursive(
    st.none() | st.booleans() | numbers | texts,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(texts, inner, max_size=3),
    max_leaves=8,
)
safe_ids = st.text(st.characters(codec="utf-8", exclude_categories=["C", "Z"]), min_size=1, max_size=20)
messages = st.lists(st.fixed_dictionaries({"role": st.sampled_from(["user", "assistant"]), "content": texts}), min_size=1, max_size=3)
some_cases = st.lists(
    st.builds(
        Case,
        id=safe_ids,
        input=texts | messages | st.dictionaries(texts, jsons, max_size=3),
        expected=jsons,
        reference=st.none() | texts,
        rubric=st.none() | texts,
        tags=st.lists(texts.filter(bool), max_size=2),
        metadata=st.dictionaries(texts, jsons, max_size=2),
        split=st.sampled_from(["train", "holdout"]),
        must_pass=st.booleans(),
        quarantine=st.none() | st.builds(Quarantine, reason=st.sampled_from(["slow", "ünï: 'x'"]), until=st.dates(date(9000, 1, 1))),
    ),
    min_size=1,
    max_size=3,
    unique_by=lambda case: case.id,
)


@pytest.fixture(scope="module")
def scratch(tmp_path_factory):
    return tmp_path_factory.mktemp("scratch")


@given(written=some_cases)
def test_any_case_comes_back_equal_from_any_format(scratch, written):
    records = [case.model_dump(mode="json", exclude={"source"}) for case in written]
    lines = "\n".join(json.dumps(record, ensure_ascii=False) for record in records)
    write(scratch / "r.yaml", yaml.safe_dump(records))
    write(scratch / "d.yaml", yaml.dump({"cases": records}, Dumper=yaml.CSafeDumper))
    write(scratch / "r.json", json.dumps({"cases": records}))
    write(scratch / "r.jsonl", lines.encode())
    for name in ("r.yaml", "d.yaml", "r.json", "r.jsonl"):
        found = load([name], base=scratch, rootdir=scratch).cases
        assert [case.model_dump(exclude={"source"}) for case in found] == [case.model_dump(exclude={"source"}) for case in written]


snippets = st.sampled_from([b"- ", b"id: ", b"input: ", b"cases:", b"\n", b"  ", b"[", b"]", b"{", b"}", b'"', b",", b":", b"&a ", b"*a", b"<<: ", b"!!int ", b"1", b"NaN", b"null", b'"id"', b'"input"', b"\\ud800", b"\xff", b"\x00", b"\xef\xbb\xbf", b"---"])  # fmt: skip


@pytest.mark.parametrize("name", ["x.yaml", "x.jsonl", "x.csv", "x.json", "x.parquet"])
@given(content=st.binary(max_size=40) | st.lists(snippets, max_size=14).map(b"".join))
def test_any_bytes_give_cases_or_faults(scratch, name, content):
    write(scratch / name, content)
    try:
        golden = load([name], base=scratch, rootdir=scratch)
    except GoldenError as error:
        assert error.faults
        assert all(fault.file.startswith(name) and str(fault).isprintable() for fault in error.faults)
    else:
        assert golden.cases
