"""What Presidio takes for personal data, and how long: `personal_data.py false-alarms [TEXTS]` and `personal_data.py time [MODEL]`.

The first lists, for each of Presidio's recognisers that asks nothing of the network, the part of made-up numbers, dates and codes of a shop
that it takes for its own, at the threshold of exports. The second reads the tickets of the example project as an export does.
"""

from __future__ import annotations

import inspect
import json
import random
import string
import sys
import time
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING

from pytest_touchstone.export.presidio import RECOGNIZERS, THRESHOLD, presidio_finder

if TYPE_CHECKING:
    from presidio_analyzer import AnalyzerEngine, LocalRecognizer
    from spacy.tokens import Doc

TICKETS = Path(__file__).parents[1] / "example_project" / "evals" / "triage.jsonl"
# They need a model, or ask the network: for a list of domains, or for the answer itself.
LEFT_OUT = ("Azure", "Email", "Gliner", "GLiNER", "HuggingFace", "Lang", "NER", "Slim", "Spacy", "Stanza", "Transformers", "Url")
SENTENCES = (
    "My customer number is {}.",
    "Order #{} has not arrived.",
    "The duplicate invoice {} is wrong, please check my account.",
    "Tracking {} says delivered.",
    "I want a refund for {} including tax.",
    "Serial {}, bought in the United States.",
    "Please call me about {}.",
)


def made_up(chance: random.Random) -> str:
    """A number, a date or a code as it stands in a shop's mail."""

    def digits(count: int) -> str:
        return "".join(chance.choices(string.digits, k=count))

    def letters(count: int) -> str:
        return "".join(chance.choices(string.ascii_uppercase, k=count))

    day, month = f"{chance.randint(1, 28):02}", f"{chance.randint(1, 12):02}"
    return chance.choice(
        [
            digits(chance.randint(5, 15)),
            f"{digits(3)}-{digits(7)}-{digits(7)}",
            f"{digits(chance.randint(3, 5))}-{digits(chance.randint(2, 6))}",
            f"{digits(3)} {digits(3)} {digits(chance.choice([3, 4]))}",
            letters(chance.randint(1, 3)) + digits(chance.randint(4, 9)),
            digits(chance.randint(2, 8)) + letters(chance.randint(1, 2)),
            "".join(chance.choices(string.ascii_uppercase + string.digits, k=chance.randint(6, 12))),
            f"INV-20{digits(2)}-{digits(5)}",
            f"{letters(2)}-{letters(2)}{digits(7)}",
            chance.choice("/.-").join([day, month, f"20{digits(2)}"]),
            f"2026-{month}-{day} {chance.randint(0, 23):02}:{chance.randint(0, 59):02}",
            f"{chance.randint(1, 9)},{digits(3)}.{digits(2)} EUR",
            digits(13),
            f"1Z{letters(3)}{digits(14)}",
            "".join(chance.choices("0123456789abcdef", k=40)),
            f"{chance.randint(0, 9)}.{chance.randint(0, 20)}.{chance.randint(0, 40)}",
        ]
    )


def every_recognizer() -> list[LocalRecognizer]:
    from presidio_analyzer import LocalRecognizer, predefined_recognizers

    classes = [found for _, found in inspect.getmembers(predefined_recognizers, inspect.isclass) if issubclass(found, LocalRecognizer)]
    return [found(supported_language="en") for found in classes if not any(part in found.__name__ for part in LEFT_OUT)]


def analyzer(recognizers: list[LocalRecognizer]) -> AnalyzerEngine:
    import spacy
    from presidio_analyzer import AnalyzerEngine, RecognizerRegistry
    from presidio_analyzer.nlp_engine import SpacyNlpEngine

    nlp = spacy.blank("en")
    cut = nlp.tokenizer

    def words(text: str) -> Doc:
        doc = cut(text)
        for token in doc:
            token.lemma_ = token.lower_  # what Presidio compares with the words that it expects around a number
        return doc

    nlp.tokenizer = words
    engine = SpacyNlpEngine(models=[{"lang_code": "en", "model_name": "blank"}])
    engine.nlp = {"en": nlp}
    return AnalyzerEngine(registry=RecognizerRegistry(recognizers=recognizers, supported_languages=["en"]), nlp_engine=engine)


def false_alarms(count: int) -> None:
    chance = random.Random(7)
    recognizers = every_recognizer()
    engine = analyzer(recognizers)
    alarms: Counter[str] = Counter(dict.fromkeys((entity for one in recognizers for entity in one.supported_entities), 0))
    for _ in range(count):
        text = chance.choice(SENTENCES).format(made_up(chance))
        alarms.update({found.entity_type for found in engine.analyze(text, language="en", score_threshold=THRESHOLD)})
    for entity, found in alarms.most_common():
        print(f"{found / count:7.2%} {'used' if entity in RECOGNIZERS.values() else '    '} {entity}")


def timed(model: str | None) -> None:
    texts = [json.loads(line)["input"] for line in TICKETS.read_text(encoding="utf-8").splitlines()]
    started = time.perf_counter()
    finder = presidio_finder(Path(model) if model and "/" in model else model)
    print(finder.fault or finder.by)
    print(f"{time.perf_counter() - started:.1f} s to start")
    started = time.perf_counter()
    kinds = Counter(kind for text in texts for kind in finder.find(text))
    print(f"{1_000 * (time.perf_counter() - started) / len(texts):.1f} s for 1,000 tickets; found in {len(texts)}: {dict(kinds)}")


if __name__ == "__main__":
    what, *more = sys.argv[1:] or ["time"]
    if what == "false-alarms":
        false_alarms(int(more[0]) if more else 5_000)
    else:
        timed(more[0] if more else None)
