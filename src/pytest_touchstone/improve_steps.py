"""The steps of an improvement: a run of the tests that exports, the training, a run of the tests with what was trained, the verdict."""

from __future__ import annotations

import contextlib
import http.client
import json
import re
import shlex
import sys
import time
import urllib.request
from collections import Counter
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, cast
from urllib.parse import urlsplit

from pytest_touchstone.errors import ImproveError, SettingsError
from pytest_touchstone.export.format import TRAIN_FILE
from pytest_touchstone.export.write import MANIFEST_FILE
from pytest_touchstone.improve import PromotionPolicy, Refusal, Side, hopeless, promote, untried
from pytest_touchstone.improve_process import Process
from pytest_touchstone.improve_state import Done, Inputs, State, StepName, file_hash, fingerprint
from pytest_touchstone.recording.redact import is_secret_name
from pytest_touchstone.runs import RunStore
from pytest_touchstone.text import counted, listed, shorten, visible
from pytest_touchstone.train.serve import NAME, free_port

if TYPE_CHECKING:
    from collections.abc import Callable, Generator, Iterator, Mapping, Sequence

    from pytest_touchstone.improve import Verdict
    from pytest_touchstone.runs import Run
    from pytest_touchstone.trial import Role, TrialRecord

TOUCHSTONE: Final = (sys.executable, "-c", "import sys; from pytest_touchstone.cli import main; sys.exit(main())")
TRAIN: tuple[str, ...] = (*TOUCHSTONE, "train")
SERVE: tuple[str, ...] = (*TOUCHSTONE, "serve")
PYTEST: Final = (sys.executable, "-m", "pytest", "--llm-eval", "--llm-gate", "strict")

RESULT_FILE: Final = "result.json"
STORE_FILE: Final = "runs.db"
TUNED: Final = "touchstone-tuned"
OPENAI_URL: Final = "OPENAI_BASE_URL"
OPENAI_ADDRESS: Final = "https://api.openai.com/v1"
HOSTED: Final = "openai"
READY_POLL_S: Final = 0.1
# What pytest ends with when every test had its turn, whatever became of it: 0, 1, and statuses of ours.
_TOLD: Final = (0, 1, 10, 11)
# What a run means is decided here, so these may not decide it too.
_OURS: Final[Mapping[str, str]] = {
    "--llm-export": "give --export DIR before the -- to choose the folder",
    "--llm-store": "both runs are stored beside the evidence",
    "--llm-record": "the first run records as configured (ini llm_record), the second asks the tuned model live and records nothing",
    "--llm-split": "both splits are needed, train to learn from and holdout to measure",
    "--llm-gate": "no baseline decides here",
    "--llm-gate-stage2": "no baseline decides here",
    "--llm-plan": "plan by pytest --llm-eval --llm-plan",
    "--collect-only": "the tests have to run",
    "--co": "the tests have to run",
    "--snapshot-update": "the outputs of a model that is on trial are no baseline",
    "--snapshot-update-new-only": "the outputs of a model that is on trial are no baseline",
    "--lf": "both runs have to try the same cases",
    "--last-failed": "both runs have to try the same cases",
}


def check_inputs(inputs: Inputs) -> None:
    """Refuse what cannot be meant, before anything runs.

    Raises:
        SettingsError: says all that is wrong.
    """
    problems = [
        f"{argument}: leave it out; {_OURS[name]}" for argument in inputs.pytest_args if (name := argument.partition("=")[0]) in _OURS
    ]
    for given in inputs.app_env:
        name, equals, _ = given.partition("=")
        if not equals or not name:
            problems.append(f"--app-env {given}: is no NAME=VALUE; write --app-env {OPENAI_URL}={{base_url}}")
        elif is_secret_name(name):
            problems.append(f"--app-env {name}: what is given here is kept on disk; set it in the environment, which the tests see as well")
    if inputs.backend == HOSTED and not _names_model(inputs.app_env):
        problems.append("--backend openai: the provider names the tuned model; tell your application by --app-env SUPPORT_MODEL={model}")
    if problems:
        raise SettingsError("\n".join(problems))
    PromotionPolicy(alpha=inputs.alpha, max_forgetting=inputs.max_forgetting)


@dataclass(frozen=True, kw_only=True)
class Tried:
    """A run of the tests: as stored, its trials, and the side that they make."""

    run: Run
    records: Sequence[TrialRecord]

    @cached_property
    def side(self) -> Side:
        """The evidence."""
        return Side.of(self.records)

    def hosts(self, role: Role) -> Counter[str]:
        """Which servers were asked, and how often."""
        return Counter(call.host for record in self.records for call in record.calls if call.role == role)


@dataclass(frozen=True, kw_only=True)
class Improved:
    """All that there is to tell when the steps are done, or need not be: `after` and `result` are None where nothing was trained."""

    verdict: Verdict
    before: Tried
    after: Tried | None
    manifest: Mapping[str, Any]
    result: Mapping[str, Any] | None
    commands: Mapping[str, str]


class Improvement:
    """The steps, each as processes of its own, in the folder `output`; what is done already is not done again."""

    def __init__(self, output: Path, state: State, *, environ: Mapping[str, str], say: Callable[[str], None], follow: bool = True) -> None:
        """Take up where `state` stands; `say` gets a line for a person, with `follow` also every line that the steps print."""
        self.output = output
        self.state = state
        self.inputs = state.inputs
        self.environ = environ
        self.say = say
        self.follow = follow
        self.policy = PromotionPolicy(alpha=self.inputs.alpha, max_forgetting=self.inputs.max_forgetting)
        self.commands: dict[str, str] = {}
        self.notes: list[str] = []
        self.model: Path | None = None

    @property
    def export(self) -> Path:
        """The folder of the training data."""
        return Path(self.inputs.export or self.output / "training")

    def run(self) -> Improved:
        """Do what is not done, and decide.

        Raises:
            ImproveError: a step could not be done; says which, why, and where its log is.
            KeyboardInterrupt: the user stopped it; every process is ended.
        """
        before, manifest = self._before()
        if (stop := hopeless(before.side, self.policy) or _taught(manifest)) is not None:
            self.say(f"nothing was trained: {stop.text}")
            verdict = untried(before.side, stop, self.policy)
            return Improved(verdict=verdict, before=before, after=None, manifest=manifest, result=None, commands=dict(self.commands))
        _check_examples(manifest, before)
        name = self._name(before)
        model, result = self._train(manifest)
        after = self._after(before, model, result, name)
        verdict = promote(before.side, after.side, self.policy)
        verdict = replace(verdict, notes=(*verdict.notes, *self.notes))
        return Improved(verdict=verdict, before=before, after=after, manifest=manifest, result=result, commands=dict(self.commands))

    # Before

    def _before(self) -> tuple[Tried, Mapping[str, Any]]:
        key = fingerprint(self.inputs.folder, self.inputs.pytest_args, str(self.export))
        command = [*PYTEST, "--llm-export", str(self.export), *self._store(), *self.inputs.pytest_args]
        self._announce(1, "before", command)
        found = self.state.result("before", key)
        if found is not None and found["train_sha256"] == file_hash(self.export / TRAIN_FILE) and (tried := self._tried(found["run"])):
            self.say("    done already")
        else:
            tried = self._run_tests("before", command, dict(self.environ))
            manifest = self._manifest()
            self._done("before", key, {"run": tried.run.id, "train_sha256": manifest["train_sha256"]})
        manifest = self._manifest()
        self.say(f"    {_rates(tried)}")
        kinds = ", ".join(f"{count} {kind}" for kind, count in manifest["by_kind"].items())
        self.say(f"    {manifest['written']:,} examples to learn from" + (f" ({kinds})" if kinds else ""))
        return tried, manifest

    def _manifest(self) -> Mapping[str, Any]:
        path = self.export / MANIFEST_FILE
        try:
            manifest: dict[str, Any] = json.loads(path.read_bytes())
        except (OSError, ValueError) as error:
            msg = f"{path}: there is no manifest of an export; the run of the tests wrote none ({self.output / 'before.log'})"
            raise ImproveError(msg) from error
        if manifest["train_sha256"] != file_hash(self.export / TRAIN_FILE):
            msg = f"{self.export / TRAIN_FILE}: is not the file that its manifest tells of; leave the export as it is written"
            raise ImproveError(msg)
        return manifest

    def _name(self, before: Tried) -> str:
        """Under which name the tuned model is served: the one that the application asks for, unless it can be told another."""
        if self.inputs.name is not None:
            return _servable(self.inputs.name)
        if _names_model(self.inputs.app_env):
            return TUNED
        if len(before.run.models) == 1:
            return _servable(before.run.models[0])
        asked = (
            f"{len(before.run.models)} models ({listed([shorten(model) for model in before.run.models], 5)})"
            if before.run.models
            else "no model that was seen"
        )
        fix = "say by --name which name the tuned model takes, or tell the application by --app-env SUPPORT_MODEL={model}"
        msg = f"the application asks for {asked}; {fix}"
        raise SettingsError(msg)

    # Train

    def _train(self, manifest: Mapping[str, Any]) -> tuple[Path, Mapping[str, Any]]:
        inputs = self.inputs
        config = None if inputs.config is None else file_hash(Path(inputs.config))
        key = fingerprint(manifest["train_sha256"], inputs.model, inputs.backend, config, inputs.train_args)
        # Other data or another job is another model, and gets another folder; one that was begun is gone on with.
        model = self.model = self.output / f"model-{key[:8]}"
        command = [*TRAIN, str(self.export), "--model", inputs.model, "--output", str(model)]
        command += ["--backend", inputs.backend] if inputs.backend else []
        command += ["--config", inputs.config] if inputs.config else []
        command += [*self._python(), *inputs.train_args]
        found = self.state.result("train", key)
        done = found is not None and found["sha256"] == file_hash(model / RESULT_FILE)
        if not done and model.is_dir() and any(model.iterdir()):
            command.append("--resume")
        self._announce(2, "train", command)
        if done:
            self.say("    done already")
        else:
            self._run("train", command, dict(self.environ))
            self._done("train", key, {"sha256": file_hash(model / RESULT_FILE)})
        try:
            result: object = json.loads((model / RESULT_FILE).read_bytes())
        except (OSError, ValueError):
            result = None
        if not isinstance(result, dict):
            msg = f"{model / RESULT_FILE}: the training left no result there; its log is {self.output / 'train.log'}"
            raise ImproveError(msg)
        return model, cast("dict[str, Any]", result)

    # After

    def _after(self, before: Tried, model: Path, result: Mapping[str, Any], name: str) -> Tried:
        key = fingerprint(before.run.id, str(model), file_hash(model / RESULT_FILE), self.inputs.app_env, name, self.inputs.pytest_args)
        command = [*PYTEST, "--llm-record", "off", *self._store(), *self.inputs.pytest_args]
        self._announce(3, "after", command)
        found = self.state.result("after", key)
        if found is not None and (tried := self._tried(found["run"])):
            self.say("    done already")
            host = found["host"]
        else:
            with self._reachable(model, result, name) as (base_url, served):
                host = urlsplit(base_url).netloc
                environ, judge = self._app_environment(before, base_url, served)
                tried = self._run_tests("after", [*command[: len(PYTEST)], *judge, *command[len(PYTEST) :]], environ)
            list(_asked_elsewhere(before, tried, host))
            self._done("after", key, {"run": tried.run.id, "host": host})
        self.notes = [*_asked_elsewhere(before, tried, host), *_differences(before.run, tried.run)]
        self.say(f"    {_rates(tried)}")
        return tried

    @contextlib.contextmanager
    def _reachable(self, model: Path, result: Mapping[str, Any], name: str) -> Generator[tuple[str, str]]:
        """The address and the name of the tuned model, which is served while the block runs."""
        hosted = result.get("model")
        if isinstance(hosted, str):  # its provider keeps it
            if not _names_model(self.inputs.app_env):
                fix = "tell your application by --app-env SUPPORT_MODEL={model}"
                msg = f"the tuned model is {visible(hosted)}, kept by its provider; {fix}"
                raise SettingsError(msg)
            yield self.environ.get(OPENAI_URL) or OPENAI_ADDRESS, hosted
            return
        port = free_port("127.0.0.1", 0)
        command = [*SERVE, str(model), "--host", "127.0.0.1", "--port", str(port), "--name", name, *self._python()]
        self.commands["serve"] = _shown(command)
        base_url = f"http://127.0.0.1:{port}/v1"
        with Process(command, log=self.output / "serve.log", folder=Path(self.inputs.folder), environ=self.environ) as server:
            self._await(server, f"http://127.0.0.1:{port}/health")
            self.say(f"    {visible(name)} is served at {base_url}")
            yield base_url, name
            if not server.running:
                raise _server_failed(server, "ended while the tests ran, so they say nothing about it")

    def _await(self, server: Process, health: str) -> None:
        until = time.monotonic() + self.inputs.serve_timeout_s
        opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
        while server.running:
            with contextlib.suppress(OSError, http.client.HTTPException), opener.open(health, timeout=5) as answer:
                if answer.status == 200:
                    return
            if time.monotonic() > until:
                raise _server_failed(server, f"did not answer within {self.inputs.serve_timeout_s:g} s (--serve-timeout)")
            time.sleep(READY_POLL_S)
        server.stop()
        raise _server_failed(server, "ended before it answered")

    def _app_environment(self, before: Tried, base_url: str, name: str) -> tuple[dict[str, str], list[str]]:
        """The environment in which the application finds the tuned model, and what keeps judges from asking it too."""
        given = self.inputs.app_env or (f"{OPENAI_URL}={{base_url}}",)
        pairs = [entry.partition("=") for entry in given]
        told = {variable: value.replace("{base_url}", base_url).replace("{model}", name) for variable, _, value in pairs}
        environ = {**self.environ, **told}
        if any(self.environ.get(proxy) for proxy in ("HTTP_PROXY", "http_proxy", "ALL_PROXY", "all_proxy")):
            environ["NO_PROXY"] = environ["no_proxy"] = ",".join(
                filter(None, [self.environ.get("NO_PROXY") or self.environ.get("no_proxy"), "127.0.0.1"])
            )
        if OPENAI_URL not in told:
            return environ, []
        if not before.run.judges:
            environ.setdefault("OPENAI_API_KEY", "not-needed")  # the SDK asks for one, and no server on this machine does
            return environ, []
        if "judge.base_url" in before.run.options or not all(judge.startswith("openai:") for judge in before.run.judges):
            return environ, []
        return environ, ["--llm-judge-base-url", self.environ.get(OPENAI_URL) or OPENAI_ADDRESS]

    # What steps share

    def _store(self) -> list[str]:
        return ["--llm-store", str(self.output / STORE_FILE)]

    def _python(self) -> list[str]:
        return ["--python", self.inputs.python] if self.inputs.python else []

    def _announce(self, number: int, step: str, command: Sequence[str]) -> None:
        self.commands[step] = _shown(command)
        self.say(f"{number}/3 {step}: {visible(self.commands[step])}")

    def _done(self, step: StepName, key: str, result: dict[str, Any]) -> None:
        self.state.steps[step] = Done(fingerprint=key, result=result)
        self.state.save(self.output)

    def _run(self, step: str, command: Sequence[str], environ: Mapping[str, str], accepted: Sequence[int] = (0,)) -> None:
        log = self.output / f"{step}.log"
        tell = self._pass_on if self.follow else None
        with Process(command, log=log, folder=Path(self.inputs.folder), environ=environ, tell=tell) as process:
            status = process.wait()
        if status not in accepted:
            seen = "" if self.follow else f":\n{process.tail()}"
            fix = f"once that is mended, go on by touchstone improve --resume --output {shlex.quote(str(self.output))}"
            msg = f"{step} ended with status {status}; its log is {log}{seen}\n{fix}"
            raise ImproveError(msg)

    def _pass_on(self, line: str) -> None:
        self.say(f"  | {line}")

    def _run_tests(self, step: str, command: Sequence[str], environ: Mapping[str, str]) -> Tried:
        known = {run.id for run in self._runs()}
        self._run(step, command, environ, _TOLD)
        new = [run for run in self._runs() if run.id not in known]
        if not new:
            msg = f"{step}: the tests left no run, so no golden test ran; the log is {self.output / f'{step}.log'}"
            raise ImproveError(msg)
        tried = self._tried(new[0].id)
        assert tried is not None
        if not tried.run.complete:
            msg = f"{step}: the run ended before every case was tried (by -x or a budget), so it decides nothing; have it try all of them"
            raise ImproveError(msg)
        return tried

    def _runs(self) -> list[Run]:
        store = RunStore.open_existing(str(self.output / STORE_FILE), base=self.output)
        return [] if store is None else store.runs()

    def _tried(self, run_id: str) -> Tried | None:
        store = RunStore.open_existing(str(self.output / STORE_FILE), base=self.output)
        for run in [] if store is None else store.runs():
            if run.id == run_id:
                assert store is not None
                return Tried(run=run, records=store.records(run))
        return None


def _servable(name: str) -> str:
    if NAME.fullmatch(name):
        return name
    fix = "tell your application another one by --app-env SUPPORT_MODEL={model}, or --name with letters, digits, '.', '_' and '-'"
    msg = f"no model can be served as {visible(name)!r}; {fix}"
    raise SettingsError(msg)


def _server_failed(server: Process, what: str) -> ImproveError:
    return ImproveError(f"the server of the tuned model {what}; its log is {server.log}:\n{server.tail()}")


def _names_model(app_env: Sequence[str]) -> bool:
    return any("{model}" in entry for entry in app_env)


def _shown(command: Sequence[str]) -> str:
    """The command as a person would type it, without passwords in addresses."""
    words = list(command)
    for prefix, name in ((TOUCHSTONE, ["touchstone"]), (PYTEST[:3], ["pytest"])):
        if words[: len(prefix)] == list(prefix):
            words = [*name, *words[len(prefix) :]]
    return re.sub(r"://[^/@\s]*@", "://", shlex.join(words))


def _rates(tried: Tried) -> str:
    parts: list[str] = []
    for split in ("holdout", "train"):
        outcomes = Counter(record.outcome for record in tried.records if record.split == split)
        decided = outcomes["passed"] + outcomes["failed"]
        rate = f"{outcomes['passed'] / decided:.1%} of {decided:,} trials pass" if decided else "no trial has a verdict"
        others = ", ".join(f"{count:,} {name}" for name, count in outcomes.items() if name not in {"passed", "failed"})
        parts.append(f"{split}: {rate}{f' ({others})' if others else ''}")
    return "; ".join(parts)


def _taught(manifest: Mapping[str, Any]) -> Refusal | None:
    taught = manifest["holdout_taught"]
    if not taught:
        return None
    names = list(dict.fromkeys(shorten(entry["case_id"]) for entry in taught))
    text = (
        f"{counted(len(names), 'holdout case')} had been in earlier exports into this folder, so a model made "
        f"from those has seen them: {listed(names, 5)}; export into a folder of its own if the base model has not"
    )
    return Refusal(rule="cases", text=text)


def _check_examples(manifest: Mapping[str, Any], before: Tried) -> None:
    """Something is to be learnt, and nothing that the model is measured by."""
    if not manifest["by_kind"].get("fix"):
        reasons = ", ".join(f"{count} {visible(reason)}" for reason, count in manifest["left_out_by_reason"].items())
        msg = f"there is nothing to learn: no failing train case has a verified target ({reasons or 'no train case failed'})"
        raise ImproveError(msg)
    holdout = {key for key, split in before.side.splits.items() if split == "holdout"}
    if leaked := sorted({(each["suite"], each["case_id"]) for each in manifest["examples"]} & holdout):
        names = listed([shorten(name) for _, name in leaked], 5)
        msg = f"the training data hold holdout cases, so they could not measure anything: {names}; export again"
        raise ImproveError(msg)


def _asked_elsewhere(before: Tried, after: Tried, host: str) -> Iterator[str]:
    """What is to be known of calls that went to other servers than that of the tuned model.

    Raises:
        ImproveError: none went there, or a judge's did.
    """
    if after.hosts("judge")[host] and host.startswith("127.0.0.1:"):
        msg = (
            f"judges asked the tuned model ({host}) to judge itself; give their address by --llm-judge-base-url, or base_url= of judge(...)"
        )
        raise ImproveError(msg)
    asked = after.hosts("app")
    if not asked and not before.hosts("app"):
        yield "no call of the application was seen, so nobody can say that it asked the tuned model"
    elif not asked[host]:
        others = listed([shorten(name or "an unknown server") for name in asked], 5) or "no model at all"
        msg = (
            f"the application did not ask the tuned model at {host}, it asked {others}; name the environment variables in which it finds "
            f"its model: --app-env SUPPORT_BASE_URL={{base_url}} --app-env SUPPORT_MODEL={{model}}"
        )
        raise ImproveError(msg)
    elif away := asked.total() - asked[host]:
        names = listed([shorten(name or "an unknown server") for name in asked if name != host], 5)
        yield f"{away:,} of {asked.total():,} calls of the application went elsewhere ({names})"


def _differences(before: Run, after: Run) -> Iterator[str]:
    """What changed between the two runs beside the model."""
    if before.checkout.commit != after.checkout.commit:
        yield "the commit changed between the two runs, so the model is not all that differs"
    elif before.checkout.dirty or after.checkout.dirty:
        yield "there are changes that are not committed, so nobody can say that only the model differs"
    if before.prompts and after.prompts and before.prompts != after.prompts:
        yield "the system prompts differ between the two runs"
