"""`touchstone train` and `touchstone serve`: a job from an export, a file and the command line, and its result behind an endpoint."""

from __future__ import annotations

import contextlib
import signal
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pytest_touchstone.errors import TrainingError
from pytest_touchstone.text import visible

if TYPE_CHECKING:
    import argparse
    from collections.abc import Generator, Iterator

    from pytest_touchstone.train.job import Override
    from pytest_touchstone.train.plan import Backend, Plan


def add_commands(commands: Any) -> None:  # noqa: ANN401 - argparse keeps the type of subparsers to itself
    """Add the commands to those of `touchstone`."""
    train = commands.add_parser(
        "train",
        help="Train a model on an export.",
        description="Train a model on what pytest --llm-export wrote. Fields of the job file are given on the command line by --set, too.",
    )
    train.add_argument("data", type=Path, metavar="DIR", help="The folder of an export.")
    train.add_argument(
        "--output", type=Path, required=True, metavar="OUT", help="The folder of the result; new, or that of a run to --resume."
    )
    train.add_argument("--backend", metavar="NAME", help="trl, unsloth, llamafactory or openai. Default: that of the job file.")
    train.add_argument("--model", metavar="BASE", help="The base model: a folder, a name on the Hugging Face hub, or OpenAI's name.")
    train.add_argument("--method", metavar="NAME", help="sft (default) or dpo.")
    train.add_argument("--seed", metavar="N", help="Default: 3407.")
    train.add_argument("--set", action="append", default=[], metavar="FIELD=VALUE", help="Any field of the job: --set lora.r=32")
    train.add_argument("--config", type=Path, metavar="FILE", help="A job file (YAML). What the command line says wins.")
    train.add_argument(
        "--python", default=sys.executable, metavar="PATH", help="The Python that has the training libraries. Default: this one."
    )
    train.add_argument("--resume", action="store_true", help="Go on with the run in OUT from its last checkpoint.")
    train.add_argument("--dry-run", action="store_true", help="Check everything, show job and command; train nothing, write nothing.")
    train.add_argument("--download", action="store_true", help="Let a base model that is not on this machine be downloaded.")
    train.add_argument("--allow-changed-data", action="store_true", help="Train on an export that was edited by hand.")
    train.add_argument("--force", action="store_true", help="Start although the checks object.")
    train.set_defaults(run=_train)
    serve = commands.add_parser(
        "serve",
        help="Serve a trained model as OpenAI does.",
        description="Put what touchstone train made behind an OpenAI-compatible endpoint, until Ctrl-C: by vLLM where there is a GPU and"
        " vLLM is installed, else by transformers serve. For a model that its provider keeps, print its name.",
    )
    serve.add_argument("output", type=Path, metavar="OUT", help="The folder of a finished run.")
    serve.add_argument("--host", default="127.0.0.1", help="Where to listen. Default: 127.0.0.1, for this machine alone.")
    serve.add_argument("--port", type=int, default=8000, metavar="N", help="Default: 8000; 0 takes a free one.")
    serve.add_argument("--name", metavar="NAME", help="What requests call the model. Default: the name of the folder OUT.")
    serve.add_argument("--python", default=sys.executable, metavar="PATH", help="The Python that has the engine. Default: this one.")
    serve.set_defaults(run=_serve)


def _train(options: argparse.Namespace) -> int:
    from pytest_touchstone.train import run
    from pytest_touchstone.train.data import read_data
    from pytest_touchstone.train.job import OWN_FORMAT, load_job
    from pytest_touchstone.train.plan import Plan

    job = load_job(options.config, tuple(_overrides(options))).resolved()
    # A backend with a format of its own reads that, made from the examples of train.jsonl and from nothing else.
    data = read_data(options.data, "sft" if job.backend in OWN_FORMAT else job.method, allow_changed=options.allow_changed_data)
    output = options.output.absolute()
    if options.resume and run.is_finished(output):
        print(f"{options.output}: the run is finished; there is nothing to resume")
        return 0
    plan = Plan(job=job, data=data, output=output, python=options.python, resume=options.resume)
    backend = run.find_backend(job.backend)
    for note in data.notes:
        print(visible(f"note: {note}"))
    problems = run.check(plan, backend)
    if options.dry_run:
        _show(plan, backend)
    if problems and not options.force:
        raise TrainingError("\n".join(problems))
    for problem in problems:
        print(visible(f"note: {problem}"))
    if options.dry_run:
        return 0
    print(visible(_headline(plan)))
    with stopped_by_signal():
        result = run.run_job(plan, backend, sys.stdout)
    for line in run.summary(result, options.output):
        print(visible(line))
    return 0


def _serve(options: argparse.Namespace) -> int:
    from pytest_touchstone.train.run import read_result
    from pytest_touchstone.train.serve import NAME, Serving, free_port, serve

    result = read_result(options.output)
    if result.get("model"):
        print(visible(f"{result['model']} is kept by its provider; give your app this name"))
        return 0
    output = options.output.absolute()
    name = options.name or output.name
    if not NAME.fullmatch(name):
        msg = f"--name {name}: cannot be served under that name; use letters, digits, '.', '_' and '-'"
        raise TrainingError(msg)
    port = free_port(options.host, options.port)
    with stopped_by_signal(), contextlib.suppress(KeyboardInterrupt):
        serve(Serving(output=output, result=result, name=name, host=options.host, port=port, python=options.python), _say)
    print("stopped")
    return 0


def _say(text: str) -> None:
    print(visible(text), flush=True)


@contextlib.contextmanager
def stopped_by_signal() -> Generator[None]:
    """A termination (SIGTERM) ends what runs as Ctrl-C does: in order."""

    def interrupt(*_: object) -> None:
        raise KeyboardInterrupt

    before = signal.signal(signal.SIGTERM, interrupt)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


def _overrides(options: argparse.Namespace) -> Iterator[Override]:
    from pytest_touchstone.train.job import Override, read_value

    for name in ("backend", "model", "method", "seed"):
        if getattr(options, name) is not None:
            yield Override(field=name, value=getattr(options, name), option=f"--{name}")
    if options.download:
        yield Override(field="download", value=True, option="--download")
    for text in options.set:
        field, equals, value = text.partition("=")
        if not equals or not field.strip():
            msg = f"--set {text}: is no FIELD=VALUE; write --set lora.r=32"
            raise TrainingError(msg)
        yield Override(field=field.strip(), value=read_value(value), option=f"--set {text}")


def _headline(plan: Plan) -> str:
    measured = len(plan.data.eval_lines(plan.job.eval_part))
    beside = f", {measured} of them to measure the loss on" if measured else ""
    return f"{plan.job.backend} {plan.job.method}: {plan.job.model} on {len(plan.data.lines)} examples{beside}"


def _show(plan: Plan, backend: Backend) -> None:
    from pytest_touchstone.train.job import OWN_FORMAT

    print(visible(_headline(plan)))
    print(visible(plan.job.to_yaml().decode()), end="")
    for line in backend.command(plan):
        print(visible(line if plan.job.backend in OWN_FORMAT else f"$ {line}"))
