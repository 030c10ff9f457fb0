"""langchain-openai and langchain-anthropic."""

from __future__ import annotations

import asyncio

import pytest
from pydantic import BaseModel
from sdk_kit import need

lc_openai, lc_anthropic = need("langchain_openai", "langchain_anthropic")


@pytest.fixture(autouse=True)
def fresh_clients():
    """langchain-openai keeps its async client, and with it connections of an event loop that is closed by then."""
    lc_openai.chat_models._client_utils._cached_async_httpx_client.cache_clear()


pytestmark = pytest.mark.usefixtures("left_open")


class Verdict(BaseModel):
    """Whether it may be returned."""

    approved: bool
    days: int


def models():
    return {
        "openai": lambda: lc_openai.ChatOpenAI(model="gpt-4o"),
        "openai responses": lambda: lc_openai.ChatOpenAI(model="gpt-4o", use_responses_api=True),
        "anthropic": lambda: lc_anthropic.ChatAnthropic(model="claude-sonnet-5-5", max_tokens=9),
    }


def known(message):
    """A message without the run that it was part of."""
    return message.model_dump(exclude={"id"})


def plain(model):
    return known(model().invoke("May I return it?"))


def aplain(model):
    return asyncio.run(ainvoke(model))


async def ainvoke(model):
    return known(await model().ainvoke("May I return it?"))


def stream(model):
    return [known(chunk) for chunk in model().stream("May I return it?")]


def astream(model):
    async def ask():
        return [known(chunk) async for chunk in model().astream("May I return it?")]

    return asyncio.run(ask())


@pytest.mark.parametrize("first", ["sync", "async"])
@pytest.mark.parametrize(("ask", "aask"), [(plain, aplain), (stream, astream)], ids=["plain", "stream"])
@pytest.mark.parametrize("model", models().values(), ids=models())
def test_what_one_way_records_the_other_replays(suite, model, ask, aask, first):
    ways = {"sync": lambda _: ask(model), "async": lambda _: aask(model)}
    suite.check(ways.pop(first), *ways.values())
    assert [call.answer["content"] for call in suite.calls] == ["Within 30 days, grüße."]


def test_structured_output(suite):
    def app(_):
        return lc_openai.ChatOpenAI(model="gpt-4o").with_structured_output(Verdict, method="json_schema").invoke("May I?")

    assert suite.check(app) == Verdict(approved=True, days=30)


def test_batches_run_in_threads_and_belong_to_the_test(suite):
    def app(_):
        return [known(message) for message in lc_openai.ChatOpenAI(model="gpt-4o").batch(["one", "two", "three"])]

    suite.check(app, requests=3)
    assert len(suite.calls) == 3
