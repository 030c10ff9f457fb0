"""The leak guard: twins of holdout inputs are recognised however they are written, and wherever they hide."""

from __future__ import annotations

import json

import pytest
from export_samples import assistant, example, tool_call, user
from hypothesis import given
from hypothesis import strategies as st

from pytest_touchstone.export.leak import input_fingerprint, leaks, normal_text

SECRET = "The parcel from Bergen never arrived, who pays?"
HOLDOUT = frozenset({input_fingerprint(SECRET)})


class TestFingerprint:
    @pytest.mark.parametrize(
        "twin",
        [
            "  the PARCEL from  Bergen\n never arrived, who pays?  ",
            "The parcel from Bergen never arri\u00adved,\u200b who pays\uff1f",
            "The parcel \u202efrom Bergen never arrived,\x00 who pays?\ufeff",
            [user(SECRET)],
            [{"role": "system", "content": "Be kind."}, user(SECRET)],
            [{"role": "developer", "content": "Be kind."}, user([{"type": "text", "text": SECRET}])],
            (user(SECRET, name="ann"),),
        ],
    )
    def test_twins_agree(self, twin):
        assert input_fingerprint(twin) in HOLDOUT

    @pytest.mark.parametrize(
        "other",
        [
            "The parcel from Bergen never arrived, who pays",
            "The parcel from Bergen never arrived,who pays?",
            [assistant(SECRET)],
            [user(SECRET), assistant("We do."), user("Thanks")],
            [{"role": "system", "content": SECRET}],
            {"text": SECRET},
            [SECRET],
            [],
            None,
        ],
    )
    def test_others_differ(self, other):
        assert input_fingerprint(other) not in HOLDOUT

    def test_objects_agree_with_their_text_whatever_the_order_and_layout(self):
        value = {"question": "WHERE?", "n": 1, "nested": [{"b": None, "a": "É"}]}
        twin = '  {"nested": [{"a": "e\u0301", "b": null}],\n "n": 1.0, "question": "where?"}'
        assert input_fingerprint(value) == input_fingerprint(twin)
        assert input_fingerprint(value) != input_fingerprint(value | {"n": 1.5})
        assert input_fingerprint({"a": True}) != input_fingerprint({"a": 1})

    def test_conversations_differ_by_who_says_what_and_by_tool_calls(self):
        first = [user("a"), assistant("b"), user("c")]
        assert input_fingerprint(first) == input_fingerprint([user("A"), assistant("B", refusal=None), user("c ")])
        assert input_fingerprint(first) != input_fingerprint([user("a"), user("b"), user("c")])
        assert input_fingerprint(first) != input_fingerprint([user("a"), assistant("b", tool_calls=[tool_call()]), user("c")])

    @pytest.mark.parametrize("text", ["{not json", "[" * 100_000, '{"n": ' + "9" * 5000 + "}"])
    def test_text_that_only_looks_like_json_is_text(self, text):
        assert input_fingerprint(text) == input_fingerprint(f" {text} ")

    def test_lone_surrogates_have_one_too(self):
        assert input_fingerprint("a\ud800") != input_fingerprint("a\udfff")

    @given(st.text())
    def test_is_blind_to_white_space_around_and_case(self, text):
        assert input_fingerprint(f"\n {text}\t") == input_fingerprint(text)
        assert normal_text(text.casefold()) == normal_text(text)

    @given(
        st.recursive(st.none() | st.booleans() | st.integers() | st.text(), lambda inner: st.dictionaries(st.text(), inner), max_leaves=5)
    )
    def test_takes_any_json(self, value):
        assert input_fingerprint({"a": value, "b": 1}) == input_fingerprint(json.dumps({"b": 1, "a": value}))


class TestLeaks:
    def test_nothing_leaks_where_nothing_is_held_out(self):
        assert leaks(example(prompt=(user(SECRET),)), frozenset()) is None

    def test_an_example_without_holdout_content_passes(self):
        assert leaks(example(completion=(assistant(None, tool_calls=[tool_call(), {"type": "custom", "custom": {}}]),)), HOLDOUT) is None

    def test_the_input_of_the_case_counts_even_where_the_prompt_does_not_show_it(self):
        found = leaks(example(input_fingerprint=input_fingerprint(SECRET.upper())), HOLDOUT)
        assert found == "leak: the input of the case is a holdout input"

    def test_a_whole_conversation_counts(self):
        talk = [user("Hello"), assistant("Yes?"), user("Where is it?")]
        prompt = ({"role": "system", "content": "Be kind."}, *talk)
        assert leaks(example(prompt=prompt), {input_fingerprint(talk)}) == "leak: the prompt is a holdout input"
        assert leaks(example(prompt=(*prompt[:-1], user("Where?"))), {input_fingerprint(talk)}) is None

    def test_the_completion_counts(self):
        assert leaks(example(completion=(assistant(SECRET),)), HOLDOUT) == "leak: completion[0] (assistant) holds a holdout input"

    def test_a_short_input_counts_where_it_is_the_whole_message_only(self):
        short = {input_fingerprint("Hello")}
        assert (
            leaks(example(prompt=(user("hello"), assistant("Yes?"), user("Why?"))), short) == "leak: prompt[0] (user) holds a holdout input"
        )
        assert leaks(example(prompt=(user("Hello\nWhere is my order?"),)), short) is None

    @pytest.mark.parametrize(
        "wrapped",
        [
            f"Classify this ticket.\n\n{SECRET}\n\nAnswer in JSON.",
            f"Ticket: {SECRET}",
            f"<ticket>{SECRET}</ticket>",
            f'Ticket:\n"{SECRET}"',
            f"- {SECRET}",
            json.dumps({"n": 1, "style": ["brief", {"ticket": SECRET}], "more": None}),
            SECRET.replace(" ", "\n"),
            f"Intro\n \n{SECRET.replace(', ', ',' + chr(10))}\n\nOutro",
        ],
    )
    @pytest.mark.parametrize("role", ["system", "user", "tool"])
    def test_templates_do_not_hide_an_input(self, wrapped, role):
        found = leaks(example(prompt=(user("Hi"), {"role": role, "content": wrapped}, user("Go on."))), HOLDOUT)
        assert found == f"leak: prompt[1] ({role}) holds a holdout input"

    def test_tool_call_arguments_count(self):
        made = example(completion=(assistant(None, tool_calls=[tool_call(json.dumps({"query": SECRET}))]),))
        assert leaks(made, HOLDOUT) == "leak: completion[0] (assistant) holds a holdout input"

    def test_the_reason_never_quotes_the_text(self):
        assert SECRET not in (leaks(example(prompt=(user(SECRET),)), HOLDOUT) or "")

    @given(st.text(min_size=1).filter(lambda text: normal_text(text) != ""))
    def test_any_text_as_a_message_is_found(self, text):
        assert leaks(example(prompt=(user(text),)), {input_fingerprint(text)}) is not None
