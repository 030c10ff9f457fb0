"""Hosted fine-tuning: the official SDK against a loopback server that speaks OpenAI's wire format."""

from __future__ import annotations

import io
import json
import logging

import pytest
from format_samples import plan_of, write_formats
from providers import FakeProvider, Reply
from tuning_server import METRICS, MODEL, Tuning, failure

from pytest_touchstone import cli
from pytest_touchstone.errors import TrainingError
from pytest_touchstone.train import hosted
from pytest_touchstone.train.hosted import CLOSING, OpenAIBackend
from pytest_touchstone.train.run import run_job
from pytest_touchstone.train.watch import Watch, read_steps

KEY = "sk-planted-0123456789abcdefghij"
BASE = "gpt-4.1-mini-2025-04-14"


class World:
    """One job on a server of its own; `waits` are the seconds that were waited for."""

    def __init__(self, server, tuning, folder):
        self.server = server
        self.tuning = tuning
        self.folder = folder
        self.output = folder / "out"
        self.output.mkdir()
        self.data = write_formats(folder / "data", "openai", "openai-preference")
        self.waits = []
        self.interrupt_at = None
        self.environ = {"OPENAI_API_KEY": KEY, "OPENAI_BASE_URL": server.openai_url}
        self.told = io.StringIO()

    def wait(self, seconds):
        self.waits.append(seconds)
        if self.interrupt_at == len(self.waits):
            raise KeyboardInterrupt

    def backend(self):
        return OpenAIBackend(environ=self.environ, wait=self.wait)

    def plan(self, **fields):
        return plan_of(self.data, self.output, **{"backend": "openai", "model": BASE, **fields})

    def train(self, **fields):
        watch = Watch(self.output, self.told, clock=lambda: 0.0)
        try:
            return self.backend().train(self.plan(**fields), watch)
        finally:
            watch.close()

    def problems(self, **fields):
        return "\n".join(self.backend().problems(self.plan(**fields)))

    def asked(self, last):
        """The requests to paths that end so, in order."""
        return [seen for seen in self.server.requests if seen.path.partition("?")[0].endswith(last)]

    def state(self):
        return json.loads((self.output / "hosted.json").read_bytes())

    def fails(self, **fields):
        with pytest.raises(TrainingError) as caught:
            self.train(**fields)
        return str(caught.value)


@pytest.fixture
def world(tmp_path):
    tuning = Tuning()
    with FakeProvider(tuning) as server:
        yield World(server, tuning, tmp_path)


def test_a_job_is_uploaded_started_and_followed_to_its_model(world):
    result = world.train(openai={"epochs": 2, "suffix": "shop"}, seed=7)
    lines = (world.data / "openai" / "train.jsonl").read_bytes()
    assert world.tuning.files == {"file-1": {"purpose": "fine-tune", "file": lines}}
    asked = world.tuning.jobs["ftjob-1"]["asked"]
    assert asked == {
        "model": BASE,
        "training_file": "file-1",
        "seed": 7,
        "suffix": "shop",
        "method": {"type": "supervised", "supervised": {"hyperparameters": {"n_epochs": 2}}},
        "metadata": {"touchstone": world.state()["tag"]},
    }
    assert result == {
        "model": MODEL,
        "versions": {"openai": hosted.sdk_of("openai").__version__},
        "hosted": {
            "job": "ftjob-1",
            "status": "succeeded",
            "trained_tokens": 1234,
            "training_file": "file-1",
            "validation_file": None,
            "seed": 7,
            "hyperparameters": {"batch_size": 1, "learning_rate_multiplier": 1.8, "n_epochs": 2},
            "checkpoints": [{"step": 1, "model": f"{MODEL}:ckpt-step-1", "metrics": {"step": 1, "train_loss": 1.5}}],
        },
    }
    assert [(step.step, step.loss, step.eval_loss) for step in read_steps(world.output)] == [(1, 1.5, None), (2, 0.5, 0.7)]
    assert world.waits == [hosted.POLL_S]


def test_what_happens_is_told_once_and_can_do_no_harm(world):
    world.train()
    told = world.told.getvalue().splitlines()
    assert told == [
        CLOSING,
        "uploading 12 examples (training) ...",
        "waiting for OpenAI to read the training file ...",
        "starting the job ...",
        "ftjob-1 was started; if this ends, --resume follows it, and Ctrl-C cancels it",
        "OpenAI: Created fine-tuning job",
        r"OpenAI: Fine-tuning job \x1b[31mstarted",
        "step 1/2  loss 1.5000",
        "ftjob-1: running ...",
        "step 2/2  loss 0.5000  eval loss 0.7000",
        "OpenAI: The job has successfully completed",
        "ftjob-1: succeeded ...",
    ]


def test_pairs_go_to_direct_preference_optimisation(world):
    world.train(method="dpo", beta=0.2, openai={"batch_size": 4, "learning_rate_multiplier": 0.5})
    chosen = {"batch_size": 4, "learning_rate_multiplier": 0.5, "beta": 0.2}
    assert world.tuning.jobs["ftjob-1"]["asked"]["method"] == {"type": "dpo", "dpo": {"hyperparameters": chosen}}
    assert b"non_preferred_output" in world.tuning.files["file-1"]["file"]


def test_a_part_of_the_cases_is_measured_on_and_not_trained(world):
    world.data = write_formats(world.folder / "more", "openai", examples=40, left=(3,))
    world.train(eval_part=0.2)
    training, validation = (world.tuning.files[name]["file"].splitlines() for name in ("file-1", "file-2"))
    whole = (world.data / "openai" / "train.jsonl").read_bytes().splitlines()
    assert sorted(training + validation) == sorted(whole)
    # The same cases as every other backend takes out.
    taken = {f"Question {number - 1}?" for number in world.plan().data.eval_lines(0.2)} - {"Question 3?"}
    assert {json.loads(line)["messages"][0]["content"] for line in validation} == taken
    assert len(taken) > 2
    assert world.tuning.jobs["ftjob-1"]["asked"]["validation_file"] == "file-2"


class TestProblems:
    """What is found before anything is paid for, all at once."""

    def test_none(self, world):
        assert world.problems() == ""
        assert world.server.requests == []

    def test_a_missing_key_and_too_few_examples(self, world):
        world.environ = {}
        world.data = write_formats(world.folder / "few", "openai", examples=9)
        assert world.problems() == (
            f"OPENAI_API_KEY is not set; export it\n{world.data}/openai/train.jsonl: 9 examples to train on, and OpenAI takes 10 or more;"
            " export more cases"
        )

    def test_too_few_once_some_are_measured_on(self, world):
        world.data = write_formats(world.folder / "few", "openai", examples=11)
        assert ": 6 examples to train on, after 5 examples were taken out by eval_part, and OpenAI takes 10 or more" in world.problems(
            eval_part=0.5
        )

    @pytest.mark.parametrize("key", ["sk-with\nend", "sk with space", "sk-ü"])
    def test_a_key_that_cannot_be_one_is_not_shown(self, world, key):
        world.environ["OPENAI_API_KEY"] = key
        told = world.problems()
        assert told == "OPENAI_API_KEY holds a character that no key has, such as a space or the end of a line; set it again"
        assert world.fails() == told

    def test_a_base_url_that_is_none(self, world):
        world.environ["OPENAI_BASE_URL"] = "localhost:8000"
        assert world.problems() == "the base URL is not one; write it as http://localhost:8000/v1"

    def test_an_export_without_the_format(self, world):
        world.data = write_formats(world.folder / "plain", "llamafactory")
        assert world.problems() == (
            f"{world.data}/openai/train.jsonl: is not there: the export was made without the format 'openai';"
            " export again with --llm-export-format openai"
        )
        assert "export again with --llm-export-format openai-preference" in world.problems(method="dpo")

    def test_a_file_that_is_too_large(self, world, monkeypatch):
        monkeypatch.setattr(hosted, "MAX_BYTES", 100)
        assert "bytes, and OpenAI takes 100 a file; export fewer, as with --llm-replay 0.5" in world.problems()


def test_a_dry_run_says_what_would_be_asked(world):
    lines = world.backend().command(world.plan(eval_part=0.5, openai={"epochs": 1}))
    size = (world.data / "openai" / "train.jsonl").stat().st_size
    assert lines[0].startswith(f"POST {world.server.openai_url}/files: ")
    assert sum(int(line.split("files: ")[1].split()[0].replace(",", "")) for line in lines[:2]) == size
    assert lines[2] == (
        f"POST {world.server.openai_url}/fine_tuning/jobs: "
        f'{{"model": "{BASE}", "seed": 3407, "method": {{"type": "supervised", "supervised": {{"hyperparameters": {{"n_epochs": 1}}}}}}}}'
    )
    assert lines[3] == CLOSING
    assert world.server.requests == []


class TestResume:
    """Nothing is paid for twice."""

    def test_a_job_goes_on_after_a_crash(self, world):
        world.tuning.errors["GET ftjob-1"] = [Reply(status=400, error="stop here")]
        assert world.fails() == "ftjob-1 could not be looked at: OpenAI says no (HTTP 400: stop here)"
        assert world.state()["job"] == "ftjob-1"
        assert world.train(resume=True)["model"] == MODEL
        assert len(world.tuning.jobs) == len(world.tuning.files) == 1
        assert "ftjob-1 was started before; following it" in world.told.getvalue()
        assert [step.step for step in read_steps(world.output)] == [1, 2]

    def test_an_upload_is_used_again(self, world):
        world.tuning.errors["POST jobs"] = [failure(400, "no such model")]
        assert world.fails() == "the job could not be started: OpenAI says no (HTTP 400: no such model)"
        world.train(resume=True)
        assert len(world.asked("/files")) == 1
        assert list(world.tuning.jobs) == ["ftjob-1"]

    def test_an_upload_that_is_gone_is_made_again(self, world):
        world.tuning.errors["POST jobs"] = [failure(400, "no such model")]
        world.fails()
        del world.tuning.files["file-1"]
        world.tuning.files["file-0"] = {"file": b""}
        world.train(resume=True)
        assert world.tuning.jobs["ftjob-1"]["asked"]["training_file"] == "file-2"

    def test_a_job_whose_start_was_cut_off_is_found(self, world):
        world.tuning.errors["POST jobs"] = [failure(400, "no")]
        world.fails()
        tag = world.state()["tag"]
        stranger = {"model": BASE, "training_file": "file-9", "method": {"type": "dpo", "dpo": {"hyperparameters": {}}}}
        world.tuning.create(stranger)
        world.tuning.create({**stranger, "metadata": {"touchstone": tag}})
        assert world.train(resume=True)["hosted"]["job"] == "ftjob-2"
        assert "ftjob-2 had been started before; following it" in world.told.getvalue()

    def test_a_server_that_ignores_the_filter_gives_no_stranger_s_job(self, world):
        world.tuning.errors["POST jobs"] = [failure(400, "no")]
        world.fails()
        listing = {"object": "list", "data": [], "has_more": False}
        world.tuning.create({"model": BASE, "training_file": "f", "method": {"type": "dpo", "dpo": {"hyperparameters": {}}}})
        listing["data"] = [world.tuning.job_object("ftjob-1")]
        world.tuning.errors["GET jobs"] = [Reply(body=listing)]
        assert world.train(resume=True)["hosted"]["job"] == "ftjob-2"

    @pytest.mark.parametrize("fields", [{}, {"resume": True, "seed": 8}])
    def test_a_folder_with_another_job_is_refused(self, world, fields):
        world.tuning.errors["GET ftjob-1"] = [Reply(status=400, error="stop here")]
        world.fails(seed=7)
        assert world.fails(**fields) == (
            f"{world.output}/hosted.json: belongs to a job that was begun before; --resume goes on with it, asked for as it was,"
            " or choose another --output"
        )

    @pytest.mark.parametrize("content", [b"{", b'{"format": "other 1", "request": {}, "tag": "t"}'])
    def test_a_file_that_cannot_be_read_is_not_replaced(self, world, content):
        (world.output / "hosted.json").write_bytes(content)
        assert world.fails(resume=True).startswith(
            f"{world.output}/hosted.json: cannot be read as what a hosted job left; look at your jobs"
        )
        assert (world.output / "hosted.json").read_bytes() == content


class TestStart:
    """An answer that did not come may mean a job that was started."""

    @pytest.mark.parametrize("lost", [failure(500, "oops"), failure(409, "busy"), Reply(drop_after=0)])
    def test_a_lost_answer_does_not_start_a_second_job(self, world, lost):
        class Losing(Tuning):
            def create(self, asked):
                super().create(asked)
                return lost

        world.server.answer = world.tuning = Losing()
        assert world.train()["hosted"]["job"] == "ftjob-1"
        assert len(world.asked("/fine_tuning/jobs")) == 2  # the start, and the look for it

    def test_a_busy_server_is_asked_again_after_the_time_it_names(self, world):
        world.tuning.errors["POST jobs"] = [failure(429, "slow down"), failure(503, "busy"), None]
        world.train()
        assert world.waits[:2] == [0.001, 0.001]
        assert list(world.tuning.jobs) == ["ftjob-1"]

    def test_it_gives_up_after_three(self, world):
        world.tuning.errors["POST jobs"] = [Reply(status=429, error="slow down")] * 3
        assert world.fails() == "the job could not be started: OpenAI says no (HTTP 429: slow down)"
        assert world.waits == [hosted.RETRY_S] * 2

    def test_an_empty_account_is_not_asked_again(self, world):
        world.tuning.errors["POST jobs"] = [failure(429, "You exceeded your current quota", "insufficient_quota")]
        assert world.fails() == "the job could not be started: OpenAI says no (HTTP 429: You exceeded your current quota)"
        assert world.waits == []

    def test_an_account_that_fine_tuning_is_closed_to(self, world):
        world.tuning.errors["POST jobs"] = [failure(403, "Fine-tuning is not available to new organizations")]
        assert world.fails() == (
            "the job could not be started: OpenAI does not allow it (HTTP 403: Fine-tuning is not available to new organizations);"
            " fine-tuning may be closed to your organization, or the key may not be allowed to use it"
        )

    def test_not_knowing_whether_it_was_started_is_said(self, world):
        world.tuning.errors["POST jobs"] = [failure(500, "oops")]
        world.tuning.errors["GET jobs"] = [failure(400, "not now")]
        assert world.fails() == "it is not known whether the job was started (--resume looks again): OpenAI says no (HTTP 400: not now)"


class TestUpload:
    """The file at OpenAI."""

    def test_it_is_waited_for(self, world):
        world.tuning.file_states = ["uploaded", "uploaded", "processed"]
        world.train()
        assert world.waits[:2] == [hosted.POLL_S] * 2
        assert world.told.getvalue().count("waiting for OpenAI to read the training file") == 1

    def test_one_that_cannot_be_used(self, world):
        world.tuning.file_states = ["error"]
        assert world.fails() == "OpenAI cannot use the training file file-1: line 3 has no assistant message; export again"
        assert world.tuning.jobs == {}

    def test_one_that_is_never_read(self, world, monkeypatch):
        monkeypatch.setattr(hosted, "MAX_FILE_POLLS", 6)
        world.tuning.file_states = ["uploaded"]
        assert world.fails() == "OpenAI has not read the training file file-1 in 1 minutes; --resume looks again"

    def test_one_that_is_refused(self, world):
        world.tuning.errors["POST files"] = [failure(413, "too big")]
        assert world.fails() == "the training file could not be uploaded: OpenAI says no (HTTP 413: too big)"

    def test_a_busy_server_is_asked_again_by_the_sdk(self, world):
        world.tuning.errors["POST files"] = [failure(429, "slow down"), None]
        world.train()
        assert len(world.asked("/files")) == 2


class TestInterrupt:
    """Ctrl-C."""

    def interrupted(self, world, at=1, **fields):
        world.interrupt_at = at
        with pytest.raises(KeyboardInterrupt):
            world.train(**fields)
        return world.told.getvalue().splitlines()[-1]

    def test_it_cancels_the_job_and_says_so(self, world):
        assert self.interrupted(world) == "ftjob-1 was cancelled; OpenAI may bill what it had trained"
        assert world.tuning.jobs["ftjob-1"]["status"] == "cancelled"
        assert world.state()["status"] == "cancelled"
        world.interrupt_at = None
        assert world.fails(resume=True) == "ftjob-1 was cancelled; choose another --output for a new job"

    def test_one_that_cannot_be_cancelled_is_named(self, world):
        world.tuning.errors["POST cancel"] = [failure(400, "Job has already succeeded")]
        assert self.interrupted(world) == (
            "ftjob-1 could not be cancelled, so it may go on and be billed: OpenAI says no (HTTP 400: Job has already succeeded);"
            " --resume follows it"
        )

    def test_before_a_job_there_is_nothing_to_cancel(self, world):
        world.tuning.file_states = ["uploaded"]
        assert self.interrupted(world) == "no job was started; what was uploaded is used again with --resume"
        assert world.asked("/fine_tuning/jobs") == []

    def test_while_it_is_started_the_job_is_looked_for(self, world):
        class Late(Tuning):
            """Starts the job after it has said that it cannot."""

            def create(self, asked):
                super().create(asked)
                self.hidden, self.jobs = self.jobs, {}
                return failure(503, "busy")

            def listed(self, query):
                reply = super().listed(query)
                self.jobs = self.hidden
                return reply

        world.server.answer = world.tuning = Late()
        assert self.interrupted(world) == "ftjob-1 was cancelled; OpenAI may bill what it had trained"

    def test_where_it_is_not_known_whether_it_was_started(self, world):
        world.tuning.errors["POST jobs"] = [failure(503, "busy")]
        world.tuning.errors["GET jobs"] = [None, failure(401, KEY)]
        assert self.interrupted(world) == (
            "a job could not be cancelled, so it may go on and be billed: it is not known whether the job was started"
            " (--resume looks again): OpenAI refused the key (HTTP 401); check OPENAI_API_KEY; --resume follows it"
        )


class TestEnd:
    """How a job ends badly."""

    def test_a_failed_job_says_what_the_provider_said(self, world):
        world.tuning.states = ["validating_files", "failed"]
        world.tuning.error = {"code": "invalid_training_file", "message": "line 4 \x1b[2J\nis blocked", "param": "training_file"}
        assert world.fails() == (
            r"ftjob-1 failed: invalid_training_file: line 4 \x1b[2J is blocked (in training_file); choose another --output for a new job"
        )
        assert world.state()["status"] == "failed"

    def test_one_that_does_not_say_why(self, world):
        world.tuning.states = ["failed"]
        assert world.fails() == "ftjob-1 failed: it does not say why; choose another --output for a new job"

    def test_one_that_names_no_model(self, world):
        world.tuning.model = None
        assert world.fails() == "ftjob-1 succeeded, but OpenAI names no tuned model; look at it with OpenAI's own tools"

    def test_a_server_that_is_gone_for_a_while_is_waited_for(self, world):
        world.tuning.errors["GET ftjob-1"] = [failure(503, "busy")] * 10 + [None]
        assert world.train()["model"] == MODEL
        assert world.told.getvalue().count("goes on, but cannot be seen: OpenAI says no (HTTP 503: busy); trying again") == 1

    def test_one_that_stays_away_is_given_up(self, world, monkeypatch):
        monkeypatch.setattr(hosted, "MAX_LOST", 2)
        world.tuning.errors["GET ftjob-1"] = [failure(503, "busy")] * 10
        assert world.fails() == "lost sight of ftjob-1: OpenAI says no (HTTP 503: busy); it goes on at OpenAI, and --resume follows it"

    def test_checkpoints_that_cannot_be_listed(self, world):
        world.tuning.errors["GET checkpoints"] = [failure(404, "gone")]
        assert world.fails() == (
            "ftjob-1 succeeded, but its checkpoints could not be listed (--resume tries again): OpenAI says no (HTTP 404: gone)"
        )

    def test_a_server_that_is_not_there(self, world):
        world.server.stop()
        assert world.fails().startswith("the training file could not be uploaded: OpenAI could not be reached (ConnectError: ")


def test_metrics_without_a_loss_or_a_total_are_told_as_words(world):
    world.tuning.step_metrics = [{**METRICS, "train_loss": None}, {"step": 2, "train_loss": 0.5, "total_steps": None}]
    world.train()
    assert [(step.step, step.loss) for step in read_steps(world.output)] == [(2, 0.5)]
    assert "OpenAI: Step 1/2: training loss=None" in world.told.getvalue()


def test_an_error_without_a_body_is_told_by_its_status(world):
    world.tuning.errors["POST jobs"] = [Reply(status=418, body=b"")]
    assert world.fails() == "the job could not be started: OpenAI says no (HTTP 418)"


def test_no_key_reaches_a_file_a_log_or_a_message(world, caplog, monkeypatch):
    """A server that repeats the key, in all that it says."""
    caplog.set_level(logging.DEBUG)
    monkeypatch.setenv("OPENAI_LOG", "debug")
    world.tuning.errors["POST files"] = [failure(401, f"Incorrect API key: {KEY}"), failure(400, f"Bearer {KEY} is odd")]
    told = [world.fails(), world.fails()]
    world.tuning.states = ["failed"]
    world.tuning.error = {"code": KEY, "message": KEY, "param": KEY}
    told.append(world.fails())
    everything = [*told, world.told.getvalue(), caplog.text, *(path.read_text() for path in world.output.rglob("*") if path.is_file())]
    assert not any(KEY in text for text in everything)
    assert told[0] == "the training file could not be uploaded: OpenAI refused the key (HTTP 401); check OPENAI_API_KEY"
    assert "[redacted]" in told[1]
    assert "[redacted]" in told[2]


def test_the_command_trains_and_leaves_a_result(world, monkeypatch, capsys):
    monkeypatch.setattr("pytest_touchstone.train.hosted.OPENAI", world.backend())
    arguments = ["train", str(world.data), "--output", str(world.folder / "run"), "--backend", "openai", "--model", BASE]
    assert cli.main(arguments) == 0
    told = capsys.readouterr().out
    assert f"openai sft: {BASE} on 12 examples" in told
    assert f"the model is {MODEL}" in told
    result = json.loads((world.folder / "run" / "result.json").read_bytes())
    assert (result["model"], result["loss"], result["eval_loss"], result["hosted"]["trained_tokens"]) == (MODEL, 0.5, 0.7, 1234)
    assert cli.main(arguments) == 2
    assert "holds a run already; go on with it by --resume" in capsys.readouterr().err


def test_pairs_need_no_other_format(world, monkeypatch):
    monkeypatch.setattr("pytest_touchstone.train.hosted.OPENAI", world.backend())
    arguments = ["train", str(world.data), "--output", str(world.folder / "run"), "--backend", "openai", "--model", BASE, "--method", "dpo"]
    assert cli.main(arguments) == 0


def test_the_run_can_be_interrupted_and_says_what_it_cancelled(world, monkeypatch, capsys):
    monkeypatch.setattr("pytest_touchstone.train.hosted.OPENAI", world.backend())
    world.interrupt_at = 1
    arguments = ["train", str(world.data), "--output", str(world.folder / "run"), "--backend", "openai", "--model", BASE]
    assert cli.main(arguments) == 2
    told = capsys.readouterr()
    assert "ftjob-1 was cancelled" in told.out
    assert told.err == "touchstone: interrupted\n"


def test_a_dry_run_of_the_command_asks_nothing(world, monkeypatch, capsys):
    monkeypatch.setattr("pytest_touchstone.train.hosted.OPENAI", world.backend())
    arguments = ["train", str(world.data), "--output", str(world.folder / "run"), "--backend", "openai", "--model", BASE, "--dry-run"]
    assert cli.main(arguments) == 0
    assert world.server.requests == []
    assert not (world.folder / "run").exists()
    assert KEY not in capsys.readouterr().out


def test_a_run_s_folder_can_be_resumed_by_the_command(world):
    world.tuning.errors["GET ftjob-1"] = [Reply(status=400, error="stop here")]
    output = world.folder / "run"
    plan = plan_of(world.data, output, backend="openai", model=BASE)
    with pytest.raises(TrainingError, match="stop here"):
        run_job(plan, world.backend(), world.told)
    again = plan_of(world.data, output, resume=True, backend="openai", model=BASE)
    assert run_job(again, world.backend(), world.told)["model"] == MODEL
    assert len(world.tuning.jobs) == 1
