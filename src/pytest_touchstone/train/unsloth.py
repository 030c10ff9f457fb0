"""The backend `unsloth`: QLoRA by Unsloth, on a GPU or (slowly) on a CPU. Run as a process of its own with `run.json`."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any

from pytest_touchstone.train.telling import tell

if os.environ.get("RANK", "0") == "0" and __name__ == "__main__":
    tell("phase", text="importing unsloth")
if __name__ == "__main__":
    import unsloth  # pyright: ignore[reportMissingImports] # before trl, transformers and peft, which it changes

from pytest_touchstone.train.merge import merge
from pytest_touchstone.train.tuning import Run, main, replace_folder, say

if TYPE_CHECKING:
    from collections.abc import Callable

LINEAR = ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"]


def load(run: Run) -> tuple[Any, Callable[[], Any]]:
    """The tokenizer, and what puts the adapter on the model; Unsloth loads both at once."""
    import torch

    job = run.job
    dtype = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}[run.precision]
    model, tokenizer = unsloth.FastLanguageModel.from_pretrained(
        job["model"], max_seq_length=job["max_length"], dtype=dtype, load_in_4bit=job["quantization"] == "4bit"
    )

    def adapted() -> Any:
        lora = job["lora"]
        return unsloth.FastLanguageModel.get_peft_model(
            model,
            r=lora["r"],
            lora_alpha=lora["alpha"],
            lora_dropout=lora["dropout"],
            target_modules=LINEAR if lora["targets"] == ["all-linear"] else lora["targets"],
            use_rslora=lora["rslora"],
            bias="none",
            use_gradient_checkpointing="unsloth" if job["gradient_checkpointing"] else False,
            random_state=job["seed"],
            max_seq_length=job["max_length"],
        )

    return getattr(tokenizer, "tokenizer", tokenizer), adapted  # a processor of a model that also sees holds its tokenizer


def finish(run: Run, model: Any, tokenizer: Any) -> dict[str, str]:
    """Write the merged 16-bit model and the GGUF file where the job asks for them."""
    import shutil

    paths: dict[str, str] = {}
    if run.job["merge"]:
        say("phase", text="merging")
        if run.cuda:
            made = run.output / ".merged.tmp"
            shutil.rmtree(made, ignore_errors=True)
            model.save_pretrained_merged(str(made), tokenizer, save_method="merged_16bit")
            replace_folder(made, run.output / "merged")
        else:  # Unsloth 2026.10 does not merge into 4 bit on a CPU
            merge(run.job["model"], run.output / "adapter", run.output / "merged")
        paths["merged"] = "merged"
    if run.job["gguf"]:
        say("phase", text=f"writing GGUF {run.job['gguf']}")
        made = run.output / ".gguf.tmp"
        shutil.rmtree(made, ignore_errors=True)
        model.save_pretrained_gguf(str(made), tokenizer, quantization_method=run.job["gguf"])
        replace_folder(made, run.output / "gguf")
        paths["gguf"] = "gguf"
    return paths


if __name__ == "__main__":
    main(load, finish)
