"""HTTP libraries as apps use them by themselves: httpx, httpx2, aiohttp."""

from __future__ import annotations

import asyncio
import threading

import pytest
from providers import Reply
from sdk_kit import HI, KEY, need

from pytest_touchstone.errors import NetworkBlocked, RecordingMiss
from pytest_touchstone.recording.aiohttp_session import wrap_session
from pytest_touchstone.recording.recorder import Recorder

ASKED = {"model": "gpt-4o", "messages": HI}
STREAMED = {**ASKED, "stream": True}
BEARER = {"authorization": f"Bearer {KEY}"}


def path(provider):
    return f"{provider.openai_url}/chat/completions"


def httpx_like(name):
    library = need(name)

    def plain(provider):
        return library.post(path(provider), json=ASKED, headers=BEARER).json()

    def stream(provider):
        with library.Client() as client, client.stream("POST", path(provider), json=STREAMED, headers=BEARER) as response:
            return list(response.iter_lines())

    async def aplain(provider):
        async with library.AsyncClient() as client:
            return (await client.post(path(provider), json=ASKED, headers=BEARER)).json()

    async def astream(provider):
        async with library.AsyncClient() as client, client.stream("POST", path(provider), json=STREAMED, headers=BEARER) as response:
            return [line async for line in response.aiter_lines()]

    return {"plain": (plain, run(aplain)), "stream": (stream, run(astream))}


def run(coroutine):
    return lambda provider: asyncio.run(coroutine(provider))


async def aiohttp_plain(provider):
    aiohttp = need("aiohttp")
    async with aiohttp.ClientSession(headers=BEARER) as session, session.post(path(provider), json=ASKED) as response:
        assert (response.status, response.reason, response.ok, response.content_type) == (200, "OK", True, "application/json")
        return await response.json()


async def aiohttp_stream(provider):
    aiohttp = need("aiohttp")
    async with aiohttp.ClientSession(headers=BEARER) as session, session.post(path(provider), json=STREAMED) as response:
        return [line.decode().rstrip("\n") async for line in response.content]


def ways(name):
    found = {library: httpx_like(library)[name] for library in ("httpx", "httpx2")}
    return {
        "httpx": found["httpx"][0],
        "async httpx": found["httpx"][1],
        "httpx2": found["httpx2"][0],
        "async httpx2": found["httpx2"][1],
        "aiohttp": run({"plain": aiohttp_plain, "stream": aiohttp_stream}[name]),
    }


@pytest.mark.parametrize("first", ["httpx", "async httpx", "httpx2", "async httpx2", "aiohttp"])
@pytest.mark.parametrize("name", ["plain", "stream"])
def test_what_one_library_records_every_library_replays(suite, name, first):
    apps = ways(name)
    suite.check(apps.pop(first), *apps.values())
    assert len(suite.calls) == 1


class TestAiohttp:
    @pytest.fixture
    def aiohttp(self):
        return need("aiohttp")

    def test_every_way_to_read_an_answer(self, suite, aiohttp):
        async def app(provider):
            said = []
            async with aiohttp.ClientSession() as session:
                for read in READS:
                    async with session.post(path(provider), json=STREAMED) as response:
                        said.append(await read(response))
                        assert response.content.at_eof() == (read is not read_some)
                response = await session.post(path(provider), json=STREAMED)
                said.append((await response.read()) + (await response.read()))
                response.release()
            return said

        suite.provider.answer = Reply(text="cut anywhere, grüße", chunk=7)
        assert len(set(map(repr, suite.check(run(app), requests=len(READS) + 1)[:4]))) == 1

    def test_packed_answers_of_sessions_that_unpack_them_themselves(self, suite, aiohttp):
        async def app(provider):
            async with (
                aiohttp.ClientSession(auto_decompress=False) as session,
                session.post(path(provider), json=ASKED, headers={"accept-encoding": "zstd"}) as response,
            ):
                return response.headers.get("content-encoding"), await response.json()

        suite.provider.answer = Reply(text="packed", gzip=True)
        assert suite.check(run(app))[0] is None
        assert suite.provider.requests[0].headers["accept-encoding"] == "gzip, deflate"

    def test_redirects_cookies_and_base_urls_are_the_sessions_business(self, suite, aiohttp):
        async def app(provider):
            async with (
                aiohttp.ClientSession(base_url=provider.url, raise_for_status=True) as session,
                session.get("/moved", params={"api_key": KEY}) as response,
            ):
                return response.status, response.url.path, [hop.status for hop in response.history], await response.json()

        suite.provider.script(Reply(status=302, body="", headers={"location": "/v1/models"}))
        assert suite.check(run(app), requests=2)[:3] == (200, "/v1/models", [302])

    def test_errors_are_raised_on_replay_too(self, suite, aiohttp):
        async def app(provider):
            async with aiohttp.ClientSession() as session:
                with pytest.raises(aiohttp.ClientResponseError, match="400") as caught:
                    await session.post(path(provider), json=ASKED, raise_for_status=True)
            return caught.value.status, caught.value.message

        suite.provider.answer = Reply(status=400, error="too long")
        assert suite.check(run(app)) == (400, "Bad Request")
        assert [call.error for call in suite.calls] == ["too long"]

    def test_bodies_of_every_kind(self, suite, aiohttp):
        async def app(provider):
            async def pieces():
                yield b"in "
                yield b"pieces"

            form = aiohttp.FormData({"model": "m"})
            form.add_field("file", b"content", filename="a.txt")
            said = []
            async with aiohttp.ClientSession() as session:
                for body in (None, b"bytes", "text", pieces(), form, {"a": "form"}):
                    async with session.post(f"{provider.url}/upload", data=body) as response:
                        said.append(await response.json())
            return said

        suite.check(run(app), requests=6)
        bodies = [request.body for request in suite.provider.requests]
        assert bodies[:4] == [b"", b"bytes", b"text", b"in pieces"]
        assert b"content" in bodies[4]

    def test_broken_connections_are_not_recorded(self, suite, aiohttp):
        async def app(provider):
            async with aiohttp.ClientSession() as session:
                with pytest.raises(aiohttp.ServerDisconnectedError):
                    await session.post(path(provider), json=ASKED)
                with pytest.raises(aiohttp.ClientPayloadError):
                    await (await session.post(path(provider), json=STREAMED)).read()

        suite.provider.script(Reply(drop_after=0), Reply(drop_after=2, text="never to its end"))
        suite.record(run(app))
        assert [(call.status, call.error.partition(":")[0]) for call in suite.calls] == [
            (None, "ServerDisconnectedError"),
            (200, "ClientPayloadError"),
        ]
        assert suite.entries() == ()

    def test_streams_closed_early_are_incomplete(self, suite, aiohttp):
        async def app(provider):
            async with aiohttp.ClientSession() as session, session.post(path(provider), json=STREAMED) as response:
                return await response.content.readline()

        async def reads_on(provider):
            async with aiohttp.ClientSession() as session, session.post(path(provider), json=STREAMED) as response:
                with pytest.raises(RecordingMiss, match="reads on where the app had closed the stream"):
                    await response.read()
                with pytest.raises((RecordingMiss, aiohttp.ClientConnectionError)):
                    await response.content.readany()

        closed = threading.Event()
        suite.provider.answer = Reply(text="long " * 50, wait=closed, pause_after=1)
        suite.record(run(app))
        closed.set()
        assert [entry.incomplete for entry in suite.entries()] == [True]
        suite.replay(run(reads_on))
        assert len(suite.misses) == 1

    def test_a_miss_makes_no_connection(self, suite, aiohttp):
        with pytest.raises(RecordingMiss, match=r"no recording answers a call of test_shop\.py::test_a"):
            suite.replay(run(aiohttp_plain))
        assert suite.provider.requests == []

    def test_middlewares_of_the_app_stay(self, suite, aiohttp):
        async def marks(request, handler):
            request.headers["x-mark"] = "yes"
            return await handler(request)

        async def app(provider):
            async with aiohttp.ClientSession(middlewares=(marks,)) as session, session.post(path(provider), json=ASKED) as response:
                await response.read()
            async with aiohttp.ClientSession() as session, session.post(path(provider), json=ASKED, middlewares=(marks,)) as response:
                return await response.json()

        suite.check(run(app), requests=2)
        assert [request.headers.get("x-mark") for request in suite.provider.requests] == ["yes", "yes"]


async def read_all(response):
    return await response.content.read()


async def read_lines(response):
    return b"".join([line async for line in response.content])


async def read_chunks(response):
    return b"".join([chunk async for chunk in response.content.iter_chunked(5)])


async def read_any(response):
    return b"".join([chunk async for chunk in response.content.iter_any()])


async def read_some(response):
    return await response.content.readexactly(6)


READS = (read_all, read_lines, read_chunks, read_any, read_some)


class TestNotRecorded:
    def test_requests_of_nobody_pass_and_are_blocked_where_recordings_are_only_replayed(self, suite):
        aiohttp = need("aiohttp")

        async def app(url):
            async with aiohttp.ClientSession() as session, session.get(url) as response:
                return response.status

        recorder = Recorder(mode="none", journal_dir=suite.root, rootdir=suite.root, environ={})
        recorder.start()
        try:
            assert asyncio.run(app(suite.provider.url)) == 200
            with pytest.raises(NetworkBlocked, match=r"something tried to reach 192\.0\.2\.1"):
                asyncio.run(app("http://192.0.2.1/"))
        finally:
            recorder.stop()

    def test_websockets_pass(self, suite):
        aiohttp = need("aiohttp")

        async def app(provider):
            async with aiohttp.ClientSession() as session:
                with pytest.raises(aiohttp.WSServerHandshakeError, match="Invalid response status"):
                    await session.ws_connect(provider.url)

        suite.record(run(app))
        assert (len(suite.provider.requests), suite.entries()) == (1, ())


class TestLeftUnread:
    """Streams that an app stops reading without closing them, as litellm does."""

    def test_what_the_garbage_collector_gets_is_stored_as_far_as_it_was_read(self, suite):
        httpx = need("httpx")

        def app(provider):
            client = httpx.Client()
            response = client.send(client.build_request("POST", path(provider), json=STREAMED), stream=True)
            return next(response.iter_raw()), client

        suite.provider.answer = Reply(text="long " * 50)
        with suite.session("missing"):
            _, client = app(suite.provider)
            assert [call.status for call in suite.calls] == [200]
        client.close()
        assert [entry.incomplete for entry in suite.entries()] == [True]

    def test_async_ones_as_well(self, suite):
        httpx = need("httpx")

        async def app(provider):
            async with httpx.AsyncClient() as client:
                response = await client.send(client.build_request("POST", path(provider), json=STREAMED), stream=True)
                await anext(response.aiter_raw())

        suite.provider.answer = Reply(text="long " * 50)
        with suite.session("missing"):
            asyncio.run(app(suite.provider))
            assert [call.status for call in suite.calls] == [200]
        assert [entry.incomplete for entry in suite.entries()] == [True]

    def test_what_is_still_held_is_stored_when_its_owner_is_done(self, suite):
        httpx = need("httpx")
        client = httpx.Client()
        suite.provider.answer = Reply(text="long " * 50)
        with suite.session("missing"):
            response = client.send(client.build_request("POST", path(suite.provider), json=STREAMED), stream=True)
            chunks = response.iter_raw()
            next(chunks)
            assert suite.calls == []
        assert [call.status for call in suite.calls] == [200]
        chunks.close()
        client.close()
        assert [entry.incomplete for entry in suite.entries()] == [True]


def test_an_aiohttp_that_cannot_read_bodies_is_left_alone(monkeypatch):
    payload = need("aiohttp.payload")
    monkeypatch.delattr(payload.Payload, "as_bytes")
    assert wrap_session(print, None) is print
