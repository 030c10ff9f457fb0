"""The options of `--llm-export`: in which formats, and which of a trial's calls."""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING

import pytest

from pytest_touchstone.plugin.option_values import read_value
from pytest_touchstone.settings import EXPORT_CALLS, EXPORT_FORMATS

if TYPE_CHECKING:
    from pytest_touchstone.settings import ExportCall


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
    parser.addini("llm_export_formats", "Formats to export in, one a line, as --llm-export-format.", type="linelist", default=[])
    parser.addini("llm_export_call", "Which call to train on, as --llm-export-call.", default="last")


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


def formats(text: str) -> tuple[str, ...]:
    """The names of formats that a text separated by commas has, for an option or an ini key."""
    names = tuple(name.strip() for name in text.split(",") if name.strip())
    unknown = [name for name in names if name not in EXPORT_FORMATS]
    if unknown or not names:
        msg = f"{unknown[0] if unknown else text!r} is no export format; use one of {', '.join(EXPORT_FORMATS)}"
        raise argparse.ArgumentTypeError(msg)
    return names
