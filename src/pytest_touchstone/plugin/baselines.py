"""Holds a run against the committed baselines, and has syrupy write what is accepted.

syrupy asserts in the process that runs a test; an entry of ours needs every trial of its case, which may have run in several processes.
So the controlling process asserts, once all trials are in, with syrupy's own assertion and an extension of ours: what syrupy counts,
writes, calls unused, deletes and prints, it does for our entries as for any snapshot.
"""

from __future__ import annotations

import functools
from collections import Counter, defaultdict
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from pytest_touchstone.baseline import by_suite, entry_name, entry_of, test_of, why_not_accepted
from pytest_touchstone.gate import compare, evidence
from pytest_touchstone.git import checkout
from pytest_touchstone.plugin.extent import EXTENT, Extent
from pytest_touchstone.plugin.gate_options import GATE
from pytest_touchstone.report.terminal import Line
from pytest_touchstone.text import listed, visible

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence

    from syrupy.assertion import SnapshotAssertion
    from syrupy.location import PyTestLocation

    from pytest_touchstone.baseline import BaselineEntry
    from pytest_touchstone.gate import CaseChange, Evidence, Status
    from pytest_touchstone.report.terminal import Style
    from pytest_touchstone.trial import TrialRecord

BASELINES = "touchstone-baselines"
MAX_NAMED = 20
ORDER: tuple[Status, ...] = ("worse", "better", "flaky", "same", "new", "removed", "changed_case", "changed_judge", "unscored")


@dataclass(frozen=True, kw_only=True)
class Sides:
    """The two sides of one suite, by case id.

    `baseline` holds what was accepted of the cases that the run planned, and of those that are gone where the run can tell: where `partial`
    is "" (else it says why the run was of a part of the module only). `fault` is why the baseline cannot be read, "" where it can; a suite
    without a baseline has neither.
    """

    baseline: Mapping[str, Evidence]
    run: Mapping[str, Evidence]
    partial: str = ""
    fault: str = ""


@dataclass(frozen=True, kw_only=True)
class _Module:
    """The golden tests of one test module in this run; `partial` is why it did not run in full, "" where it did."""

    name: str
    path: Path
    partial: str
    suites: Mapping[str, Sequence[TrialRecord]]

    @property
    def names(self) -> frozenset[str]:
        """What the entries of its planned cases are called."""
        return frozenset(entry_name(test_of(suite), record.case_id) for suite, records in self.suites.items() for record in records)


@dataclass(frozen=True, kw_only=True)
class _Held:
    """One case of the run beside its entry; `refused` is why it may not be accepted, "" where it may."""

    name: str
    change: CaseChange
    refused: str

    @property
    def passed(self) -> str:
        """How many trials passed, before and now."""
        before, after = self.change.before, self.change.after
        told = [f"{side.passes} of {side.trials}" for side in (before, after) if side is not None]
        return f"{self.name}: {' passed, now '.join(told)}{' passed' if len(told) == 1 else ''}"

    @property
    def kept(self) -> str:
        """Why it is not accepted, and what becomes of its entry."""
        return f"{self.name}: {self.refused}; {'it has no entry' if self.change.before is None else 'its entry stays as it was'}"

    @property
    def fell(self) -> bool:
        """Whether fewer of its trials passed, however few."""
        return self.change.difference is not None and self.change.difference < 0

    @property
    def weaker(self) -> bool:
        """Whether it rests on fewer trials than before."""
        before, after = self.change.before, self.change.after
        return before is not None and after is not None and after.trials < before.trials


class _Node:
    """What syrupy asks of a test; the controller of pytest-xdist has no items."""

    def __init__(self, path: Path, suite: str) -> None:
        names, bracket, parameters = suite.partition("::")[2].partition("[")
        self.path = path
        self.nodeid = f"{path.name}::{names}"
        self.name = visible(f"{names.rpartition('::')[2]}{bracket}{parameters}")
        self.obj = type(names, (), {"__module__": path.stem})
        self.stash = pytest.Stash()


class Baselines:
    """The baselines of the run's test modules, in the controlling process."""

    def __init__(
        self, config: pytest.Config, *, records: Callable[[], Sequence[TrialRecord]], notes: list[Line], redact: Callable[[str], str]
    ) -> None:
        """Read nothing yet; `records` gives the record of every planned trial, and the end of the run prints `notes`."""
        from pytest_touchstone.baseline_syrupy import BaselineExtension, BaselineFiles

        self.config = config
        self.files = BaselineFiles(config.rootpath)
        self.extension = BaselineExtension.of(self.files)
        self.updates: bool = config.option.update_snapshots
        self.adds: bool = config.option.update_new_snapshots_only
        self._records = records
        self._notes = notes
        self._redact = redact
        self._compared: list[_Held] = []
        self._accepted: list[_Held] = []
        self._refused: list[_Held] = []
        self._outside: set[str] = set()
        self._gone = 0

    def sides(self) -> dict[str, Sides]:
        """What the baseline and this run know of each suite; before and after the baseline is updated, the one before."""
        return {suite: sides for module in self._modules() for suite, sides in self._sides_of(module)}

    @pytest.hookimpl(tryfirst=True)
    def pytest_sessionfinish(self, exitstatus: int) -> None:
        """Assert every entry, before syrupy ends its session and writes."""
        if self.config.getoption("collectonly") or exitstatus == pytest.ExitCode.INTERNAL_ERROR:
            return
        modules = list(self._modules())
        for module in modules:
            entries = self.files.entries(module.path)
            self.files.unused[module.path] = frozenset() if module.partial else frozenset(entries) - module.names
        self.files.others_unused = self._is_whole(modules)
        if any(module.partial and module.path.parent.is_dir() for module in modules) and not self._chosen_by_name():
            # syrupy goes by the names of test functions: where only some of their cases ran, it would delete the rest.
            self.config.option.disable_unused_snapshots = True
        for module in modules:
            if module.path not in self.files.faults and (self.files.entries(module.path) or self.updates or self.adds):
                self._gone += len(self.files.unused[module.path])
                self._hold(module)
        self._write()

    @pytest.hookimpl(specname="pytest_sessionfinish")
    def pytest_after_syrupy(self, session: pytest.Session) -> None:
        """Say what came of it, once syrupy has written, and let no run end well that could not do what it was asked for."""
        faults = [*(line for fault in self.files.faults.values() for line in fault.splitlines()), *self.files.failed]
        self._notes += [Line(style, f"baseline: {visible(self._redact(text))}") for style, text in self._said()]
        self._notes += [Line("red", f"baseline: {visible(self._redact(fault))}") for fault in faults]
        if faults and session.exitstatus in {pytest.ExitCode.OK, pytest.ExitCode.TESTS_FAILED}:
            session.exitstatus = pytest.ExitCode.USAGE_ERROR
        elif session.exitstatus == pytest.ExitCode.OK and any(held.change.must_pass_failed for held in self._refused):
            session.exitstatus = pytest.ExitCode.TESTS_FAILED

    # How it works

    @functools.cached_property
    def _commit(self) -> str | None:
        return checkout(self.config.rootpath).short

    @property
    def _extent(self) -> Extent:
        extent = self.config.pluginmanager.get_plugin(EXTENT)
        assert isinstance(extent, Extent)
        return extent

    def _modules(self) -> Iterator[_Module]:
        records = self._records()
        modules: defaultdict[str, defaultdict[str, list[TrialRecord]]] = defaultdict(lambda: defaultdict(list))
        for record in records:
            modules[record.nodeid.partition("::")[0]][record.suite].append(record)
        for run in self._extent.module_runs(records):
            suites = modules[run.module]
            if not (self.config.rootpath / run.module).is_file():
                self._outside.update(suites)  # nobody could say which file this is
                continue
            path = Path(self.extension.get_location(test_location=self._location(next(iter(suites))), index=0))
            yield _Module(name=run.module, path=path, partial=run.partial, suites=suites)

    def _location(self, suite: str) -> PyTestLocation:
        from syrupy.location import PyTestLocation

        node: Any = _Node(self.config.rootpath / suite.partition("::")[0], suite)
        return PyTestLocation(node)

    def _is_whole(self, modules: Iterable[_Module]) -> bool:
        """Whether a baseline of which this run has no test has none any more; syrupy looks at what was asked for."""
        return not (self._extent.partial or self._extent.lost or any(module.partial for module in modules))

    def _chosen_by_name(self) -> bool:
        """Whether -k or node ids chose the tests, which syrupy understands."""
        return bool(self.config.option.keyword) or any("::" in argument for argument in self.config.args)

    def _sides_of(self, module: _Module) -> Iterator[tuple[str, Sides]]:
        entries = self.files.entries(module.path)
        fault = self.files.faults.get(module.path, "")
        gone = {} if module.partial else by_suite(module.name, (entry for name, entry in entries.items() if name not in module.names))
        for suite, records in module.suites.items():
            run = evidence(records)
            names = {case_id: entry_name(test_of(suite), case_id) for case_id in run}
            known = {case_id: entries[name].evidence for case_id, name in names.items() if name in entries}
            yield suite, Sides(baseline={**known, **gone.pop(suite, {})}, run=run, partial=module.partial, fault=fault)
        for suite, left in gone.items():
            yield suite, Sides(baseline=left, run={})

    def _hold(self, module: _Module) -> None:
        entries = self.files.entries(module.path)
        for suite, records in module.suites.items():
            assertion = self._assertion(suite)
            of_case: defaultdict[str, list[TrialRecord]] = defaultdict(list)
            for record in records:
                of_case[record.case_id].append(record)
            for case_id, run in evidence(records).items():
                name = entry_name(test_of(suite), case_id)
                old = entries.get(name)
                change = compare(None if old is None else old.evidence, run)
                held = _Held(name=name, change=change, refused=why_not_accepted(run))
                text = self._text(module.path, held, old, of_case[case_id])
                if text is not None:
                    assertion(name=case_id).__eq__(text)

    def _write(self) -> None:
        """Have syrupy write now, where a disk that is full is told and not taken for an error of pytest."""
        config: Any = self.config
        try:
            config._syrupy.flush_snapshot_write_queue()  # noqa: SLF001 - where syrupy keeps it
        except OSError as error:
            self.files.failed.append(f"{error.filename or 'a snapshot'} could not be written ({error.strerror or error})")

    def _assertion(self, suite: str) -> SnapshotAssertion:
        from syrupy.assertion import SnapshotAssertion

        config: Any = self.config
        return SnapshotAssertion(
            session=config._syrupy,  # noqa: SLF001 - where syrupy keeps it
            extension_class=self.extension,
            test_location=self._location(suite),
            update_snapshots=self.updates,
            update_new_snapshots_only=self.adds,
        )

    def _text(self, path: Path, held: _Held, old: BaselineEntry | None, records: Sequence[TrialRecord]) -> str | None:
        """What syrupy is to assert of the entry; None where there is nothing to assert."""
        from pytest_touchstone.baseline_syrupy import AS_IT_IS, OTHERWISE

        run = held.change.after
        assert run is not None
        if not self.updates and (old is not None or not self.adds):
            self._compared.append(held)
            if old is None or not run.trials:
                return None
            return OTHERWISE if held.change.status == "worse" else AS_IT_IS
        if held.refused:
            self._refused.append(held)
            return None
        self._accepted.append(held)
        return self.files.offer(path, entry_of(run, records, redact=self._redact, old=old, commit=self._commit))

    def _said(self) -> Iterator[tuple[Style, str]]:
        counted: Counter[Status] = Counter(held.change.status for held in self._compared)
        if not self.updates:
            counted["removed"] += self._gone
        if counted.total():
            yield ("red" if counted["worse"] else ""), _counts(counted)
        if not self.config.pluginmanager.has_plugin(GATE):  # which names them with all that it has to say
            yield from _named("red", "worse", [held.passed for held in self._compared if held.change.status == "worse"])
        new = [held.name for held in self._compared if held.change.status == "new"]
        if new:
            yield "", f"not in the baseline: {listed(new, MAX_NAMED)}; --snapshot-update accepts them"
        if self._accepted:
            yield "", f"accepted {_counts(Counter(held.change.status for held in self._accepted))}"
        yield from _named("yellow", "accepted as worse", [held.passed for held in self._accepted if held.fell])
        weaker = sum(held.weaker for held in self._accepted)
        if weaker:
            yield "yellow", f"{weaker} of them on fewer trials than before; --llm-repeat makes them as strong as they were"
        for suite in sorted(self._outside):
            yield "yellow", f"{suite} is outside of the root folder, and so without a baseline; give a --rootdir that holds it"
        yield from _named("red", "not accepted", [held.kept for held in self._refused if held.change.must_pass_failed])
        yield from _named("yellow", "not accepted", [held.kept for held in self._refused if not held.change.must_pass_failed])


def _counts(counted: Counter[Status]) -> str:
    return ", ".join(f"{counted[status]:,} {status.replace('_', ' ')}" for status in ORDER if counted[status])


def _named(style: Style, what: str, names: Sequence[str]) -> Iterator[tuple[Style, str]]:
    for name in names[:MAX_NAMED]:
        yield style, f"{what}: {name}"
    if len(names) > MAX_NAMED:
        yield style, f"{what}: {len(names) - MAX_NAMED:,} more"
