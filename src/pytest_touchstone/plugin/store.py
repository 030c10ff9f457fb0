"""Stores the run when it has ended, in the controlling process."""

from __future__ import annotations

import contextlib
import dataclasses
import importlib.metadata
import json
import platform
import re
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, Protocol, cast
from urllib.parse import unquote

import pytest

from pytest_touchstone.files import keep_out_of_git
from pytest_touchstone.git import CheckoutQuestion
from pytest_touchstone.plugin.gate_options import GATE
from pytest_touchstone.report.terminal import Line
from pytest_touchstone.settings import Settings
from pytest_touchstone.text import visible

if TYPE_CHECKING:
    from collections.abc import Callable, Generator, Iterator, Mapping

    from pydantic import JsonValue

    from pytest_touchstone.plugin.gating import Gate
    from pytest_touchstone.trial import TrialRecord

STORE = "touchstone-store"
# What may change an outcome though nobody changed a line; those that are not installed are left out.
PACKAGES = ("pytest-touchstone", "pytest", "openai", "anthropic", "litellm", "langchain-core", "google-genai", "mistralai")
WITHOUT_EFFECT = {
    "store",
    "export",
    "replay",
    "leak_threshold",
    "tokenizer",
    "export_license",
    "personal_data",
    "presidio_model",
    "plan",
    "show",
    "progress",
    "concurrency",
    "max_in_flight",
}


def secrets_of(target: str) -> Iterator[str]:
    """The password of a store's URL, as it is written there and as it is meant.

    >>> list(secrets_of("postgresql://ci:p%40ss@db/evals")), list(secrets_of(".touchstone/runs.db"))
    (['p%40ss', 'p@ss'], [])
    """
    _, _, address = target.partition("://")
    user, _, host = address.rpartition("@")
    _, _, password = user.partition(":")
    if host and password:
        yield from (password, unquote(password))


class Gathered(Protocol):
    """What the run has gathered when it has ended."""

    notes: list[Line]

    def in_order(self) -> list[TrialRecord]:
        """Every planned trial."""
        ...

    def complete(self) -> bool:
        """Whether every planned trial had its turn."""
        ...


class RunKeeper:
    """Writes one run into the store; whatever goes wrong there is told, and changes nothing else."""

    def __init__(self, config: pytest.Config, settings: Settings, target: str, gathered: Gathered, *, redact: Callable[[str], str]) -> None:
        self.config = config
        self.settings = settings
        self.target = target
        self.gathered = gathered
        self.redact = redact
        self.started = datetime.now(UTC)
        # The code that runs is that of now, and git may take its time.
        self.question = CheckoutQuestion(config.rootpath)
        config.add_cleanup(self.question.drop)

    # Innermost of the wrappers, so that all the others have settled the exit status and nothing is printed yet.
    @pytest.hookimpl(wrapper=True, trylast=True)
    def pytest_sessionfinish(self, session: pytest.Session) -> Generator[None]:
        """Store what every other hook has made of the run."""
        yield
        if not self.config.getoption("collectonly") and (records := self.gathered.in_order()):
            self.gathered.notes += self._store(records, int(session.exitstatus))

    def _store(self, records: list[TrialRecord], exit_status: int) -> list[Line]:
        from pytest_touchstone.runs import RunStore, new_run

        gate: Gate | None = self.config.pluginmanager.get_plugin(GATE)
        run = new_run(
            records,
            started=self.started,
            ended=datetime.now(UTC),
            complete=self.gathered.complete(),
            exit_status=exit_status,
            checkout=self.question.answer(),
            options=self._options(),
            versions=_versions(),
            gate=None if gate is None else gate.word(),
        )
        try:
            RunStore.open(self.target, base=self.config.rootpath).add(run, records, redact=self.redact)
            keep_out_of_git(self.config.rootpath / ".touchstone")
        except Exception as error:  # noqa: BLE001 - whatever a database or its driver raises, the verdict stands
            said = self.redact(str(error)).strip() or type(error).__name__
            return [Line("yellow", f"run not stored: {visible(said.splitlines()[0])}")]
        return [Line("", f"run {run.id} stored")] if self.config.get_verbosity() > 0 else []

    def _options(self) -> dict[str, JsonValue]:
        """The options that decide which trials are made and how, where they are not what they are by default."""
        option = self.config.option
        given = self.config.args if self.config.args_source is pytest.Config.ArgsSource.ARGS else []
        pytests = {"arguments": list(given), "keyword": option.keyword, "markers": option.markexpr}
        ours = {name: value for name, value in dataclasses.asdict(self.settings).items() if name not in WITHOUT_EFFECT}
        chosen = dict(_changed(ours, dataclasses.asdict(Settings())))
        chosen |= {"record": self.settings.record, **{name: value for name, value in pytests.items() if value}}
        # A judge's address may hold a password.
        plain: dict[str, JsonValue] = json.loads(re.sub(r"://[^/@\s]*@", "://", json.dumps(chosen, default=str)))
        return plain


def _changed(values: Mapping[str, Any], default: Mapping[str, Any], within: str = "") -> Iterator[tuple[str, Any]]:
    """What is not as by default; what belongs to a group is called `group.name`."""
    for name, value in values.items():
        usual = default.get(name)
        if isinstance(value, dict):
            yield from _changed(cast("dict[str, Any]", value), cast("dict[str, Any]", usual or {}), f"{within}{name}.")
        elif value != usual:
            yield f"{within}{name}", value


def _versions() -> dict[str, str]:
    found = {"python": platform.python_version()}
    for name in PACKAGES:
        with contextlib.suppress(importlib.metadata.PackageNotFoundError):
            found[name] = importlib.metadata.version(name)
    return found
