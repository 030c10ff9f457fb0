"""Training formats: what is written is what `datasets` reads back and what TRL takes."""

from __future__ import annotations

import json
import string

import pytest
from export_samples import WEATHER, assistant, example, offline_datasets, tool_call, user
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from pytest_touchstone.export.example import LeftOut, problem_of
from pytest_touchstone.export.formats import trl
from pytest_touchstone.export.formats.trl import Encoded, encode_trl, trl_row

CALLED = assistant(None, tool_calls=[tool_call('{"city":  "Oslo", "big": 12345678901234567890, "exact": 0.1234567890123456789}')])
RESULT = {"role": "tool", "tool_call_id": "call_1", "content": '{"degrees": 4.0}'}


def row(**fields):
    made = trl_row(example(**fields))
    assert not isinstance(made, LeftOut), made
    return made


def encoded(*rows):
    made = encode_trl(rows)
    assert isinstance(made, Encoded), made
    return made


def trl_refuses(made):
    """What TRL 1.14 would stumble over: the rules of `data_utils.is_conversational` / `apply_chat_template` and `SFTTrainer`'s tokenize_fn."""
    tools = json.loads(made["tools"]) if isinstance(made.get("tools"), str) else made.get("tools")
    messages = made["prompt"] + made["completion"]
    rules = {
        "keys": set(made) in ({"prompt", "completion"}, {"prompt", "completion", "tools"}),
        "not conversational": all(isinstance(made[key], list) and "role" in made[key][0] for key in ("prompt", "completion")),
        "last role": made["prompt"][-1]["role"] in {"user", "tool"}
        and [message["role"] for message in made["completion"]] == ["assistant"],
        "roles": all(message["role"] in {"system", "user", "assistant", "tool"} for message in messages),
        "content": all(isinstance(message["content"], str) or message.get("tool_calls") for message in messages),
        "tools": tools is None or (isinstance(tools, list) and tools and all(isinstance(tool, dict) for tool in tools)),
    }
    return [rule for rule, kept in rules.items() if not kept]


@pytest.fixture(scope="module")
def load(tmp_path_factory):
    """Reads lines as a user does: `datasets.load_dataset("json", data_files=...)`."""
    with offline_datasets() as datasets:

        def read(lines):
            folder = tmp_path_factory.mktemp("dataset")
            file = folder / "train.jsonl"
            file.write_bytes(b"".join(line + b"\n" for line in lines))
            return datasets.load_dataset("json", data_files=str(file), cache_dir=str(folder / "cache"), split="train")

        yield read


class TestRow:
    def test_holds_prompt_and_completion_and_tools_as_json_text(self):
        made = row(tools=(WEATHER,))
        assert made == {
            "prompt": [user("Where is my order?")],
            "completion": [assistant("On its way.")],
            "tools": json.dumps([WEATHER]),
        }
        assert "tools" not in row()

    def test_keeps_what_templates_read_and_nothing_else(self):
        made = row(
            prompt=(
                {"role": "developer", "content": "Be brief.", "cache_control": {"type": "ephemeral"}},
                user([{"type": "text", "text": "a"}, {"type": "input_text", "text": "b"}], name="ann"),
                assistant(None, tool_calls=[tool_call(" {}")], refusal=None, annotations=[], audio=None, reasoning_content="Hm."),
                RESULT | {"name": None},
                assistant("4 degrees", tool_calls=[]),
                user("Thanks"),
            ),
            completion=(
                assistant(None, tool_calls=[{"index": 0, "type": "function", "function": {"name": "f", "arguments": "{", "x": 1}}]),
            ),
        )
        assert made == {
            "prompt": [
                {"role": "system", "content": "Be brief."},
                user("a\nb", name="ann"),
                assistant(None, reasoning_content="Hm.", tool_calls=[tool_call(" {}")]),
                RESULT,
                assistant("4 degrees"),
                user("Thanks"),
            ],
            "completion": [assistant(None, tool_calls=[{"type": "function", "function": {"name": "f", "arguments": "{"}}])],
        }

    @pytest.mark.parametrize(
        ("message", "why"),
        [
            (user([{"type": "image_url", "image_url": {"url": "x"}}]), "a message holds a part of type 'image_url'; only text can be trained on here"),
            (user([{"type": "text", "text": None}]), "a message holds a part of type 'text'; only text can be trained on here"),
            (assistant(None, tool_calls=[{"type": "custom", "custom": {}}]), "a tool call of type 'custom' has no function name with arguments as JSON text"),
            (assistant(None, tool_calls=[tool_call({"a": 1})]), "a tool call of type 'function' has no function name with arguments as JSON text"),
        ],
    )  # fmt: skip
    def test_what_the_format_cannot_hold_is_left_out(self, message, why):
        assert trl_row(example(prompt=(message, user("Well?")))) == LeftOut(reason=f"not in this format: {why}")

    def test_what_no_model_can_read_is_left_out(self):
        assert trl_row(example(prompt=(user("é" * (2 << 20)),))) == LeftOut(
            reason="too long: 4,194,414 bytes, and 4,194,304 is the most for one example"
        )


class TestDatasets:
    """The bytes go through the real reader: what comes back equals what went in."""

    def test_texts_survive(self, load):
        rows = [
            row(prompt=(user(text),), completion=(assistant(text),)) for text in ("42", '{"a": 1.0}', "null", "\x00\u2028é😀</x>", "[]")
        ]
        made = encoded(*rows)
        assert made.anchored == ()
        assert load(made.lines).to_list() == rows

    def test_unequal_messages_and_tool_calls_survive(self, load):
        rows = [
            row(prompt=({"role": "system", "content": "Be brief."}, user("Weather?")), completion=(CALLED,), tools=(WEATHER,)),
            row(
                prompt=(user("Weather?", name="ann"), CALLED, RESULT),
                completion=(assistant("4 degrees"),),
                tools=(WEATHER, {"type": "web"}),
            ),
            row(),
        ]
        made = encoded(*rows)
        back = load(made.lines).to_list()
        assert back == [*rows[:2], {**rows[2], "tools": "null"}]
        assert made.anchored == ()
        assert back[0]["completion"][0]["tool_calls"][0]["function"]["arguments"] == CALLED["tool_calls"][0]["function"]["arguments"]
        assert json.loads(back[1]["tools"]) == [WEATHER, {"type": "web"}]
        assert json.loads(back[2]["tools"]) is None
        assert [trl_refuses(one) for one in back] == [[], [], []]

    def test_tools_written_as_objects_would_not(self, load):
        naive = [
            {**row(), "tools": [WEATHER]},
            {**row(), "tools": [{"type": "function", "function": {"name": "f", "weight": 0.1234567890123456}}]},
        ]
        back = load([json.dumps(one).encode() for one in naive]).to_list()
        assert back != naive

    def test_arguments_written_as_objects_would_not(self, load):
        naive = [
            {"prompt": [user("Pay")], "completion": [assistant(None, tool_calls=[tool_call({"amount": 0.3})])]},
            {"prompt": [user("Pay")], "completion": [assistant("Paid.")]},
        ]
        back = load([json.dumps(one).encode() for one in naive]).to_list()
        assert back[0]["completion"][0]["tool_calls"][0]["function"]["arguments"] != {"amount": 0.3}

    def test_dates_survive_only_because_of_the_anchor(self, load):
        rows = [row(completion=(assistant(date),)) for date in ("2026-10-03", "2026-10-04")]
        naive = load([json.dumps(one).encode() for one in rows]).to_list()
        assert not isinstance(naive[0]["completion"][0]["content"], str)
        made = encoded(*rows)
        assert made.anchored == ("completion",)
        back = load(made.lines).to_list()
        assert back[0]["completion"] == [assistant("2026-10-03", refusal=None)]
        assert back[1] == rows[1]
        assert back[0]["prompt"] == rows[0]["prompt"]
        assert [trl_refuses(one) for one in back] == [[], []]

    def test_mixed_text_and_parts_would_not_survive_so_parts_become_text(self, load):
        naive = [
            {"prompt": [user("Hi")], "completion": [assistant('{"a": 1}')]},
            {"prompt": [user("Hi")], "completion": [assistant([{"type": "text", "text": "b"}])]},
        ]
        assert load([json.dumps(one).encode() for one in naive]).to_list() != naive
        rows = [row(completion=one["completion"]) for one in naive]
        assert load(encoded(*rows).lines)[:]["completion"] == [[assistant('{"a": 1}')], [assistant("b")]]

    def test_a_shape_that_comes_late_survives_only_because_of_the_anchor(self, load):
        early = [row(prompt=(user(f"{number} " + "x" * (1 << 20)),)) for number in range(11)]
        late = row(prompt=(user("Weather?"), CALLED, RESULT))
        made = encoded(*early, late)
        assert made.anchored == ("prompt",)
        back = load(made.lines)
        assert back[0]["prompt"] == [{**early[0]["prompt"][0], "refusal": None}]
        assert back[1] == early[1]
        assert back[11] == late

    def test_tool_calls_in_every_completion_are_anchored(self, load):
        rows = [row(completion=(assistant(None, tool_calls=[tool_call(call_id=date)]),)) for date in ("2026-10-03", "2026-10-04")]
        made = encoded(*rows)
        assert made.anchored == ("completion",)
        assert load(made.lines)[1] == rows[1]

    def test_one_example_with_a_tool_call_needs_no_anchor(self, load):
        made = encoded(row(completion=(CALLED,)))
        assert made.anchored == ()
        assert load(made.lines).to_list() == [row(completion=(CALLED,))]

    @pytest.mark.parametrize("column", ["prompt", "completion"])
    def test_a_lone_date_is_left_out(self, column):
        message = {"prompt": user, "completion": assistant}[column]("2026-10-03")
        assert encode_trl([row(**{column: (message,)})]) == LeftOut(
            reason=f"too small: the only {column} is nothing but a date, which `datasets` would read as a timestamp"
        )

    def test_nothing_gives_no_lines(self):
        assert encode_trl([]) == Encoded(lines=())

    @given(text=st.text(alphabet="0123456789-:TZ+. \n", min_size=8, max_size=30) | st.datetimes().map(str) | st.dates().map(str))
    def test_the_date_pattern_covers_what_arrow_takes_for_a_timestamp(self, text):
        arrow_json = pytest.importorskip("pyarrow.json")
        pyarrow = pytest.importorskip("pyarrow")
        table = arrow_json.read_json(pyarrow.BufferReader(json.dumps({"text": text}).encode()))
        if not pyarrow.types.is_string(table.schema.field("text").type):
            assert trl.DATE.fullmatch(text)

    @settings(max_examples=25, suppress_health_check=[HealthCheck.function_scoped_fixture])
    @given(data=st.data())
    def test_anything_survives(self, load, data):
        text = st.one_of(
            st.text(st.characters(codec="utf-8"), max_size=20), st.dates().map(str), st.sampled_from(["1", "null", "{}", '"', "1e999"])
        )
        said = text.filter(str.strip)
        called = st.builds(lambda arguments, call_id: assistant(None, tool_calls=[tool_call(arguments, call_id=call_id)]), text, text)
        turn = st.one_of(
            said.map(user), said.map(assistant), called, text.map(lambda content: {"role": "tool", "content": content, "name": "f"})
        )
        prompts = st.lists(turn, max_size=3).flatmap(lambda turns: said.map(lambda content: (*turns, user(content))))
        tools = st.sampled_from([(), (WEATHER,), ({"type": "function", "function": {"name": "g"}},)])
        examples = st.builds(
            lambda prompt, answer, tool: example(prompt=prompt, completion=(answer,), tools=tool),
            prompts,
            said.map(assistant) | called,
            tools,
        )
        made = data.draw(st.lists(examples, min_size=2, max_size=6))
        assert [problem_of(one) for one in made] == [None] * len(made)
        rows = [trl_row(one) for one in made]
        result = encoded(*rows)
        back = load(result.lines).to_list()
        for column in result.anchored:
            assert back[0][column][0].pop("refusal") is None
        if any("tools" in one for one in rows):
            rows = [{"tools": "null", **one} for one in rows]
        assert back == rows
        assert [trl_refuses(one) for one in back] == [[] for _ in made]
        assert not any(character in result.lines[0].decode() for character in string.whitespace.replace(" ", ""))
