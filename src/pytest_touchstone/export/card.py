"""The dataset card: `README.md` beside the training file, as people and the Hugging Face hub read it.

Whatever comes from a case, a run or an option is shown as code on one line, where no markdown, HTML or link acts; the YAML at the top is
written by a YAML library and holds nothing of a case.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any, Final, cast

import yaml

from pytest_touchstone.text import counted, shorten

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from pytest_touchstone.export.quality import Lengths, Quality

CARD_FILE: Final = "README.md"
UNKNOWN: Final = "unknown"
# Only a card with this line is one of ours, and is replaced by the next export.
MARK: Final = "<!-- written by pytest-touchstone; the next export replaces this file -->"

_WIDTH: Final = 100
_LONGEST_LIST: Final = 50
# As the hub names sizes: https://huggingface.co/docs/hub/datasets-cards
_SIZES: Final = ((1_000, "n<1K"), (10_000, "1K<n<10K"), (100_000, "10K<n<100K"), (1_000_000, "100K<n<1M"))
_HUB_LICENSE: Final = re.compile(r"[a-z0-9][a-z0-9.+-]{0,40}")


def card(manifest: Mapping[str, Any], quality: Quality, *, license_: str | None = None) -> str:
    """The text of the card of an export with this manifest (as `manifest.json` has it); the same arguments give the same text.

    `license_` is a licence by its hub or SPDX identifier (`cc-by-4.0`, `MIT`) or in words; None is said as unknown.
    """
    return f"---\n{_front_matter(manifest, license_)}---\n\n{MARK}\n\n" + "\n".join(_body(manifest, quality, license_)) + "\n"


def code(text: str) -> str:
    r"""The text on one line as a code span, in which nothing acts.

    >>> print(code("a <b> `c`"), code("x\ny"))
    ``a <b> `c` `` `x\ny`
    """
    line = shorten(text, _WIDTH)
    if not line.strip():
        return "(empty)"
    fence = "`" * (max((len(run) for run in re.findall("`+", line)), default=0) + 1)
    pad = [" " if line[at] in "` " else "" for at in (0, -1)]
    # A code span loses one space on either side where both have one.
    return f"{fence} {line} {fence}" if all(pad) else f"{fence}{pad[0]}{line}{pad[1]}{fence}"


def _front_matter(manifest: Mapping[str, Any], license_: str | None) -> str:
    data: dict[str, Any] = {}
    known = (license_ or UNKNOWN).lower()
    if _HUB_LICENSE.fullmatch(known):
        data["license"] = known
    else:
        data |= {"license": "other", "license_name": shorten(license_ or "", _WIDTH)}
    data["task_categories"] = ["text-generation"]
    data["size_categories"] = [next((name for limit, name in _SIZES if manifest["written"] < limit), "n>1M")]
    data["tags"] = ["pytest-touchstone"]
    if manifest["train_file"] is not None:
        # Without it, the hub would take the ledger and the reports for data, too.
        data["configs"] = [{"config_name": "default", "data_files": [{"split": "train", "path": manifest["train_file"]}]}]
    text: str = cast("Any", yaml).safe_dump(data, sort_keys=False, allow_unicode=False, width=1_000)
    return text


def _body(manifest: Mapping[str, Any], quality: Quality, license_: str | None) -> Iterator[str]:
    yield "# Training data from golden cases"
    yield ""
    written, trials = manifest["written"], manifest["trials"]
    yield f"{written:,} examples of prompt and completion, one JSON object a line, from {trials:,} trials of golden cases."
    noun = "trial" if manifest["offered"] == trials else "call"
    yield f"Licence: {code(license_) if license_ else UNKNOWN + ', since nobody has said it'}."
    yield from _section("How it was made", _made(manifest))
    yield from _section("What it holds", _held(manifest))
    yield from _section("What is left out", _listed(manifest["left_out_by_reason"], noun))
    yield from _section("Splits and guard", _guard(manifest))
    yield from _section("Quality", _quality(quality))
    yield from _section("Files", _files(manifest))


def _section(title: str, lines: Iterator[str]) -> Iterator[str]:
    yield from ("", f"## {title}", "")
    yield from (f"- {line}" for line in lines)


def _made(manifest: Mapping[str, Any]) -> Iterator[str]:
    yield (
        "Golden cases were run against an application with pytest-touchstone. A *fix* is a case that failed, with a target that passed the "
        "case's own deterministic checks; a *replay* is what the model answered where the case passed."
    )
    yield f"Plugin version: {code(manifest['plugin_version'])}"
    for name, value in sorted(manifest["run"].items()):
        yield f"{code(name)}: {_value(value)}"


def _value(value: object) -> str:
    if value is None or value in ("", [], {}):
        return UNKNOWN
    if isinstance(value, (list, tuple)):
        return ", ".join(code(_text(part)) for part in cast("Sequence[object]", value)[:_LONGEST_LIST])
    return code(_text(value))


def _text(value: object) -> str:
    if not isinstance(value, dict):
        return str(value)
    fields = cast("dict[str, object]", value)
    return ", ".join(f"{name} {part}" for name, part in fields.items() if part not in ("", None))


def _held(manifest: Mapping[str, Any]) -> Iterator[str]:
    for title, counts in (
        ("Kinds", manifest["by_kind"]),
        ("Targets from", manifest["by_target_source"]),
        ("Suites", manifest["by_suite"]),
        ("Golden files", manifest["by_source"]),
        ("Tags", manifest["by_tag"]),
    ):
        yield f"{title}: " + (", ".join(f"{code(name)} {count:,}" for name, count in _first(counts)) or "none")
    yield f"Examples with tool calls: {manifest['tool_calls']:,}"


def _first(counts: Mapping[str, int]) -> list[tuple[str, int]]:
    return list(counts.items())[:_LONGEST_LIST]


def _listed(counts: Mapping[str, int], noun: str) -> Iterator[str]:
    if not counts:
        yield "Nothing."
    for reason, count in _first(counts):
        yield f"{counted(count, noun)}: {code(reason)}"


def _guard(manifest: Mapping[str, Any]) -> Iterator[str]:
    yield "All examples are of the split train. The holdout cases, which measure what a model has learned, are in no file."
    yield (
        f"Each example was compared with {manifest['holdout_inputs']:,} inputs of holdout cases: one that says the same was left out, and "
        f"one that is {int(manifest['leak_threshold'] * 100 + 1e-9)} % like it or more would have refused the export."
    )
    if manifest["holdout_taught"]:
        yield f"{len(manifest['holdout_taught']):,} inputs of earlier exports are holdout by now: what was trained on those has seen them."


def _quality(quality: Quality) -> Iterator[str]:
    if quality.characters is not None:
        yield f"Characters: {_lengths(quality.characters)}"
    yield f"Tokens: {_lengths(quality.tokens)}" if quality.tokens is not None else f"Tokens: {UNKNOWN} ({code(quality.tokens_reason)})"
    for title, count in (
        ("Prompts with more than one target", len(quality.contradictions)),
        ("Examples said more than once", len(quality.duplicates)),
        ("Targets that say nothing", len(quality.empty)),
        ("Targets that look cut off", len(quality.truncated)),
        ("Examples in which a secret was replaced", len(quality.redacted)),
        ("Examples with what looks like personal data", len({line for lines in quality.personal_data.values() for line in lines})),
    ):
        yield f"{title}: {count:,}"
    yield f"Personal data was looked for by {code(quality.personal_by)}: {', '.join(map(code, quality.personal_data))}"
    for why in dict.fromkeys(quality.personal_unknown.values()):
        kinds = ", ".join(code(kind) for kind, reason in quality.personal_unknown.items() if reason == why)
        yield f"Personal data of other kinds, {kinds}: {UNKNOWN} ({code(why)})"
    for advice in quality.advice:
        yield f"Advice: {code_less(advice)}"


def code_less(text: str) -> str:
    """Prose of our own in which a tag may be quoted: whatever could act in it is escaped, addresses that become links by themselves too."""
    return re.sub(r"([\\`*_\[\]<>&~|@#!$]|(?<=:)//|(?<=www)\.)", r"\\\1", shorten(text, 1_000))


def _lengths(found: Mapping[str, Lengths]) -> str:
    return "; ".join(f"{name} {of.shortest:,} to {of.longest:,}, median {of.median:,}, 95 % up to {of.p95:,}" for name, of in found.items())


def _files(manifest: Mapping[str, Any]) -> Iterator[str]:
    if manifest["train_file"] is None:
        yield "No training file: no trial offered an example."
    else:
        yield f"`{manifest['train_file']}`: {manifest['train_bytes']:,} bytes, SHA-256 `{manifest['train_sha256']}`"
    for name, report in sorted(manifest["formats"].items()):
        yield f"`{name}/`: {report['written']:,} of these examples in the format {code(name)}"
    yield "`manifest.json`: where each example is from, and why each other trial has none"
    yield "`report.json`: the quality of the examples, line by line"
    yield "`ledger.jsonl`: which cases were ever exported into this folder"
    if manifest["needs_correction"]:
        yield f"`needs_correction.jsonl`: {len(manifest['needs_correction']):,} failed cases that nobody has said the right answer of"
