"""The options and ini keys, and the Settings made of them."""

from __future__ import annotations

import argparse
import os
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

import pytest

from pytest_touchstone.errors import ModelError, SettingsError
from pytest_touchstone.plugin.option_values import optional, part, positive, read_value
from pytest_touchstone.settings import (
    RECORD_MODES,
    SPLITS,
    JudgeSettings,
    RecordMode,
    Settings,
    TeacherSettings,
    chosen_store,
    default_record_mode,
)

if TYPE_CHECKING:
    from collections.abc import Iterator

T = TypeVar("T")
ALL = "all"


def add_options(parser: pytest.Parser) -> None:
    """Declare every `--llm-*` option and `llm_*` ini key; help texts give effect, default and an example."""
    from pytest_touchstone.plugin.export_options import add_export_options
    from pytest_touchstone.plugin.gate_options import add_gate_options

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
        type=positive,
        metavar="N",
        help="Run at most N cases of each golden test, the first ones that -k, -m and --llm-split leave. Default: all. "
        "Example: --llm-limit 20",
    )
    group.addoption(
        "--llm-concurrency",
        type=positive,
        metavar="N",
        help="Run the bodies of at most N golden tests at once; with pytest-xdist the workers share them. Default: ini llm_concurrency, "
        "else 16. Example: --llm-concurrency 64",
    )
    group.addoption(
        "--llm-timeout",
        type=float,
        metavar="SECONDS",
        help="End a test body that takes longer; its trial is an error. Default: ini llm_timeout, else no bound. "
        "Example: --llm-timeout 120",
    )
    group.addoption(
        "--llm-repeat",
        type=positive,
        metavar="N",
        help="Try each case N times; the k-th trial replays the k-th recorded answers. Default: as often as the marker llm_repeat says, "
        "else once. Example: --llm-repeat 5",
    )
    group.addoption(
        "--llm-record",
        choices=RECORD_MODES,
        help="Recordings: none replays only, without network or keys; missing replays and records what is missing; all records anew; "
        "rewrite does too, and drops what a full run did not ask for; "
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
    group.addoption(
        "--llm-replay",
        type=part,
        metavar="PART",
        help="How much of the passing train cases --llm-export writes beside the failing ones, from 0 to 1. A model that sees only what it "
        "got wrong forgets what it got right. Default: 1.0, all of them. Example: --llm-replay 0.5",
    )
    add_export_options(parser, group)
    group.addoption(
        "--llm-corrections",
        metavar="FILE",
        help="Where accepted corrections are: what a person said that a failing case should have answered. Default: ini llm_corrections, "
        "else corrections.jsonl in the folder of --llm-export. Example: --llm-corrections evals/corrections.jsonl",
    )
    group.addoption(
        "--llm-teacher",
        metavar="PROVIDER:MODEL",
        help="The model that --llm-export asks for a target where a failing train case has none; only an answer that passes the case's own "
        "scorers and judges is taken. Default: ini llm_teacher, else none. Example: --llm-teacher openai:gpt-5",
    )
    group.addoption(
        "--llm-teacher-base-url",
        metavar="URL",
        help="Where the teacher is reached, for OpenAI- or Anthropic-compatible servers. Default: ini llm_teacher_base_url, else the "
        "provider's own address. Example: --llm-teacher-base-url http://127.0.0.1:8000/v1",
    )
    group.addoption(
        "--llm-max-in-flight",
        type=positive,
        metavar="N",
        help="Have at most N live requests on their way to one host at once, fewer after its rate limits; with pytest-xdist the workers "
        "share them. Default: ini llm_max_in_flight_per_host, else as many as --llm-concurrency. Example: --llm-max-in-flight 8",
    )
    group.addoption(
        "--llm-max-calls",
        type=positive,
        metavar="N",
        help="Make at most N live model calls, those of judges and teacher included; what is left then does not run. Default: ini "
        "llm_max_calls, else no limit. Example: --llm-max-calls 500",
    )
    group.addoption(
        "--llm-max-cost",
        type=_dollars,
        metavar="USD",
        help="Begin no live model call once those before have cost USD dollars; what is left then does not run. Default: ini llm_max_cost, "
        "else no limit. Example: --llm-max-cost 2.50",
    )
    group.addoption(
        "--llm-plan",
        action="store_true",
        help="Run nothing; print how many cases, calls, tokens and dollars a run would take, going by the recordings. "
        "Example: pytest --llm-eval --llm-plan",
    )
    group.addoption(
        "--llm-show",
        type=_count_or_all,
        metavar="N|all",
        help="Print the first N failures of each golden test in full, and one line for each further one. Default: ini llm_show, else 20; "
        "all with -v. Example: --llm-show all",
    )
    group.addoption(
        "--llm-no-progress",
        action="store_true",
        help="Print no live line of progress. Default: a terminal gets one, but not with -q or -s, nor where CI is set. "
        "Example: --llm-no-progress",
    )
    group.addoption(
        "--llm-store",
        metavar="PATH|URL|off",
        help="Store the run in this SQLite file or database, or nowhere. Default: environment variable TOUCHSTONE_STORE, else ini "
        "llm_store, else .touchstone/runs.db. Example: --llm-store off",
    )
    add_gate_options(parser, group)
    parser.addini("llm_judge", "The model that judge(...) asks, as --llm-judge.", default="")
    parser.addini("llm_judge_base_url", "Where the judge is reached, as --llm-judge-base-url.", default="")
    parser.addini("llm_judge_timeout", "Seconds for one verdict, retries and waits included.", default="60")
    parser.addini("llm_corrections", "Where accepted corrections are, relative to the root folder, as --llm-corrections.", default="")
    parser.addini("llm_teacher", "The model that an export asks for targets, as --llm-teacher.", default="")
    parser.addini("llm_teacher_base_url", "Where the teacher is reached, as --llm-teacher-base-url.", default="")
    parser.addini("llm_teacher_timeout", "Seconds for one answer of the teacher, retries and waits included.", default="120")
    parser.addini("llm_concurrency", "How many golden tests run at once, as --llm-concurrency.", default="16")
    parser.addini("llm_timeout", "Seconds for one test body, as --llm-timeout.", default="")
    parser.addini(
        "llm_alone_fixtures", "Fixtures that change the whole process, one a line: their tests run alone.", type="linelist", default=[]
    )
    parser.addini("llm_max_in_flight_per_host", "Live requests on their way to one host at once, as --llm-max-in-flight.", default="")
    parser.addini("llm_max_calls", "How many live model calls a run may make, as --llm-max-calls.", default="")
    parser.addini("llm_max_cost", "What a run may cost in US dollars, as --llm-max-cost.", default="")
    parser.addini("llm_show", "How many failures of each golden test are printed in full, as --llm-show.", default="20")
    parser.addini("llm_progress", "Whether a terminal gets a live line of progress.", type="bool", default=True)
    parser.addini("llm_store", "Where runs are stored, as --llm-store.", default="")
    parser.addini("llm_record", "The recording mode, as --llm-record.", default="")
    parser.addini(
        "llm_record_ignore",
        "Paths of fields of JSON request bodies that do not tell requests apart, one a line: metadata.session, messages.*.name.",
        type="linelist",
        default=[],
    )
    parser.addini("llm_allow_hosts", "Hosts that replay may reach, one a line, as --llm-allow-host.", type="linelist", default=[])


def read_settings(config: pytest.Config) -> Settings:
    """The settings of this run: the command line wins over ini keys, which win over the defaults.

    Raises:
        pytest.UsageError: an ini value cannot be used, or an option not without another.
    """
    from pytest_touchstone.plugin.export_options import export_call, export_formats, leak_threshold, personal_data, tokenizer
    from pytest_touchstone.plugin.gate_options import read_gate

    option = config.option
    export = option.llm_export
    _refuse_without_export(option)
    search, presidio_model = personal_data(config)
    return Settings(
        split=option.llm_split,
        limit=option.llm_limit,
        concurrency=option.llm_concurrency or _whole_number(config, "llm_concurrency"),
        timeout_s=_timeout(config),
        repeat=option.llm_repeat,
        alone_fixtures=tuple(config.getini("llm_alone_fixtures")),
        record=record_mode(config, config.option),
        record_ignore=tuple(_paths(config)),
        allow_hosts=(*config.getini("llm_allow_hosts"), *option.llm_allow_host),
        judge=JudgeSettings(
            model=option.llm_judge or config.getini("llm_judge") or None,
            base_url=option.llm_judge_base_url or config.getini("llm_judge_base_url") or None,
            timeout_s=_seconds(config, "llm_judge_timeout"),
        ),
        export=None if export is None else Path(config.invocation_params.dir, export),
        replay=1.0 if option.llm_replay is None else option.llm_replay,
        export_formats=export_formats(config),
        export_call=export_call(config),
        corrections=_corrections(config),
        teacher=_teacher(config),
        leak_threshold=leak_threshold(config),
        tokenizer=tokenizer(config),
        export_license=option.llm_export_license or config.getini("llm_export_license") or None,
        personal_data=search,
        presidio_model=presidio_model,
        max_in_flight=option.llm_max_in_flight or optional(config, "llm_max_in_flight_per_host", positive, "8"),
        max_calls=option.llm_max_calls or optional(config, "llm_max_calls", positive, "500"),
        max_cost_usd=option.llm_max_cost or optional(config, "llm_max_cost", _dollars, "2.50"),
        plan=option.llm_plan,
        show=_shown_in_full(config),
        progress=not option.llm_no_progress and config.getini("llm_progress"),
        gate=read_gate(config),
        store=chosen_store(option.llm_store, os.environ.get("TOUCHSTONE_STORE"), config.getini("llm_store")),
    )


def _refuse_without_export(option: argparse.Namespace) -> None:
    if option.llm_export is not None:
        return
    given = {
        "--llm-replay": ("chooses what", option.llm_replay),
        "--llm-corrections": ("says what is right in what", option.llm_corrections),
        "--llm-teacher": ("answers for what", option.llm_teacher),
        "--llm-leak-threshold": ("guards what", option.llm_leak_threshold),
        "--llm-tokenizer": ("measures what", option.llm_tokenizer),
        "--llm-export-license": ("is the licence of what", option.llm_export_license),
        "--llm-personal-data": ("looks for personal data in what", option.llm_personal_data),
    }
    for name, (does, value) in given.items():
        if value is not None:
            msg = f"{name} {does} --llm-export writes; add --llm-export DIR, or leave it out"
            raise pytest.UsageError(msg)


def _corrections(config: pytest.Config) -> Path | None:
    option = config.option
    if option.llm_export is None:
        return None
    if option.llm_corrections is not None:
        return Path(config.invocation_params.dir, option.llm_corrections)
    if config.getini("llm_corrections"):
        return Path(config.rootpath, config.getini("llm_corrections"))
    from pytest_touchstone.export.corrections import CORRECTIONS_FILE

    return Path(config.invocation_params.dir, option.llm_export, CORRECTIONS_FILE)


def _teacher(config: pytest.Config) -> TeacherSettings:
    option = config.option
    model = option.llm_teacher or config.getini("llm_teacher") or None
    if model is None or option.llm_export is None:
        return TeacherSettings()
    from pytest_touchstone.models.registry import split_spec

    try:
        split_spec(model)
    except ModelError as error:
        msg = f"{'--llm-teacher' if option.llm_teacher else 'ini llm_teacher'}: {error}"
        raise pytest.UsageError(msg) from error
    return TeacherSettings(
        model=model,
        base_url=option.llm_teacher_base_url or config.getini("llm_teacher_base_url") or None,
        timeout_s=_seconds(config, "llm_teacher_timeout"),
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


def _shown_in_full(config: pytest.Config) -> int | None:
    if (asked := config.option.llm_show) is not None:
        return None if asked == ALL else asked
    text = config.getini("llm_show")
    try:
        value = _count_or_all(text)
    except argparse.ArgumentTypeError as error:
        msg = f"ini llm_show is {error}, for example llm_show = 50"
        raise pytest.UsageError(msg) from error
    return None if value == ALL or config.get_verbosity() > 0 else int(value)


def _count_or_all(text: str) -> int | str:
    if text == ALL:
        return ALL
    if text.isascii() and text.isdigit():
        return int(text)
    msg = f"{text!r}; give a whole number of at least 0, or {ALL}"
    raise argparse.ArgumentTypeError(msg)


def _paths(config: pytest.Config) -> Iterator[tuple[str, ...]]:
    lines: list[str] = config.getini("llm_record_ignore")
    if lines:
        from pytest_touchstone.recording.key import parse_path

        for line in lines:
            try:
                yield parse_path(line)
            except SettingsError as error:
                msg = f"ini llm_record_ignore: {error}"
                raise pytest.UsageError(msg) from error


def _timeout(config: pytest.Config) -> float | None:
    given: float | None = config.option.llm_timeout
    if given is None:
        return _seconds(config, "llm_timeout") if config.getini("llm_timeout") else None
    if not 0 < given < float("inf"):
        msg = f"--llm-timeout is {given:g}; give a number of seconds above 0, for example --llm-timeout 120"
        raise pytest.UsageError(msg)
    return given


def _whole_number(config: pytest.Config, name: str) -> int:
    return read_value(name, config.getini(name), positive, "16")


def _dollars(text: str) -> float:
    value = _above_zero(text)
    if value is None:
        msg = f"{text!r} is not a number of US dollars above 0"
        raise argparse.ArgumentTypeError(msg)
    return value


def _seconds(config: pytest.Config, name: str) -> float:
    text = config.getini(name)
    value = _above_zero(text)
    if value is None:
        msg = f"ini {name} is {text!r}; give a number of seconds above 0, for example {name} = 60"
        raise pytest.UsageError(msg)
    return value


def _above_zero(text: str) -> float | None:
    """The finite number above 0 that the text says, None where it says none."""
    try:
        value = float(text)
    except ValueError:
        return None
    return value if 0 < value < float("inf") else None
