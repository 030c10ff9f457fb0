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
RecordMode = Literal["none", "missing", "all", "off"]


class ExitStatus(IntEnum):
    """The exit statuses that this plugin adds to pytest's 0 to 5; a run with any failed test keeps pytest's 1.

    `ERRORS`: nothing failed, but at least one trial is an error (the app, a provider or a worker broke).
    `UNSCORED`: nothing failed or broke, but at least one trial has no usable verdict.
    """

    ERRORS = 10
    UNSCORED = 11


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
    `record` is the recording mode; `allow_hosts` are host names that replay mode may still reach.
    `export` is the folder that receives training data, None for no export.
    """

    split: Split | None = None
    limit: int | None = None
    record: RecordMode = "missing"
    allow_hosts: tuple[str, ...] = ()
    judge: JudgeSettings = JudgeSettings()
    export: Path | None = None


def default_record_mode(environ: Mapping[str, str]) -> RecordMode:
    """Replay only where `CI` is set to something other than an empty string or `false`, else record what is missing.

    >>> default_record_mode({"CI": "true"})
    'none'
    >>> default_record_mode({})
    'missing'
    """
    return "none" if environ.get("CI", "").lower() not in {"", "0", "false"} else "missing"
