"""Counting tokens with the tokenizer of the model to train, where transformers is installed, and saying why not where it is not."""

from __future__ import annotations

import builtins
import json
import sys
from types import ModuleType

import pytest
from export_samples import WEATHER, assistant, example, user

from pytest_touchstone.errors import ExportError
from pytest_touchstone.export.tokens import check_tokenizer, token_counter

TEMPLATE = (
    "{% for tool in tools or [] %}tool {% endfor %}{% for message in messages %}{{ message.role }} {{ message.content }} {% endfor %}"
    "{% if add_generation_prompt %}assistant {% endif %}"
)


@pytest.fixture
def folder(tmp_path):
    """A tokenizer of words."""
    words = {"type": "WordLevel", "vocab": {"[UNK]": 0}, "unk_token": "[UNK]"}
    tokenizer = {
        "version": "1.0", "truncation": None, "padding": None, "added_tokens": [], "normalizer": None,
        "pre_tokenizer": {"type": "WhitespaceSplit"}, "post_processor": None, "decoder": None, "model": words,
    }  # fmt: skip
    (tmp_path / "tokenizer.json").write_text(json.dumps(tokenizer), encoding="utf-8")
    described = {"tokenizer_class": "PreTrainedTokenizerFast", "unk_token": "[UNK]", "chat_template": TEMPLATE}
    (tmp_path / "tokenizer_config.json").write_text(json.dumps(described), encoding="utf-8")
    return tmp_path


class WordTokenizer:
    chat_template = "words"

    def apply_chat_template(self, messages, *, tools=None, add_generation_prompt=False, tokenize=True):
        assert not tokenize
        said = " ".join(f"{message['role']} {message['content']}" for message in messages)
        return "tool " * len(tools or []) + said + (" assistant" if add_generation_prompt else "")

    def __call__(self, text, *, add_special_tokens=True):
        assert not add_special_tokens
        return {"input_ids": list(range(len(text.split())))}


@pytest.fixture
def library(monkeypatch):
    """Puts a library in the place of transformers, whose tokenizers are what it is given."""

    def put(tokenizer):
        class AutoTokenizer:
            @staticmethod
            def from_pretrained(path, *, local_files_only, trust_remote_code):
                assert local_files_only
                assert not trust_remote_code
                if isinstance(tokenizer, Exception):
                    raise tokenizer
                return tokenizer

        module = ModuleType("transformers")
        module.AutoTokenizer = AutoTokenizer
        monkeypatch.setitem(sys.modules, "transformers", module)

    return put


EXAMPLE = example(prompt=(user("Where is it?"),), completion=(assistant("On its way."),), tools=(WEATHER,))


def test_counts_prompt_and_whole_example_as_the_template_lays_them_out(folder):
    pytest.importorskip("transformers")
    check_tokenizer(folder)
    count, reason = token_counter(folder)
    assert reason == ""
    assert count(EXAMPLE) == (6, 9)


def test_counts_what_the_library_says(tmp_path, library):
    library(WordTokenizer())
    count, reason = token_counter(tmp_path)
    assert reason == ""
    assert count(EXAMPLE) == (6, 9)


def test_a_tokenizer_that_cannot_be_loaded_is_said(tmp_path, library):
    library(OSError("no such vocabulary"))
    assert token_counter(tmp_path) == (None, "the tokenizer cannot be loaded: OSError: no such vocabulary")


def test_a_tokenizer_without_a_chat_template_is_said(tmp_path, library):
    library(object())
    assert token_counter(tmp_path) == (None, "the tokenizer has no chat template")


def test_without_the_library_it_is_said_how_to_get_it(tmp_path, monkeypatch):
    real = builtins.__import__

    def without(name, *rest):
        if name == "transformers":
            raise ImportError(name)
        return real(name, *rest)

    monkeypatch.setattr(builtins, "__import__", without)
    assert token_counter(tmp_path) == (None, "transformers is not installed (pip install 'pytest-touchstone[train]')")


def test_no_folder_and_a_folder_without_a_tokenizer_are_refused(tmp_path):
    with pytest.raises(ExportError) as raised:
        check_tokenizer(tmp_path / "none")
    assert str(raised.value) == f"{tmp_path / 'none'}: is no folder; give --llm-tokenizer the folder of a model, which holds its tokenizer"
    with pytest.raises(ExportError) as raised:
        check_tokenizer(tmp_path)
    assert str(raised.value).startswith(f"{tmp_path}: holds neither tokenizer.json nor tokenizer_config.json; give --llm-tokenizer ")
