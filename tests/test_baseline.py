"""The baseline's values and file: entries from trials, a file that people read and git merges, and every fault of one that is read."""

from __future__ import annotations

import dataclasses

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from pytest_touchstone import baseline
from pytest_touchstone.baseline import (
    HEADER,
    MAX_OUTPUT,
    BaselineEntry,
    ScoreStat,
    by_suite,
    encode_baseline,
    encode_entry,
    entry_of,
    parse_baseline,
    read_baseline,
    score_stats,
    suite_of,
    test_of,
    why_not_accepted,
    write_baseline,
)
from pytest_touchstone.errors import BaselineError
from pytest_touchstone.gate import Evidence, evidence
from pytest_touchstone.git import Checkout
from pytest_touchstone.text import visible
from pytest_touchstone.trial import Call, Score, TrialRecord

test_of.__test__ = False  # pytest would take it for a test

HASH = "ab" * 32
SUITE = "evals/test_shop.py::test_refunds"
ENTRY = BaselineEntry(
    test="test_refunds",
    case_id="late",
    content_hash=HASH,
    trials=5,
    passes=4,
    must_pass=True,
    tags=("refunds", "vip"),
    scores=(
        ScoreStat(name="exact_match", mean=0.8, spread=0.4472, trials=5),
        ScoreStat(name="judge", mean=1.0, spread=None, trials=1),
    ),
    judges=("openai:gpt-5#ab12",),
    models=("gpt-5-mini",),
    cost_usd=0.00012,
    latencies_s=(1.2, 0.9),
    output="No.\n\nWithin 30 days, yes.",
    output_cut=12,
    commit="3b4f2aa9c0+",
)
TEXT = f"""\
"test_refunds[late]":
  case: "late"
  content: "{HASH}"
  passed: 4 of 5
  must_pass: true
  tags: ["refunds", "vip"]
  scores:
    "exact_match": {{"mean": 0.8, "spread": 0.4472, "trials": 5}}
    "judge": {{"mean": 1.0, "spread": null, "trials": 1}}
  judges: ["openai:gpt-5#ab12"]
  models: ["gpt-5-mini"]
  cost_usd: 0.00012
  latency_s: [1.2, 0.9]
  commit: "3b4f2aa9c0+"
  output:
    - "No."
    - ""
    - "Within 30 days, yes."
  output_cut: 12"""
SMALL = BaselineEntry(test="test_refunds", case_id="gift", content_hash=HASH, trials=1, passes=1)


def record(number=1, outcome="passed", output="Yes.", **fields):
    known = {"nodeid": f"{SUITE}[late]", "suite": SUITE, "case_id": "late", "source": "x", "content_hash": HASH, "split": "train"}
    return TrialRecord(**known, number=number, outcome=outcome, output=output, **fields)


def accepted(*records, old=None, redact=str, commit="c0ffee"):
    return entry_of(evidence(records)["late"], records, redact=redact, old=old, commit=commit)


# From trials to entries


def test_an_entry_says_what_was_accepted():
    call = Call(provider="openai", model="gpt-5-mini", cost_usd=0.00012345678, latency_s=1.23456)
    scores = (Score(name="judge", value=1.0, passed=True, judge="openai:gpt-5#ab12"), Score(name="exact_match", value=0.0, passed=False))
    entry = accepted(
        record(1, "failed", scores=scores, calls=(call,), tags=("vip",), must_pass=True),
        record(2, scores=(Score(name="exact_match", value=1.0, passed=True),), calls=(call,), tags=("vip",), must_pass=True),
    )
    assert entry == BaselineEntry(
        test="test_refunds",
        case_id="late",
        content_hash=HASH,
        trials=2,
        passes=1,
        must_pass=True,
        tags=("vip",),
        scores=(
            ScoreStat(name="exact_match", mean=0.5, spread=0.7071, trials=2),
            ScoreStat(name="judge", mean=1.0, spread=None, trials=1),
        ),
        judges=("openai:gpt-5#ab12",),
        models=("gpt-5-mini",),
        cost_usd=0.000123457,
        latencies_s=(1.235, 1.235),
        output="Yes.",
        commit="c0ffee",
    )
    assert entry.evidence == Evidence(
        case_id="late",
        content_hash=HASH,
        trials=2,
        passes=1,
        tags=("vip",),
        must_pass=True,
        judges=("openai:gpt-5#ab12",),
        models=("gpt-5-mini",),
        cost_usd=0.000123457,
        latencies_s=(1.235, 1.235),
    )


def test_scores_of_one_name_in_one_trial_are_averaged_and_those_without_a_value_left_out():
    both = (Score(name="contains", value=1.0, passed=True), Score(name="contains", value=0.0, passed=False))
    none = (Score.unscored("contains", "no"), Score(name="exact_match", value=1.0, passed=True))
    assert score_stats([record(1, scores=both), record(2, scores=none)]) == (
        ScoreStat(name="contains", mean=0.5, spread=None, trials=1),
        ScoreStat(name="exact_match", mean=1.0, spread=None, trials=1),
    )


@pytest.mark.parametrize(
    ("records", "output"),
    [
        ([record(2, output="b"), record(1, output="a")], "a"),
        ([record(1, output="a"), record(2, output="b"), record(3, output="b")], "b"),
        ([record(1, "failed", output="bad"), record(2, output="good")], "good"),
        ([record(1, output="good"), record(2, "failed", output="bad"), record(3, "failed", output="bad")], "bad"),
        ([record(1, output=None)], None),
        ([record(1, output="")], ""),
    ],
)
def test_the_output_is_the_most_frequent_one_of_those_that_ended_as_most_did(records, output):
    assert accepted(*records).output == output


def test_the_old_output_stays_where_it_was_given_again():
    old = dataclasses.replace(accepted(record(1, output="b")), passes=0)
    assert accepted(record(1, output="a"), record(2, output="b"), old=old).output == "b"
    assert accepted(record(1, output="a"), record(2, output="c"), old=old).output == "a"


def test_accepting_the_same_again_keeps_the_commit():
    old = accepted(record(), commit="before")
    assert accepted(record(), old=old, commit="now") is old
    assert accepted(record(outcome="failed"), old=old, commit="now").commit == "now"


def test_a_long_output_is_cut_after_it_was_redacted():
    secret = "x" * (MAX_OUTPUT - 2) + "SECRET" + "y" * 10
    entry = accepted(record(output=secret), redact=lambda text: text.replace("SECRET", "[redacted]"))
    assert entry.output == "x" * (MAX_OUTPUT - 2) + "[r"
    assert entry.output_cut == len("edacted]") + 10


@pytest.mark.parametrize(
    ("fields", "reason"),
    [
        ({"trials": 2, "passes": 0}, ""),
        ({"trials": 2, "passes": 2, "must_pass": True}, ""),
        ({"trials": 2, "passes": 1, "must_pass": True}, "it must pass, and passed 1 of 2 trials"),
        ({"trials": 2, "passes": 2, "errors": 1}, "no verdict on 1 of 3 trials (1 error)"),
        ({"unscored": 1, "not_run": 2}, "no verdict on 3 of 3 trials (1 unscored, 2 not run)"),
        ({}, "no trial"),
    ],
)
def test_what_may_not_become_a_baseline(fields, reason):
    assert why_not_accepted(Evidence(case_id="late", content_hash=HASH, **fields)) == reason


@pytest.mark.parametrize(
    ("checkout", "commit"),
    [
        (Checkout(), None),
        (Checkout(commit="0123456789abcdef", dirty=False), "0123456789"),
        (Checkout(commit="0123456789abcdef", dirty=True), "0123456789+"),
    ],
)
def test_the_commit_is_short_and_says_where_files_differ(checkout, commit):
    assert checkout.short == commit


@pytest.mark.parametrize(
    ("suite", "name"),
    [
        ("a/test_x.py::test_it", "test_it"),
        ("a/test_x.py::TestA::TestB::test_it", "TestA.TestB.test_it"),
        ("a/test_x.py::test_it[v1.5::b]", "test_it[v1.5::b]"),
    ],
)
def test_a_suites_name_leads_back_to_it(suite, name):
    assert test_of(suite) == name
    assert suite_of("a/test_x.py", name) == suite


def test_the_evidence_of_a_file_goes_by_suite_and_case():
    other = dataclasses.replace(SMALL, test="test_other")
    assert by_suite("evals/test_shop.py", [ENTRY, SMALL, other]) == {
        SUITE: {"late": ENTRY.evidence, "gift": SMALL.evidence},
        "evals/test_shop.py::test_other": {"gift": other.evidence},
    }


# The file


def test_an_entry_is_a_few_lines_of_yaml_that_people_read():
    assert encode_entry(ENTRY) == TEXT
    assert yaml.safe_load(TEXT)["test_refunds[late]"]["output"] == ["No.", "", "Within 30 days, yes."]
    assert encode_entry(SMALL) == f'"test_refunds[gift]":\n  case: "gift"\n  content: "{HASH}"\n  passed: 1 of 1'


def test_a_file_is_sorted_and_keeps_entries_apart():
    text = encode_baseline([ENTRY, SMALL]).decode()
    assert text == f"{baseline.ABOUT}\n{HEADER}\n\n{encode_entry(SMALL)}\n\n{TEXT}\n"
    assert parse_baseline(text.encode(), shown="x") == {"test_refunds[late]": ENTRY, "test_refunds[gift]": SMALL}
    assert yaml.safe_load(text)["touchstone-baseline"] == 1


def test_what_two_branches_accepted_merges(tmp_path):
    """The three sides of a merge, as git sees them: changes that are apart by a line do not meet."""
    names = ["a", "b", "c"]
    base = [dataclasses.replace(SMALL, case_id=name) for name in names]
    changed = dataclasses.replace(base[0], passes=0)
    added = dataclasses.replace(SMALL, case_id="bb")
    lines = encode_baseline(base).decode().split("\n")
    ours = encode_baseline([changed, *base[1:]]).decode().split("\n")
    theirs = encode_baseline([*base, added]).decode().split("\n")
    assert [index for index, line in enumerate(ours) if lines[index] != line] == [6]
    position = next(index for index, line in enumerate(theirs) if line != lines[index])
    assert position > 8
    merged = [*ours[:position], *theirs[position:]]
    assert parse_baseline("\n".join(merged).encode(), shown="x") == {entry.name: entry for entry in [changed, *base[1:], added]}


def test_reading_forgives_what_editors_and_git_do():
    text = f"\ufeff# by hand\r\n{HEADER}\r\n\r\n" + TEXT.replace("\n", "\r\n") + "\r\n  # a comment\n"
    assert parse_baseline(text.replace("  # a comment\n", "# a comment\n").encode(), shown="x") == {ENTRY.name: ENTRY}


def test_nothing_in_a_file_acts_on_a_terminal():
    nasty = dataclasses.replace(ENTRY, case_id="a\u202eb", output="\x1b[31mred\x7f\u2028", tags=("\x9b",))
    text = encode_entry(nasty)
    assert visible(text) == text
    assert text.startswith('"test_refunds[a\\\\u202eb]":')
    read = parse_baseline(f"{HEADER}\n{text}".encode(), shown="x")
    assert read == {"test_refunds[a\\u202eb]": nasty}


texts = st.text(max_size=20)
entries = st.builds(
    BaselineEntry,
    test=st.from_regex(r"test_[a-z]{1,5}(\[[a-z.:]{1,5}\])?", fullmatch=True),
    case_id=st.text(st.characters(exclude_categories=["Cc", "Cs"]), min_size=1, max_size=20),
    content_hash=st.just(HASH),
    trials=st.just(5),
    passes=st.integers(0, 5),
    must_pass=st.booleans(),
    tags=st.lists(texts, max_size=2).map(tuple),
    scores=st.lists(
        st.builds(
            ScoreStat,
            name=texts,
            mean=st.floats(0, 1),
            spread=st.none() | st.floats(0, 1),
            trials=st.integers(1, 5),
        ),
        max_size=2,
    ).map(tuple),
    judges=st.lists(texts, max_size=2).map(tuple),
    models=st.lists(texts, max_size=2).map(tuple),
    cost_usd=st.none() | st.floats(0, 100),
    latencies_s=st.lists(st.floats(0, 100), max_size=3).map(tuple),
    output=st.none() | texts,
    output_cut=st.integers(0, 5),
    commit=st.none() | texts,
)


@given(st.lists(entries, max_size=4, unique_by=lambda entry: entry.name))
def test_every_entry_comes_back_as_it_was(given_entries):
    data = encode_baseline(given_entries)
    assert parse_baseline(data, shown="x") == {entry.name: entry for entry in given_entries}
    assert encode_baseline(parse_baseline(data, shown="x").values()) == data


@given(st.binary(max_size=200))
def test_any_bytes_are_read_or_refused_with_advice(data):
    for prefix in (b"", f"{HEADER}\n{TEXT}\n".encode()):
        try:
            parse_baseline(prefix + data, shown="x")
        except BaselineError as error:
            assert all(fault.problem and fault.fix for fault in error.faults)


@given(st.data())
def test_a_changed_line_is_read_or_refused_with_its_number(data):
    lines = f"{HEADER}\n{TEXT}".split("\n")
    number = data.draw(st.integers(0, len(lines) - 1))
    lines[number] = data.draw(st.text(max_size=30).map(lambda text: text.replace("\n", " ")) | st.just(lines[number][:-1]))
    try:
        parse_baseline("\n".join(lines).encode("utf-8", "surrogatepass"), shown="x")
    except BaselineError as error:
        assert all(fault.line is not None for fault in error.faults)


AGAIN = "accept the case again with --snapshot-update"
RESTORE = "restore it from git, or delete the file and accept the cases again with --snapshot-update"


def changed(old, new):
    assert old in TEXT
    return f"{HEADER}\n\n{TEXT.replace(old, new)}\n"


FAULTS = {
    "empty": ("", f"f:1: is not the first line of a baseline ({HEADER}); {RESTORE}"),
    "other file": ("hello\n", f"f:1: is not the first line of a baseline ({HEADER}); {RESTORE}"),
    "newer": (
        "# about\ntouchstone-baseline: 2\nwhatever\n",
        "f:2: was written by a newer pytest-touchstone (format 2; this one reads 1); upgrade pytest-touchstone",
    ),
    "not a version": ("touchstone-baseline: 0\n", f"f:1: is not the first line of a baseline ({HEADER}); {RESTORE}"),
    "not UTF-8": (b"touchstone-baseline: 1\n\xff\n", f"f:2: is not UTF-8; {RESTORE}"),
    "no entry": (f"{HEADER}\nhello\n", f'f:2: "hello" is not the name of an entry, a field or a comment; delete the line, or {AGAIN}'),
    "bad name": (f'{HEADER}\n"\\x":\n', f'f:2: ""\\x":" is not the name of an entry, a field or a comment; delete the line, or {AGAIN}'),
    "orphan": (
        f'{HEADER}\n  case: "late"\n',
        "f:2: belongs to no entry; put it below the line with the name of its entry, or delete it",
    ),
    "twice": (
        f"{HEADER}\n{TEXT}\n{TEXT}\n",
        f'f:21: "test_refunds[late]" is there already, on line 2; keep one of them, or delete both and {AGAIN}',
    ),
    "no case": (
        changed('  case: "late"\n', ""),
        f"f:3: case 'test_refunds[late]': case: is missing; add it, or {AGAIN}",
    ),
    "other case": (
        changed('  case: "late"', '  case: "gift"'),
        f"f:4: case 'test_refunds[late]': case: is \"gift\", which is not what the name of the entry ends in; correct it, or {AGAIN}",
    ),
    "no field": (
        changed("  must_pass: true", "  What?"),
        f"f:7: case 'test_refunds[late]': \"What?\" is not a field; delete the line, or {AGAIN}",
    ),
    "unknown field": (
        changed("  scores:", "  grades:"),
        (
            "f:9: case 'test_refunds[late]': grades: is no field of a baseline; use one of case, content, passed, must_pass, tags, scores, "
            "judges, models, cost_usd, latency_s, commit, output, output_cut"
        ),
    ),
    "field twice": (
        changed("  must_pass: true", "  passed: 5 of 5"),
        "f:7: case 'test_refunds[late]': passed: is there already, on line 6; keep one of the two lines",
    ),
    "line below": (
        changed("  must_pass: true", "    must_pass: true"),
        f"f:7: case 'test_refunds[late]': \"must_pass: true\" is not a field; delete the line, or {AGAIN}",
    ),
}
VALUES = {
    "case: not JSON": ('  case: "late"', "  case: late", 4, 'is "late", which is not JSON'),
    "case: a number": ('  case: "late"', "  case: 5", 4, "is 5, not a text in double quotes"),
    "content": (HASH, "ab", 5, 'is "ab", not a sha256 in hexadecimal'),
    "passed": ("4 of 5", "6 of 5", 6, 'is "6 of 5", not how many of how many trials passed, such as 4 of 5'),
    "passed: none": ("4 of 5", "0 of 0", 6, 'is "0 of 0", not how many of how many trials passed, such as 4 of 5'),
    "passed: below": ("passed: 4 of 5", "passed:", 6, "is [], not how many of how many trials passed, such as 4 of 5"),
    "must_pass": ("true", "false", 7, "is false, not true; leave the line out for cases that may fail"),
    "tags": ('["refunds", "vip"]', '["refunds", 5]', 8, 'is ["refunds", 5], not a list of texts'),
    "tags: a text": ('["refunds", "vip"]', '"vip"', 8, 'is "vip", not a list of texts'),
    "scores": ("  scores:", '  scores: "x"', 9, 'is ""x"", not followed by a line for each scorer'),
    "scores: a line": (
        '    "exact_match": {',
        "    exact_match: {",
        10,
        'has the line "exact_match: {"mean": 0.8, "spread": 0.4472, "trials": 5}", which is not like "exact_match": {"mean": 0.8, "spread": 0.4, "trials": 5}',
    ),
    "scores: no trials": (
        '"spread": null, "trials": 1',
        '"spread": null',
        11,
        'has the line ""judge": {"mean": 1.0, "spread": null}", which is not like "exact_match": {"mean": 0.8, "spread": 0.4, "trials": 5}',
    ),
    "scores: mean": ("0.8,", "1.8,", 10, "is 1.8, not a number from 0 to 1"),
    "scores: spread": ("0.4472", "-1", 10, "is -1, not a number of at least 0"),
    "scores: trials": ('"trials": 1', '"trials": 0', 11, "is 0, not a whole number of at least 1"),
    "cost_usd": ("0.00012", "NaN", 14, "is NaN, not a number of at least 0"),
    "cost_usd: a bool": ("0.00012", "true", 14, "is true, not a number of at least 0"),
    "latency_s": ("[1.2, 0.9]", "1.2", 15, "is 1.2, not a list of numbers"),
    "latency_s: below": ("latency_s: [1.2, 0.9]", "latency_s:", 15, "has lines below it"),
    "commit": ('"3b4f2aa9c0+"', "[" * 100_000, 16, None),
    "output": ("  output:", "  output: 5", 17, 'is "5", not followed by its lines, each as a text in double quotes behind a dash'),
    "output: a line": ('    - "No."', '    "No."', 18, 'is ""No."", not a text in double quotes behind a dash'),
    "output_cut": ("output_cut: 12", "output_cut: 0", 21, "is 0, not a whole number of at least 1"),
}


@pytest.mark.parametrize(("text", "message"), FAULTS.values(), ids=FAULTS)
def test_a_fault_names_its_line_and_says_what_to_do(text, message):
    with pytest.raises(BaselineError) as caught:
        parse_baseline(text if isinstance(text, bytes) else text.encode(), shown="f")
    assert str(caught.value) == message


@pytest.mark.parametrize(("name", "old", "new", "line", "problem"), [(name, *fault) for name, fault in VALUES.items()], ids=VALUES)
def test_a_value_that_cannot_be_used_names_its_field(name, old, new, line, problem):
    with pytest.raises(BaselineError) as caught:
        parse_baseline(changed(old, new).encode(), shown="f")
    first = str(caught.value).splitlines()[0]
    start = f"f:{line}: case 'test_refunds[late]': {name.partition(':')[0]}: "
    if problem is None:
        assert first.startswith(f'{start}is "[[[')
    else:
        assert first == f"{start}{problem}; correct it, or {AGAIN}"


def test_merge_markers_are_said_beside_other_faults():
    text = f"{HEADER}\n<<<<<<< HEAD\n{TEXT}\n=======\n{TEXT}\n>>>>>>> theirs\n"
    with pytest.raises(BaselineError) as caught:
        parse_baseline(text.encode(), shown="f")
    fix = "keep the entries of one side, or of both where they differ in name, and delete the markers; then run pytest --llm-eval"
    assert [str(fault) for fault in caught.value.faults] == [
        f"f:2: is a merge conflict marker; {fix}",
        f"f:22: is a merge conflict marker; {fix}",
        f'f:23: "test_refunds[late]" is there already, on line 3; keep one of them, or delete both and {AGAIN}',
        f"f:42: is a merge conflict marker; {fix}",
    ]


def test_many_faults_are_counted():
    text = f"{HEADER}\n" + "hello\n" * 1_030
    with pytest.raises(BaselineError) as caught:
        parse_baseline(text.encode(), shown="f")
    assert len(caught.value.faults) == 21
    assert str(caught.value.faults[-1]) == f"f: has 1,010 further faults; {RESTORE}"


def test_a_file_is_written_as_a_whole_and_not_without_need(tmp_path, monkeypatch):
    path = tmp_path / "__snapshots__" / "test_shop.touchstone"
    assert read_baseline(path) == {}
    assert write_baseline(path, [ENTRY, SMALL])
    assert not write_baseline(path, [SMALL, ENTRY])
    assert read_baseline(path) == {ENTRY.name: ENTRY, SMALL.name: SMALL}
    before = path.read_bytes()

    def killed(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr("pathlib.Path.replace", killed)
    with pytest.raises(KeyboardInterrupt):
        write_baseline(path, [SMALL])
    assert path.read_bytes() == before
    assert [each.name for each in path.parent.iterdir()] == ["test_shop.touchstone"]


def test_a_file_without_entries_goes(tmp_path):
    path = tmp_path / "test_shop.touchstone"
    assert not write_baseline(path, [])
    write_baseline(path, [SMALL])
    assert write_baseline(path, [])
    assert not path.exists()


def test_a_file_that_cannot_be_read_is_named_from_the_root(tmp_path, monkeypatch):
    path = tmp_path / "evals" / "test_shop.touchstone"
    path.mkdir(parents=True)
    with pytest.raises(BaselineError, match=r"^evals/test_shop\.touchstone: cannot be read \(Is a directory\); make it readable$"):
        read_baseline(path, root=tmp_path)
    path.rmdir()
    write_baseline(path, [SMALL])
    monkeypatch.setattr(baseline, "MAX_FILE", 10)
    with pytest.raises(BaselineError, match=r"/evals/test_shop\.touchstone: is larger than 10 bytes; restore it from git, or delete"):
        read_baseline(path)
