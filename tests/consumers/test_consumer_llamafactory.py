"""LLaMA-Factory's own loader reads what is written for it, and tokenizes it as a training run would."""

from __future__ import annotations

import importlib.util
import os
import sys
import types

import pytest
from consumer_kit import ARGUMENTS, byte_tokenizer, export, same_json, trained_text

if importlib.util.find_spec("llamafactory") is None and os.environ.get("TOUCHSTONE_TEST_CONSUMER") != "llamafactory":
    pytest.skip("needs LLaMA-Factory: tox run -e llamafactory", allow_module_level=True)

pytestmark = pytest.mark.filterwarnings("ignore")  # those of its libraries


@pytest.fixture(scope="module")
def load():
    """Reads the folder as `llamafactory-cli train` does, with the settings that the how-to page names."""
    import transformers  # before the stand-in: it looks for the real one

    if importlib.util.find_spec("torchaudio") is None:  # sounds; not installed beside a torch without CUDA
        sys.modules["torchaudio"] = types.ModuleType("torchaudio")
    from llamafactory.data import get_dataset, get_template_and_fix_tokenizer
    from llamafactory.hparams import DataArguments, ModelArguments

    def read(folder, name, stage):
        tokenizer = byte_tokenizer()
        data = DataArguments(
            template="qwen", dataset=name, dataset_dir=str(folder), mask_history=True, default_system="", overwrite_cache=True, cutoff_len=8192
        )  # fmt: skip
        template = get_template_and_fix_tokenizer(tokenizer, data)
        arguments = transformers.Seq2SeqTrainingArguments(output_dir=str(folder / "out"), use_cpu=True, report_to=[])
        model = ModelArguments(model_name_or_path="none", cache_dir=str(folder / "cache"))
        module = get_dataset(template, model, data, arguments, stage=stage, tokenizer=tokenizer)
        return tokenizer, list(module["train_dataset"])

    return read


def test_every_example_is_read_and_the_target_alone_is_trained(tmp_path, load):
    manifest = export(tmp_path, "llamafactory")
    assert manifest.formats["llamafactory"]["written"] == 14
    tokenizer, rows = load(tmp_path / "llamafactory", "touchstone", "sft")
    read = [trained_text(tokenizer, row["input_ids"], row["labels"]) for row in rows]
    assert len(read) == 14  # an example that it does not like, it drops
    assert read[0] == (
        "<|im_start|>system\nBe brief.<|im_end|>\n<|im_start|>user\nQuestion 1<|im_end|>\n<|im_start|>assistant\nAnswer 1<|im_end|>\n",
        "Answer 1<|im_end|>\n",
    )
    whole = "\n".join(text for text, _ in read)
    assert "You are Qwen" not in whole
    trained = [target for _, target in read]
    assert "2026-10-03<|im_end|>\n" in trained
    (called,) = [target for target in trained if "<tool_call>" in target]
    written = called.split("<tool_call>\n")[1].split("\n</tool_call>")[0]
    assert same_json(written, f'{{"name": "weather", "arguments": {ARGUMENTS}}}')
    assert "\u2028 <b>é</b>" in whole


def test_every_pair_is_read(tmp_path, load):
    manifest = export(tmp_path, "llamafactory-preference")
    assert manifest.formats["llamafactory-preference"]["written"] == 13
    tokenizer, rows = load(tmp_path / "llamafactory-preference", "touchstone_preference", "rm")
    chosen = [trained_text(tokenizer, row["chosen_input_ids"], row["chosen_labels"]) for row in rows]
    rejected = [trained_text(tokenizer, row["rejected_input_ids"], row["rejected_labels"]) for row in rows]
    assert len(rows) == 13
    assert (chosen[0][1], rejected[0][1]) == ("Answer 1<|im_end|>\n", "Wrong 1<|im_end|>\n")
    assert ("2026-10-03<|im_end|>\n", "2026-10-04<|im_end|>\n") in [(good[1], bad[1]) for good, bad in zip(chosen, rejected, strict=True)]
