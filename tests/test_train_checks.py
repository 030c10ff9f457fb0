from __future__ import annotations

import pytest

from pytest_touchstone.train.checks import GIB, Estimate, estimate, problems_of
from pytest_touchstone.train.job import Job

# Qwen3-4B, as its config.json says; its weights are 8.0 GB in 16 bit.
CONFIG = {"hidden_size": 2560, "intermediate_size": 9728, "num_hidden_layers": 36, "vocab_size": 151936}
FOUR_B = 4_022_468_096
GPU = {"name": "GPU", "free": 24 * GIB, "total": 24 * GIB}


def facts(**changes):
    versions = {
        "torch": "2.13.0+cpu",
        "transformers": "5.24.0",
        "datasets": "5.2.0",
        "peft": "0.21.2",
        "trl": "1.14.2",
        "accelerate": "1.15.0",
    }
    unsloth = {"bitsandbytes": "0.50.2", "unsloth": "2026.10.9", "unsloth_zoo": "2026.10.9", "torchvision": None}
    model = {"folder": "/models/base", "config": CONFIG, "weights": 2 * FOUR_B, "parameters": FOUR_B}
    base = {"versions": versions | unsloth, "memory": 64 * GIB, "torch_error": None, "gpus": [], "bf16": False, "model": model}
    for name, value in changes.items():
        base[name] = {**base[name], **value} if isinstance(value, dict) else value
    return base


def job(**fields):
    return Job(**({"backend": "trl", "model": "base", "precision": "bf16"} | fields)).resolved()


def problems(one, found, *, longest=512, free_disk=1000 * GIB):
    return problems_of(one, found, longest=longest, free_disk=free_disk)


class TestLibraries:
    def test_all_is_well(self):
        assert problems(job(), facts()) == []
        assert problems(job(backend="unsloth"), facts()) == []

    def test_what_is_not_installed_is_named_at_once(self):
        assert problems(job(), facts(versions={"torch": None, "trl": None})) == [
            "not installed in that Python: torch, trl; pip install 'pytest-touchstone[train]' there, or name another one with --python"
        ]
        assert problems(job(backend="unsloth"), facts(versions={"unsloth": None})) == [
            "not installed in that Python: unsloth; pip install 'pytest-touchstone[unsloth]' there, or name another one with --python"
        ]

    def test_four_bits_need_bitsandbytes(self):
        assert (
            "not installed in that Python: bitsandbytes;" in problems(job(quantization="4bit"), facts(versions={"bitsandbytes": None}))[0]
        )

    def test_several_processes_need_accelerate(self):
        assert (
            "not installed in that Python: accelerate;" in problems(job(processes=2, device="cpu"), facts(versions={"accelerate": None}))[0]
        )

    def test_a_version_that_is_too_old(self):
        assert problems(job(), facts(versions={"peft": "0.16.0"})) == ["peft 0.16.0 is too old; pip install 'peft>=0.17'"]

    def test_trl_1_15_does_not_train_on_a_cpu(self):
        assert problems(job(), facts(versions={"trl": "1.15.0"})) == ["trl 1.15.0 does not train on a CPU; pip install 'trl>=1.14,<1.15'"]
        assert problems(job(), facts(versions={"trl": "1.15.0"}, gpus=[GPU], bf16=True)) == []

    def test_torchvision_for_a_gpu_beside_torch_for_a_cpu(self):
        assert problems(job(backend="unsloth"), facts(versions={"torchvision": "0.28.0"})) == [
            (
                "torchvision 0.28.0 was built for a GPU and torch 2.13.0+cpu for a CPU, so Unsloth cannot be imported; "
                "pip uninstall torchvision, or install it from the place where torch came from"
            )
        ]
        assert problems(job(backend="unsloth"), facts(versions={"torchvision": "0.28.0+cpu"})) == []

    def test_a_torch_that_is_broken(self):
        assert problems(job(), facts(torch_error="OSError: libcudart.so")) == [
            "torch 2.13.0+cpu cannot be imported (OSError: libcudart.so); install it again"
        ]


class TestDevices:
    def test_no_gpu_where_one_is_asked_for(self):
        assert problems(job(device="cuda"), facts()) == [
            "device is cuda, and torch sees no GPU; set device: cpu, or install a torch built for it (see pytorch.org)"
        ]

    def test_fewer_gpus_than_processes(self):
        assert problems(job(processes=2), facts(gpus=[GPU], bf16=True)) == [
            "processes is 2, and torch sees 1 GPU; set processes to at most 1"
        ]

    def test_precisions_that_the_device_does_not_have(self):
        assert problems(job(), facts(gpus=[GPU])) == ["precision is bf16, which this GPU does not have; set precision: fp16"]
        assert problems(job(precision="fp16"), facts()) == ["precision is fp16, which does not train on a CPU; set precision: fp32 or bf16"]

    def test_gguf_is_downloaded_for_and_needs_a_gpu(self):
        assert problems(job(backend="unsloth", gguf="q4_k_m"), facts()) == [
            "gguf is written by llama.cpp, which Unsloth downloads and builds; say --download, or convert the merged model",
            "gguf cannot be written from a 4-bit base on a CPU; set merge: true and convert that yourself, or quantization: none",
        ]
        assert problems(job(backend="unsloth", gguf="q4_k_m", download=True), facts(gpus=[GPU], bf16=True)) == []


class TestModel:
    def test_one_that_is_nowhere(self):
        found = facts(model={"folder": None, "config": None, "weights": 0, "parameters": None})
        assert problems(job(), found) == [
            (
                "the base model 'base' is no folder here, and not in the cache of the Hugging Face hub; "
                "correct its name, or let it be downloaded with --download"
            )
        ]
        assert problems(job(download=True), found) == []

    def test_a_folder_that_is_no_model(self):
        assert problems(job(), facts(model={"config": None})) == [
            "/models/base: is no model: it has no config.json that can be read; give the folder of a transformers model"
        ]
        assert problems(job(), facts(model={"weights": 0})) == [
            "/models/base: holds no weights (*.safetensors); download the model in full"
        ]


class TestSpace:
    def test_memory(self):
        said = problems(job(), facts(memory=4 * GIB))
        assert len(said) == 1
        assert said[0].startswith("needs about ")
        assert said[0].endswith(
            " of memory, and 4.0 GiB are free; lower batch_size (and raise accumulate) or max_length, set gradient_checkpointing: true, or quantization: 4bit"
        )

    def test_memory_of_the_gpu(self):
        small = {**GPU, "free": 2 * GIB}
        said = problems(job(backend="unsloth"), facts(gpus=[GPU, small], bf16=True))
        assert said[0].endswith(
            "2.0 GiB of the GPU are free; lower batch_size (and raise accumulate) or max_length, set gradient_checkpointing: true"
        )

    def test_several_processes_on_a_cpu_need_it_several_times(self):
        needs = estimate(job(), facts(), longest=512).total
        found = facts(memory=int(needs * 1.5))
        assert problems(job(), found) == []
        assert "of memory in each of 2 processes, and" in problems(job(processes=2), found)[0]

    def test_what_is_not_known_is_not_held_against_the_job(self):
        assert problems(job(), facts(memory=None)) == []
        assert estimate(job(), facts(model={"config": {"hidden_size": "x"}}), longest=512) is None
        assert problems(job(), facts(model={"config": {"hidden_size": "x"}}), free_disk=0) == []

    def test_disk(self):
        said = problems(job(merge=True), facts(), free_disk=GIB)
        assert said[0].startswith("needs about ")
        assert said[0].endswith(" GiB on disk, and 1.0 GiB are free there; choose another --output, or make room")


class TestEstimate:
    def test_the_weights_are_what_the_type_takes(self):
        assert estimate(job(), facts(), longest=512).weights == 2 * FOUR_B
        assert estimate(job(precision="fp32"), facts(), longest=512).weights == 4 * FOUR_B
        assert estimate(job(precision="auto"), facts(), longest=512).weights == 4 * FOUR_B
        assert estimate(job(precision="auto"), facts(gpus=[GPU]), longest=512).weights == 2 * FOUR_B

    def test_four_bits_of_a_4b_model_fit_a_small_gpu(self):
        needs = estimate(job(backend="unsloth"), facts(gpus=[GPU]), longest=512)
        assert 2.5 * GIB < needs.weights < 3.5 * GIB
        assert needs.total < 8 * GIB

    def test_the_adapter_is_the_one_that_peft_makes(self):
        # Llama-2-7B, r 16, all linear layers: 39,976,960 numbers (the square attention of this model is what is counted here).
        llama = {"hidden_size": 4096, "intermediate_size": 11008, "num_hidden_layers": 32, "vocab_size": 32000}
        assert estimate(job(), facts(model={"config": llama}), longest=512).adapter == 16 * 39_976_960

    def test_a_model_that_also_sees_keeps_its_text_model_in_a_part_of_its_own(self):
        nested = {"text_config": CONFIG}
        assert estimate(job(), facts(model={"config": nested}), longest=512) == estimate(job(), facts(), longest=512)

    def test_weights_that_are_packed_are_counted_by_the_configuration(self):
        whole = estimate(job(backend="unsloth"), facts(), longest=512).weights
        assert estimate(job(backend="unsloth"), facts(model={"parameters": None}), longest=512).weights == pytest.approx(whole, rel=0.25)

    def test_more_tokens_and_no_checkpointing_take_more(self):
        sizes = [
            estimate(job(gradient_checkpointing=checkpointing), facts(), longest=longest).batch
            for checkpointing, longest in ((True, 128), (True, 512), (False, 512))
        ]
        assert sizes == sorted(set(sizes))
        assert estimate(job(max_length=128), facts(), longest=512) == estimate(job(), facts(), longest=128)

    def test_is_shown_by_its_parts(self):
        assert str(Estimate(weights=3 * GIB, adapter=GIB, batch=GIB // 2)) == "5.0 GiB (model 3.0, adapter 1.0, batch 0.5)"
