"""The job: one training run, described so fully that it can be run again."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any, Final, Literal, cast, get_args

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationError, model_validator

from pytest_touchstone.cases import Problem, ValueFault, describe, did_you_mean, shown_name
from pytest_touchstone.errors import Fault, JobError

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from pathlib import Path

    from pydantic.fields import FieldInfo
    from pydantic_core import ErrorDetails

BackendName = Literal["trl", "unsloth", "llamafactory", "openai"]
Method = Literal["sft", "dpo"]

OWN_FORMAT: Final = frozenset({"llamafactory", "openai"})  # the backends that read a further format of the export
BACKENDS: Final[tuple[BackendName, ...]] = get_args(BackendName)
METHODS: Final[tuple[Method, ...]] = get_args(Method)
MAX_BYTES: Final = 1 << 20  # of a job file
_FLAGS: Final = frozenset({"backend", "model", "method", "seed"})  # the fields that have an option of their own
_RATES: Final[Mapping[Method, float]] = {"sft": 2e-4, "dpo": 5e-6}

# Where the defaults come from.
_UNSLOTH = "Unsloth's LoRA guide"
_TRL = "TRL's default"
_OURS = "our choice"
_LLAMAFACTORY = "LLaMA-Factory's default"
_OPENAI = "OpenAI's choice"


def _about(unit: str, source: str) -> dict[str, Any]:
    return {"unit": unit, "source": source}


def _as_list(value: object) -> object:
    return [value] if isinstance(value, str) else value


class Lora(BaseModel):
    """The adapter that is trained beside the frozen base model."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    r: Annotated[int, Field(ge=1, le=4096, description="Rank of the update matrices.", json_schema_extra=_about("", _UNSLOTH))] = 16
    alpha: Annotated[
        float,
        Field(gt=0, le=65536, description="The update is scaled by alpha / r.", json_schema_extra=_about("", _UNSLOTH + ": r or 2 r")),
    ] = 32
    dropout: Annotated[
        float, Field(ge=0, lt=1, description="Share of the adapter's inputs set to zero.", json_schema_extra=_about("0 to 1", _UNSLOTH))
    ] = 0.0
    targets: Annotated[
        tuple[str, ...],
        BeforeValidator(_as_list),
        Field(min_length=1, description="`all-linear`, or names of modules.", json_schema_extra=_about("", "QLoRA paper")),
    ] = ("all-linear",)
    rslora: Annotated[bool, Field(description="Scale by alpha / sqrt(r) instead.", json_schema_extra=_about("", "PEFT's default"))] = False


class LlamaFactory(BaseModel):
    """What only `llamafactory` knows."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    template: Annotated[
        str | None,
        Field(
            min_length=1,
            description="Name of a template of LLaMA-Factory. Default: made from the model's own chat template.",
            json_schema_extra=_about("", _LLAMAFACTORY),
        ),
    ] = None
    default_system: Annotated[
        str | None,
        Field(
            description="System prompt of conversations that have none. Default: what the template puts there.",
            json_schema_extra=_about("", _LLAMAFACTORY),
        ),
    ] = None


class OpenAI(BaseModel):
    """What only `openai` knows; None leaves the choice to OpenAI."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    epochs: Annotated[
        int | None, Field(ge=1, le=50, description="How often each example is seen.", json_schema_extra=_about("passes", _OPENAI))
    ] = None
    batch_size: Annotated[
        int | None, Field(ge=1, le=256, description="Examples that make one step.", json_schema_extra=_about("examples", _OPENAI))
    ] = None
    learning_rate_multiplier: Annotated[
        float | None, Field(gt=0, description="Of the learning rate that OpenAI takes.", json_schema_extra=_about("", _OPENAI))
    ] = None
    suffix: Annotated[
        str | None,
        Field(min_length=1, max_length=64, description="A part of the tuned model's name.", json_schema_extra=_about("", "none")),
    ] = None


class Job(BaseModel):
    """One training run: every field has a unit, a default and a source for that default, and no other field is known.

    None stands for a default that depends on other fields or on the machine; `resolved` fills in those that depend on fields.

    >>> job = Job(backend="trl", model="models/base").resolved()
    >>> job.learning_rate, job.lora.r, job.quantization
    (0.0002, 16, 'none')
    """

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    backend: Annotated[BackendName, Field(description="What trains.", json_schema_extra=_about("", ""))]
    model: Annotated[
        str,
        Field(min_length=1, description="The base model: a folder, or a name on the Hugging Face hub.", json_schema_extra=_about("", "")),
    ]
    method: Annotated[
        Method,
        Field(description="`sft`: learn the completions; `dpo`: prefer chosen to rejected answers.", json_schema_extra=_about("", _OURS)),
    ] = "sft"
    seed: Annotated[
        int, Field(ge=0, lt=2**32, description="Of the order of the data and the adapter's start.", json_schema_extra=_about("", _UNSLOTH))
    ] = 3407
    epochs: Annotated[
        float, Field(gt=0, le=1000, description="How often each example is seen.", json_schema_extra=_about("passes", _TRL))
    ] = 3.0
    max_steps: Annotated[
        int | None, Field(ge=1, description="Stop after so many steps; wins over `epochs`.", json_schema_extra=_about("steps", _TRL))
    ] = None
    learning_rate: Annotated[
        float | None,
        Field(gt=0, le=1, description="At its peak. Default: 2e-4 for `sft`, 5e-6 for `dpo`.", json_schema_extra=_about("", _UNSLOTH)),
    ] = None
    schedule: Annotated[
        Literal["linear", "cosine", "constant"],
        Field(description="How the learning rate goes down after the warm-up.", json_schema_extra=_about("", _UNSLOTH)),
    ] = "linear"
    warmup: Annotated[
        float,
        Field(ge=0, lt=1, description="Share of the steps in which the learning rate rises.", json_schema_extra=_about("0 to 1", _UNSLOTH)),
    ] = 0.05
    batch_size: Annotated[
        int, Field(ge=1, le=4096, description="Examples that each process holds at once.", json_schema_extra=_about("examples", _UNSLOTH))
    ] = 2
    accumulate: Annotated[
        int, Field(ge=1, le=4096, description="Batches that make one step.", json_schema_extra=_about("batches", _UNSLOTH))
    ] = 8
    weight_decay: Annotated[
        float, Field(ge=0, le=1, description="Pull of the weights to zero.", json_schema_extra=_about("", _UNSLOTH))
    ] = 0.01
    max_grad_norm: Annotated[
        float, Field(gt=0, description="Gradients are scaled down to this norm.", json_schema_extra=_about("", _TRL))
    ] = 1.0
    max_length: Annotated[
        int,
        Field(ge=8, le=1 << 20, description="Of prompt and completion together.", json_schema_extra=_about("tokens", _UNSLOTH)),
    ] = 2048
    too_long: Annotated[
        Literal["refuse", "drop"],
        Field(
            description="What to do where an example is longer: train nothing, or leave it out and count it. None is ever cut.",
            json_schema_extra=_about("", _OURS),
        ),
    ] = "refuse"
    eval_part: Annotated[
        float,
        Field(
            ge=0,
            le=0.5,
            description="Share of the train cases kept out of training to measure the loss on; by a stable hash, never of holdout cases.",
            json_schema_extra=_about("0 to 0.5", _OURS),
        ),
    ] = 0.0
    eval_every: Annotated[int, Field(ge=1, description="How often that loss is measured.", json_schema_extra=_about("steps", _OURS))] = 10
    patience: Annotated[
        int | None,
        Field(
            ge=1,
            description="Stop early once that loss has not improved so many times in a row, and keep the best adapter.",
            json_schema_extra=_about("measurements", _OURS),
        ),
    ] = None
    save_every: Annotated[
        int, Field(ge=1, description="How often a checkpoint is written; the last two are kept.", json_schema_extra=_about("steps", _OURS))
    ] = 50
    log_every: Annotated[int, Field(ge=1, description="How often progress is told.", json_schema_extra=_about("steps", _UNSLOTH))] = 1
    device: Annotated[
        Literal["auto", "cpu", "cuda"],
        Field(description="`auto`: a GPU where there is one.", json_schema_extra=_about("", _OURS)),
    ] = "auto"
    precision: Annotated[
        Literal["auto", "fp32", "bf16", "fp16"],
        Field(
            description="`auto`: fp32 on a CPU, bf16 on a GPU that has it, else fp16. (TRL takes bf16 on a CPU too.)",
            json_schema_extra=_about("", _OURS),
        ),
    ] = "auto"
    quantization: Annotated[
        Literal["none", "4bit"] | None,
        Field(
            description="`4bit`: NF4 with double quantization (QLoRA). Default: `4bit` for unsloth, `none` for trl.",
            json_schema_extra=_about("", "QLoRA paper"),
        ),
    ] = None
    gradient_checkpointing: Annotated[
        bool | None,
        Field(
            description="Less memory for more time. Default: true for unsloth (its own way), false for trl.",
            json_schema_extra=_about("", _UNSLOTH),
        ),
    ] = None
    threads: Annotated[
        int | None,
        Field(
            ge=1,
            le=1024,
            description="Of a CPU. 1 makes a job repeat exactly. Default: as many as torch takes.",
            json_schema_extra=_about("threads", "torch's default"),
        ),
    ] = None
    processes: Annotated[
        int,
        Field(ge=1, le=1024, description="One for each GPU; more than 1 starts `accelerate launch`.", json_schema_extra=_about("", _OURS)),
    ] = 1
    chat_template: Annotated[
        str | None,
        Field(
            description="File of a Jinja chat template, for a base model without one.", json_schema_extra=_about("path", "the model's own")
        ),
    ] = None
    beta: Annotated[float, Field(gt=0, description="`dpo` only: how far the model may move.", json_schema_extra=_about("", _TRL))] = 0.1
    merge: Annotated[bool, Field(description="Also write the merged 16-bit model to `merged/`.", json_schema_extra=_about("", _OURS))] = (
        False
    )
    gguf: Annotated[
        str | None,
        Field(
            pattern=r"^[a-z0-9_]{2,20}$",
            description="`unsloth` only: also write a GGUF file of this quantization to `gguf/`, such as `q4_k_m`.",
            json_schema_extra=_about("", _OURS),
        ),
    ] = None
    download: Annotated[
        bool, Field(description="Whether a model that is not on this machine may be downloaded.", json_schema_extra=_about("", _OURS))
    ] = False
    lora: Annotated[Lora, Field(description="The adapter.", json_schema_extra=_about("", ""))] = Lora()
    llamafactory: Annotated[LlamaFactory, Field(description="What only `llamafactory` knows.", json_schema_extra=_about("", ""))] = (
        LlamaFactory()
    )
    openai: Annotated[OpenAI, Field(description="What only `openai` knows.", json_schema_extra=_about("", ""))] = OpenAI()

    @model_validator(mode="after")
    def _fits_together(self) -> Job:
        problems = list(_conflicts(self))
        if problems:
            raise ValueFault(*problems)
        return self

    def resolved(self) -> Job:
        """The job with every default filled in that depends on other fields."""
        if self.backend == "openai":  # whose own choice holds where the user made none
            return self
        unsloth = self.backend == "unsloth"
        chosen: dict[str, Any] = {
            "learning_rate": _RATES[self.method] if self.learning_rate is None else self.learning_rate,
            "quantization": ("4bit" if unsloth else "none") if self.quantization is None else self.quantization,
            "gradient_checkpointing": unsloth if self.gradient_checkpointing is None else self.gradient_checkpointing,
        }
        return self.model_copy(update=chosen)

    def to_dict(self) -> dict[str, Any]:
        """Plain dicts, lists and scalars: what `job.yaml` holds, without what means nothing to the backend."""
        return self.model_dump(mode="json", exclude=set(_unknown_to(self.backend)))

    def to_yaml(self) -> bytes:
        """The job as a file that `load_job` reads back as an equal job."""
        import yaml

        text: str = cast("Any", yaml).safe_dump(self.to_dict(), sort_keys=False, allow_unicode=True)  # its types are not complete
        return text.encode()


_USED_BY_OPENAI: Final = frozenset({"backend", "model", "method", "seed", "eval_part", "beta", "openai"})


def _unknown_to(backend: BackendName) -> frozenset[str]:
    """The fields that mean nothing to a backend."""
    if backend == "openai":
        return frozenset(Job.model_fields) - _USED_BY_OPENAI
    return frozenset({"openai", "too_long", "chat_template", "merge"} if backend == "llamafactory" else {"openai", "llamafactory"})


def _conflicts(job: Job) -> Iterator[Problem]:
    for name in sorted(_unknown_to(job.backend) - {"gguf"}):
        if getattr(job, name) != Job.model_fields[name].default:
            yield Problem(at=name, problem=f"means nothing to the backend {job.backend}", fix="leave it out")
    if job.patience is not None and not job.eval_part:
        yield Problem(at="patience", problem="has no loss to look at", fix="set eval_part, such as 0.1")
    if job.gguf is not None and job.backend != "unsloth":
        yield Problem(at="gguf", problem=f"cannot be written by {job.backend}", fix="use backend: unsloth, or leave gguf out")
    if job.backend == "unsloth" and job.processes > 1:
        yield Problem(at="processes", problem="is more than 1, and Unsloth trains in one", fix="use backend: trl for several GPUs")


class Override(BaseModel):
    """A value from the command line: the field that it is for (`lora.r`), and the option as the user wrote it."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    field: str
    value: Any
    option: str


def load_job(path: Path | None = None, overrides: tuple[Override, ...] = ()) -> Job:
    """The job of a YAML file and of the command line, which wins; without a file, of the command line alone. Not yet `resolved`.

    Raises:
        JobError: it is no job; carries every fault with its file, line and field.
        OSError: the file cannot be read.
    """
    fields, places, faults = ({}, {}, []) if path is None else _read(path)
    where = str(path) if path else "job"
    for override in overrides:
        _put(fields, override.field, override.value)
        places[override.field] = Fault(file=override.option, problem="", fix="")
    try:
        job = Job.model_validate(fields)
    except ValidationError as error:
        faults += [_placed(problem, where, places) for details in error.errors(include_url=False) for problem in _problems(details)]
    else:
        if not faults:
            return job
    raise JobError(faults)


def fields_of(model: type[BaseModel] = Job, prefix: str = "") -> Iterator[tuple[str, FieldInfo]]:
    """Every field by its dotted name, in the order of the model; those of a part such as `lora` in its place."""
    for name, info in model.model_fields.items():
        if isinstance(info.annotation, type) and issubclass(info.annotation, BaseModel):
            yield from fields_of(info.annotation, f"{prefix}{name}.")
        else:
            yield prefix + name, info


def read_value(text: str) -> object:
    """The value that a text would have in a job file: `0.1`, `true`, `[a, b]`; a text where it is nothing else."""
    from pytest_touchstone.golden_yaml import YamlTree

    tree = YamlTree("value")
    value = tree.read(text)
    return text if tree.faults else value


_Places = dict[str, Fault]


def _read(path: Path) -> tuple[dict[str, Any], _Places, list[Fault]]:
    """The fields of a job file, where each stands, and what is wrong with the file itself."""
    from pytest_touchstone.golden_yaml import YamlTree

    place = str(path)
    with path.open("rb") as file:
        raw = file.read(MAX_BYTES + 1)
    if len(raw) > MAX_BYTES:
        raise JobError([Fault(file=place, problem="is larger than 1 MiB", fix="give a job file, not data")])
    try:
        text = raw.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = raw.count(b"\n", 0, error.start) + 1
        raise JobError([Fault(file=place, line=line, problem="is not UTF-8", fix="save it as UTF-8")]) from error
    tree = YamlTree(place)
    root = tree.read(text)
    if tree.broken:
        raise JobError(tree.faults)
    if root is None:
        return {}, {}, list(tree.faults)
    if not isinstance(root, dict):
        fault = Fault(file=place, line=1, problem=f"is {describe(root)}", fix="give an object, such as 'backend: trl'")
        raise JobError([*tree.faults, fault])
    fields = cast("dict[str, Any]", root)
    places: _Places = {}
    for name, line in cast("dict[str, int]", tree.lines[id(fields)]).items():
        places[name] = Fault(file=place, line=line, problem="", fix="")
        inner = tree.lines.get(id(fields[name]))
        if isinstance(inner, dict):
            places |= {f"{name}.{key}": Fault(file=place, line=number, problem="", fix="") for key, number in inner.items()}
    return fields, places, list(tree.faults)


def _put(fields: dict[str, Any], name: str, value: object) -> None:
    outer, dot, inner = name.partition(".")
    if not dot:
        fields[outer] = value
        return
    held = fields.get(outer)
    # A new object: the file's own may stand in several places by an alias.
    fields[outer] = {**(cast("dict[str, Any]", held) if isinstance(held, dict) else {}), inner: value}


def _placed(problem: Problem, file: str, places: _Places) -> Fault:
    """The problem with where its field was written: the innermost place that is known."""
    name = problem.at
    while name and name not in places:
        name = name[: max(name.rfind("."), name.rfind("["), 0)]
    place = places.get(name)
    line = None if place is None else place.line
    return Fault(file=place.file if place else file, line=line, field=problem.at or None, problem=problem.problem, fix=problem.fix)


def _problems(details: ErrorDetails) -> Iterator[Problem]:
    raised = details.get("ctx", {}).get("error")
    if isinstance(raised, ValueFault):
        yield from raised.problems
        return
    at = ""
    for part in details["loc"]:
        at += f"[{part}]" if isinstance(part, int) else f".{shown_name(part)}" if at else shown_name(part)
    problem, fix = _in_words(at, details)
    yield Problem(at=at, problem=problem, fix=fix)


_KINDS: Final = {
    "int_type": "give a whole number",
    "int_parsing": "give a whole number",
    "int_from_float": "give a whole number",
    "float_type": "give a number",
    "float_parsing": "give a number",
    "bool_type": "use true or false",
    "bool_parsing": "use true or false",
    "string_type": "give text (quote it)",
    "string_too_short": "give at least one character",
    "model_type": "give an object, such as 'lora: {r: 16}'",
    "model_attributes_type": "give an object, such as 'lora: {r: 16}'",
    "tuple_type": "give 'all-linear' or a list of names of modules",
    "too_short": "give 'all-linear' or a list of names of modules",
    "string_pattern_mismatch": "give the name of a quantization, such as q4_k_m",
    "finite_number": "give a number",
}
_LIMITS: Final = {
    "greater_than": ("gt", "more than"),
    "greater_than_equal": ("ge", "at least"),
    "less_than": ("lt", "less than"),
    "less_than_equal": ("le", "at most"),
}


def _in_words(at: str, details: ErrorDetails) -> tuple[str, str]:
    value, context, kind = details["input"], details.get("ctx", {}), details["type"]
    if kind == "missing":
        option = f"--{at} or " if at in _FLAGS else ""
        return "is missing", f"add {option}'{at}: ...' to the job file"
    if kind == "extra_forbidden":
        return "is no field of a job", _known(at)
    if kind == "literal_error":
        return f"is {describe(value)}", f"use {context['expected']}"
    if kind in _LIMITS:
        name, words = _LIMITS[kind]
        return f"is {describe(value)}", f"give {words} {context[name]:g}"
    return f"is {describe(value)}", _KINDS.get(kind, details["msg"])


def _known(name: str) -> str:
    names = [known for known, _ in fields_of()]
    close = did_you_mean(name, names) or next((known for known in names if known.rpartition(".")[2] == name), None)
    return f"did you mean {close!r}?" if close else "docs/reference/jobs.md lists them; remove it"
