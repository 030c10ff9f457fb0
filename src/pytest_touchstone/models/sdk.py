"""What the official OpenAI and Anthropic SDKs share: how their clients are made, kept, called and understood when they fail.

Retries, waits and the deadline over them belong to the caller, so the SDKs' own retries are off. Nothing here imports an SDK before a
model is asked.
"""

from __future__ import annotations

import asyncio
import atexit
import contextlib
import hashlib
import importlib
import os
import threading
import time
import weakref
from abc import ABC, abstractmethod
from typing import TYPE_CHECKING, Any, ClassVar, TypeVar
from urllib.parse import urlsplit

from pydantic import BaseModel, ValidationError

from pytest_touchstone.errors import ModelError
from pytest_touchstone.models.client import AskFailed
from pytest_touchstone.models.faults import Rejected, check_base_url, safe, status_fault

if TYPE_CHECKING:
    from asyncio import AbstractEventLoop
    from collections.abc import AsyncGenerator, Callable, Generator, Iterator, Sequence
    from types import ModuleType

    from pytest_touchstone.models.client import Answer, Ask

Body = TypeVar("Body", bound=BaseModel)

MAX_ANSWER_BYTES = 8 * 1024 * 1024
MAX_CONNECT_S = 10.0

# What a server that asks for no key is sent in its place: long enough that nothing else reads like it.
NO_KEY = "touchstone-sends-no-key"


class Clients:
    """The SDK clients of this process: they hold connections, so there is one for each server and credential.

    Async clients belong to one event loop as well, and are closed with it. The values are SDK objects; the keys are digests, so that
    neither a credential nor a URL that holds one shows up in a traceback.
    """

    def __init__(self) -> None:
        """Start empty."""
        self._lock = threading.Lock()
        self._sync: dict[str, Any] = {}
        self._async: weakref.WeakKeyDictionary[AbstractEventLoop, dict[str, tuple[Any, AsyncGenerator[None, None]]]] = (
            weakref.WeakKeyDictionary()
        )

    def get(self, key: str, new: Callable[[], Any]) -> Any:  # noqa: ANN401 - an SDK client of either SDK
        """The sync client of this key, made on first use."""
        with self._lock:
            if not self._sync:
                atexit.register(self.close)
            if key not in self._sync:
                self._sync[key] = new()
            return self._sync[key]

    async def aget(self, key: str, new: Callable[[], Any]) -> Any:  # noqa: ANN401 - as above
        """The async client of this key and the running loop, made on first use and closed when the loop shuts down."""
        loop = asyncio.get_running_loop()
        with self._lock:
            self._forget_closed_loops()
            clients = self._async.setdefault(loop, {})
            if key in clients:
                return clients[key][0]
            client = new()
            closer = self._close_with(loop, client)
            clients[key] = client, closer
        # A loop closes the async generators that were started on it as its last act, while it can still run their `finally`:
        # the one public moment at which a client can close its connections. Left open, they would warn when they are collected.
        await anext(closer)
        return client

    def close(self) -> None:
        """Close every sync client."""
        with self._lock:
            while self._sync:
                self._sync.popitem()[1].close()

    def _forget_closed_loops(self) -> None:
        # A client refers to its loop through its connections, so weak keys alone would keep both.
        for loop in [loop for loop in self._async if loop.is_closed()]:
            del self._async[loop]

    async def _close_with(self, loop: AbstractEventLoop, client: Any) -> AsyncGenerator[None, None]:  # noqa: ANN401 - as above
        try:
            yield
        finally:
            self._async.pop(loop, None)
            await client.close()


# Judges are made in test modules, before and beside any session object, so the process itself is the clients' home.
CLIENTS = Clients()


class SdkModel(ABC):
    """A model behind an official SDK; the subclasses know the wire format."""

    provider: ClassVar[str]
    sdk_class: ClassVar[str]
    sdk_error: ClassVar[str]
    key_variable: ClassVar[str]
    home: ClassVar[str]

    def __init__(
        self,
        model: str,
        *,
        base_url: str | None = None,
        clients: Clients = CLIENTS,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        """Name the model; `base_url` None means what the SDK would use. Connects to nothing yet."""
        self.model = model
        self.base_url = base_url
        self._clients = clients
        self._monotonic = monotonic

    @property
    def spec(self) -> str:
        """The model as the user names it."""
        return f"{self.provider}:{self.model}"

    def ask(self, ask: Ask) -> Answer:
        """Ask and wait. One connection attempt (at most 10 s) may come on top of the time that is allowed.

        Raises:
            AskFailed: there is no answer this time.
            ModelError: there cannot be one before the user changes something.
        """
        deadline = self._monotonic() + ask.timeout_s
        client = self._clients.get(self._client_key(), lambda: self._connect(asynchronous=False))
        rejected: Rejected | None = None
        for request in self.requests(ask):
            try:
                with self._faults(ask), self.endpoint(client)(**request, timeout=self._timeout(deadline, ask)) as response:
                    return self.read(self._body(response.iter_bytes(), deadline, ask), ask)
            except Rejected as error:
                rejected = rejected or error
        assert rejected is not None
        raise rejected

    async def aask(self, ask: Ask) -> Answer:
        """As `ask`, without blocking the event loop, and never beyond the time that is allowed."""
        deadline = self._monotonic() + ask.timeout_s
        client = await self._clients.aget(self._client_key(), lambda: self._connect(asynchronous=True))
        rejected: Rejected | None = None
        for request in self.requests(ask):
            try:
                with self._faults(ask):
                    async with asyncio.timeout(max(deadline - self._monotonic(), 0)):
                        async with self.endpoint(client)(**request, timeout=self._timeout(deadline, ask)) as response:
                            chunks = [chunk async for chunk in _limited(response.iter_bytes())]
                            return self.read(b"".join(chunks), ask)
            except Rejected as error:
                rejected = rejected or error
        assert rejected is not None
        raise rejected

    @abstractmethod
    def requests(self, ask: Ask) -> Sequence[dict[str, Any]]:
        """The request in the forms to try, in order: the next is sent only if the server rejected the form of the one before.

        What was rejected is not remembered: each question sends the same requests however many went before it, or a recording of
        one test could not be replayed alone.
        """

    @abstractmethod
    def endpoint(self, client: Any) -> Any:  # noqa: ANN401 - as in Clients
        """The SDK's method that sends a request and gives the unread response."""

    @abstractmethod
    def read(self, body: bytes, ask: Ask) -> Answer:
        """The answer in a response body.

        Raises:
            AskFailed: the body is not what the provider documents.
        """

    @abstractmethod
    def connect(self, make: Callable[..., Any]) -> Any:  # noqa: ANN401 - as in Clients
        """Make an SDK client with `make`, its class, retries off."""

    def placeholder(self) -> str:
        """What to send where there is no key: fine for a server of the user's own.

        Raises:
            ModelError: the provider itself is to be asked, and it wants a key.
        """
        host = urlsplit(self._url() or f"https://{self.home}").hostname or self.home
        if host == self.home or host.endswith(f".{self.home}"):
            msg = f"{self.key_variable} is not set; export it, or give the base URL of a server that needs no key"
            raise ModelError(msg)
        return NO_KEY

    def _connect(self, *, asynchronous: bool) -> Any:  # noqa: ANN401 - as in Clients
        sdk = sdk_of(self.provider)
        check_base_url(self._url())
        try:
            return self.connect(getattr(sdk, f"{'Async' if asynchronous else ''}{self.sdk_class}"))
        except getattr(sdk, self.sdk_error) as error:
            raise self._sdk_says(error) from None

    def _url(self) -> str | None:
        return self.base_url or os.environ.get(f"{self.provider.upper()}_BASE_URL") or None

    def _sdk_says(self, error: Exception) -> ModelError:
        return ModelError(f"the {self.provider} SDK says: {safe(str(error))}")

    def _client_key(self) -> str:
        # Whatever the SDK reads from the environment belongs to the client's identity: a changed key is another client.
        prefix = f"{self.provider.upper()}_"
        environment = sorted((name, value) for name, value in os.environ.items() if name.startswith(prefix))
        return hashlib.sha256(repr((self.provider, self.base_url, environment)).encode("utf-8", "surrogateescape")).hexdigest()

    def _timeout(self, deadline: float, ask: Ask) -> Any:  # noqa: ANN401 - httpx2.Timeout, imported late
        import httpx2

        left = deadline - self._monotonic()
        if left <= 0:
            raise _too_late(ask)
        return httpx2.Timeout(left, connect=min(left, MAX_CONNECT_S))

    def _body(self, chunks: Iterator[bytes], deadline: float, ask: Ask) -> bytes:
        """The whole body: a server that keeps a connection alive byte by byte gets no more time than one that says nothing."""
        body = bytearray()
        for chunk in chunks:
            body += chunk
            if len(body) > MAX_ANSWER_BYTES:
                raise _too_big()
            if self._monotonic() > deadline:
                raise _too_late(ask)
        return bytes(body)

    @contextlib.contextmanager
    def _faults(self, ask: Ask) -> Generator[None]:
        """Turn what the SDK raises into our two errors. BaseExceptions, a missed recording among them, pass untouched."""
        import httpx2

        sdk = sdk_of(self.provider)
        try:
            yield
        except sdk.APIStatusError as error:
            raise status_fault(error.status_code, error.body, error.response.headers, key_variable=self.key_variable) from None
        except (sdk.APITimeoutError, httpx2.TimeoutException, TimeoutError):
            raise _too_late(ask) from None
        except (sdk.APIConnectionError, httpx2.RequestError) as error:
            cause = error.__cause__ or error
            msg = f"could not be reached ({type(cause).__name__}: {safe(str(cause))})"
            raise AskFailed(msg) from None
        except getattr(sdk, self.sdk_error) as error:
            raise self._sdk_says(error) from None


def sdk_of(provider: str) -> ModuleType:
    """The provider's official SDK.

    Raises:
        ModelError: it is not installed.
    """
    try:
        return importlib.import_module(provider)
    except ImportError:
        msg = f"the {provider} SDK is not installed; run pip install 'pytest-touchstone[{provider}]'"
        raise ModelError(msg) from None


def parse_body(shape: type[Body], body: bytes, what: str) -> Body:
    """The body as `shape`.

    Raises:
        AskFailed: it is something else.
    """
    try:
        return shape.model_validate_json(body)
    except ValidationError:
        msg = f"sent something that is not {what}: {safe(body.decode('utf-8', 'replace'), 120)}"
        raise AskFailed(msg) from None


async def _limited(chunks: Any) -> AsyncGenerator[bytes, None]:  # noqa: ANN401 - an SDK's async iterator
    size = 0
    async for chunk in chunks:
        size += len(chunk)
        if size > MAX_ANSWER_BYTES:
            raise _too_big()
        yield chunk


def _too_big() -> AskFailed:
    return AskFailed(f"sent more than {MAX_ANSWER_BYTES // 2**20} MiB", retry=False)


def _too_late(ask: Ask) -> AskFailed:
    return AskFailed(f"gave no answer within {ask.timeout_s:.3g} s")
