"""Stands in for `llamafactory-cli`: refuses what the real one would, then leaves what it leaves.

`llamafactory_arguments.txt` names every argument of LLaMA-Factory 0.9.5 on transformers 5.6.0 with its type or its choices, as read from
the dataclasses that its parser is made of. The real one refuses an unknown name too; it does not check types.
"""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path

import yaml

KNOWN = dict(line.split(": ") for line in (Path(__file__).parent / "llamafactory_arguments.txt").read_text().splitlines())
TYPES = {"int": int, "float": (int, float), "bool": bool, "str": str}


def problems(given):
    for name, value in given.items():
        kinds = KNOWN[name].split("|") if name in KNOWN else []
        if not kinds:
            yield f"unknown argument: {name}"
        elif not any(fits(value, kind) for kind in kinds):
            yield f"{name} is {value!r}, and may be {KNOWN[name]}"
    if given["stage"] != "sft" and given.get("mask_history"):
        yield "`mask_history` cannot be set as True except SFT."
    entry = json.loads((Path(given["dataset_dir"]) / "dataset_info.json").read_text())[given["dataset"]]
    if not (Path(given["dataset_dir"]) / entry["file_name"]).is_file():
        yield "the data are not there"
    if bool(entry.get("ranking")) != (given["stage"] == "dpo"):
        yield f"these data are not for {given['stage']}"
    if given.get("load_best_model_at_end") and given["save_steps"] % given["eval_steps"]:
        yield "--load_best_model_at_end requires the saving steps to be a round multiple of the evaluation steps"


def fits(value, kind):
    if kind not in TYPES:
        return value == kind
    return isinstance(value, TYPES[kind]) and (kind == "bool" or not isinstance(value, bool))


def main(command, path, *overrides):
    assert command == "train"
    given = yaml.safe_load(Path(path).read_text()) | {
        name: yaml.safe_load(value) for name, _, value in (text.partition("=") for text in overrides)
    }
    found = list(problems(given))
    if found:
        sys.exit("\n".join(found))
    sys.stdout.write("Welcome \x1b[31m to LLaMA Factory\n")
    sys.stdout.write(f"processes {os.environ['NPROC_PER_NODE']}, torchrun {os.environ.get('FORCE_TORCHRUN')}, {os.environ['PATH']}\n")
    output = Path(given["output_dir"])
    (output / "checkpoint-2").mkdir(parents=True, exist_ok=True)
    state = {"global_step": 2, "log_history": [{"step": 1, "loss": 2.0}, {"step": 2, "loss": 1.5}]}
    (output / "checkpoint-2" / "trainer_state.json").write_text(json.dumps(state))
    with (output / "trainer_log.jsonl").open("a") as log:
        for step in (3, 4) if "resumed" in os.environ.get("STANDIN", "") else (1, 2, 3, 4):
            values = {"current_steps": step, "total_steps": 4, "loss": 2.0 / step, "lr": 1e-4, "epoch": step / 2, "percentage": 25.0 * step}
            log.write(json.dumps(values) + "\n")
        log.write(json.dumps({"current_steps": 4, "total_steps": 4, "eval_loss": 0.4, "epoch": 2.0}) + "\nnot json\n[]\n")
    if "failing" in os.environ.get("STANDIN", ""):
        sys.exit("RuntimeError: it broke")
    for name in ("adapter_model.safetensors", "adapter_config.json", "tokenizer.json", "trainer_state.json", "all_results.json"):
        (output / name).write_text(name)


if __name__ == "__main__":
    main(*sys.argv[1:])
