"""Every option's default, in one place.

Imported while pytest starts, so it imports nothing heavy.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import IntEnum
from typing import TYPE_CHECKING, Literal, get_args

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

Split = Literal["train", "holdout"]
RecordMode = Literal["none", "missing", "all", "rewrite", "off"]


class ExitStatus(IntEnum):
    """The exit statuses that this plugin adds to pytest's 0 to 5; a run with any failed test keeps pytest's 1.

    `ERRORS`: nothing failed, but at least one trial is an error (the app, a provider or a worker broke).
    `UNSCORED`: nothing failed or broke, but at least one trial has no usable verdict.
    `BUDGET`: nothing failed or broke, but the budget ended the run before every trial was made.
    """

    ERRORS = 10
    UNSCORED = 11
    BUDGET = 12


SPLITS: tuple[Split, ...] = get_args(Split)
RECORD_MODES: tuple[RecordMode, ...] = get_args(RecordMode)


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
class Settings:
    """The settings of one run, frozen once pytest is configured.

    `split` and `limit` select cases (None: all); `limit` counts per golden marker.
    `concurrency` is how many bodies run at once (>= 1), over all processes of the run; `timeout_s` bounds one body in seconds, None for no
    bound; `repeat` is how often each case is tried (>= 1); `alone_fixtures` names fixtures whose tests run alone.
    `record` is the recording mode, `record_ignore` the paths of JSON body fields that do not tell requests apart.
    `allow_hosts` are host names that replay mode may still reach.
    `export` is the folder that receives training data, None for no export.
    `max_in_flight` is how many live requests may be on their way to one host at once (>= 1; None: as many as `concurrency`), over all
    processes. `max_calls` and `max_cost_usd` (US dollars) bound the live model calls of the whole run, None for no bound. With `plan`
    nothing runs, and what a run would ask is printed.
    `show` is how many failures of each suite are printed in full (>= 0), None for all; `progress` is whether a terminal gets a live line.
    """

    split: Split | None = None
    limit: int | None = None
    concurrency: int = 16
    timeout_s: float | None = None
    repeat: int = 1
    alone_fixtures: tuple[str, ...] = ()
    record: RecordMode = "missing"
    record_ignore: tuple[tuple[str, ...], ...] = ()
    allow_hosts: tuple[str, ...] = ()
    judge: JudgeSettings = JudgeSettings()
    export: Path | None = None
    max_in_flight: int | None = None
    max_calls: int | None = None
    max_cost_usd: float | None = None
    plan: bool = False
    show: int | None = 20
    progress: bool = True


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
