"""`touchstone improve`: from failing cases to a tuned model and a verdict on it."""

from __future__ import annotations

import os
import shlex
import sys
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from pytest_touchstone.cli_runs import print_json, root_folder
from pytest_touchstone.errors import ImproveError, SettingsError

if TYPE_CHECKING:
    import argparse
    from collections.abc import Callable

    from pytest_touchstone.improve_state import State
    from pytest_touchstone.improve_steps import Improved

REFUSED = 1
FOLDER = ".touchstone/improve"
PAGE_FILE = "evidence.html"
DATA_FILE = "evidence.json"
# The options that are remembered for --resume, and what of the state they are.
_REMEMBERED = ("model", "backend", "python", "name", "alpha", "max_forgetting")


def add_command(commands: Any) -> None:  # noqa: ANN401 - argparse keeps the type of subparsers to itself
    """Add the command to those of `touchstone`."""
    parser: argparse.ArgumentParser = commands.add_parser(
        "improve",
        usage="touchstone improve --model BASE [OPTIONS] -- [PYTEST ARGUMENTS]",
        help="Run, train on what failed, run again, and say whether the tuned model is better.",
        description="Run the golden tests, train a model on what failed, run the tests with it, and promote or refuse it. "
        "Exit status 0 promoted, 1 refused, 2 it could not be done.",
    )
    parser.add_argument("pytest_args", nargs="*", metavar="PYTEST ARGUMENTS", help="Which tests to run and how, as for pytest.")
    parser.add_argument("--model", metavar="BASE", help="The base model to train, as for touchstone train.")
    parser.add_argument("--backend", metavar="NAME", help="What trains, as for touchstone train. Default: that of the job file.")
    parser.add_argument("--config", type=Path, metavar="FILE", help="The job file, as for touchstone train.")
    parser.add_argument(
        "--set", action="append", metavar="FIELD=VALUE", help="A field of the job, as for touchstone train. May be repeated."
    )
    parser.add_argument("--python", metavar="PATH", help="The Python that has the training libraries and the engine. Default: this one.")
    parser.add_argument("--download", action="store_true", help="Let the base model be downloaded, as for touchstone train.")
    parser.add_argument(
        "--app-env",
        action="append",
        metavar="NAME=VALUE",
        help="An environment variable by which the application finds the tuned model; {base_url} and {model} stand for its address and "
        "name. May be repeated. Default: OPENAI_BASE_URL={base_url}",
    )
    parser.add_argument(
        "--name", metavar="NAME", help="The name under which the tuned model is served. Default: the one that the application asks for."
    )
    parser.add_argument(
        "--export", type=Path, metavar="DIR", help="The folder of the training data. Default: training in the output folder."
    )
    parser.add_argument("--alpha", type=float, metavar="P", help="How often a model that is no better may be promoted. Default: 0.01.")
    parser.add_argument(
        "--max-forgetting", type=float, metavar="POINTS", help="How much of what passed before may fail afterwards. Default: 5 points."
    )
    parser.add_argument("--serve-timeout", type=float, metavar="SECONDS", help="How long the server may take to start. Default: 600.")
    parser.add_argument("--output", type=Path, metavar="DIR", help=f"Where all of it is kept. Default: a new folder in {FOLDER}.")
    parser.add_argument("--resume", action="store_true", help="Go on at the first step that is not done: of --output, or of the last time.")
    parser.add_argument("--quiet", action="store_true", help="Print the steps, but not what they print; it is in their logs.")
    parser.add_argument("--json", action="store_true", help="Print the evidence as JSON; the steps are told on standard error.")
    parser.set_defaults(run=_improve)


def _improve(options: argparse.Namespace) -> int:
    from pytest_touchstone.files import keep_out_of_git
    from pytest_touchstone.improve_state import locked
    from pytest_touchstone.improve_steps import Improvement, check_inputs

    output = _output(options)
    state = _state(options, output)
    check_inputs(state.inputs)
    output.mkdir(parents=True, exist_ok=True)
    if options.output is None:
        keep_out_of_git(root_folder() / ".touchstone")
    say = _teller(sys.stderr if options.json else sys.stdout)
    with locked(output):
        state.save(output)
        say(f"all of it is kept in {output}")
        improvement = Improvement(output, state, environ=dict(os.environ), say=say, follow=not (options.quiet or options.json))
        try:
            improved = improvement.run()
        except KeyboardInterrupt:
            msg = f"interrupted; go on by touchstone improve --resume --output {shlex.quote(str(output))}"
            raise ImproveError(msg) from None
        data = _write(output, improved, improvement.model)
    if options.json:
        print_json(data)
    else:
        _tell(improved, output)
    return 0 if improved.verdict.result == "promoted" else REFUSED


def _tell(improved: Improved, output: Path) -> None:
    from pytest_touchstone.improve_text import verdict_lines

    print()
    for line in verdict_lines(improved.verdict):
        print(line)
    print(f"evidence: {output / PAGE_FILE}")


def _write(output: Path, improved: Improved, model: Path | None) -> dict[str, Any]:
    import json

    from pytest_touchstone.files import replace_file
    from pytest_touchstone.improve_page import evidence_data, evidence_page
    from pytest_touchstone.recording.redact import Redactor

    # What comes from runs is redacted where it is stored; a job or a command line may name a key too.
    redactor = Redactor(os.environ)
    data: Any = redactor.redact_json(evidence_data(improved))
    page = redactor.redact(evidence_page(improved, model))
    replace_file(output / DATA_FILE, json.dumps(data, indent=2).encode() + b"\n")
    replace_file(output / PAGE_FILE, page.encode("utf-8", "backslashreplace"))
    return cast("dict[str, Any]", data)


def _teller(stream: Any) -> Callable[[str], None]:  # noqa: ANN401 - a text stream
    return lambda line: print(line, file=stream, flush=True)


def _output(options: argparse.Namespace) -> Path:
    from pytest_touchstone.improve_state import STATE_FILE

    if options.output is not None:
        output: Path = options.output.absolute()
        if not options.resume and output.is_dir() and any(output.iterdir()):
            msg = f"{options.output}: is not empty; go on with what is there by --resume, or give --output another folder"
            raise SettingsError(msg)
        return output
    folder = root_folder() / FOLDER
    if not options.resume:
        return folder / f"{datetime.now(UTC):%Y%m%d-%H%M%S-%f}"
    begun = sorted(path.parent for path in folder.glob(f"*/{STATE_FILE}"))
    if not begun:
        msg = f"{folder}: holds no improvement that could be resumed; leave --resume out, or name its folder by --output"
        raise ImproveError(msg)
    return begun[-1]


def _state(options: argparse.Namespace, output: Path) -> State:
    """What was asked for, now and, where it is resumed, before: what is given now wins, and steps that depend on it are done again."""
    from pytest_touchstone.improve_state import Inputs, State

    given: dict[str, Any] = {name: getattr(options, name) for name in _REMEMBERED if getattr(options, name) is not None}
    given |= {name: str(path.absolute()) for name in ("config", "export") if (path := getattr(options, name)) is not None}
    if options.pytest_args:
        given["pytest_args"] = tuple(options.pytest_args)
    if options.app_env:
        given["app_env"] = tuple(options.app_env)
    if options.serve_timeout is not None:
        given["serve_timeout_s"] = options.serve_timeout
    if train_args := _train_args(options):
        given["train_args"] = train_args
    if options.resume:
        state = State.load(output)
        return State(inputs=state.inputs.model_copy(update=given), steps=state.steps)
    if "model" not in given:
        msg = "improve needs a base model to train; give --model BASE, as for touchstone train"
        raise SettingsError(msg)
    return State(inputs=Inputs(folder=str(Path.cwd()), **given))


def _train_args(options: argparse.Namespace) -> tuple[str, ...]:
    fields = [word for field in options.set or () for word in ("--set", field)]
    return (*fields, *(["--download"] if options.download else []))
