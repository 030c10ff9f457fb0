"""openai, over httpx2 and over aiohttp."""

from __future__ import annotations

import asyncio

import pytest
from providers import Reply
from pydantic import BaseModel
from sdk_kit import HI, need

openai = need("openai")

MODEL = "gpt-4o"
TOOLS = [
    {"type": "function", "function": {"name": "refund", "parameters": {"type": "object", "properties": {"order": {"type": "integer"}}}}}
]


class Verdict(BaseModel):
    approved: bool
    days: int


def plain(client):
    return client.chat.completions.create(model=MODEL, messages=HI).model_dump()


async def aplain(client):
    return (await client.chat.completions.create(model=MODEL, messages=HI)).model_dump()


def stream(client):
    with client.chat.completions.create(model=MODEL, messages=HI, stream=True) as chunks:
        return [chunk.model_dump() for chunk in chunks]


async def astream(client):
    return [chunk.model_dump() async for chunk in await client.chat.completions.create(model=MODEL, messages=HI, stream=True)]


USAGE = {"stream": True, "stream_options": {"include_usage": True}}


def stream_usage(client):
    with client.chat.completions.create(model=MODEL, messages=HI, **USAGE) as chunks:
        return [chunk.model_dump() for chunk in chunks]


async def astream_usage(client):
    return [chunk.model_dump() async for chunk in await client.chat.completions.create(model=MODEL, messages=HI, **USAGE)]


def stream_helper(client):
    with client.chat.completions.stream(model=MODEL, messages=HI) as events:
        return [event.type for event in events] + [events.get_final_completion().model_dump()]


async def astream_helper(client):
    async with client.chat.completions.stream(model=MODEL, messages=HI) as events:
        return [event.type async for event in events] + [(await events.get_final_completion()).model_dump()]


def tools(client):
    return client.chat.completions.create(model=MODEL, messages=HI, tools=TOOLS).choices[0].message.model_dump()


async def atools(client):
    return (await client.chat.completions.create(model=MODEL, messages=HI, tools=TOOLS)).choices[0].message.model_dump()


def parsed(client):
    answer = client.chat.completions.parse(model=MODEL, messages=HI, response_format=Verdict).choices[0].message.parsed
    assert answer == Verdict(approved=True, days=30)
    return answer


async def aparsed(client):
    return (await client.chat.completions.parse(model=MODEL, messages=HI, response_format=Verdict)).choices[0].message.parsed


def raw(client):
    response = client.chat.completions.with_raw_response.create(model=MODEL, messages=HI)
    return response.status_code, response.request_id, response.parse().model_dump()


async def araw(client):
    response = await client.chat.completions.with_raw_response.create(model=MODEL, messages=HI)
    return response.status_code, response.request_id, response.parse().model_dump()


def streaming_response(client):
    with client.chat.completions.with_streaming_response.create(model=MODEL, messages=HI) as response:
        return b"".join(response.iter_bytes())


async def astreaming_response(client):
    async with client.chat.completions.with_streaming_response.create(model=MODEL, messages=HI) as response:
        return b"".join([part async for part in response.iter_bytes()])


def responses(client):
    return client.responses.create(model=MODEL, input="hi").model_dump()


async def aresponses(client):
    return (await client.responses.create(model=MODEL, input="hi")).model_dump()


def responses_stream(client):
    with client.responses.create(model=MODEL, input="hi", stream=True) as events:
        return [event.model_dump() for event in events]


async def aresponses_stream(client):
    return [event.model_dump() async for event in await client.responses.create(model=MODEL, input="hi", stream=True)]


def responses_parsed(client):
    return client.responses.parse(model=MODEL, input="hi", text_format=Verdict).output_parsed


async def aresponses_parsed(client):
    return (await client.responses.parse(model=MODEL, input="hi", text_format=Verdict)).output_parsed


def upload(client):
    return client.files.create(file=("a.jsonl", b"a file"), purpose="batch").model_dump()


async def aupload(client):
    return (await client.files.create(file=("a.jsonl", b"a file"), purpose="batch")).model_dump()


def embeddings(client):
    return client.embeddings.create(model="e", input="hi", encoding_format="float").data[0].embedding


async def aembeddings(client):
    return (await client.embeddings.create(model="e", input="hi", encoding_format="float")).data[0].embedding


def several(client):
    return [client.chat.completions.create(model=MODEL, messages=HI, n=1).model_dump() for _ in range(2)]


async def aseveral(client):
    return [(await client.chat.completions.create(model=MODEL, messages=HI, n=1)).model_dump() for _ in range(2)]


PAIRS = {
    "plain": (plain, aplain),
    "stream": (stream, astream),
    "stream with usage": (stream_usage, astream_usage),
    "stream helper": (stream_helper, astream_helper),
    "tools": (tools, atools),
    "parse": (parsed, aparsed),
    "raw response": (raw, araw),
    "streaming response": (streaming_response, astreaming_response),
    "responses": (responses, aresponses),
    "responses stream": (responses_stream, aresponses_stream),
    "responses parse": (responses_parsed, aresponses_parsed),
    "upload": (upload, aupload),
    "embeddings": (embeddings, aembeddings),
    "twice": (several, aseveral),
}


def synchronous(ask):
    def app(_):
        with openai.OpenAI() as client:
            return ask(client)

    return app


def asynchronous(ask):
    async def inside():
        async with openai.AsyncOpenAI() as client:
            return await ask(client)

    return lambda _: asyncio.run(inside())


def over_aiohttp(ask):
    async def inside():
        async with openai.DefaultAioHttpClient() as transport, openai.AsyncOpenAI(http_client=transport) as client:
            return await ask(client)

    return lambda _: asyncio.run(inside())


def apps(names):
    ask, aask = PAIRS[names]
    return {"sync": synchronous(ask), "async": asynchronous(aask), "aiohttp": over_aiohttp(aask)}


@pytest.mark.parametrize("first", ["sync", "async", "aiohttp"])
@pytest.mark.parametrize("name", PAIRS)
def test_what_one_client_records_every_client_replays(suite, name, first):
    need("aiohttp")
    ways = apps(name)
    suite.check(ways.pop(first), *ways.values(), requests=2 if name == "twice" else 1)
    assert len(suite.calls) == {"upload": 0, "embeddings": 0, "twice": 2}.get(name, 1)


@pytest.mark.parametrize("way", [synchronous, asynchronous, over_aiohttp])
def test_the_answer_to_a_retry_is_what_is_recorded(suite, way):
    suite.provider.script(Reply(status=429, retry_after="0"), Reply(status=500, headers={"retry-after-ms": "1"}))
    name = 0 if way is synchronous else 1
    live = suite.record(way(PAIRS["plain"][name]))
    assert [call.status for call in suite.calls] == [429, 500, 200]
    assert suite.replay(way(PAIRS["plain"][name])) == live
    assert [(call.status, call.replayed) for call in suite.calls] == [(200, True)]
    assert len(suite.entries()) == 1


def test_tokens_are_told_where_the_wire_carries_them(suite):
    suite.record(synchronous(stream_usage))
    assert (suite.calls[0].usage.input_tokens, suite.calls[0].usage.output_tokens) == (11, 7)
    suite.record(synchronous(stream))
    assert suite.calls[0].usage.input_tokens is None
