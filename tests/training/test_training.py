"""Real jobs on a model of 30,000 parameters, on a CPU: `tox run -e train` and `tox run -e unsloth`, where none of this may be absent."""

from __future__ import annotations

import importlib.util
import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import tiny
from export_samples import WEATHER, assistant, example, offer, tool_call, user

from pytest_touchstone.export.write import write_export

BACKEND = os.environ.get("TOUCHSTONE_TEST_TRAINING", "")  # trl or unsloth: what this environment has to have
LIBRARIES = ("torch", "trl", "peft", *(["unsloth", "bitsandbytes"] if BACKEND == "unsloth" else []))
MISSING = [name for name in LIBRARIES if importlib.util.find_spec(name) is None]

if not BACKEND:
    pytest.skip("training is tried by tox run -e train and -e unsloth", allow_module_level=True)

pytestmark = pytest.mark.filterwarnings("ignore")  # what the libraries warn of is theirs
trl_only = pytest.mark.skipif(BACKEND != "trl", reason="tried by tox run -e train")
TOUCHSTONE = str(Path(sys.executable).with_name("touchstone"))
FAST = ("--set", "threads=1", "--set", "batch_size=4", "--set", "accumulate=1", "--set", "learning_rate=5e-3", "--set", "max_length=256")


def test_what_this_environment_is_for_is_there():
    assert MISSING == []


@pytest.fixture(scope="session")
def base(tmp_path_factory):
    folder = tmp_path_factory.mktemp("base") / "tiny"
    tiny.write(folder)
    return folder


@pytest.fixture(scope="session")
def export(tmp_path_factory):
    folder = tmp_path_factory.mktemp("export")
    made = [
        example(
            case_id=f"days-{days}",
            prompt=(user(f"May I return the shoes after {days} days?"),),
            completion=(assistant("Yes, within 30 days." if days <= 30 else "No, not after 40 days."),),
        )
        for days in range(1, 41)
    ]
    called = assistant(None, tool_calls=[tool_call()])
    made.append(example(case_id="weather", prompt=(user("weather Oslo?"),), completion=(called,), tools=(WEATHER,)))
    write_export(folder, offers=[offer(one) for one in made], held_out=(), run={})
    pairs = [{"prompt": [user(f"{n} days?")], "chosen": [assistant("Yes.")], "rejected": [assistant("No, no.")]} for n in range(12)]
    (folder / "preference").mkdir()
    (folder / "preference" / "train.jsonl").write_text("".join(json.dumps(pair) + "\n" for pair in pairs), encoding="utf-8")
    return folder


def command(export, base, output, *arguments):
    start = [TOUCHSTONE, "train", str(export), "--backend", BACKEND, "--model", str(base)]
    return [*start, "--output", str(output), *FAST, *arguments]


def train(export, base, output, *arguments, status=0):
    done = subprocess.run(command(export, base, output, *arguments), capture_output=True, text=True)
    assert done.returncode == status, done.stdout + done.stderr
    return done


def result(output):
    return json.loads((output / "result.json").read_bytes())


def losses(output):
    lines = [json.loads(line) for line in (output / "progress.jsonl").read_text(encoding="utf-8").splitlines()]
    return [line["loss"] for line in lines if line["loss"] is not None]


def test_a_job_learns_and_repeats_exactly(export, base, tmp_path):
    for name in ("one", "two"):
        train(export, base, tmp_path / name, "--set", "max_steps=12")
    one, two = losses(tmp_path / "one"), losses(tmp_path / "two")
    assert one == two
    assert len(one) == 12
    assert one[-1] < one[0] - 1
    made = result(tmp_path / "one")
    assert (made["trained"], made["dropped"], made["device"], made["threads"]) == (41, [], "cpu", 1)
    assert (tmp_path / "one" / "adapter" / "adapter_model.safetensors").is_file()
    assert (tmp_path / "one" / "curves.svg").is_file()
    if BACKEND == "unsloth":
        assert "bitsandbytes" in made["versions"]


def test_a_killed_run_goes_on_as_if_nothing_had_been(export, base, tmp_path):
    steps = ("--set", "max_steps=10", "--set", "save_every=4")
    train(export, base, tmp_path / "whole", *steps)
    process = subprocess.Popen(command(export, base, tmp_path / "cut", *steps), stdout=subprocess.PIPE, text=True, bufsize=1)
    for line in process.stdout:
        if line.startswith("step 6/"):
            process.send_signal(signal.SIGKILL)
            break
    process.wait()
    process.stdout.close()
    assert not (tmp_path / "cut" / "result.json").exists()
    train(export, base, tmp_path / "cut", *steps, "--resume")
    assert result(tmp_path / "cut")["resumed_from"] in {f"checkpoint-{step}" for step in range(4, 10)}
    assert losses(tmp_path / "cut") == pytest.approx(losses(tmp_path / "whole"), rel=1e-5)


def test_a_stop_leaves_a_checkpoint_of_the_step(export, base, tmp_path):
    process = subprocess.Popen(
        command(export, base, tmp_path / "out", "--set", "max_steps=500"),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        bufsize=1,
    )
    for line in process.stdout:
        if line.startswith("step 1/"):
            process.send_signal(signal.SIGINT)
            break
    out, err = process.communicate()
    assert process.returncode == 2
    assert "; --resume goes on from there" in out
    assert err == "touchstone: interrupted\n"
    assert list((tmp_path / "out" / "checkpoints").glob("checkpoint-*/trainer_state.json"))


@trl_only
def test_it_stops_early_and_keeps_the_best(export, base, tmp_path):
    options = ("eval_part=0.3", "eval_every=2", "patience=1", "max_steps=200", "learning_rate=0.1")
    train(export, base, tmp_path / "out", *(part for option in options for part in ("--set", option)))
    made = result(tmp_path / "out")
    assert made["steps"] < made["total_steps"] == 200
    assert made["measured"] > 0
    assert made["trained"] + made["measured"] == 41
    lines = [json.loads(line) for line in (tmp_path / "out" / "progress.jsonl").read_text(encoding="utf-8").splitlines()]
    measured = {line["step"]: line["eval_loss"] for line in lines if line["eval_loss"] is not None}
    assert measured[made["best_step"]] == min(measured.values()) == made["best_eval_loss"]


@trl_only
def test_preference_pairs(export, base, tmp_path):
    train(export, base, tmp_path / "out", "--method", "dpo", "--allow-changed-data", "--set", "max_steps=6")
    assert losses(tmp_path / "out")[-1] < losses(tmp_path / "out")[0]
    assert result(tmp_path / "out")["method"] == "dpo"


@trl_only
def test_several_processes_train_together(export, base, tmp_path):
    train(export, base, tmp_path / "out", "--set", "max_steps=3", "--set", "processes=2", "--set", "device=cpu")
    assert len(losses(tmp_path / "out")) == 3


@trl_only
def test_too_long_examples_are_refused_or_left_out_and_told(export, base, tmp_path):
    done = train(export, base, tmp_path / "a", "--set", "max_length=24", "--set", "max_steps=1", status=2)
    assert "more than max_length 24 tokens" in done.stderr
    done = train(export, base, tmp_path / "b", "--set", "max_length=24", "--set", "max_steps=1", "--set", "too_long=drop")
    made = result(tmp_path / "b")
    assert made["dropped"]
    assert made["trained"] + len(made["dropped"]) == 41
    assert f"{len(made['dropped'])} of 41 examples left out: more than max_length 24 tokens" in done.stdout


@trl_only
def test_a_base_without_a_template_is_refused(export, tmp_path):
    tiny.write(tmp_path / "bare", template=None)
    done = train(export, tmp_path / "bare", tmp_path / "out", status=2)
    assert "has no chat template, so it cannot be shown messages; use its instruct variant, or give chat_template" in done.stderr
    (tmp_path / "chat.jinja").write_text(tiny.TEMPLATE, encoding="utf-8")
    train(export, tmp_path / "bare", tmp_path / "out2", "--set", f"chat_template={tmp_path / 'chat.jinja'}", "--set", "max_steps=1")


def test_the_merged_model_answers_as_the_adapter_does(export, base, tmp_path):
    import torch
    from peft import PeftModel
    from transformers import AutoModelForCausalLM

    train(export, base, tmp_path / "out", "--set", "max_steps=4", "--set", "merge=true")
    adapted = PeftModel.from_pretrained(AutoModelForCausalLM.from_pretrained(base), str(tmp_path / "out" / "adapter"))
    merged = AutoModelForCausalLM.from_pretrained(tmp_path / "out" / "merged", dtype=torch.float32)
    tokens = torch.tensor([[5, 6, 7, 8, 9]])
    with torch.no_grad():
        assert torch.allclose(adapted(tokens).logits, merged(tokens).logits, atol=0.1)
        plain = AutoModelForCausalLM.from_pretrained(base)(tokens).logits
    assert not torch.allclose(plain, merged(tokens).logits, atol=0.1)


@trl_only
def test_it_is_served_under_the_name_that_the_app_asks_for(export, base, tmp_path):
    import openai

    train(export, base, tmp_path / "out", "--set", "max_steps=1")
    start = [TOUCHSTONE, "serve", str(tmp_path / "out"), "--port", "0", "--name", "gpt-shop"]
    process = subprocess.Popen(start, stdout=subprocess.PIPE, text=True, bufsize=1)
    url = next(line.split()[1] for line in process.stdout if line.startswith("ready:"))
    client = openai.OpenAI(base_url=url, api_key="none", max_retries=0)
    answer = client.chat.completions.create(model="gpt-shop", messages=[{"role": "user", "content": "May I?"}], max_tokens=4)
    assert answer.choices[0].message.role == "assistant"
    process.send_signal(signal.SIGTERM)
    out, _ = process.communicate()
    assert process.returncode == 0
    assert out.endswith("stopped\n")
