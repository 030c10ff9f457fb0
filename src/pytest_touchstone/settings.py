"""Every option's default, in one place.

Imported while pytest starts, so it imports nothing heavy.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import IntEnum
from typing import TYPE_CHECKING, Any, Literal, get_args

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

Split = Literal["train", "holdout"]
RecordMode = Literal["none", "missing", "all", "rewrite", "off"]
GateMode = Literal["strict", "regression"]
ExportCall = Literal["last", "first", "all"]
PersonalSearch = Literal["rules", "presidio"]


class ExitStatus(IntEnum):
    """The exit statuses that this plugin adds to pytest's 0 to 5; a run with any failed test keeps pytest's 1.

    `ERRORS`: nothing failed, but at least one trial is an error (the app, a provider or a worker broke).
    `UNSCORED`: nothing failed or broke, but at least one trial has no usable verdict.
    `BUDGET`: nothing failed or broke, but the budget ended the run before every trial was made.
    `REGRESSED`: the gate found the run worse than its baseline; this wins over all of the above.
    `UNDECIDED`: the gate could not decide, all else is well, and the policy says that this fails.
    """

    ERRORS = 10
    UNSCORED = 11
    BUDGET = 12
    REGRESSED = 13
    UNDECIDED = 14


DEFAULT_STORE = ".touchstone/runs.db"
NO_STORE = "off"

# What the name of a baseline's file ends in; known here because pytest's start tells syrupy to leave such files alone.
BASELINE_SUFFIX = "touchstone"
SPLITS: tuple[Split, ...] = get_args(Split)
RECORD_MODES: tuple[RecordMode, ...] = get_args(RecordMode)
EXPORT_CALLS: tuple[ExportCall, ...] = get_args(ExportCall)
EXPORT_FORMATS = (
    "trl",
    "messages",
    "preference",
    "openai",
    "openai-preference",
    "llamafactory",
    "llamafactory-preference",
    "bedrock",
    "bedrock-claude",
    "datasets",
)
GATE_MODES: tuple[GateMode, ...] = get_args(GateMode)


@dataclass(frozen=True, kw_only=True)
class JudgeSettings:
    """How judges are asked.

    `model` is `openai:NAME` or `anthropic:NAME`, None where no judge is configured.
    `base_url` points at an OpenAI- or Anthropic-compatible server.
    `timeout_s` bounds one verdict in seconds, retries and waits included; `attempts` (>= 1) bounds the requests for one vote.
    """

    model: str | None = None
    base_url: str | None = None
    timeout_s: float = 60.0
    attempts: int = 3


@dataclass(frozen=True, kw_only=True)
class TeacherSettings:
    """Who answers what the app's model answered wrong, so that training data have a target; fields as those of `JudgeSettings`.

    `timeout_s` bounds one answer in seconds, retries and waits included. `max_tokens` (>= 1) bounds one answer, thinking included.
    """

    model: str | None = None
    base_url: str | None = None
    timeout_s: float = 120.0
    attempts: int = 3
    max_tokens: int = 8192


@dataclass(frozen=True, kw_only=True)
class GateSettings:
    """What decides whether a run may pass.

    `mode` strict: each failing test fails the run; regression: the run is held against the baseline. `stage2` is how often every case of
    a suspicious suite is tried once more (0: no second stage); with `stop_early`, a suite that has shown that it regressed is tried no
    more. `given` are fields of the policy from the command line, `ini` from the ini file; the markers of a suite stand between the two.
    """

    mode: GateMode = "strict"
    stage2: int = 0
    stop_early: bool = False
    given: Mapping[str, Any] = field(default_factory=dict[str, Any])
    ini: Mapping[str, Any] = field(default_factory=dict[str, Any])


@dataclass(frozen=True, kw_only=True)
class Settings:
    """The settings of one run, frozen once pytest is configured.

    `split` and `limit` select cases (None: all); `limit` counts per golden marker.
    `concurrency` is how many bodies run at once (>= 1), over all processes of the run; `timeout_s` bounds one body in seconds, None for no
    bound; `repeat` is how often each case is tried (>= 1), None where markers say it; `alone_fixtures` names fixtures whose tests run
    alone.
    `record` is the recording mode, `record_ignore` the paths of JSON body fields that do not tell requests apart.
    `allow_hosts` are host names that replay mode may still reach.
    `export` is the folder that receives training data, None for no export; `replay` (0 to 1) is the part of the passing train cases that
    it takes. `export_formats` are the formats beside TRL's, which is always written; `export_call` says which of a trial's model calls
    is trained on. `corrections` is the file of accepted corrections that an export uses, None without one; `teacher` answers for failed
    cases without another target. `leak_threshold` (above 0 to 1) is how alike a train and a holdout input may at most be. `tokenizer` is
    the folder of the tokenizer that measures examples, and `export_license` what the data may be used under, None where nobody said it.
    `personal_data` says what looks for personal data in an export, and `presidio_model` which spaCy model Presidio reads with: an installed
    package or a folder, None for none.
    `max_in_flight` is how many live requests may be on their way to one host at once (>= 1; None: as many as `concurrency`), over all
    processes. `max_calls` and `max_cost_usd` (US dollars) bound the live model calls of the whole run, None for no bound. With `plan`
    nothing runs, and what a run would ask is printed.
    `store` is where the run is stored: a path, relative to the root folder, or a database URL; None: nowhere.
    `gate` says what decides whether the run may pass.
    `show` is how many failures of each suite are printed in full (>= 0), None for all; `progress` is whether a terminal gets a live line.
    """

    split: Split | None = None
    limit: int | None = None
    concurrency: int = 16
    timeout_s: float | None = None
    repeat: int | None = None
    alone_fixtures: tuple[str, ...] = ()
    record: RecordMode = "missing"
    record_ignore: tuple[tuple[str, ...], ...] = ()
    allow_hosts: tuple[str, ...] = ()
    judge: JudgeSettings = JudgeSettings()
    export: Path | None = None
    replay: float = 1.0
    export_formats: tuple[str, ...] = ()
    export_call: ExportCall = "last"
    corrections: Path | None = None
    teacher: TeacherSettings = TeacherSettings()
    leak_threshold: float = 0.8
    tokenizer: Path | None = None
    export_license: str | None = None
    personal_data: PersonalSearch = "rules"
    presidio_model: Path | str | None = None
    max_in_flight: int | None = None
    max_calls: int | None = None
    max_cost_usd: float | None = None
    plan: bool = False
    show: int | None = 20
    progress: bool = True
    store: str | None = DEFAULT_STORE
    gate: GateSettings = GateSettings()


def chosen_store(*choices: str | None) -> str | None:
    """The store that the first choice names that is not empty; the default where all are, None where it is `off`.

    >>> chosen_store(None, "", "team.db"), chosen_store("off", "team.db"), chosen_store("")
    ('team.db', None, '.touchstone/runs.db')
    """
    chosen = next((choice for choice in choices if choice), DEFAULT_STORE)
    return None if chosen == NO_STORE else chosen


def default_record_mode(environ: Mapping[str, str]) -> RecordMode:
    """Replay only where `CI` is set to something other than an empty string or `false`, else record what is missing.

    >>> default_record_mode({"CI": "true"})
    'none'
    >>> default_record_mode({})
    'missing'
    """
    return "none" if in_ci(environ) else "missing"


def in_ci(environ: Mapping[str, str]) -> bool:
    """Whether `CI` is set to something other than an empty string, `0` or `false`."""
    return environ.get("CI", "").lower() not in {"", "0", "false"}
