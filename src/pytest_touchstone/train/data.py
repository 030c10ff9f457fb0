"""The data of a job: an export of ours, as it was written, and the part of it that the loss is measured on."""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final, cast

from pytest_touchstone.cases import stable_number
from pytest_touchstone.errors import Fault, JobError
from pytest_touchstone.export.format import TRAIN_FILE
from pytest_touchstone.export.leak import input_fingerprint
from pytest_touchstone.export.ledger import LEDGER_FILE, Ledger
from pytest_touchstone.export.write import MANIFEST_FILE, MANIFEST_FORMAT
from pytest_touchstone.text import listed
from pytest_touchstone.train.formatted import listed_files

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence
    from pathlib import Path

    from pytest_touchstone.train.job import Method

PAIRS_FILE: Final = f"preference/{TRAIN_FILE}"
MAX_NAMED: Final = 10
_COLUMNS: Final[Mapping[Method, tuple[str, ...]]] = {"sft": ("prompt", "completion"), "dpo": ("prompt", "chosen", "rejected")}
_ALLOW: Final = "export again, or say --allow-changed-data where the change is wanted"


@dataclass(frozen=True, kw_only=True)
class Line:
    """One example of the file: its line (from 1), and the case it comes from, None where the manifest does not know the line."""

    number: int
    case: tuple[str, str] | None

    @property
    def name(self) -> str:
        """What the split is made by: all examples of one case go to the same side."""
        return json.dumps(self.case or ["", f"line {self.number}"])


@dataclass(frozen=True, kw_only=True)
class TrainingData:
    """An export that may be trained on.

    `file` holds an example a line, in the columns of its method, and `sha256` (hex) is its hash. `changed` says that the file is not as
    the export wrote it, and that the user wants it so. `notes` are what a user should know, a sentence each.
    """

    folder: Path
    file: Path
    sha256: str
    lines: tuple[Line, ...]
    changed: bool = False
    notes: tuple[str, ...] = ()

    def eval_lines(self, part: float) -> tuple[int, ...]:
        """The lines (from 1) of the `part` (0 to 1) of the cases whose loss is measured; the same ones whatever the others are."""
        return tuple(line.number for line in self.lines if stable_number(f"eval {line.name}") < part * 2**64)


def read_data(folder: Path, method: Method = "sft", *, allow_changed: bool = False) -> TrainingData:
    """The training data of an export's folder, checked against its manifest and ledger.

    `sft` reads `train.jsonl`, `dpo` reads `preference/train.jsonl`. With `allow_changed` the file may have been edited by hand.

    Raises:
        JobError: it is no export, holds nothing, was changed, or holds a case that is holdout; all that is wrong at once.
        OSError: a file cannot be read.
    """
    manifest = _manifest(folder)
    name = TRAIN_FILE if method == "sft" else PAIRS_FILE
    file = folder / name
    known = _known_hash(manifest, name)
    if not file.is_file():
        fix = "export again, with cases that failed" if method == "sft" else "export again with --llm-export-format preference"
        raise JobError([Fault(file=str(file), problem="is not there, so there is nothing to train on", fix=fix)])
    raw = file.read_bytes()
    digest = hashlib.sha256(raw).hexdigest()
    rows, faults = _rows(raw, str(file), _COLUMNS[method])
    changed = digest != known
    if changed and not allow_changed:
        what = "is not in the manifest" if known is None else "is not as the export wrote it: its sha256 is not that of the manifest"
        faults.append(Fault(file=str(file), problem=what, fix=_ALLOW))
    lines = _lines(raw, rows, manifest, name)
    faults += _holdout_faults(folder, manifest, file, lines, rows)
    if faults:
        raise JobError(faults)
    notes = [f"{name} was changed after the export; the guard against holdout cases saw the export only"] if changed else []
    return TrainingData(folder=folder, file=file, sha256=digest, lines=lines, changed=changed, notes=tuple(notes))


def _manifest(folder: Path) -> Mapping[str, Any]:
    file = folder / MANIFEST_FILE
    fix = "give the folder that pytest --llm-eval --llm-export wrote"
    if not folder.is_dir():
        raise JobError([Fault(file=str(folder), problem="is no folder", fix=fix)])
    try:
        found = json.loads(file.read_bytes())
    except FileNotFoundError as error:
        raise JobError([Fault(file=str(folder), problem=f"is no export: it has no {MANIFEST_FILE}", fix=fix)]) from error
    except (ValueError, RecursionError) as error:
        raise JobError([Fault(file=str(file), problem="is not JSON", fix="export again")]) from error
    if not isinstance(found, dict) or cast("dict[str, object]", found).get("format") != MANIFEST_FORMAT:
        raise JobError([Fault(file=str(file), problem=f"is no manifest of the format {MANIFEST_FORMAT!r}", fix=fix)])
    return cast("Mapping[str, Any]", found)


def _known_hash(manifest: Mapping[str, Any], name: str) -> str | None:
    """The sha256 that the manifest has of one of the export's files."""
    if name == TRAIN_FILE:
        return manifest.get("train_sha256")
    return listed_files(manifest).get(name)


def _rows(raw: bytes, place: str, columns: Sequence[str]) -> tuple[list[Mapping[str, Any]], list[Fault]]:
    rows: list[Mapping[str, Any]] = []
    faults: list[Fault] = []
    for number, line in enumerate(_split(raw), 1):
        row = _row(line)
        missing = [column for column in columns if not _are_messages(row.get(column))]
        if missing:
            words = " and ".join(missing)
            faults.append(Fault(file=place, line=number, problem=f"has no messages in {words}", fix="export again"))
        rows.append(row)
    if not rows:
        faults.append(Fault(file=place, problem="is empty, so there is nothing to train on", fix="export again, with cases that failed"))
    return rows, faults[:MAX_NAMED]


def _split(raw: bytes) -> list[bytes]:
    return raw.removesuffix(b"\n").split(b"\n") if raw.strip() else []


def _row(line: bytes) -> Mapping[str, Any]:
    try:
        found = json.loads(line)
    except (ValueError, RecursionError):
        return {}
    return cast("Mapping[str, Any]", found) if isinstance(found, dict) else {}


def _are_messages(value: object) -> bool:
    items = cast("Sequence[object]", value) if isinstance(value, list) else ()
    return bool(items) and all(isinstance(item, dict) and "role" in item for item in items)


def _lines(raw: bytes, rows: Sequence[object], manifest: Mapping[str, Any], name: str) -> tuple[Line, ...]:
    """Each line with its case: the manifest knows the lines of `train.jsonl` by their hash; pairs name none, and count for themselves."""
    entries = cast("Iterable[Mapping[str, Any]]", manifest.get("examples", ()) if name == TRAIN_FILE else ())
    cases = {str(entry["sha256"]): (str(entry["suite"]), str(entry["case_id"])) for entry in entries}
    hashes = (hashlib.sha256(line).hexdigest() for line in _split(raw))
    return tuple(Line(number=number, case=cases.get(digest)) for number, (digest, _) in enumerate(zip(hashes, rows, strict=True), 1))


def _holdout_faults(
    folder: Path, manifest: Mapping[str, Any], file: Path, lines: Sequence[Line], rows: Sequence[Mapping[str, Any]]
) -> list[Fault]:
    """Cases of the file that the manifest or the ledger knows as holdout: by name, and by the fingerprint of their input."""
    left_out = cast("Iterable[Mapping[str, Any]]", manifest.get("not_exported", ()))
    taught = cast("Iterable[Mapping[str, Any]]", manifest.get("holdout_taught", ()))
    held = {(str(entry["suite"]), str(entry["case_id"])) for entry in left_out if entry.get("split") == "holdout"}
    held |= {(str(entry["suite"]), str(entry["case_id"])) for entry in taught}
    prints = {str(entry["input_fingerprint"]) for entry in taught}
    prints |= {entry.input_fingerprint for entry in Ledger.read(folder / LEDGER_FILE).entries if entry.key[:2] in held}
    found = [
        line
        for line, row in zip(lines, rows, strict=True)
        if line.case in held or (prints and input_fingerprint(row.get("prompt")) in prints)
    ]
    if not found:
        return []
    names = Counter(line.case[1] if line.case else f"line {line.number}" for line in found)
    problem = f"holds {len(found)} {'example' if len(found) == 1 else 'examples'} of holdout cases: {listed(list(names), MAX_NAMED)}"
    return [Fault(file=str(file), line=found[0].number, problem=problem, fix="export again; what is measured on must not be learned")]
