"""Models behind Anthropic's messages API."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any, ClassVar

from pydantic import BaseModel, JsonValue

from pytest_touchstone.models.client import Answer, Stop
from pytest_touchstone.models.sdk import SdkModel, parse_body

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence

    from pytest_touchstone.models.client import Ask

_STOPS: dict[str | None, Stop] = {
    "end_turn": "end",
    "stop_sequence": "end",
    "tool_use": "end",
    "max_tokens": "length",
    "model_context_window_exceeded": "length",
    "refusal": "refusal",
}


_SYSTEM = frozenset({"system", "developer"})


class _Block(BaseModel):
    type: str
    text: str = ""
    name: str = ""
    input: JsonValue = None


class _StopDetails(BaseModel):
    explanation: str | None = None


class _Message(BaseModel):
    content: list[_Block]
    stop_reason: str | None = None
    stop_details: _StopDetails | None = None
    model: str | None = None


class AnthropicMessages(SdkModel):
    """A model behind `/v1/messages`.

    A schema is asked for as the input of a tool that the model must call: every Claude model and every compatible server knows tools,
    while the structured-output feature is limited to some. Credentials are found as the SDK finds them: ANTHROPIC_API_KEY,
    ANTHROPIC_AUTH_TOKEN, or a profile.
    """

    provider: ClassVar[str] = "anthropic"
    sdk_class: ClassVar[str] = "Anthropic"
    sdk_error: ClassVar[str] = "AnthropicError"
    key_variable: ClassVar[str] = "ANTHROPIC_API_KEY"
    home: ClassVar[str] = "api.anthropic.com"

    def connect(self, make: Callable[..., Any]) -> Any:  # noqa: ANN401 - an SDK client
        """Make an SDK client, its OpenTelemetry spans off."""
        client = make(base_url=self.base_url, max_retries=0, open_telemetry=False)
        if client.api_key or client.auth_token or client.credentials:
            return client
        return make(api_key=self.placeholder(), base_url=self.base_url, max_retries=0, open_telemetry=False)

    def endpoint(self, client: Any) -> Any:  # noqa: ANN401 - an SDK client
        """The method that sends a request."""
        return client.messages.with_streaming_response.create

    def requests(self, ask: Ask) -> Sequence[dict[str, Any]]:
        """One form: a forced tool call where a schema is asked for."""
        system = "\n\n".join(filter(None, [ask.system, *(str(each["content"]) for each in ask.messages if each["role"] in _SYSTEM)]))
        base: dict[str, Any] = {
            "model": self.model,
            **({"system": system} if system else {}),
            "messages": _turns(ask.messages),
            "max_tokens": ask.max_tokens,
        }
        if ask.tools:
            base["tools"] = [_tool(tool["function"]) for tool in ask.tools]
        if ask.schema is None:
            return [base]
        tool = {"name": ask.schema_name, "description": f"Hand in the {ask.schema_name}.", "input_schema": dict(ask.schema)}
        choice = {"type": "tool", "name": ask.schema_name, "disable_parallel_tool_use": True}
        return [{**base, "tools": [tool], "tool_choice": choice}]

    def read(self, body: bytes, ask: Ask) -> Answer:
        """The text blocks joined, and the input of the tool where it was called once."""
        message = parse_body(_Message, body, "an Anthropic message")
        calls = [block.input for block in message.content if block.type == "tool_use" and block.name == ask.schema_name]
        return Answer(
            text="".join(block.text for block in message.content if block.type == "text"),
            data=calls[0] if len(calls) == 1 else None,
            calls_tools=any(block.type == "tool_use" and block.name != ask.schema_name for block in message.content),
            stop=_STOPS.get(message.stop_reason, "other"),
            detail=(message.stop_details and message.stop_details.explanation) or "",
            model=message.model or "",
        )


def _turns(messages: Iterable[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """The turns in Anthropic's shape: results of tools are the user's, and those that follow each other stand in one message."""
    turns: list[dict[str, Any]] = []
    for message in messages:
        if message["role"] in _SYSTEM:
            continue
        if message["role"] == "tool":
            result = {"type": "tool_result", "tool_use_id": message["tool_call_id"], "content": message.get("content") or ""}
            if turns and turns[-1]["role"] == "user" and isinstance(turns[-1]["content"], list):
                turns[-1]["content"].append(result)
            else:
                turns.append({"role": "user", "content": [result]})
        elif message.get("tool_calls"):
            text = [{"type": "text", "text": message["content"]}] if message.get("content") else []
            turns.append({"role": "assistant", "content": [*text, *map(_tool_use, message["tool_calls"])]})
        else:
            turns.append({"role": message["role"], "content": message["content"]})
    return turns


def _tool_use(call: Mapping[str, Any]) -> dict[str, Any]:
    function = call["function"]
    return {"type": "tool_use", "id": call["id"], "name": function["name"], "input": json.loads(function["arguments"])}


def _tool(function: Mapping[str, Any]) -> dict[str, Any]:
    described = {"description": function["description"]} if function.get("description") else {}
    return {"name": function["name"], **described, "input_schema": function.get("parameters") or {"type": "object", "properties": {}}}
