"""The options and ini keys, and the Settings made of them."""

from __future__ import annotations

import argparse
import os
from pathlib import Path

import pytest

from pytest_touchstone.settings import RECORD_MODES, SPLITS, JudgeSettings, RecordMode, Settings, default_record_mode


def add_options(parser: pytest.Parser) -> None:
    """Declare every `--llm-*` option and `llm_*` ini key; help texts give effect, default and an example."""
    group = parser.getgroup("llm", "LLM evaluation (pytest-touchstone)")
    group.addoption(
        "--llm-eval",
        action="store_true",
        help="Run the golden tests. Default: they are deselected and their files are not read. Example: pytest --llm-eval",
    )
    group.addoption(
        "--llm-split",
        choices=SPLITS,
        help="Run only the cases of one split. Default: both. Example: --llm-split holdout",
    )
    group.addoption(
        "--llm-limit",
        type=_positive,
        metavar="N",
        help="Run at most N cases of each golden test, the first ones that -k, -m and --llm-split leave. Default: all. "
        "Example: --llm-limit 20",
    )
    group.addoption(
        "--llm-record",
        choices=RECORD_MODES,
        help="Recordings: none replays only, without network or keys; missing replays and records what is missing; all records anew; "
        "off calls live and stores nothing. Default: none where CI is set, else missing. Example: --llm-record all",
    )
    group.addoption(
        "--llm-allow-host",
        action="append",
        default=[],
        metavar="HOST",
        help="A host that may be reached although recordings are only replayed. May be repeated. Default: loopback only. Example: "
        "--llm-allow-host db.internal",
    )
    group.addoption(
        "--llm-judge",
        metavar="PROVIDER:MODEL",
        help="The model that judge(...) asks. Default: ini llm_judge, else none. Example: --llm-judge openai:gpt-5-mini",
    )
    group.addoption(
        "--llm-judge-base-url",
        metavar="URL",
        help="Where the judge is reached, for OpenAI- or Anthropic-compatible servers. Default: the provider's own address. Example: "
        "--llm-judge-base-url http://127.0.0.1:8000/v1",
    )
    group.addoption(
        "--llm-export",
        metavar="DIR",
        help="Write failing train cases with a verified target, and the passing ones beside them, as training data to DIR. "
        "Default: no export. Example: --llm-export training",
    )
    parser.addini("llm_judge", "The model that judge(...) asks, as --llm-judge.", default="")
    parser.addini("llm_judge_base_url", "Where the judge is reached, as --llm-judge-base-url.", default="")
    parser.addini("llm_judge_timeout", "Seconds for one verdict, retries and waits included.", default="60")
    parser.addini("llm_record", "The recording mode, as --llm-record.", default="")
    parser.addini("llm_allow_hosts", "Hosts that replay may reach, one a line, as --llm-allow-host.", type="linelist", default=[])


def read_settings(config: pytest.Config) -> Settings:
    """The settings of this run: the command line wins over ini keys, which win over the defaults.

    Raises:
        pytest.UsageError: an ini value cannot be used.
    """
    option = config.option
    export = option.llm_export
    return Settings(
        split=option.llm_split,
        limit=option.llm_limit,
        record=record_mode(config, config.option),
        allow_hosts=(*config.getini("llm_allow_hosts"), *option.llm_allow_host),
        judge=JudgeSettings(
            model=option.llm_judge or config.getini("llm_judge") or None,
            base_url=option.llm_judge_base_url or config.getini("llm_judge_base_url") or None,
            timeout_s=_seconds(config, "llm_judge_timeout"),
        ),
        export=None if export is None else Path(config.invocation_params.dir, export),
    )


def record_mode(config: pytest.Config, option: argparse.Namespace) -> RecordMode:
    """The recording mode, from options that may be parsed in part only.

    Raises:
        pytest.UsageError: the ini value is not a mode.
    """
    mode = option.llm_record or config.getini("llm_record") or default_record_mode(os.environ)
    for known in RECORD_MODES:
        if mode == known:
            return known
    msg = f"ini llm_record is {mode!r}; use one of {', '.join(RECORD_MODES)}"
    raise pytest.UsageError(msg)


def _seconds(config: pytest.Config, name: str) -> float:
    text = config.getini(name)
    try:
        value = float(text)
    except ValueError:
        value = 0.0
    if not 0 < value < float("inf"):
        msg = f"ini {name} is {text!r}; give a number of seconds above 0, for example {name} = 60"
        raise pytest.UsageError(msg)
    return value


def _positive(text: str) -> int:
    try:
        value = int(text)
    except ValueError:
        value = 0
    if value < 1:
        msg = f"{text!r} is not a whole number of at least 1"
        raise argparse.ArgumentTypeError(msg)
    return value
