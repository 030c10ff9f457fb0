"""LLaMA-Factory: its job file, made from ours, and its own command, run in the environment that the user names.

The names are those of LLaMA-Factory 0.9.5 (`hparams/`) and of the transformers that it takes (4.55 to 5.6). It reads the data by the
`dataset_info.json` of the export formats `llamafactory` and `llamafactory-preference`.
"""

from __future__ import annotations

import shlex
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, cast

from pytest_touchstone.errors import JobError
from pytest_touchstone.files import replace_file
from pytest_touchstone.train.formatted import read_format
from pytest_touchstone.train.process import CHECKPOINTS, LocalBackend, child_command

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from pytest_touchstone.train.job import Job, Method
    from pytest_touchstone.train.plan import Plan
    from pytest_touchstone.train.watch import Watch

YAML_FILE: Final = "llamafactory.yaml"
COMMAND: Final = "llamafactory-cli"
FORMATS: Final[Mapping[Method, str]] = {"sft": "llamafactory", "dpo": "llamafactory-preference"}
DATASETS: Final[Mapping[Method, str]] = {"sft": "touchstone", "dpo": "touchstone_preference"}
_MODULE: Final = "pytest_touchstone.train.llamafactory_run"


@dataclass(frozen=True, kw_only=True)
class LlamaFactoryBackend(LocalBackend):
    """`--backend llamafactory`: `llamafactory-cli train`, beside the interpreter that `--python` names."""

    module: str = _MODULE

    def problems(self, plan: Plan) -> list[str]:
        """As `Backend.problems`."""
        return [*_own_problems(plan), *super().problems(plan)]

    def command(self, plan: Plan) -> list[str]:
        """As `Backend.command`: the file, then the command."""
        told = [f"# {plan.output / YAML_FILE}", *_yaml(plan).decode().splitlines()]
        return [*told, f"$ {shlex.join([str(_cli(plan)), 'train', str(plan.output / YAML_FILE)])}"]

    def train(self, plan: Plan, watch: Watch) -> dict[str, Any]:
        """As `Backend.train`."""
        replace_file(plan.output / YAML_FILE, _yaml(plan))
        watch.note(f"LLaMA-Factory cuts what is longer than max_length ({plan.job.max_length} tokens), without a word")
        return super().train(plan, watch)

    def _command(self, plan: Plan) -> list[str]:
        given = [str(_cli(plan)), str(plan.output / YAML_FILE), plan.job.precision, str(plan.job.processes)]
        return [*child_command(plan.python), self.module, *given]


def arguments(job: Job, *, data: Path, output: Path) -> dict[str, Any]:
    """What LLaMA-Factory is given for a resolved job: `data` is the folder of the export's format, `output` that of the result.

    A learning rate, a batch and so on mean the same there. `precision: auto` is not in it: it depends on the GPU.
    """
    sft = job.method == "sft"
    given: dict[str, Any] = {
        "model_name_or_path": job.model,
        "stage": job.method,
        "do_train": True,
        "finetuning_type": "lora",
        "lora_rank": job.lora.r,
        "lora_alpha": int(job.lora.alpha),
        "lora_dropout": job.lora.dropout,
        "lora_target": "all" if job.lora.targets == ("all-linear",) else ",".join(job.lora.targets),
        "use_rslora": job.lora.rslora,
        "disable_gradient_checkpointing": not job.gradient_checkpointing,
        "dataset": DATASETS[job.method],
        "dataset_dir": str(data),
        "cutoff_len": job.max_length,
        "overwrite_cache": True,
        "output_dir": str(output / CHECKPOINTS),
        "per_device_train_batch_size": job.batch_size,
        "gradient_accumulation_steps": job.accumulate,
        "learning_rate": job.learning_rate,
        "num_train_epochs": job.epochs,
        "lr_scheduler_type": "constant_with_warmup" if job.schedule == "constant" else job.schedule,
        "warmup_ratio": job.warmup,
        "weight_decay": job.weight_decay,
        "max_grad_norm": job.max_grad_norm,
        "seed": job.seed,
        "logging_steps": job.log_every,
        "save_steps": job.save_every,
        "save_total_limit": 2,
        "report_to": "none",
    }
    if job.max_steps is not None:
        given["max_steps"] = job.max_steps
    if job.precision in {"bf16", "fp16"}:
        given[job.precision] = True
    if job.quantization == "4bit":
        given |= {"quantization_bit": 4, "quantization_method": "bnb", "quantization_type": "nf4", "double_quantization": True}
    # Without it, every answer of the conversation is trained, not only the target. The loader refuses it for pairs.
    given |= {"mask_history": True} if sft else {"pref_beta": job.beta, "pref_loss": "sigmoid"}
    own = {"template": job.llamafactory.template, "default_system": job.llamafactory.default_system}
    return {**given, **_measuring(job), **{name: value for name, value in own.items() if value is not None}}


def _measuring(job: Job) -> dict[str, Any]:
    if not job.eval_part:
        return {}
    given: dict[str, Any] = {
        "val_size": job.eval_part,
        "per_device_eval_batch_size": job.batch_size,
        "eval_strategy": "steps",
        "eval_steps": job.eval_every,
    }
    if job.patience is not None:
        best = {"load_best_model_at_end": True, "metric_for_best_model": "eval_loss", "greater_is_better": False}
        given |= {"early_stopping_steps": job.patience, **best, "save_steps": job.eval_every}
    return given


def _yaml(plan: Plan) -> bytes:
    import yaml

    data = (plan.data.folder / FORMATS[plan.job.method]).resolve()
    text: str = cast("Any", yaml).safe_dump(arguments(plan.job, data=data, output=plan.output), sort_keys=False, allow_unicode=True)
    return text.encode()


def _cli(plan: Plan) -> Path:
    # Not resolved: the interpreter of an environment is a link, and the command stands beside the link.
    return Path(plan.python).parent / COMMAND


def _own_problems(plan: Plan) -> Iterator[str]:
    cli = _cli(plan)
    if not cli.is_file():
        yield f"{cli}: is not there; name the Python of an environment that LLaMA-Factory is installed in by --python"
    if not float(plan.job.lora.alpha).is_integer():
        yield f"lora.alpha is {plan.job.lora.alpha:g}, and LLaMA-Factory takes whole numbers; round it"
    try:
        read_format(plan.data.folder, FORMATS[plan.job.method])
    except JobError as error:
        yield str(error)
    for name, value in arguments(plan.job, data=plan.data.folder.resolve(), output=plan.output).items():
        if isinstance(value, str) and "${" in value:
            yield f"{name} is {value!r}, and LLaMA-Factory puts something else in the place of what begins with '${{'; rename it"


LLAMAFACTORY: Final = LlamaFactoryBackend()
