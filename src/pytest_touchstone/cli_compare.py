"""`touchstone compare`: any two of stored runs, baselines, commits and files of outputs, held against each other by the gate."""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pytest_touchstone.cli_runs import add_store_option, configuration, find_store, open_store, print_json, print_lines, root_folder
from pytest_touchstone.errors import SettingsError, StoreError
from pytest_touchstone.gate_rules import RULES

if TYPE_CHECKING:
    import argparse
    from collections.abc import Callable, Iterable, Mapping, Sequence

    from pytest_touchstone.baseline import BaselineEntry
    from pytest_touchstone.gate import Decision, Evidence, Policy
    from pytest_touchstone.gate_rules import Rule
    from pytest_touchstone.runs import Run
    from pytest_touchstone.trial import TrialRecord

BASELINE = "baseline"
OUTPUTS = "outputs"
REGRESSED = 1
UNDECIDED = 3

_SIDE = (
    "the id of a run or the beginning of one; latest, or latest~1 for the one before; baseline; baseline@COMMIT; "
    "a commit, branch or tag; or a file of outputs"
)


@dataclass(frozen=True, kw_only=True)
class Side:
    """One of the two: what to call it, its evidence by suite and case, and what is known of where it comes from."""

    name: str
    suites: Mapping[str, Mapping[str, Evidence]]
    provenance: Mapping[str, Sequence[str]]


def add_command(commands: Any) -> None:  # noqa: ANN401 - argparse keeps the type of subparsers to itself
    """Add the command to those of `touchstone`."""
    parser: argparse.ArgumentParser = commands.add_parser(
        "compare",
        help="Hold two runs, baselines, commits or files of outputs against each other.",
        description="Hold B against A case by case and decide as the gate does. Exit status 1 where B regressed.",
    )
    parser.add_argument("before", metavar="A", help=f"What is accepted: {_SIDE}.")
    parser.add_argument("after", metavar="B", help="What is to be judged: as A.")
    parser.add_argument("--by", choices=("tag",), help="Add a row for each tag; their p are adjusted by Holm within the suite.")
    parser.add_argument("--suite", action="append", default=[], metavar="NAME", help="Only this suite. May be repeated. Default: all.")
    parser.add_argument("--all", action="store_true", help="Every case that got worse. Default: the first 20 of a suite.")
    parser.add_argument("--json", action="store_true", help="Print JSON.")
    outputs = parser.add_argument_group(
        "files of outputs", 'JSON on each line: {"id": "late", "output": "No."} or {"id": ..., "passed": true}'
    )
    outputs.add_argument("--cases", metavar="FILE", help="The golden file that their cases stand in.")
    outputs.add_argument("--fields", metavar="NAME=FIELD,...", help="Which fields of it hold what: input=question,expected=answer.")
    outputs.add_argument(
        "--scorer",
        action="append",
        default=[],
        metavar="SCORER",
        help="What judges an output; all have to pass. May be repeated. Example: 'exact_match(extract=\"A:(.*)\")'",
    )
    gate = parser.add_argument_group(
        "gate", "As the options --llm-* of pytest; what is not given is that of pytest's configuration, or the default."
    )
    for rule in RULES:
        gate.add_argument(f"--{rule.name}", type=rule.read, metavar=rule.metavar, help=f"{rule.effect} Default: ini {rule.ini}.")
    add_store_option(parser)
    parser.set_defaults(run=_compare)


def _compare(options: argparse.Namespace) -> int:
    from pytest_touchstone.gate import decide
    from pytest_touchstone.report.comparison import comparison_data, comparison_lines, differences

    before, after = _chosen(_side(options.before, options), _side(options.after, options), options.suite)
    policy = _policy(options)
    decision = decide(before.suites, after.suites, policy)
    told: dict[str, Any] = {
        "before": before.name,
        "after": after.name,
        "by_tag": _by_tag(before, after, policy) if options.by else {},
        "differing": differences(before.provenance, after.provenance),
    }
    if options.json:
        print_json(comparison_data(decision, **told))
    else:
        print_lines(comparison_lines(decision, **told, all_cases=options.all))
    if decision.result == "regressed":
        return REGRESSED
    return UNDECIDED if decision.fails else 0


def _policy(options: argparse.Namespace) -> Policy:
    from pytest_touchstone.gate import Policy

    configured = configuration(root_folder())
    chosen: dict[str, Any] = {}
    for rule in RULES:
        text, given = configured.get(rule.ini), getattr(options, rule.key)
        if given is not None:
            chosen[rule.field] = given
        elif text not in {None, ""}:
            chosen[rule.field] = _read(rule, str(text))
    return Policy(**chosen)


def _read(rule: Rule, text: str) -> Any:  # noqa: ANN401 - a number or a word, as the policy's field
    try:
        return rule.read(text)
    except ValueError:
        msg = f"{rule.ini} in pytest's configuration is {text!r}; give a number"
        raise SettingsError(msg) from None


def _by_tag(before: Side, after: Side, policy: Policy) -> dict[str, Decision]:
    from pytest_touchstone.gate import decide
    from pytest_touchstone.report.comparison import tags_of

    found: dict[str, Decision] = {}
    for suite in dict.fromkeys([*after.suites, *before.suites]):
        old, new = before.suites.get(suite, {}), after.suites.get(suite, {})
        # A case has the tags that it has now.
        merged = {**old, **new}
        if tags := tags_of(merged):
            old_by_tag, new_by_tag = ({tag: _tagged(side, merged, tag) for tag in tags} for side in (old, new))
            found[suite] = decide(old_by_tag, new_by_tag, policy)
    return found


def _tagged(side: Mapping[str, Evidence], merged: Mapping[str, Evidence], tag: str) -> dict[str, Evidence]:
    return {case_id: case for case_id, case in side.items() if tag in merged[case_id].tags}


def _chosen(before: Side, after: Side, suites: Sequence[str]) -> tuple[Side, Side]:
    """The sides with the suites that are asked for; a file of outputs takes the name of the suite that it is compared with."""
    known = sorted({*before.suites, *after.suites} - {OUTPUTS})
    is_file = [OUTPUTS in side.suites for side in (before, after)]
    wanted = list(suites) or known or [OUTPUTS]
    if unknown := [name for name in wanted if name not in known and not all(is_file)]:
        msg = f"no suite is called {unknown[0]!r}; there are: {', '.join(known) or 'none'}"
        raise SettingsError(msg)
    if any(is_file) and len(wanted) > 1:
        msg = f"a file of outputs belongs to one suite; name it with --suite: {', '.join(wanted)}"
        raise SettingsError(msg)
    return _with_suites(before, wanted), _with_suites(after, wanted)


def _with_suites(side: Side, wanted: Iterable[str]) -> Side:
    return replace(side, suites={name: cases for name in wanted if (cases := side.suites.get(name) or side.suites.get(OUTPUTS))})


def _side(text: str, options: argparse.Namespace) -> Side:
    from pytest_touchstone.runs import is_latest, is_run_id

    if text == BASELINE:
        return _baseline_here()
    if text.startswith(f"{BASELINE}@"):
        return _baseline_at(text.removeprefix(f"{BASELINE}@"))
    if Path(text).is_file():
        return _outputs(Path(text), options)
    if is_latest(text):
        return _stored(text, options)
    return _run_or_commit(text, options) if is_run_id(text) else _at_commit(text, options)


def _run_or_commit(text: str, options: argparse.Namespace) -> Side:
    """Digits may begin the id of either; a run comes first."""
    try:
        return _stored(text, options)
    except StoreError as error:
        return _at_commit(text, options, otherwise=str(error))


def _stored(text: str, options: argparse.Namespace) -> Side:
    store = open_store(options)
    run = store.find(text)
    return _side_of_run(run, store.records(run), "")


def _side_of_run(run: Run, records: Iterable[TrialRecord], of: str) -> Side:
    from pytest_touchstone.gate import evidence

    suites: defaultdict[str, list[TrialRecord]] = defaultdict(list)
    for record in records:
        suites[record.suite].append(record)
    interrupted = "" if run.complete else ", which ended before every trial was made"
    return Side(
        name=f"run {run.id}{of}{interrupted}",
        suites={name: evidence(of_suite) for name, of_suite in suites.items()},
        provenance=_provenance(run),
    )


def _provenance(run: Run) -> dict[str, Sequence[str]]:
    from pytest_touchstone.report.runs import commit_text, value_text

    return {
        "commit": [commit_text(run.checkout)],
        "branch": [run.checkout.branch or "-"],
        "models": run.models,
        "judges": run.judges,
        "system prompts": [prompt[:10] for prompt in run.prompts],
        "options": [f"{name} {value_text(value)}" for name, value in run.options.items()],
        "versions": [f"{name} {value_text(value)}" for name, value in run.versions.items()],
    }


def _at_commit(ref: str, options: argparse.Namespace, *, otherwise: str = "") -> Side:
    """The most trustworthy run of a commit, else the baseline as it was committed there."""
    from pytest_touchstone.git import commit_of

    commit = commit_of(ref, root_folder())
    if commit is None:
        msg = otherwise or f"{ref!r} is no run, no file, and no commit, branch or tag that git knows here; `touchstone runs` lists the runs"
        raise SettingsError(msg)
    store = find_store(options)
    runs = [] if store is None else store.of_commit(commit)
    if store is not None and runs and runs[0].checkout.dirty is False:
        return _side_of_run(runs[0], store.records(runs[0]), f" of {ref} ({commit[:10]})")
    try:
        return _baseline_at(ref)
    except SettingsError:
        changed = f"; {len(runs)} with uncommitted changes do not count ({runs[0].id})" if runs else ""
        msg = f"{ref}: no run of commit {commit[:10]} is stored{changed}, and no baseline is committed there"
        raise SettingsError(msg) from None


def _baseline_here() -> Side:
    from pytest_touchstone.baseline import read_baseline

    root = root_folder()
    found = _baseline_files(path.relative_to(root).as_posix() for path in _walk(root))
    side = _baseline_side("baseline", found, lambda name: read_baseline(root / name, root=root))
    if not side.suites:
        msg = f"there is no baseline in {root}; pytest --llm-eval --snapshot-update accepts one"
        raise SettingsError(msg)
    return side


def _baseline_at(ref: str) -> Side:
    from pytest_touchstone.baseline import parse_baseline
    from pytest_touchstone.git import commit_of, file_at, files_at

    root = root_folder()
    commit = commit_of(ref, root)
    names = None if commit is None else files_at(commit, root)
    if commit is None or names is None:
        msg = f"{ref!r} is no commit, branch or tag that git knows in {root}"
        raise SettingsError(msg)
    short, known = commit[:10], commit

    def read(name: str) -> Mapping[str, BaselineEntry]:
        return parse_baseline(file_at(known, name, root) or b"", shown=f"{short}:{name}")

    side = _baseline_side(f"baseline at {ref} ({short})", _baseline_files(names), read)
    if not side.suites:
        msg = f"{ref}: no baseline is committed there"
        raise SettingsError(msg)
    return side


def _walk(root: Path) -> Iterable[Path]:
    import os

    for folder, names, files in os.walk(root):
        names[:] = [name for name in names if not name.startswith(".") and name != "node_modules" and "pyvenv.cfg" not in files]
        yield from (Path(folder, name) for name in files)


def _baseline_files(names: Iterable[str]) -> list[str]:
    from pytest_touchstone.baseline import FOLDER
    from pytest_touchstone.settings import BASELINE_SUFFIX

    paths = [Path(name) for name in names if name.endswith(f".{BASELINE_SUFFIX}")]
    return sorted(path.as_posix() for path in paths if path.parent.name == FOLDER)


def _baseline_side(name: str, files: Iterable[str], read: Callable[[str], Mapping[str, BaselineEntry]]) -> Side:
    from pytest_touchstone.baseline import by_suite

    suites: dict[str, Mapping[str, Evidence]] = {}
    entries: list[BaselineEntry] = []
    for path in files:
        module = Path(path).parent.with_name(f"{Path(path).stem}.py").as_posix()
        of_module = read(path).values()
        suites.update(by_suite(module, of_module))
        entries += of_module
    provenance = {
        "commit": sorted({entry.commit or "-" for entry in entries}),
        "models": sorted({model for entry in entries for model in entry.models}),
        "judges": sorted({judge for entry in entries for judge in entry.judges}),
    }
    return Side(name=name, suites=suites, provenance=provenance)


def _outputs(path: Path, options: argparse.Namespace) -> Side:
    from pytest_touchstone.cli_outputs import evidence_of, parse_scorer, read_cases, read_outputs

    rows = read_outputs(path, str(path))
    cases = None if options.cases is None else read_cases(options.cases, options.fields)
    scorers = [parse_scorer(text) for text in options.scorer]
    return Side(name=str(path), suites={OUTPUTS: evidence_of(rows, cases, scorers, str(path))}, provenance={})
