"""anthropic, over httpx2 and over aiohttp."""

from __future__ import annotations

import asyncio

import pytest
from providers import Reply
from sdk_kit import HI, need

anthropic = need("anthropic")

MODEL = "claude-sonnet-5-5"
TOOLS = [{"name": "refund", "description": "Pay back.", "input_schema": {"type": "object", "properties": {"order": {"type": "integer"}}}}]
ASKED = {"model": MODEL, "max_tokens": 9, "messages": HI}


def plain(client):
    return client.messages.create(**ASKED).model_dump()


async def aplain(client):
    return (await client.messages.create(**ASKED)).model_dump()


def stream(client):
    with client.messages.create(**ASKED, stream=True) as events:
        return [event.model_dump() for event in events]


async def astream(client):
    return [event.model_dump() async for event in await client.messages.create(**ASKED, stream=True)]


def stream_helper(client):
    with client.messages.stream(**ASKED) as events:
        return [*events.text_stream, events.get_final_message().model_dump()]


async def astream_helper(client):
    async with client.messages.stream(**ASKED) as events:
        return [text async for text in events.text_stream] + [(await events.get_final_message()).model_dump()]


def tools(client):
    return client.messages.create(**ASKED, tools=TOOLS).content[0].model_dump()


async def atools(client):
    return (await client.messages.create(**ASKED, tools=TOOLS)).content[0].model_dump()


def raw(client):
    response = client.messages.with_raw_response.create(**ASKED)
    return response.status_code, response.headers.get("content-type"), response.parse().model_dump()


async def araw(client):
    response = await client.messages.with_raw_response.create(**ASKED)
    return response.status_code, response.headers.get("content-type"), (await response.parse()).model_dump()


def streaming_response(client):
    with client.messages.with_streaming_response.create(**ASKED) as response:
        return b"".join(response.iter_bytes())


async def astreaming_response(client):
    async with client.messages.with_streaming_response.create(**ASKED) as response:
        return b"".join([part async for part in response.iter_bytes()])


PAIRS = {
    "plain": (plain, aplain),
    "stream": (stream, astream),
    "stream helper": (stream_helper, astream_helper),
    "tools": (tools, atools),
    "raw response": (raw, araw),
    "streaming response": (streaming_response, astreaming_response),
}


def synchronous(ask):
    def app(_):
        with anthropic.Anthropic() as client:
            return ask(client)

    return app


def asynchronous(ask):
    async def inside():
        async with anthropic.AsyncAnthropic() as client:
            return await ask(client)

    return lambda _: asyncio.run(inside())


def over_aiohttp(ask):
    async def inside():
        async with anthropic.DefaultAioHttpClient() as transport, anthropic.AsyncAnthropic(http_client=transport) as client:
            return await ask(client)

    return lambda _: asyncio.run(inside())


@pytest.mark.parametrize("first", ["sync", "async", "aiohttp"])
@pytest.mark.parametrize("name", PAIRS)
def test_what_one_client_records_every_client_replays(suite, name, first):
    need("aiohttp")
    ask, aask = PAIRS[name]
    ways = {"sync": synchronous(ask), "async": asynchronous(aask), "aiohttp": over_aiohttp(aask)}
    suite.check(ways.pop(first), *ways.values())
    assert [(call.usage.input_tokens, call.usage.output_tokens) for call in suite.calls] == [(11, 7)]


def test_the_answer_to_a_retry_is_what_is_recorded(suite):
    suite.provider.script(Reply(status=529, retry_after="0"))
    live = suite.record(synchronous(plain))
    assert [call.status for call in suite.calls] == [529, 200]
    assert suite.replay(asynchronous(aplain)) == live
    assert [(call.status, call.replayed) for call in suite.calls] == [(200, True)]
