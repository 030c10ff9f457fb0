"""The backend `trl`: LoRA by PEFT under TRL's trainers, on a CPU or on GPUs. Run as a process of its own with `run.json`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from pytest_touchstone.train.merge import merge
from pytest_touchstone.train.tuning import Run, main, say

if TYPE_CHECKING:
    from collections.abc import Callable


def load(run: Run) -> tuple[Any, Callable[[], Any]]:
    """The tokenizer, and what loads the model: in the precision of the run, in 4 bit where the job says so."""
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer, BitsAndBytesConfig

    dtype = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}[run.precision]

    def make() -> Any:
        options: dict[str, Any] = {"dtype": dtype}
        if run.job["quantization"] == "4bit":
            options["quantization_config"] = BitsAndBytesConfig(
                load_in_4bit=True, bnb_4bit_quant_type="nf4", bnb_4bit_use_double_quant=True, bnb_4bit_compute_dtype=dtype
            )
        return AutoModelForCausalLM.from_pretrained(run.job["model"], **options)

    return AutoTokenizer.from_pretrained(run.job["model"]), make


def finish(run: Run, model: Any, tokenizer: Any) -> dict[str, str]:  # noqa: ARG001 - as every backend
    """Write the merged model where the job asks for it."""
    if not run.job["merge"]:
        return {}
    say("phase", text="merging")
    merge(run.job["model"], run.output / "adapter", run.output / "merged")
    return {"merged": "merged"}


if __name__ == "__main__":
    main(load, finish)
