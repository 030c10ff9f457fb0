"""What consumers of exports need to read one without a network: a tokenizer of bytes, and the examples that all of them get."""

from __future__ import annotations

import json

from export_samples import WEATHER, assistant, example, offer, tool_call, user

from pytest_touchstone.export.write import write_export

SYSTEM = {"role": "system", "content": "Be brief."}
ARGUMENTS = '{"city":  "Oslo", "big": 12345678901234567890, "exact": 0.1, "none": null, "deep": {"list": [1, "é\\n"]}}'
ASKED = (user("What is the weather in Oslo?"), assistant(None, tool_calls=[tool_call(ARGUMENTS)]))
RESULT = {"role": "tool", "tool_call_id": "call_1", "content": '{"degrees": 4.0}'}
TEMPLATE = (
    "{% for message in messages %}<|im_start|>{{ message.role }}\n"
    "{% if message.content %}{{ message.content }}{% endif %}"
    "{% if message.tool_calls %}{% for call in message.tool_calls %}<tool_call>{{ call.function.name }} {{ call.function.arguments }}</tool_call>"
    "{% endfor %}{% endif %}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)


def made(number, **fields):
    values = {
        "case_id": f"case-{number}",
        "content_hash": f"{number:064}",
        "prompt": (SYSTEM, user(f"Question {number}")),
        "completion": (assistant(f"Answer {number}"),),
        "rejected": (assistant(f"Wrong {number}"),),
    }
    return example(**(values | fields))


def examples():
    """Every shape that a format has a place for: texts, a conversation, a call of a tool to learn, its result in the prompt, no system prompt."""
    chats = [made(number) for number in range(1, 11)]
    dates = made(11, completion=(assistant("2026-10-03"),), rejected=(assistant("2026-10-04"),))
    bare = made(12, prompt=(user("Hello \u2028 <b>é</b>"), assistant("Yes?"), user("Weather?")))
    calling = made(13, prompt=ASKED[:1], completion=ASKED[1:], tools=(WEATHER,), kind="replay", target_source="wire", rejected=())
    called = made(14, prompt=(SYSTEM, *ASKED, RESULT), tools=(WEATHER,))
    return [*chats, dates, bare, calling, called]


def export(folder, *formats):
    """An export of these examples in these formats; returns its manifest."""
    return write_export(folder, offers=[offer(each) for each in examples()], held_out=(), run={}, formats=formats)


def byte_tokenizer():
    """A tokenizer that has each byte as a token: it can read any text, and back again, and needs no download."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    names = [*sorted(pre_tokenizers.ByteLevel.alphabet()), "<|im_end|>", "<|im_start|>", "<|endoftext|>"]
    tokenizer = Tokenizer(models.BPE(vocab={name: number for number, name in enumerate(names)}, merges=[]))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    tokenizer.decoder = decoders.ByteLevel()
    fast = PreTrainedTokenizerFast(tokenizer_object=tokenizer, eos_token="<|im_end|>", pad_token="<|endoftext|>")
    fast.add_special_tokens({"additional_special_tokens": ["<|im_start|>"]})
    fast.chat_template = TEMPLATE
    return fast


def trained_text(tokenizer, ids, labels):
    """What of a tokenized example is read, and what is trained."""
    return tokenizer.decode(ids), tokenizer.decode([token for token in labels if token != -100])


def same_json(text, other):
    return json.loads(text) == json.loads(other)
