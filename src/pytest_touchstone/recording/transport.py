"""The hook into httpx, httpx2 and aiohttp, and what SDKs build on them: requests with an owner go through the recorder.

The transport methods are wrapped on their classes, so that clients built before the hook are seen as well. Modules that are not imported
yet are hooked when they are; nothing is imported for the hook's sake.
"""

from __future__ import annotations

import functools
import importlib.abc
import sys
from typing import TYPE_CHECKING, Any, cast

from pytest_touchstone.recording.aiohttp_session import beneath, wrap_session
from pytest_touchstone.recording.exchange import PACKING
from pytest_touchstone.recording.key import WireRequest

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Iterator, Mapping, Sequence
    from importlib.machinery import ModuleSpec
    from types import ModuleType

    from pytest_touchstone.recording.exchange import Exchange, Handler, Stored

_HTTPX = (("HTTPTransport", "handle_request"), ("AsyncHTTPTransport", "handle_async_request"))
_AIOHTTP = (("AiohttpTransport", "handle_async_request"),)
TARGETS: Mapping[str, tuple[tuple[str, str], ...]] = {
    "httpx": _HTTPX,
    "httpx2": _HTTPX,
    "httpx_aiohttp.transport": _AIOHTTP,
    "openai._vendor.httpx_aiohttp.transport": _AIOHTTP,
    "anthropic._vendor.httpx_aiohttp.transport": _AIOHTTP,
    "aiohttp.client": (("ClientSession", "_request"),),
}


class TransportHooks:
    """Wraps the transports while started; `stop` puts the originals back."""

    def __init__(self, handler: Handler) -> None:
        """Change nothing yet."""
        self._handler = handler
        self._finder = _Finder(self)
        self._wrapped: dict[type, tuple[str, Any, Any]] = {}

    def start(self) -> None:
        """Wrap what is imported, and what will be."""
        sys.meta_path.insert(0, self._finder)
        self.catch_up()

    def catch_up(self) -> None:
        """Wrap the transports of modules that have been imported since."""
        for name in TARGETS:
            module = sys.modules.get(name)
            if module is not None:
                self.hook(name, module)

    def hook(self, name: str, module: ModuleType) -> None:
        """Wrap the transports of one module; those that are wrapped already stay as they are."""
        for class_name, method in TARGETS[name]:
            transport = getattr(module, class_name, None)
            if transport is None or transport in self._wrapped:
                continue
            original = getattr(transport, method)
            wrapper = _WRAPPERS[method](original, self._handler)
            setattr(transport, method, wrapper)
            self._wrapped[transport] = (method, original, wrapper)

    def stop(self) -> None:
        """Put the originals back; where somebody wrapped ours, it stays in the chain and lets everything pass."""
        if self._finder in sys.meta_path:
            sys.meta_path.remove(self._finder)
        for transport, (method, original, wrapper) in reversed(self._wrapped.items()):
            if transport.__dict__.get(method) is wrapper:
                setattr(transport, method, original)
        self._wrapped.clear()


class _Finder(importlib.abc.MetaPathFinder):
    """Sees the target modules being imported, and has them hooked afterwards."""

    def __init__(self, hooks: TransportHooks) -> None:
        self._hooks = hooks

    def find_spec(self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None) -> ModuleSpec | None:
        if fullname not in TARGETS:
            return None
        for finder in sys.meta_path:
            spec = None if finder is self else finder.find_spec(fullname, path, target)
            if spec is not None:
                if spec.loader is not None and hasattr(spec.loader, "exec_module"):
                    spec.loader = cast("Any", _Loader(spec.loader, self._hooks))
                return spec
        return None


class _Loader:
    """The module's own loader, which hooks the module once it is executed."""

    def __init__(self, loader: Any, hooks: TransportHooks) -> None:  # noqa: ANN401 - any loader
        self._loader = loader
        self._hooks = hooks

    def __getattr__(self, name: str) -> Any:  # noqa: ANN401 - whatever the loader has
        return getattr(self._loader, name)

    def exec_module(self, module: ModuleType) -> None:
        spec = module.__spec__
        if spec is not None:
            spec.loader = self._loader
        module.__loader__ = self._loader
        self._loader.exec_module(module)
        self._hooks.hook(module.__name__, module)


def _wrap_sync(original: Callable[..., Any], handler: Handler) -> Callable[..., Any]:
    @functools.wraps(original)
    def handle_request(transport: Any, request: Any) -> Any:  # noqa: ANN401 - httpx' or httpx2's
        if not handler.owned():
            handler.check_unowned(str(request.url))
            return original(transport, request)
        request.read()
        exchange = handler.begin(_wire_request(request))
        if exchange.stored is not None:
            return _replayed(request, exchange.stored)
        try:
            exchange.take_turn()
            response = original(transport, request)
        except BaseException as error:
            exchange.fail(error)
            raise
        return _live(request, response, exchange)

    return handle_request


def _wrap_async(original: Callable[..., Any], handler: Handler) -> Callable[..., Any]:
    @functools.wraps(original)
    async def handle_async_request(transport: Any, request: Any) -> Any:  # noqa: ANN401 - httpx' or httpx2's
        if not handler.owned():
            handler.check_unowned(str(request.url))
            return await original(transport, request)
        await request.aread()
        exchange = handler.begin(_wire_request(request))
        if exchange.stored is not None:
            return _replayed(request, exchange.stored)
        try:
            await exchange.atake_turn()
            with beneath():
                response = await original(transport, request)
        except BaseException as error:
            exchange.fail(error)
            raise
        return _live(request, response, exchange, asynchronous=True)

    return handle_async_request


_WRAPPERS: Mapping[str, Callable[[Callable[..., Any], Handler], Callable[..., Any]]] = {
    "handle_request": _wrap_sync,
    "handle_async_request": _wrap_async,
    "_request": wrap_session,
}


def _wire_request(request: Any) -> WireRequest:  # noqa: ANN401 - httpx' or httpx2's
    headers = {name.decode("latin-1").lower(): value.decode("latin-1") for name, value in request.headers.raw}
    return WireRequest(method=request.method, url=str(request.url), headers=headers, body=request.content)


def _package(request: Any) -> Any:  # noqa: ANN401 - a module
    """The package whose request this is, so that the response is of the same one."""
    return sys.modules[_package_name(cast("Any", type(request)))]


@functools.cache
def _package_name(kind: Any) -> str:  # noqa: ANN401 - a class
    roots = (str(parent.__module__).partition(".")[0] for parent in kind.__mro__)
    return next(root for root in roots if root in {"httpx", "httpx2"})


def _replayed(request: Any, stored: Stored) -> Any:  # noqa: ANN401 - httpx' or httpx2's
    package = _package(request)
    stream = _replay(package)(stored)
    return package.Response(stored.status, headers=dict(stored.headers), stream=stream, extensions={"http_version": b"HTTP/1.1"})


def _live(request: Any, response: Any, exchange: Exchange, *, asynchronous: bool = False) -> Any:  # noqa: ANN401 - as above
    package = _package(request)
    exchange.answered(response.status_code, dict(response.headers.items()))
    tee = (_async_tee if asynchronous else _sync_tee)(package)
    if response.headers.get("content-encoding", "identity").lower() == "identity":
        response.stream = tee(response.stream, response.stream, exchange)
        return response
    # The app gets the unpacked bytes, exactly as it will when they are replayed.
    headers = [(name, value) for name, value in response.headers.multi_items() if name.lower() not in PACKING]
    chunks = response.aiter_bytes() if asynchronous else response.iter_bytes()
    return package.Response(response.status_code, headers=headers, stream=tee(chunks, response, exchange), extensions=response.extensions)


# The streams derive from base classes of the package that the request belongs to, which is known at run time only.


class _Tee:
    def __init__(self, chunks: Any, source: Any, exchange: Exchange) -> None:  # noqa: ANN401 - a stream or a response
        self._chunks, self._source, self._exchange = chunks, source, exchange


@functools.cache
def _sync_tee(package: Any) -> Any:  # noqa: ANN401 - httpx or httpx2, and a class on a base of its own
    class SyncTee(_Tee, package.SyncByteStream):  # type: ignore[misc] # as said above
        def __iter__(self) -> Iterator[bytes]:
            chunks = iter(self._chunks)
            while True:
                try:
                    chunk = next(chunks)
                except StopIteration:
                    self._exchange.end()
                    return
                except Exception as error:
                    self._exchange.fail(error)
                    raise
                self._exchange.feed(chunk)
                try:
                    yield chunk
                except GeneratorExit:  # nobody reads on, though nobody closed the answer
                    self._exchange.close()
                    raise

        def close(self) -> None:
            try:
                self._exchange.close()
            finally:
                self._source.close()

    return SyncTee


@functools.cache
def _async_tee(package: Any) -> Any:  # noqa: ANN401 - as above
    class AsyncTee(_Tee, package.AsyncByteStream):  # type: ignore[misc] # as said above
        async def __aiter__(self) -> AsyncIterator[bytes]:
            chunks = aiter(self._chunks)
            while True:
                try:
                    chunk = await anext(chunks)
                except StopAsyncIteration:
                    self._exchange.end()
                    return
                except Exception as error:
                    self._exchange.fail(error)
                    raise
                self._exchange.feed(chunk)
                try:
                    yield chunk
                except GeneratorExit:  # as above
                    self._exchange.close()
                    raise

        async def aclose(self) -> None:
            try:
                self._exchange.close()
            finally:
                await self._source.aclose()

    return AsyncTee


@functools.cache
def _replay(package: Any) -> Any:  # noqa: ANN401 - as above
    class Replay(package.SyncByteStream, package.AsyncByteStream):  # type: ignore[misc] # as said above
        def __init__(self, stored: Stored) -> None:
            self._stored = stored

        def __iter__(self) -> Iterator[bytes]:
            yield self._stored.content
            if self._stored.truncated is not None:
                raise self._stored.truncated()

        async def __aiter__(self) -> AsyncIterator[bytes]:
            for chunk in self:
                yield chunk

    return Replay
