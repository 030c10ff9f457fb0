"""The options of `--llm-export`: in which formats, which of a trial's calls, how guarded and how described."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from pytest_touchstone.plugin.option_values import optional, read_value, similarity
from pytest_touchstone.settings import EXPORT_CALLS, EXPORT_FORMATS, Settings

if TYPE_CHECKING:
    from pytest_touchstone.settings import ExportCall, PersonalSearch


def add_export_options(parser: pytest.Parser, group: pytest.OptionGroup) -> None:
    """Declare them beside the others, and their ini keys."""
    group.addoption(
        "--llm-export-format",
        action="append",
        type=formats,
        metavar="NAME",
        help="Write what --llm-export writes in further formats, each to a folder of its name in DIR; may be repeated, or names separated "
        f"by commas: {', '.join(EXPORT_FORMATS)}. Default: ini llm_export_formats, else trl alone, which is always written. "
        "Example: --llm-export-format openai,preference",
    )
    group.addoption(
        "--llm-export-call",
        choices=EXPORT_CALLS,
        help="Which call to train on where a trial made several model calls: the last, which the target is of; the first; or all of them, "
        "earlier ones only where the trial passed. Default: ini llm_export_call, else last. Example: --llm-export-call all",
    )
    group.addoption(
        "--llm-leak-threshold",
        type=similarity,
        metavar="SIMILARITY",
        help="Refuse an export in which an input of a train case is at least so much like one of a holdout case, above 0 to 1. "
        "Default: ini llm_leak_threshold, else 0.8. Example: --llm-leak-threshold 0.9",
    )
    group.addoption(
        "--llm-tokenizer",
        metavar="FOLDER",
        help="Measure what --llm-export writes in tokens, with the tokenizer and chat template in this folder of a model. "
        "Default: ini llm_tokenizer, else in characters only. Example: --llm-tokenizer models/qwen3-4b",
    )
    group.addoption(
        "--llm-export-license",
        metavar="LICENSE",
        help="The licence that the dataset card of --llm-export names. Default: ini llm_export_license, else unknown. "
        "Example: --llm-export-license cc-by-4.0",
    )
    group.addoption(
        "--llm-personal-data",
        type=personal_search,
        metavar="rules|presidio[:MODEL]",
        help="What looks for personal data in what --llm-export writes: rules alone, or Presidio beside them, for names and places "
        "with a spaCy model that is installed, by its name or its folder (a path with a slash). Default: ini llm_personal_data, "
        "else rules. Example: --llm-personal-data presidio:en_core_web_sm",
    )
    parser.addini("llm_export_formats", "Formats to export in, one a line, as --llm-export-format.", type="linelist", default=[])
    parser.addini("llm_export_call", "Which call to train on, as --llm-export-call.", default="last")
    parser.addini("llm_leak_threshold", "How alike train and holdout inputs may be, as --llm-leak-threshold.", default="")
    parser.addini("llm_tokenizer", "Folder of a tokenizer that measures exports, relative to the ini file, as --llm-tokenizer.", default="")
    parser.addini("llm_export_license", "The licence that dataset cards name, as --llm-export-license.", default="")
    parser.addini(
        "llm_personal_data",
        "What looks for personal data in exports, as --llm-personal-data; a folder is relative to the ini file.",
        default="rules",
    )


def export_formats(config: pytest.Config) -> tuple[str, ...]:
    """The formats to export in, each once.

    Raises:
        pytest.UsageError: the ini value names one that is not known, or the option stands without `--llm-export`.
    """
    given: list[tuple[str, ...]] | None = config.option.llm_export_format
    if given is not None and config.option.llm_export is None:
        msg = "--llm-export-format chooses how --llm-export writes; add --llm-export DIR, or leave it out"
        raise pytest.UsageError(msg)
    lines: list[str] = config.getini("llm_export_formats")
    chosen = [read_value("llm_export_formats", line, formats, "openai") for line in lines] if given is None else given
    return tuple(dict.fromkeys(name for names in chosen for name in names))


def export_call(config: pytest.Config) -> ExportCall:
    """Which of a trial's calls to train on.

    Raises:
        pytest.UsageError: the ini value is none, or the option stands without `--llm-export`.
    """
    given: ExportCall | None = config.option.llm_export_call
    if given is not None and config.option.llm_export is None:
        msg = "--llm-export-call chooses what --llm-export writes; add --llm-export DIR, or leave it out"
        raise pytest.UsageError(msg)
    text = given or config.getini("llm_export_call")
    for call in EXPORT_CALLS:
        if text == call:
            return call
    msg = f"ini llm_export_call is {text!r}; use one of {', '.join(EXPORT_CALLS)}"
    raise pytest.UsageError(msg)


def leak_threshold(config: pytest.Config) -> float:
    """How alike a train and a holdout input may at most be.

    Raises:
        pytest.UsageError: the ini value is none.
    """
    return config.option.llm_leak_threshold or optional(config, "llm_leak_threshold", similarity, "0.9") or Settings.leak_threshold


def tokenizer(config: pytest.Config) -> Path | None:
    """The folder of the tokenizer that measures what is written, None without one."""
    if config.option.llm_tokenizer:
        return Path(config.invocation_params.dir, config.option.llm_tokenizer)
    named = config.getini("llm_tokenizer")
    return Path(_ini_folder(config), named) if named else None


def personal_data(config: pytest.Config) -> tuple[PersonalSearch, Path | str | None]:
    """What looks for personal data, and the spaCy model that it reads with: an installed package or a folder, None for none.

    Raises:
        pytest.UsageError: the ini value is none.
    """
    given: tuple[PersonalSearch, str] | None = config.option.llm_personal_data
    base = config.invocation_params.dir
    if given is None:
        base = _ini_folder(config)
        given = read_value("llm_personal_data", config.getini("llm_personal_data"), personal_search, "presidio:en_core_web_sm")
    search, model = given
    return search, Path(base, model) if "/" in model else model or None


def _ini_folder(config: pytest.Config) -> Path:
    return config.rootpath if config.inipath is None else config.inipath.parent


def personal_search(text: str) -> tuple[PersonalSearch, str]:
    """What looks for personal data, and the model behind the colon, for an option or an ini key."""
    name, colon, model = text.partition(":")
    if text == "rules":
        return "rules", ""
    if name == "presidio" and bool(model) == bool(colon):
        return "presidio", model
    msg = f"{text!r} is none of rules, presidio and presidio:MODEL"
    raise argparse.ArgumentTypeError(msg)


def formats(text: str) -> tuple[str, ...]:
    """The names of formats that a text separated by commas has, for an option or an ini key."""
    names = tuple(name.strip() for name in text.split(",") if name.strip())
    unknown = [name for name in names if name not in EXPORT_FORMATS]
    if unknown or not names:
        msg = f"{unknown[0] if unknown else text!r} is no export format; use one of {', '.join(EXPORT_FORMATS)}"
        raise argparse.ArgumentTypeError(msg)
    return names
