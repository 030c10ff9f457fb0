from __future__ import annotations

import dataclasses
import io
import json
import os
import signal
import sys
import threading
from typing import ClassVar

import pytest
from export_samples import assistant, example, offer, user

from pytest_touchstone import cli
from pytest_touchstone.errors import TrainingError
from pytest_touchstone.export.write import write_export
from pytest_touchstone.train import run, serve
from pytest_touchstone.train.data import read_data
from pytest_touchstone.train.job import Job
from pytest_touchstone.train.plan import Plan
from pytest_touchstone.train.process import LocalBackend, last_checkpoint, steps_before
from pytest_touchstone.train.watch import Step, Watch, read_steps

FAKE = "fake_trainer"
RESULT = 'tell("result", steps=2, paths={"adapter": "adapter"}, versions={"fake": "1"})\n'
HEAD = "import json, os, signal, sys\nfrom pytest_touchstone.train.telling import stop_wanted, tell\n"
STEPS = 'tell("total", steps=2)\ntell("step", step=1, loss=2.0, learning_rate=0.1)\ntell("step", step=2, loss=1.0, learning_rate=0.05)\n'


class Trainer:
    """A project with an export, and a training process that does what a test writes."""

    def __init__(self, folder, monkeypatch, capsys):
        self.folder = folder
        self.capsys = capsys
        self.out = io.StringIO()
        monkeypatch.chdir(folder)
        monkeypatch.setenv("PYTHONPATH", str(folder))
        monkeypatch.setattr(LocalBackend, "problems", lambda *_: [])
        monkeypatch.setattr("pytest_touchstone.train.backends.TRL", LocalBackend(module=FAKE))
        made = example(prompt=(user("Where?"),), completion=(assistant("There."),))
        write_export(folder / "data", offers=[offer(made)], held_out=(), run={})

    def write(self, *parts):
        (self.folder / f"{FAKE}.py").write_text(HEAD + "".join(parts), encoding="utf-8")

    @property
    def output(self):
        return self.folder / "out"

    def plan(self, **changes):
        fields = {"job": Job(backend="trl", model="base").resolved(), "data": read_data(self.folder / "data"), "output": self.output}
        return Plan(**(fields | {"python": sys.executable} | changes))

    def train(self, plan=None):
        return run.run_job(plan or self.plan(), LocalBackend(module=FAKE), self.out)

    def command(self, *arguments):
        """The exit status of `touchstone train`, what it printed, and what it complained about."""
        status = cli.main(["train", "data", "--backend", "trl", "--model", "base", "--output", "out", *arguments])
        printed = self.capsys.readouterr()
        return status, printed.out.splitlines(), printed.err.splitlines()


@pytest.fixture
def trainer(tmp_path, monkeypatch, capsys):
    return Trainer(tmp_path, monkeypatch, capsys)


def checkpoint(output, step, *, state=None):
    folder = output / "checkpoints" / f"checkpoint-{step}"
    folder.mkdir(parents=True)
    held = {"global_step": step, "log_history": [{"step": n, "loss": 1.0 / n} for n in range(1, step + 1)]}
    (folder / "trainer_state.json").write_text(json.dumps(held) if state is None else state, encoding="utf-8")
    return folder


class TestARun:
    def test_leaves_the_job_the_steps_and_a_result(self, trainer):
        trainer.write(STEPS, RESULT)
        result = trainer.train()
        assert read_steps(trainer.output) == [Step(step=1, loss=2.0, learning_rate=0.1), Step(step=2, loss=1.0, learning_rate=0.05)]
        assert result == run.read_result(trainer.output)
        assert (result["loss"], result["eval_loss"], result["steps"], result["paths"]) == (1.0, None, 2, {"adapter": "adapter"})
        assert result["data"]["sha256"] == read_data(trainer.folder / "data").sha256
        assert set(result["versions"]) == {"pytest-touchstone", "fake"}
        assert "step 2/2  loss 1.0000" in trainer.out.getvalue()

    def test_hands_the_job_over_and_keeps_what_libraries_print(self, trainer):
        trainer.write('print("library says", json.load(open(sys.argv[1]))["job"]["model"])\nprint("x" * 9000, file=sys.stderr)\n', RESULT)
        trainer.train()
        log = (trainer.output / "train.log").read_text(encoding="utf-8")
        assert log.startswith("library says base\n")
        assert "x" * 9000 in log
        assert "\x1e" not in log

    def test_is_quiet_offline_and_takes_no_library_from_beside_the_package(self, trainer):
        names = ["HF_HUB_OFFLINE", "UNSLOTH_DISABLE_STATISTICS", "OMP_NUM_THREADS", "CUDA_VISIBLE_DEVICES"]
        trainer.write(
            f"seen = [os.environ.get(name) for name in {names}]\n",
            "import pytest_touchstone; here = os.path.dirname(pytest_touchstone.__file__)\n",
            'assert not any(os.path.realpath(p or ".") == os.path.join(os.path.realpath(here), "train") for p in sys.path), sys.path\n',
            'tell("result", seen=seen)\n',
        )
        plan = trainer.plan(job=Job(backend="trl", model="base", threads=1, device="cpu").resolved())
        assert trainer.train(plan)["seen"] == ["1", "1", "1", ""]

    def test_may_download_where_the_job_says_so(self, trainer, monkeypatch):
        monkeypatch.delenv("HF_HUB_OFFLINE", raising=False)
        trainer.write('tell("result", seen=os.environ.get("HF_HUB_OFFLINE"))\n')
        assert trainer.train(trainer.plan(job=Job(backend="trl", model="base", download=True).resolved()))["seen"] is None

    def test_that_is_refused_by_its_process_says_every_problem(self, trainer):
        trainer.write('tell("problems", problems=["line 3: bad", "line 4: bad"])\nsys.exit(3)\n')
        with pytest.raises(TrainingError, match=r"^line 3: bad\nline 4: bad$"):
            trainer.train()
        assert not run.is_finished(trainer.output)

    def test_that_dies_says_its_last_lines_and_what_to_do(self, trainer):
        trainer.write(STEPS, 'print("RuntimeError: \\x1b[31mno luck")\nsys.exit(1)\n')
        with pytest.raises(TrainingError) as caught:
            trainer.train()
        assert str(caught.value).splitlines() == [
            "the training process ended with status 1",
            r"    RuntimeError: \x1b[31mno luck",
            (
                "the lines above should say why; nothing was saved yet; start again with another --output; "
                f"all of its output is in {trainer.output / 'train.log'}"
            ),
        ]
        assert len(read_steps(trainer.output)) == 2

    def test_that_is_killed_as_where_memory_runs_out(self, trainer):
        trainer.write("os.kill(os.getpid(), signal.SIGKILL)\n")
        checkpoint(trainer.output, 1)
        with pytest.raises(TrainingError) as caught:
            trainer.train()
        first, last = str(caught.value).splitlines()
        assert first == "the training process was killed by SIGKILL, without a word"
        assert last.startswith("memory ran out, most likely: lower batch_size (and raise accumulate) or max_length, ")
        assert "--resume goes on from checkpoint-1" in last

    def test_that_ends_without_a_result(self, trainer):
        trainer.write("")
        with pytest.raises(TrainingError, match="the training process ended with status 0, without a word"):
            trainer.train()

    def test_under_a_python_that_is_none(self, trainer):
        with pytest.raises(TrainingError, match=r"/none/python: cannot be started: .*; give --python the path of a Python interpreter"):
            trainer.train(trainer.plan(python="/none/python"))

    def test_is_alone_in_its_folder(self, trainer):
        trainer.write(RESULT)
        trainer.output.mkdir()
        with (
            run._alone(trainer.output),
            pytest.raises(TrainingError, match=r"out: another run is at work there; wait for its end, or give"),
        ):
            trainer.train()
        trainer.train()


class TestStopping:
    WAITS = 'wanted = stop_wanted()\ntell("step", step=1, loss=2.0)\nwanted.wait()\ntell("stopped", step=1)\nsys.exit(4)\n'

    def test_ctrl_c_lets_the_process_write_a_checkpoint(self, trainer, monkeypatch):
        trainer.write(self.WAITS)
        monkeypatch.setattr(Watch, "step", interrupting)
        with pytest.raises(KeyboardInterrupt):
            trainer.train()
        assert trainer.out.getvalue().splitlines()[-2:] == [
            "stopping after this step; Ctrl-C once more stops at once",
            "stopped after step 1; --resume goes on from there",
        ]

    def test_a_process_that_dies_of_it_is_no_failure(self, trainer, monkeypatch):
        trainer.write('wanted = stop_wanted()\ntell("step", step=1, loss=2.0)\nwanted.wait()\nsys.exit(1)\n')
        monkeypatch.setattr(Watch, "step", interrupting)
        with pytest.raises(KeyboardInterrupt):
            trainer.train()

    def test_twice_kills_it(self, trainer, monkeypatch):
        trainer.write('tell("note", text=str(os.getpid()))\ntell("step", step=1, loss=2.0)\nsignal.pause()\n')
        noted = []

        def note(self, text):
            noted.append(text)
            if text.startswith("stopping"):
                interrupting()

        monkeypatch.setattr(Watch, "step", interrupting)
        monkeypatch.setattr(Watch, "note", note)
        with pytest.raises(KeyboardInterrupt):
            trainer.train()
        with pytest.raises(ProcessLookupError):
            os.kill(int(noted[0]), 0)

    def test_the_command_says_so(self, trainer, monkeypatch):
        trainer.write(self.WAITS)
        monkeypatch.setattr(Watch, "step", lambda *_: signal.pthread_kill(threading.main_thread().ident, signal.SIGTERM))
        status, _, err = trainer.command()
        assert (status, err) == (2, ["touchstone: interrupted"])
        assert signal.getsignal(signal.SIGTERM) == signal.SIG_DFL


def interrupting(*_):
    """Ctrl-C, while the line of a step is being taken in."""
    signal.pthread_kill(threading.main_thread().ident, signal.SIGINT)


class TestResuming:
    def test_goes_on_from_the_last_whole_checkpoint_with_its_steps(self, trainer):
        trainer.write("sys.exit(1)\n")
        with pytest.raises(TrainingError):
            trainer.train()
        checkpoint(trainer.output, 1)
        last = checkpoint(trainer.output, 2)
        checkpoint(trainer.output, 10, state='{"global_step": 1')
        trainer.write('tell("step", step=3, loss=0.25)\ntell("result", given=json.load(open(sys.argv[1]))["checkpoint"])\n')
        plan = trainer.plan(resume=True)
        assert run.check(plan, LocalBackend(module=FAKE)) == []
        result = trainer.train(plan)
        assert result["given"] == str(last)
        assert result["resumed_from"] == "checkpoint-2"
        assert [step.step for step in read_steps(trainer.output)] == [1, 2, 3]
        assert "going on from checkpoint-2" in trainer.out.getvalue()

    def test_starts_anew_where_nothing_was_saved(self, trainer):
        trainer.write("sys.exit(1)\n")
        with pytest.raises(TrainingError):
            trainer.train()
        trainer.write(RESULT)
        assert trainer.train(trainer.plan(resume=True))["resumed_from"] is None

    def test_what_is_no_state_has_no_steps(self, tmp_path):
        assert last_checkpoint(tmp_path) is None
        torn = checkpoint(tmp_path, 3, state="[]")
        assert last_checkpoint(tmp_path) is None
        assert steps_before(torn) == []
        assert steps_before(checkpoint(tmp_path, 4, state='{"global_step": 4, "log_history": 3}')) == []

    def test_with_another_job_or_other_data_is_refused(self, trainer):
        trainer.write("sys.exit(1)\n")
        with pytest.raises(TrainingError):
            trainer.train()
        other = Job(backend="trl", model="base", epochs=9, seed=1).resolved()
        changed = dataclasses.replace(trainer.plan().data, sha256="0" * 64)
        said = run.check(trainer.plan(job=other, data=changed, resume=True), LocalBackend(module=FAKE))
        assert said == [
            f"{trainer.output}: the run there has another epochs, seed; resume it with the same job ({trainer.output / 'job.yaml'})",
            f"{trainer.output}: the run there learns from other data; export the same again, or start anew with another --output",
        ]


class TestTheFolder:
    def check(self, trainer, **changes):
        return run.check(trainer.plan(**changes), LocalBackend(module=FAKE))

    def test_may_be_new(self, trainer):
        assert self.check(trainer) == []
        trainer.output.mkdir()
        assert self.check(trainer) == []

    def test_with_something_else(self, trainer):
        trainer.output.mkdir()
        (trainer.output / "notes.txt").write_text("mine", encoding="utf-8")
        assert self.check(trainer) == [f"{trainer.output}: is not empty, and no run of ours is in it; give --output another folder"]
        (trainer.output / "run.json").write_text("[]", encoding="utf-8")
        assert self.check(trainer) == [f"{trainer.output}: is not empty, and no run of ours is in it; give --output another folder"]

    def test_that_is_a_file(self, trainer):
        trainer.output.write_text("mine", encoding="utf-8")
        assert self.check(trainer) == [f"{trainer.output}: is no folder; give --output a folder, which may be new"]

    def test_with_a_run(self, trainer):
        trainer.write(RESULT)
        trainer.train()
        assert self.check(trainer) == [f"{trainer.output}: holds a run already; go on with it by --resume, or give --output another folder"]

    def test_with_nothing_to_resume(self, trainer):
        assert self.check(trainer, resume=True) == [f"{trainer.output}: holds no run that could be resumed; leave --resume out"]

    def test_without_a_result(self, trainer):
        with pytest.raises(
            TrainingError, match=r"out: holds no finished run \(no result.json\); run touchstone train --output .*, or with"
        ):
            run.read_result(trainer.output)

    @pytest.mark.parametrize("held", ["{", "[]", '{"format": "other"}'])
    def test_with_a_result_that_is_not_ours(self, trainer, held):
        trainer.output.mkdir()
        (trainer.output / "result.json").write_text(held, encoding="utf-8")
        with pytest.raises(
            TrainingError, match=r"result.json: is no result of the format 'pytest-touchstone training 1'; train again into"
        ):
            run.read_result(trainer.output)


class TestTheCommand:
    def test_trains_and_says_what_there_is(self, trainer):
        trainer.write(STEPS, RESULT)
        status, out, err = trainer.command("--set", "lora.r=4")
        assert (status, err) == (0, [])
        assert out[0] == "trl sft: base on 1 examples"
        assert any(line.startswith("trained in ") and line.endswith(": loss 1.0000, 2 steps") for line in out)
        assert "adapter: out/adapter" in out
        assert "  r: 4" in (trainer.output / "job.yaml").read_text(encoding="utf-8")

    def test_a_dry_run_writes_nothing(self, trainer):
        status, out, err = trainer.command("--dry-run", "--set", "epochs=0.5", "--set", "processes=2", "--set", "device=cpu")
        assert (status, err) == (0, [])
        assert "epochs: 0.5" in out
        assert out[-1].startswith(f"$ {sys.executable} -m accelerate.commands.launch --cpu --num_machines 1 --num_processes 2 ")
        assert out[-1].endswith(f"child.py {FAKE} {trainer.output / 'run.json'}")
        assert not trainer.output.exists()

    def test_a_part_that_is_nobody(self, trainer):
        status, _, err = trainer.command("--set", "eval_part=1e-9")
        assert status == 2
        assert err == [
            "touchstone: eval_part 1e-09 keeps none of these few cases to measure the loss on; raise it, or leave it and patience out"
        ]

    def test_problems_keep_it_from_starting_unless_it_is_forced(self, trainer, monkeypatch):
        monkeypatch.setattr(LocalBackend, "problems", lambda *_: ["too little memory; buy some", "no disk; buy one"])
        trainer.write(RESULT)
        status, _, err = trainer.command()
        assert (status, err) == (2, ["touchstone: too little memory; buy some", "touchstone: no disk; buy one"])
        status, out, _ = trainer.command("--force")
        assert status == 0
        assert out[:2] == ["note: too little memory; buy some", "note: no disk; buy one"]

    def test_a_finished_run_has_nothing_to_resume(self, trainer):
        trainer.write(RESULT)
        trainer.command()
        assert trainer.command("--resume")[:2] == (0, ["out: the run is finished; there is nothing to resume"])

    def test_changed_data_are_told_of(self, trainer):
        trainer.write(RESULT)
        file = trainer.folder / "data" / "train.jsonl"
        file.write_bytes(file.read_bytes().replace(b"There", b"Here"))
        status, _, err = trainer.command()
        assert status == 2
        assert "say --allow-changed-data where the change is wanted" in err[0]
        status, out, _ = trainer.command("--allow-changed-data")
        assert status == 0
        assert out[0] == "note: train.jsonl was changed after the export; the guard against holdout cases saw the export only"

    def test_a_set_that_is_none(self, trainer):
        assert trainer.command("--set", "epochs")[2] == ["touchstone: --set epochs: is no FIELD=VALUE; write --set lora.r=32"]

    def test_a_hosted_model_is_named(self, tmp_path):
        said = run.summary({"duration_s": 3.0, "model": "ft:tiny:1", "eval_loss": 0.5}, tmp_path)
        assert said == ["trained in 3 s: eval loss 0.5000", "the model is ft:tiny:1"]
        assert run.summary({"duration_s": 3.0}, tmp_path) == ["trained in 3 s"]


class TestProbing:
    def test_this_python_says_what_it_is(self, trainer, monkeypatch):
        monkeypatch.undo()
        backend = LocalBackend(module=FAKE)
        said = backend.problems(trainer.plan())
        assert any(problem.startswith("the base model 'base' is no folder here") for problem in said)

    def test_a_python_that_is_none(self, trainer, monkeypatch):
        monkeypatch.undo()
        said = LocalBackend(module=FAKE).problems(trainer.plan(python="/bin/false"))
        assert said == ["/bin/false cannot be used: it ended with status 1, without a word"]


class TestServing:
    ENGINE = (
        "import http.server, os, sys\n"
        "class Health(http.server.BaseHTTPRequestHandler):\n"
        "    def do_GET(self):\n"
        "        self.send_response(200)\n"
        "        self.end_headers()\n"
        "    def log_message(self, *_):\n"
        "        print(sys.argv[1:4], os.path.realpath(sys.argv[2]))\n"
        "server = http.server.HTTPServer((sys.argv[4], int(sys.argv[6])), Health)\n"
    )
    FACTS: ClassVar = {"gpus": [], "versions": dict.fromkeys(("torch", "transformers", "peft", "fastapi", "uvicorn"), "1") | {"vllm": None}}

    def serving(self, tmp_path, **changes):
        output = tmp_path / "out"
        (output / "adapter").mkdir(parents=True, exist_ok=True)
        result = {"base_model": "base", "paths": {"adapter": "adapter"}, "lora_r": 16}
        fields = {"output": output, "result": result, "name": "tuned", "host": "127.0.0.1", "port": serve.free_port("127.0.0.1", 0)}
        return serve.Serving(**(fields | {"python": sys.executable} | changes))

    @pytest.fixture
    def engine(self, tmp_path, monkeypatch):
        monkeypatch.setenv("PYTHONPATH", str(tmp_path))
        monkeypatch.setitem(serve._MODULES, "transformers", "fake_engine")
        monkeypatch.setattr(serve, "_facts", lambda *_: self.FACTS)
        (tmp_path / "out" / "merged").mkdir(parents=True)

        def write(text):
            (tmp_path / "fake_engine.py").write_text(text, encoding="utf-8")

        return write

    def test_says_when_it_is_ready_and_ends_on_ctrl_c(self, tmp_path, engine):
        engine(self.ENGINE + "server.serve_forever()\n")
        serving = self.serving(tmp_path)
        said = []

        def say(text):
            said.append(text)
            if text.startswith("ready"):
                interrupting()

        with pytest.raises(KeyboardInterrupt):
            serve.serve(serving, say)
        assert said == [
            f"starting transformers; its output goes to {serving.output / 'serve.log'}",
            f"ready: http://127.0.0.1:{serving.port}/v1 serves tuned",
        ]
        log = (serving.output / "serve.log").read_text(encoding="utf-8")
        assert f"['serve', 'tuned', '--host'] {(serving.output / 'merged').resolve()}" in log

    def test_an_engine_that_ends_by_itself(self, tmp_path, engine):
        engine("print('no luck')\nraise SystemExit(5)\n")
        serving = self.serving(tmp_path)
        with pytest.raises(TrainingError) as caught:
            serve.serve(serving, lambda _: None)
        assert str(caught.value).splitlines() == [
            "transformers ended with status 5",
            "    no luck",
            f"all of its output is in {serving.output / 'serve.log'}",
        ]

    def test_an_adapter_that_cannot_be_merged(self, tmp_path, monkeypatch):
        monkeypatch.setattr(serve, "_facts", lambda *_: self.FACTS)
        with pytest.raises(TrainingError, match="the adapter cannot be merged into its base: the process ended with status 1"):
            serve.serve(self.serving(tmp_path), lambda _: None)

    def test_a_python_without_an_engine(self):
        facts = {"gpus": [], "versions": {"torch": "1", "vllm": "1"}}
        with pytest.raises(
            TrainingError, match=r"p cannot serve a model: it lacks transformers, peft, fastapi, uvicorn; pip install 'trans"
        ):
            serve.choose_engine(facts, "p")

    def test_vllm_where_there_is_a_gpu(self, tmp_path):
        facts = {"gpus": [{}], "versions": {"vllm": "1"}}
        assert serve.choose_engine(facts, "p") == "vllm"
        serving = self.serving(tmp_path, result={"base_model": "base", "paths": {"adapter": "adapter"}, "lora_r": 24}, port=8000)
        command = serve.engine_command("vllm", serving, gpu=True)
        assert command[2:] == [
            "pytest_touchstone.train.engine", "vllm.entrypoints.cli.main", "serve", "base", "--enable-lora", "--max-lora-rank", "32",
            "--lora-modules", f"tuned={serving.output / 'adapter'}", "--host", "127.0.0.1", "--port", "8000",
        ]  # fmt: skip
        (serving.output / "merged").mkdir()
        command = serve.engine_command("vllm", serving, gpu=True)
        assert command[5:8] == [str(serving.output / "merged"), "--served-model-name", "tuned"]

    def test_a_port_that_is_taken(self):
        import socket

        with socket.socket() as taken:
            taken.bind(("127.0.0.1", 0))
            taken.listen()
            port = taken.getsockname()[1]
            with pytest.raises(TrainingError, match=rf"127.0.0.1:{port}: cannot be listened on: .*; give another --port \(0 takes a free"):
                serve.free_port("127.0.0.1", port)

    def test_an_address_of_version_6(self, tmp_path):
        assert self.serving(tmp_path, host="::1", port=80).base_url == "http://[::1]:80/v1"

    def result(self, tmp_path, **fields):
        (tmp_path / "out").mkdir()
        held = {"format": run.RESULT_FORMAT, **fields}
        (tmp_path / "out" / "result.json").write_text(json.dumps(held), encoding="utf-8")
        return str(tmp_path / "out")

    def test_a_hosted_model_has_its_name_printed(self, tmp_path, capsys):
        assert cli.main(["serve", self.result(tmp_path, model="ft:tiny:1")]) == 0
        assert capsys.readouterr().out == "ft:tiny:1 is kept by its provider; give your app this name\n"

    def test_a_name_that_is_none(self, tmp_path, capsys):
        assert cli.main(["serve", self.result(tmp_path), "--name", "../x"]) == 2
        assert (
            capsys.readouterr().err == "touchstone: --name ../x: cannot be served under that name; use letters, digits, '.', '_' and '-'\n"
        )

    def test_the_command_ends_well_when_it_is_stopped(self, tmp_path, capsys, monkeypatch):
        seen = []

        def stopped(serving, say):
            seen.append(serving.name)
            say("starting")
            raise KeyboardInterrupt

        monkeypatch.setattr(serve, "serve", stopped)
        assert cli.main(["serve", self.result(tmp_path), "--port", "0"]) == 0
        assert (seen, capsys.readouterr().out) == (["out"], "starting\nstopped\n")

    def test_this_python_is_asked_what_it_has(self, tmp_path):
        assert set(serve._facts(self.serving(tmp_path))) >= {"versions", "gpus"}
        with pytest.raises(TrainingError, match="/bin/false cannot be used: it ended with status 1"):
            serve._facts(self.serving(tmp_path, python="/bin/false"))
