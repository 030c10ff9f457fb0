"""Reply: drafts the answer to a customer, for a colleague to send."""

from __future__ import annotations

import os
from functools import cache

from anthropic import Anthropic

from support.prompt import REPLY

DEFAULT_MODEL = "claude-haiku-5-5"
LONGEST_ANSWER = 400


@cache
def _client() -> Anthropic:
    return Anthropic()


def reply(ticket: str) -> str:
    """Draft an answer to a ticket.

    Raises:
        anthropic.AnthropicError: the provider cannot be reached, or refused.
    """
    message = _client().messages.create(
        model=os.environ.get("SUPPORT_REPLY_MODEL", DEFAULT_MODEL),
        system=REPLY,
        messages=[{"role": "user", "content": ticket}],
        max_tokens=LONGEST_ANSWER,
    )
    return "".join(block.text for block in message.content if block.type == "text")
