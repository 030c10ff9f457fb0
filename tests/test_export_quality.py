"""The quality report: each finding on what has it, and not on what has it not."""

from __future__ import annotations

import json

import pytest
from export_samples import WEATHER, assistant, example, tool_call, user

from pytest_touchstone.export.personal import KINDS, PersonalFinder
from pytest_touchstone.export.quality import Lengths, assess


def asked(question, answer="On its way.", **fields):
    return example(prompt=(user(question),), completion=(assistant(answer),), **fields)


def many(count, **fields):
    return [asked(f"Question {number}?", f"The answer to it is number {number}, as ever and always.", **fields) for number in range(count)]


def test_nothing():
    found = assess([])
    assert (found.examples, found.characters, found.tokens, found.advice) == (0, None, None, ())
    assert found.tokens_reason == "no tokenizer was given"


def test_lengths_are_those_that_occur():
    assert Lengths.of([5, 1, 3, 2]) == Lengths(shortest=1, median=2, p95=5, longest=5)
    assert Lengths.of(range(1, 101)) == Lengths(shortest=1, median=50, p95=95, longest=100)
    found = assess(
        [asked("abc", "de"), example(prompt=(user("a"),), tools=(WEATHER,), completion=(assistant(None, tool_calls=[tool_call()]),))]
    )
    assert found.characters["prompt"].shortest == 3
    assert found.characters["example"].shortest == 5
    assert found.characters["completion"].longest > len("weather") + len('{"city": "Oslo"}')


def test_tokens_are_those_of_the_counter():
    found = assess(many(3), count_tokens=lambda made: (len(made.prompt), 10))
    assert found.tokens == {
        name: Lengths(shortest=size, median=size, p95=size, longest=size)
        for name, size in (("prompt", 1), ("completion", 9), ("example", 10))
    }
    assert found.tokens_reason == ""


def test_a_template_that_fails_is_a_reason_not_a_number():
    found = assess(many(3), count_tokens=lambda made: 1 / 0)
    assert found.tokens is None
    assert found.tokens_reason == "the chat template cannot be applied: ZeroDivisionError: division by zero"


def test_duplicates_and_contradictions():
    found = assess(
        [
            asked("Where is it?", "Here."),
            asked("where  IS it?", "here."),
            asked("Where is it?", "There."),
            asked("When?", "Now."),
            asked("Where?", "Here."),
        ]
    )
    assert found.duplicates == ((1, 2),)
    assert found.contradictions == ((1, 2, 3),)
    assert found.advice[0] == (
        "1 prompt with more than one target (lines 1, 2, 3): the model cannot learn both; "
        "correct the cases, or have them sent what tells them apart"
    )
    assert "1 example said more than once (lines 1, 2): it weighs as often" in found.advice


def test_one_prompt_with_other_tools_is_another_prompt():
    assert assess([asked("a?", "Yes."), asked("a?", "No.", tools=(WEATHER,))]).contradictions == ()


@pytest.mark.parametrize(
    ("answer", "why"),
    [
        ('{"a": [1, 2', "JSON that does not close"),
        ('{"a": "b}', "JSON that does not close"),
        ("So it is:\n```python\nprint(1)", "a code block that does not close"),
        ("We are sorry that your parcel is late, and", "stops in the middle of a sentence"),
        ("We are sorry that your parcel is late,", "stops in the middle of a sentence"),
    ],
)
def test_targets_that_are_cut(answer, why):
    found = assess([asked("a", answer)])
    assert found.truncated == {1: why}
    assert found.advice[0].startswith("1 target cut off, as it looks (line 1): the model would learn to stop there")


@pytest.mark.parametrize(
    "answer",
    [
        '{"a": "}{"}',
        "{}",
        "[citation needed]",
        "[1] is the source",
        "Oslo",
        "```a```",
        "one two three four five six seven eight nine",
        '{"a": "\\""}',
        "{a} and {b}",
    ],
)
def test_targets_that_are_whole(answer):
    assert assess([asked("a", answer)]).truncated == {}


def test_a_sentence_without_its_full_stop_is_cut_where_the_others_have_one():
    cut = asked("a", "We are sorry that your parcel is late and hope that you")
    assert assess([*many(20), cut]).truncated == {21: "stops in the middle of a sentence"}
    open_ended = [asked(f"Q {number}", f"no full stop is the style of this one, number {number}") for number in range(20)]
    assert assess([*open_ended, cut]).truncated == {}


@pytest.mark.parametrize("reason", ["length", "max_tokens", "max_output_tokens"])
def test_what_the_provider_ended_is_cut(reason):
    assert assess([asked("a", "Fine.", finish_reason=reason)]).truncated == {
        1: f"the provider ended it at the limit of its length ({reason})"
    }
    assert assess([asked("a", "Fine.", finish_reason="stop")]).truncated == {}


def test_arguments_of_a_tool_call_count():
    made = example(completion=(assistant(None, tool_calls=[tool_call('{"city": "Os')]),))
    assert assess([made]).truncated == {1: "JSON that does not close"}


def test_targets_that_say_nothing():
    found = assess([asked("a", "..."), asked("b", "1"), example(completion=(assistant(None, tool_calls=[tool_call()]),))])
    assert found.empty == {1: "says nothing: no letter and no digit"}
    assert "1 target without a letter or digit (line 1): correct `expected`" in found.advice


def test_secrets_and_personal_data_by_line():
    found = assess([asked("I am ann@example.org", "ok"), asked("key [redacted]", "ok"), asked("a", "Call +49 30 901820, ann@example.org")])
    assert found.redacted == (2,)
    assert {kind: lines for kind, lines in found.personal_data.items() if lines} == {"email": (1, 3), "phone": (3,)}
    assert "what looks like personal data: email in 2 examples, phone in 1 example; a model may repeat it word for word" in found.advice
    assert "a secret was replaced in 1 example; the model would learn to say [redacted]" in found.advice


def test_kinds_that_nobody_looked_for_are_unknown_and_not_none():
    found = assess([asked("I am Ann", "ok")])
    assert found.personal_by == "rules"
    assert found.personal_data == dict.fromkeys(KINDS, ())
    why = "has no form that rules could know; --llm-personal-data presidio:MODEL looks for it"
    assert found.personal_unknown == {"person": why, "location": why}


def test_another_finder_looks_for_its_own_kinds():
    finder = PersonalFinder(
        find=lambda text: ("pet",) if "dog" in text else (), kinds=("pet", "car"), by="me 1.0", unknown={"person": "no idea"}
    )
    found = assess([asked("my dog", "ok"), asked("a", "ok")], finder=finder)
    assert found.personal_data == {"pet": (1,), "car": ()}
    assert (found.personal_by, found.personal_unknown, found.personal_unread) == ("me 1.0", {"person": "no idea"}, ())


def test_where_a_finder_fails_rules_look_and_the_lines_are_named():
    def find(text):
        raise ValueError(text)

    found = assess([asked("ann@example.org", "ok")], finder=PersonalFinder(find=find, kinds=KINDS, by="me 1.0"))
    assert found.personal_unread == (1,)
    assert found.personal_data["email"] == (1,)
    assert "personal data was looked for by rules alone in 1 example (line 1), where me 1.0 failed" in found.advice


def test_a_finder_that_could_not_be_used_is_told():
    finder = PersonalFinder(find=lambda text: (), kinds=(), by="rules", fault="no luck")
    assert assess([asked("a", "ok")], finder=finder).advice[0] == "personal data was looked for by rules alone: no luck"


def test_tags_are_counted_by_kind_and_thin_ones_named():
    found = assess([*many(12, tags=("a", "a")), *many(1, tags=('b"', "a"), kind="replay")])
    assert found.tags == {"a": {"fix": 12, "replay": 1}, 'b"': {"replay": 1}}
    assert found.advice[-1] == 'fewer than 10 examples of "b"": hardly enough to learn from'


def test_only_failures_are_warned_of():
    assert any(line.startswith("only failures: ") for line in assess(many(3)).advice)
    assert not any(line.startswith("only failures: ") for line in assess(many(3, kind="replay")).advice)


def test_a_small_set_is_said_to_be_one():
    assert any(line.startswith("499 examples is a small set, under 500") for line in assess(many(499)).advice)
    assert not any("small set" in line for line in assess(many(500)).advice)


class TestPromptsFirst:
    def test_where_nearly_everything_fails(self):
        found = assess([*many(40), *many(5, kind="replay")])
        assert any(line.startswith("nearly everything fails: ") for line in found.advice)

    def test_where_one_tag_fails(self):
        found = assess([*many(20, tags=("refund",)), *many(60, kind="replay", tags=("other",))])
        assert any(line.startswith('nearly all failures are of "refund", and nearly all of that fails') for line in found.advice)

    @pytest.mark.parametrize(
        "made",
        [
            [*many(9, tags=("refund",)), *many(60, kind="replay")],
            [*many(20, tags=("refund",)), *many(60, kind="replay", tags=("refund",))],
            [*many(20, tags=("refund",)), *many(20, tags=("other",)), *many(60, kind="replay")],
        ],
    )
    def test_not_elsewhere(self, made):
        assert not any("prompt" in line for line in assess(made).advice if "small set" not in line and "more than one target" not in line)


def test_is_plain_data():
    found = assess([asked("a", "{"), asked("b", "...")])
    assert json.loads(json.dumps(found.to_dict()))["empty"] == {
        "1": "says nothing: no letter and no digit",
        "2": "says nothing: no letter and no digit",
    }
