"""The written export: guarded, accounted for, atomic, and the same bytes for the same trials."""

from __future__ import annotations

import dataclasses
import hashlib
import importlib.metadata
import json
import os
import re
import tempfile
from pathlib import Path

import pytest
from export_samples import WEATHER, assistant, call, example, offer, tool_call, trial, unseen, user
from hypothesis import given, settings
from hypothesis import strategies as st

from pytest_touchstone.cases import Case
from pytest_touchstone.errors import ExportError
from pytest_touchstone.export import write
from pytest_touchstone.export.example import Example, LeftOut
from pytest_touchstone.export.leak import HeldOut, input_fingerprint, input_text
from pytest_touchstone.export.select import example_of
from pytest_touchstone.export.write import Offer, check_folder, write_export
from pytest_touchstone.trial import Trial, TrialRecord

SECRET = "The parcel from Bergen never arrived, who pays?"
HOLDOUT = frozenset({input_fingerprint(SECRET)})


def export(folder, *offers, holdout=frozenset(), run=None, redact=None):
    return write_export(folder, offers=offers, held_out=unseen(*holdout), run=run or {}, redact=redact)


def rows_of(folder):
    return [json.loads(line) for line in (folder / "train.jsonl").read_text(encoding="utf-8").splitlines()]


def manifest_of(folder):
    return json.loads((folder / "manifest.json").read_text(encoding="utf-8"))


def reasons(manifest):
    return [entry["reason"] for entry in manifest.not_exported]


def another(number, **fields):
    text = f"Question {number}"
    return example(
        **{
            "case_id": f"case-{number}",
            "content_hash": f"{number:064}",
            "prompt": (user(text),),
            "completion": (assistant(f"Answer {number}"),),
        }
        | fields
    )


class TestOffer:
    def test_comes_from_a_record_of_another_process(self):
        made = another(1, tools=(WEATHER,))
        record = TrialRecord(
            nodeid="evals/test_a.py::test[case-1]", suite="support", case_id="case-1", source="a.yaml:3", content_hash=f"{1:064}",
            split="train", number=1, outcome="failed", example=made.to_dict(),
        )  # fmt: skip
        back = TrialRecord.from_dict(json.loads(json.dumps(record.to_dict())))
        assert Offer.of(back) == offer(made, nodeid=record.nodeid)

    def test_of_a_trial_without_an_example_keeps_why(self):
        record = TrialRecord(
            nodeid="n", suite="s", case_id="c", source="a.yaml:3", content_hash="h", split="holdout", number=2, outcome="passed",
            example_reason="holdout", input_fingerprint="f",
        )  # fmt: skip
        assert Offer.of(record) == Offer(
            nodeid="n",
            suite="s",
            case_id="c",
            content_hash="h",
            split="holdout",
            outcome="passed",
            trial=2,
            input_fingerprint="f",
            reason="holdout",
        )

    def test_of_a_broken_record_says_so(self):
        record = TrialRecord(
            nodeid="n",
            suite="s",
            case_id="c",
            source="a",
            content_hash="h",
            split="train",
            outcome="failed",
            example={"case_id": "c", "x": 1},
        )
        with pytest.raises(ExportError, match=r"^case 'c': this is no example: "):
            Offer.of(record)


class TestFiles:
    def test_the_training_file_and_its_manifest(self, tmp_path):
        folder = tmp_path / "new" / "training"
        weather = (user("Question 2"), assistant(None, tool_calls=[tool_call()]), {"role": "tool", "content": "4"})
        fixed = another(2, tags=("refunds", "late"), checks=("exact_match",), prompt=weather)
        passed = another(1, kind="replay", target_source="wire", tags=("refunds",), source="other.csv:9", trial=3)
        silent = offer(case_id="case-3", content_hash="3", outcome="error", reason="error: the app broke")
        made = export(folder, offer(fixed), silent, offer(passed), run={"commit": "abc", "n": [1, None]}, holdout={"f1", "f2"})
        assert rows_of(folder) == [
            {"prompt": [user("Question 1")], "completion": [assistant("Answer 1")]},
            {"prompt": list(weather), "completion": [assistant("Answer 2")]},
        ]
        data = (folder / "train.jsonl").read_bytes()
        lines = data.splitlines()
        assert manifest_of(folder) == {
            "format": "pytest-touchstone export 1",
            "plugin_version": importlib.metadata.version("pytest-touchstone"),
            "rows": "trl-prompt-completion",
            "trials": 3,
            "offered": 3,
            "written": 2,
            "left_out": 1,
            "by_kind": {"fix": 1, "replay": 1},
            "by_suite": {"support": 2},
            "by_tag": {"late": 1, "refunds": 2},
            "by_target_source": {"expected": 1, "wire": 1},
            "by_source": {"other.csv": 1, "support.yaml": 1},
            "left_out_by_reason": {"error": 1},
            "train_file": "train.jsonl",
            "train_sha256": hashlib.sha256(data).hexdigest(),
            "train_bytes": len(data),
            "tool_calls": 1,
            "anchored": [],
            "holdout_inputs": 2,
            "leak_threshold": 0.8,
            "holdout_taught": [],
            "examples": [
                {
                    "suite": "support", "case_id": "case-1", "nodeid": "support.py::test[case-1]#3", "trial": 3, "content_hash": f"{1:064}",
                    "source": "other.csv:9", "kind": "replay", "target_source": "wire", "checks": [], "tags": ["refunds"],
                    "sha256": hashlib.sha256(lines[0]).hexdigest(),
                },
                {
                    "suite": "support", "case_id": "case-2", "nodeid": "support.py::test[case-2]#1", "trial": 1, "content_hash": f"{2:064}",
                    "source": "support.yaml:3", "kind": "fix", "target_source": "expected", "checks": ["exact_match"], "tags": ["refunds", "late"],
                    "sha256": hashlib.sha256(lines[1]).hexdigest(),
                },
            ],
            "not_exported": [
                {
                    "suite": "support", "case_id": "case-3", "nodeid": "support.py::test[case-3]#1", "trial": 1, "content_hash": "3",
                    "split": "train", "outcome": "error", "reason": "error: the app broke",
                },
            ],
            "formats": {},
            "needs_correction": [],
            "advice": [
                "2 examples is a small set, under 500: expect a narrow gain, watch for forgetting, and see whether a better prompt does as much",
                'fewer than 10 examples of "late", "refunds": hardly enough to learn from',
            ],
            "run": {"commit": "abc", "n": [1, None]},
        }  # fmt: skip
        assert json.loads(json.dumps(made.to_dict())) == manifest_of(folder)
        assert sorted(path.name for path in folder.iterdir()) == [
            "README.md",
            "ledger.jsonl",
            "manifest.json",
            "report.json",
            "train.jsonl",
        ]

    def test_no_example_gives_no_training_file_and_removes_an_old_one(self, tmp_path):
        export(tmp_path, offer(another(1)))
        made = export(tmp_path, offer(case_id="case-1", reason="not run"))
        assert (made.train_file, made.train_sha256, made.train_bytes, made.written) == (None, None, None, 0)
        assert made.left_out_by_reason == {"not run": 1}
        assert sorted(path.name for path in tmp_path.iterdir()) == ["README.md", "ledger.jsonl", "manifest.json", "report.json"]

    def test_no_trial_at_all(self, tmp_path):
        made = export(tmp_path)
        assert sorted(path.name for path in tmp_path.iterdir()) == ["README.md", "manifest.json", "report.json"]
        assert (made.trials, made.written, made.left_out) == (0, 0, 0)

    def test_a_lone_date_is_accounted_for(self, tmp_path):
        made = export(tmp_path, offer(another(1, completion=(assistant("2026-10-03"),))))
        assert made.left_out_by_reason == {"too small": 1}
        assert not (tmp_path / "train.jsonl").exists()

    def test_an_anchored_column_is_named(self, tmp_path):
        made = export(tmp_path, *(offer(another(number, completion=(assistant(f"2026-10-0{number}"),))) for number in (1, 2)))
        assert made.anchored == ("completion",)
        assert rows_of(tmp_path)[0]["completion"] == [assistant("2026-10-01", refusal=None)]

    def test_texts_are_data(self, tmp_path):
        name = "../../etc/<b>{x}\n\x1b[31m"
        made = another(1, case_id=name, prompt=(user("\x00\u2028</script>"),), tags=("a\nb",))
        export(tmp_path / "out", offer(made, nodeid="n"))
        assert rows_of(tmp_path / "out")[0]["prompt"] == [user("\x00\u2028</script>")]
        assert manifest_of(tmp_path / "out")["examples"][0]["case_id"] == name
        assert [path.name for path in tmp_path.iterdir()] == ["out"]

    def test_a_reason_with_a_lone_surrogate_is_written_escaped(self, tmp_path):
        export(tmp_path, offer(reason="broke: \udc80 é"))
        assert "\\udc80 é" in (tmp_path / "manifest.json").read_text(encoding="utf-8")
        assert manifest_of(tmp_path)["not_exported"][0]["reason"] == "broke: \udc80 é"

    def test_an_offer_without_reason_still_gets_one(self, tmp_path):
        assert reasons(export(tmp_path, offer(reason=""))) == ["no example was offered"]

    @pytest.mark.parametrize(("source", "file"), [("a.yaml:3", "a.yaml"), ("<python>", "<python>"), ("C:x", "C:x"), (":3", ":3")])
    def test_sources_are_counted_by_file(self, tmp_path, source, file):
        assert export(tmp_path, offer(another(1, source=source))).by_source == {file: 1}


class TestOneCase:
    def test_gives_fixes_or_replays_never_both(self, tmp_path):
        passed = another(1, kind="replay", trial=1, target_source="wire", completion=(assistant("fine"),))
        fixed = another(1, trial=2)
        made = export(tmp_path, offer(passed), offer(fixed))
        assert [row["completion"] for row in rows_of(tmp_path)] == [[assistant("Answer 1")]]
        assert reasons(made) == ["fix wins: another trial of this case failed and gives a fix"]

    def test_a_case_of_the_same_name_in_another_suite_is_another_case(self, tmp_path):
        passed = another(1, kind="replay", suite="other", content_hash="f" * 64, prompt=(user("Else"),))
        assert export(tmp_path, offer(passed), offer(another(1))).by_suite == {"other": 1, "support": 1}

    def test_identical_examples_are_written_once(self, tmp_path):
        made = export(
            tmp_path, offer(another(1, trial=2)), offer(another(1, trial=1)), offer(another(1, trial=3, completion=(assistant("b"),)))
        )
        assert [entry["trial"] for entry in made.examples] == [1, 3]
        assert reasons(made) == ["duplicate: the same as the example of support.py::test[case-1]#1"]


class TestReplay:
    def passed(self, number):
        return offer(another(number, kind="replay", target_source="wire"))

    @pytest.mark.parametrize(("part", "least", "most"), [(0.0, 0, 0), (0.25, 30, 70), (0.5, 75, 125), (1.0, 200, 200)])
    def test_takes_a_part_of_the_passing_cases(self, tmp_path, part, least, most):
        offers = [self.passed(number) for number in range(1, 201)]
        made = write_export(tmp_path, offers=offers, held_out=(), run={}, replay=part)
        assert least <= made.written <= most
        left = {f"not replayed: --llm-replay {part:g} leaves this case out"} if part < 1 else set()
        assert set(reasons(made)) == left
        assert made.written + made.left_out == 200

    def test_of_a_larger_part_holds_that_of_a_smaller_one(self, tmp_path):
        offers = [self.passed(number) for number in range(1, 101)]
        parts = [
            {entry["case_id"] for entry in write_export(tmp_path, offers=offers, held_out=(), run={}, replay=part).examples}
            for part in (0.2, 0.6, 1.0)
        ]
        assert parts[0] < parts[1] < parts[2]

    def test_takes_all_trials_of_a_case_or_none(self, tmp_path):
        offers = [
            offer(another(number, kind="replay", target_source="wire", trial=trial_, completion=(assistant(f"{number} {trial_}"),)))
            for number in range(1, 51)
            for trial_ in (1, 2)
        ]
        made = write_export(tmp_path, offers=offers, held_out=(), run={}, replay=0.5)
        taken = [entry["case_id"] for entry in made.examples]
        assert 0 < len(taken) < 100
        assert all(taken.count(case_id) == 2 for case_id in taken)

    def test_leaves_every_fix(self, tmp_path):
        made = write_export(tmp_path, offers=[offer(another(number)) for number in range(1, 51)], held_out=(), run={}, replay=0.0)
        assert made.by_kind == {"fix": 50}


class TestHoldout:
    @pytest.mark.parametrize(
        "made",
        [
            pytest.param(another(1, input_fingerprint=input_fingerprint([user(SECRET.upper())])), id="input"),
            pytest.param(another(1, prompt=(user("Hi"), assistant("Yes?"), user(f" {SECRET}\n"))), id="message"),
            pytest.param(another(1, prompt=(user(f"Ticket:\n{SECRET}\n\nAnswer:"),)), id="template"),
            pytest.param(another(1, completion=(assistant(SECRET),)), id="completion"),
            pytest.param(another(1, completion=(assistant(None, tool_calls=[tool_call(json.dumps({"q": SECRET}))]),)), id="tool call"),
        ],
    )
    def test_content_is_never_written(self, tmp_path, made):
        written = export(tmp_path, offer(made), offer(another(2)), holdout=HOLDOUT)
        assert [entry["case_id"] for entry in written.examples] == ["case-2"]
        assert written.left_out_by_reason == {"leak": 1}
        assert SECRET not in (tmp_path / "train.jsonl").read_text(encoding="utf-8")
        assert SECRET not in (tmp_path / "manifest.json").read_text(encoding="utf-8")

    def test_an_offer_of_a_holdout_case_is_never_written_whatever_it_offers(self, tmp_path):
        made = export(tmp_path, offer(another(1), split="holdout", reason=f"x: {SECRET}"))
        assert reasons(made) == ["holdout"]

    def test_a_case_with_a_holdout_trial_is_holdout(self, tmp_path):
        made = export(tmp_path, offer(another(1)), offer(case_id="case-1", content_hash="0", split="holdout"))
        assert reasons(made) == ["holdout", "holdout"]

    @pytest.mark.parametrize("twin", [{"content_hash": f"{1:064}"}, {"input_fingerprint": input_fingerprint("case-1")}])
    def test_a_renamed_twin_of_a_holdout_offer_is_left_out(self, tmp_path, twin):
        hidden = offer(case_id="hidden", content_hash="0", suite="other", split="holdout")
        made = export(tmp_path, offer(another(1)), dataclasses.replace(hidden, **twin))
        assert sorted(reasons(made)) == ["holdout", "leak: the input of the case is a holdout input"]

    def test_the_reason_of_a_twin_is_not_repeated(self, tmp_path):
        twin = offer(case_id="twin", reason=f"no verified target: got {SECRET}", input_fingerprint=input_fingerprint(SECRET))
        assert reasons(export(tmp_path, twin, holdout=HOLDOUT)) == ["leak: the input of the case is a holdout input"]

    def test_an_unknown_fingerprint_is_no_twin_of_another_unknown_one(self, tmp_path):
        hidden = offer(case_id="hidden", content_hash="0", split="holdout", input_fingerprint="")
        unknown = offer(another(1), input_fingerprint="")
        assert export(tmp_path, hidden, unknown).written == 1


def ledger_of(folder):
    return [json.loads(line) for line in (folder / "ledger.jsonl").read_text(encoding="utf-8").splitlines()]


def entry(number, digest, **fields):
    known = {"suite": "support", "case_id": f"case-{number}", "input_fingerprint": input_fingerprint(f"case-{number}")}
    return {**known, "content_hash": f"{number:064}", "export": digest, **fields}


LONG = "The parcel from Bergen never arrived although I paid for express delivery, so who pays me back?"
SWAPPED = LONG.replace("express", "fast")
IN_TURNS = ("The parcel from Bergen never", "arrived although I paid for", "fast delivery, so who pays", "me back?")
HELD = HeldOut.of(LONG, suite="t.py::test", case_id="held", source="t.yaml:9")


class TestNearCopies:
    @pytest.mark.parametrize(
        ("made", "where"),
        [
            (another(1, input_text=input_text(SWAPPED)), ""),
            (another(1, prompt=(user("Hi"), assistant("Yes?"), user(f"Dear all, {SWAPPED} Thanks!"))), " in prompt[2]"),
            (another(1, prompt=({"role": "system", "content": SWAPPED}, user("Hi"))), " in prompt[0]"),
            (another(1, completion=(assistant(SWAPPED),)), " in completion[0]"),
            (another(1, completion=(assistant(None, tool_calls=[tool_call(json.dumps({"q": SWAPPED}))]),)), " in completion[0]"),
            (another(1, rejected=(assistant(SWAPPED),)), " in rejected[0]"),
            (another(1, tools=({"type": "function", "function": {"name": "f", "description": SWAPPED}},)), " in tools[0]"),
            (another(1, prompt=tuple(map(user, IN_TURNS))), " in prompt"),
        ],
    )
    def test_refuse_the_export_wherever_they_are(self, tmp_path, made, where):
        with pytest.raises(ExportError) as raised:
            write_export(tmp_path / "out", offers=[offer(made), offer(another(2))], held_out=[HELD], run={})
        first, pair, fix = str(raised.value).splitlines()
        assert first == (
            "1 pair of a train and a holdout case is nearly equal, so nothing was written: "
            "a model that learns the one cannot be measured by the other"
        )
        assert re.fullmatch(
            rf"support\.yaml:3: case 'case-1' of support is{re.escape(where)} \d\d % like the holdout case 'held' of t\.py::test \(t\.yaml:9\)",
            pair,
        )
        percent = re.search(r"(\d+) %", pair)[1]
        assert fix == (
            "Give both cases of a pair one `group` (near-twins then share a split), move one to the other's split, or delete one, "
            f"or, where they are different on purpose, raise --llm-leak-threshold above {percent} %"
        )
        assert not (tmp_path / "out").exists()

    def test_of_the_same_words_cannot_be_allowed(self, tmp_path):
        with pytest.raises(ExportError) as raised:
            write_export(
                tmp_path,
                offers=[offer(another(1, prompt=(user(LONG.replace("?", "")),)))],
                held_out=[HELD],
                run={},
                leak_threshold=1,
            )
        assert " is in prompt[0] 100 % like " in str(raised.value)
        assert str(raised.value).endswith("move one to the other's split, or delete one")

    def test_are_named_up_to_ten(self, tmp_path):
        held = [dataclasses.replace(HELD, case_id=f"held-{number}") for number in range(12)]
        with pytest.raises(ExportError) as raised:
            write_export(tmp_path, offers=[offer(another(1, prompt=(user(SWAPPED),)))], held_out=held, run={})
        first, *pairs, more, _ = str(raised.value).splitlines()
        assert first.startswith("12 pairs of a train and a holdout case are nearly equal")
        assert len(pairs) == 10
        assert more == "and 2 more"

    def test_that_would_not_be_written_anyway_refuse_nothing(self, tmp_path):
        near = another(1, kind="replay", prompt=(user(SWAPPED),))
        made = write_export(tmp_path, offers=[offer(near), offer(another(2))], held_out=[HELD], run={}, replay=0)
        assert made.written == 1

    def test_the_words_of_neither_are_shown_nor_secrets_in_their_names(self, tmp_path):
        held = dataclasses.replace(HELD, case_id="key-12345")
        with pytest.raises(ExportError) as raised:
            write_export(
                tmp_path, offers=[offer(another(1, prompt=(user(SWAPPED),)))], held_out=[held], run={},
                redact=lambda text: text.replace("key-12345", "[redacted]"),
            )  # fmt: skip
        assert "[redacted]" in str(raised.value)
        assert not any(word in str(raised.value) for word in ("12345", "Bergen", "parcel"))

    def test_a_holdout_case_known_with_its_text_guards_exactly_too(self, tmp_path):
        made = write_export(tmp_path, offers=[offer(another(1, prompt=(user(LONG.upper()),)))], held_out=[HELD], run={})
        assert reasons(made) == ["leak: the prompt is a holdout input"]
        assert made.holdout_inputs == 1


class TestLedger:
    def test_keeps_what_was_ever_exported_and_by_which_file_first(self, tmp_path):
        first = export(tmp_path, offer(another(2)), offer(another(1)))
        second = export(tmp_path, offer(another(2)), offer(another(3)))
        assert ledger_of(tmp_path) == [entry(1, first.train_sha256), entry(2, first.train_sha256), entry(3, second.train_sha256)]
        third = export(tmp_path, offer(case_id="case-1", reason="not run"))
        assert [line["case_id"] for line in ledger_of(tmp_path)] == ["case-1", "case-2", "case-3"]
        assert third.holdout_taught == ()

    def test_a_case_whose_input_changed_has_two_entries(self, tmp_path):
        export(tmp_path, offer(another(1)))
        export(tmp_path, offer(another(1, input_fingerprint=input_fingerprint("else"))))
        assert {line["input_fingerprint"] for line in ledger_of(tmp_path)} == {input_fingerprint("case-1"), input_fingerprint("else")}

    @pytest.mark.parametrize(
        ("moved", "holdout"),
        [
            pytest.param([offer(case_id="case-1", content_hash="0", split="holdout")], frozenset(), id="the case, edited"),
            pytest.param(
                [offer(case_id="new", suite="other", content_hash="0", split="holdout", input_fingerprint=input_fingerprint("case-1"))],
                frozenset(),
                id="its input under another name",
            ),
            pytest.param([], frozenset({input_fingerprint("case-1")}), id="its input, not selected for the run"),
        ],
    )
    def test_a_case_that_became_holdout_is_caught(self, tmp_path, moved, holdout):
        first = export(tmp_path, offer(another(1)), offer(another(2)))
        made = export(tmp_path, offer(another(2)), *moved, holdout=holdout)
        assert made.holdout_taught == (entry(1, first.train_sha256),)
        assert manifest_of(tmp_path)["holdout_taught"] == [entry(1, first.train_sha256)]
        assert [row["prompt"] for row in rows_of(tmp_path)] == [[user("Question 2")]]

    def test_knows_a_suite_again_whose_file_has_an_odd_name(self, tmp_path):
        export(tmp_path, offer(another(1, suite="test_\udcff.py::test")), offer(another(2)))
        made = export(tmp_path, offer(another(2)), offer(another(1, suite="test_\udcff.py::test"), split="holdout"))
        assert [line["suite"] for line in made.holdout_taught] == ["test_\\udcff.py::test"]

    def test_stands_beside_nothing_else_where_the_rest_is_not_committed(self, tmp_path):
        export(tmp_path, offer(another(1)))
        (tmp_path / "train.jsonl").unlink()
        (tmp_path / "manifest.json").unlink()
        export(tmp_path, offer(another(2)))
        assert [line["case_id"] for line in ledger_of(tmp_path)] == ["case-1", "case-2"]

    def test_of_two_branches_is_their_lines_one_after_the_other(self, tmp_path):
        export(tmp_path / "a", offer(another(1)), offer(another(2)))
        export(tmp_path / "b", offer(another(3)), offer(another(2)))
        both = (tmp_path / "a" / "ledger.jsonl").read_bytes() + (tmp_path / "b" / "ledger.jsonl").read_bytes()
        (tmp_path / "a" / "ledger.jsonl").write_bytes(both)
        export(tmp_path / "a", offer(another(4)))
        assert [line["case_id"] for line in ledger_of(tmp_path / "a")] == ["case-1", "case-2", "case-3", "case-4"]

    @pytest.mark.parametrize(
        ("spoil", "lines"),
        [
            (lambda lines: [lines[0][:-9], lines[1]], "1"),
            (lambda lines: [lines[0], b"<<<<<<< HEAD", lines[1], b"\xff"], "2, 4"),
            (lambda lines: [lines[0].replace(b'"case_id"', b'"case"'), b"{}", *lines], "1, 2"),
            (lambda lines: [b""] * 12, "1, 2, 3, 4, 5, 6, 7, 8, 9, 10 and more"),
        ],
    )
    def test_that_is_broken_stops_the_export_before_anything_is_written(self, tmp_path, spoil, lines):
        export(tmp_path, offer(another(1)), offer(another(2)))
        path = tmp_path / "ledger.jsonl"
        path.write_bytes(b"\n".join(spoil(path.read_bytes().splitlines())) + b"\n")
        before = {path.name: path.read_bytes() for path in tmp_path.iterdir()}
        with pytest.raises(ExportError) as raised:
            export(tmp_path, offer(another(3)))
        assert str(raised.value) == (
            f"{path}:{lines[0]}: cannot be read as an entry of the ledger (lines at fault: {lines}); "
            "restore the file, as from git; in a merge, keep the lines of both sides"
        )
        assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == before


class TestRedaction:
    def test_reaches_every_written_text(self, tmp_path):
        key = "sk-live-12345"
        made = another(
            1,
            case_id=f"case {key}", suite=f"suite {key}", source=f"{key}.yaml:3", tags=(key,), checks=(key,),
            prompt=(user(f"My key is {key}"), assistant(None, tool_calls=[tool_call(json.dumps({"key": key}))]), {"role": "tool", "content": key}),
            completion=(assistant([{"type": "text", "text": key}]),),
            tools=({"type": "function", "function": {"name": "f", key: key}},),
        )  # fmt: skip
        broken = offer(case_id="b", reason=f"{key}: {key}")
        export(tmp_path, offer(made), broken, run={key: [key]}, redact=lambda text: text.replace(key, "[redacted]"))
        written = "".join(path.read_text(encoding="utf-8") for path in tmp_path.iterdir())
        assert key not in written
        assert "My key is [redacted]" in written

    def test_that_breaks_an_example_stops_the_export(self, tmp_path):
        with pytest.raises(ExportError) as raised:
            export(tmp_path / "out", offer(another(1)), redact=lambda text: text.replace("user", "[redacted]"))
        assert str(raised.value) == (
            "case 'case-1': the example cannot be exported: prompt[0] has the role '[redacted]'; use one of assistant, developer, system, tool, user"
        )
        assert not (tmp_path / "out").exists()


class TestRefusals:
    def test_an_invalid_example_stops_the_export_before_anything_is_written(self, tmp_path):
        with pytest.raises(ExportError, match=r"^case 'case-2': the example cannot be exported: the completion is empty$"):
            export(tmp_path / "out", offer(another(1)), offer(another(2, completion=(assistant(""),))))
        assert not (tmp_path / "out").exists()

    def test_an_example_of_another_case_stops_the_export(self, tmp_path):
        with pytest.raises(ExportError) as raised:
            export(tmp_path, offer(another(1), case_id="case-9"))
        assert str(raised.value) == "case 'case-9': its trial offers an example of case 'case-1'; an example belongs to its own case"

    def test_a_format_that_does_not_fit_is_a_reason_not_an_error(self, tmp_path):
        made = export(tmp_path, offer(another(1, prompt=(user([{"type": "input_audio", "input_audio": {}}]),))))
        assert made.left_out_by_reason == {"not in this format": 1}

    def test_a_run_that_is_no_json(self, tmp_path):
        with pytest.raises(ExportError) as raised:
            export(tmp_path, run={"at": tmp_path})
        assert (
            str(raised.value) == f"the description of the run is not JSON: {type(tmp_path).__name__} is no JSON value; nothing was written"
        )

    def test_a_file_as_folder(self, tmp_path):
        file = tmp_path / "training"
        file.write_text("mine")
        with pytest.raises(ExportError) as raised:
            export(file)
        assert str(raised.value) == f"{file}: is not a folder; give --llm-export a folder, which may be new"
        assert file.read_text() == "mine"

    def test_a_dangling_link_as_folder(self, tmp_path):
        link = tmp_path / "training"
        link.symlink_to(tmp_path / "nowhere")
        with pytest.raises(ExportError, match="is not a folder"):
            check_folder(link)

    @pytest.mark.parametrize("name", ["train.jsonl", "manifest.json", "ledger.jsonl", "README.md", "report.json"])
    @pytest.mark.parametrize("kind", ["link", "folder", "pipe"])
    def test_what_is_no_plain_file_in_the_place_of_one(self, tmp_path, name, kind):
        folder = tmp_path / "training"
        export(folder, offer(another(1)))
        outside = tmp_path / "outside"
        (folder / name).rename(outside)
        before = outside.read_bytes()
        {"link": lambda path: path.symlink_to(outside), "folder": Path.mkdir, "pipe": os.mkfifo}[kind](folder / name)
        with pytest.raises(ExportError) as raised:
            export(folder, offer(another(2)))
        assert str(raised.value) == (
            f"{folder / name}: is a link, a folder or a device, and an export replaces plain files only; remove it or choose another folder"
        )
        assert outside.read_bytes() == before

    @pytest.mark.parametrize(
        ("name", "content"),
        [
            ("train.jsonl", b"{}"),
            ("manifest.json", b'{"format": "web app"}'),
            ("manifest.json", b"[]"),
            ("manifest.json", b"\xff"),
            ("manifest.json", b"[" * 100_000),
        ],
    )
    def test_a_file_of_somebody_else(self, tmp_path, name, content):
        (tmp_path / name).write_bytes(content)
        with pytest.raises(ExportError) as raised:
            export(tmp_path, offer(another(1)))
        assert str(raised.value) == (
            f"{tmp_path / name}: was not written by an export (no manifest of one is there); move it away or choose another folder"
        )
        assert (tmp_path / name).read_bytes() == content

    @pytest.mark.parametrize(
        ("name", "content"), [("README.md", b"# My data"), ("report.json", b"{}"), ("report.json", b"\xff"), ("report.json", b"[]")]
    )
    def test_a_readme_or_report_of_somebody_else(self, tmp_path, name, content):
        export(tmp_path, offer(another(1)))
        (tmp_path / name).write_bytes(content)
        before = {path.name: path.read_bytes() for path in tmp_path.iterdir()}
        with pytest.raises(ExportError) as raised:
            export(tmp_path, offer(another(2)))
        assert str(raised.value) == f"{tmp_path / name}: was not written by an export; move it away or choose another folder"
        assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == before

    def test_other_files_stay_as_they_are(self, tmp_path):
        (tmp_path / "notes.txt").write_text("mine")
        export(tmp_path, offer(another(1)))
        export(tmp_path, offer(another(2)))
        assert (tmp_path / "notes.txt").read_text() == "mine"
        assert rows_of(tmp_path)[0]["prompt"] == [user("Question 2")]
        assert sorted(path.name for path in tmp_path.iterdir()) == [
            "README.md",
            "ledger.jsonl",
            "manifest.json",
            "notes.txt",
            "report.json",
            "train.jsonl",
        ]


class TestWriting:
    def test_a_failing_disk_leaves_the_old_files_and_no_litter(self, tmp_path, monkeypatch):
        export(tmp_path, offer(another(1)))
        before = {path.name: path.read_bytes() for path in tmp_path.iterdir()}

        def full(descriptor):
            raise OSError(28, "No space left on device")

        monkeypatch.setattr(write.os, "fsync", full)
        with pytest.raises(OSError, match="No space left"):
            export(tmp_path, offer(another(2)))
        assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == before

    def test_litter_of_a_killed_process_is_no_obstacle(self, tmp_path):
        (tmp_path / f".train.jsonl.{os.getpid()}.tmp").write_text("half a li")
        export(tmp_path, offer(another(1)))
        assert sorted(path.name for path in tmp_path.iterdir()) == [
            "README.md",
            "ledger.jsonl",
            "manifest.json",
            "report.json",
            "train.jsonl",
        ]

    def test_the_ledger_knows_of_the_data_and_they_are_in_place_before_the_manifest_that_vouches_for_them(self, tmp_path, monkeypatch):
        replaced = []
        rename = Path.replace
        monkeypatch.setattr(Path, "replace", lambda self, target: replaced.append(target.name) or rename(self, target))
        export(tmp_path, offer(another(1)))
        assert replaced == ["ledger.jsonl", "train.jsonl", "report.json", "README.md", "manifest.json"]

    @given(data=st.data())
    @settings(max_examples=30)
    def test_the_order_of_arrival_changes_no_byte(self, data):
        numbers = data.draw(st.lists(st.integers(1, 5), max_size=8))
        offers = [
            offer(another(number, trial=index + 1, kind=data.draw(st.sampled_from(["fix", "replay"]))))
            if data.draw(st.booleans())
            else offer(case_id=f"case-{number}", content_hash=f"{number:064}", reason="not run")
            for index, number in enumerate(numbers)
        ]
        shuffled = data.draw(st.permutations(offers))
        with tempfile.TemporaryDirectory() as first, tempfile.TemporaryDirectory() as second:
            made = export(Path(first), *offers)
            export(Path(second), *shuffled)
            assert made.trials == len(offers) == made.written + made.left_out == len(made.examples) + len(made.not_exported)
            assert sum(made.left_out_by_reason.values()) == made.left_out
            assert sum(made.by_kind.values()) == sum(made.by_suite.values()) == made.written
            files = [{path.name: path.read_bytes() for path in Path(folder).iterdir()} for folder in (first, second)]
            assert files[0] == files[1]


WORDS = st.sampled_from(["refund", "Where is it?", "It broke.", "cancel my subscription now please", "42", "2026-10-03", '{"a": "b c d"}'])


@st.composite
def finished_trials(draw):
    """Trials of train and holdout cases, twins among them, whose app may quote a holdout input anywhere it likes."""
    cases, trials = [], []
    for index in range(draw(st.integers(1, 7))):
        text = f"{draw(WORDS)} {draw(st.integers(0, 3))} as I told you before"
        cases.append(
            Case(
                id=f"case-{index}",
                input=draw(st.sampled_from([text, text.upper(), [user(text)]])),
                expected=draw(st.none() | WORDS),
                reference=draw(st.none() | WORDS),
                split=draw(st.sampled_from(["train", "holdout"])),
            )
        )
    for case in cases:
        quoted = draw(st.sampled_from(cases)).input
        quote = quoted if isinstance(quoted, str) else quoted[0]["content"]
        sent = draw(st.sampled_from([quote, f"Ticket: {quote}", f"Answer this.\n\n{quote}\n\nBe brief.", "Nothing in particular"]))
        said = draw(st.sampled_from(["fine", quote, "no"]))
        made = trial(said, calls=draw(st.sampled_from([[], [call(user(sent), answer=assistant(said))]])))
        finished = Trial(case)
        finished.output, finished.calls = said, made.calls
        trials.append((finished, draw(st.sampled_from(["passed", "failed", "error", "unscored", "not_run"]))))
    return cases, trials


@settings(max_examples=150)
@given(finished_trials())
def test_no_holdout_input_is_in_any_written_byte(made):
    cases, trials = made
    holdout = [case.input for case in cases if case.split == "holdout"]
    offers = []
    for finished, outcome in trials:
        found = example_of(finished, outcome, suite="s")
        assert not (finished.split == "holdout" and isinstance(found, Example))
        offers.append(
            Offer(
                nodeid=finished.id, suite="s", case_id=finished.id, content_hash=finished.case.content_hash, split=finished.split, outcome=outcome,
                input_fingerprint=input_fingerprint(finished.case.input),
                example=found if isinstance(found, Example) else None, reason=found.reason if isinstance(found, LeftOut) else "",
            )
        )  # fmt: skip
    held_out = [HeldOut.of(case.input, suite="s", case_id=case.id, source="x") for case in cases if case.split == "holdout"]
    with tempfile.TemporaryDirectory() as folder:
        try:
            manifest = write_export(Path(folder), offers=offers, held_out=held_out, run={}, leak_threshold=1)
        except ExportError as error:
            assert "nearly equal" in str(error)
            assert not list(Path(folder).iterdir())
            return
        written = "".join(path.read_text(encoding="utf-8") for path in Path(folder).iterdir()).casefold()
    assert manifest.trials == len(trials) == manifest.written + manifest.left_out
    for value in holdout:
        text = value if isinstance(value, str) else value[0]["content"]
        assert json.dumps(text.casefold())[1:-1] not in written
