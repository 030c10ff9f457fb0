from __future__ import annotations

import json

import pytest
from export_samples import WEATHER, assistant, tool_call, user
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from pytest_touchstone.train.rows import IGNORED, Template, Tokens, Unusable, batch_problems, encode, prepare, wants_objects

END = 0


def render(messages, *, tools=None, add_generation_prompt=False):
    """A template as Qwen3's: text of tool calls as it is, and a newline behind the end of an answer."""
    shown = f"[{json.dumps(tools)}]" if tools else ""
    for message in messages:
        calls = "".join(f"({call['function']['name']} {call['function']['arguments']})" for call in message.get("tool_calls", ()))
        shown += f"<{message['role']}>{message['content']}{calls}\0\n"
    return shown + ("<assistant>" if add_generation_prompt else "")


def dumping(messages, *, tools=None, add_generation_prompt=False):
    """A template as Llama 3's, which makes JSON of the arguments."""
    for message in messages:
        for call in message.get("tool_calls", ()):
            call["function"]["arguments"] = json.dumps(call["function"]["arguments"])
    return render(messages, tools=tools, add_generation_prompt=add_generation_prompt)


def iterating(messages, *, tools=None, add_generation_prompt=False):
    """A template as Qwen3.5's, which goes through the arguments one by one."""
    shown = ""
    for message in messages:
        shown += message["content"] + "".join(
            f"{k}={v}" for call in message.get("tool_calls", ()) for k, v in call["function"]["arguments"].items()
        )
    return shown


def template(**fields):
    return Template(**({"render": render, "tokenize": lambda text: [ord(c) for c in text], "stops": {END}, "eos": END} | fields))


def text_of(tokens):
    return "".join(map(chr, tokens))


def row(answer="Fine.", **fields):
    return {"prompt": [user("How?")], "completion": [assistant(answer)], **fields}


class TestEncoding:
    def test_the_answer_and_its_end_are_trained_and_nothing_behind_it(self):
        tokens = encode(row(), "completion", template())
        assert (text_of(tokens.prompt), text_of(tokens.completion)) == ("<user>How?\0\n<assistant>", "Fine.\0")
        assert not tokens.ended
        assert len(tokens) == len(tokens.prompt) + len(tokens.completion)

    def test_an_end_is_added_where_the_template_has_none(self):
        tokens = encode(row(), "completion", template(stops={7}, eos=7))
        assert tokens.completion[-1] == 7
        assert tokens.ended

    def test_the_anchor_and_missing_content_do_not_reach_the_template(self):
        seen = []

        def looking(messages, **options):
            seen.extend(messages)
            return render(messages, **options)

        encode(
            row(prompt=[{**user("How?"), "refusal": None, "content": "How?"}, {"role": "assistant", "content": None}]),
            "completion",
            template(render=looking),
        )
        assert seen[:2] == [user("How?"), {"role": "assistant", "content": ""}]

    @pytest.mark.parametrize("tools", [[WEATHER], json.dumps([WEATHER])])
    def test_tools_as_a_list_or_as_text(self, tools):
        assert "weather" in text_of(encode(row(tools=tools), "completion", template()).prompt)

    @pytest.mark.parametrize("tools", ["null", None, "[]"])
    def test_no_tools(self, tools):
        assert text_of(encode(row(tools=tools), "completion", template()).prompt).startswith("<user>")

    def test_a_template_that_does_not_show_tools(self):
        with pytest.raises(Unusable, match="has tools, and the chat template does not show them; use a model that knows tools, or give"):
            encode(row(tools=[WEATHER]), "completion", template(render=lambda messages, **o: render(messages, **(o | {"tools": None}))))

    def test_a_template_that_shows_an_answered_prompt_otherwise(self):
        def thinking(messages, *, tools=None, add_generation_prompt=False):
            return render(messages) + ("<assistant><think>" if add_generation_prompt else "")

        with pytest.raises(Unusable, match=r"shows the prompt otherwise once it is answered, .*; give a chat_template that does not"):
            encode(row(), "completion", template(render=thinking))

    def test_a_template_that_shows_nothing_of_the_answer(self):
        with pytest.raises(Unusable, match="shows nothing of the answer, so there is nothing to learn"):
            encode(row(""), "completion", template())
        with pytest.raises(Unusable, match="shows nothing of the answer"):
            encode(row(), "completion", template(render=lambda *_, **__: "same"))

    def test_an_answer_that_holds_its_own_end(self):
        with pytest.raises(Unusable, match="the answer holds the mark that ends it; correct the target"):
            encode(row("Fine.\0More."), "completion", template())

    def test_a_template_that_refuses(self):
        def refusing(*_, **__):
            msg = "Conversation roles must alternate"
            raise ValueError(msg)

        with pytest.raises(Unusable, match="the chat template refuses it: Conversation roles must alternate; use another model, or give"):
            encode(row(), "completion", template(render=refusing))

    def test_a_template_that_fails_without_a_word(self):
        def failing(*_, **__):
            raise KeyError

        with pytest.raises(Unusable, match="the chat template refuses it: KeyError; "):
            encode(row(), "completion", template(render=failing))


class TestToolCalls:
    CALLED = assistant(None, tool_calls=[tool_call('{"city":  "Oslo", "exact": 0.3}')])

    @pytest.mark.parametrize(("shown", "objects"), [(render, False), (dumping, True), (iterating, True)])
    def test_what_the_template_needs_is_found_out(self, shown, objects):
        assert wants_objects(shown) is objects

    def test_text_stays_as_it_was_on_the_wire(self):
        tokens = encode({"prompt": [user("?")], "completion": [self.CALLED]}, "completion", template())
        assert text_of(tokens.completion) == '(weather {"city":  "Oslo", "exact": 0.3})\0'

    def test_objects_where_the_template_needs_them(self):
        tokens = encode({"prompt": [user("?")], "completion": [self.CALLED]}, "completion", template(render=dumping, objects=True))
        assert text_of(tokens.completion) == '(weather {"city": "Oslo", "exact": 0.3})\0'

    @pytest.mark.parametrize("arguments", ["no JSON", "[1]"])
    def test_arguments_that_are_no_object(self, arguments):
        called = assistant(None, tool_calls=[tool_call(arguments)])
        with pytest.raises(Unusable, match="calls 'weather' with arguments that are no JSON object, which this chat template needs"):
            encode({"prompt": [user("?")], "completion": [called]}, "completion", template(render=dumping, objects=True))


def prepared(*answers, **options):
    rows = [(number, row(answer)) for number, answer in enumerate(answers, 1)]
    return prepare(rows, **({"answers": ["completion"], "template": template(), "max_length": 40, "too_long": "refuse"} | options))


class TestPreparing:
    def test_each_line_is_kept_or_named(self):
        found = prepared("Fine.", "x" * 100, "", "Well.", too_long="drop")
        assert [number for number, _ in found.rows] == [1, 4]
        assert found.dropped == (2,)
        assert found.problems == (
            "line 3: the chat template shows nothing of the answer, so there is nothing to learn; use another model, or give chat_template",
        )
        assert found.longest == max(len(tokens) for _, (tokens,) in found.rows)

    def test_what_is_too_long_is_refused_by_default_and_never_cut(self):
        found = prepared("Fine.", "x" * 100)
        length = len(encode(row("x" * 100), "completion", template()))
        fix = f"set max_length to {length}, or too_long: drop to train without them"
        assert found.problems == (f"1 example has more than max_length 40 tokens (line 2; the longest {length}); {fix}",)

    def test_many_are_counted(self):
        found = prepared(*["x" * 100] * 12)
        assert found.problems[0].startswith(
            "12 examples have more than max_length 40 tokens (line 1, 2, 3, 4, 5, 6, 7, 8, 9, 10 and more; "
        )
        assert prepared(*[""] * 12).problems[10:] == ("and 2 more lines like these",)

    def test_pairs_have_two_answers(self):
        pair = {"prompt": [user("How?")], "chosen": [assistant("Fine.")], "rejected": [assistant("x" * 100)]}
        found = prepare([(1, pair)], answers=["chosen", "rejected"], template=template(), max_length=40, too_long="drop")
        assert found.dropped == (1,)
        found = prepare([(1, pair)], answers=["chosen", "rejected"], template=template(stops={7}, eos=7), max_length=400, too_long="drop")
        assert [text_of(tokens.completion[:5]) for _, made in found.rows for tokens in made] == ["Fine.", "xxxxx"]
        assert found.ended == 2


class TestFirstBatch:
    TOKENS = Tokens(prompt=(5, 6), completion=(8, 9, END))

    def found(self, *labels):
        return batch_problems([labels], [self.TOKENS], {END})

    def test_whole_answers_and_nothing_else(self):
        assert self.found(IGNORED, IGNORED, 8, 9, END, IGNORED) == []
        assert self.found(IGNORED, IGNORED, IGNORED, 8, 9, END) == []

    def test_nothing_is_trained(self):
        assert self.found(*[IGNORED] * 5) == ["example 1 of the first batch trains no token"]

    def test_the_end_is_not_trained(self):
        assert self.found(IGNORED, IGNORED, 8, 9, IGNORED) == ["example 1 of the first batch does not train the end of its answer"]

    def test_the_prompt_is_trained(self):
        assert self.found(IGNORED, 6, 8, 9, END) == ["example 1 of the first batch trains 1 tokens beyond its answer"]

    def test_part_of_the_answer_is_not_trained(self):
        assert self.found(IGNORED, IGNORED, IGNORED, 9, END) == ["example 1 of the first batch trains other tokens than its answer"]

    @settings(suppress_health_check=[HealthCheck.too_slow])
    @given(
        prompt=st.lists(st.integers(1, 50), max_size=5), answer=st.lists(st.integers(1, 50), min_size=1, max_size=5), pad=st.integers(0, 3)
    )
    def test_any_padding_of_a_right_mask_is_right(self, prompt, answer, pad):
        tokens = Tokens(prompt=tuple(prompt), completion=(*answer, END))
        labels = [IGNORED] * len(prompt) + [*answer, END]
        assert batch_problems([labels + [IGNORED] * pad, [IGNORED] * pad + labels], [tokens, tokens], {END}) == []
