from __future__ import annotations

import re
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from pytest_touchstone.errors import JobError
from pytest_touchstone.train.job import Job, Lora, Override, fields_of, load_job, read_value

BASE = {"backend": "trl", "model": "base"}
REFERENCE = Path(__file__).parents[1] / "docs" / "reference" / "jobs.md"


def faults_of(tmp_path, text, *overrides):
    path = tmp_path / "job.yaml"
    path.write_text(text, encoding="utf-8")
    with pytest.raises(JobError) as caught:
        load_job(path, overrides)
    return [line.replace(f"{tmp_path}/", "") for line in str(caught.value).splitlines()]


def override(field, value, option=None):
    return Override(field=field, value=value, option=option or f"--{field}")


class TestLoading:
    def test_a_file_and_the_command_line_which_wins(self, tmp_path):
        path = tmp_path / "job.yaml"
        path.write_text("backend: trl\nmodel: base\nlearning_rate: 2e-4\nlora: {r: 8, targets: all-linear}\n", encoding="utf-8")
        job = load_job(path, (override("model", "other"), override("lora.alpha", 8)))
        assert (job.model, job.learning_rate, job.lora) == ("other", 2e-4, Lora(r=8, alpha=8))

    def test_the_command_line_alone(self):
        job = load_job(None, (override("backend", "trl"), override("model", "base"), override("lora.r", 4)))
        assert job == Job(**BASE, lora=Lora(r=4))

    def test_an_empty_file_is_a_job_without_fields(self, tmp_path):
        path = tmp_path / "job.yaml"
        path.write_text("# nothing yet\n", encoding="utf-8")
        assert load_job(path, (override("backend", "trl"), override("model", "base"))) == Job(**BASE)

    def test_every_fault_at_once_with_its_line(self, tmp_path):
        text = (
            "backend: tlr\nepochs: many\nlora:\n  r: 0\n  alfa: 3\n  targets: 3\nseed: -1\nlearnin_rate: 1\nmerge: perhaps\nmerge: true\n"
        )
        assert faults_of(tmp_path, text) == [
            "job.yaml:10: has the key 'merge' twice; remove one of the two",
            "job.yaml:1: backend: is text 'tlr'; use 'trl', 'unsloth', 'llamafactory' or 'openai'",
            "job.yaml: model: is missing; add --model or 'model: ...' to the job file",
            "job.yaml:7: seed: is the number -1; give at least 0",
            "job.yaml:2: epochs: is text 'many'; give a number",
            "job.yaml:4: lora.r: is the number 0; give at least 1",
            "job.yaml:6: lora.targets: is the number 3; give 'all-linear' or a list of names of modules",
            "job.yaml:5: lora.alfa: is no field of a job; did you mean 'lora.alpha'?",
            "job.yaml:8: learnin_rate: is no field of a job; did you mean 'learning_rate'?",
        ]

    def test_a_fault_of_the_command_line_names_the_option(self, tmp_path):
        faults = faults_of(tmp_path, "model: base\n", override("backend", "tlr"), override("lora.r", "x", "--set lora.r=x"))
        assert faults == [
            "--backend: backend: is text 'tlr'; use 'trl', 'unsloth', 'llamafactory' or 'openai'",
            "--set lora.r=x: lora.r: is text 'x'; give a whole number",
        ]

    @pytest.mark.parametrize(
        ("text", "said"),
        [
            ("r: 8\n", "job.yaml:1: r: is no field of a job; did you mean 'lora.r'?"),
            ("zzz: 8\n", "job.yaml:1: zzz: is no field of a job; docs/reference/jobs.md lists them; remove it"),
            ("lora: 8\n", "job.yaml:1: lora: is the number 8; give an object, such as 'lora: {r: 16}'"),
            ("lora: {targets: []}\n", "job.yaml:1: lora.targets: is a list; give 'all-linear' or a list of names of modules"),
            ("lora: {targets: [q, 1]}\n", "job.yaml:1: lora.targets[1]: is the number 1; give text (quote it)"),
            ("epochs: .inf\n", "job.yaml:1: epochs: is the number inf; give a number"),
            ("epochs: .nan\n", "job.yaml:1: epochs: is the number nan; give a number"),
            ("patience: 3\n", "job.yaml:1: patience: has no loss to look at; set eval_part, such as 0.1"),
            ("gguf: q4_k_m\n", "job.yaml:1: gguf: cannot be written by trl; use backend: unsloth, or leave gguf out"),
            ("gguf: ../x\n", "job.yaml:1: gguf: is text '../x'; give the name of a quantization, such as q4_k_m"),
            ("max_steps: 1.5\n", "job.yaml:1: max_steps: is the number 1.5; give a whole number"),
        ],
    )
    def test_a_fault_and_its_fix(self, tmp_path, text, said):
        faults = faults_of(tmp_path, text, override("backend", "trl"), override("model", "base"))
        assert faults == [said]

    def test_unsloth_trains_in_one_process(self, tmp_path):
        faults = faults_of(tmp_path, "backend: unsloth\nmodel: base\nprocesses: 2\n")
        assert faults == ["job.yaml:3: processes: is more than 1, and Unsloth trains in one; use backend: trl for several GPUs"]

    @pytest.mark.parametrize(
        ("raw", "said"),
        [
            (b"- trl\n", "job.yaml:1: is a list; give an object, such as 'backend: trl'"),
            (b"a: [\n", "job.yaml:2: is not YAML:"),
            (b"backend: trl\nmodel: \xff\n", "job.yaml:2: is not UTF-8; save it as UTF-8"),
            (b"#" * (1 << 20) + b"\n", "job.yaml: is larger than 1 MiB; give a job file, not data"),
        ],
    )
    def test_a_file_that_is_no_job(self, tmp_path, raw, said):
        path = tmp_path / "job.yaml"
        path.write_bytes(raw)
        with pytest.raises(JobError) as caught:
            load_job(path)
        assert said in str(caught.value)

    def test_an_alias_is_not_changed_for_its_other_places(self, tmp_path):
        path = tmp_path / "job.yaml"
        path.write_text("backend: trl\nmodel: base\nlora: &l {r: 8}\n", encoding="utf-8")
        assert load_job(path, (override("lora.r", 4),)).lora.r == 4

    def test_what_is_no_object_gives_way_to_an_override(self, tmp_path):
        path = tmp_path / "job.yaml"
        path.write_text("backend: trl\nmodel: base\nlora: 8\n", encoding="utf-8")
        assert load_job(path, (override("lora.r", 4),)).lora.r == 4


class TestResolving:
    @pytest.mark.parametrize(
        ("fields", "rate", "quantization", "checkpointing"),
        [
            ({}, 2e-4, "none", False),
            ({"method": "dpo"}, 5e-6, "none", False),
            ({"backend": "unsloth"}, 2e-4, "4bit", True),
            ({"backend": "unsloth", "learning_rate": 1e-3, "quantization": "none", "gradient_checkpointing": False}, 1e-3, "none", False),
        ],
    )
    def test_defaults_that_depend_on_other_fields(self, fields, rate, quantization, checkpointing):
        job = Job(**(BASE | fields)).resolved()
        assert (job.learning_rate, job.quantization, job.gradient_checkpointing) == (rate, quantization, checkpointing)
        assert job.resolved() == job

    @settings(max_examples=20, suppress_health_check=[HealthCheck.too_slow])
    @given(
        rate=st.floats(min_value=1e-12, max_value=1),
        model=st.text(min_size=1).filter(lambda text: all(c.isprintable() for c in text)),
        targets=st.lists(st.sampled_from(["q_proj", "null", "1", "true", "a: b"]), min_size=1),
        steps=st.none() | st.integers(min_value=1, max_value=2**40),
    )
    def test_a_written_job_is_read_back_equal(self, tmp_path_factory, rate, model, targets, steps):
        job = Job(backend="trl", model=model, learning_rate=rate, max_steps=steps, lora=Lora(targets=tuple(targets))).resolved()
        path = tmp_path_factory.mktemp("job") / "job.yaml"
        path.write_bytes(job.to_yaml())
        assert load_job(path) == job


class TestValues:
    @pytest.mark.parametrize(
        ("text", "value"),
        [("0.5", 0.5), ("true", True), ("[a, b]", ["a", "b"]), ("2e-4", "2e-4"), ("null", None), ("a: [", "a: ["), ("x", "x")],
    )
    def test_as_a_job_file_would_read_them(self, text, value):
        assert read_value(text) == value


class TestReference:
    def test_the_page_lists_every_field_as_the_model_has_it(self):
        rows = re.findall(r"^\| `([\w.]+)` \| (.*?) \| (.*?) \| (.*?) \| (.*?) \|$", REFERENCE.read_text(encoding="utf-8"), re.MULTILINE)
        assert rows == [row_of(name, info) for name, info in fields_of()]

    def test_every_field_says_its_unit_and_who_says_its_default(self):
        for name, info in fields_of():
            assert info.description, name
            assert set(info.json_schema_extra) == {"unit", "source"}, name
            assert info.is_required() or info.json_schema_extra["source"], name


def row_of(name, info):
    """A field as the reference shows it: name, what it is, unit, default, source of the default."""
    extra = info.json_schema_extra
    default = "required" if info.is_required() else shown_default(info.default)
    return name, info.description, extra["unit"] or "-", default, extra["source"] or "-"


def shown_default(value):
    if value is None:
        return "none"
    if isinstance(value, bool):
        return f"`{str(value).lower()}`"
    return f"`{value[0] if isinstance(value, tuple) else value}`"
