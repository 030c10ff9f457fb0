"""The baseline: what was accepted of every case, one entry a case, in one file a test module, made to be read in a review.

The file is YAML that anybody can read, written in one way only: sorted by test and case, one fact a line, texts as JSON strings.
"""

from __future__ import annotations

import contextlib
import dataclasses
import json
import math
import os
import re
import statistics
from collections import Counter, defaultdict
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NoReturn, TypeVar, cast

from pytest_touchstone.errors import BaselineError, Fault
from pytest_touchstone.files import replace_file
from pytest_touchstone.gate import Evidence
from pytest_touchstone.settings import BASELINE_SUFFIX
from pytest_touchstone.text import quote, visible

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
    from pathlib import Path

    from pytest_touchstone.trial import TrialRecord

T = TypeVar("T")

FOLDER = "__snapshots__"
FORMAT = "touchstone-baseline"
VERSION = 1
HEADER = f"{FORMAT}: {VERSION}"
ABOUT = "# What was accepted of every golden case. Written by `pytest --llm-eval --snapshot-update`, read in reviews."
MAX_FILE = 256 * 1024 * 1024
MAX_OUTPUT = 4_000
MAX_FAULTS = 20

# What is known of an accepted trial when it has a verdict; the others say nothing about quality.
DECIDED = frozenset({"passed", "failed"})

_ENTRY = re.compile(r'("(?:[^"\\]|\\.)*"):')
_FIELD = re.compile(r"  ([a-z_]+):(?: (.+))?")
_SCORE = re.compile(r'    ("(?:[^"\\]|\\.)*"): (.+)')
_LINE = re.compile(r"    - (.+)")
_PASSED = re.compile(r"([0-9]{1,9}) of ([0-9]{1,9})")
_HASH = re.compile(r"[0-9a-f]{64}")
_CONFLICT = ("<<<<<<< ", "||||||| ", ">>>>>>> ")
_ACCEPT_AGAIN = "accept the case again with --snapshot-update"
_RESTORE = "restore it from git, or delete the file and accept the cases again with --snapshot-update"


@dataclass(frozen=True, kw_only=True)
class ScoreStat:
    """What one scorer gave the trials of a case: `mean` in [0, 1] over the `trials` (>= 1) in which it gave a value.

    `spread` is the sample standard deviation over these trials, None for a single one.
    """

    name: str
    mean: float
    spread: float | None
    trials: int


@dataclass(frozen=True, kw_only=True)
class BaselineEntry:
    """What was accepted of one case of one suite.

    `test` is the suite's name in its module (`TestShop.test_refunds`, further parameters in brackets). Of `trials` (>= 1), `passes`
    passed; each had a verdict. `judges` and `models` are sorted. `cost_usd` is the mean of a trial in US dollars, None where it is not
    known; `latencies_s` are those of trials, in seconds. `output` is that of a typical trial, redacted, with `output_cut` further
    characters left out; None where the trials had none. `commit` is the one it was accepted on, `+` behind it where files differed from it.
    """

    test: str
    case_id: str
    content_hash: str
    trials: int
    passes: int
    must_pass: bool = False
    tags: tuple[str, ...] = ()
    scores: tuple[ScoreStat, ...] = ()
    judges: tuple[str, ...] = ()
    models: tuple[str, ...] = ()
    cost_usd: float | None = None
    latencies_s: tuple[float, ...] = ()
    output: str | None = None
    output_cut: int = 0
    commit: str | None = None

    @property
    def name(self) -> str:
        """What the entry is called in its file.

        >>> BaselineEntry(test="test_refunds", case_id="late", content_hash="", trials=5, passes=4).name
        'test_refunds[late]'
        """
        return entry_name(self.test, self.case_id)

    @property
    def evidence(self) -> Evidence:
        """What the entry tells the gate."""
        return Evidence(
            case_id=self.case_id,
            content_hash=self.content_hash,
            trials=self.trials,
            passes=self.passes,
            tags=self.tags,
            must_pass=self.must_pass,
            judges=self.judges,
            models=self.models,
            cost_usd=self.cost_usd,
            latencies_s=self.latencies_s,
        )


def entry_name(test: str, case_id: str) -> str:
    """What the entry of a case is called; nothing in it acts on a terminal."""
    return visible(f"{test}[{case_id}]")


def test_of(suite: str) -> str:
    """A suite's name in its module, as entries carry it.

    >>> test_of("evals/test_shop.py::TestShop::test_refunds[en]")
    'TestShop.test_refunds[en]'
    """
    name, bracket, parameters = suite.partition("::")[2].partition("[")
    return visible(f"{name.replace('::', '.')}{bracket}{parameters}")


def suite_of(module: str, test: str) -> str:
    """The inverse of `test_of`.

    >>> suite_of("evals/test_shop.py", "TestShop.test_refunds[en]")
    'evals/test_shop.py::TestShop::test_refunds[en]'
    """
    name, bracket, parameters = test.partition("[")
    return f"{module}::{name.replace('.', '::')}{bracket}{parameters}"


def by_suite(module: str, entries: Iterable[BaselineEntry]) -> dict[str, dict[str, Evidence]]:
    """What the entries of a module's file tell the gate: suite, case id, evidence."""
    suites: defaultdict[str, dict[str, Evidence]] = defaultdict(dict)
    for entry in entries:
        suites[suite_of(module, entry.test)][entry.case_id] = entry.evidence
    return dict(suites)


def baseline_path(module: Path) -> Path:
    """Where the baseline of a test module is kept, unless `--snapshot-dirname` says otherwise.

    >>> from pathlib import Path
    >>> baseline_path(Path("evals/test_shop.py")).as_posix()
    'evals/__snapshots__/test_shop.touchstone'
    """
    return module.parent / FOLDER / f"{module.stem}.{BASELINE_SUFFIX}"


# From trials to entries


def why_not_accepted(evidence: Evidence) -> str:
    """Why what a run says of a case may not become its baseline, "" where it may.

    >>> why_not_accepted(Evidence(case_id="gift", content_hash="", trials=4, passes=4, errors=1))
    'no verdict on 1 of 5 trials (1 error)'
    """
    unknown = {"error": evidence.errors, "unscored": evidence.unscored, "not run": evidence.not_run}
    without = sum(unknown.values())
    if without or not evidence.trials:
        told = ", ".join(f"{count} {outcome}" for outcome, count in unknown.items() if count)
        return f"no verdict on {without} of {without + evidence.trials} trials ({told})" if told else "no trial"
    if evidence.must_pass and evidence.passes < evidence.trials:
        return f"it must pass, and passed {evidence.passes} of {evidence.trials} trials"
    return ""


def entry_of(
    evidence: Evidence,
    records: Sequence[TrialRecord],
    *,
    redact: Callable[[str], str],
    old: BaselineEntry | None = None,
    commit: str | None = None,
) -> BaselineEntry:
    """The entry that accepts the trials of one case, each of which has a verdict.

    Where nothing but the commit would change, it is `old`, so that accepting twice changes no file.
    """
    decided = sorted((record for record in records if record.outcome in DECIDED), key=lambda record: record.number)
    output, cut = _typical_output(decided, passed=2 * evidence.passes >= evidence.trials, redact=redact, old=old)
    made = BaselineEntry(
        test=test_of(records[0].suite),
        case_id=evidence.case_id,
        content_hash=evidence.content_hash,
        trials=evidence.trials,
        passes=evidence.passes,
        must_pass=evidence.must_pass,
        tags=evidence.tags,
        scores=score_stats(decided),
        judges=evidence.judges,
        models=evidence.models,
        cost_usd=None if evidence.cost_usd is None else float(f"{evidence.cost_usd:.6g}"),
        latencies_s=tuple(round(seconds, 3) for seconds in evidence.latencies_s),
        output=output,
        output_cut=cut,
        commit=commit,
    )
    return old if old is not None and dataclasses.replace(made, commit=old.commit) == old else made


def score_stats(records: Iterable[TrialRecord]) -> tuple[ScoreStat, ...]:
    """Mean and spread of each scorer, sorted by name; scores of one name in one trial are averaged first."""
    values: defaultdict[str, list[float]] = defaultdict(list)
    for record in records:
        of_trial: defaultdict[str, list[float]] = defaultdict(list)
        for score in record.scores:
            if score.value is not None:
                of_trial[score.name].append(score.value)
        for name, given in of_trial.items():
            values[name].append(statistics.fmean(given))
    return tuple(_score_stat(name, given) for name, given in sorted(values.items()))


def _score_stat(name: str, values: Sequence[float]) -> ScoreStat:
    spread = round(statistics.stdev(values), 4) if len(values) > 1 else None
    return ScoreStat(name=name, mean=round(statistics.fmean(values), 4), spread=spread, trials=len(values))


def _typical_output(
    records: Iterable[TrialRecord], *, passed: bool, redact: Callable[[str], str], old: BaselineEntry | None
) -> tuple[str | None, int]:
    """The old one where a trial gave it again, else the most frequent one of the trials that ended as most did, the first of equals."""
    outputs = Counter(record.output for record in records if record.output is not None and (record.outcome == "passed") is passed)
    shown = [_shown_output(redact(output)) for output, _ in outputs.most_common()]
    if old is not None and (old.output, old.output_cut) in shown:
        return old.output, old.output_cut
    return shown[0] if shown else (None, 0)


def _shown_output(text: str) -> tuple[str, int]:
    return text[:MAX_OUTPUT], max(0, len(text) - MAX_OUTPUT)


# The file


def encode_entry(entry: BaselineEntry) -> str:
    """The entry's lines, without a line feed at the end."""
    return "\n".join(_lines(entry))


def _lines(entry: BaselineEntry) -> Iterator[str]:
    scores = [(score.name, {"mean": score.mean, "spread": score.spread, "trials": score.trials}) for score in entry.scores]
    yield f"{_json(entry.name)}:"
    yield f"  case: {_json(entry.case_id)}"
    yield f"  content: {_json(entry.content_hash)}"
    yield f"  passed: {entry.passes} of {entry.trials}"
    yield from _field("must_pass", entry.must_pass or None)
    yield from _field("tags", entry.tags or None)
    yield from _below("scores", [f"{_json(name)}: {_json(stat)}" for name, stat in scores])
    yield from _field("judges", entry.judges or None)
    yield from _field("models", entry.models or None)
    yield from _field("cost_usd", entry.cost_usd)
    yield from _field("latency_s", entry.latencies_s or None)
    yield from _field("commit", entry.commit)
    yield from _below("output", [] if entry.output is None else [f"- {_json(line)}" for line in entry.output.split("\n")])
    yield from _field("output_cut", entry.output_cut or None)


def _field(name: str, value: object) -> Iterator[str]:
    if value is not None:
        yield f"  {name}: {_json(value)}"


def _below(name: str, lines: Sequence[str]) -> Iterator[str]:
    if lines:
        yield f"  {name}:"
        yield from (f"    {line}" for line in lines)


def _json(value: object) -> str:
    text = json.dumps(value, ensure_ascii=False)
    # What acts on a terminal or hides goes as an escape; then everything beyond ASCII does.
    return text if visible(text) == text else json.dumps(value).replace("\x7f", "\\u007f")


def encode_baseline(entries: Iterable[BaselineEntry]) -> bytes:
    """A whole file: sorted, and each entry apart from the next, so that git merges what two branches accepted."""
    blocks = [f"{ABOUT}\n{HEADER}", *(encode_entry(entry) for entry in sorted(entries, key=lambda entry: entry.name))]
    return ("\n\n".join(blocks) + "\n").encode()


def write_baseline(path: Path, entries: Iterable[BaselineEntry]) -> bool:
    """Replace a module's file as a whole, or remove it where there are no entries; False where it already held exactly that."""
    kept = list(entries)
    if not kept:
        existed = os.path.lexists(path)
        path.unlink(missing_ok=True)
        return existed
    data = encode_baseline(kept)
    with contextlib.suppress(OSError):
        if path.read_bytes() == data:
            return False
    path.parent.mkdir(parents=True, exist_ok=True)
    replace_file(path, data)
    return True


def read_baseline(path: Path, *, root: Path | None = None) -> dict[str, BaselineEntry]:
    """The entries of a module's file by name, none where there is no file.

    Raises:
        BaselineError: the file cannot be used; the message has a line for each fault, with paths relative to `root`.
    """
    if not os.path.lexists(path):
        return {}
    shown = path.relative_to(root).as_posix() if root is not None and path.is_relative_to(root) else path.as_posix()
    try:
        if path.stat().st_size > MAX_FILE:
            raise BaselineError([Fault(file=shown, problem=f"is larger than {MAX_FILE} bytes", fix=_RESTORE)])
        data = path.read_bytes()
    except OSError as error:
        raise BaselineError([Fault(file=shown, problem=f"cannot be read ({error.strerror})", fix="make it readable")]) from None
    return parse_baseline(data, shown=shown)


def parse_baseline(data: bytes, *, shown: str) -> dict[str, BaselineEntry]:
    """The entries of a file's bytes by name; `shown` is what messages call the file.

    Raises:
        BaselineError: the bytes are no baseline that this version can read; at most 20 faults are told one by one.
    """
    reader = _Reader(shown)
    entries = reader.read(data)
    if reader.faults:
        raise BaselineError(reader.told())
    return entries


@dataclass(frozen=True, kw_only=True)
class _Block:
    """The lines of one entry, each with its number, below the line with its name."""

    name: str
    line: int
    body: list[tuple[int, str]]


class _Wrong(ValueError):
    """A value that cannot be used: what is wrong with it, and how to put it right."""

    def __init__(self, problem: str, fix: str = f"correct it, or {_ACCEPT_AGAIN}") -> None:
        super().__init__(problem)
        self.problem = problem
        self.fix = fix
        self.line: int | None = None


class _Reader:
    """Reads one file, and goes on behind each fault to find the next."""

    def __init__(self, shown: str) -> None:
        self.shown = shown
        self.faults: list[Fault] = []

    def told(self) -> list[Fault]:
        """The faults, as many as a person reads."""
        found = sorted(self.faults, key=lambda fault: fault.line or 0)
        more = len(found) - MAX_FAULTS
        rest = [Fault(file=self.shown, problem=f"has {more:,} further faults", fix=_RESTORE)] if more > 0 else []
        return [*found[:MAX_FAULTS], *rest]

    def read(self, data: bytes) -> dict[str, BaselineEntry]:
        try:
            lines = data.decode("utf-8-sig").split("\n")
        except UnicodeDecodeError as error:
            self._fault(data.count(b"\n", 0, error.start) + 1, "is not UTF-8", _RESTORE)
            return {}
        numbered = [(number, line.removesuffix("\r")) for number, line in enumerate(lines, start=1)]
        kept = [(number, line) for number, line in numbered if line.strip() and (line.startswith(" ") or self._counts(number, line))]
        if not self._header(kept):
            return {}
        entries: dict[str, BaselineEntry] = {}
        starts: dict[str, int] = {}
        for block in self._blocks(kept[1:]):
            if block.name in starts:
                fix = f"keep one of them, or delete both and {_ACCEPT_AGAIN}"
                self._fault(block.line, f"{quote(block.name)} is there already, on line {starts[block.name]}", fix)
                continue
            starts[block.name] = block.line
            entry = self._entry(block)
            if entry is not None:
                entries[block.name] = entry
        return entries

    def _fault(self, line: int, problem: str, fix: str, *, field: str | None = None, case_id: str | None = None) -> None:
        self.faults.append(Fault(file=self.shown, line=line, field=field, case_id=case_id, problem=problem, fix=fix))

    def _counts(self, number: int, line: str) -> bool:
        """Whether the line is more than a comment; what git left of a merge conflict is a fault of its own."""
        if line.startswith(_CONFLICT) or line == "=======":
            fix = "keep the entries of one side, or of both where they differ in name, and delete the markers; then run pytest --llm-eval"
            self._fault(number, "is a merge conflict marker", fix)
            return False
        return not line.startswith("#")

    def _header(self, lines: list[tuple[int, str]]) -> bool:
        number, line = lines[0] if lines else (1, "")
        name, _, version = line.partition(": ")
        if line == HEADER:
            return True
        if name == FORMAT and version.isascii() and version.isdigit() and len(version) < 10 and int(version) > VERSION:
            problem = f"was written by a newer pytest-touchstone (format {version}; this one reads {VERSION})"
            self._fault(number, problem, "upgrade pytest-touchstone")
        else:
            self._fault(number, f"is not the first line of a baseline ({HEADER})", _RESTORE)
        return False

    def _blocks(self, lines: list[tuple[int, str]]) -> Iterator[_Block]:
        blocks: list[_Block] = []
        for number, line in lines:
            if not line.startswith("  "):
                blocks.append(_Block(name=self._name(number, line), line=number, body=[]))
            elif blocks:
                blocks[-1].body.append((number, line))
            else:
                self._fault(number, "belongs to no entry", "put it below the line with the name of its entry, or delete it")
        yield from (block for block in blocks if block.name)

    def _name(self, number: int, line: str) -> str:
        """The name of the entry that begins here, "" where there is none: what is below is then none of any other."""
        found = _ENTRY.fullmatch(line)
        name = ""
        with contextlib.suppress(_Wrong):
            name = "" if found is None else visible(_text(found[1]))
        if not name:
            self._fault(number, f"{quote(line)} is not the name of an entry, a field or a comment", f"delete the line, or {_ACCEPT_AGAIN}")
        return name

    def _entry(self, block: _Block) -> BaselineEntry | None:
        before = len(self.faults)
        fields = self._fields(block)
        values: dict[str, Any] = {}
        for name, (number, value) in fields.items():
            try:
                values.update(_READERS[name](value))
            except _Wrong as wrong:
                self._fault(wrong.line or number, wrong.problem, wrong.fix, field=name, case_id=block.name)
        for name in ("case", "content", "passed"):
            if name not in fields:
                self._fault(block.line, "is missing", f"add it, or {_ACCEPT_AGAIN}", field=name, case_id=block.name)
        if len(self.faults) > before:
            return None
        test = block.name.removesuffix(visible(f"[{values['case_id']}]"))
        if test in {block.name, ""}:
            problem = f"is {quote(values['case_id'])}, which is not what the name of the entry ends in"
            self._fault(fields["case"][0], problem, f"correct it, or {_ACCEPT_AGAIN}", field="case", case_id=block.name)
            return None
        return BaselineEntry(test=test, **values)

    def _fields(self, block: _Block) -> dict[str, tuple[int, Any]]:
        """Each field with its line and its value: a text, or the lines below it."""
        fields: dict[str, tuple[int, Any]] = {}
        below: list[tuple[int, str]] | None = None
        for number, line in block.body:
            found = _FIELD.fullmatch(line)
            if line.startswith("    ") and below is not None:
                below.append((number, line))
            elif found is None:
                self._fault(number, f"{quote(line.strip())} is not a field", f"delete the line, or {_ACCEPT_AGAIN}", case_id=block.name)
            elif found[1] not in _READERS:
                known = ", ".join(_READERS)
                self._fault(number, "is no field of a baseline", f"use one of {known}", field=found[1], case_id=block.name)
                below = []
            elif found[1] in fields:
                problem = f"is there already, on line {fields[found[1]][0]}"
                self._fault(number, problem, "keep one of the two lines", field=found[1], case_id=block.name)
            else:
                below = [] if found[2] is None else None
                fields[found[1]] = (number, found[2] if below is None else below)
        return fields


def _parsed(value: object) -> Any:  # noqa: ANN401 - a JSON value
    if isinstance(value, str):
        try:
            return json.loads(value)
        except (ValueError, RecursionError):
            pass
    problem = "has lines below it" if isinstance(value, list) else f"is {quote(value)}, which is not JSON"
    raise _Wrong(problem)


def _say(value: object, wanted: str) -> NoReturn:
    msg = f"is {quote(value)}, not {wanted}"
    raise _Wrong(msg)


def _text(value: object) -> str:
    text = _parsed(value)
    return text if isinstance(text, str) else _say(text, "a text in double quotes")


def _list(value: object, wanted: str) -> list[object]:
    found = _parsed(value)
    return cast("list[object]", found) if isinstance(found, list) else _say(found, wanted)


def _texts(value: object) -> tuple[str, ...]:
    texts = _list(value, "a list of texts")
    if not all(isinstance(text, str) for text in texts):
        _say(texts, "a list of texts")
    return tuple(cast("list[str]", texts))


def _hash(value: object) -> str:
    text = _text(value)
    return text if _HASH.fullmatch(text) else _say(text, "a sha256 in hexadecimal")


def _amount(value: object) -> float:
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not (0 <= value < math.inf):
        _say(value, "a number of at least 0")
    return float(value)


def _amounts(value: object) -> tuple[float, ...]:
    return tuple(_amount(amount) for amount in _list(value, "a list of numbers"))


def _count(value: object) -> int:
    if isinstance(value, bool) or not isinstance(value, int) or value < 1:
        _say(value, "a whole number of at least 1")
    return value


def _true(value: object) -> bool:
    found = _parsed(value)
    return found is True or _say(found, "true; leave the line out for cases that may fail")


def _passed(value: object) -> dict[str, int]:
    found = _PASSED.fullmatch(value) if isinstance(value, str) else None
    passes, trials = (int(found[1]), int(found[2])) if found else (0, 0)
    if not trials or passes > trials:
        _say(value, "how many of how many trials passed, such as 4 of 5")
    return {"passes": passes, "trials": trials}


def _each(value: object, wanted: str, read: Callable[[str], T]) -> Iterator[T]:
    if not isinstance(value, list):
        _say(value, wanted)
    for number, line in cast("list[tuple[int, str]]", value):
        try:
            yield read(line)
        except _Wrong as wrong:
            wrong.line = number
            raise


def _scores(value: object) -> tuple[ScoreStat, ...]:
    return tuple(_each(value, "followed by a line for each scorer", _score))


def _score(line: str) -> ScoreStat:
    found = _SCORE.fullmatch(line)
    name, fields = (_text(found[1]), _parsed(found[2])) if found else ("", None)
    if not isinstance(fields, dict) or set(cast("dict[str, object]", fields)) != {"mean", "spread", "trials"}:
        msg = f'has the line {quote(line.strip())}, which is not like "exact_match": {{"mean": 0.8, "spread": 0.4, "trials": 5}}'
        raise _Wrong(msg)
    of_score = cast("dict[str, object]", fields)
    mean, spread = _amount(of_score["mean"]), None if of_score["spread"] is None else _amount(of_score["spread"])
    if mean > 1:
        _say(mean, "a number from 0 to 1")
    return ScoreStat(name=name, mean=mean, spread=spread, trials=_count(of_score["trials"]))


def _output(value: object) -> str:
    return "\n".join(_each(value, "followed by its lines, each as a text in double quotes behind a dash", _output_line))


def _output_line(line: str) -> str:
    found = _LINE.fullmatch(line)
    if found is None:
        _say(line.strip(), "a text in double quotes behind a dash")
    return _text(found[1])


_READERS: Mapping[str, Callable[[object], Mapping[str, object]]] = {
    "case": lambda value: {"case_id": _text(value)},
    "content": lambda value: {"content_hash": _hash(value)},
    "passed": _passed,
    "must_pass": lambda value: {"must_pass": _true(value)},
    "tags": lambda value: {"tags": _texts(value)},
    "scores": lambda value: {"scores": _scores(value)},
    "judges": lambda value: {"judges": _texts(value)},
    "models": lambda value: {"models": _texts(value)},
    "cost_usd": lambda value: {"cost_usd": _amount(_parsed(value))},
    "latency_s": lambda value: {"latencies_s": _amounts(value)},
    "commit": lambda value: {"commit": _text(value)},
    "output": lambda value: {"output": _output(value)},
    "output_cut": lambda value: {"output_cut": _count(_parsed(value))},
}
