"""The folder for `datasets`: what the real library reads back is what was written, tool calls to the letter."""

from __future__ import annotations

import pytest
from export_samples import WEATHER, assistant, example, offline_datasets, tool_call, user
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from pytest_touchstone.export.example import problem_of
from pytest_touchstone.export.format import NotHeldError
from pytest_touchstone.export.formats.hf_datasets import HFDatasets

pytest.importorskip("pyarrow")


@pytest.fixture(scope="module")
def load(tmp_path_factory):
    """Reads the folder as a user does: `datasets.load_dataset("training/datasets")`."""
    with offline_datasets() as datasets:

        def read(rows):
            folder = tmp_path_factory.mktemp("dataset")
            for name, data in HFDatasets().encode(rows).content.items():
                (folder / name).write_bytes(data)
            return datasets.load_dataset(str(folder), cache_dir=str(folder / "cache"), split="train")

        yield read


def without_padding(value):
    """What Arrow pads with null, taken off again."""
    if isinstance(value, dict):
        return {key: without_padding(part) for key, part in value.items() if part is not None or key == "content"}
    return [without_padding(part) for part in value] if isinstance(value, list) else value


def row(**fields):
    return HFDatasets().row(example(**fields))


def test_rows_come_back_with_nulls_where_a_message_had_no_such_key(load):
    call = tool_call('{"city":  "Oslo", "big": 12345678901234567890, "exact": 0.3}')
    rows = [row(prompt=(user("Weather?", name="ann"),), completion=(assistant(None, tool_calls=[call]),), tools=(WEATHER,)), row()]
    back = load(rows).to_list()
    assert back[0]["prompt"] == rows[0]["prompt"]
    assert back[1] == {
        "prompt": [user("Where is my order?", name=None)],
        "completion": [assistant("On its way.", tool_calls=None)],
        "tools": None,
    }
    assert back[0]["completion"][0]["tool_calls"] == [call]
    assert back[0]["tools"] == rows[0]["tools"]


def test_dates_stay_texts(load):
    rows = [row(completion=(assistant("2026-10-03"),))]
    assert load(rows).to_list() == rows


def test_the_same_rows_give_the_same_bytes():
    rows = [row(prompt=(user(f"{number}"),)) for number in range(50)]
    assert HFDatasets().encode(rows) == HFDatasets().encode(rows)


def test_what_trl_cannot_read_is_left_out():
    with pytest.raises(NotHeldError) as raised:
        row(prompt=(user([{"type": "image"}]),))
    assert str(raised.value) == "not in this format: a message holds a part of type 'image'; only text can be trained on here"


@settings(max_examples=25, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_anything_survives(load, data):
    text = st.one_of(
        st.text(st.characters(codec="utf-8"), max_size=20), st.dates().map(str), st.sampled_from(["1", "null", "{}", '"', "1e999"])
    )
    said = text.filter(str.strip)
    called = st.builds(lambda arguments, call_id: assistant(None, tool_calls=[tool_call(arguments, call_id=call_id)]), text, text)
    turn = st.one_of(
        said.map(user), said.map(assistant), called, text.map(lambda content: {"role": "tool", "content": content, "name": "f"})
    )
    examples = st.builds(
        lambda turns, last, answer, tools: example(prompt=(*turns, user(last)), completion=(answer,), tools=tools),
        st.lists(turn, max_size=3),
        said,
        said.map(assistant) | called,
        st.sampled_from([(), (WEATHER,), ({"type": "function", "function": {"name": "g", "weight": 0.1234567890123456}},)]),
    )
    made = data.draw(st.lists(examples, min_size=1, max_size=6))
    assert [problem_of(one) for one in made] == [None] * len(made)
    rows = [HFDatasets().row(one) for one in made]
    assert without_padding(load(rows).to_list()) == rows
