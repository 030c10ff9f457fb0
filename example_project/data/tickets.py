"""Tickets and their labels: what the desk's handbook says, and four house rules that overrule it, as they are and as they were.

Nothing here is heavy: the generator of the golden cases, the training script and the tests share it.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING

from data.phrases import ASIDES, FILLERS, HURRY, RULES, TOPICS, sentences

if TYPE_CHECKING:
    import random
    from collections.abc import Mapping, Sequence

    from data.phrases import Fillers

TEAMS = {
    "payment": "billing",
    "shipping": "delivery",
    "return": "returns",
    "account": "accounts",
    "product": "care",
    "fraud": "risk",
    "accident": "safety",
    "presale": "sales",
    "complaint": "complaints",
}
ALWAYS_URGENT = frozenset({"fraud", "accident"})

# The house policy: rule -> (priority, team). The category stays that of the topic.
POLICY = {
    "chargeback": ("urgent", "risk"),
    "battery": ("urgent", "safety"),
    "business": ("high", "sales"),
    "repeat": ("high", "complaints"),
}
# What it was when the base model was trained: every rule has changed since.
OLD_POLICY = {
    "chargeback": ("low", "billing"),
    "battery": ("normal", "care"),
    "business": ("normal", "accounts"),
    "repeat": ("low", "care"),
}
RULE_TOPICS = {
    "chargeback": ("payment", "shipping", "return"),
    "battery": ("product", "return", "shipping"),
    "business": ("payment", "shipping", "return", "account", "product"),
    "repeat": ("payment", "shipping", "return", "account", "product"),
}

_QUESTION = re.compile(r"^(How|Can|May|When|Where|Why|What|Which|Is|Are|Do|Does|Could|Would|Will|Have|Was)\b")


@dataclass(frozen=True, kw_only=True)
class Ticket:
    """What one ticket is about, before it is put into words; `hurry` is low, normal or high, `rule` a house rule or None."""

    topic: str
    hurry: str
    rule: str | None = None


def labels(ticket: Ticket, policy: Mapping[str, tuple[str, str]] = POLICY) -> dict[str, str]:
    """The right labels of a ticket under a policy.

    >>> labels(Ticket(topic="payment", hurry="low", rule="chargeback"))
    {'category': 'payment', 'priority': 'urgent', 'team': 'risk'}
    >>> labels(Ticket(topic="payment", hurry="low"))
    {'category': 'payment', 'priority': 'low', 'team': 'billing'}
    """
    priority = "urgent" if ticket.topic in ALWAYS_URGENT else ticket.hurry
    team = TEAMS[ticket.topic]
    if ticket.rule is not None:
        priority, team = policy[ticket.rule]
    return {"category": ticket.topic, "priority": priority, "team": team}


def write(ticket: Ticket, owner: str, rng: random.Random) -> str:
    """Put a ticket into the words of one data set: `base`, `train` or `holdout`."""
    fillers = FILLERS[owner]
    middle = [_say(TOPICS[ticket.topic], owner, rng)]
    if ticket.rule is not None:
        middle.append(_say(RULES[ticket.rule], owner, rng))
    if ticket.hurry != "normal":
        middle.append(_say(HURRY[ticket.hurry], owner, rng))
    if owner == "base" and rng.random() < 0.3:
        middle.append(_say(ASIDES, owner, rng))
    if rng.random() < 0.2:
        rng.shuffle(middle)
    opening = [rng.choice(fillers.openings)] if rng.random() < 0.6 else []
    closing = [rng.choice(fillers.closings)] if rng.random() < 0.6 else []
    return " ".join(_end(_fill(sentence, fillers, rng)) for sentence in (*opening, *middle, *closing))


def shingles(text: str) -> set[tuple[str, ...]]:
    """The runs of three words in a text, numbers aside: what nearness is measured by."""
    words = re.findall(r"[a-z]+", text.lower())
    return {tuple(words[at : at + 3]) for at in range(len(words) - 2)}


def near(one: set[tuple[str, ...]], other: set[tuple[str, ...]], limit: float = 0.4) -> bool:
    """Whether two texts, as shingles, share this part of all that they say (Jaccard), or more."""
    return len(one & other) >= limit * len(one | other)


def _say(patterns: Sequence[str], owner: str, rng: random.Random) -> str:
    ways = [found for pattern in patterns if (found := sentences(pattern, owner))]
    return rng.choice(rng.choice(ways))


def _fill(sentence: str, fillers: Fillers, rng: random.Random) -> str:
    return sentence.format(item=rng.choice(fillers.items), gadget=rng.choice(fillers.gadgets), order=rng.randint(*fillers.orders))


def _end(sentence: str) -> str:
    return sentence + ("?" if _QUESTION.match(sentence) else ".")
