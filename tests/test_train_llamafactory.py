"""LLaMA-Factory: its job file, its command and its log; against a stand-in, and against the real one where it is installed."""

from __future__ import annotations

import io
import json
import os
import subprocess
import sys
import threading
from pathlib import Path

import pytest
import yaml
from format_samples import plan_of, write_formats

from pytest_touchstone import cli
from pytest_touchstone.errors import JobError, TrainingError
from pytest_touchstone.train import llamafactory_run
from pytest_touchstone.train.checks import problems_of
from pytest_touchstone.train.job import Job, load_job
from pytest_touchstone.train.llamafactory import LlamaFactoryBackend, arguments
from pytest_touchstone.train.llamafactory_run import Tail, take_adapter
from pytest_touchstone.train.run import run_job

HERE = Path(__file__).parent
AGAIN = "export again with --llm-export-format llamafactory"
REAL = os.environ.get("TOUCHSTONE_TEST_LLAMAFACTORY")


def script(path, line):
    path.write_text(f"#!/bin/sh\n{line}\n")
    path.chmod(0o755)


@pytest.fixture
def environment(tmp_path):
    """An environment with a Python and the stand-in."""
    folder = tmp_path / "environment" / "bin"
    folder.mkdir(parents=True)
    script(folder / "python", f'exec {sys.executable} "$@"')
    script(folder / "llamafactory-cli", f'exec {sys.executable} {HERE / "llamafactory_standin.py"} "$@"')
    return folder


@pytest.fixture
def data(tmp_path):
    return write_formats(tmp_path / "data", "llamafactory", "llamafactory-preference")


def plan_for(data, environment, tmp_path, **fields):
    return plan_of(data, tmp_path / "out", python=str(environment / "python"), **{"backend": "llamafactory", "model": "base", **fields})


def test_a_job_is_run_and_leaves_an_adapter(data, environment, tmp_path):
    told = io.StringIO()
    result = run_job(plan_for(data, environment, tmp_path), LlamaFactoryBackend(), told)
    assert {path.name for path in (tmp_path / "out" / "adapter").iterdir()} == {
        "adapter_model.safetensors",
        "adapter_config.json",
        "tokenizer.json",
    }
    assert (result["paths"], result["steps"], result["loss"], result["eval_loss"]) == ({"adapter": "adapter"}, 4, 0.5, 0.4)
    steps = [json.loads(line) for line in (tmp_path / "out" / "progress.jsonl").read_text().splitlines()]
    assert steps[0] == {"step": 1, "epoch": 0.5, "loss": 2.0, "learning_rate": 0.0001, "eval_loss": None}
    assert [(step["step"], step["eval_loss"]) for step in steps] == [(1, None), (2, None), (3, None), (4, None), (4, 0.4)]
    assert "LLaMA-Factory cuts what is longer than max_length (2048 tokens), without a word\n" in told.getvalue()
    assert "step 4/4  epoch 2.00  loss 0.5000  lr 1.00e-04" in told.getvalue()
    assert f"processes 1, torchrun None, {environment}" in (tmp_path / "out" / "train.log").read_text()


def test_a_resumed_run_counts_each_step_once(data, environment, tmp_path, monkeypatch):
    monkeypatch.setenv("STANDIN", "failing")
    with pytest.raises(TrainingError, match=r"RuntimeError: it broke(.|\n)*--resume goes on from checkpoint-2") as caught:
        run_job(plan_for(data, environment, tmp_path), LlamaFactoryBackend(), io.StringIO())
    assert r"Welcome \x1b[31m to LLaMA Factory" in str(caught.value)
    assert not (tmp_path / "out" / "adapter").exists()
    monkeypatch.setenv("STANDIN", "resumed")
    result = run_job(plan_for(data, environment, tmp_path, resume=True), LlamaFactoryBackend(), io.StringIO())
    assert result["resumed_from"] == "checkpoint-2"
    steps = [json.loads(line)["step"] for line in (tmp_path / "out" / "progress.jsonl").read_text().splitlines()]
    assert steps == [1, 2, 3, 4, 4]


@pytest.mark.parametrize(
    "fields",
    [
        {},
        {"method": "dpo", "beta": 0.3},
        {"quantization": "4bit", "precision": "bf16", "gradient_checkpointing": True, "max_steps": 7},
        {"precision": "fp16", "processes": 2, "lora": {"targets": ["q_proj", "v_proj"], "rslora": True}},
        {"eval_part": 0.1, "eval_every": 7, "save_every": 50, "patience": 2, "schedule": "constant"},
        {"eval_part": 0.1, "llamafactory": {"template": "qwen3", "default_system": ""}, "schedule": "cosine"},
    ],
)
def test_every_argument_is_one_of_llama_factory_s(data, environment, tmp_path, fields):
    """The stand-in refuses an unknown name, a wrong type, and what does not go together."""
    result = run_job(plan_for(data, environment, tmp_path, **fields), LlamaFactoryBackend(), io.StringIO())
    assert result["paths"] == {"adapter": "adapter"}


def test_the_stand_in_refuses_what_is_wrong(data, environment, tmp_path):
    given = arguments(Job(backend="llamafactory", model="base").resolved(), data=data / "llamafactory", output=tmp_path)
    wrong = {**given, "lora_alpha": 0.5, "lora_rang": 3, "stage": "dpo", "do_train": 1, "pref_loss": "simple"}
    (tmp_path / "wrong.yaml").write_text(yaml.safe_dump(wrong))
    done = subprocess.run([environment / "llamafactory-cli", "train", tmp_path / "wrong.yaml"], capture_output=True, text=True)
    assert done.returncode == 1
    assert done.stderr.splitlines() == [
        "do_train is 1, and may be bool",
        "lora_alpha is 0.5, and may be int",
        "unknown argument: lora_rang",
        "pref_loss is 'simple', and may be hinge|ipo|kto_pair|orpo|sigmoid|simpo",
        "`mask_history` cannot be set as True except SFT.",
        "these data are not for dpo",
    ]


def test_a_job_in_llama_factory_s_words(tmp_path):
    job = Job(
        backend="llamafactory", model="base", lora={"r": 8, "alpha": 16}, eval_part=0.1, patience=2, eval_every=5, quantization="4bit"
    )
    given = arguments(job.resolved(), data=tmp_path / "data", output=tmp_path / "out")
    assert given == {
        "model_name_or_path": "base",
        "stage": "sft",
        "do_train": True,
        "finetuning_type": "lora",
        "lora_rank": 8,
        "lora_alpha": 16,
        "lora_dropout": 0.0,
        "lora_target": "all",
        "use_rslora": False,
        "disable_gradient_checkpointing": True,
        "dataset": "touchstone",
        "dataset_dir": str(tmp_path / "data"),
        "cutoff_len": 2048,
        "overwrite_cache": True,
        "output_dir": str(tmp_path / "out" / "checkpoints"),
        "per_device_train_batch_size": 2,
        "gradient_accumulation_steps": 8,
        "learning_rate": 0.0002,
        "num_train_epochs": 3.0,
        "lr_scheduler_type": "linear",
        "warmup_ratio": 0.05,
        "weight_decay": 0.01,
        "max_grad_norm": 1.0,
        "seed": 3407,
        "logging_steps": 1,
        "save_steps": 5,
        "save_total_limit": 2,
        "report_to": "none",
        "quantization_bit": 4,
        "quantization_method": "bnb",
        "quantization_type": "nf4",
        "double_quantization": True,
        "mask_history": True,
        "val_size": 0.1,
        "per_device_eval_batch_size": 2,
        "eval_strategy": "steps",
        "eval_steps": 5,
        "early_stopping_steps": 2,
        "load_best_model_at_end": True,
        "metric_for_best_model": "eval_loss",
        "greater_is_better": False,
    }


def test_a_dry_run_shows_the_file_and_the_command(data, environment, tmp_path):
    lines = LlamaFactoryBackend().command(plan_for(data, environment, tmp_path))
    assert lines[:2] == [f"# {tmp_path}/out/llamafactory.yaml", "model_name_or_path: base"]
    assert f"dataset_dir: {data}/llamafactory" in lines
    assert lines[-1] == f"$ {environment}/llamafactory-cli train {tmp_path}/out/llamafactory.yaml"


def test_what_keeps_a_job_from_starting_is_told_at_once(data, environment, tmp_path):
    (environment / "llamafactory-cli").unlink()
    script(environment / "python", f'exec {sys.executable} -S "$@"')  # which has no packages, whatever these tests run in
    data = write_formats(tmp_path / "other", "openai")
    fields = {"model": "${oc.env:HOME}", "lora": {"alpha": 0.5}}
    told = LlamaFactoryBackend().problems(plan_for(data, environment, tmp_path, **fields))
    assert told[:4] == [
        f"{environment}/llamafactory-cli: is not there; name the Python of an environment that LLaMA-Factory is installed in by --python",
        "lora.alpha is 0.5, and LLaMA-Factory takes whole numbers; round it",
        f"{data}/llamafactory/train.jsonl: is not there: the export was made without the format 'llamafactory'; {AGAIN}",
        "model_name_or_path is '${oc.env:HOME}', and LLaMA-Factory puts something else in the place of what begins with '${'; rename it",
    ]
    assert any("not installed in that Python: torch, llamafactory; pip install llamafactory there" in problem for problem in told)


FACTS = {
    "torch_error": None,
    "gpus": [],
    "bf16": False,
    "memory": None,
    "model": {"folder": "base", "config": {"model_type": "llama"}, "weights": 1},
}


def test_libraries_that_do_not_fit_are_named():
    versions = {"llamafactory": "0.9.5", "torch": "2.13.0+cpu", "torchvision": "0.28.0", "torchaudio": "2.11.1+cpu", "trl": "0.24.0"}
    job = Job(backend="llamafactory", model="base").resolved()
    problem = "torchvision 0.28.0 was built for a GPU and torch 2.13.0+cpu for a CPU, so LLaMA-Factory cannot be imported"
    fix = "install it from the place where torch came from"
    assert problems_of(job, {**FACTS, "versions": versions}, longest=10, free_disk=1 << 40) == [f"{problem}; {fix}"]


class TestJob:
    """Fields of a backend in a job."""

    def test_what_means_nothing_to_a_backend_is_refused_and_not_kept(self, tmp_path):
        file = tmp_path / "job.yaml"
        file.write_text("backend: openai\nmodel: gpt-4.1-mini\nmax_length: 100\nlora: {r: 4}\n")
        with pytest.raises(JobError) as caught:
            load_job(file)
        assert str(caught.value).splitlines() == [
            f"{file}:4: lora: means nothing to the backend openai; leave it out",
            f"{file}:3: max_length: means nothing to the backend openai; leave it out",
        ]
        kept = Job(backend="openai", model="gpt-4.1-mini").resolved().to_dict()
        assert set(kept) == {"backend", "model", "method", "seed", "eval_part", "beta", "openai"}

    @pytest.mark.parametrize(
        ("backend", "fields", "name"),
        [
            ("trl", {"openai": {"epochs": 2}}, "openai"),
            ("unsloth", {"llamafactory": {"template": "qwen"}}, "llamafactory"),
            ("llamafactory", {"too_long": "drop"}, "too_long"),
            ("llamafactory", {"chat_template": "chat.jinja"}, "chat_template"),
            ("llamafactory", {"merge": True}, "merge"),
        ],
    )
    def test_each_backend_has_its_own(self, backend, fields, name):
        with pytest.raises(ValueError, match=f"{name}: means nothing to the backend {backend}; leave it out"):
            Job(backend=backend, model="m", **fields)

    @pytest.mark.parametrize("backend", ["trl", "unsloth", "llamafactory", "openai"])
    def test_a_kept_job_can_be_loaded_again(self, tmp_path, backend):
        job = Job(backend=backend, model="m").resolved()
        (tmp_path / "job.yaml").write_bytes(job.to_yaml())
        assert load_job(tmp_path / "job.yaml") == job


class TestTail:
    """LLaMA-Factory's log, while it is written."""

    def told(self, capfd):
        return [json.loads(line[1:]) for line in capfd.readouterr().out.split("\n") if line]

    def test_what_was_there_is_not_told_again(self, tmp_path, capfd):
        log = tmp_path / "trainer_log.jsonl"
        log.write_text('{"current_steps": 1, "total_steps": 3, "loss": 9.0}\n')
        tail = Tail(log)
        tail.tell()
        assert self.told(capfd) == []
        with log.open("a") as file:
            file.write('{"current_steps": 2, "total_steps": 3, "loss": 1.0}\n{"current_st')
            file.flush()
            tail.tell()
            assert [event["event"] for event in self.told(capfd)] == ["total", "step"]
            file.write('eps": 3, "total_steps": 3, "loss": 0.5}\n')
        tail.tell()
        told = self.told(capfd)
        assert told == [{"event": "step", "step": 3, "epoch": None, "loss": 0.5, "learning_rate": None, "eval_loss": None}]
        assert tail.last == 3

    def test_a_log_that_is_not_there_yet(self, tmp_path, capfd):
        Tail(tmp_path / "trainer_log.jsonl").tell()
        assert self.told(capfd) == []


class Process:
    """A process that ends when it is told to, or only when it is killed."""

    def __init__(self, stubborn):
        self.stubborn = stubborn
        self.signals = []

    def wait(self, timeout=None):
        if "kill" in self.signals or (self.signals and not self.stubborn):
            return -9 if self.stubborn else -2
        raise subprocess.TimeoutExpired(cmd=(), timeout=timeout)

    def send_signal(self, number):
        self.signals.append(number)

    def kill(self):
        self.signals.append("kill")


@pytest.mark.parametrize(("stubborn", "status", "signals"), [(False, -2, [2]), (True, -9, [2, "kill"])])
def test_a_run_that_is_to_stop_is_told_so_then_killed(tmp_path, stubborn, status, signals):
    stop = threading.Event()
    stop.set()
    process = Process(stubborn)
    assert llamafactory_run._wait(process, Tail(tmp_path / "log"), stop) == status
    assert process.signals == signals


def stopped(environment, tmp_path, monkeypatch, line):
    """The exit status of a run in which LLaMA-Factory is `line`, and which is told to stop at once."""
    script(environment / "llamafactory-cli", line)
    wanted = threading.Event()
    wanted.set()
    monkeypatch.setattr(llamafactory_run, "stop_wanted", lambda: wanted)
    monkeypatch.setattr(llamafactory_run, "LOOK_S", 0.01)
    return llamafactory_run.main(str(environment / "llamafactory-cli"), str(tmp_path / "llamafactory.yaml"), "fp32", "2")


def test_stopping_says_what_is_saved(environment, tmp_path, monkeypatch, capfd):
    for step in (2, 10):
        (tmp_path / "checkpoints" / f"checkpoint-{step}").mkdir(parents=True)
        (tmp_path / "checkpoints" / f"checkpoint-{step}" / "trainer_state.json").write_text("{}")
    (tmp_path / "checkpoints" / "checkpoint-20").mkdir()  # being written
    assert stopped(environment, tmp_path, monkeypatch, "exec cat /dev/zero > /dev/null") == 4
    assert '{"event": "stopped", "step": 10}' in capfd.readouterr().out


def test_a_run_that_was_killed_is_told_by_its_signal(environment, tmp_path, monkeypatch):
    script(environment / "llamafactory-cli", "kill -9 $$")
    monkeypatch.setattr(llamafactory_run, "stop_wanted", threading.Event)
    assert llamafactory_run.main(str(environment / "llamafactory-cli"), str(tmp_path / "llamafactory.yaml"), "fp32", "1") == 137


def test_an_adapter_takes_the_place_of_an_older_one_whole(tmp_path):
    for name in ("checkpoints", "adapter", ".adapter.tmp"):
        (tmp_path / name).mkdir()
    (tmp_path / "adapter" / "old.txt").write_text("old")
    (tmp_path / ".adapter.tmp" / "torn.txt").write_text("torn")
    (tmp_path / "checkpoints" / "adapter_config.json").write_text("new")
    take_adapter(tmp_path / "checkpoints", tmp_path / "adapter")
    assert [path.name for path in tmp_path.rglob("*.*") if path.is_file()].count("adapter_config.json") == 2
    assert [path.name for path in (tmp_path / "adapter").iterdir()] == ["adapter_config.json"]
    assert not (tmp_path / ".adapter.tmp").exists()


@pytest.mark.parametrize(("available", "bf16", "expected"), [(True, True, ["bf16=true"]), (True, False, ["fp16=true"]), (False, False, [])])
def test_auto_precision_is_what_the_gpu_has(tmp_path, monkeypatch, available, bf16, expected):
    (tmp_path / "torch.py").write_text(
        f"class cuda:\n is_available = staticmethod(lambda: {available})\n is_bf16_supported = staticmethod(lambda: {bf16})\n"
    )
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    assert llamafactory_run._precision("auto") == expected
    assert llamafactory_run._precision("bf16") == []


class TestFormat:
    """The file of a further format."""

    def test_one_that_was_changed_is_refused(self, data, environment, tmp_path):
        with (data / "llamafactory" / "train.jsonl").open("a") as file:
            file.write("{}\n")
        told = LlamaFactoryBackend().problems(plan_for(data, environment, tmp_path))
        assert told[0] == (
            f"{data}/llamafactory/train.jsonl: is not as the export wrote it, so the guard against holdout cases did not see it; {AGAIN}"
        )

    def test_one_that_is_gone_or_holds_nothing(self, data, environment, tmp_path):
        (data / "llamafactory" / "train.jsonl").unlink()
        manifest = json.loads((data / "manifest.json").read_text())
        backend = LlamaFactoryBackend()
        assert "train.jsonl: is not there, though the manifest lists it;" in backend.problems(plan_for(data, environment, tmp_path))[0]
        manifest["formats"]["llamafactory"] |= {"files": [], "left_out_by_reason": {"not in this format": 12}}
        (data / "manifest.json").write_text(json.dumps(manifest))
        assert "train.jsonl: holds no example (not in this format);" in backend.problems(plan_for(data, environment, tmp_path))[0]


MODEL = """
import sys, torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast
torch.manual_seed(0)
bpe = Tokenizer(models.BPE())
bpe.pre_tokenizer, bpe.decoder = pre_tokenizers.ByteLevel(add_prefix_space=False), decoders.ByteLevel()
special = ["<|pad|>", "<|end|>", "<|user|>", "<|assistant|>", "<|system|>"]
bpe.train_from_iterator(["Question 1?", "Answer 1."], trainers.BpeTrainer(special_tokens=special, initial_alphabet=pre_tokenizers.ByteLevel.alphabet()))
tokenizer = PreTrainedTokenizerFast(tokenizer_object=bpe, eos_token="<|end|>", pad_token="<|pad|>")
tokenizer.chat_template = (
    "{% for m in messages %}<|{{ m['role'] }}|>{{ m['content'] }}<|end|>{% endfor %}{% if add_generation_prompt %}<|assistant|>{% endif %}"
)
tokenizer.save_pretrained(sys.argv[1])
shape = dict(hidden_size=32, intermediate_size=64, num_hidden_layers=2, num_attention_heads=2, num_key_value_heads=2)
ends = dict(eos_token_id=tokenizer.eos_token_id, pad_token_id=tokenizer.pad_token_id, bos_token_id=None)
LlamaForCausalLM(LlamaConfig(vocab_size=len(tokenizer), max_position_embeddings=256, **shape, **ends)).save_pretrained(sys.argv[1])
"""


@pytest.mark.skipif(not REAL, reason="TOUCHSTONE_TEST_LLAMAFACTORY names no Python that has LLaMA-Factory")
@pytest.mark.parametrize("method", ["sft", "dpo"])
def test_the_real_one_trains(data, tmp_path, monkeypatch, method):
    """With a tiny random model, on a CPU, started by the command."""
    if subprocess.run([REAL, "-c", "import torchaudio"]).returncode:  # as often beside a torch for the CPU; no sound is read here
        (tmp_path / "lib").mkdir()
        (tmp_path / "lib" / "torchaudio.py").touch()
        monkeypatch.setenv("PYTHONPATH", str(tmp_path / "lib"))
    subprocess.run([REAL, "-c", MODEL, tmp_path / "base"], check=True)
    options = {
        "epochs": 4,
        "batch_size": 4,
        "accumulate": 1,
        "learning_rate": 0.01,
        "max_length": 64,
        "device": "cpu",
        "threads": 1,
        "lora.r": 4,
    }
    given = [f"--set={name}={value}" for name, value in options.items()]
    where = ["--output", str(tmp_path / "out"), "--model", str(tmp_path / "base"), "--python", REAL]
    assert cli.main(["train", str(data), "--backend", "llamafactory", "--method", method, *where, *given]) == 0
    result = json.loads((tmp_path / "out" / "result.json").read_bytes())
    steps = [json.loads(line) for line in (tmp_path / "out" / "progress.jsonl").read_text().splitlines()]
    assert (tmp_path / "out" / "adapter" / "adapter_config.json").is_file()
    assert result["versions"]["llamafactory"]
    assert steps[-1]["loss"] < steps[0]["loss"]
