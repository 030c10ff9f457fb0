"""Merges an adapter into its base model: `python child.py pytest_touchstone.train.merge BASE ADAPTER TARGET`.

Needs torch, transformers and peft. The weights keep the type that the base is stored in.
"""

from __future__ import annotations

import sys
from pathlib import Path

from pytest_touchstone.train.tuning import replace_folder


def merge(base: str, adapter: Path, target: Path) -> None:
    """Write base and adapter as one model, with the adapter's tokenizer; the folder is there whole or not at all."""
    import shutil

    from peft import PeftModel
    from transformers import AutoModelForCausalLM, AutoTokenizer

    made = target.with_name(f".{target.name}.tmp")
    shutil.rmtree(made, ignore_errors=True)
    model = AutoModelForCausalLM.from_pretrained(base, dtype="auto")
    merged = PeftModel.from_pretrained(model, str(adapter)).merge_and_unload()
    merged.save_pretrained(made)
    AutoTokenizer.from_pretrained(adapter).save_pretrained(made)
    replace_folder(made, target)


if __name__ == "__main__":
    merge(sys.argv[1], Path(sys.argv[2]), Path(sys.argv[3]))
