"""Fine-tuning at OpenAI: the data are uploaded, a job is started there and followed to its end.

What has been started is written to `hosted.json` at once, so that nothing is paid for twice: an upload is used again, and a job is found
again, also one whose start was cut off before its name came back. A job carries a random tag in its metadata for that.

The wire format is that of the official SDK (openai 3), which also makes the requests and repeats those that may be repeated.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import secrets
import time
from typing import TYPE_CHECKING, Any, Final, cast

from pydantic import BaseModel, ConfigDict, ValidationError

from pytest_touchstone.errors import JobError, ModelError, TrainingError
from pytest_touchstone.files import replace_file
from pytest_touchstone.models.faults import check_base_url, retry_after_s
from pytest_touchstone.models.sdk import sdk_of
from pytest_touchstone.recording.redact import Redactor
from pytest_touchstone.text import counted, shorten
from pytest_touchstone.train.formatted import read_format
from pytest_touchstone.train.watch import Step

if TYPE_CHECKING:
    from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
    from pathlib import Path

    from pytest_touchstone.train.formatted import FormatData
    from pytest_touchstone.train.job import Method
    from pytest_touchstone.train.plan import Plan
    from pytest_touchstone.train.watch import Watch

STATE_FILE: Final = "hosted.json"
STATE_FORMAT: Final = "pytest-touchstone hosted 1"
KEY: Final = "OPENAI_API_KEY"
FORMATS: Final[Mapping[Method, str]] = {"sft": "openai", "dpo": "openai-preference"}
# OpenAI's guide on supervised fine-tuning, and its reference of the files API.
MIN_EXAMPLES: Final = 10
MAX_BYTES: Final = 512 * 10**6
MAX_SUFFIX: Final = 64
TAG: Final = "touchstone"
POLL_S: Final = 10.0
RETRY_S: Final = 5.0
MAX_LOST: Final = 30  # polls in a row without an answer
MAX_FILE_POLLS: Final = 180
STARTS: Final = 3
SAID_WIDTH: Final = 300
ENDED: Final = frozenset({"succeeded", "failed", "cancelled"})
CLOSING: Final = (
    "OpenAI is closing fine-tuning: it takes no jobs of organizations that never had one before May 2026, none of those that have not "
    "used a tuned model lately, and none at all from 6 January 2027; a tuned model ends with its base model"
)


class _State(BaseModel):
    """What `hosted.json` holds: what is asked for, and what has been started of it. No key."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    format: str = STATE_FORMAT
    request: dict[str, Any]
    tag: str
    training_file: str | None = None
    validation_file: str | None = None
    job: str | None = None
    status: str | None = None


class OpenAIBackend:
    """`--backend openai`.

    `environ` holds the key (OPENAI_API_KEY) and where another server is meant (OPENAI_BASE_URL). `wait` waits for so many seconds.
    """

    def __init__(self, *, environ: Mapping[str, str] = os.environ, wait: Callable[[float], None] = time.sleep) -> None:
        """Connect to nothing yet."""
        self._environ = environ
        self._wait = wait

    def problems(self, plan: Plan) -> Sequence[str]:
        """As `Backend.problems`."""
        return [*self._server_problems(), *_data_problems(plan)]

    def command(self, plan: Plan) -> Sequence[str]:
        """As `Backend.command`."""
        data = _data(plan)
        train, evaluated = data.parts(plan.job.eval_part)
        server = self._environ.get("OPENAI_BASE_URL") or "https://api.openai.com/v1"
        return [
            f"POST {server}/files: {len(train):,} bytes of {data.file}, {_examples(train)} to train on",
            *([f"POST {server}/files: {len(evaluated):,} bytes of it, {_examples(evaluated)} to measure the loss on"] if evaluated else []),
            f"POST {server}/fine_tuning/jobs: {json.dumps(_options(plan))}",
            CLOSING,
        ]

    def train(self, plan: Plan, watch: Watch) -> Mapping[str, Any]:
        """As `Backend.train`."""
        for problem in self._server_problems():
            raise TrainingError(problem)
        watch.note(CLOSING)
        return _Run(plan, watch, environ=self._environ, wait=self._wait).result()

    def _server_problems(self) -> Iterator[str]:
        key = self._environ.get(KEY, "")
        if not key:
            yield f"{KEY} is not set; export it"
        elif not (key.isascii() and key.isprintable()) or " " in key:
            yield f"{KEY} holds a character that no key has, such as a space or the end of a line; set it again"
        try:
            check_base_url(self._environ.get("OPENAI_BASE_URL") or None)
            sdk_of("openai")
        except ModelError as error:
            yield str(error)


class _Run:
    """One job, from the upload to the tuned model."""

    def __init__(self, plan: Plan, watch: Watch, *, environ: Mapping[str, str], wait: Callable[[float], None]) -> None:
        self._plan = plan
        self._watch = watch
        self._wait = wait
        self._redactor = Redactor(environ)
        self._sdk = sdk_of("openai")
        self._client = self._sdk.OpenAI(api_key=environ[KEY], base_url=environ.get("OPENAI_BASE_URL") or None, max_retries=4)
        self._seen: set[str] = set()
        self._asked = False
        data = _data(plan)
        training, validation = data.parts(plan.job.eval_part)
        self._parts: dict[str, bytes] = {"training": training, "validation": validation}
        request, file = _request(plan, data), plan.output / STATE_FILE
        held = _read_state(file)
        if held is not None and (held.request != request or not plan.resume):
            msg = (
                f"{file}: belongs to a job that was begun before; --resume goes on with it, asked for as it was, or choose another --output"
            )
            raise TrainingError(msg)
        self._state = held or _State(request=request, tag=secrets.token_hex(16))

    def result(self) -> Mapping[str, Any]:
        """Follow the job to its end, started now or before."""
        with self._client:
            try:
                self._find_or_start()
                job = self._follow()
            except KeyboardInterrupt:
                self._cancel()
                raise
            if job.status != "succeeded" or not job.fine_tuned_model:
                raise TrainingError(self._why(job))
            return self._tuned(job)

    def _find_or_start(self) -> None:
        if self._state.job is not None:
            self._watch.note(f"{self._state.job} was started before; following it")
            return
        if self._plan.resume and self._adopt():
            return
        training = self._uploaded("training")
        validation = self._uploaded("validation") if self._parts["validation"] else None
        self._watch.phase("starting the job")
        extra = {} if validation is None else {"validation_file": validation}
        tag = {"metadata": {TAG: self._state.tag}}
        self._keep(job=self._start({**_options(self._plan), "training_file": training, **extra, **tag}))
        self._watch.note(f"{self._state.job} was started; if this ends, --resume follows it, and Ctrl-C cancels it")

    def _keep(self, **known: str | None) -> None:
        self._state = self._state.model_copy(update=known)
        data = json.dumps(self._state.model_dump(), indent=2) + "\n"
        replace_file(self._plan.output / STATE_FILE, data.encode())

    def _uploaded(self, part: str) -> str:
        """The name of the file at OpenAI, which has read it; sent only where it is not there yet."""
        held = cast("str | None", getattr(self._state, f"{part}_file"))
        status = None if held is None else self._file_status(held)
        if held is None or status is None:
            data = self._parts[part]
            self._watch.phase(f"uploading {_examples(data)} ({part})")
            with self._faults(f"the {part} file could not be uploaded"):
                file = self._client.files.create(file=(f"{part}.jsonl", data), purpose="fine-tune")
            held, status = cast("str", file.id), cast("str | None", file.status) or "processed"
            self._keep(**{f"{part}_file": held})
        self._await_file(held, status, part)
        return held

    def _file_status(self, file: str) -> str | None:
        """The status of a file, None where it is not there (any more)."""
        with self._faults(f"{file} could not be looked at"):
            try:
                return cast("str | None", self._client.files.retrieve(file).status) or "processed"
            except self._sdk.NotFoundError:
                return None

    def _await_file(self, file: str, status: str | None, part: str) -> None:
        self._watch.phase(f"waiting for OpenAI to read the {part} file")
        for _ in range(MAX_FILE_POLLS):
            if status == "processed":
                return
            if status == "error" or status is None:
                with self._faults(f"{file} could not be looked at"):
                    details = self._client.files.retrieve(file).status_details
                msg = f"OpenAI cannot use the {part} file {file}: {self._said(details or 'it does not say why')}; export again"
                raise TrainingError(msg)
            self._wait(POLL_S)
            status = self._file_status(file)
        msg = f"OpenAI has not read the {part} file {file} in {MAX_FILE_POLLS * POLL_S / 60:.0f} minutes; --resume looks again"
        raise TrainingError(msg)

    def _start(self, request: Mapping[str, Any], left: int = STARTS) -> str:
        """Start the job; after an answer that did not come, the job is looked for before it is asked for again."""
        failures = (self._sdk.APIConnectionError, self._sdk.RateLimitError, self._sdk.ConflictError, self._sdk.InternalServerError)
        self._asked = True
        with self._faults("the job could not be started"):
            try:
                return cast("str", self._client.with_options(max_retries=0).fine_tuning.jobs.create(**request).id)
            except failures as error:
                found = None if getattr(error, "code", None) == "insufficient_quota" else self._find()
                if found is not None:
                    return found
                if left == 1 or getattr(error, "code", None) == "insufficient_quota":
                    raise
                asked = retry_after_s(error.response.headers) if isinstance(error, self._sdk.APIStatusError) else None
        self._wait(RETRY_S if asked is None else asked)
        return self._start(request, left - 1)

    def _adopt(self) -> bool:
        found = self._find()
        if found is not None:
            self._keep(job=found)
            self._watch.note(f"{found} had been started before; following it")
        return found is not None

    def _find(self) -> str | None:
        """The job that carries our tag, None where there is none."""
        with self._faults("it is not known whether the job was started (--resume looks again)"):
            listed = self._client.fine_tuning.jobs.list(metadata={TAG: self._state.tag}, limit=100)
            # A server may not know the filter, so each is looked at.
            return next((job.id for job in listed.data if job.metadata and job.metadata.get(TAG) == self._state.tag), None)

    def _follow(self) -> Any:  # noqa: ANN401 - the SDK's FineTuningJob
        assert self._state.job is not None
        status, lost = "", 0
        while True:
            try:
                job = self._client.fine_tuning.jobs.retrieve(self._state.job)
                self._tell_events()
            except (self._sdk.APIConnectionError, self._sdk.RateLimitError, self._sdk.InternalServerError) as error:
                lost += 1
                if lost == MAX_LOST:
                    msg = f"lost sight of {self._state.job}: {self._words(error)}; it goes on at OpenAI, and --resume follows it"
                    raise TrainingError(msg) from None
                if lost == 1:
                    self._watch.note(f"{self._state.job} goes on, but cannot be seen: {self._words(error)}; trying again")
            except self._sdk.APIError as error:
                msg = f"{self._state.job} could not be looked at: {self._words(error)}"
                raise TrainingError(msg) from None
            else:
                lost = 0
                if job.status != status:
                    status = job.status
                    self._watch.phase(f"{self._state.job}: {self._said(status).replace('_', ' ')}")
                if status in ENDED:
                    self._keep(status=status)
                    return job
            self._wait(POLL_S)

    def _tell_events(self) -> None:
        """What happened since the last time: OpenAI lists the newest first."""
        new: list[Any] = []
        for event in self._client.fine_tuning.jobs.list_events(cast("str", self._state.job), limit=100):
            if event.id in self._seen:
                break
            new.append(event)
        for event in reversed(new):
            self._seen.add(event.id)
            data: object = event.data
            values: Mapping[str, Any] = cast("Mapping[str, Any]", data) if isinstance(data, dict) else {}
            step = _step(values)
            if step is None:
                self._watch.note(f"OpenAI: {self._said(event.message)}")
            elif not any(told.step == step.step for told in self._watch.steps):
                total = values.get("total_steps")
                if isinstance(total, int):
                    self._watch.total(total)
                self._watch.step(step)

    def _cancel(self) -> None:
        """Stop what costs money, and say what became of it; called when the user gave up."""
        job = self._state.job
        try:
            if job is None and self._asked:
                job = self._find()
            if job is None:
                self._watch.note("no job was started; what was uploaded is used again with --resume")
                return
            status = self._client.fine_tuning.jobs.cancel(job).status
            self._keep(job=job, status=status)
            self._watch.note(f"{job} was cancelled; OpenAI may bill what it had trained")
        except (self._sdk.OpenAIError, TrainingError) as error:
            said = str(error) if isinstance(error, TrainingError) else self._words(error)
            self._watch.note(f"{job or 'a job'} could not be cancelled, so it may go on and be billed: {said}; --resume follows it")

    def _tuned(self, job: Any) -> Mapping[str, Any]:  # noqa: ANN401 - the SDK's FineTuningJob
        method = getattr(job.method, job.method.type, None) if job.method else None
        chosen = getattr(method, "hyperparameters", None) or job.hyperparameters
        with self._faults(f"{job.id} succeeded, but its checkpoints could not be listed (--resume tries again)"):
            checkpoints = list(self._client.fine_tuning.jobs.checkpoints.list(job.id))
        return {
            "model": self._said(job.fine_tuned_model),
            "versions": {"openai": self._sdk.__version__},
            "hosted": {
                "job": job.id,
                "status": job.status,
                "trained_tokens": job.trained_tokens,
                "training_file": self._state.training_file,
                "validation_file": self._state.validation_file,
                "seed": job.seed,
                "hyperparameters": chosen.model_dump(mode="json", exclude_none=True) if chosen else {},
                "checkpoints": [
                    {
                        "step": each.step_number,
                        "model": self._said(each.fine_tuned_model_checkpoint),
                        "metrics": each.metrics.model_dump(mode="json", exclude_none=True),
                    }
                    for each in checkpoints
                ],
            },
        }

    def _why(self, job: Any) -> str:  # noqa: ANN401 - the SDK's FineTuningJob
        fix = "choose another --output for a new job"
        if job.status == "cancelled":
            return f"{job.id} was cancelled; {fix}"
        if job.status == "succeeded":
            return f"{job.id} succeeded, but OpenAI names no tuned model; look at it with OpenAI's own tools"
        said = "it does not say why" if job.error is None else self._said(f"{job.error.code}: {job.error.message}")
        at = f" (in {self._said(job.error.param)})" if job.error and job.error.param else ""
        return f"{job.id} failed: {said}{at}; {fix}"

    @contextlib.contextmanager
    def _faults(self, what: str) -> Generator[None]:
        """Turn what the SDK raises into an error that is safe to show."""
        try:
            yield
        except self._sdk.OpenAIError as error:
            msg = f"{what}: {self._words(error)}"
            raise TrainingError(msg) from None

    def _words(self, error: Any) -> str:  # noqa: ANN401 - an error of the SDK
        """An error of the SDK in words without a key."""
        if not isinstance(error, self._sdk.APIStatusError):
            cause = error.__cause__ or error
            return f"OpenAI could not be reached ({type(cause).__name__}: {self._said(str(cause))})"
        status: int = error.status_code
        if status == 401:
            return f"OpenAI refused the key (HTTP 401); check {KEY}"  # its own words repeat a part of the key
        body: object = error.body
        message = cast("Mapping[str, object]", body).get("message") if isinstance(body, dict) else None
        said = f"(HTTP {status}: {self._said(str(message))})" if message else f"(HTTP {status})"
        if status == 403:
            return (
                f"OpenAI does not allow it {said}; fine-tuning may be closed to your organization, or the key may not be allowed to use it"
            )
        return f"OpenAI says no {said}"

    def _said(self, text: str) -> str:
        """Foreign text on one line, without secrets, control characters or length."""
        return shorten(self._redactor.redact(" ".join(text.split())), SAID_WIDTH)


def _data(plan: Plan) -> FormatData:
    return read_format(plan.data.folder, FORMATS[plan.job.method])


def _data_problems(plan: Plan) -> Iterator[str]:
    try:
        data = _data(plan)
    except JobError as error:
        yield str(error)
        return
    train, evaluated = data.parts(plan.job.eval_part)
    if train.count(b"\n") < MIN_EXAMPLES:
        rest = f", after {_examples(evaluated)} were taken out by eval_part" if evaluated else ""
        yield f"{data.file}: {_examples(train)} to train on{rest}, and OpenAI takes {MIN_EXAMPLES} or more; export more cases"
    if max(len(train), len(evaluated)) > MAX_BYTES:
        yield f"{data.file}: has {len(train):,} bytes, and OpenAI takes {MAX_BYTES:,} a file; export fewer, as with --llm-replay 0.5"


def _read_state(file: Path) -> _State | None:
    try:
        state = _State.model_validate_json(file.read_bytes())
    except FileNotFoundError:
        return None
    except ValidationError:
        state = None
    if state is None or state.format != STATE_FORMAT:
        msg = f"{file}: cannot be read as what a hosted job left; look at your jobs at OpenAI, then move it away or choose another --output"
        raise TrainingError(msg)
    return state


def _request(plan: Plan, data: FormatData) -> dict[str, Any]:
    """What is asked for, with the data by their hash: what a resumed job must have in common with the one that was started."""
    hashes = (hashlib.sha256(part).hexdigest() for part in data.parts(plan.job.eval_part))
    return {**_options(plan), "data": list(hashes)}


def _options(plan: Plan) -> dict[str, Any]:
    """The request for a job, but for what names the files; what the user left open is left to OpenAI."""
    job, hosted = plan.job, plan.job.openai
    chosen = {"n_epochs": hosted.epochs, "batch_size": hosted.batch_size, "learning_rate_multiplier": hosted.learning_rate_multiplier}
    parameters: dict[str, Any] = {name: value for name, value in chosen.items() if value is not None}
    name = "supervised" if job.method == "sft" else "dpo"
    if job.method == "dpo":
        parameters["beta"] = job.beta
    # The API takes a seed of 31 bits.
    options: dict[str, Any] = {
        "model": job.model,
        "seed": job.seed % 2**31,
        "method": {"type": name, name: {"hyperparameters": parameters}},
    }
    return {**options, **({"suffix": hosted.suffix} if hosted.suffix else {})}


def _step(values: Mapping[str, Any]) -> Step | None:
    """The step in the data of a metrics event; None where it is none."""
    losses = {"loss": values.get("train_loss"), "eval_loss": values.get("full_valid_loss", values.get("valid_loss"))}
    return Step.of({"step": values.get("step"), **losses})


def _examples(lines: bytes) -> str:
    return counted(lines.count(b"\n"), "example")


OPENAI: Final = OpenAIBackend()
