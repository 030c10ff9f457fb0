"""TRL takes one step of training on each of its formats, with a tiny model that is made here; what is trained is the target alone."""

from __future__ import annotations

import copy
import importlib.util
import json
import os

import pytest
from consumer_kit import ARGUMENTS, byte_tokenizer, export, trained_text

if importlib.util.find_spec("trl") is None and os.environ.get("TOUCHSTONE_TEST_CONSUMER") != "trl":
    pytest.skip("needs TRL: tox run -e consumers", allow_module_level=True)

pytestmark = pytest.mark.filterwarnings("ignore")  # those of its libraries


@pytest.fixture(scope="module")
def tokenizer():
    return byte_tokenizer()


@pytest.fixture
def model(tokenizer):
    import torch
    from transformers import LlamaConfig, LlamaForCausalLM

    torch.manual_seed(1)
    size = {"hidden_size": 16, "intermediate_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "num_key_value_heads": 2}
    return LlamaForCausalLM(LlamaConfig(vocab_size=len(tokenizer), max_position_embeddings=2048, **size))


@pytest.fixture
def load(tmp_path):
    import datasets

    def read(path):
        return datasets.load_dataset("json", data_files=str(path), cache_dir=str(tmp_path / "cache"), split="train")

    return read


def settings(kind, folder, **more):
    return kind(
        output_dir=str(folder / "out"), max_steps=1, per_device_train_batch_size=2, report_to=[], use_cpu=True, bf16=False, save_strategy="no",
        gradient_checkpointing=False, max_length=2048, **more,
    )  # fmt: skip


def one_step(trainer):
    before = {name: value.clone() for name, value in trainer.model.named_parameters()}
    result = trainer.train()
    assert result.training_loss > 0
    assert any(not (value == before[name]).all() for name, value in trainer.model.named_parameters())


def sft(model, data, tokenizer, folder, **more):
    from trl import SFTConfig, SFTTrainer

    return SFTTrainer(model=model, args=settings(SFTConfig, folder, **more), train_dataset=data, processing_class=tokenizer)


def batch_texts(trainer, tokenizer):
    rows = [trainer.train_dataset[index] for index in range(len(trainer.train_dataset))]
    collated = [trainer.data_collator([row]) for row in rows]
    return [trained_text(tokenizer, each["input_ids"][0].tolist(), each["labels"][0].tolist()) for each in collated]


def test_prompt_and_completion(tmp_path, model, tokenizer, load):
    export(tmp_path)
    trainer = sft(model, load(tmp_path / "train.jsonl"), tokenizer, tmp_path)
    read = batch_texts(trainer, tokenizer)
    assert len(read) == 14
    assert read[0][0].startswith("<|im_start|>system\nBe brief.<|im_end|>\n<|im_start|>user\nQuestion 1<|im_end|>\n")
    assert read[0][1].startswith("Answer 1<|im_end|>")
    (called,) = [target for _, target in read if "<tool_call>" in target]
    assert f"<tool_call>weather {ARGUMENTS}</tool_call>" in called
    one_step(trainer)


def test_messages(tmp_path, model, tokenizer, load):
    export(tmp_path, "messages")
    trainer = sft(model, load(tmp_path / "messages" / "train.jsonl"), tokenizer, tmp_path)
    read = batch_texts(trainer, tokenizer)
    assert len(read) == 14
    assert "Question 1<|im_end|>\n<|im_start|>assistant\nAnswer 1<|im_end|>" in read[0][1]  # all of it is trained, as the docs say
    one_step(trainer)


def test_the_folder_for_datasets(tmp_path, model, tokenizer):
    import datasets

    export(tmp_path, "datasets")
    data = datasets.load_dataset(str(tmp_path / "datasets"), cache_dir=str(tmp_path / "cache"), split="train")
    trainer = sft(model, data, tokenizer, tmp_path)
    read = batch_texts(trainer, tokenizer)
    assert len(read) == 14
    assert any(f"<tool_call>weather {ARGUMENTS}</tool_call>" in target for _, target in read)
    one_step(trainer)


def test_preference(tmp_path, model, tokenizer, load):
    from trl import DPOConfig, DPOTrainer

    export(tmp_path, "preference")
    data = load(tmp_path / "preference" / "train.jsonl")
    assert len(data) == 13
    before = copy.deepcopy(model)  # it would load one by the model's name, and this one has none
    trainer = DPOTrainer(model=model, ref_model=before, args=settings(DPOConfig, tmp_path), train_dataset=data, processing_class=tokenizer)
    row = json.loads(json.dumps(trainer.train_dataset[0]))
    texts = {name: tokenizer.decode(value) for name, value in row.items() if name.endswith("_ids") and isinstance(value, list)}
    assert any("Answer 1" in text for text in texts.values())
    assert any("Wrong 1" in text for text in texts.values())
    one_step(trainer)
