"""Training in a process of its own: started, listened to, stopped, and spoken for when it dies."""

from __future__ import annotations

import contextlib
import json
import os
import shlex
import shutil
import signal
import subprocess
from collections import deque
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO, Final, cast

from pytest_touchstone.errors import TrainingError
from pytest_touchstone.text import shorten
from pytest_touchstone.train import checks
from pytest_touchstone.train.telling import REFUSED, STOPPED, told
from pytest_touchstone.train.watch import Step

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from pytest_touchstone.train.plan import Plan
    from pytest_touchstone.train.watch import Watch

RUN_FILE: Final = "run.json"
LOG_FILE: Final = "train.log"
CHECKPOINTS: Final = "checkpoints"
LAST_LINES: Final = 12
_CHILD: Final = Path(__file__).with_name("child.py")
# No library of a training process calls home.
_QUIET: Final = {
    "DISABLE_TELEMETRY": "1",
    "DO_NOT_TRACK": "1",
    "HF_HUB_DISABLE_TELEMETRY": "1",
    "UNSLOTH_DISABLE_STATISTICS": "1",
    "WANDB_MODE": "disabled",
}


@dataclass(frozen=True, kw_only=True)
class Ended:
    """How a process ended: its status as `subprocess` gives it (negative: a signal), its last lines, the events not for the watch.

    `interrupted` says that the user asked it to end.
    """

    status: int
    last: tuple[str, ...]
    events: Mapping[str, Mapping[str, Any]]
    interrupted: bool = False

    def describe(self) -> str:
        """How it ended and its last lines, to stand behind its name."""
        return f"{_ending(self.status)}{_quoted(self.last)}"


@dataclass(frozen=True, kw_only=True)
class LocalBackend:
    """A backend that trains on this machine, by a module that is run in the interpreter of the plan."""

    module: str

    def problems(self, plan: Plan) -> list[str]:
        """What keeps the job from running in that interpreter, on that machine."""
        environment = child_environment(plan)
        ended = run_child([*child_command(plan.python), "pytest_touchstone.train.probe", plan.job.model], environment)
        facts = ended.events.get("facts")
        if facts is None:
            return [f"{plan.python} cannot be used: it {ended.describe()}"]
        longest = max(map(len, plan.data.file.read_bytes().split(b"\n")))  # bytes: no tokenizer makes more tokens than these
        disk = next(folder for folder in (plan.output, *plan.output.parents) if folder.exists())
        return checks.problems_of(plan.job, facts, longest=longest, free_disk=shutil.disk_usage(disk).free)

    def command(self, plan: Plan) -> list[str]:
        """The command line of the process, and what is set in its environment."""
        shown = {name: value for name, value in child_environment(plan).items() if os.environ.get(name) != value}
        return [" ".join(f"{name}={shlex.quote(value)}" for name, value in sorted(shown.items())), shlex.join(self._command(plan))]

    def train(self, plan: Plan, watch: Watch) -> dict[str, Any]:
        """Train, and return what the process said of its result."""
        ended = run_child(self._command(plan), child_environment(plan), log=plan.output / LOG_FILE, watch=watch)
        if ended.status == REFUSED and "problems" in ended.events:
            raise TrainingError("\n".join(ended.events["problems"]["problems"]))
        if ended.status == STOPPED and "stopped" in ended.events:
            watch.note(f"stopped after step {ended.events['stopped']['step']}; --resume goes on from there")
            raise KeyboardInterrupt
        if ended.interrupted and (ended.status or "result" not in ended.events):
            raise KeyboardInterrupt
        if ended.status or "result" not in ended.events:
            raise TrainingError(_died(plan, ended))
        return {name: value for name, value in ended.events["result"].items() if name != "event"}

    def _command(self, plan: Plan) -> list[str]:
        argument = str(plan.output / RUN_FILE)
        if plan.job.processes == 1:
            return [*child_command(plan.python), self.module, argument]
        cpu = ["--cpu"] if plan.job.device == "cpu" else []
        launch = [plan.python, "-m", "accelerate.commands.launch", *cpu, "--num_machines", "1", "--num_processes", str(plan.job.processes)]
        return [*launch, "--mixed_precision", "no", "--dynamo_backend", "no", str(_CHILD), self.module, argument]


def child_command(python: str) -> list[str]:
    """What starts one of our modules in an interpreter: the module's name and its arguments come behind it."""
    return [python, str(_CHILD)]


def child_environment(plan: Plan) -> dict[str, str]:
    """The environment of a training process: quiet, offline unless the job says otherwise, with as many threads as it says."""
    environment = base_environment(download=plan.job.download)
    if plan.job.threads:
        environment |= {"OMP_NUM_THREADS": str(plan.job.threads), "MKL_NUM_THREADS": str(plan.job.threads)}
    if plan.job.device == "cpu":
        environment["CUDA_VISIBLE_DEVICES"] = ""
    return environment


def base_environment(*, download: bool) -> dict[str, str]:
    """The environment of any process that loads a model."""
    environment = {**os.environ, **_QUIET, "PYTHONSAFEPATH": "1", "PYTHONUNBUFFERED": "1", "TOKENIZERS_PARALLELISM": "false"}
    if not download:
        environment |= {"HF_HUB_OFFLINE": "1", "TRANSFORMERS_OFFLINE": "1", "HF_DATASETS_OFFLINE": "1"}
    return environment


def last_checkpoint(output: Path) -> Path | None:
    """The newest checkpoint that is whole: its state is written last, so one that can be read says that all is there."""
    found: dict[int, Path] = {}
    for state in (output / CHECKPOINTS).glob("checkpoint-*/trainer_state.json"):
        step = checkpoint_state(state.parent).get("global_step")
        if isinstance(step, int):
            found[step] = state.parent
    return found[max(found)] if found else None


def checkpoint_state(checkpoint: Path) -> Mapping[str, Any]:
    """What the trainer had logged when it wrote a checkpoint; empty where the file is torn."""
    try:
        held: object = json.loads((checkpoint / "trainer_state.json").read_bytes())
    except (OSError, ValueError):
        return {}
    return cast("Mapping[str, Any]", held) if isinstance(held, dict) else {}


def steps_before(checkpoint: Path) -> list[Step]:
    """The steps that a resumed run has behind it."""
    held: object = checkpoint_state(checkpoint).get("log_history")
    entries = cast("list[object]", held) if isinstance(held, list) else []
    steps = (Step.of(cast("Mapping[str, Any]", entry)) for entry in entries if isinstance(entry, dict))
    return [step for step in steps if step is not None]


@dataclass(kw_only=True)
class _Listener:
    """Sorts what a process says: events to the watch, all else to the log."""

    watch: Watch | None
    last: deque[str] = field(default_factory=lambda: deque[str](maxlen=LAST_LINES))
    events: dict[str, Any] = field(default_factory=dict[str, Any])

    def hear(self, line: bytes) -> bytes:
        """Take in a line; returns what of it belongs into the log."""
        printed, event = told(line)
        text = printed.decode("utf-8", "replace").rpartition("\r")[2].rstrip() if event else printed.decode("utf-8", "replace").rstrip()
        if text:
            self.last.append(shorten(text, 300))
        if event is not None:
            self._heed(event)
        return printed

    def _heed(self, event: Mapping[str, Any]) -> None:
        kind = event["event"]
        if self.watch is not None and kind in _HEEDED:
            _HEEDED[kind](self.watch, event)
        else:
            self.events[kind] = event


def _heed_step(watch: Watch, event: Mapping[str, Any]) -> None:
    step = Step.of(event)
    if step is not None:
        watch.step(step)


_HEEDED: Final[Mapping[str, Callable[[Watch, Mapping[str, Any]], None]]] = {
    "step": _heed_step,
    "total": lambda watch, event: watch.total(int(event["steps"])),
    "phase": lambda watch, event: watch.phase(str(event["text"])),
    "note": lambda watch, event: watch.note(str(event["text"])),
}


def run_child(
    command: Sequence[str],
    environment: Mapping[str, str],
    *,
    log: Path | None = None,
    watch: Watch | None = None,
    folder: Path | None = None,
) -> Ended:
    """Run a process to its end, in `folder` (None: the current one), and listen to it.

    Ctrl-C asks it to write a checkpoint and end, a second one kills it. Should this process die, the other one is told by the end of
    its standard input.

    Raises:
        TrainingError: it cannot be started.
    """
    listener = _Listener(watch=watch)
    try:
        process = subprocess.Popen(  # noqa: S603 - the interpreter is the user's choice, and everything else is ours
            command,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            env=environment,
            cwd=folder,
            start_new_session=True,  # Ctrl-C is for this process alone
        )
    except OSError as error:
        msg = f"{command[0]}: cannot be started: {error.strerror or error}; give --python the path of a Python interpreter"
        raise TrainingError(msg) from error
    with contextlib.ExitStack() as stack:
        file = stack.enter_context(log.open("ab")) if log else None
        stack.callback(_close, process)
        stack.callback(_kill, process)
        interrupted = _listen(process, listener, file)
        status = process.wait()
    return Ended(status=status, last=tuple(listener.last), events=listener.events, interrupted=interrupted)


def _listen(process: subprocess.Popen[bytes], listener: _Listener, file: BinaryIO | None) -> bool:
    """Listen until the process has no more to say; returns whether the user asked it to end."""
    asked = False
    assert process.stdin is not None
    # In a thread, because Ctrl-C would lose the line that is just being taken in.
    with ThreadPoolExecutor(max_workers=1) as pool:
        heard = pool.submit(_hear_all, process, listener, file)
        try:
            while True:
                try:
                    heard.result()
                except KeyboardInterrupt:
                    if asked:
                        raise
                    asked = True
                    process.stdin.close()
                    if listener.watch is not None:
                        listener.watch.note("stopping after this step; Ctrl-C once more stops at once")
                else:
                    return asked
        except BaseException:
            _kill(process)  # or the thread would listen for ever
            raise


def _hear_all(process: subprocess.Popen[bytes], listener: _Listener, file: BinaryIO | None) -> None:
    assert process.stdout is not None
    for line in process.stdout:
        printed = listener.hear(line)
        if file is not None and printed:
            file.write(printed)
            file.flush()


def _kill(process: subprocess.Popen[bytes]) -> None:
    """Leave nothing of it behind, whatever it has started itself."""
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()


def _close(process: subprocess.Popen[bytes]) -> None:
    for pipe in (process.stdin, process.stdout):
        if pipe is not None:
            with contextlib.suppress(OSError):
                pipe.close()


def _died(plan: Plan, ended: Ended) -> str:
    text = "\n".join(ended.last)
    fix = "the lines above should say why"
    if "out of memory" in text.lower() or ended.status == -signal.SIGKILL:
        fix = "memory ran out, most likely: lower batch_size (and raise accumulate) or max_length, set gradient_checkpointing: true"
    there = last_checkpoint(plan.output)
    again = f"--resume goes on from {there.name}" if there else "nothing was saved yet; start again with another --output"
    return f"the training process {ended.describe()}\n{fix}; {again}; all of its output is in {plan.output / LOG_FILE}"


def _ending(status: int) -> str:
    if status >= 0:
        return f"ended with status {status}"
    try:
        return f"was killed by {signal.Signals(-status).name}"
    except ValueError:
        return f"was killed by signal {-status}"


def _quoted(lines: Sequence[str]) -> str:
    return "".join(f"\n    {line}" for line in lines) if lines else ", without a word"
