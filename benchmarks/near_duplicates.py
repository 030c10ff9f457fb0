"""What each threshold of the leak guard refuses, what it catches, and how long it takes: `near_duplicates.py [GSM8K_CASES]`.

Refused: pairs of train and holdout inputs of the example project's tickets, which are made from templates and are different; the same
for tickets of one split against each other (they share their phrases, so some are nearly the same), and for real questions (GSM8K, a
JSON line a question with its `input`; left out without the file). Caught: holdout inputs with a change planted, among all the others.
CPU seconds are those of this process, for 10,000 train and 2,000 holdout inputs put together from the sentences of both sets.
"""

from __future__ import annotations

import json
import random
import re
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING

from pytest_touchstone.export.leak import normal_text
from pytest_touchstone.export.near import Said, near_copies

if TYPE_CHECKING:
    from collections.abc import Sequence

TRIAGE = Path(__file__).parents[1] / "example_project" / "evals" / "triage.jsonl"
THRESHOLDS = (0.6, 0.65, 0.7, 0.75, 0.8, 0.85, 0.9)
EVERY = 4  # one holdout input in so many gets a copy planted
SEED = 3


def main(gsm8k: str | None = None) -> None:
    tickets = read(TRIAGE)
    train, holdout = ([case["input"] for case in tickets if case["split"] == split] for split in ("train", "holdout"))
    sets = {"tickets": (train, holdout)}
    if gsm8k is not None:
        questions = [case["input"] for case in read(Path(gsm8k))]
        random.Random(SEED).shuffle(questions)
        fifth = len(questions) // 5
        sets["GSM8K"] = (questions[fifth:], questions[:fifth])
    print("pairs refused at", *THRESHOLDS)
    for name, (one, two) in {**sets, "tickets of one split": halves(train)}.items():
        found = near_copies(said(one), said(two), threshold=min(THRESHOLDS))
        print(f"{name} ({len(one)} x {len(two)}):", *(sum(match.similarity >= limit for match in found) for limit in THRESHOLDS))
    print("part of planted copies caught at", *THRESHOLDS)
    for name, (one, two) in sets.items():
        print_caught(name, one, two)
    print_time([text for one, two in sets.values() for text in (*one, *two)])


def read(path: Path) -> list[dict[str, str]]:
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


def said(texts: Sequence[str]) -> list[Said]:
    return [Said(suite="suite", texts=(normal_text(text),)) for text in texts]


def halves(texts: Sequence[str]) -> tuple[list[str], list[str]]:
    mixed = random.Random(SEED).sample(list(texts), len(texts))
    return mixed[len(mixed) // 5 :], mixed[: len(mixed) // 5]


def print_caught(name: str, train: Sequence[str], holdout: Sequence[str]) -> None:
    rng = random.Random(SEED)
    words = sorted({word for text in train for word in text.split()})
    chosen = range(0, len(holdout), EVERY)
    copies = [planted(holdout[index], words, rng) for index in chosen]
    for change in copies[0]:
        found = near_copies(said([*train, *(copy[change] for copy in copies)]), said(holdout), threshold=min(THRESHOLDS))
        nearness = {(match.train, match.holdout): match.similarity for match in found}
        values = [nearness.get((len(train) + at, index), 0.0) for at, index in enumerate(chosen)]
        print(f"{name}, {change}:", *(f"{sum(value >= limit for value in values) / len(values):.2f}" for limit in THRESHOLDS))


def planted(text: str, words: Sequence[str], rng: random.Random) -> dict[str, str]:
    """Copies of a text, each with one kind of change."""
    own = text.split()
    one, two = rng.sample([at for at, word in enumerate(own) if len(word) > 3], 2)
    letter = rng.randrange(len(own[one]) - 1)
    swapped = own[one][:letter] + own[one][letter + 1] + own[one][letter] + own[one][letter + 2 :]
    return {
        "capitals": text.upper(),
        "no punctuation": re.sub(r"[^\w\s]", "", text),
        "politeness around it": f"Hi there, {text} Thank you very much in advance and have a nice day!",
        "sentences reordered": " ".join(shuffled(re.split(r"(?<=[.?!])\s+", text), rng)),
        "a word left out": " ".join(word for at, word in enumerate(own) if at != one),
        "letters swapped": " ".join(swapped if at == one else word for at, word in enumerate(own)),
        "one word another": " ".join(rng.choice(words) if at == one else word for at, word in enumerate(own)),
        "two words others": " ".join(rng.choice(words) if at in {one, two} else word for at, word in enumerate(own)),
        "all numbers others": re.sub(r"\d+", lambda _: str(rng.randint(2, 999)), text),
    }


def shuffled(parts: Sequence[str], rng: random.Random) -> list[str]:
    return rng.sample(list(parts), len(parts))


def print_time(texts: Sequence[str]) -> None:
    rng = random.Random(SEED)
    sentences = sorted({sentence for text in texts for sentence in re.split(r"(?<=[.?!])\s+", text)})
    train, holdout = ([" ".join(rng.sample(sentences, 4)) for _ in range(count)] for count in (10_000, 2_000))
    one, two = said(train), said(holdout)
    start = time.process_time()
    found = near_copies(one, two)
    print(f"10,000 x 2,000 inputs: {time.process_time() - start:.1f} s of CPU, {len(found)} pairs")


if __name__ == "__main__":
    main(*sys.argv[1:])
