"""mistralai, over httpx2; it speaks OpenAI's chat format."""

from __future__ import annotations

import asyncio
import os

import pytest
from sdk_kit import HI, need

mistral = need("mistralai.client")

ASKED = {"model": "mistral-small-latest", "messages": HI}


def client(provider):
    return mistral.Mistral(api_key=os.environ["MISTRAL_API_KEY"], server_url=provider.url)


def plain(provider):
    with client(provider) as chat:
        return chat.chat.complete(**ASKED).model_dump()


def stream(provider):
    with client(provider) as chat, chat.chat.stream(**ASKED) as events:
        return [event.data.model_dump() for event in events]


async def aplain(provider):
    async with client(provider) as chat:
        return (await chat.chat.complete_async(**ASKED)).model_dump()


async def astream(provider):
    async with client(provider) as chat:
        return [event.data.model_dump() async for event in await chat.chat.stream_async(**ASKED)]


@pytest.mark.parametrize("first", ["sync", "async"])
@pytest.mark.parametrize(("ask", "aask"), [(plain, aplain), (stream, astream)], ids=["plain", "stream"])
def test_what_one_client_records_every_client_replays(suite, ask, aask, first):
    ways = {"sync": ask, "async": lambda provider: asyncio.run(aask(provider))}
    suite.check(ways.pop(first), *ways.values())
    assert [call.answer["content"] for call in suite.calls] == ["Within 30 days, grüße."]
