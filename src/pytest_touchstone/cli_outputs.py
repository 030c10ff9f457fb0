"""Results made elsewhere: a file of outputs, and the cases and scorers that judge them."""

from __future__ import annotations

import ast
import json
from collections import defaultdict
from dataclasses import dataclass, fields, replace
from typing import TYPE_CHECKING, Any, cast

from pytest_touchstone.errors import Fault, SettingsError

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from pathlib import Path

    from pytest_touchstone.cases import Case
    from pytest_touchstone.gate import Evidence
    from pytest_touchstone.trial import Outcome, Scorer

MAX_FAULTS = 20
SCORERS = {
    "contains": "scoring.text",
    "exact_match": "scoring.exact",
    "json_match": "scoring.structured",
    "numeric_match": "scoring.numeric",
    "regex_match": "scoring.text",
}
_ROW = '{"id": "late", "output": "No."} or {"id": "late", "passed": true}'


@dataclass(frozen=True, kw_only=True)
class Row:
    """One line of a file of outputs: one trial of the case `case_id`; `passed` is None where the output is still to be judged."""

    line: int
    case_id: str
    output: object = None
    passed: bool | None = None
    tags: tuple[str, ...] = ()


def read_outputs(path: Path, shown: str) -> list[Row]:
    """The rows of a file of outputs: a JSON object on each line, with `id` and `output` or `passed` (true or false), and maybe `tags`.

    A case may have several rows, one for each trial; other fields are left alone.

    Raises:
        SettingsError: lines cannot be used; names them and says what is wrong.
    """
    rows: list[Row] = []
    faults: list[Fault] = []
    with path.open("rb") as file:
        for number, line in enumerate(file, start=1):
            if line.strip():
                row = _row(number, line)
                if isinstance(row, Row):
                    rows.append(row)
                else:
                    faults.append(replace(row, file=shown))
            if len(faults) == MAX_FAULTS:
                break
    if not rows and not faults:
        faults.append(Fault(file=shown, problem="holds no row", fix=f"write a line for each trial, such as {_ROW}"))
    if faults:
        raise SettingsError("\n".join(map(str, faults)))
    return rows


def evidence_of(rows: Sequence[Row], cases: Mapping[str, Case] | None, scorers: Sequence[Scorer], shown: str) -> dict[str, Evidence]:
    """What the rows say of each case; a case without a row was not run.

    Raises:
        SettingsError: a row has an id that no case has, or an output that nothing judges.
        ScorerError: a scorer cannot work on a case.
    """
    _check(rows, cases, scorers, shown)
    outcomes: defaultdict[str, list[Outcome]] = defaultdict(list)
    for case_id in cases or ():
        outcomes[case_id] = []
    for row in rows:
        outcomes[row.case_id].append(_outcome(row, cases, scorers))
    tags = {row.case_id: row.tags for row in rows}
    return {case_id: _evidence(case_id, found, (cases or {}).get(case_id), tags.get(case_id, ())) for case_id, found in outcomes.items()}


def parse_scorer(text: str) -> Scorer:
    r"""The scorer that a text names: `exact_match`, or with options `exact_match(extract="(?m)^A:(.*)")`; values are Python literals.

    Raises:
        SettingsError: it names none.
        ScorerError: the options cannot be used.

    >>> parse_scorer("contains('30 days', casefold=True)").name
    'contains'
    """
    try:
        node = ast.parse(text.strip(), mode="eval").body
        name, arguments, options = _called(node)
        given = [ast.literal_eval(argument) for argument in arguments]
        named = {option.arg or "**": ast.literal_eval(option.value) for option in options}
    except (SyntaxError, ValueError, TypeError, RecursionError, MemoryError):
        name, given, named = "", [], {}
    if name not in SCORERS:
        msg = (
            f'--scorer {text}: names no scorer that needs no model; use one of {", ".join(SCORERS)}, such as exact_match(extract="A:(.*)")'
        )
        raise SettingsError(msg)
    try:
        made: Scorer = _factory(name)(*given, **named)
    except TypeError as error:
        msg = f"--scorer {text}: {error}"
        raise SettingsError(msg) from error
    return made


def read_cases(text: str, fields_text: str | None) -> dict[str, Case]:
    """The cases of a golden file by id; `fields_text` says which fields of its records hold what: `input=question,expected=answer`.

    Raises:
        SettingsError: the fields cannot be read.
        GoldenError: the file cannot be used.
    """
    from pathlib import Path

    from pytest_touchstone.golden import load

    golden = load([text], base=Path.cwd(), rootdir=Path.cwd(), fields=_fields(fields_text or ""))
    return {case.id: case for case in golden.cases}


def _fields(text: str) -> Any:  # noqa: ANN401 - Fields, which is not imported before it is needed
    from pytest_touchstone.golden import Fields

    pairs = [pair.partition("=") for pair in text.split(",") if pair]
    known = [field.name for field in fields(Fields)]
    if any(name not in known or not column for name, _, column in pairs):
        msg = f"--fields {text}: write name=field, separated by commas, with the names {', '.join(known)}: input=question,expected=answer"
        raise SettingsError(msg)
    return Fields(**{name: column for name, _, column in pairs})


def _factory(name: str) -> Callable[..., Scorer]:
    import importlib

    made: Callable[..., Scorer] = getattr(importlib.import_module(f"pytest_touchstone.{SCORERS[name]}"), name)
    return made


def _called(node: ast.expr) -> tuple[str, list[ast.expr], list[ast.keyword]]:
    call = node if isinstance(node, ast.Call) else ast.Call(func=node, args=[], keywords=[])
    return (call.func.id if isinstance(call.func, ast.Name) else ""), call.args, call.keywords


def _row(number: int, line: bytes) -> Row | Fault:
    try:
        read: object = json.loads(line)
    except (ValueError, RecursionError):
        read = None
    row = cast("dict[str, object]", read) if isinstance(read, dict) else {}
    case_id, passed, tags = row.get("id"), row.get("passed"), row.get("tags", [])
    if not isinstance(read, dict):
        problem = "is no JSON object"
    elif not isinstance(case_id, str) or not case_id:
        problem = "has no text as 'id'"
    elif not isinstance(passed, (bool, type(None))):
        problem = "has a 'passed' that is neither true nor false"
    elif passed is None and "output" not in row:
        problem = "has neither 'output' nor 'passed'"
    elif not isinstance(tags, list) or not all(isinstance(tag, str) for tag in cast("list[object]", tags)):
        problem = "has 'tags' that are no list of texts"
    else:
        return Row(line=number, case_id=case_id, output=row.get("output"), passed=passed, tags=tuple(cast("list[str]", tags)))
    return Fault(file="", line=number, problem=problem, fix=f"write {_ROW}")


def _check(rows: Sequence[Row], cases: Mapping[str, Case] | None, scorers: Sequence[Scorer], shown: str) -> None:
    open_rows = [row for row in rows if row.passed is None]
    if open_rows and (cases is None or not scorers):
        lacking = "--cases FILE, the golden file, and --scorer NAME, such as --scorer exact_match"
        msg = f"{shown}:{open_rows[0].line}: holds an output that nothing judges yet; add {lacking}, or write 'passed' into each row"
        raise SettingsError(msg)
    unknown = [] if cases is None else [row for row in rows if row.case_id not in cases]
    if unknown:
        row = unknown[0]
        msg = f"{shown}:{row.line}: no case is called {row.case_id!r} ({len(unknown)} such rows); give --cases the file that they belong to"
        raise SettingsError(msg)


def _outcome(row: Row, cases: Mapping[str, Case] | None, scorers: Sequence[Scorer]) -> Outcome:
    if row.passed is not None:
        return "passed" if row.passed else "failed"
    from pytest_touchstone.trial import Trial

    assert cases is not None
    trial = Trial(cases[row.case_id])
    trial.output = row.output
    verdicts = {trial.score(scorer).passed for scorer in scorers}
    return "failed" if False in verdicts else "unscored" if None in verdicts else "passed"


def _evidence(case_id: str, outcomes: Sequence[Outcome], case: Case | None, tags: tuple[str, ...]) -> Evidence:
    from pytest_touchstone.gate import Evidence

    return Evidence(
        case_id=case_id,
        content_hash="" if case is None else case.content_hash,
        trials=sum(outcome in {"passed", "failed"} for outcome in outcomes),
        passes=outcomes.count("passed"),
        unscored=outcomes.count("unscored"),
        not_run=0 if outcomes else 1,
        tags=tags if case is None else case.tags,
        must_pass=case is not None and case.must_pass,
        quarantined="" if case is None or case.quarantine is None else case.quarantine.reason,
    )
