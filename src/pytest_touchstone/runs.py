"""The run store: every run's trials and calls, with where they came from."""

from __future__ import annotations

import dataclasses
import json
import re
import secrets
from collections import Counter, defaultdict
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, cast, get_args

from pytest_touchstone.errors import StoreError
from pytest_touchstone.git import Checkout
from pytest_touchstone.runs_database import database
from pytest_touchstone.runs_schema import migrate
from pytest_touchstone.stats import percentile
from pytest_touchstone.trial import Call, Outcome, TrialRecord, Usage, changed

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence
    from pathlib import Path

    from pydantic import JsonValue

    from pytest_touchstone.gate import Result
    from pytest_touchstone.runs_database import Database, Statements

OUTCOMES: tuple[Outcome, ...] = get_args(Outcome)
SHOWN_CANDIDATES = 5
NEWEST_FIRST = "ORDER BY started DESC, id DESC"
MAX_INTEGER = 2**63 - 1  # what the databases hold

_ID = re.compile(r"\d[\d-]*[0-9a-f]*")
_LATEST = re.compile(r"latest(?:~([0-9]{1,6}))?")


@dataclass(frozen=True, kw_only=True)
class GateWord:
    """What the gate said of a run when it ended: its decision, None where it made none, and its lines, which also say why."""

    result: Result | None
    lines: tuple[str, ...] = ()


@dataclass(frozen=True, kw_only=True)
class Run:
    """One session's trials: when, of which code, with which options, models, judges and prompts.

    `started` and `ended` are UTC, as `2026-01-31T23:59:59.123456Z`. `complete` is whether every trial that was planned had its turn.
    `exit_status` is that of pytest. `models` are those of the app's calls, `judges` identities, `prompts` the hashes of the app's system
    prompts; each sorted. `gate` is None where the run had no gate.
    """

    id: str
    started: str
    ended: str
    complete: bool
    exit_status: int
    checkout: Checkout = dataclasses.field(default_factory=Checkout)
    options: Mapping[str, JsonValue] = dataclasses.field(default_factory=dict[str, Any])
    versions: Mapping[str, JsonValue] = dataclasses.field(default_factory=dict[str, Any])
    models: tuple[str, ...] = ()
    judges: tuple[str, ...] = ()
    prompts: tuple[str, ...] = ()
    gate: GateWord | None = None


@dataclass(frozen=True, kw_only=True)
class Figures:
    """What the trials of a run add up to.

    `cost_usd` sums the known prices of all calls, replayed ones at what they cost when they were recorded; None where there are calls and
    none has a price. `unpriced` calls are not in it. `latencies_s` are the seconds that each trial waited for the app's calls, where known.
    """

    outcomes: Mapping[Outcome, int]
    calls: int = 0
    unpriced: int = 0
    cost_usd: float | None = 0.0
    latencies_s: tuple[float, ...] = ()

    @property
    def trials(self) -> int:
        """How many trials there are, whatever became of them."""
        return sum(self.outcomes.values())

    @property
    def pass_rate(self) -> float | None:
        """Passed of those that passed or failed, in [0, 1]; None when there are none of either."""
        passed, failed = self.outcomes.get("passed", 0), self.outcomes.get("failed", 0)
        return passed / (passed + failed) if passed + failed else None

    @property
    def latency_p95(self) -> float | None:
        """The seconds within which 95 % of the trials (nearest rank) had their answers; None where none is known."""
        return percentile(self.latencies_s, 0.95)


def new_run(
    records: Sequence[TrialRecord],
    *,
    started: datetime,
    ended: datetime,
    complete: bool,
    exit_status: int,
    checkout: Checkout,
    options: Mapping[str, JsonValue],
    versions: Mapping[str, str],
    gate: GateWord | None = None,
) -> Run:
    """A run of these trials, under an id of its own: the second in which it started, and six random digits."""
    calls = [call for record in records for call in record.calls if call.role == "app"]
    return Run(
        id=f"{started.astimezone(UTC):%Y%m%d-%H%M%S}-{secrets.token_hex(3)}",
        started=_moment(started),
        ended=_moment(ended),
        complete=complete,
        exit_status=exit_status,
        checkout=checkout,
        options=options,
        versions=dict(versions),
        models=tuple(sorted({call.model for call in calls})),
        judges=tuple(sorted({score.judge for record in records for score in record.scores if score.judge})),
        prompts=tuple(sorted({call.prompt_hash for call in calls if call.prompt_hash})),
        gate=gate,
    )


class RunStore:
    """Runs in a database, newest first.

    A run is written in one transaction when it has ended: a process that is killed before or while it writes leaves no run behind.

    >>> from pathlib import Path
    >>> from tempfile import TemporaryDirectory
    >>> with TemporaryDirectory() as folder:
    ...     store = RunStore.open("runs.db", base=Path(folder))
    ...     store.runs()
    []
    """

    def __init__(self, database: Database) -> None:
        """Use a database that has the newest schema."""
        self._database = database

    @classmethod
    def open(cls, target: str, *, base: Path) -> RunStore:
        """Open the store that a path (relative to the folder `base`) or a URL names; it is created or brought up to date where needed.

        Raises:
            StoreError: it cannot be used; says why and what to do.
        """
        found = database(target, base)
        migrate(found)
        return cls(found)

    @classmethod
    def open_existing(cls, target: str, *, base: Path) -> RunStore | None:
        """As `open`; None where there is no file to open."""
        return cls.open(target, base=base) if database(target, base).exists() else None

    def add(self, run: Run, records: Iterable[TrialRecord], *, redact: Callable[[str], str]) -> None:
        """Store a run with its trials, every text of it redacted; all of it or, where anything goes wrong, nothing.

        Raises:
            StoreError: the database refused.
        """
        with self._database.transaction(write=True) as statements:
            statements.execute(_insert("touchstone_run", _RUN), _run_values(run, redact))
            trials: list[dict[str, object]] = []
            calls: list[dict[str, object]] = []
            for place, record in enumerate(records):
                trial, of_trial = _trial_values(run.id, place, record, redact)
                trials.append(trial)
                calls += of_trial
            statements.execute_many(_insert("touchstone_trial", _TRIAL), trials)
            statements.execute_many(_insert("touchstone_call", _CALL), calls)

    def prune(self, *, keep: int | None = None, before: datetime | None = None, dry_run: bool = False) -> tuple[list[Run], int]:
        """Remove all runs but the newest `keep` (>= 1), and those that started before a moment; never the newest of all.

        All of them go or, where anything goes wrong, none. With `dry_run` none goes. Gives those that go, newest first, and how many stay.

        Raises:
            StoreError: the database refused.
        """
        with self._database.transaction(write=not dry_run) as statements:
            runs = _read_runs(statements, NEWEST_FIRST, {})
            limit = "" if before is None else _moment(before)
            old = [run for place, run in enumerate(runs) if place and ((keep is not None and place >= keep) or run.started < limit)]
            if not dry_run:
                for table, column in (("touchstone_call", "run_id"), ("touchstone_trial", "run_id"), ("touchstone_run", "id")):
                    statements.execute_many(f"DELETE FROM {table} WHERE {column} = :id", [{"id": run.id} for run in old])  # noqa: S608 - names of our own
        return old, len(runs) - len(old)

    def runs(self, limit: int | None = None) -> list[Run]:
        """The newest runs, newest first; all of them where `limit` is None."""
        return self._select(NEWEST_FIRST) if limit is None else self._select(f"{NEWEST_FIRST} LIMIT :limit", limit=limit)

    def find(self, name: str) -> Run:
        """The run that an id, the beginning of one, or `latest` names; `latest~1` is the one before that.

        Raises:
            StoreError: there is none, or more than one.
        """
        if latest := _LATEST.fullmatch(name):
            back = int(latest[1] or 0)
            found = self.runs(limit=back + 1)[back:]
        elif is_run_id(name):
            found = self._select(f"WHERE id LIKE :id {NEWEST_FIRST}", id=f"{name}%")
        else:
            found = []
        if len(found) == 1:
            return found[0]
        if not found:
            msg = f"{self._database.name}: no run is called {name!r}; `touchstone runs` lists them"
            raise StoreError(msg)
        shown = ", ".join([run.id for run in found[:SHOWN_CANDIDATES]] + ["..."] * (len(found) > SHOWN_CANDIDATES))
        msg = f"{self._database.name}: {len(found)} runs begin with {name!r} ({shown}); give more of the id"
        raise StoreError(msg)

    def of_commit(self, commit: str) -> list[Run]:
        """The runs of a commit (its full id), those first that are to be trusted most: without changes, complete, new."""
        found = self._select(f"WHERE git_commit = :commit {NEWEST_FIRST}", commit=commit)
        return sorted(found, key=lambda run: (run.checkout.dirty is not False, not run.complete))

    def records(self, run: Run) -> list[TrialRecord]:
        """The trials of a run, in the order in which they were stored; of their calls, everything but the messages."""
        with self._database.transaction() as statements:
            rows = statements.execute(_select("touchstone_trial", _TRIAL, "WHERE run_id = :run ORDER BY place"), {"run": run.id})
            asked = statements.execute(
                _select("touchstone_call", _CALL, "WHERE run_id = :run ORDER BY trial_place, place"), {"run": run.id}
            )
        calls: defaultdict[int, list[Call]] = defaultdict(list)
        for row in asked:
            values = dict(zip(_CALL, row, strict=True))
            calls[values["trial_place"]].append(_call(values))
        return [_record(values, calls[values["place"]]) for row in rows if (values := dict(zip(_TRIAL, row, strict=True)))]

    def suites(self) -> list[str]:
        """The names of every suite that any run tried, sorted."""
        with self._database.transaction() as statements:
            return sorted(name for (name,) in statements.execute("SELECT DISTINCT suite FROM touchstone_trial"))

    def figures(self, runs: Sequence[Run], *, suite: str | None = None) -> dict[str, Figures]:
        """What the trials of each of the runs add up to, by the run's id; with `suite`, that of its trials, for the runs that have any."""
        if not runs:
            return {}
        of_suite: dict[str, object] = {} if suite is None else {"suite": suite}
        values = {"since": min(run.started for run in runs), "until": max(run.started for run in runs), **of_suite}
        with self._database.transaction() as statements:
            outcomes = _outcomes(statements, values)
            costs, latencies = _costs(statements, values), _latencies(statements, values)
        wanted = [run.id for run in runs if suite is None or run.id in outcomes]
        return {
            run_id: Figures(outcomes=outcomes[run_id], **costs.get(run_id, {}), latencies_s=tuple(latencies[run_id])) for run_id in wanted
        }

    def _select(self, rest: str, **values: object) -> list[Run]:
        with self._database.transaction() as statements:
            return _read_runs(statements, rest, values)


def is_run_id(text: str) -> bool:
    """Whether the text may be a run's id or the beginning of one.

    >>> is_run_id("20260131-2359"), is_run_id("main")
    (True, False)
    """
    return _ID.fullmatch(text) is not None


def is_latest(text: str) -> bool:
    """Whether the text names the newest run, or one so many before it.

    >>> is_latest("latest"), is_latest("latest~2"), is_latest("latest-release")
    (True, True, False)
    """
    return _LATEST.fullmatch(text) is not None


_RUN: tuple[str, ...] = (
    "id", "started", "ended", "complete", "exit_status", "git_commit", "git_dirty", "git_branch",
    "options", "versions", "models", "judges", "prompts", "gate",
)  # fmt: skip
_TRIAL: tuple[str, ...] = (
    "run_id", "place", "suite", "case_id", "content_hash", "trial_number", "outcome", "output", "duration_s", "details",
)  # fmt: skip
_CALL: tuple[str, ...] = (
    "run_id", "trial_place", "place", "role", "provider", "model", "prompt_hash", "input_tokens", "output_tokens", "cached_tokens",
    "cost_usd", "cost_reason", "latency_s", "status", "error", "replayed", "host",
)  # fmt: skip
# What of a record has a column of its own, and what is not stored: prompts and training examples may be large, and are elsewhere.
_IN_COLUMNS = {"suite", "case_id", "content_hash", "number", "outcome", "output", "duration_s", "calls"}
_LEFT_OUT = {"example", "example_reason", "earlier_examples", "uncorrected", "input_fingerprint"}
_FIELDS = {field.name for field in dataclasses.fields(TrialRecord)}
_DETAILS = _FIELDS - _IN_COLUMNS - _LEFT_OUT
# Made once: json.dumps makes one for each value.
_COMPACT = json.JSONEncoder(separators=(",", ":"))


def _read_runs(statements: Statements, rest: str, values: Mapping[str, object]) -> list[Run]:
    return [_run(dict(zip(_RUN, row, strict=True))) for row in statements.execute(_select("touchstone_run", _RUN, rest), values)]


def _names(columns: Iterable[str]) -> str:
    return ", ".join(columns)


def _select(table: str, columns: Sequence[str], rest: str) -> str:
    return f"SELECT {_names(columns)} FROM {table} {rest}"  # noqa: S608 - names and clauses of our own


def _insert(table: str, columns: Sequence[str]) -> str:
    return f"INSERT INTO {table} ({_names(columns)}) VALUES ({', '.join(f':{name}' for name in columns)})"  # noqa: S608 - names of our own


def _moment(moment: datetime) -> str:
    return f"{moment.astimezone(UTC):%Y-%m-%dT%H:%M:%S.%fZ}"


def _run_values(run: Run, redact: Callable[[str], str]) -> dict[str, object]:
    texts = {name: _json(_redacted(getattr(run, name), redact)) for name in ("options", "versions", "models", "judges", "prompts")}
    return {
        "id": run.id,
        "started": run.started,
        "ended": run.ended,
        "complete": int(run.complete),
        "exit_status": run.exit_status,
        "git_commit": run.checkout.commit,
        "git_dirty": None if run.checkout.dirty is None else int(run.checkout.dirty),
        "git_branch": None if run.checkout.branch is None else _text(redact(run.checkout.branch)),
        "gate": None if run.gate is None else _json(_redacted(dataclasses.asdict(run.gate), redact)),
        **texts,
    }


def _run(values: Mapping[str, Any]) -> Run:
    dirty = values["git_dirty"]
    return Run(
        id=values["id"],
        started=values["started"],
        ended=values["ended"],
        complete=bool(values["complete"]),
        exit_status=values["exit_status"],
        checkout=Checkout(commit=values["git_commit"], dirty=None if dirty is None else bool(dirty), branch=values["git_branch"]),
        options=json.loads(values["options"]),
        versions=json.loads(values["versions"]),
        models=tuple(json.loads(values["models"])),
        judges=tuple(json.loads(values["judges"])),
        prompts=tuple(json.loads(values["prompts"])),
        gate=None if values["gate"] is None else _gate_word(json.loads(values["gate"])),
    )


def _gate_word(values: Mapping[str, Any]) -> GateWord:
    return GateWord(result=values["result"], lines=tuple(values["lines"]))


def _trial_values(
    run_id: str, place: int, record: TrialRecord, redact: Callable[[str], str]
) -> tuple[dict[str, object], list[dict[str, object]]]:
    plain = changed(record, example=None, earlier_examples=(), uncorrected=None, calls=()).to_dict()
    calls = [_call_values(call) for call in record.calls]
    whole = "\n".join(_texts([plain, calls]))
    if redact(whole) != whole:  # one look at all of it, because there is next to never anything
        plain, calls = _redacted(plain, redact), _redacted(calls, redact)
    details = {name: value for name, value in plain.items() if name in _DETAILS}
    trial: dict[str, object] = {
        "run_id": run_id,
        "place": place,
        "suite": _text(plain["suite"]),
        "case_id": _text(plain["case_id"]),
        "content_hash": plain["content_hash"],
        "trial_number": plain["number"],
        "outcome": plain["outcome"],
        "output": None if plain["output"] is None else _text(plain["output"]),
        "duration_s": plain["duration_s"],
        "details": _json(details),
    }
    return trial, [{"run_id": run_id, "trial_place": place, "place": number, **call} for number, call in enumerate(calls)]


def _record(values: Mapping[str, Any], calls: Sequence[Call]) -> TrialRecord:
    details = {name: value for name, value in json.loads(values["details"]).items() if name in _FIELDS}
    plain = {
        **details,
        **{name: values[name] for name in ("suite", "case_id", "content_hash", "outcome", "output", "duration_s")},
        "number": values["trial_number"],
        "calls": (),
        "example": None,
        "earlier_examples": (),
    }
    return changed(TrialRecord.from_dict(plain), calls=tuple(calls))


def _call_values(call: Call) -> dict[str, Any]:
    return {
        "role": call.role,
        "provider": _text(call.provider),
        "model": _text(call.model),
        "prompt_hash": call.prompt_hash,
        "input_tokens": _integer(call.usage.input_tokens),
        "output_tokens": _integer(call.usage.output_tokens),
        "cached_tokens": _integer(call.usage.cached_tokens),
        "cost_usd": call.cost_usd,
        "cost_reason": _text(call.cost_reason),
        "latency_s": call.latency_s,
        "status": call.status,
        "error": None if call.error is None else _text(call.error),
        "replayed": int(call.replayed),
        "host": _text(call.host),
    }


def _call(values: Mapping[str, Any]) -> Call:
    usage = Usage(input_tokens=values["input_tokens"], output_tokens=values["output_tokens"], cached_tokens=values["cached_tokens"])
    same = ("role", "provider", "model", "prompt_hash", "cost_usd", "cost_reason", "latency_s", "status", "error")
    return Call(**{name: values[name] for name in same}, usage=usage, replayed=bool(values["replayed"]), host=values["host"] or "")


def _outcomes(statements: Statements, values: Mapping[str, object]) -> defaultdict[str, Counter[Outcome]]:
    counts: defaultdict[str, Counter[Outcome]] = defaultdict(Counter)
    asked = f"SELECT run_id, outcome, COUNT(*) FROM touchstone_trial t WHERE {_WITHIN}{_of_suite(values)} GROUP BY run_id, outcome"  # noqa: S608 - text of our own
    for run_id, outcome, count in statements.execute(asked, values):
        counts[run_id][outcome] += int(count)
    return counts


def _costs(statements: Statements, values: Mapping[str, object]) -> dict[str, dict[str, Any]]:
    asked = f"SELECT c.run_id, COUNT(*), COUNT(cost_usd), SUM(cost_usd) {_calls(values)} GROUP BY c.run_id"
    return {
        run_id: {"calls": int(calls), "unpriced": int(calls - priced), "cost_usd": None if cost is None else float(cost)}
        for run_id, calls, priced, cost in statements.execute(asked, values)
    }


def _latencies(statements: Statements, values: Mapping[str, object]) -> defaultdict[str, list[float]]:
    found: defaultdict[str, list[float]] = defaultdict(list)
    known = "HAVING COUNT(latency_s) = COUNT(*)"
    asked = f"SELECT c.run_id, SUM(latency_s) {_calls(values)} AND role = 'app' GROUP BY c.run_id, trial_place {known}"
    for run_id, latency in statements.execute(asked, values):
        found[run_id].append(float(latency))
    return found


_WITHIN = "t.run_id IN (SELECT id FROM touchstone_run WHERE started >= :since AND started <= :until)"


def _of_suite(values: Mapping[str, object]) -> str:
    return " AND t.suite = :suite" if "suite" in values else ""


def _calls(values: Mapping[str, object]) -> str:
    joined = "touchstone_call c JOIN touchstone_trial t ON t.run_id = c.run_id AND t.place = c.trial_place"
    return f"FROM {joined} WHERE {_WITHIN}{_of_suite(values)}"


def _texts(values: list[object]) -> list[str]:
    """Every text in plain values, in no particular order."""
    found: list[str] = []
    while values:
        value = values.pop()
        if isinstance(value, str):
            found.append(value)
        elif isinstance(value, dict):
            values.extend(cast("dict[str, object]", value).values())
        elif isinstance(value, list):
            values.extend(cast("list[object]", value))
    return found


def _redacted(value: Any, redact: Callable[[str], str]) -> Any:  # noqa: ANN401 - any plain value
    if isinstance(value, str):
        return redact(value)
    if isinstance(value, dict):
        return {redact(name): _redacted(item, redact) for name, item in cast("dict[str, Any]", value).items()}
    if isinstance(value, (list, tuple)):
        return [_redacted(item, redact) for item in cast("list[Any]", value)]
    return value


def _json(value: object) -> str:
    return _COMPACT.encode(value)


def _text(value: str) -> str:
    """The text as every database holds it: half characters and NUL as escapes."""
    if value.isascii() and "\0" not in value:
        return value
    return value.encode("utf-8", "backslashreplace").decode().replace("\0", "\\x00")


def _integer(value: int | None) -> int | None:
    """The number, None where it is larger than a database holds: a provider may say anything."""
    return value if value is None or abs(value) <= MAX_INTEGER else None
