"""The whole loop, with a real application, the real SDK and a server that stands in for the tuned model."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import time
from pathlib import Path

import improve_stand_ins
import pytest
from providers import FakeProvider, Reply

from pytest_touchstone import improve_steps
from pytest_touchstone.cli import main
from pytest_touchstone.improve_state import Inputs, State

STAND_INS = (sys.executable, improve_stand_ins.__file__)
SUITE = """
import openai
import pytest

client = openai.OpenAI(max_retries=0)

def case(number):
    right = "even" if number % 2 == 0 else "odd"
    return {
        "id": f"n{number}", "input": f"Is it even or odd: {number}", "expected": right, "tags": [right],
        "split": "holdout" if number % 2 == number // 2 % 2 else "train", "must_pass": number == 2,
    }

@pytest.mark.golden([case(number) for number in range(COUNT)])
def test_parity(case):
    messages = [{"role": "system", "content": "Say even or odd."}, {"role": "user", "content": case.input}]
    case.output = client.chat.completions.create(model="parity-1", messages=messages).choices[0].message.content
    case.check(lambda trial: trial.output == trial.expected)
"""


class Project:
    """A project whose application asks a base model that says `even` to everything."""

    def __init__(self, root, capsys):
        self.root = root
        self.capsys = capsys
        self.output = root / "out"

    def write(self, count=40, suite=SUITE):
        (self.root / "test_parity.py").write_text(suite.replace("COUNT", str(count)))
        return self

    def run(self, *options, args=("test_parity.py", "-p", "no:randomly")):
        """The exit status, what was printed, and what was complained about."""
        tail = ("--", *args) if args else ()
        status = main(["improve", "--output", str(self.output), *options, *tail])
        printed = self.capsys.readouterr()
        return status, printed.out, printed.err

    @property
    def evidence(self):
        return json.loads((self.output / "evidence.json").read_text())

    def server_is_gone(self, model):
        """Whether the server of the model that was made from this base has ended."""
        (pid,) = (
            (path.parent / "server.pid").read_text()
            for path in self.output.glob("model-*/result.json")
            if json.loads(path.read_text())["base_model"] == model
        )
        return not Path(f"/proc/{pid}").exists()


@pytest.fixture(scope="module")
def base():
    """The base model, which says `even` to everything."""
    with FakeProvider(Reply(text="even")) as provider:
        yield provider


@pytest.fixture
def project(tmp_path, monkeypatch, capsys, base):
    monkeypatch.setattr(improve_steps, "TRAIN", (*STAND_INS, "train"))
    monkeypatch.setattr(improve_steps, "SERVE", (*STAND_INS, "serve"))
    monkeypatch.setenv("OPENAI_BASE_URL", base.openai_url)
    monkeypatch.setenv("OPENAI_API_KEY", "a-key-for-tests-only")
    monkeypatch.chdir(tmp_path)
    return Project(tmp_path, capsys).write()


class TestTheLoop:
    def test_one_improvement_after_another_on_the_same_first_run(self, project, base):
        """One long story, because each run of the tests is a process of its own: every verdict, and every step that is done again or not."""
        status, out, _ = project.run("--model", "failing", "--backend", "trl")
        assert status == 2
        status, out, err = project.run("--resume")
        assert (status, err) == (0, "")
        asked = len(base.requests)
        lines = out.splitlines()
        assert "    done already" in lines
        assert "    parity-1 is served at http://127.0.0.1:" in out
        assert "promoted: the tuned model is better on cases that it never saw, and lost nothing that counts" in lines
        assert lines[-1] == f"evidence: {project.output / 'evidence.html'}"
        assert project.server_is_gone("failing")
        self.check_evidence(project)
        self.check_that_nothing_was_mixed(project)

        status, out, _ = project.run("--resume")
        assert (status, out.count("    done already")) == (0, 3)

        status, out, _ = project.run("--resume", "--quiet", "--model", "same")
        assert status == 1
        assert out.count("    done already") == 1
        assert (
            "refused: no significant gain on the holdout cases\n  no significant gain on holdout: test_parity.py::test_parity: 20 cases, "
            in out
        )
        assert "50.0% before, 50.0% after, +0.0 points" in out
        assert len(base.requests) == asked

        status, out, _ = project.run("--resume", "--json", "--model", "forgetful")
        evidence = json.loads(out)
        assert (status, [reason["rule"] for reason in evidence["reasons"]]) == (1, ["forgetting"])

        status, out, _ = project.run("--resume", "--model", "late")
        assert status == 1
        assert "refused: a case that must pass failed\n  1 case that must pass failed: n2\n" in out

        status, out, _ = project.run("--resume", "--model", "broken")
        assert status == 1
        assert "20 error" in out
        assert "note: 40 cases that had a verdict before have none that counts now: " in out
        assert project.evidence["trials"]["after"] == {"error": 40}

        status, _, err = project.run("--resume", "--model", "dying")
        assert status == 2
        assert "touchstone: the server of the tuned model ended while the tests ran, so they say nothing about it; its log is " in err
        assert project.server_is_gone("dying")

    @staticmethod
    def check_evidence(project):
        evidence = project.evidence
        assert (evidence["result"], evidence["holdout"][0]["difference"], len(evidence["fixed"])) == ("promoted", 0.5, 20)
        assert evidence["training"]["base_model"] == "failing"
        assert set(evidence["commands"]) == {"before", "train", "serve", "after"}
        page = (project.output / "evidence.html").read_text()
        assert "Is it even or odd: 3" in page
        assert "data:image/svg+xml;base64," in page
        assert "<script" not in page

    @staticmethod
    def check_that_nothing_was_mixed(project):
        """Neither the recordings nor the run history know of the tuned model, and no holdout case is among the training data."""
        (recording,) = (project.root / "__recordings__").glob("*.jsonl")
        assert recording.read_text().count('"odd"') == 0
        assert not (project.root / ".touchstone" / "runs.db").exists()
        taught = (project.output / "training" / "train.jsonl").read_text()
        numbers = {int(word) for word in taught.replace('"', " ").split() if word.isdigit()}
        assert len(numbers) == 20
        assert all(number % 2 != number // 2 % 2 for number in numbers)

    def test_too_few_holdout_cases_train_nothing(self, project):
        status, out, _ = project.write(count=12).run("--model", "good", "--backend", "trl", "--quiet")
        assert status == 1
        assert "nothing was trained: too few holdout cases fail to tell a gain from chance: 6 can be compared and 3 of them fail; " in out
        assert not list(project.output.glob("model-*"))
        assert "nothing was trained" in (project.output / "evidence.html").read_text()

    def test_an_application_that_asks_another_model_decides_nothing(self, project):
        status, _, err = project.run("--model", "good", "--backend", "trl", "--quiet", "--app-env", "SUPPORT_URL={base_url}", "--name", "x")
        assert status == 2
        assert "touchstone: the application did not ask the tuned model at 127.0.0.1:" in err
        assert "it asked 127.0.0.1:" in err
        assert "--app-env SUPPORT_BASE_URL={base_url} --app-env SUPPORT_MODEL={model}" in err


SCRIPT = """
import sys
from pytest_touchstone import cli, improve_steps
improve_steps.TRAIN, improve_steps.SERVE = ({stand_ins} + ("train",)), ({stand_ins} + ("serve",))
sys.exit(cli.main(sys.argv[1:]))
"""


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGKILL], ids=["ctrl-c", "kill -9"])
def test_stopping_it_ends_every_process(project, number):
    script = project.root / "improve.py"
    script.write_text(SCRIPT.format(stand_ins=STAND_INS))
    options = ["improve", "--output", str(project.output), "--model", "slow", "--backend", "trl", "--quiet", "--", "test_parity.py"]
    process = subprocess.Popen([sys.executable, str(script), *options], cwd=project.root, stderr=subprocess.PIPE, text=True)
    begun = wait_for(lambda: next(iter(project.output.glob("model-*/checkpoint")), None), process)
    trainer = Path("/proc") / wait_for(begun.read_text, process)
    process.send_signal(number)
    _, err = process.communicate()
    if number == signal.SIGINT:
        assert process.returncode == 2
        assert err == f"touchstone: interrupted; go on by touchstone improve --resume --output {project.output}\n"
    wait_for(lambda: not trainer.exists() or "zombie" in (trainer / "status").read_text())


def wait_for(condition, process=None):
    """What the condition gives once it gives something; a process that it waits for must not end before."""
    while not (found := condition()):
        assert process is None or process.poll() is None, process.stderr.read()
        time.sleep(0.05)
    return found


@pytest.mark.parametrize(
    ("options", "args", "message"),
    [
        ((), ("evals",), "improve needs a base model to train; give --model BASE, as for touchstone train"),
        (
            ("--model", "b"),
            ("--llm-record=all",),
            (
                "--llm-record=all: leave it out; the first run records as configured (ini llm_record), the second asks the tuned model live "
                "and records nothing"
            ),
        ),
        (
            ("--model", "b"),
            ("--snapshot-update",),
            "--snapshot-update: leave it out; the outputs of a model that is on trial are no baseline",
        ),
        (("--model", "b", "--app-env", "X"), (), "--app-env X: is no NAME=VALUE; write --app-env OPENAI_BASE_URL={base_url}"),
        (
            ("--model", "b", "--backend", "openai"),
            (),
            "--backend openai: the provider names the tuned model; tell your application by --app-env SUPPORT_MODEL={model}",
        ),
        (
            ("--model", "b", "--app-env", "SHOP_API_KEY=x"),
            (),
            "--app-env SHOP_API_KEY: what is given here is kept on disk; set it in the environment, which the tests see as well",
        ),
        (("--model", "b", "--alpha", "2"), (), "improve: alpha is 2.0; give a number between 0 and 1"),
        (("--resume",), (), "OUT: holds no improvement that could be resumed (no state.json); leave --resume out"),
    ],
)
def test_mistakes_are_told_before_anything_runs(project, options, args, message):
    status, out, err = project.run(*options, args=args)
    assert (status, out, err) == (2, "", f"touchstone: {message.replace('OUT', str(project.output))}\n")
    assert not project.output.exists()


def test_a_folder_that_holds_something_is_not_used(project):
    project.output.mkdir()
    (project.output / "mine.txt").touch()
    status, _, err = project.run("--model", "b")
    assert (status, err) == (
        2,
        f"touchstone: {project.output}: is not empty; go on with what is there by --resume, or give --output another folder\n",
    )


def test_a_resumption_without_a_folder_is_of_the_last_one(project, monkeypatch):
    folder = project.root / ".touchstone" / "improve"
    assert main(["improve", "--resume"]) == 2
    message = f"touchstone: {folder}: holds no improvement that could be resumed; leave --resume out, or name its folder by --output\n"
    assert project.capsys.readouterr().err == message
    for name, alpha in (("20260101-000000", 8), ("20260201-000000", 7)):
        State(inputs=Inputs(folder=str(project.root), model="b", alpha=alpha)).save(made(folder / name))
    assert main(["improve", "--resume"]) == 2
    assert project.capsys.readouterr().err == "touchstone: improve: alpha is 7.0; give a number between 0 and 1\n"


def made(folder):
    folder.mkdir(parents=True)
    return folder
