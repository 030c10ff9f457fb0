"""From a model's name as users write it, `provider:model`, to the client that asks it."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pytest_touchstone.errors import ModelError

if TYPE_CHECKING:
    from pytest_touchstone.models.client import ModelClient

PROVIDERS = ("anthropic", "openai")


def split_spec(spec: str) -> tuple[str, str]:
    """Provider and model of a spec; the model's own name may hold further colons.

    Raises:
        ModelError: the spec names no provider, one that is not known, or no model; the message lists what is known.

    >>> split_spec("openai:llama3:8b")
    ('openai', 'llama3:8b')
    """
    provider, colon, model = spec.partition(":")
    known = ", ".join(f"{name}:MODEL" for name in PROVIDERS)
    if not colon:
        msg = f"the model {spec!r} names no provider; write one of {known}"
        raise ModelError(msg)
    if provider not in PROVIDERS:
        msg = f"{spec!r}: the provider {provider!r} is not known; write one of {known} (openai: with a base URL for a compatible server)"
        raise ModelError(msg)
    if not model.strip():
        msg = f"{spec!r} names no model; write {provider}:MODEL"
        raise ModelError(msg)
    return provider, model


def open_model(spec: str, *, base_url: str | None = None) -> ModelClient:
    """The client for a spec. Nothing is imported or connected before it is asked.

    `base_url` points at a server that speaks the provider's format; None means OPENAI_BASE_URL or ANTHROPIC_BASE_URL where they are
    set, else the provider itself.

    Raises:
        ModelError: the spec cannot be read.
    """
    provider, model = split_spec(spec)
    if provider == "openai":
        from pytest_touchstone.models.openai_chat import OpenAIChat

        return OpenAIChat(model, base_url=base_url)
    from pytest_touchstone.models.anthropic_messages import AnthropicMessages

    return AnthropicMessages(model, base_url=base_url)
