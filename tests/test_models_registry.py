"""From a model's name to its client."""

from __future__ import annotations

import re

import pytest

from pytest_touchstone.errors import ModelError
from pytest_touchstone.models.registry import open_model, split_spec


@pytest.mark.parametrize(
    ("spec", "parts"),
    [
        ("openai:gpt-5-mini", ("openai", "gpt-5-mini")),
        ("anthropic:claude", ("anthropic", "claude")),
        ("openai:llama3:8b", ("openai", "llama3:8b")),
    ],
)
def test_a_spec_is_provider_and_model(spec, parts):
    assert split_spec(spec) == parts
    assert open_model(spec).spec == spec


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        ("gpt-5-mini", "the model 'gpt-5-mini' names no provider; write one of anthropic:MODEL, openai:MODEL"),
        ("", "the model '' names no provider; write one of anthropic:MODEL, openai:MODEL"),
        (
            "ollama:llama3",
            "'ollama:llama3': the provider 'ollama' is not known; write one of anthropic:MODEL, openai:MODEL (openai: with a base URL for a compatible server)",
        ),
        ("openai:", "'openai:' names no model; write openai:MODEL"),
        ("anthropic: ", "'anthropic: ' names no model; write anthropic:MODEL"),
    ],
)
def test_a_bad_spec_says_what_is_known(spec, message):
    with pytest.raises(ModelError, match=f"^{re.escape(message)}$"):
        open_model(spec)
