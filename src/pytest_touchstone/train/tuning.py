"""What every local backend does in its own process: rows to tokens, the trainer of TRL, checkpoints, and the adapter.

Needs torch, transformers, datasets, peft and trl, which the caller has imported in the order that it needs. Nothing here is imported by
the command itself.
"""

from __future__ import annotations

import importlib.metadata
import json
import os
import shutil
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pytest_touchstone.train.rows import Prepared, Template, Tokens, batch_problems, prepare, wants_objects
from pytest_touchstone.train.telling import REFUSED, STOPPED, stop_wanted, tell

if TYPE_CHECKING:
    import threading
    from collections.abc import Callable, Sequence

VERSIONS = ("torch", "transformers", "trl", "peft", "datasets", "accelerate", "tokenizers", "bitsandbytes", "unsloth", "unsloth_zoo")
ANSWERS = {"sft": ("completion",), "dpo": ("chosen", "rejected")}


@dataclass(frozen=True, kw_only=True)
class Run:
    """What `run.json` says: the resolved job as plain data, the file of rows, the lines (from 1) to measure on, where to and from where."""

    job: dict[str, Any]
    data: Path
    eval_lines: frozenset[int]
    output: Path
    checkpoint: str | None

    @classmethod
    def read(cls, path: Path) -> Run:
        """The run of a file that the command wrote."""
        held = json.loads(path.read_bytes())
        return cls(
            job=held["job"],
            data=Path(held["data"]["file"]),
            eval_lines=frozenset(held["data"]["eval_lines"]),
            output=path.parent,
            checkpoint=held["checkpoint"],
        )

    @property
    def cuda(self) -> bool:
        """Whether it runs on a GPU."""
        import torch

        return self.job["device"] != "cpu" and torch.cuda.is_available()

    @property
    def precision(self) -> str:
        """`fp32`, `bf16` or `fp16`."""
        import torch

        chosen: str = self.job["precision"]
        if chosen != "auto":
            return chosen
        return "fp32" if not self.cuda else "bf16" if torch.cuda.is_bf16_supported() else "fp16"


def main_process() -> bool:
    """Whether this is the one process, or the first of several, that tells and writes."""
    return os.environ.get("RANK", "0") == "0"


def say(event: str, **fields: Any) -> None:
    """Tell, once for all processes of a run."""
    if main_process():
        tell(event, **fields)


def refuse(problems: Sequence[str]) -> None:
    """End this process: the job cannot be trained as it is."""
    say("problems", problems=list(problems))
    sys.exit(REFUSED)


def main(load: Callable[[Run], tuple[Any, Callable[[], Any]]], finish: Callable[[Run, Any, Any], dict[str, str]]) -> None:
    """Train the run of the file that the command line names.

    `load` gives the tokenizer and what makes the model, `finish` writes what else the job asks for and returns paths inside the output.
    """
    import torch
    import transformers

    run = Run.read(Path(sys.argv[1]))
    stop = stop_wanted()
    if run.job["threads"]:
        torch.set_num_threads(run.job["threads"])
    transformers.set_seed(run.job["seed"])
    say("phase", text=f"loading {run.job['model']}")
    tokenizer, make_model = load(run)
    template = _template(run, tokenizer)
    prepared, measured = _prepared(run, template)
    model = make_model()
    transformers.set_seed(run.job["seed"])  # again: loading may have drawn numbers, and the adapter's start shall not depend on it
    trainer = _trainer(run, model, tokenizer, prepared, measured, stop)
    problems = _first_batch(run, trainer, prepared, template)
    if problems:
        refuse(problems)
    say("phase", text="training")
    outcome = trainer.train(resume_from_checkpoint=run.checkpoint)
    if stop.is_set() and trainer.state.global_step < trainer.state.max_steps:
        say("stopped", step=trainer.state.global_step)
        sys.exit(STOPPED)
    say("phase", text="saving the adapter")
    _save(run, trainer, tokenizer)
    paths = {"adapter": "adapter"}
    if main_process():
        paths |= finish(run, trainer.model, tokenizer)
    say(
        "result",
        steps=trainer.state.global_step,
        total_steps=trainer.state.max_steps,
        epochs=trainer.state.epoch,
        mean_loss=outcome.training_loss,
        best_step=trainer.state.best_global_step,
        best_eval_loss=trainer.state.best_metric,
        trained=len(prepared.rows),
        measured=len(measured.rows),
        dropped=list(prepared.dropped + measured.dropped),
        longest=max(prepared.longest, measured.longest),
        device=torch.cuda.get_device_name() if run.cuda else "cpu",
        precision=run.precision,
        threads=torch.get_num_threads(),
        versions={name: version for name in VERSIONS if (version := _version(name))},
        paths=paths,
    )


def _version(name: str) -> str | None:
    try:
        return importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return None


def _template(run: Run, tokenizer: Any) -> Template:
    if run.job["chat_template"]:
        tokenizer.chat_template = Path(run.job["chat_template"]).read_text(encoding="utf-8")
    if not tokenizer.chat_template:
        what = f"{run.job['model']} has no chat template, so it cannot be shown messages"
        refuse([f"{what}; use its instruct variant, or give chat_template"])
    if tokenizer.eos_token_id is None:
        refuse([f"the tokenizer of {run.job['model']} has no eos_token, so the model cannot learn to end; set it in tokenizer_config.json"])
    if tokenizer.pad_token_id is None:
        tokenizer.pad_token = tokenizer.eos_token  # what is padded is never trained, so an end token does no harm there

    def render(messages: Any, *, tools: Any, add_generation_prompt: bool) -> str:
        return tokenizer.apply_chat_template(messages, tools=tools, add_generation_prompt=add_generation_prompt, tokenize=False)

    def tokenize(text: str) -> list[int]:
        return tokenizer(text, add_special_tokens=False)["input_ids"]

    return Template(
        render=render, tokenize=tokenize, stops=_stops(run, tokenizer), eos=tokenizer.eos_token_id, objects=wants_objects(render)
    )


def _stops(run: Run, tokenizer: Any) -> frozenset[int]:
    """Where generation ends: the tokenizer's end token, and those that the model's generation config names."""
    from transformers import GenerationConfig

    try:
        ends = GenerationConfig.from_pretrained(run.job["model"]).eos_token_id
    except (OSError, ValueError):
        ends = None
    named = ends if isinstance(ends, list) else [] if ends is None else [ends]
    return frozenset([tokenizer.eos_token_id, *named])


def _prepared(run: Run, template: Template) -> tuple[Prepared, Prepared]:
    """The rows to train and those to measure on; ends this process where one of them cannot be used."""
    lines = enumerate(run.data.read_bytes().removesuffix(b"\n").split(b"\n"), 1)
    rows = [(number, json.loads(line)) for number, line in lines]
    parts = [[row for row in rows if (row[0] in run.eval_lines) is measured] for measured in (False, True)]
    job, answers = run.job, ANSWERS[run.job["method"]]
    prepared, measured = (
        prepare(part, answers=answers, template=template, max_length=job["max_length"], too_long=job["too_long"]) for part in parts
    )
    problems = [*prepared.problems, *measured.problems]
    if not prepared.rows and not problems:
        problems.append("no example is left to train on; raise max_length, or lower eval_part")
    if problems:
        refuse(problems)
    if left := len(prepared.dropped) + len(measured.dropped):
        say("note", text=f"{left} of {len(rows)} examples left out: more than max_length {run.job['max_length']} tokens")
    if ended := prepared.ended + measured.ended:
        say("note", text=f"the chat template does not end {ended} answers; the end token was added, so that the model learns to stop")
    return prepared, measured


def _trainer(run: Run, model: Any, tokenizer: Any, prepared: Prepared, measured: Prepared, stop: threading.Event) -> Any:
    from transformers import EarlyStoppingCallback
    from trl import DPOConfig, SFTConfig, SFTTrainer

    job, sft = run.job, run.job["method"] == "sft"
    evaluates = bool(measured.rows)
    best = evaluates and job["patience"] is not None
    options: dict[str, Any] = {
        "output_dir": str(run.output / "checkpoints"),
        "per_device_train_batch_size": job["batch_size"],
        "per_device_eval_batch_size": job["batch_size"],
        "gradient_accumulation_steps": job["accumulate"],
        "num_train_epochs": job["epochs"],
        "max_steps": job["max_steps"] or -1,
        "learning_rate": job["learning_rate"],
        "lr_scheduler_type": job["schedule"] if job["schedule"] != "constant" or not job["warmup"] else "constant_with_warmup",
        "warmup_steps": job["warmup"],
        "weight_decay": job["weight_decay"],
        "max_grad_norm": job["max_grad_norm"],
        "optim": "adamw_8bit" if job["backend"] == "unsloth" and run.cuda else "adamw_torch",
        "seed": job["seed"],
        "data_seed": job["seed"],
        "bf16": run.precision == "bf16",
        "fp16": run.precision == "fp16",
        "use_cpu": not run.cuda,
        "gradient_checkpointing": job["gradient_checkpointing"],
        "max_length": None,
        "logging_steps": job["log_every"],
        "logging_nan_inf_filter": False,
        "save_strategy": "steps",
        "save_steps": job["eval_every"] if best else job["save_every"],
        "save_total_limit": 2,
        "eval_strategy": "steps" if evaluates else "no",
        "eval_steps": job["eval_every"] if evaluates else None,
        "load_best_model_at_end": best,
        "metric_for_best_model": "eval_loss" if best else None,
        "report_to": "none",
        "disable_tqdm": True,
        "dataloader_pin_memory": run.cuda,
    }
    config = SFTConfig(**options) if sft else DPOConfig(beta=job["beta"], **options)
    callbacks = [_telling(stop), *([EarlyStoppingCallback(early_stopping_patience=job["patience"])] if best else [])]
    trainer_class = SFTTrainer if sft else _pairs_trainer()
    trainer = trainer_class(
        model=model,
        args=config,
        train_dataset=_dataset(prepared, sft=sft),
        eval_dataset=_dataset(measured, sft=sft) if evaluates else None,
        processing_class=tokenizer,
        peft_config=None if hasattr(model, "peft_config") else _peft_config(job),
        callbacks=callbacks,
    )
    for parameter in trainer.model.parameters():
        if parameter.requires_grad:  # TRL rounds adapters of 4-bit models to bf16; a resumed run would not, and small steps would be lost
            parameter.data = parameter.data.float()
    return trainer


def _peft_config(job: dict[str, Any]) -> Any:
    from peft import LoraConfig

    lora = job["lora"]
    targets = "all-linear" if lora["targets"] == ["all-linear"] else lora["targets"]
    return LoraConfig(
        r=lora["r"],
        lora_alpha=lora["alpha"],
        lora_dropout=lora["dropout"],
        target_modules=targets,
        use_rslora=lora["rslora"],
        bias="none",
        task_type="CAUSAL_LM",
    )


def _pairs_trainer() -> Any:
    from trl import DPOTrainer

    class PairsTrainer(DPOTrainer):
        """Takes rows that are tokens already; TRL's own way would cut prompts where a template shows them differently."""

        def _prepare_dataset(self, dataset: Any, *_: Any, **__: Any) -> Any:
            return dataset

    return PairsTrainer


def _dataset(prepared: Prepared, *, sft: bool) -> Any:
    """Rows of tokens, which TRL takes as they are: with labels for SFT, as prompt and two answers for DPO."""
    from datasets import Dataset

    if sft:
        made = [made for _, (made,) in prepared.rows]
        return Dataset.from_dict(
            {
                "input_ids": [[*tokens.prompt, *tokens.completion] for tokens in made],
                "labels": [[-100] * len(tokens.prompt) + list(tokens.completion) for tokens in made],
            }
        )
    pairs = [made for _, made in prepared.rows]
    return Dataset.from_dict(
        {
            "prompt_ids": [list(chosen.prompt) for chosen, _ in pairs],
            "chosen_ids": [list(chosen.completion) for chosen, _ in pairs],
            "rejected_ids": [list(rejected.completion) for _, rejected in pairs],
        }
    )


def _telling(stop: threading.Event) -> Any:
    from transformers import TrainerCallback

    class Telling(TrainerCallback):
        """Tells each step, and ends after the current one when it is asked to."""

        def on_train_begin(self, args: Any, state: Any, control: Any, **_: Any) -> None:
            say("total", steps=state.max_steps)

        def on_log(self, args: Any, state: Any, control: Any, logs: Any = None, **_: Any) -> None:
            say("step", step=state.global_step, **{name: _plain(value) for name, value in (logs or {}).items() if name != "step"})

        def on_step_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
            if _any_process(stop.is_set()) and state.global_step < state.max_steps:
                control.should_save = True
                control.should_training_stop = True

    return Telling()


def _any_process(wanted: bool) -> bool:
    """Whether any process of the run is asked to stop: all have to end at the same step."""
    import torch

    if not torch.distributed.is_available() or not torch.distributed.is_initialized():
        return wanted
    device = "cuda" if torch.distributed.get_backend() == "nccl" else "cpu"
    flag = torch.tensor(float(wanted), device=device)
    torch.distributed.all_reduce(flag, torch.distributed.ReduceOp.MAX)
    return bool(flag.item())


def _plain(value: Any) -> Any:
    return value if isinstance(value, (int, float, str)) else None


def _first_batch(run: Run, trainer: Any, prepared: Prepared, template: Template) -> list[str]:
    """What is wrong with the first examples as the trainer itself batches them."""
    count = min(run.job["batch_size"], len(prepared.rows))
    batch = trainer.data_collator([trainer.train_dataset[index] for index in range(count)])
    rows: list[tuple[Tokens, ...]] = [made for _, made in prepared.rows[:count]]
    if run.job["method"] == "sft":
        return batch_problems(batch["labels"].tolist(), [made for (made,) in rows], template.stops)
    labels = [
        [token if trained else -100 for token, trained in zip(ids, mask, strict=True)]
        for ids, mask in zip(batch["input_ids"].tolist(), batch["completion_mask"].tolist(), strict=True)
    ]
    expected = [chosen for chosen, _ in rows] + [rejected for _, rejected in rows]
    return batch_problems(labels, expected, template.stops)


def _save(run: Run, trainer: Any, tokenizer: Any) -> None:
    """Write the adapter and the tokenizer it was trained with; the folder is there whole or not at all."""
    final, made = run.output / "adapter", run.output / ".adapter.tmp"
    if main_process():
        shutil.rmtree(made, ignore_errors=True)
    trainer.save_model(str(made))
    if main_process():
        tokenizer.save_pretrained(made)
        (made / "training_args.bin").unlink(missing_ok=True)  # a pickle that nobody needs
        replace_folder(made, final)


def replace_folder(made: Path, final: Path) -> None:
    """Give a finished folder its name; an older one of that name is removed first."""
    if final.exists():
        shutil.rmtree(final)
    made.rename(final)
