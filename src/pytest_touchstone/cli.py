"""The command `touchstone`: what is to be done between test runs with recordings and stored runs, and setting up a project."""

from __future__ import annotations

import argparse
import contextlib
import io
import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from pytest_touchstone import cli_compare, cli_correct, cli_improve, cli_runs, cli_train
from pytest_touchstone.errors import SettingsError, TouchstoneError
from pytest_touchstone.text import visible

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

FAULTS = 1
UNUSABLE = 2

ATTRIBUTES = ("**/__recordings__/*.jsonl -text merge=union linguist-generated",)
IGNORED = (".touchstone/",)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command; the result is its exit status: 0 done, 1 faults were found, 2 it could not be done."""
    options = _parser().parse_args(arguments)
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):  # a terminal may not know every character of a recording
            stream.reconfigure(errors="backslashreplace")
    try:
        status: int = options.run(options)
        sys.stdout.flush()
    except TouchstoneError as error:
        return _fail(str(error))
    except BrokenPipeError:  # whoever reads, such as head, has enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except OSError as error:
        place = f"{error.filename}: " if error.filename else ""
        return _fail(f"{place}{error.strerror or error}")
    except KeyboardInterrupt:
        return _fail("interrupted")
    return status


def _fail(message: str) -> int:
    for line in message.splitlines():
        print(f"touchstone: {visible(line)}", file=sys.stderr)
    return UNUSABLE


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="touchstone", description="Look after the recordings and runs of golden tests, and set up a project for them."
    )
    parser.add_argument("--version", action=_Version, help="Print the version of pytest-touchstone.")
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    _add_recordings(commands.add_parser("recordings", help="List, show, check and prune recorded model calls."))
    cli_runs.add_commands(commands)
    cli_compare.add_command(commands)
    cli_correct.add_command(commands)
    cli_train.add_commands(commands)
    cli_improve.add_command(commands)
    init = commands.add_parser(
        "init",
        help="Offer the lines that git needs.",
        description="Show which lines .gitattributes and .gitignore lack, and add them when told to. Other lines are never touched.",
    )
    init.add_argument("folder", nargs="?", type=Path, default=Path(), metavar="DIR", help="The project. Default: the current folder.")
    init.add_argument("--yes", action="store_true", help="Add the lines without asking.")
    init.set_defaults(run=_init)
    return parser


class _Version(argparse.Action):
    """Reads the version only when it is asked for: looking through installed packages takes time."""

    def __init__(self, option_strings: Sequence[str], dest: str, **options: str) -> None:
        super().__init__(option_strings, dest, nargs=0, **options)  # type: ignore[arg-type] # pyright: ignore[reportArgumentType]

    def __call__(self, parser: argparse.ArgumentParser, *_: object) -> None:
        """Print it and end."""
        import importlib.metadata

        print(f"pytest-touchstone {importlib.metadata.version('pytest-touchstone')}")
        parser.exit()


def _add_recordings(parser: argparse.ArgumentParser) -> None:
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    paths = argparse.ArgumentParser(add_help=False)
    paths.add_argument(
        "paths",
        nargs="*",
        type=Path,
        metavar="PATH",
        help="A folder, a test module or a recording file. Default: everything below the current folder.",
    )
    listed = commands.add_parser("list", parents=[paths], help="One line for each recording file.")
    listed.set_defaults(run=_list)
    shown = commands.add_parser("show", parents=[paths], help="Recorded calls, to be read.")
    shown.add_argument("--test", metavar="NAME", help="Only the calls of this test: test_refunds[late], or the beginning of it.")
    shown.add_argument("--line", type=int, metavar="N", help="Only the call on this line of the file, counted from 1.")
    shown.set_defaults(run=_show)
    verified = commands.add_parser("verify", parents=[paths], help="Look for damage and secrets. Exit status 1 where there are any.")
    verified.set_defaults(run=_verify)
    pruned = commands.add_parser(
        "prune",
        parents=[paths],
        help="Drop what no test asked for in the last run.",
        description="Drop the recordings that no test asked for in the last run, which must have run their modules in full.",
    )
    pruned.add_argument("--dry-run", action="store_true", help="Only say what would be dropped.")
    pruned.set_defaults(run=_prune)


def _files(paths: Sequence[Path]) -> list[Path]:
    """The recording files that the paths name, absolute and each once.

    Raises:
        SettingsError: a path names none.
    """
    from pytest_touchstone.recording.library import recording_files

    found: dict[Path, None] = {}
    for path in paths or [Path()]:
        whole = path.resolve()
        if whole.is_dir():
            found.update(dict.fromkeys(sorted(recording_files(whole)) or sorted(_inside(whole))))
        else:
            found[_file(path, whole)] = None
    return list(found)


def _inside(folder: Path) -> Iterable[Path]:
    from pytest_touchstone.recording.store import FOLDER

    return folder.glob("*.jsonl") if folder.name == FOLDER else ()


def _file(path: Path, whole: Path) -> Path:
    from pytest_touchstone.recording.store import recording_path

    if whole.suffix == ".jsonl" and whole.is_file():
        return whole
    recording = recording_path(whole)
    if whole.suffix == ".py" and recording.is_file():
        return recording
    there = "has no recordings" if whole.suffix == ".py" and whole.is_file() else "is no folder, test module or recording file"
    msg = f"{path}: {there}; give one of those, or nothing for all below this folder"
    raise SettingsError(msg)


def _list(options: argparse.Namespace) -> int:
    from pytest_touchstone.recording.listing import list_lines

    for line in list_lines(_files(options.paths), Path.cwd()):
        print(line)
    return 0


def _show(options: argparse.Namespace) -> int:
    from pytest_touchstone.recording.listing import show_lines

    found = False
    for path in _files(options.paths):
        for line in show_lines(path, Path.cwd(), test=options.test, number=options.line):
            print(line)
            found = True
    if not found:
        msg = "no recorded call is meant by that; `touchstone recordings list` says what there is"
        raise SettingsError(msg)
    return 0


def _verify(options: argparse.Namespace) -> int:
    from pytest_touchstone.recording.listing import faults_of
    from pytest_touchstone.recording.redact import Redactor

    files = _files(options.paths)
    redactor = Redactor(os.environ)
    faults = [fault for path in files for fault in faults_of(path, Path.cwd(), redactor=redactor)]
    for fault in faults:
        print(fault)
    print(f"{len(files)} recording {'file' if len(files) == 1 else 'files'}, {len(faults)} {'fault' if len(faults) == 1 else 'faults'}")
    return FAULTS if faults else 0


def _prune(options: argparse.Namespace) -> int:
    from pytest_touchstone.recording.evidence import FILE_NAME, prune, read_evidence, refusal
    from pytest_touchstone.recording.journal import merge_lock

    files = _files(options.paths)
    folder = _touchstone_folder()
    rootdir = folder.parent
    evidence = read_evidence(folder / FILE_NAME)
    status, told = 0, 0
    with contextlib.nullcontext() if options.dry_run else merge_lock(folder / "journals"):
        for path in files:
            if refused := refusal(path, rootdir, evidence):
                status = _fail(f"not pruned: {refused}")
                continue
            for line in prune(path, rootdir, evidence, dry_run=options.dry_run).lines(done=not options.dry_run):
                print(line)
                told += 1
    if not told and not status:
        print("every recording was asked for in the last run")
    return status


def _touchstone_folder() -> Path:
    folder = cli_runs.root_folder() / ".touchstone"
    if not folder.is_dir():
        msg = f"no run of the tests has left word in {Path.cwd()} or above of what it asked for; run pytest --llm-eval first"
        raise SettingsError(msg)
    return folder


def _init(options: argparse.Namespace) -> int:
    folder = options.folder.resolve()
    if not folder.is_dir():
        msg = f"{options.folder}: is no folder; give that of the project"
        raise SettingsError(msg)
    changes = [_lacking(folder / name, lines) for name, lines in ((".gitattributes", ATTRIBUTES), (".gitignore", IGNORED))]
    wanted = [(path, old, new) for path, old, new in changes if old != new]
    if not wanted:
        print("nothing to add: .gitattributes and .gitignore have every line")
        return 0
    for path, old, new in wanted:
        _print_diff(path, old, new)
    if not (options.yes or _agreed()):
        print("nothing was written; --yes adds the lines")
        return 0
    _write(wanted)
    return 0


def _lacking(path: Path, lines: Iterable[str]) -> tuple[Path, bytes, bytes]:
    """The file, its content, and its content with the lines that it lacks at its end."""
    old = path.read_bytes() if path.exists() else b""
    there = {b" ".join(line.split()) for line in old.splitlines()}
    missing = [line.encode() for line in lines if line.encode() not in there]
    gap = b"\n" if missing and old and not old.endswith(b"\n") else b""
    return path, old, old + gap + b"".join(line + b"\n" for line in missing)


def _print_diff(path: Path, old: bytes, new: bytes) -> None:
    import difflib

    before, after = (text.decode("utf-8", "replace").splitlines() for text in (old, new))
    for line in difflib.unified_diff(before, after, f"{path.name} (now)", f"{path.name} (then)", lineterm="", n=1):
        print(visible(line))


def _agreed() -> bool:
    """Whether a person at a terminal says yes."""
    if not (sys.stdin.isatty() and sys.stdout.isatty()):
        return False
    with contextlib.suppress(EOFError):
        return input("Add these lines? [y/N] ").strip().lower() in {"y", "yes"}
    return False


def _write(wanted: Iterable[tuple[Path, bytes, bytes]]) -> None:
    from pytest_touchstone.files import replace_file

    for path, _, new in wanted:
        replace_file(path.resolve(), new)
        print(f"{path.name}: written")
