"""The golden cases of the example project, and the tickets its base model is trained on."""

from __future__ import annotations

import importlib
import json
import re
import subprocess
import sys
from collections import Counter
from pathlib import Path
from types import SimpleNamespace

import pytest

EXAMPLE = Path(__file__).parents[1] / "example_project"
TRIAGE = EXAMPLE / "evals" / "triage.jsonl"
RECORDINGS = EXAMPLE / "evals" / "__recordings__"
PACKAGES = ("data", "model", "support")
HEAVY = ("torch", "transformers", "tokenizers", "openai", "anthropic", "pytest")

RULE_LABELS = {
    "chargeback": ("urgent", "risk"),
    "battery": ("urgent", "safety"),
    "business": ("high", "sales"),
    "repeat": ("high", "complaints"),
}
TEAM_OF = {
    "payment": "billing",
    "shipping": "delivery",
    "return": "returns",
    "account": "accounts",
    "product": "care",
    "fraud": "risk",
    "accident": "safety",
    "presale": "sales",
    "complaint": "complaints",
}
# What a ticket says when a rule applies to it; without these words it could not be labelled right.
RULE_WORDS = {
    "chargeback": r"chargeback|disput",
    "battery": r"battery",
    "business": r"company|office|business|firm\b",
    "repeat": r"ignored|answered|no answer|no reply",
}


@pytest.fixture(scope="module")
def example():
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(EXAMPLE)
        names = ("data.make_cases", "data.phrases", "data.tickets", "model.make_model", "support.prompt")
        yield SimpleNamespace(**{name.partition(".")[2]: importlib.import_module(name) for name in names})
    for name in [name for name in sys.modules if name.partition(".")[0] in PACKAGES]:
        del sys.modules[name]


@pytest.fixture(scope="module")
def synthetic(example):
    return list(example.make_model.synthetic_tickets(example.make_model.TICKETS))


@pytest.fixture(scope="module")
def cases():
    return [json.loads(line) for line in TRIAGE.read_text(encoding="utf-8").splitlines()]


@pytest.fixture(scope="module")
def by_split(cases):
    return {split: [case for case in cases if case["split"] == split] for split in ("train", "holdout")}


def rule_of(case):
    return next((tag.removeprefix("policy:") for tag in case["tags"] if tag.startswith("policy:")), None)


def sentences(text, products):
    """The sentences of a text, without what is filled into them."""
    neutral = re.sub(r"\d+", "0", text)
    neutral = re.sub(rf"\b({'|'.join(products)})\b", "it", neutral)
    return {sentence.strip() for sentence in re.split(r"[.?]", neutral) if sentence.strip()}


def trigrams(text):
    words = [word for word in re.findall(r"\w+", text.lower()) if not word.isdigit()]
    return set(zip(words, words[1:], words[2:], strict=False))


def test_the_generator_writes_the_committed_file(example):
    assert "".join(map(example.make_cases.case_line, example.make_cases.make_cases())).encode() == TRIAGE.read_bytes()


def test_the_generator_writes_where_it_says(example, monkeypatch, tmp_path, capsys):
    monkeypatch.setattr(example.make_cases, "CASES", tmp_path / "triage.jsonl")
    example.make_cases.main()
    assert (tmp_path / "triage.jsonl").read_bytes() == TRIAGE.read_bytes()
    assert capsys.readouterr().out == f"{tmp_path / 'triage.jsonl'}: 440 cases\n"


def test_the_splits_have_their_sizes_and_nothing_twice(cases):
    assert Counter(case["split"] for case in cases) == {"train": 240, "holdout": 200}
    assert len({case["id"] for case in cases}) == len({case["input"] for case in cases}) == len(cases)


@pytest.mark.parametrize("split", ["train", "holdout"])
def test_two_in_five_cases_touch_each_rule_alike(by_split, split):
    counts = Counter(rule_of(case) for case in by_split[split])
    share = 1 - counts.pop(None) / len(by_split[split])
    assert share == pytest.approx(0.4)
    assert counts == dict.fromkeys(RULE_LABELS, len(by_split[split]) // 10)


def test_labels_follow_the_rules(cases):
    for case in cases:
        expected = case["expected"]
        assert case["tags"][0] == expected["category"]
        rule = rule_of(case)
        if rule is not None:
            assert (expected["priority"], expected["team"]) == RULE_LABELS[rule], case
        else:
            assert expected["team"] == TEAM_OF[expected["category"]], case
            assert (expected["priority"] == "urgent") == (expected["category"] in {"fraud", "accident"}), case


@pytest.mark.parametrize("rule", RULE_WORDS)
def test_a_rule_can_be_read_from_the_text(cases, rule):
    for case in cases:
        if rule_of(case) == rule:
            assert re.search(RULE_WORDS[rule], case["input"]), case


def test_a_ticket_without_a_rule_does_not_speak_of_one(cases):
    for case in cases:
        if rule_of(case) is None:
            assert not re.search(
                r"chargeback|disput|swollen|smok|leak|overheat|company|office|business|VAT|ignored|answered", case["input"]
            ), case


def test_the_splits_share_no_sentence(example, by_split):
    products = sorted({name for fillers in example.phrases.FILLERS.values() for name in (*fillers.items, *fillers.gadgets)})
    train, holdout = (set().union(*(sentences(case["input"], products) for case in by_split[split])) for split in ("train", "holdout"))
    assert len(train) > 200
    assert len(holdout) > 200
    assert not train & holdout


def test_no_holdout_text_is_near_a_train_text(by_split):
    train = [(case["input"], trigrams(case["input"])) for case in by_split["train"]]
    for case in by_split["holdout"]:
        own = trigrams(case["input"])
        for text, other in train:
            assert len(own & other) < 0.4 * len(own | other), (case["input"], text)


@pytest.mark.parametrize("field", ["openings", "closings", "items", "gadgets"])
def test_train_and_holdout_are_filled_with_different_words(example, field):
    train, holdout = (set(getattr(example.phrases.FILLERS[split], field)) for split in ("train", "holdout"))
    assert train
    assert holdout
    assert not train & holdout


def test_every_sentence_belongs_to_one_data_set(example):
    pattern = "I [want|wish|need] to [return|swap|exchange] [the|my] {item}"
    by_owner = [set(example.phrases.sentences(pattern, owner)) for owner in ("base", "train", "holdout")]
    assert sum(map(len, by_owner)) == len(set().union(*by_owner)) == 18


def test_nearness_is_a_share_of_what_both_say(example):
    one, other = (example.tickets.shingles(text) for text in ("My order 12 is late again", "My order 99 is late. Bye."))
    assert one & other == {("my", "order", "is"), ("order", "is", "late")}
    assert example.tickets.near(one, other, limit=0.5)
    assert not example.tickets.near(one, other, limit=0.51)


def test_the_base_model_sees_no_golden_text(cases, synthetic):
    assert not {case["input"].lower() for case in cases} & {text.lower() for text, _ in synthetic}


def test_the_base_model_knows_the_old_policy_only(example, synthetic):
    assert set(example.tickets.OLD_POLICY) == set(example.tickets.POLICY) == set(RULE_LABELS)
    chargebacks = [json.loads(answer) for text, answer in synthetic if "chargeback" in text]
    assert len(chargebacks) > 50
    for labels in chargebacks:
        assert (labels["priority"], labels["team"]) == ("low", "billing")


@pytest.mark.parametrize("rule", RULE_LABELS)
def test_every_rule_has_changed_wholly(example, rule):
    was, now = example.tickets.OLD_POLICY[rule], example.tickets.POLICY[rule]
    assert was[0] != now[0]
    assert was[1] != now[1]


def test_synthetic_tickets_repeat_themselves_run_by_run(example):
    assert list(example.make_model.synthetic_tickets(50)) == list(example.make_model.synthetic_tickets(50))


def test_a_rule_overrules_the_handbook(example):
    ticket = example.tickets.Ticket(topic="shipping", hurry="low", rule="repeat")
    assert example.tickets.labels(ticket) == {"category": "shipping", "priority": "high", "team": "complaints"}
    assert example.tickets.labels(ticket, example.tickets.OLD_POLICY) == {"category": "shipping", "priority": "low", "team": "care"}


def test_scripts_import_nothing_heavy():
    code = f"""
import sys
sys.path.insert(0, {str(EXAMPLE)!r})
import data.make_cases, model.make_model
print([name for name in {HEAVY!r} if name in sys.modules])
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def entries(name):
    lines = (RECORDINGS / name).read_text(encoding="utf-8").splitlines()
    return [json.loads(line) for line in lines[1:]]


def test_every_triage_case_is_recorded_once_with_each_prompt(cases, example):
    asked = [entry["request"]["body"]["json"]["messages"] for entry in entries("test_triage.jsonl")]
    for prompt in (example.prompt.TRIAGE, example.prompt.CARELESS_TRIAGE):
        recorded = [messages[-1]["content"] for messages in asked if messages[0]["content"] == prompt]
        assert sorted(recorded) == sorted(case["input"] for case in cases)
    assert len(asked) == 2 * len(cases)


def test_recorded_replies_say_that_they_were_written_by_hand():
    bodies = [entry["response"]["body"]["json"] for entry in entries("test_reply.jsonl")]
    assert len(bodies) == 16
    for body in bodies:
        assert body["model"] == "written-by-hand"
        assert body["id"].startswith("msg_written_by_hand_")


def test_recordings_are_small():
    assert sum(path.stat().st_size for path in RECORDINGS.iterdir()) < 1_200_000
