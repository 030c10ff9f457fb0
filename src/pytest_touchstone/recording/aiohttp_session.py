"""The hook into aiohttp's sessions, for what uses them without httpx: google-genai's and litellm's async clients, and apps.

A request with an owner gets one more client middleware, the innermost, so that base URLs, cookies, redirects, time limits and
`raise_for_status` remain the session's business, on replay as well.
"""

from __future__ import annotations

import contextlib
import contextvars
import functools
import inspect
from http import HTTPStatus
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

from pytest_touchstone.recording.exchange import PACKING
from pytest_touchstone.recording.key import WireRequest

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Generator, Iterable

    from pytest_touchstone.recording.exchange import Exchange, Handler, Stored

_beneath: contextvars.ContextVar[bool] = contextvars.ContextVar("touchstone_beneath", default=False)
# What aiohttp can unpack wherever it is installed; httpx, on top of it, may ask for more.
_ACCEPTED = "gzip, deflate"


@contextlib.contextmanager
def beneath() -> Generator[None]:
    """Inside, requests belong to a request that is seen already, by the hook of a layer above."""
    token = _beneath.set(True)
    try:
        yield
    finally:
        _beneath.reset(token)


def wrap_session(original: Callable[..., Any], handler: Handler) -> Callable[..., Any]:
    """The `ClientSession._request` to put in place of the original; the original itself where aiohttp is too old to read bodies."""
    from aiohttp.payload import Payload

    if not hasattr(Payload, "as_bytes"):
        return original

    @functools.wraps(original)
    async def request(session: Any, method: str, url: Any, **kwargs: Any) -> Any:  # noqa: ANN401 - aiohttp's
        if _beneath.get():
            return await original(session, method, url, **kwargs)
        if not handler.owned():
            handler.check_unowned(str(url))
            return await original(session, method, url, **kwargs)
        middlewares = kwargs.pop("middlewares", None)
        outer = session._middlewares if middlewares is None else middlewares  # noqa: SLF001 - a request's replace the session's, ours must not
        # Unpacked by aiohttp, whoever would have done it: what is recorded is readable, and searched for secrets.
        unpacks = kwargs.pop("auto_decompress", None)
        packed = not (session._auto_decompress if unpacks is None else unpacks)  # noqa: SLF001 - as above
        ours = _middleware(session, handler, packed=packed)
        return await original(session, method, url, middlewares=(*outer, ours), auto_decompress=True, **kwargs)

    return request


def _middleware(session: Any, handler: Handler, *, packed: bool) -> Callable[..., Awaitable[Any]]:  # noqa: ANN401 - as above
    async def through_the_recorder(request: Any, send: Callable[[Any], Awaitable[Any]]) -> Any:  # noqa: ANN401 - as above
        if "upgrade" in request.headers:
            return await send(request)  # a WebSocket is no exchange of one request and one answer
        exchange = handler.begin(await _wire_request(request))
        if exchange.stored is not None:
            return _replayed(session, request, exchange.stored)
        if packed:
            request.headers["accept-encoding"] = _ACCEPTED
        try:
            await exchange.atake_turn()
            response = await send(request)
        except BaseException as error:
            exchange.fail(error)
            raise
        return await _live(response, exchange)

    return through_the_recorder


async def _wire_request(request: Any) -> WireRequest:  # noqa: ANN401 - as above
    headers = {name.lower(): value for name, value in request.headers.items()}
    body = request.body
    content = bytes(body) if isinstance(body, (bytes, bytearray)) else await body.as_bytes()
    return WireRequest(method=request.method, url=str(request.url), headers=headers, body=content)


def _replayed(session: Any, request: Any, stored: Stored) -> Any:  # noqa: ANN401 - as above
    parts = [stored.content]

    async def pull() -> bytes:
        if not parts and stored.truncated is not None:
            raise stored.truncated()
        return parts.pop() if parts else b""

    response = _response(session, request)
    response.status, response.reason = stored.status, ""
    with contextlib.suppress(ValueError):  # a status of the provider's own
        response.reason = HTTPStatus(stored.status).phrase
    _set_headers(response, stored.headers.items())
    response.content = _reader()(pull, _unheard)
    response.content.on_eof(response._response_eof)  # noqa: SLF001 - as aiohttp's own start() does
    response._closed = False  # noqa: SLF001 - as above
    return response


def _unheard(*_: object, **__: object) -> None:
    """A replayed answer is closed: nobody has to be told."""


def _response(session: Any, request: Any) -> Any:  # noqa: ANN401 - as above
    """A response without a connection, made as `ClientRequest.send` makes one."""
    from aiohttp import HttpVersion11

    arguments: dict[str, Any] = {
        "writer": None,
        "continue100": None,
        "timer": None,
        "request_info": request.request_info,
        "traces": [],
        "loop": request.loop,
        "session": session,
        "stream_writer": SimpleNamespace(output_size=0),
    }
    kind = request.response_class
    taken = inspect.signature(kind).parameters
    response = kind(request.method, request.original_url, **{name: value for name, value in arguments.items() if name in taken})
    response.version = HttpVersion11
    return response


def _set_headers(response: Any, headers: Iterable[tuple[str, str]]) -> None:  # noqa: ANN401 - as above
    from multidict import CIMultiDict, CIMultiDictProxy

    pairs = list(headers)
    response._headers = CIMultiDictProxy(CIMultiDict(pairs))  # noqa: SLF001 - as above
    response._raw_headers = tuple((name.encode("latin-1"), value.encode("latin-1")) for name, value in pairs)  # noqa: SLF001 - as above
    for property_ in ("headers", "raw_headers"):
        response._cache.pop(property_, None)  # noqa: SLF001 - as above


async def _live(response: Any, exchange: Exchange) -> Any:  # noqa: ANN401 - as above
    exchange.answered(response.status, {name: ", ".join(response.headers.getall(name)) for name in response.headers})
    if "content-encoding" in response.headers:
        _set_headers(response, [(name, value) for name, value in response.headers.items() if name.lower() not in PACKING])
    source = response.content

    async def pull() -> bytes:
        try:
            chunk: bytes = await source.readany()
        except Exception as error:
            exchange.fail(error)
            raise
        if chunk:
            exchange.feed(chunk)
        else:
            exchange.end()
        return chunk

    def closed(*args: Any, **kwargs: Any) -> None:  # noqa: ANN401 - as set_exception is called
        exchange.close()
        source.set_exception(*args, **kwargs)

    response.content = _reader()(pull, closed)
    if response.status >= 300:
        await response.read()  # nobody else does where the session follows a redirect or raises for the status
    return response


@functools.cache
def _reader() -> Any:  # noqa: ANN401 - a class on a base that is known at run time only
    import asyncio

    from aiohttp import StreamReader
    from aiohttp.base_protocol import BaseProtocol

    class Reader(StreamReader):
        """Takes the next chunk where the app waits for one."""

        __slots__ = ("_closed", "_pull")

        def __init__(self, pull: Callable[[], Awaitable[bytes]], closed: Callable[..., None]) -> None:
            loop = asyncio.get_running_loop()
            super().__init__(BaseProtocol(loop), 2**16, loop=loop)
            self._pull, self._closed = pull, closed

        async def _wait(self, func_name: str) -> None:  # noqa: ARG002 - aiohttp's signature
            chunk = await self._pull()
            if chunk:
                self.feed_data(chunk)
            else:
                self.feed_eof()

        def set_exception(self, exc: BaseException, *args: Any, **kwargs: Any) -> None:  # noqa: ANN401 - they differ between versions
            """The app closed the response, read or not."""
            self._closed(exc, *args, **kwargs)
            super().set_exception(exc, *args, **kwargs)

    return Reader
