"""Models behind OpenAI's chat completions API, and behind the many servers that speak it."""

from __future__ import annotations

import json
import os
from typing import TYPE_CHECKING, Any, ClassVar

from pydantic import BaseModel, Field

from pytest_touchstone.models.client import Answer, Stop
from pytest_touchstone.models.sdk import SdkModel, parse_body

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from pydantic import JsonValue

    from pytest_touchstone.models.client import Ask

_STOPS: dict[str | None, Stop] = {"stop": "end", "length": "length", "content_filter": "content_filter"}


class _Message(BaseModel):
    content: str | None = None
    refusal: str | None = None
    tool_calls: list[Any] | None = None


class _Choice(BaseModel):
    message: _Message
    finish_reason: str | None = None


class _Completion(BaseModel):
    choices: list[_Choice] = Field(min_length=1)
    model: str | None = None


class OpenAIChat(SdkModel):
    """A model behind `/chat/completions`.

    A schema is asked for as a strict `response_format`. A server that rejects it is asked once more in the plainest form: the schema in
    words, and `max_tokens`, the older name of the limit.
    """

    provider: ClassVar[str] = "openai"
    sdk_class: ClassVar[str] = "OpenAI"
    sdk_error: ClassVar[str] = "OpenAIError"
    key_variable: ClassVar[str] = "OPENAI_API_KEY"
    home: ClassVar[str] = "api.openai.com"

    def connect(self, make: Callable[..., Any]) -> Any:  # noqa: ANN401 - an SDK client
        """Make an SDK client."""
        return make(api_key=os.environ.get(self.key_variable) or self.placeholder(), base_url=self.base_url, max_retries=0)

    def endpoint(self, client: Any) -> Any:  # noqa: ANN401 - an SDK client
        """The method that sends a request."""
        return client.chat.completions.with_streaming_response.create

    def requests(self, ask: Ask) -> Sequence[dict[str, Any]]:
        """The structured form, then the plain one; only one where no schema is asked for."""
        base: dict[str, Any] = {"model": self.model, "messages": _messages(ask.system, ask), "max_completion_tokens": ask.max_tokens}
        if ask.tools:
            base["tools"] = [dict(tool) for tool in ask.tools]
        if ask.schema is None:
            return [base]
        form = {"type": "json_schema", "json_schema": {"name": ask.schema_name, "schema": dict(ask.schema), "strict": True}}
        system = f"{ask.system}\n\n{_in_words(ask.schema)}"
        plain = {"model": self.model, "messages": _messages(system, ask), "max_tokens": ask.max_tokens}
        return [{**base, "response_format": form}, plain]

    def read(self, body: bytes, ask: Ask) -> Answer:  # noqa: ARG002 - the Anthropic side needs it
        """The first choice."""
        completion = parse_body(_Completion, body, "a chat completion")
        choice = completion.choices[0]
        refusal = choice.message.refusal
        return Answer(
            text=choice.message.content or "",
            calls_tools=bool(choice.message.tool_calls),
            stop="refusal" if refusal else _STOPS.get(choice.finish_reason, "other"),
            detail=refusal or "",
            model=completion.model or "",
        )


def _messages(system: str, ask: Ask) -> list[dict[str, Any]]:
    before = [{"role": "system", "content": system}] if system else []
    return [*before, *(dict(message) for message in ask.messages)]


def _in_words(schema: Mapping[str, JsonValue]) -> str:
    return (
        f"Answer with one JSON object and nothing else, no prose and no code fence. It must match this JSON schema:\n{json.dumps(schema)}"
    )
