"""Runs LLaMA-Factory's command in its environment, and tells what its log says: `python child.py ... CLI YAML PRECISION PROCESSES`.

Needs nothing but Python. The command is started as a process of its own, so it can be stopped when whoever started this one is gone.
"""

from __future__ import annotations

import contextlib
import importlib.metadata
import json
import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, cast

from pytest_touchstone.train.telling import STOPPED, stop_wanted, tell

if TYPE_CHECKING:
    import threading
    from collections.abc import Mapping

LOG: Final = "trainer_log.jsonl"  # llamafactory.extras.constants.TRAINER_LOG
LOOK_S: Final = 0.5
STOP_S: Final = 30.0
VERSIONS: Final = ("llamafactory", "torch", "transformers", "trl", "peft", "datasets", "accelerate", "bitsandbytes")
# What the folder of checkpoints holds beside the adapter and its tokenizer.
_NOT_ADAPTER: Final = frozenset(
    {LOG, "trainer_state.json", "train_results.json", "eval_results.json", "all_results.json", "training_args.bin"}
)
_PRECISION: Final = """
import torch
print("" if not torch.cuda.is_available() else "bf16" if torch.cuda.is_bf16_supported() else "fp16")
"""


class Tail:
    """What is added to LLaMA-Factory's log from now on; a line that is not whole yet is read the next time."""

    def __init__(self, path: Path) -> None:
        """Start at the end of the file, which need not be there yet."""
        self._path = path
        self._at = path.stat().st_size if path.exists() else 0
        self._total: int | None = None
        self.last: int = 0

    def tell(self) -> None:
        """Tell the steps that are new."""
        try:
            with self._path.open("rb") as file:
                file.seek(self._at)
                new = file.read()
        except FileNotFoundError:
            return
        whole = new[: new.rfind(b"\n") + 1]
        self._at += len(whole)
        for line in whole.splitlines():
            with contextlib.suppress(ValueError):
                entry: object = json.loads(line)
                if isinstance(entry, dict):
                    self._tell_entry(cast("dict[str, Any]", entry))

    def _tell_entry(self, entry: Mapping[str, Any]) -> None:
        total, step = entry.get("total_steps"), entry.get("current_steps")
        if isinstance(total, int) and total != self._total:
            self._total = total
            tell("total", steps=total)
        if isinstance(step, int):
            self.last = step
        names = {"step": "current_steps", "epoch": "epoch", "loss": "loss", "learning_rate": "lr", "eval_loss": "eval_loss"}
        tell("step", **{name: entry.get(key) for name, key in names.items()})


def main(cli: str, yaml_file: str, precision: str, processes: str) -> int:
    """Run the job of a YAML file to its end; returns the exit status."""
    stop = stop_wanted()
    output = Path(yaml_file).parent
    folder = output / "checkpoints"
    tail = Tail(folder / LOG)
    tell("phase", text="starting LLaMA-Factory")
    bin_folder = str(Path(cli).parent)
    environment = {**os.environ, "PATH": os.pathsep.join([bin_folder, os.environ.get("PATH", "")]), "NPROC_PER_NODE": processes}
    if int(processes) > 1:
        environment["FORCE_TORCHRUN"] = "1"
    command = [cli, "train", yaml_file, *_precision(precision)]
    process = subprocess.Popen(command, stdin=subprocess.DEVNULL, env=environment)  # noqa: S603 - the user's choice
    status = _wait(process, tail, stop)
    if stop.is_set() and status:
        tell("stopped", step=_saved(folder))
        return STOPPED
    if status:
        return status if status > 0 else 128 - status
    tell("phase", text="saving the adapter")
    take_adapter(folder, output / "adapter")
    versions = {name: version for name in VERSIONS if (version := _version(name))}
    tell("result", steps=tail.last, versions=versions, paths={"adapter": "adapter"})
    return 0


def take_adapter(folder: Path, target: Path) -> None:
    """Move the adapter and its tokenizer out of the folder of checkpoints; `target` is there whole or not at all."""
    made = target.with_name(f".{target.name}.tmp")
    shutil.rmtree(made, ignore_errors=True)
    made.mkdir()
    for path in sorted(folder.iterdir()):
        if path.is_file() and path.name not in _NOT_ADAPTER:
            shutil.copy2(path, made / path.name)
    shutil.rmtree(target, ignore_errors=True)
    made.replace(target)


def _wait(process: subprocess.Popen[bytes], tail: Tail, stop: threading.Event) -> int:
    while True:
        with contextlib.suppress(subprocess.TimeoutExpired):
            status = process.wait(LOOK_S)
            tail.tell()
            return status
        tail.tell()
        if stop.is_set():
            process.send_signal(signal.SIGINT)
            try:
                return process.wait(STOP_S)
            except subprocess.TimeoutExpired:
                process.kill()
                return process.wait()


def _precision(chosen: str) -> list[str]:
    """What `auto` means on this machine, as an argument behind the file's; nothing where the file says it, or for fp32."""
    if chosen != "auto":
        return []
    done = subprocess.run([sys.executable, "-c", _PRECISION], capture_output=True, text=True, check=False)  # noqa: S603 - our own code
    name = done.stdout.strip()
    return [f"{name}=true"] if done.returncode == 0 and name else []


def _saved(folder: Path) -> int:
    """The step of the newest checkpoint, 0 where there is none."""
    steps = [int(path.name.removeprefix("checkpoint-")) for path in folder.glob("checkpoint-*") if (path / "trainer_state.json").is_file()]
    return max(steps, default=0)


def _version(name: str) -> str | None:
    try:
        return importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return None


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
