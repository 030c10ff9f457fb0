"""Triage: the text of a ticket in, JSON with its category, priority and team out."""

from __future__ import annotations

import os
from functools import cache

from openai import OpenAI

from support.prompt import CARELESS_TRIAGE, TRIAGE

DEFAULT_URL = "http://127.0.0.1:8000/v1"
DEFAULT_MODEL = "models/triage-base"
LONGEST_ANSWER = 64


@cache
def _client() -> OpenAI:
    return OpenAI(base_url=os.environ.get("SUPPORT_BASE_URL", DEFAULT_URL), api_key=os.environ.get("SUPPORT_API_KEY", "none-needed"))


def _prompt() -> str:
    return CARELESS_TRIAGE if os.environ.get("SUPPORT_TRIAGE_PROMPT") == "careless" else TRIAGE


def triage(ticket: str) -> str:
    """Label a ticket.

    Returns what the model said, unparsed: whoever uses the labels decides what to do about an answer that is not JSON.

    Raises:
        openai.OpenAIError: the model's server cannot be reached, or refused.
    """
    answer = _client().chat.completions.create(
        model=os.environ.get("SUPPORT_MODEL", DEFAULT_MODEL),
        messages=[{"role": "system", "content": _prompt()}, {"role": "user", "content": ticket}],
        max_tokens=LONGEST_ANSWER,
        temperature=0,
    )
    return answer.choices[0].message.content or ""
