"""Running a job: the checks, the folder of the result, and what is written there."""

from __future__ import annotations

import contextlib
import fcntl
import importlib
import importlib.metadata
import json
import time
from typing import TYPE_CHECKING, Any, Final, cast

from pytest_touchstone.errors import TrainingError
from pytest_touchstone.files import replace_file
from pytest_touchstone.train.curves import CURVES_FILE, draw_curves
from pytest_touchstone.train.process import RUN_FILE, last_checkpoint, steps_before
from pytest_touchstone.train.watch import Watch, duration

if TYPE_CHECKING:
    from collections.abc import Generator, Mapping
    from pathlib import Path
    from typing import TextIO

    from pytest_touchstone.train.job import BackendName
    from pytest_touchstone.train.plan import Backend, Plan

JOB_FILE: Final = "job.yaml"
RESULT_FILE: Final = "result.json"
LOCK_FILE: Final = ".lock"
RESULT_FORMAT: Final = "pytest-touchstone training 1"
# Where each backend is: a module, and the `Backend` in it.
_BACKENDS: Final[Mapping[BackendName, str]] = {
    "trl": "pytest_touchstone.train.backends:TRL",
    "unsloth": "pytest_touchstone.train.backends:UNSLOTH",
    "llamafactory": "pytest_touchstone.train.llamafactory:LLAMAFACTORY",
    "openai": "pytest_touchstone.train.hosted:OPENAI",
}


def find_backend(name: BackendName) -> Backend:
    """The backend of that name; its module is imported only now."""
    module, _, attribute = _BACKENDS[name].partition(":")
    return cast("Backend", getattr(importlib.import_module(module), attribute))


def check(plan: Plan, backend: Backend) -> list[str]:
    """Everything that keeps the run from starting: its folder, and what the backend finds."""
    part = plan.job.eval_part
    nothing = part and not plan.data.eval_lines(part)
    few = (
        [f"eval_part {part:g} keeps none of these few cases to measure the loss on; raise it, or leave it and patience out"]
        if nothing
        else []
    )
    return [*_output_problems(plan), *few, *backend.problems(plan)]


def run_job(plan: Plan, backend: Backend, out: TextIO) -> Mapping[str, Any]:
    """Train what was checked before, tell `out` how it goes, and return what `result.json` holds.

    Raises:
        TrainingError: there is no result; says why.
        KeyboardInterrupt: the user stopped it; `--resume` goes on.
    """
    plan.output.mkdir(parents=True, exist_ok=True)
    with _alone(plan.output):
        return _run(plan, backend, out)


@contextlib.contextmanager
def _alone(output: Path) -> Generator[None]:
    """Two processes that write one run would spoil both; the lock goes with whoever holds it, however that ends."""
    with (output / LOCK_FILE).open("wb") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            msg = f"{output}: another run is at work there; wait for its end, or give --output another folder"
            raise TrainingError(msg) from error
        yield


def _run(plan: Plan, backend: Backend, out: TextIO) -> Mapping[str, Any]:
    started = time.monotonic()
    checkpoint = last_checkpoint(plan.output) if plan.resume else None
    replace_file(plan.output / JOB_FILE, plan.job.to_yaml())
    replace_file(plan.output / RUN_FILE, json.dumps(_given(plan, checkpoint), indent=2).encode() + b"\n")
    watch = Watch(plan.output, out, before=steps_before(checkpoint) if checkpoint else ())
    if checkpoint:
        watch.note(f"going on from {checkpoint.name}")
    try:
        told = backend.train(plan, watch)
    finally:
        watch.close()
        problem = draw_curves(watch.steps, plan.output / CURVES_FILE)
    if problem:
        watch.note(problem)
    result = {
        **_result(plan, watch, told),
        "curves": None if problem else CURVES_FILE,
        "resumed_from": checkpoint.name if checkpoint else None,
        "duration_s": round(time.monotonic() - started, 3),
    }
    replace_file(plan.output / RESULT_FILE, json.dumps(result, indent=2, ensure_ascii=False).encode() + b"\n")
    return result


def read_result(output: Path) -> Mapping[str, Any]:
    """What a finished run left in its folder.

    Raises:
        TrainingError: there is none, or it is not ours.
    """
    path = output / RESULT_FILE
    try:
        held: object = json.loads(path.read_bytes())
    except (FileNotFoundError, NotADirectoryError) as error:
        msg = f"{output}: holds no finished run (no {RESULT_FILE}); run touchstone train --output {output}, or with --resume"
        raise TrainingError(msg) from error
    except ValueError:
        held = None
    if not isinstance(held, dict) or cast("dict[str, Any]", held).get("format") != RESULT_FORMAT:
        msg = f"{path}: is no result of the format {RESULT_FORMAT!r}; train again into another folder"
        raise TrainingError(msg)
    return cast("dict[str, Any]", held)


def is_finished(output: Path) -> bool:
    """Whether a run has its result there."""
    return (output / RESULT_FILE).is_file()


def _output_problems(plan: Plan) -> list[str]:
    output = plan.output
    if output.exists() and not output.is_dir():
        return [f"{output}: is no folder; give --output a folder, which may be new"]
    held = _read_given(output)
    if held is None:
        if output.is_dir() and any(path.name != LOCK_FILE for path in output.iterdir()):
            return [f"{output}: is not empty, and no run of ours is in it; give --output another folder"]
        return [f"{output}: holds no run that could be resumed; leave --resume out"] if plan.resume else []
    if not plan.resume:
        return [f"{output}: holds a run already; go on with it by --resume, or give --output another folder"]
    now = _given(plan, None)
    problems: list[str] = []
    changed = sorted(name for name in now["job"] if now["job"][name] != held.get("job", {}).get(name))
    if changed:
        problems.append(f"{output}: the run there has another {', '.join(changed)}; resume it with the same job ({output / JOB_FILE})")
    if now["data"]["sha256"] != held.get("data", {}).get("sha256"):
        problems.append(f"{output}: the run there learns from other data; export the same again, or start anew with another --output")
    return problems


def _read_given(output: Path) -> dict[str, Any] | None:
    try:
        held: object = json.loads((output / RUN_FILE).read_bytes())
    except (OSError, ValueError):
        return None
    return cast("dict[str, Any]", held) if isinstance(held, dict) else None


def _given(plan: Plan, checkpoint: Path | None) -> dict[str, Any]:
    """What the training process is given, and a later `--resume` compared with."""
    data = plan.data
    return {
        "job": plan.job.to_dict(),
        "data": {
            "file": str(data.file.resolve()),
            "sha256": data.sha256,
            "examples": len(data.lines),
            "eval_lines": data.eval_lines(plan.job.eval_part),
        },
        "checkpoint": str(checkpoint) if checkpoint else None,
    }


def _result(plan: Plan, watch: Watch, told: Mapping[str, Any]) -> dict[str, Any]:
    losses = [step.loss for step in watch.steps if step.loss is not None]
    measured = [step.eval_loss for step in watch.steps if step.eval_loss is not None]
    data = plan.data
    return {
        "format": RESULT_FORMAT,
        "backend": plan.job.backend,
        "method": plan.job.method,
        "base_model": plan.job.model,
        "seed": plan.job.seed,
        "lora_r": plan.job.lora.r,
        "data": {"file": str(data.file), "sha256": data.sha256, "examples": len(data.lines), "changed": data.changed},
        "loss": losses[-1] if losses else None,
        "eval_loss": measured[-1] if measured else None,
        **told,
        "versions": {"pytest-touchstone": importlib.metadata.version("pytest-touchstone"), **told.get("versions", {})},
    }


def summary(result: Mapping[str, Any], output: Path) -> list[str]:
    """A finished run in lines for a person."""
    loss = result.get("loss")
    parts = [f"loss {loss:.4f}"] if isinstance(loss, float) else []
    parts += [f"eval loss {result['eval_loss']:.4f}"] if isinstance(result.get("eval_loss"), float) else []
    parts += [f"{result['steps']} steps"] if "steps" in result else []
    lines = [
        f"trained in {duration(result['duration_s'])}: {', '.join(parts)}" if parts else f"trained in {duration(result['duration_s'])}"
    ]
    if result.get("model"):
        lines.append(f"the model is {result['model']}")
    lines += [f"{name}: {output / path}" for name, path in result.get("paths", {}).items()]
    if result.get("curves"):
        lines.append(f"curves: {output / result['curves']}")
    return lines
