"""Asking a model: one small protocol, and the values that go in and come out.

Judges, and whatever else of this package asks a model, know nothing of SDKs beyond this page.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal, Protocol

if TYPE_CHECKING:
    from collections.abc import Mapping

    from pydantic import JsonValue

Stop = Literal["end", "length", "refusal", "content_filter", "other"]


@dataclass(frozen=True, kw_only=True)
class Ask:
    """One question to a model.

    `messages` are the turns in OpenAI chat shape, their contents text: of user and assistant, and in a prompt that an app sent also system
    messages, tool calls and their results; `tools` are function tools in that shape. `system` stands before them, empty where the messages
    say it all. `schema` is the JSON schema of the object that the answer
    must be, None for free text; `schema_name` names it on the wire. `max_tokens` bounds the answer, thinking included.
    `timeout_s` bounds the whole question in seconds, from connecting to the last byte.
    No temperature is ever sent: newer models refuse it.
    """

    system: str
    messages: tuple[Mapping[str, Any], ...]
    tools: tuple[Mapping[str, Any], ...] = ()
    schema: Mapping[str, JsonValue] | None = None
    schema_name: str = "answer"
    max_tokens: int
    timeout_s: float


@dataclass(frozen=True, kw_only=True)
class Answer:
    """What a model said.

    `text` is the text it wrote, empty where it wrote none; `data` is the object it gave through a tool, None where it used none.
    `calls_tools` says whether it called other tools. `stop` says why it stopped: `end` is the only one that promises a whole answer.
    `detail` is the model's own word on a refusal. `model` is the model that the server says answered. All of it is untrusted.
    """

    text: str = ""
    data: JsonValue = None
    calls_tools: bool = False
    stop: Stop = "end"
    detail: str = ""
    model: str = ""


class AskFailed(Exception):
    """This time there was no answer; the message says why, and is safe to show.

    `retry` says whether the same question may be answered later, `retry_after_s` how many seconds the server asks to wait (None: it
    does not say).
    """

    def __init__(self, reason: str, *, retry: bool = True, retry_after_s: float | None = None) -> None:
        """Keep what a caller decides by."""
        self.reason = reason
        self.retry = retry
        self.retry_after_s = retry_after_s
        super().__init__(reason)


class ModelClient(Protocol):
    """One model behind one server.

    Both methods raise AskFailed when there is no answer this time, and ModelError when there cannot be one before the user changes
    something: the SDK or the key is missing, the model is unknown. They do not retry.
    """

    @property
    def spec(self) -> str:
        """The model as the user names it: `openai:gpt-5-mini`."""
        ...

    def ask(self, ask: Ask) -> Answer:
        """Ask and wait."""
        ...

    async def aask(self, ask: Ask) -> Answer:
        """Ask without blocking the event loop."""
        ...
