"""Write the golden cases of the triage suite: `python -m data.make_cases`, from the folder above this one.

Seeded: the same program writes the same bytes.
"""

from __future__ import annotations

import json
import random
from pathlib import Path

from data.tickets import POLICY, RULE_TOPICS, TEAMS, Ticket, labels, near, shingles, write

SEED = 20
SIZES = {"train": 240, "holdout": 200}
POLICY_SHARE = 0.4
HURRY = ("low", "normal", "normal", "high")
CASES = Path(__file__).parent.parent / "evals" / "triage.jsonl"


def make_cases() -> list[dict[str, object]]:
    """The cases of both splits: distinct texts, and none in one split that is near a text of the other."""
    train = _make_split("train", avoid=[])
    return train + _make_split("holdout", avoid=[shingles(str(case["input"])) for case in train])


def draw_tickets(count: int, rng: random.Random) -> list[Ticket]:
    """What the cases are about, in random order: a fixed share touches each house rule, and the topics of the rest come in turn."""
    rules = list(POLICY)
    touched = round(count * POLICY_SHARE)
    with_rule = [_with_rule(rules[number % len(rules)], rng) for number in range(touched)]
    topics = list(TEAMS)
    without = [Ticket(topic=topics[number % len(topics)], hurry=rng.choice(HURRY)) for number in range(count - touched)]
    tickets = with_rule + without
    rng.shuffle(tickets)
    return tickets


def case_line(case: dict[str, object]) -> str:
    """One case as the line of the JSONL file that holds it."""
    return json.dumps(case, ensure_ascii=False) + "\n"


def main() -> None:
    """Write the file of both splits."""
    cases = make_cases()
    CASES.write_text("".join(case_line(case) for case in cases), encoding="utf-8")
    print(f"{CASES}: {len(cases)} cases")


def _make_split(split: str, avoid: list[set[tuple[str, ...]]]) -> list[dict[str, object]]:
    rng = random.Random(f"{SEED}-{split}")  # noqa: S311 - a reproducible draw, no secret
    seen: set[str] = set()
    cases = []
    for number, ticket in enumerate(draw_tickets(SIZES[split], rng), 1):
        text = write(ticket, split, rng)
        while text in seen or any(near(shingles(text), other) for other in avoid):
            text = write(ticket, split, rng)
        seen.add(text)
        cases.append(_case(split, number, ticket, text))
    return cases


def _with_rule(rule: str, rng: random.Random) -> Ticket:
    return Ticket(topic=rng.choice(RULE_TOPICS[rule]), hurry=rng.choice(HURRY), rule=rule)


def _case(split: str, number: int, ticket: Ticket, text: str) -> dict[str, object]:
    tags = [ticket.topic, *([f"policy:{ticket.rule}"] if ticket.rule else [])]
    return {"id": f"{split}-{number:03}", "input": text, "expected": labels(ticket), "split": split, "tags": tags}


if __name__ == "__main__":
    main()
