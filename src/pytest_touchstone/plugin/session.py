"""The controlling process: gathers every trial's record, and at the end writes, reports and decides the exit status."""

from __future__ import annotations

import os
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import pytest

from pytest_touchstone.errors import ExportError, TouchstoneError
from pytest_touchstone.files import keep_out_of_git
from pytest_touchstone.git import checkout
from pytest_touchstone.plugin.bodies import current_body
from pytest_touchstone.plugin.collect import GoldenCollector, suite_of
from pytest_touchstone.plugin.excuses import EXCUSES_GIVEN, Excuses, is_held_against_baseline
from pytest_touchstone.plugin.extent import EXTENT, Extent
from pytest_touchstone.plugin.limits import LIMITS, Limits
from pytest_touchstone.plugin.options import read_settings, record_mode
from pytest_touchstone.plugin.plan import PLAN, Planner
from pytest_touchstone.plugin.progress import PROGRESS, ProgressLine
from pytest_touchstone.plugin.repeats import missed
from pytest_touchstone.plugin.shares import make_scheduler, share_of
from pytest_touchstone.plugin.stages import FURTHER, FurtherTrials
from pytest_touchstone.plugin.stopping import STOPPING, Stopping
from pytest_touchstone.plugin.store import STORE, RunKeeper, secrets_of
from pytest_touchstone.plugin.summary import LeanSummary, shown_and_further, write_further, write_lines
from pytest_touchstone.plugin.targets import accept_filled, target_lines
from pytest_touchstone.plugin.trials import HOOK_RAISED, TrialRunner, without_trial
from pytest_touchstone.plugin.window import WINDOW, Window
from pytest_touchstone.recording.guard import PlaceholderKeys
from pytest_touchstone.recording.key import KeyRules
from pytest_touchstone.recording.recorder import Recorder
from pytest_touchstone.report.model import summarize
from pytest_touchstone.report.repeats import repeat_lines
from pytest_touchstone.report.terminal import Line, call_lines, from_pairs, plain, quarantine_lines, summary_table
from pytest_touchstone.settings import ExitStatus
from pytest_touchstone.text import counted, listed, visible
from pytest_touchstone.trial import TrialRecord, changed

if TYPE_CHECKING:
    from collections.abc import Generator, Iterable, Iterator
    from pathlib import Path

    from pytest_touchstone.export.write import Manifest
    from pytest_touchstone.settings import Settings

RUNNER = "touchstone-trials"
FOLDER = ".touchstone"
KEPT = ("suite", "case_id", "outcome", "reason")
# How failures that decide nothing by themselves are counted and shown, and which of them are printed in full.
EXCUSES = {
    "known": ("known", "k", ("KNOWN", {"yellow": True})),
    "worse": ("worse", "w", ("WORSE", {"red": True})),
    "flaky": ("flaky", "f", ("FLAKY", {"yellow": True})),
    "tried": ("tried", "t", ("TRIED", {"yellow": True})),
    "quarantined": ("quarantined", "q", ("QUARANTINED", {"yellow": True})),
}
MAX_ADVICE = 4  # lines about the quality of an export, the weightiest ones; the files have them all
SHOWN_EXCUSES = ("worse", "flaky")


def register(config: pytest.Config) -> None:
    """Register what this process needs: the runner where tests run, the session where results are gathered."""
    settings = read_settings(config)
    is_worker = hasattr(config, "workerinput")
    _check_gate(config, settings)
    if settings.export is not None and not is_worker:
        _check_export(settings)
    if settings.plan:
        config.pluginmanager.register(GoldenCollector(settings), "touchstone-collect")
        config.pluginmanager.register(Planner(config, settings, journal_dir=config.rootpath / FOLDER / "journals"), PLAN)
        return
    # Before anybody reads the accepted ones, workers included.
    told = [] if is_worker or settings.export is None or config.getoption("collectonly") else _accept_filled(settings)
    limits = Limits(config, settings, folder=config.rootpath / FOLDER)
    config.pluginmanager.register(limits, LIMITS)
    recorder = Recorder(
        mode=settings.record,
        journal_dir=config.rootpath / FOLDER / "journals",
        rootdir=config.rootpath,
        allow_hosts=settings.allow_hosts,
        environ=os.environ,
        rules=KeyRules(ignore=settings.record_ignore, change=RequestHook(config)),
        carry=(current_body,),
        paces=limits.paces,
        budget=limits.budget,
    )
    for secret in secrets_of(settings.store or ""):
        recorder.redactor.learn(secret)
    config.pluginmanager.register(Extent(config, recorder), EXTENT)
    stopping = Stopping(config, settings.gate, folder=config.rootpath / FOLDER)
    config.pluginmanager.register(stopping, STOPPING)
    if is_worker or config.getoption("dist", "no") == "no":
        _register_runner(config, settings, recorder, limits, stopping)
    if not is_worker:
        _register_session(config, settings, recorder, limits, stopping, told)


def _register_runner(config: pytest.Config, settings: Settings, recorder: Recorder, limits: Limits, stopping: Stopping) -> None:
    collector = GoldenCollector(settings)
    config.pluginmanager.register(collector, "touchstone-collect")
    runner = TrialRunner(config, settings, recorder, collector)
    config.pluginmanager.register(runner, RUNNER)
    config.pluginmanager.register(Excuses(config, settings), EXCUSES_GIVEN)
    window = Window(
        config,
        width=share_of(settings.concurrency, config),
        timeout_s=settings.timeout_s,
        alone_fixtures=settings.alone_fixtures,
        owned=runner.owned,
        without_trial=without_trial,
        left_out=lambda item: limits.spent() or (stopping.why(suite_of(item)) if settings.gate.stop_early else None),
        after=None if runner.targets.teacher is None else runner.teach,
        after_async=None if runner.targets.teacher is None else runner.ateach,
    )
    config.pluginmanager.register(window, WINDOW)
    if settings.gate.stage2 and hasattr(config, "workerinput") and is_held_against_baseline(config, settings.gate):
        config.pluginmanager.register(FurtherTrials(settings.gate.stage2), FURTHER)


def _register_session(
    config: pytest.Config, settings: Settings, recorder: Recorder, limits: Limits, stopping: Stopping, told: list[Line]
) -> None:
    """Hooks are called in the reverse order: the session has every trial accounted for before the baselines look."""
    progress = ProgressLine(os.environ) if settings.progress else None
    if progress is not None:
        config.pluginmanager.register(progress, PROGRESS)
    run = RunSession(config, settings, recorder, limits, stopping, progress)
    run.notes += told
    if config.pluginmanager.has_plugin("syrupy"):
        from pytest_touchstone.plugin.baselines import BASELINES, Baselines

        config.pluginmanager.register(Baselines(config, records=run.in_order, notes=run.notes, redact=recorder.redact), BASELINES)
    config.pluginmanager.register(run, "touchstone-session")
    # Of those that want to be last, the latest is: the decision comes after all others, and what is stored after the decision.
    if settings.gate.mode == "regression":
        from pytest_touchstone.plugin.gate_options import GATE
        from pytest_touchstone.plugin.gating import Gate

        config.pluginmanager.register(Gate(config, settings.gate, accounts=run, stopping=stopping), GATE)
    if settings.store is not None and not config.getoption("collectonly"):
        config.pluginmanager.register(RunKeeper(config, settings, settings.store, run, redact=recorder.redact), STORE)


def set_placeholder_keys(config: pytest.Config) -> None:
    """In replay mode, set API keys that are absent until the run ends, so that clients can be built at import time."""
    if record_mode(config, config.known_args_namespace) == "none":
        keys = PlaceholderKeys()
        keys.start()
        config.add_cleanup(keys.stop)


class RequestHook:
    """The hook `pytest_llm_request`; false while nobody implements it, so that requests cost nothing more."""

    def __init__(self, config: pytest.Config) -> None:
        self.hook = config.hook.pytest_llm_request

    def __bool__(self) -> bool:
        """Whether any conftest or plugin, those of the collected folders included, implements it."""
        return bool(self.hook.get_hookimpls())

    def __call__(self, request: dict[str, Any]) -> None:
        """Have every implementation change the request in place."""
        self.hook(request=request)


@dataclass(frozen=True, kw_only=True)
class CrashLine:
    """Where and why a trial failed, in the shape that pytest's short summary and junit read."""

    path: str
    lineno: int
    message: str

    def __str__(self) -> str:
        """As pytest prints a location."""
        return f"{self.path}:{self.lineno}: {self.message}"


class TrialRepr:
    """A failed trial as pytest prints it: the trial first, then pytest's own representation of the user's frames, if any."""

    def __init__(self, block: Iterable[Line], reprcrash: CrashLine, inner: Any) -> None:  # noqa: ANN401 - pytest's are private
        self.block = list(block)
        self.reprcrash = reprcrash
        self.inner = inner

    def toterminal(self, tw: Any) -> None:  # noqa: ANN401 - pytest's TerminalWriter
        """Write the block with its styles."""
        write_lines(tw, self.block)
        if self.inner is not None:
            tw.line("")
            if hasattr(self.inner, "toterminal"):
                self.inner.toterminal(tw)
            else:
                tw.line(str(self.inner))

    def __str__(self) -> str:
        """The same without styles, for junit and other reports."""
        return plain(self.block) + ("" if self.inner is None else f"\n\n{self.inner}")


class RunSession:
    """Every trial of the run, accounted for."""

    def __init__(
        self,
        config: pytest.Config,
        settings: Settings,
        recorder: Recorder,
        limits: Limits,
        stopping: Stopping,
        progress: ProgressLine | None = None,
    ) -> None:
        self.config = config
        self.limits = limits
        self.stopping = stopping
        self.settings = settings
        self.recorder = recorder
        self.progress = progress
        self.planned: dict[str, TrialRecord] = {}
        self.records: dict[str, TrialRecord] = {}
        self.holdout: dict[tuple[str, str], dict[str, str]] = {}
        self.marked: dict[str, dict[str, Any]] = {}
        self.needed: dict[str, int] = {}
        self.behind: dict[str, str] = {}
        self.died: dict[str, str] = {}
        self.alone: list[list[Any]] = []
        self.window_note = ""
        self.expected_failures = 0
        self.unreached = 0
        self.plain_failures = 0
        self.unscored: list[pytest.TestReport] = []
        self.excused: list[pytest.TestReport] = []
        self.notes: list[Line] = []
        self.placed: list[dict[str, Any]] = []

    @pytest.hookimpl(optionalhook=True)
    def pytest_xdist_make_scheduler(self, config: pytest.Config, log: Any) -> Any:  # noqa: ANN401 - xdist's Producer and Scheduling
        """Keep each worker's window filled."""
        if config.getoption("dist", "no") != "load":
            return None
        workers = max(1, len(config.getoption("tx", None) or []))
        return make_scheduler(config, log, ahead=8 * max(1, self.settings.concurrency // workers))

    def pytest_report_header(self) -> str:
        """Say how this run gets its answers."""
        judge = self.settings.judge.model or "none"
        return f"touchstone: recordings {self.settings.record}, judge {judge}"

    @pytest.hookimpl(tryfirst=True)
    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        """Gather the trial on the report, and give the report the representation that terminal and junit show."""
        # Off the report: it holds holdout inputs, and other plugins write reports to files.
        self._take_plan(self._plan_of_this_process() or report.__dict__.pop("touchstone_plan", None))
        data: dict[str, Any] | None = getattr(report, "touchstone", None)
        if str(report.outcome) == "rerun":  # set by pytest-rerunfailures: another attempt follows, and that one counts
            return
        if data is None:
            self._take_plain(report)
            return
        record = TrialRecord.from_dict(data["record"])
        self.records[record.nodeid] = record
        if self.progress is not None:
            self.progress.called(record.calls)
        self.expected_failures += bool(data.get("expected")) and record.outcome != "passed"
        if report.failed:
            if record.outcome == "unscored":
                self.unscored.append(report)
            elif record.outcome != "error":
                self.plain_failures += 1
        elif data.get("excused") in SHOWN_EXCUSES:
            self.excused.append(report)
        if "block" in data:
            report.longrepr = _representation(data, report.longrepr)  # type: ignore[assignment]
        # The terminal reporter keeps every report to the end, and what it needs of this one is little.
        kept = {"record": {name: data["record"][name] for name in KEPT}}
        report.touchstone = {**kept, "excused": data["excused"]} if "excused" in data else kept  # type: ignore[attr-defined]

    @pytest.hookimpl(tryfirst=True)
    def pytest_report_teststatus(self, report: pytest.CollectReport | pytest.TestReport) -> tuple[str, str, Any] | None:
        """Tell errors and unscored trials from failures."""
        data: dict[str, Any] | None = getattr(report, "touchstone", None)
        if data is None:
            return None
        if data.get("excused"):  # a report that pytest-rerunfailures sends ahead has nothing of the sort
            return EXCUSES[data["excused"]]
        if not report.failed:
            return None
        if data["record"]["outcome"] == "error":
            return "error", "E", "ERROR"
        if data["record"]["outcome"] == "unscored":
            return "unscored", "U", ("UNSCORED", {"yellow": True})
        return None

    @pytest.hookimpl(specname="pytest_sessionfinish", tryfirst=True)
    def pytest_account(self, session: pytest.Session, exitstatus: int) -> None:
        """Account for what did not run, before anybody asks for the records."""
        if not self.config.getoption("collectonly"):
            self._take_plan(self._plan_of_this_process())
            self._account_for_the_rest(_why_stopped(session, exitstatus, self.recorder.redact(self.limits.spent() or "")))

    @pytest.hookimpl(trylast=True)
    def pytest_sessionfinish(self, session: pytest.Session) -> None:
        """Store the recordings, export, and set the exit status."""
        if self.config.getoption("collectonly"):
            return
        self.notes += [Line("yellow", line) for line in self.limits.lines()]
        missing = [] if is_held_against_baseline(self.config, self.settings.gate) else list(missed(self.in_order(), self.needed))
        self.notes += [Line("red", line) for line in missing]
        if missing and session.exitstatus == pytest.ExitCode.OK:
            session.exitstatus = pytest.ExitCode.TESTS_FAILED
        self.plain_failures += len(missing)
        failed = self._step("recordings", self._merge_recordings)
        if self.settings.export is not None:
            failed |= self._step("export", self._export)
        if failed and session.exitstatus in {pytest.ExitCode.OK, pytest.ExitCode.TESTS_FAILED}:
            session.exitstatus = pytest.ExitCode.USAGE_ERROR
        elif session.exitstatus == pytest.ExitCode.TESTS_FAILED and not self.plain_failures:
            session.exitstatus = self._status_without_failures()
        elif session.exitstatus == pytest.ExitCode.OK and self._budget_ended_it():
            session.exitstatus = ExitStatus.BUDGET
        terminal: pytest.TerminalReporter | None = self.config.pluginmanager.get_plugin("terminalreporter")
        if session.exitstatus == pytest.ExitCode.INTERNAL_ERROR and terminal is not None and self.planned:
            self._print_table(terminal)  # pytest asks nobody for a summary then

    @pytest.hookimpl(specname="pytest_terminal_summary", wrapper=True, tryfirst=True)
    def pytest_lean_summary(self, terminalreporter: pytest.TerminalReporter) -> Generator[None]:
        """Have pytest's own summary, which comes before and after that of plugins, stay readable and quick with many failures."""
        with LeanSummary(terminalreporter, limit=self.settings.show).applied():
            return (yield)

    def pytest_terminal_summary(self, terminalreporter: pytest.TerminalReporter) -> None:
        """Print unscored trials as pytest prints failures, then the table."""
        if self.config.getoption("collectonly"):
            return
        if not self.planned:
            write_lines(terminalreporter, self.notes)
            return
        self._print_in_full(terminalreporter, "UNSCORED", self.unscored)
        self._print_in_full(terminalreporter, "WORSE OR FLAKY", self.excused)
        self._print_table(terminalreporter)

    def _print_table(self, terminalreporter: pytest.TerminalReporter) -> None:
        records = self.in_order()
        suites = summarize(records)
        terminalreporter.write_sep("=", "golden cases")
        verbose = self.config.get_verbosity() > 0
        counted = "trials" if any(record.number > 1 for record in records) else "cases"
        table = [*summary_table(suites, all_tags=verbose, counted=counted), *call_lines(suites), *repeat_lines(records, every=verbose)]
        table += quarantine_lines(records, reasons=verbose)
        write_lines(terminalreporter, [*table, *self._expected_note(), *self._alone_notes(), *self.notes])

    def in_order(self) -> list[TrialRecord]:
        """Every planned trial's record, in the order of collection."""
        return [self.records.get(nodeid, planned) for nodeid, planned in self.planned.items()]

    def plan(self, trials: Iterable[TrialRecord]) -> None:
        """Account for further trials."""
        self.planned.update([(trial.nodeid, trial) for trial in trials])

    def not_run(self, item: pytest.Item) -> TrialRecord:
        """The record of a golden test of this process that has not run."""
        runner = self.config.pluginmanager.get_plugin(RUNNER)
        assert isinstance(runner, TrialRunner)
        return runner.planned(item)

    def complete(self) -> bool:
        """Whether, in the end, every planned trial had its turn."""
        return not self.unreached and not self._budget_ended_it()

    def _plan_of_this_process(self) -> dict[str, Any] | None:
        runner = self.config.pluginmanager.get_plugin(RUNNER)
        return runner.take_plan() if isinstance(runner, TrialRunner) else None

    def _take_plan(self, plan: dict[str, Any] | None) -> None:
        if plan is not None:
            for data in plan["trials"]:
                self.planned.setdefault(data["nodeid"], TrialRecord.from_dict(data))
            self.holdout.update({(case["suite"], case["case_id"]): case for case in plan["holdout"]})
            self.marked.update(plan["marked"])
            self.needed.update(plan["needed"])
            self.behind.update(plan["behind"])
            self.alone = plan["alone"]
            self.placed = plan["corrections"]
            self.window_note = plan["note"]

    def _take_plain(self, report: pytest.TestReport) -> None:
        if not report.failed:
            return
        if report.when in {"setup", "call", "teardown"}:
            self.plain_failures += 1
        else:  # pytest-xdist reports a worker that died by a report of its own, maybe before anybody has said what is planned
            self.died[report.nodeid] = str(report.longrepr).splitlines()[0]

    def _account_for_the_rest(self, reason: str) -> None:
        for nodeid, said in self.died.items():
            if nodeid in self.planned:
                self.records[nodeid] = changed(self.planned[nodeid], outcome="error", reason=said)
            else:
                self.plain_failures += 1
        self.unreached = len(self.planned.keys() - self.records.keys())
        for nodeid, planned in self.planned.items():
            if nodeid not in self.records:
                self.records[nodeid] = changed(planned, reason=self.stopping.why(planned.suite) or reason)

    def _step(self, name: str, step: Any) -> bool:  # noqa: ANN401 - a method of this class
        try:
            step()
        except (TouchstoneError, OSError) as error:
            self.notes += [Line("red", f"{name}: {visible(self.recorder.redact(line))}") for line in str(error).splitlines()]
            return True
        return False

    def _merge_recordings(self) -> None:
        extent = self.config.pluginmanager.get_plugin(EXTENT)
        assert isinstance(extent, Extent)
        report = self.recorder.merge(extent.evidence(self.in_order()))
        keep_out_of_git(self.config.rootpath / FOLDER)
        self.notes += [Line("red" if line.startswith("not stored") else "", f"recordings: {visible(line)}") for line in report.lines()]

    def _export(self) -> None:
        from pytest_touchstone.export.corrections import Corrections
        from pytest_touchstone.export.leak import HeldOut
        from pytest_touchstone.export.personal import RULES
        from pytest_touchstone.export.presidio import presidio_finder
        from pytest_touchstone.export.quality import NO_TOKENIZER
        from pytest_touchstone.export.tokens import token_counter
        from pytest_touchstone.export.write import Dataset, Offer, write_export

        assert self.settings.export is not None
        assert self.settings.corrections is not None
        if all(record.outcome == "not_run" for record in self.in_order()):
            self.notes.append(Line("yellow", f"export: not written, as no trial has run; {self.settings.export} is left as it was"))
            return
        offers = [offer for record in self.in_order() for offer in Offer.all_of(record)]
        raised = [f"case {offer.case_id!r}: {offer.reason}" for offer in offers if offer.reason.startswith(HOOK_RAISED)]
        if raised:
            raise ExportError("\n".join(raised))
        self.notes += accept_filled(self.settings)  # before the list is written anew
        count_tokens, tokens_reason = (None, NO_TOKENIZER) if self.settings.tokenizer is None else token_counter(self.settings.tokenizer)
        manifest = write_export(
            self.settings.export,
            offers=offers,
            held_out=[HeldOut(**self.holdout[key]) for key in sorted(self.holdout)],
            leak_threshold=self.settings.leak_threshold,
            replay=self.settings.replay,
            formats=self.settings.export_formats,
            run=self._described(),
            redact=self.recorder.redact,
            corrections=Corrections.read(self.settings.corrections),
            count_tokens=count_tokens,
            tokens_reason=tokens_reason,
            finder=RULES if self.settings.personal_data == "rules" else presidio_finder(self.settings.presidio_model),
            license_=self.settings.export_license,
        )
        self.notes += [Line("", f"export: {line}") for line in _export_lines(manifest, self.settings.export)]
        self.notes += target_lines(self.settings, manifest, self.in_order(), self.placed)
        self.notes += [Line("yellow", f"quality: {visible(line)}") for line in _quality_lines(manifest)]
        if manifest.holdout_taught:
            self.notes.append(Line("yellow", f"export: {_taught_line(manifest)}"))
        try:
            self.config.hook.pytest_llm_export(dataset=Dataset(folder=self.settings.export, manifest=manifest), config=self.config)
        except Exception as error:
            msg = f"a pytest_llm_export hook raised {type(error).__name__}: {error}"
            raise ExportError(msg) from error

    def _described(self) -> dict[str, Any]:
        """What an export says of its run."""
        there = checkout(self.config.rootpath)
        calls = [call for record in self.records.values() for call in record.calls if call.role == "app"]
        return {
            "record": self.settings.record,
            "judge": self.settings.judge.model,
            "teacher": self.settings.teacher.model,
            "corrections": [placed for placed in self.placed if placed["state"] != "current"],
            "models": sorted({f"{call.provider}:{call.model}" for call in calls}),
            "prompts": sorted({call.prompt_hash for call in calls if call.prompt_hash}),
            "commit": there.commit,
            "uncommitted changes": there.dirty,
        }

    def _status_without_failures(self) -> int:
        outcomes = {record.outcome for record in self.records.values()}
        if "error" in outcomes:
            return ExitStatus.ERRORS
        if self._budget_ended_it():
            return ExitStatus.BUDGET
        return ExitStatus.UNSCORED if "unscored" in outcomes else pytest.ExitCode.TESTS_FAILED

    def _budget_ended_it(self) -> bool:
        spent = self.recorder.redact(self.limits.spent() or "")
        return bool(spent) and any(record.outcome == "not_run" and record.reason == spent for record in self.records.values())

    def _print_in_full(self, terminalreporter: pytest.TerminalReporter, title: str, reports: list[pytest.TestReport]) -> None:
        if not reports or self.config.getoption("tbstyle") == "no":
            return
        terminalreporter.write_sep("=", title)
        shown, further = shown_and_further(reports, self.settings.show)
        for report in shown:
            terminalreporter.write_sep("_", report.head_line or report.nodeid, yellow=True, bold=True)
            report.toterminal(terminalreporter._tw)  # noqa: SLF001 # pyright: ignore[reportPrivateUsage] - as pytest prints failures
        if further:
            write_further(terminalreporter, further)

    def _alone_notes(self) -> list[Line]:
        note = [Line("yellow", self.window_note)] if self.window_note else []
        return note + [
            Line("", f"ran alone: {visible(suite)} ({counted(count, 'trial')}): {visible(why)}") for suite, count, why in self.alone
        ]

    def _expected_note(self) -> list[Line]:
        count = self.expected_failures
        return [Line("", f"{count} of them expected to fail (xfail)")] if count else []


def _representation(data: dict[str, Any], longrepr: object) -> TrialRepr:
    block = from_pairs(data["block"])
    path, lineno, message = data["crash"]
    # The text alone says nothing that the block does not.
    inner = None if longrepr == plain(block) else longrepr
    return TrialRepr(block, CrashLine(path=path, lineno=lineno, message=message), inner)


def _check_gate(config: pytest.Config, settings: Settings) -> None:
    if settings.gate.mode == "regression" and not config.pluginmanager.has_plugin("syrupy"):
        msg = "--llm-gate regression needs the baseline, which syrupy keeps; leave out -p no:syrupy"
        raise pytest.UsageError(msg)


def _accept_filled(settings: Settings) -> list[Line]:
    try:
        return accept_filled(settings)
    except (ExportError, OSError) as error:
        raise pytest.UsageError(str(error)) from error


def _check_export(settings: Settings) -> None:
    from pytest_touchstone.export.presidio import check_presidio
    from pytest_touchstone.export.tokens import check_tokenizer
    from pytest_touchstone.export.write import check_folder

    assert settings.export is not None
    try:
        check_folder(settings.export, settings.export_formats)
        if settings.tokenizer is not None:
            check_tokenizer(settings.tokenizer)
        if settings.personal_data == "presidio":
            check_presidio(settings.presidio_model)
    except ExportError as error:
        raise pytest.UsageError(str(error)) from error


def _export_lines(manifest: Manifest, folder: Path) -> Iterator[str]:
    kinds = ", ".join(f"{count} {kind}" for kind, count in manifest.by_kind.items())
    yield f"{counted(manifest.written, 'example')} written to {folder}" + (f" ({kinds})" if kinds else "")
    reasons = ", ".join(f"{count} {visible(reason)}" for reason, count in manifest.left_out_by_reason.items())
    noun = "trial" if manifest.offered == manifest.trials else "call"
    yield f"{counted(manifest.left_out, noun)} left out" + (f" ({reasons})" if reasons else "")
    for name, report in manifest.formats.items():
        missing = ", ".join(f"{count} {visible(reason)}" for reason, count in report["left_out_by_reason"].items())
        yield f"{name}: {counted(report['written'], 'example')} of {report['examples']:,}" + (f" ({missing})" if missing else "")


def _quality_lines(manifest: Manifest) -> Iterator[str]:
    yield from manifest.advice[:MAX_ADVICE]
    if len(manifest.advice) > MAX_ADVICE:
        yield f"{len(manifest.advice) - MAX_ADVICE} more in README.md"


def _taught_line(manifest: Manifest) -> str:
    from pytest_touchstone.export.ledger import MAX_NAMED

    names = list(dict.fromkeys(f"{entry['suite']} {entry['case_id']}" for entry in manifest.holdout_taught))
    count = counted(len(names), "holdout case")
    told = f"{count} had been in earlier exports, so what was trained on those cannot be measured by them"
    return visible(f"{told}: {listed(names, MAX_NAMED)}")


def _why_stopped(session: pytest.Session, exitstatus: int, spent: str) -> str:
    if exitstatus == pytest.ExitCode.INTERRUPTED:
        return "the run was interrupted"
    why = session.shouldfail or session.shouldstop
    return f"the run stopped early: {why}" if isinstance(why, str) else spent or "the run ended before it"
