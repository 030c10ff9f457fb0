"""litellm: the openai SDK for OpenAI-like providers, its own httpx clients and aiohttp transport for the others."""

from __future__ import annotations

import asyncio
import contextlib
import os

import pytest
from providers import Reply
from sdk_kit import HI, need

os.environ["LITELLM_LOCAL_MODEL_COST_MAP"] = "True"  # or it fetches prices while it is imported
litellm = need("litellm")

pytestmark = [
    pytest.mark.usefixtures("left_open"),
    # What litellm itself does: it logs in tasks that a closed event loop never gets to, among other things.
    pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning"),
    pytest.mark.filterwarnings("ignore:coroutine:RuntimeWarning"),
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),
    pytest.mark.filterwarnings("ignore::ResourceWarning"),
    pytest.mark.filterwarnings("ignore:Pydantic serializer warnings:UserWarning"),
    pytest.mark.filterwarnings("ignore:Items? .* on TypedDict class:UserWarning"),
]

MODELS = {"openai": "openai/gpt-4o", "anthropic": "anthropic/claude-sonnet-5-5", "mistral": "mistral/mistral-small-latest"}


@pytest.fixture(autouse=True)
def fresh_clients(monkeypatch):
    """litellm keeps clients, and the event loops in them, from one test to the next."""
    monkeypatch.setattr(litellm, "in_memory_llm_clients_cache", litellm.caching.llm_caching_handler.LLMClientCache())
    monkeypatch.setattr(litellm, "telemetry", False, raising=False)  # newer ones have none
    monkeypatch.setattr(litellm, "num_retries", 0)


def base(provider, model):
    return provider.url if model.startswith("anthropic/") else provider.openai_url


def plainly(answer):
    """An answer without what litellm draws anew each time."""
    return {name: value for name, value in answer.model_dump().items() if name not in {"id", "created"}}


def plain(model):
    return lambda provider: plainly(litellm.completion(model=model, messages=HI, api_base=base(provider, model)))


def stream(model):
    return lambda provider: [
        chunk.choices[0].delta.content
        for chunk in litellm.completion(model=model, messages=HI, api_base=base(provider, model), stream=True)
    ]


def aplain(model):
    async def ask(provider):
        return plainly(await litellm.acompletion(model=model, messages=HI, api_base=base(provider, model)))

    return lambda provider: asyncio.run(ask(provider))


def astream(model):
    async def ask(provider):
        chunks = await litellm.acompletion(model=model, messages=HI, api_base=base(provider, model), stream=True)
        return [chunk.choices[0].delta.content async for chunk in chunks]

    return lambda provider: asyncio.run(ask(provider))


@pytest.mark.parametrize("first", ["sync", "async"])
@pytest.mark.parametrize(("ask", "aask"), [(plain, aplain), (stream, astream)], ids=["plain", "stream"])
@pytest.mark.parametrize("model", MODELS.values(), ids=MODELS)
def test_what_one_client_records_the_other_replays(suite, model, ask, aask, first):
    ways = {"sync": ask(model), "async": aask(model)}
    suite.check(ways.pop(first), *ways.values())
    assert [call.answer["content"] for call in suite.calls] == ["Within 30 days, grüße."]


def test_the_async_clients_use_aiohttp(suite):
    suite.record(aplain(MODELS["anthropic"]))
    assert suite.provider.requests[0].headers["accept-encoding"] == "gzip, deflate"


def test_without_its_aiohttp_transport(suite, monkeypatch):
    monkeypatch.setattr(litellm, "disable_aiohttp_transport", True)
    suite.check(aplain(MODELS["anthropic"]), plain(MODELS["anthropic"]))


def test_a_stream_that_breaks_off_is_not_recorded_though_older_ones_keep_silent_about_it(suite):
    suite.provider.script(Reply(drop_after=4, text="never to its end"))
    with contextlib.suppress(litellm.exceptions.APIConnectionError, litellm.exceptions.MidStreamFallbackError):
        suite.record(astream(MODELS["anthropic"]))
    assert [call.error.partition(":")[0] for call in suite.calls] == ["ClientPayloadError"]
    assert suite.entries() == ()
