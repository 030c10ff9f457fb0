"""What a LoRA job makes of the example project's model when it is trained on its failures only, and when what passed is trained on as well.

    python benchmarks/loop_replay.py [FIGURES.json]

Three seeds each. The data are what `pytest --llm-eval --llm-export` writes from the recordings, once with `--llm-replay 0` and once with
all passing cases; the job is `example_project/triage_job.yaml`, run by `touchstone train`. Each tuned model then labels all cases of the
triage suite, greedily and in batches, in this process. Needs torch, trl and peft (`pip install 'pytest-touchstone[openai,train]'`); a
CPU is enough. Times are CPU seconds, so that other work on the machine does not count.
"""

from __future__ import annotations

import json
import resource
import subprocess
import sys
import tempfile
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from transformers import PreTrainedModel, PreTrainedTokenizerBase

EXAMPLE = Path(__file__).parents[1] / "example_project"
MODEL = EXAMPLE / "models" / "triage-base"
CASES = EXAMPLE / "evals" / "triage.jsonl"
JOB = EXAMPLE / "triage_job.yaml"
SEEDS = (0, 1, 2)
KINDS = {"failures only": "0", "failures and all that passed": "1"}
BATCH = 64
LONGEST_ANSWER = 64
TESTS_FAILED = 1

Passed = dict[str, bool]


def main(target: str = "docs/explanation/replay.json") -> None:
    sys.path.insert(0, str(EXAMPLE))
    cases = [json.loads(line) for line in CASES.read_text(encoding="utf-8").splitlines()]
    times: dict[str, float] = {}
    with timed(times, "evaluate, base model"):
        before = evaluate(MODEL, None, cases)
    rows = [row("base model", None, before, before, cases)]
    with tempfile.TemporaryDirectory() as folder:
        for kind, share in KINDS.items():
            exported = Path(folder, f"replay-{share}")
            with timed(times, f"export, {kind}"):
                export(share, exported)
            for seed in SEEDS:
                run = Path(folder, f"run-{share}-{seed}")
                with timed(times, f"train, {kind}, seed {seed}"):
                    train(exported, run, seed)
                with timed(times, f"evaluate, {kind}, seed {seed}"):
                    after = evaluate(MODEL, run / "adapter", cases)
                rows.append(row(kind, seed, before, after, cases))
                print(rows[-1], flush=True)
    Path(target).write_text(json.dumps({"rows": rows, "cpu_s": times}, indent=1) + "\n", encoding="utf-8")
    print("\n".join(table(rows)))
    print("\n".join(f"{seconds:6.1f} s  {step}" for step, seconds in times.items()))


def export(share: str, folder: Path) -> None:
    """The export of the recorded triage suite, with this share of the passing cases."""
    command = [sys.executable, "-m", "pytest", "-q", "--tb=no", "--llm-eval", "--llm-show", "0", "--llm-replay", share]
    done = subprocess.run([*command, "--llm-export", folder, "evals/test_triage.py"], cwd=EXAMPLE, check=False)
    if done.returncode != TESTS_FAILED:
        msg = f"expected failing cases, which is status {TESTS_FAILED}; pytest ended with status {done.returncode}"
        raise SystemExit(msg)


def train(data: Path, run: Path, seed: int) -> None:
    """One job, as the example runs it, with a seed of its own."""
    command = [Path(sys.executable).with_name("touchstone"), "train", data, "--config", JOB, "--seed", str(seed), "--output", run]
    subprocess.run(command, cwd=EXAMPLE, check=True)


def evaluate(model: Path, adapter: Path | None, cases: Sequence[dict[str, Any]]) -> Passed:
    """Which cases a model labels right, by their ids."""
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    torch.set_num_threads(1)
    tokenizer = AutoTokenizer.from_pretrained(model, padding_side="left")
    tuned = AutoModelForCausalLM.from_pretrained(model)
    if adapter is not None:
        from peft import PeftModel

        tuned = PeftModel.from_pretrained(tuned, str(adapter)).merge_and_unload()
    ordered = sorted(cases, key=lambda case: len(case["input"]))
    passed: Passed = {}
    for start in range(0, len(ordered), BATCH):
        batch = ordered[start : start + BATCH]
        for case, said in zip(batch, answers(tuned, tokenizer, [case["input"] for case in batch]), strict=True):
            passed[case["id"]] = is_right(said, case["expected"])
    return passed


def answers(model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, texts: Sequence[str]) -> list[str]:
    """What a model says to each ticket; the most likely token each time."""
    import torch

    from support.prompt import TRIAGE

    chats = [[{"role": "system", "content": TRIAGE}, {"role": "user", "content": text}] for text in texts]
    prompts = [tokenizer.apply_chat_template(chat, tokenize=False, add_generation_prompt=True) for chat in chats]
    inputs = tokenizer(prompts, add_special_tokens=False, padding=True, return_tensors="pt", return_token_type_ids=False)
    with torch.inference_mode():
        tokens = model.generate(**inputs, max_new_tokens=LONGEST_ANSWER, do_sample=False)
    return tokenizer.batch_decode(tokens[:, inputs["input_ids"].shape[1] :], skip_special_tokens=True)


def is_right(said: str, expected: dict[str, str]) -> bool:
    try:
        return bool(json.loads(said) == expected)
    except ValueError:
        return False


def row(kind: str, seed: int | None, before: Passed, after: Passed, cases: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """Counts of cases: right of how many in each split, on holdout with a rule and without one, and what a job fixed and broke there."""
    holdout = [case for case in cases if case["split"] == "holdout"]
    ruled, general = ([case for case in holdout if (len(case["tags"]) > 1) is with_rule] for with_rule in (True, False))
    train_cases = [case for case in cases if case["split"] == "train"]
    return {
        "kind": kind,
        "seed": seed,
        "train": count(after, train_cases),
        "holdout": count(after, holdout),
        "rules": count(after, ruled),
        "general": count(after, general),
        "fixed": sum(after[case["id"]] and not before[case["id"]] for case in holdout),
        "broken": sum(before[case["id"]] and not after[case["id"]] for case in holdout),
    }


def count(passed: Passed, cases: Sequence[dict[str, Any]]) -> tuple[int, int]:
    return sum(passed[case["id"]] for case in cases), len(cases)


def table(rows: Sequence[dict[str, Any]]) -> Iterator[str]:
    """The table of the documentation."""
    yield "| trained on | seed | train | holdout | of these: with a rule | without one | fixed | broken |"
    yield "|---|---|---|---|---|---|---|---|"
    for found in rows:
        rates = [f"{right / of:.1%}" for right, of in (found["train"], found["holdout"])]
        counts = [f"{right} of {of}" for right, of in (found["rules"], found["general"])]
        seed = "" if found["seed"] is None else found["seed"]
        yield f"| {found['kind']} | {seed} | {' | '.join((*rates, *counts))} | {found['fixed']} | {found['broken']} |"


@contextmanager
def timed(times: dict[str, float], step: str) -> Iterator[None]:
    """Note the CPU seconds that a step takes, those of the processes that it starts included."""
    started = cpu_s()
    yield
    times[step] = round(cpu_s() - started, 1)


def cpu_s() -> float:
    used = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    return sum(usage.ru_utime + usage.ru_stime for usage in used)


if __name__ == "__main__":
    main(*sys.argv[1:2])
