"""What passes between the hooks on the wire and the recorder: one request, its answer, and who is asked about them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from pytest_touchstone.recording.key import WireRequest

# What says how bytes were packed on the way; recorded and handed-on bodies are unpacked.
PACKING = frozenset({"content-encoding", "content-length", "transfer-encoding"})


@dataclass(frozen=True, kw_only=True)
class Stored:
    """A recorded answer, ready to be given; `truncated` makes the error of reading on where the recording stops, None where it is whole."""

    status: int
    headers: Mapping[str, str]
    content: bytes
    truncated: Callable[[], BaseException] | None


class Exchange(Protocol):
    """One request and its answer, told of what the transport sees."""

    @property
    def stored(self) -> Stored | None: ...  # noqa: D102 - told by the class

    def take_turn(self) -> None: ...  # noqa: D102 - as above
    async def atake_turn(self) -> None: ...  # noqa: D102 - as above
    def answered(self, status: int, headers: Mapping[str, str]) -> None: ...  # noqa: D102 - told by the class
    def feed(self, chunk: bytes) -> None: ...  # noqa: D102 - as above
    def end(self) -> None: ...  # noqa: D102 - as above
    def close(self) -> None: ...  # noqa: D102 - as above
    def fail(self, error: BaseException) -> None: ...  # noqa: D102 - as above


class Handler(Protocol):
    """What the hook asks: whether a request has an owner, and what becomes of it."""

    def owned(self) -> bool: ...  # noqa: D102 - told by the class
    def check_unowned(self, url: str) -> None: ...  # noqa: D102 - as above
    def begin(self, request: WireRequest) -> Exchange: ...  # noqa: D102 - as above
