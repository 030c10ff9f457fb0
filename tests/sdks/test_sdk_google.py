"""google-genai: httpx for sync calls, aiohttp (or httpx) for async ones. Replayed, but not read as model calls."""

from __future__ import annotations

import asyncio
import os

import pytest
from sdk_kit import need

genai = need("google.genai")

# It leaves sessions open, and derives from aiohttp's session, which aiohttp discourages.
pytestmark = [
    pytest.mark.usefixtures("left_open"),
    pytest.mark.filterwarnings("ignore:Inheritance class AiohttpClientSession:DeprecationWarning"),
]

ASKED = {"model": "gemini-test", "contents": "May I return it?"}


def client(provider, **options):
    return genai.Client(
        api_key=os.environ["GEMINI_API_KEY"], http_options=genai.types.HttpOptions(base_url=provider.url, retry_options=None, **options)
    )


def plain(provider):
    with client(provider) as google:
        return google.models.generate_content(**ASKED).model_dump(exclude={"sdk_http_response"})


def stream(provider):
    with client(provider) as google:
        return [chunk.model_dump(exclude={"sdk_http_response"}) for chunk in google.models.generate_content_stream(**ASKED)]


async def aplain(google):
    return (await google.models.generate_content(**ASKED)).model_dump(exclude={"sdk_http_response"})


async def astream(google):
    return [chunk.model_dump(exclude={"sdk_http_response"}) async for chunk in await google.models.generate_content_stream(**ASKED)]


def asynchronous(ask, transport=None):
    async def inside(provider):
        options = {} if transport is None else {"httpx_async_client": need(transport).AsyncClient()}
        async with client(provider, **options).aio as google:
            return await ask(google)

    return lambda provider: asyncio.run(inside(provider))


@pytest.mark.parametrize("first", ["sync", "aiohttp", "httpx"])
@pytest.mark.parametrize(("ask", "aask"), [(plain, aplain), (stream, astream)], ids=["plain", "stream"])
def test_what_one_client_records_every_client_replays(suite, ask, aask, first):
    need("aiohttp")
    ways = {"sync": ask, "aiohttp": asynchronous(aask), "httpx": asynchronous(aask, "httpx")}
    suite.check(ways.pop(first), *ways.values())
    assert suite.calls == []
    assert suite.provider.requests[0].headers["user-agent"].startswith("google-genai-sdk")
