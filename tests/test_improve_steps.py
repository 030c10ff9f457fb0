"""What the steps check before they believe a run, a training, or a server."""

from __future__ import annotations

import dataclasses
import json
import sys

import pytest
from run_samples import call, record, run

from pytest_touchstone import improve_steps
from pytest_touchstone.errors import ImproveError, SettingsError
from pytest_touchstone.git import Checkout
from pytest_touchstone.improve import Refusal
from pytest_touchstone.improve_state import Inputs, State, file_hash
from pytest_touchstone.improve_steps import Improvement, Tried
from pytest_touchstone.runs import RunStore

SAY = "say by --name which name the tuned model takes, or tell the application by --app-env SUPPORT_MODEL={model}"
TELL = "tell your application another one by --app-env SUPPORT_MODEL={model}, or --name with letters, digits, '.', '_' and '-'"
TUNED = "127.0.0.1:8000"
MANIFEST = {"by_kind": {"fix": 1}, "left_out_by_reason": {}, "examples": [], "holdout_taught": [], "train_sha256": None, "written": 1}


def tried(*calls, judges=(), **changes):
    records = [record(calls=tuple(calls), split="holdout"), record("gift", split="train")]
    made = run(records, **changes)
    return Tried(run=dataclasses.replace(made, judges=tuple(judges)), records=records)


def improvement(folder, environ=None, **inputs):
    said = []
    state = State(inputs=Inputs(**{"folder": str(folder), "model": "base", **inputs}))
    made = Improvement(folder, state, environ=environ or {}, say=said.append, follow=False)
    return made, said


class TestCalls:
    def elsewhere(self, before, after):
        return list(improve_steps._asked_elsewhere(before, after, TUNED))

    def test_all_went_to_the_tuned_model(self):
        assert self.elsewhere(tried(), tried(call(host=TUNED))) == []

    def test_some_went_elsewhere(self):
        found = self.elsewhere(tried(), tried(call(host=TUNED), call(host="api.openai.com"), call(host="")))
        assert found == ["2 of 3 calls of the application went elsewhere (api.openai.com, an unknown server)"]

    @pytest.mark.parametrize(
        ("calls", "asked"), [((call(host="api.openai.com"),), "api.openai.com"), ((), "no model at all")], ids=["another", "none"]
    )
    def test_none_went_there(self, calls, asked):
        with pytest.raises(ImproveError) as error:
            self.elsewhere(tried(call(host="api.openai.com")), tried(*calls))
        assert str(error.value) == (
            f"the application did not ask the tuned model at {TUNED}, it asked {asked}; name the environment variables in which it finds its "
            "model: --app-env SUPPORT_BASE_URL={base_url} --app-env SUPPORT_MODEL={model}"
        )

    def test_none_was_ever_seen(self):
        found = self.elsewhere(tried(), tried())
        assert found == ["no call of the application was seen, so nobody can say that it asked the tuned model"]

    def test_a_judge_asked_the_tuned_model(self):
        with pytest.raises(ImproveError) as error:
            self.elsewhere(tried(), tried(call(host=TUNED), call(host=TUNED, role="judge")))
        assert str(error.value) == (
            f"judges asked the tuned model ({TUNED}) to judge itself; give their address by --llm-judge-base-url, or base_url= of judge(...)"
        )


class TestTheEnvironment:
    def test_placeholders_are_replaced_and_nothing_else(self, tmp_path):
        made, _ = improvement(tmp_path, {"HOME": "/h"}, app_env=("A={base_url}/x?{model}", "B={other}{{7*7}}=1"))
        environ, more = made._app_environment(tried(), "http://127.0.0.1:1/v1", "tuned")
        assert (environ, more) == ({"HOME": "/h", "A": "http://127.0.0.1:1/v1/x?tuned", "B": "{other}{{7*7}}=1"}, [])

    def test_without_app_env_it_is_the_address_that_the_sdk_reads(self, tmp_path):
        made, _ = improvement(tmp_path, {"OPENAI_BASE_URL": "https://proxy.invalid/v1"})
        environ, more = made._app_environment(tried(), "http://127.0.0.1:1/v1", "tuned")
        assert (environ, more) == ({"OPENAI_BASE_URL": "http://127.0.0.1:1/v1", "OPENAI_API_KEY": "not-needed"}, [])

    @pytest.mark.parametrize(
        ("environ", "address"),
        [({}, "https://api.openai.com/v1"), ({"OPENAI_BASE_URL": "https://proxy.invalid/v1"}, "https://proxy.invalid/v1")],
    )
    def test_judges_go_where_they_went(self, tmp_path, environ, address):
        made, _ = improvement(tmp_path, environ)
        environ, more = made._app_environment(tried(judges=["openai:gpt-5#1"]), "http://127.0.0.1:1/v1", "tuned")
        assert (environ, more) == ({"OPENAI_BASE_URL": "http://127.0.0.1:1/v1"}, ["--llm-judge-base-url", address])

    def test_judges_with_an_address_or_of_another_provider_are_left_alone(self, tmp_path):
        made, _ = improvement(tmp_path)
        placed = tried(judges=["openai:gpt-5#1"], options={"judge.base_url": "https://j.invalid"})
        for before in (placed, tried(judges=["anthropic:c#1", "openai:gpt-5#1"])):
            assert made._app_environment(before, "http://127.0.0.1:1/v1", "tuned")[1] == []

    def test_a_proxy_is_not_asked_for_this_machine(self, tmp_path):
        made, _ = improvement(tmp_path, {"HTTP_PROXY": "http://p.invalid", "NO_PROXY": "x.invalid"}, app_env=("A=1",))
        environ, _ = made._app_environment(tried(), "http://127.0.0.1:1/v1", "tuned")
        assert environ["NO_PROXY"] == environ["no_proxy"] == "x.invalid,127.0.0.1"


class TestTheName:
    def test_it_is_the_one_that_the_application_asks_for(self, tmp_path):
        made, _ = improvement(tmp_path)
        assert made._name(tried(call(model="gpt-5-mini"))) == "gpt-5-mini"

    def test_it_is_ours_where_the_application_is_told(self, tmp_path):
        made, _ = improvement(tmp_path, app_env=("MODEL={model}",))
        assert made._name(tried()) == "touchstone-tuned"

    def test_it_is_the_one_that_was_given(self, tmp_path):
        made, _ = improvement(tmp_path, name="mine")
        assert made._name(tried(call(), call(model="b"))) == "mine"

    @pytest.mark.parametrize(
        ("calls", "message"),
        [
            ((call(model="a"), call(model="b")), f"the application asks for 2 models (a, b); {SAY}"),
            ((), f"the application asks for no model that was seen; {SAY}"),
            ((call(model="org/m"),), f"no model can be served as 'org/m'; {TELL}"),
        ],
        ids=["two", "none", "slash"],
    )
    def test_no_name_will_do(self, tmp_path, calls, message):
        made, _ = improvement(tmp_path)
        with pytest.raises(SettingsError) as error:
            made._name(tried(*calls))
        assert str(error.value) == message


class TestTheExport:
    def test_nothing_to_learn(self):
        with pytest.raises(ImproveError) as error:
            improve_steps._check_examples({**MANIFEST, "by_kind": {"replay": 3}, "left_out_by_reason": {"no verified target": 2}}, tried())
        assert str(error.value) == "there is nothing to learn: no failing train case has a verified target (2 no verified target)"

    def test_a_holdout_case_among_the_examples(self):
        leaked = {"suite": record().suite, "case_id": "late"}
        with pytest.raises(ImproveError) as error:
            improve_steps._check_examples({**MANIFEST, "examples": [leaked]}, tried())
        assert str(error.value) == "the training data hold holdout cases, so they could not measure anything: late; export again"

    def test_holdout_cases_that_were_taught_before(self):
        taught = [{"case_id": "late"}, {"case_id": "late"}]
        assert improve_steps._taught(MANIFEST) is None
        assert improve_steps._taught({**MANIFEST, "holdout_taught": taught}) == Refusal(
            rule="cases",
            text=(
                "1 holdout case had been in earlier exports into this folder, so a model made from those has seen them: late; export into a "
                "folder of its own if the base model has not"
            ),
        )

    def test_no_manifest_or_another_file_than_it_tells_of(self, tmp_path):
        made, _ = improvement(tmp_path, export=str(tmp_path))
        with pytest.raises(ImproveError) as error:
            made._manifest()
        path = tmp_path / "manifest.json"
        assert str(error.value) == (
            f"{path}: there is no manifest of an export; the run of the tests wrote none ({tmp_path / 'before.log'})"
        )
        path.write_text(json.dumps({**MANIFEST, "train_sha256": "ab"}))
        with pytest.raises(ImproveError) as error:
            made._manifest()
        assert (
            str(error.value) == f"{tmp_path / 'train.jsonl'}: is not the file that its manifest tells of; leave the export as it is written"
        )


class TestTheRuns:
    def test_a_step_that_fails_says_where_its_log_is(self, tmp_path):
        made, _ = improvement(tmp_path)
        with pytest.raises(ImproveError) as error:
            made._run("train", [sys.executable, "-c", "print('no memory'); raise SystemExit(3)"], {})
        assert str(error.value) == (
            f"train ended with status 3; its log is {tmp_path / 'train.log'}:\n  | no memory\n"
            f"once that is mended, go on by touchstone improve --resume --output {tmp_path}"
        )

    def test_tests_that_left_no_run(self, tmp_path):
        made, _ = improvement(tmp_path)
        with pytest.raises(ImproveError) as error:
            made._run_tests("before", [sys.executable, "-c", ""], {})
        assert str(error.value) == f"before: the tests left no run, so no golden test ran; the log is {tmp_path / 'before.log'}"

    def test_a_run_that_ended_early(self, tmp_path, monkeypatch):
        made, _ = improvement(tmp_path)
        store = RunStore.open("runs.db", base=tmp_path)

        def stores(*_):
            store.add(run([record()], complete=False), [record()], redact=str)

        monkeypatch.setattr(made, "_run", stores)
        with pytest.raises(ImproveError) as error:
            made._run_tests("before", [], {})
        assert str(error.value) == (
            "before: the run ended before every case was tried (by -x or a budget), so it decides nothing; have it try all of them"
        )

    def test_a_training_without_a_result(self, tmp_path, monkeypatch):
        monkeypatch.setattr(improve_steps, "TRAIN", (sys.executable, "-c", ""))
        made, _ = improvement(tmp_path)
        with pytest.raises(ImproveError, match=r"result\.json: the training left no result there; its log is .*train\.log$"):
            made._train(MANIFEST)

    def test_what_differs_beside_the_model(self):
        clean = Checkout(commit="a" * 40, dirty=False, branch="main")
        before = tried(call(), checkout=clean).run
        other_prompt = dataclasses.replace(before, prompts=("0" * 64,))
        dirty = dataclasses.replace(before, checkout=dataclasses.replace(clean, dirty=True))
        later = dataclasses.replace(before, checkout=dataclasses.replace(clean, commit="b" * 40))
        assert list(improve_steps._differences(before, before)) == []
        assert list(improve_steps._differences(before, other_prompt)) == ["the system prompts differ between the two runs"]
        assert list(improve_steps._differences(before, dirty)) == [
            "there are changes that are not committed, so nobody can say that only the model differs"
        ]
        assert list(improve_steps._differences(before, later)) == [
            "the commit changed between the two runs, so the model is not all that differs"
        ]


class TestTheServer:
    def serve(self, tmp_path, monkeypatch, text, **inputs):
        monkeypatch.setattr(improve_steps, "SERVE", (sys.executable, "-c", text))
        made, _ = improvement(tmp_path, **inputs)
        with pytest.raises(ImproveError) as error, made._reachable(tmp_path, {}, "tuned"):
            pass
        return str(error.value)

    def test_it_ends_before_it_answers(self, tmp_path, monkeypatch):
        message = self.serve(tmp_path, monkeypatch, "raise SystemExit('no engine')")
        assert message == (f"the server of the tuned model ended before it answered; its log is {tmp_path / 'serve.log'}:\n  | no engine")

    def test_it_does_not_answer_in_time(self, tmp_path, monkeypatch):
        message = self.serve(tmp_path, monkeypatch, "import signal; signal.pause()", serve_timeout_s=0.0)
        assert message.startswith("the server of the tuned model did not answer within 0 s (--serve-timeout); its log is ")

    def test_a_hosted_model_is_where_its_provider_is(self, tmp_path):
        made, _ = improvement(tmp_path, app_env=("MODEL={model}",))
        with made._reachable(tmp_path, {"model": "ft:gpt:me"}, "x") as found:
            assert found == ("https://api.openai.com/v1", "ft:gpt:me")
        made, _ = improvement(tmp_path)
        with pytest.raises(SettingsError) as error, made._reachable(tmp_path, {"model": "ft:gpt:me"}, "x"):
            pass
        assert str(error.value) == (
            "the tuned model is ft:gpt:me, kept by its provider; tell your application by --app-env SUPPORT_MODEL={model}"
        )


def test_the_same_inputs_train_in_the_same_folder_and_others_in_another(tmp_path, monkeypatch):
    script = "import sys, json, pathlib; p = pathlib.Path(sys.argv[sys.argv.index('--output') + 1]); p.mkdir(); (p / 'result.json').write_text('{}')"
    monkeypatch.setattr(improve_steps, "TRAIN", (sys.executable, "-c", script))
    config = tmp_path / "job.yaml"
    config.write_text("seed: 1")
    folders = []
    for seed in ("1", "1", "2"):
        config.write_text(f"seed: {seed}")
        made, said = improvement(tmp_path, config=str(config), backend="trl", python="py", train_args=("--download",))
        made.state.steps.update(folders[-1][1] if folders else {})
        model, _ = made._train(MANIFEST)
        folders.append((model, made.state.steps, "    done already" in said))
    assert folders[0][0] == folders[1][0] != folders[2][0]
    assert [done for _, _, done in folders] == [False, True, False]
    assert file_hash(folders[2][0] / "result.json")
    assert made.commands["train"].endswith(f"--backend trl --config {config} --python py --download")


def test_a_command_is_shown_as_a_person_would_type_it():
    shown = improve_steps._shown([*improve_steps.PYTEST, "--llm-judge-base-url", "http://me:pw@j.invalid/v1", "a b"])
    assert shown == "pytest --llm-eval --llm-gate strict --llm-judge-base-url http://j.invalid/v1 'a b'"
    assert improve_steps._shown([*improve_steps.SERVE, "out"]) == "touchstone serve out"
