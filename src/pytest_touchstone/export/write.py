"""Writing an export: the last guard, the training file, and the manifest that accounts for every trial."""

from __future__ import annotations

import dataclasses
import hashlib
import importlib.metadata
import json
import os
import stat
from collections import Counter
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final, cast

from pytest_touchstone.cases import stable_number
from pytest_touchstone.errors import ExportError
from pytest_touchstone.export.card import CARD_FILE, MARK, card
from pytest_touchstone.export.corrections import Needed, Uncorrected, digest, named, whole, write_needed
from pytest_touchstone.export.example import Example, LeftOut, map_texts, plain, validate_example
from pytest_touchstone.export.format import TRAIN_FILE
from pytest_touchstone.export.formats.trl import TRL_FORMAT, encode_trl, trl_row
from pytest_touchstone.export.formatted import check_needs, check_places, claim, make, write_files
from pytest_touchstone.export.leak import leaks, near_holdout
from pytest_touchstone.export.ledger import LEDGER_FILE, MAX_NAMED, Ledger, Taught
from pytest_touchstone.export.near import DEFAULT_THRESHOLD
from pytest_touchstone.export.personal import RULES
from pytest_touchstone.export.quality import NO_TOKENIZER, assess
from pytest_touchstone.files import replace_file

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
    from pathlib import Path

    from pytest_touchstone.export.corrections import Corrections
    from pytest_touchstone.export.format import Row
    from pytest_touchstone.export.formats.trl import Encoded
    from pytest_touchstone.export.formatted import Made
    from pytest_touchstone.export.leak import HeldOut, NearCopy
    from pytest_touchstone.export.personal import PersonalFinder
    from pytest_touchstone.export.quality import CountTokens
    from pytest_touchstone.settings import Split
    from pytest_touchstone.trial import Outcome, TrialRecord

MANIFEST_FILE: Final = "manifest.json"
REPORT_FILE: Final = "report.json"
REPORT_FORMAT: Final = "pytest-touchstone report 1"
MANIFEST_FORMAT: Final = "pytest-touchstone export 1"
_FAMILY: Final = "pytest-touchstone export "
_REPORT_FAMILY: Final = "pytest-touchstone report "

_TEXTS: Final = ("prompt", "completion", "tools", "rejected")
_LEAKED: Final = "leak: the input of the case is a holdout input"


@dataclass(frozen=True, kw_only=True)
class Offer:
    """What one trial, or one call of it, brings to the export: an example, or the reason why there is none.

    `input_fingerprint` is that of the case's input (`leak.input_fingerprint`), empty where it is not known. `trial` counts from 1, and so
    does `call`, None where the offer is the trial's own. `uncorrected` is what the trial brings to the list of cases that need a
    correction.
    """

    nodeid: str
    suite: str
    case_id: str
    content_hash: str
    split: Split
    outcome: Outcome
    trial: int = 1
    call: int | None = None
    input_fingerprint: str = ""
    example: Example | None = None
    reason: str = ""
    uncorrected: Uncorrected | None = None

    @classmethod
    def all_of(cls, record: TrialRecord) -> list[Offer]:
        """The offers of a trial's record: those of its earlier calls, where these are trained on too, and its own.

        Raises:
            ExportError: an example of the record is none.
        """
        own = cls.of(record)
        earlier: list[Offer] = []
        for each in record.earlier_examples:
            example = None if each["example"] is None else Example.from_dict(each["example"])
            earlier.append(dataclasses.replace(own, call=each["call"], example=example, reason=each["example_reason"], uncorrected=None))
        return [*earlier, dataclasses.replace(own, call=own.call or len(earlier) + 1)] if earlier else [own]

    @classmethod
    def of(cls, record: TrialRecord) -> Offer:
        """The offer of a trial's record, from this process or another.

        Raises:
            ExportError: the record's example is none.
        """
        example = None if record.example is None else Example.from_dict(record.example)
        return cls(
            nodeid=record.nodeid,
            suite=record.suite,
            case_id=record.case_id,
            content_hash=record.content_hash,
            split=record.split,
            outcome=record.outcome,
            trial=record.number,
            call=None if example is None else example.call,
            input_fingerprint=record.input_fingerprint or ("" if example is None else example.input_fingerprint),
            example=example,
            reason=record.example_reason,
            uncorrected=None if record.uncorrected is None else Uncorrected.from_dict(record.uncorrected),
        )


@dataclass(frozen=True, kw_only=True)
class Manifest:
    """What an export holds, where it comes from, and why everything else is missing from it.

    `offered` = `written` + `left_out`: an example or a reason for each of the `trials`, and for each call of theirs where all are trained
    on. The `by_` counts are of written examples, `left_out_by_reason` of offers. `train_file` is None, and
    so are its hash and size (bytes), where no example was written. `examples` are in the order of the file's lines; each `sha256` is
    that of the line without its newline. `tool_calls` counts the examples that hold any, and `anchored` are columns: `formats.trl` says
    what to know about both. `holdout_inputs` counts the inputs that the guard compared with, `leak_threshold` is from where on it calls two
    inputs nearly equal, and `holdout_taught` are the entries of the ledger that are holdout by now: what is trained on the earlier export
    has seen them. `needs_correction` are the cases on the list of those that need a correction. `formats` says of every further format
    what it holds of the written examples and why the others are missing from it: `examples` = `written` + `left_out`. `advice` is what the
    quality report advises, the weightiest first. `run` is what the caller said about the run.
    """

    format: str = MANIFEST_FORMAT
    plugin_version: str
    rows: str = TRL_FORMAT
    trials: int
    offered: int
    written: int
    left_out: int
    by_kind: Mapping[str, int]
    by_suite: Mapping[str, int]
    by_tag: Mapping[str, int]
    by_target_source: Mapping[str, int]
    by_source: Mapping[str, int]
    left_out_by_reason: Mapping[str, int]
    train_file: str | None
    train_sha256: str | None
    train_bytes: int | None
    tool_calls: int
    anchored: tuple[str, ...]
    holdout_inputs: int
    leak_threshold: float
    holdout_taught: tuple[Mapping[str, Any], ...]
    needs_correction: tuple[Mapping[str, Any], ...]
    examples: tuple[Mapping[str, Any], ...]
    not_exported: tuple[Mapping[str, Any], ...]
    formats: Mapping[str, Mapping[str, Any]]
    advice: tuple[str, ...]
    run: Mapping[str, Any]

    def to_dict(self) -> dict[str, Any]:
        """Plain dicts, lists and scalars: what `manifest.json` holds."""
        return dataclasses.asdict(self)


@dataclass(frozen=True, kw_only=True)
class Dataset:
    """A written export: the folder that holds it, and what is in it."""

    folder: Path
    manifest: Manifest

    @property
    def train_file(self) -> Path | None:
        """The training data, None where no trial offered an example."""
        return None if self.manifest.train_file is None else self.folder / self.manifest.train_file


def write_export(
    folder: Path,
    *,
    offers: Sequence[Offer],
    held_out: Sequence[HeldOut],
    run: Mapping[str, Any],
    replay: float = 1.0,
    formats: Sequence[str] = (),
    redact: Callable[[str], str] | None = None,
    corrections: Corrections | None = None,
    leak_threshold: float = DEFAULT_THRESHOLD,
    count_tokens: CountTokens | None = None,
    tokens_reason: str = NO_TOKENIZER,
    finder: PersonalFinder = RULES,
    license_: str | None = None,
) -> Manifest:
    """Write `train.jsonl`, `manifest.json` and `ledger.jsonl` into `folder`; each offer is in the first or, as a reason, in the second.

    Beside them stand `report.json`, what `quality.assess` finds in the examples (`count_tokens`, `tokens_reason` and `finder` are for it),
    and the dataset card `README.md`, which names the licence `license_`.
    `needs_correction.jsonl` lists the cases that a correction would complete, as far as the holdout guard lets them pass; `corrections`
    are those accepted by now, which may be more than the trials knew of.

    `held_out` are all holdout cases, selected for this run or not; the inputs of holdout `offers` are added. An example that says what a
    holdout input says is left out; one that nearly does, from a similarity of `leak_threshold` on (above 0; 1: in other words only), is a
    mistake in the cases and refuses the export. A case that only the list would show is left off it in either case.
    `replay` (0 to 1) is the part of the cases with replays that gives them, chosen by a stable hash of suite and id, so that a larger part
    holds every smaller one. `formats` (names of `settings.EXPORT_FORMATS`) are written beside, each in a folder of its name, from the
    examples that are in `train.jsonl` and from nothing else. `run` says what the run was (JSON). `redact` is applied to every text that
    is written.
    The same arguments give the same bytes, in whatever order the offers come. A case that failed in any trial gives its fixes only, not
    its replays beside them.
    Without a single example there is no `train.jsonl`, as `datasets` cannot load an empty file; one of an earlier export is removed.
    The ledger keeps what earlier exports into this folder held, and gains what this one holds.
    What an earlier export wrote and this one does not have is removed; the files of anybody else in the folder stay as they are.

    Raises:
        ExportError: the folder or its ledger cannot be used, a format needs a library that is missing, an example or `run` is not fit to
            be written, or an example is nearly a holdout case, of which all are named; nothing was written.
        OSError: the disk failed; each file is either the old or the new one.
    """
    earlier = check_folder(folder, formats)
    clean = redact or _unchanged
    guarded = _guarded(offers, (case.fingerprint for case in held_out))
    kept, left = _judged(offers, guarded, clean, replay)
    left = _without_near(kept, left, held_out, leak_threshold, clean)
    encoded = encode_trl([candidate.row for candidate in kept])
    if isinstance(encoded, LeftOut):
        left += [(candidate.offer, encoded.reason) for candidate in kept]
        kept, encoded = [], encode_trl([])
    lines = cast("Encoded", encoded).lines
    data = b"".join(line + b"\n" for line in lines)
    train_sha256 = hashlib.sha256(data).hexdigest()
    needed = list(_needed(left, kept, clean, corrections))
    made = [make(name, [candidate.example for candidate in kept]) for name in _further(formats)]
    taught = [dataclasses.replace(candidate.example, tags=tuple(map(clean, candidate.example.tags))) for candidate in kept]
    quality = assess(taught, count_tokens=count_tokens, tokens_reason=clean(tokens_reason), finder=_told(finder, clean))
    manifest = Manifest(
        plugin_version=importlib.metadata.version("pytest-touchstone"),
        trials=_trials(offers),
        offered=len(offers),
        written=len(kept),
        left_out=len(left),
        **_counts([candidate.example for candidate in kept], clean),
        left_out_by_reason=_count(clean(LeftOut(reason=reason).category) for _, reason in left),
        train_file=TRAIN_FILE if kept else None,
        train_sha256=train_sha256 if kept else None,
        train_bytes=len(data) if kept else None,
        tool_calls=sum(_holds_tool_calls(candidate.example) for candidate in kept),
        anchored=cast("Encoded", encoded).anchored,
        holdout_inputs=len(guarded),
        leak_threshold=leak_threshold,
        holdout_taught=tuple(
            entry.model_dump()
            for entry in earlier.taught({_case_name(offer, clean) for offer in offers if offer.split == "holdout"}, guarded)
        ),
        needs_correction=tuple({"suite": entry.suite, "case_id": entry.id} for entry in needed),
        examples=tuple(_exported(candidate, line, clean) for candidate, line in zip(kept, lines, strict=True)),
        not_exported=tuple(_missing(offer, reason, clean) for offer, reason in sorted(left, key=_left_order)),
        formats={each.name: _format_report(each, kept, clean) for each in made},
        advice=quality.advice,
        run=_run_info(run, clean),
    )
    assert manifest.offered == manifest.written + manifest.left_out, "every trial is accounted for"
    report = {"format": REPORT_FORMAT, "train_sha256": manifest.train_sha256, **quality.to_dict()}
    texts = {REPORT_FILE: _json_text(report), CARD_FILE: card(manifest.to_dict(), quality, license_=license_)}
    _write(folder, data, manifest, earlier.with_(_entry(candidate, train_sha256, clean) for candidate in kept), made, texts)
    write_needed(folder, needed)
    return manifest


def check_folder(folder: Path, formats: Sequence[str] = ()) -> Ledger:
    """The ledger of a folder that an export can use; refuses any other; cheap, so it can be asked before a run is paid for.

    Raises:
        ExportError: it is no folder, or what an export would replace there is no plain file or not an export's, or its ledger is broken;
            or a format needs a library that is not installed.
    """
    check_needs(_further(formats))
    if os.path.lexists(folder) and not folder.is_dir():
        msg = f"{folder}: is not a folder; give --llm-export a folder, which may be new"
        raise ExportError(msg)
    paths = [path for path in (folder / TRAIN_FILE, folder / MANIFEST_FILE) if os.path.lexists(path)]
    ledger, texts = folder / LEDGER_FILE, [folder / CARD_FILE, folder / REPORT_FILE]
    for path in [*paths, *(path for path in (ledger, *texts) if os.path.lexists(path))]:
        if not stat.S_ISREG(path.lstat().st_mode):
            msg = f"{path}: is a link, a folder or a device, and an export replaces plain files only; remove it or choose another folder"
            raise ExportError(msg)
    if paths and not _is_ours(folder / MANIFEST_FILE):
        msg = f"{paths[0]}: was not written by an export (no manifest of one is there); move it away or choose another folder"
        raise ExportError(msg)
    foreign = next((path for path in texts if os.path.lexists(path) and not _is_our_text(path)), None)
    if foreign is not None:
        msg = f"{foreign}: was not written by an export; move it away or choose another folder"
        raise ExportError(msg)
    check_places(folder, _further(formats), folder / MANIFEST_FILE)
    return Ledger.read(ledger)


@dataclass(frozen=True, kw_only=True)
class _Candidate:
    offer: Offer
    example: Example  # without secrets, as it is written
    said: Example  # as it was offered
    row: Row
    text: str


def _unchanged(text: str) -> str:
    return text


def _trials(offers: Iterable[Offer]) -> int:
    """How many trials brought these offers: those of calls are of one trial where they have its name."""
    whole, parts = 0, set[tuple[str, int]]()
    for offer in offers:
        whole += offer.call is None
        parts |= {(offer.nodeid, offer.trial)} if offer.call is not None else set()
    return whole + len(parts)


def _told(finder: PersonalFinder, clean: Callable[[str], str]) -> PersonalFinder:
    """What the finder says of itself, which names a model, without secrets."""
    unknown = {kind: clean(why) for kind, why in finder.unknown.items()}
    return dataclasses.replace(finder, by=clean(finder.by), unknown=unknown, fault=clean(finder.fault))


def _further(formats: Iterable[str]) -> list[str]:
    """The formats that have a folder of their own, each once, in an order that does not depend on how they were named."""
    return sorted(set(formats) - {"trl"})


def _guarded(offers: Iterable[Offer], holdout: Iterable[str]) -> frozenset[str]:
    return frozenset(holdout) | {offer.input_fingerprint for offer in offers if offer.split == "holdout" and offer.input_fingerprint}


def _without_near(
    kept: Sequence[_Candidate], left: list[tuple[Offer, str]], held_out: Sequence[HeldOut], threshold: float, clean: Callable[[str], str]
) -> list[tuple[Offer, str]]:
    """Refuse near copies among what is kept; what is left, where the list would show a near copy with that as its reason."""
    listed = [index for index, (offer, reason) in enumerate(left) if offer.uncorrected is not None and reason == offer.reason]
    shown = [cast("Uncorrected", left[index][0].uncorrected).shown() for index in listed]
    found = near_holdout([*(candidate.said for candidate in kept), *shown], held_out, threshold=threshold)
    _refuse_near(kept, [copy for copy in found if copy.example < len(kept)], clean)
    for copy in found:
        if copy.example >= len(kept):
            index = listed[copy.example - len(kept)]
            left[index] = left[index][0], _near_reason(copy)
    return left


def _refuse_near(kept: Sequence[_Candidate], found: Sequence[NearCopy], clean: Callable[[str], str]) -> None:
    if not found:
        return
    pairs = list(dict.fromkeys(_near_line(kept[copy.example], copy, clean) for copy in found))
    more = [f"and {len(pairs) - MAX_NAMED:,} more"] if len(pairs) > MAX_NAMED else []
    worst = max(copy.similarity for copy in found)
    raised = f", or, where they are different on purpose, raise --llm-leak-threshold above {_percent(worst)} %" if worst < 1 else ""
    counted = "1 pair of a train and a holdout case is" if len(pairs) == 1 else f"{len(pairs):,} pairs of a train and a holdout case are"
    lines = [
        f"{counted} nearly equal, so nothing was written: a model that learns the one cannot be measured by the other",
        *pairs[:MAX_NAMED],
        *more,
        f"Give both cases of a pair one `group` (near-twins then share a split), move one to the other's split, or delete one{raised}",
    ]
    raise ExportError("\n".join(lines))


def _near_line(candidate: _Candidate, copy: NearCopy, clean: Callable[[str], str]) -> str:
    """The pair by names and places; the texts of neither."""
    said = "" if copy.where == "input" else f" in {copy.where}"
    one = candidate.offer
    train = f"{candidate.example.source}: case {one.case_id!r} of {one.suite}"
    return clean(f"{train} is{said} {_percent(copy.similarity)} % like the holdout case {_held_name(copy)}")


def _near_reason(copy: NearCopy) -> str:
    """Why a case is not on the list of those that need a correction; quotes no text."""
    place = "the input of the case" if copy.where == "input" else f"what the list would show of the case ({copy.where})"
    return f"leak: {place} is {_percent(copy.similarity)} % like the holdout case {_held_name(copy)}"


def _held_name(copy: NearCopy) -> str:
    held = copy.held
    return f"{held.case_id!r} of {held.suite} ({held.source})"


def _percent(similarity: float) -> int:
    return int(similarity * 100 + 1e-9)


def _case_name(offer: Offer, clean: Callable[[str], str]) -> tuple[str, str]:
    """Suite and id as the ledger has them: half characters, which the name of a file may hold, as escapes."""
    return named(offer.suite, offer.case_id, clean)


def _entry(candidate: _Candidate, train_sha256: str, clean: Callable[[str], str]) -> Taught:
    offer = candidate.offer
    suite, case_id = _case_name(offer, clean)
    return Taught(
        suite=suite,
        case_id=case_id,
        input_fingerprint=candidate.example.input_fingerprint,
        content_hash=offer.content_hash,
        export=train_sha256,
    )


def _judged(
    offers: Sequence[Offer], guarded: frozenset[str], clean: Callable[[str], str], replay: float
) -> tuple[list[_Candidate], list[tuple[Offer, str]]]:
    """Every offer on one of two lists: candidates for the file in their final order, and offers with why they are left out."""
    held = {(offer.suite, offer.case_id) for offer in offers if offer.split == "holdout"}
    hashes = {offer.content_hash for offer in offers if offer.split == "holdout"}
    candidates: list[_Candidate] = []
    left: list[tuple[Offer, str]] = []
    for offer in offers:
        if (offer.suite, offer.case_id) in held:
            result: _Candidate | LeftOut = LeftOut(reason="holdout")
        elif offer.content_hash in hashes or offer.input_fingerprint in guarded:
            result = LeftOut(reason=_LEAKED)
        else:
            result = _candidate(offer, guarded, clean, replay)
        if isinstance(result, LeftOut):
            left.append((offer, result.reason))
        else:
            candidates.append(result)
    candidates.sort(key=_order)
    return _without_repeats(candidates, left), left


def _candidate(offer: Offer, guarded: frozenset[str], clean: Callable[[str], str], replay: float) -> _Candidate | LeftOut:
    if offer.example is None:
        leak = None if offer.uncorrected is None else leaks(offer.uncorrected.shown(), guarded)
        return LeftOut(reason=leak or offer.reason or "no example was offered")
    example = validate_example(offer.example)
    if (example.suite, example.case_id, example.content_hash) != (offer.suite, offer.case_id, offer.content_hash):
        msg = f"case {offer.case_id!r}: its trial offers an example of case {example.case_id!r}; an example belongs to its own case"
        raise ExportError(msg)
    leak = leaks(example, guarded)
    if leak is not None:
        return LeftOut(reason=leak)
    cleaned = _cleaned(example, clean)
    row = trl_row(cleaned)
    if isinstance(row, LeftOut):
        return row
    if example.kind == "replay" and stable_number(json.dumps([offer.suite, offer.case_id])) >= replay * 2**64:
        return LeftOut(reason=f"not replayed: --llm-replay {replay:g} leaves this case out")
    return _Candidate(offer=offer, example=cleaned, said=example, row=row, text=json.dumps(row, sort_keys=True))


def _needed(
    left: Iterable[tuple[Offer, str]], kept: Iterable[_Candidate], clean: Callable[[str], str], corrections: Corrections | None
) -> Iterator[Needed]:
    """The list of cases that need a correction: of each the first trial, unless another one gave a fix."""
    done = {(candidate.offer.suite, candidate.offer.case_id) for candidate in kept if candidate.example.kind == "fix"}
    for offer, reason in sorted(left, key=_left_order):
        found, case = offer.uncorrected, (offer.suite, offer.case_id)
        if found is None or reason != offer.reason or case in done:
            continue
        done.add(case)
        suite, case_id = _case_name(offer, clean)
        accepted = None if corrections is None else corrections.of((suite, case_id), offer.content_hash)
        if accepted is not None and digest(accepted) != found.tried:  # given while the tests ran
            continue
        shown = cast("dict[str, Any]", map_texts({**vars(found), "source": found.example.source}, lambda text: whole(clean(text))))
        yield Needed(
            suite=suite,
            id=case_id,
            content_hash=offer.content_hash,
            **{name: shown[name] for name in ("source", "why", "rubric", "input")},
            output=whole(clean(str(found.example.completion[0]["content"]))),
            correction="",
        )


def _without_repeats(candidates: Sequence[_Candidate], left: list[tuple[Offer, str]]) -> list[_Candidate]:
    fixed = {(candidate.offer.suite, candidate.offer.case_id) for candidate in candidates if candidate.example.kind == "fix"}
    kept: dict[str, _Candidate] = {}
    for candidate in candidates:
        if candidate.example.kind == "replay" and (candidate.offer.suite, candidate.offer.case_id) in fixed:
            left.append((candidate.offer, "fix wins: another trial of this case failed and gives a fix"))
        elif candidate.text in kept:
            left.append((candidate.offer, f"duplicate: the same as the example of {kept[candidate.text].offer.nodeid}"))
        else:
            kept[candidate.text] = candidate
    return list(kept.values())


def _order(candidate: _Candidate) -> tuple[str, str, int, str, int, str]:
    return *_offer_order(candidate.offer), candidate.text


def _left_order(entry: tuple[Offer, str]) -> tuple[str, str, int, str, int, str]:
    offer, reason = entry
    return *_offer_order(offer), reason


def _offer_order(offer: Offer) -> tuple[str, str, int, str, int]:
    return offer.suite, offer.case_id, offer.trial, offer.nodeid, offer.call or 0


def _cleaned(example: Example, clean: Callable[[str], str]) -> Example:
    conversation: dict[str, Any] = {name: tuple(map_texts(getattr(example, name), clean)) for name in _TEXTS}
    return validate_example(dataclasses.replace(example, **conversation))


def _counts(examples: Sequence[Example], clean: Callable[[str], str]) -> dict[str, Any]:
    return {
        "by_kind": _count(example.kind for example in examples),
        "by_suite": _count(clean(example.suite) for example in examples),
        "by_tag": _count(clean(tag) for example in examples for tag in example.tags),
        "by_target_source": _count(example.target_source for example in examples),
        "by_source": _count(clean(_file_of(example.source)) for example in examples),
    }


def _holds_tool_calls(example: Example) -> bool:
    return any(message.get("tool_calls") for message in (*example.prompt, *example.completion))


def _count(values: Iterable[str]) -> dict[str, int]:
    return dict(sorted(Counter(values).items()))


def _file_of(source: str) -> str:
    file, _, line = source.rpartition(":")
    return file if file and line.isdecimal() else source


def _exported(candidate: _Candidate, line: bytes, clean: Callable[[str], str]) -> dict[str, Any]:
    example = candidate.example
    return {
        **_place(candidate.offer, clean),
        "source": clean(example.source),
        "kind": example.kind,
        "target_source": example.target_source,
        "checks": [clean(name) for name in example.checks],
        "tags": [clean(tag) for tag in example.tags],
        "sha256": hashlib.sha256(line).hexdigest(),
    }


def _format_report(made: Made, kept: Sequence[_Candidate], clean: Callable[[str], str]) -> dict[str, Any]:
    return {
        "files": made.listed(),
        "examples": len(kept),
        "written": made.written,
        "left_out": len(made.left),
        "left_out_by_reason": _count(clean(LeftOut(reason=reason).category) for _, reason in made.left),
        "anchored": list(made.anchored),
        "not_written": [{**_place(kept[index].offer, clean), "reason": clean(reason)} for index, reason in made.left],
    }


def _missing(offer: Offer, reason: str, clean: Callable[[str], str]) -> dict[str, Any]:
    return {**_place(offer, clean), "split": offer.split, "outcome": offer.outcome, "reason": clean(reason)}


def _place(offer: Offer, clean: Callable[[str], str]) -> dict[str, Any]:
    return {
        "suite": clean(offer.suite),
        "case_id": clean(offer.case_id),
        "nodeid": clean(offer.nodeid),
        "trial": offer.trial,
        **({} if offer.call is None else {"call": offer.call}),
        "content_hash": offer.content_hash,
    }


def _run_info(run: Mapping[str, Any], clean: Callable[[str], str]) -> dict[str, Any]:
    try:
        return cast("dict[str, Any]", map_texts(plain(run), clean))
    except (TypeError, ValueError, RecursionError) as error:
        msg = f"the description of the run is not JSON: {error}; nothing was written"
        raise ExportError(msg) from error


def _is_ours(manifest: Path) -> bool:
    try:
        found = json.loads(manifest.read_bytes())
    except (OSError, ValueError, RecursionError):
        return False
    return isinstance(found, dict) and str(cast("dict[str, object]", found).get("format")).startswith(_FAMILY)


def _is_our_text(path: Path) -> bool:
    if path.name == CARD_FILE:
        return MARK.encode() in path.read_bytes()
    try:
        found = json.loads(path.read_bytes())
    except (ValueError, RecursionError):
        return False
    return isinstance(found, dict) and str(cast("dict[str, object]", found).get("format")).startswith(_REPORT_FAMILY)


def _json_text(value: object) -> str:
    return json.dumps(value, ensure_ascii=False, indent=2) + "\n"


def _write(folder: Path, data: bytes, manifest: Manifest, ledger: Ledger, made: Sequence[Made], texts: Mapping[str, str]) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    if data:
        replace_file(folder / LEDGER_FILE, ledger.encode())  # first: whatever is taught must be known, also after a crash
        claim(folder / MANIFEST_FILE, made, empty={"format": MANIFEST_FORMAT})
        replace_file(folder / TRAIN_FILE, data)
    else:
        (folder / TRAIN_FILE).unlink(missing_ok=True)
    write_files(folder, folder / MANIFEST_FILE, made)
    # A lone surrogate in a case's reason becomes its JSON escape. The manifest comes last, since it vouches for all the others.
    for name, text in {**texts, MANIFEST_FILE: _json_text(manifest.to_dict())}.items():
        replace_file(folder / name, text.encode("utf-8", "backslashreplace"))
