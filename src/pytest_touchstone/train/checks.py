"""Checks before a run starts: facts about an interpreter and its machine against what the job needs. Pure: facts in, sentences out."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final, cast

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from pytest_touchstone.train.job import Job

GIB: Final = 1 << 30
_TRL: Final = ("torch", "transformers", "datasets", "peft", "trl")
_NEEDED: Final = {"trl": _TRL, "unsloth": (*_TRL, "bitsandbytes", "unsloth", "unsloth_zoo"), "llamafactory": ("torch", "llamafactory")}
_OLDEST: Final = {"trl": "1.14", "peft": "0.17", "datasets": "4.7", "transformers": "5", "unsloth": "2026.10"}
_INSTALL: Final = {
    "trl": "pip install 'pytest-touchstone[train]'",
    "unsloth": "pip install 'pytest-touchstone[unsloth]'",
    "llamafactory": "pip install llamafactory",
}


@dataclass(frozen=True, kw_only=True)
class Estimate:
    """What a job needs at its peak, in bytes: the base model, the adapter with its gradients and optimizer, and one batch at work."""

    weights: int
    adapter: int
    batch: int

    @property
    def total(self) -> int:
        """All of it, with half a GiB for the libraries themselves."""
        return self.weights + self.adapter + self.batch + GIB // 2

    def __str__(self) -> str:
        """Render as `5.2 GiB (model 3.1, adapter 0.5, batch 1.1)`."""
        parts = ", ".join(
            f"{name} {getattr(self, field) / GIB:.1f}" for name, field in (("model", "weights"), ("adapter", "adapter"), ("batch", "batch"))
        )
        return f"{self.total / GIB:.1f} GiB ({parts})"


def problems_of(job: Job, facts: Mapping[str, Any], *, longest: int, free_disk: int) -> list[str]:
    """Everything that keeps the job from running there, each with how to fix it.

    `facts` are those of `probe`, `longest` bounds the tokens of an example, `free_disk` is in bytes.
    """
    return [
        *_library_problems(job, facts),
        *_device_problems(job, facts),
        *_model_problems(job, facts),
        *_space_problems(job, facts, longest=longest, free_disk=free_disk),
    ]


def _library_problems(job: Job, facts: Mapping[str, Any]) -> Iterator[str]:
    versions: Mapping[str, str | None] = facts["versions"]
    if facts["torch_error"] and versions["torch"]:
        yield f"torch {versions['torch']} cannot be imported ({facts['torch_error']}); install it again"
    needed = (
        *_NEEDED[job.backend],
        *(["bitsandbytes"] if job.quantization == "4bit" else []),
        *(["accelerate"] if job.processes > 1 else []),
    )
    missing = [name for name in dict.fromkeys(needed) if not versions.get(name)]
    if missing:
        yield f"not installed in that Python: {', '.join(missing)}; {_INSTALL[job.backend]} there, or name another one with --python"
    for name, oldest in _OLDEST.items():
        held = versions.get(name)
        if held and name in needed and _numbers(held) < _numbers(oldest):
            yield f"{name} {held} is too old; pip install '{name}>={oldest}'"
    trl, torch, vision = versions.get("trl"), versions.get("torch"), versions.get("torchvision")
    if "trl" in needed and trl and _numbers(trl) >= (1, 15) and not _on_gpu(job, facts):
        yield f"trl {trl} does not train on a CPU; pip install 'trl>=1.14,<1.15'"
    if job.backend == "unsloth" and vision and torch and _build(torch) == "cpu" and _build(vision) != "cpu":
        what = f"torchvision {vision} was built for a GPU and torch {torch} for a CPU, so Unsloth cannot be imported"
        yield f"{what}; pip uninstall torchvision, or install it from the place where torch came from"
    for name in ("torchvision", "torchaudio") if job.backend == "llamafactory" and torch and _build(torch) == "cpu" else ():
        held = versions.get(name)
        if held and _build(held) != "cpu":
            what = f"{name} {held} was built for a GPU and torch {torch} for a CPU, so LLaMA-Factory cannot be imported"
            yield f"{what}; install it from the place where torch came from"


def _device_problems(job: Job, facts: Mapping[str, Any]) -> Iterator[str]:
    gpus = len(facts["gpus"])
    if job.device == "cuda" and not gpus:
        yield "device is cuda, and torch sees no GPU; set device: cpu, or install a torch built for it (see pytorch.org)"
    if job.processes > 1 and _on_gpu(job, facts) and job.processes > gpus:
        yield f"processes is {job.processes}, and torch sees {gpus} {'GPU' if gpus == 1 else 'GPUs'}; set processes to at most {gpus}"
    if job.precision == "bf16" and _on_gpu(job, facts) and not facts["bf16"]:
        yield "precision is bf16, which this GPU does not have; set precision: fp16"
    if job.precision == "fp16" and not _on_gpu(job, facts):
        yield "precision is fp16, which does not train on a CPU; set precision: fp32 or bf16"
    if job.gguf and not job.download:
        yield "gguf is written by llama.cpp, which Unsloth downloads and builds; say --download, or convert the merged model"
    if job.gguf and job.quantization == "4bit" and not _on_gpu(job, facts):
        yield "gguf cannot be written from a 4-bit base on a CPU; set merge: true and convert that yourself, or quantization: none"


def _model_problems(job: Job, facts: Mapping[str, Any]) -> Iterator[str]:
    model: Mapping[str, Any] = facts["model"]
    if not model["folder"]:
        if not job.download:
            what = f"the base model {job.model!r} is no folder here, and not in the cache of the Hugging Face hub"
            yield f"{what}; correct its name, or let it be downloaded with --download"
    elif not model["config"]:
        yield f"{model['folder']}: is no model: it has no config.json that can be read; give the folder of a transformers model"
    elif not model["weights"]:
        yield f"{model['folder']}: holds no weights (*.safetensors); download the model in full"


def _space_problems(job: Job, facts: Mapping[str, Any], *, longest: int, free_disk: int) -> Iterator[str]:
    needs = estimate(job, facts, longest=longest)
    if needs is None:
        return
    gpu = _on_gpu(job, facts)
    free: int | None = min(entry["free"] for entry in facts["gpus"]) if gpu else facts["memory"]
    processes = 1 if gpu else job.processes
    if free is not None and needs.total * processes > free:
        what = f"needs about {needs} of memory{f' in each of {processes} processes' if processes > 1 else ''}"
        less = "lower batch_size (and raise accumulate) or max_length, set gradient_checkpointing: true"
        more = "" if job.quantization == "4bit" else ", or quantization: 4bit"
        yield f"{what}, and {free / GIB:.1f} GiB {'of the GPU' if gpu else ''} are free; {less}{more}".replace("  ", " ")
    disk = _disk(job, facts, needs)
    if disk > free_disk:
        what = f"needs about {disk / GIB:.1f} GiB on disk, and {free_disk / GIB:.1f} GiB are free there"
        yield f"{what}; choose another --output, or make room"


def estimate(job: Job, facts: Mapping[str, Any], *, longest: int) -> Estimate | None:
    """The memory that a job needs, None where the model's configuration does not say enough.

    Weights: 4 bytes a number for fp32, 2 for 16 bit, 0.6 for NF4 with its constants, where embeddings stay in 16 bit. Adapter: 16 bytes
    a number (weight, gradient, two moments of Adam, in fp32). Batch: the activations of a transformer layer after Korthikanti et al. 2022
    (arXiv:2205.05198, 34 bytes a token and hidden unit in 16 bit; 2 with checkpointing, and one layer at work), attention without its
    scores, and the logits with their gradient in fp32.
    """
    model: Mapping[str, Any] = facts["model"]
    shape = _shape(model.get("config"))
    if shape is None:
        return None
    hidden, inner, layers, vocabulary = shape
    parameters: int = model.get("parameters") or layers * (4 * hidden * hidden + 3 * hidden * inner) + 2 * vocabulary * hidden
    embeddings = min(2 * vocabulary * hidden, parameters)
    width = 2 if job.precision in {"bf16", "fp16"} or (job.precision == "auto" and _on_gpu(job, facts)) else 4
    packed = job.quantization == "4bit"
    weights = int((parameters - embeddings) * 0.6 + embeddings * 2) if packed else parameters * width
    adapter = 16 * _adapter_numbers(job, hidden, inner, layers)
    tokens = job.batch_size * min(longest, job.max_length)
    layer = 17 * width * tokens * hidden
    activations = 2 * tokens * hidden * layers + layer if job.gradient_checkpointing else layer * layers
    return Estimate(weights=weights, adapter=adapter, batch=activations + 8 * tokens * vocabulary)


def _adapter_numbers(job: Job, hidden: int, inner: int, layers: int) -> int:
    """Of all linear layers: four of the attention, three of the feed-forward part."""
    return job.lora.r * layers * (4 * 2 * hidden + 3 * (hidden + inner))


def _disk(job: Job, facts: Mapping[str, Any], needs: Estimate) -> int:
    """Three checkpoints (two kept, one being written) and the adapter; a 16-bit model and its GGUF where they are asked for."""
    parameters: int = facts["model"].get("parameters") or needs.weights // 2
    adapter = needs.adapter // 16 * 4
    whole = 2 * parameters
    return 3 * 3 * adapter + adapter + (whole if job.merge else 0) + (2 * whole if job.gguf else 0)


def _shape(config: object) -> tuple[int, int, int, int] | None:
    """Hidden size, inner size, layers and vocabulary of a model's configuration."""
    if not isinstance(config, dict):
        return None
    outer = cast("dict[str, Any]", config)
    inner = cast("dict[str, Any]", outer["text_config"]) if isinstance(outer.get("text_config"), dict) else outer
    values = [inner.get(name, outer.get(name)) for name in ("hidden_size", "intermediate_size", "num_hidden_layers", "vocab_size")]
    if not all(isinstance(value, int) and value > 0 for value in values):
        return None
    hidden, width, layers, vocabulary = cast("list[int]", values)
    return hidden, width, layers, vocabulary


def _on_gpu(job: Job, facts: Mapping[str, Any]) -> bool:
    return job.device != "cpu" and bool(facts["gpus"])


def _numbers(version: str) -> tuple[int, ...]:
    """The numbers that a version begins with: enough to tell old from new."""
    return tuple(int(part) for part in re.findall(r"\d+", version.partition("+")[0])[:3])


def _build(version: str) -> str:
    """What a version was built for, empty where it does not say: torch names the CPU, and nothing on PyPI does."""
    return version.partition("+")[2]
