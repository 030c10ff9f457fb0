"""Personal data by Presidio: what is handed to it and what is made of its answers, by a stand-in; what it really finds, where it is."""

from __future__ import annotations

import importlib.util
import json
import os
import socket
import subprocess
import sys
from importlib.machinery import ModuleSpec
from types import ModuleType, SimpleNamespace

import pytest
from export_samples import assistant, example, user

from pytest_touchstone.errors import ExportError
from pytest_touchstone.export import presidio
from pytest_touchstone.export.personal import KINDS, RULES
from pytest_touchstone.export.presidio import LABELS, RECOGNIZERS, check_presidio, presidio_finder
from pytest_touchstone.export.quality import assess

IS_ABSENT = importlib.util.find_spec("presidio_analyzer") is None and not os.environ.get("TOUCHSTONE_TEST_PRESIDIO")
real = pytest.mark.skipif(IS_ABSENT, reason="not installed: presidio-analyzer")

NO_MODEL = "needs a spaCy model; --llm-personal-data presidio:MODEL names it"
FORMS = (
    "crypto", "de_social_security", "es_nie", "es_nif", "fi_personal_identity_code", "in_pan", "it_fiscal_code", "mac_address", "sg_nric_fin",
    "uk_driving_licence", "uk_nino", "us_itin", "us_mbi", "us_ssn",
)  # fmt: skip

SUITE = """
import pytest
from pytest_touchstone import exact_match

@pytest.mark.golden("cases.yaml")
def test_it(case):
    case.output = "On its way."
    case.check(exact_match())
"""

CASES = """
- {id: a, input: "Daniel Okafor asks: where is it? My number is AB 12 34 56 C.", expected: On its way., split: train}
- {id: b, input: "Mail me at ann@example.org.", expected: On its way., split: train}
"""


@pytest.fixture
def project(pytester):
    (pytester.path / "cases.yaml").write_text(CASES, encoding="utf-8")
    pytester.makepyfile(test_suite=SUITE)
    return pytester


class Recognizer:
    def __init__(self, name, supported_language, supported_entities=None):
        self.name, self.language, self.entities = name, supported_language, supported_entities


class Nlp(SimpleNamespace):
    """A pipeline whose components each have labels, and assign entities or something else."""

    def get_pipe_meta(self, name):
        return SimpleNamespace(assigns=["doc.ents"] if "ner" in name else ["token.tag"])

    @property
    def pipe_names(self):
        return list(self.pipe_labels)


class StandIn:
    """In the place of spaCy and Presidio: keeps what it is given; `answer(text)` says which entities a text has."""

    def __init__(self):
        self.answer = lambda text: ()
        self.texts = []
        self.loaded = []
        self.pipe_labels = {"tagger": ["NN"], "ner": ["PER", "LOC", "ORG"]}

    def blank(self, language):
        return Nlp(lang=language, meta={"lang": language, "name": "pipeline", "version": "0.0.0"}, pipe_labels={})

    def load(self, model):
        self.loaded.append(model)
        if isinstance(self.pipe_labels, Exception):
            raise self.pipe_labels
        return Nlp(lang="de", meta={"lang": "de", "name": "core_news_sm", "version": "3.8.0"}, pipe_labels=self.pipe_labels)

    def analyze(self, *, text, language, entities, score_threshold):
        self.texts.append(text)
        self.asked = (language, entities, score_threshold)
        return [SimpleNamespace(entity_type=entity) for entity in self.answer(text)]

    def analyzer(self, *, registry, nlp_engine, supported_languages):
        self.recognizers, self.engine, self.languages = registry.recognizers, nlp_engine, supported_languages
        return self


@pytest.fixture
def standin(monkeypatch):
    made = StandIn()

    def put(name, **members):
        module = ModuleType(name)
        module.__dict__.update(members)
        module.__spec__ = ModuleSpec(name, None)
        monkeypatch.setitem(sys.modules, name, module)

    def recognizer(name):
        return lambda supported_language, supported_entities=None: Recognizer(name, supported_language, supported_entities)

    put("spacy", blank=made.blank, load=made.load, __version__="3.8.1")
    put("presidio_analyzer", RecognizerRegistry=SimpleNamespace, AnalyzerEngine=made.analyzer)
    put(
        "presidio_analyzer.predefined_recognizers",
        **{name: recognizer(name) for name in (*RECOGNIZERS, "SpacyRecognizer", "UrlRecognizer")},
    )
    put("presidio_analyzer.nlp_engine", SpacyNlpEngine=SimpleNamespace, NerModelConfiguration=SimpleNamespace)
    monkeypatch.setattr(presidio.importlib.metadata, "version", lambda name: f"{name} 2.2.363".removeprefix("presidio-analyzer "))
    return made


def said(text):
    return example(prompt=(user(text),), completion=(assistant("ok"),))


def test_without_a_model_names_and_places_are_unknown_and_forms_are_looked_for(standin):
    standin.answer = lambda text: ["US_SSN", "IBAN_CODE"] if "219" in text else []
    finder = presidio_finder()
    assert finder.by == "rules and presidio-analyzer 2.2.363 with spaCy 3.8.1 and no model"
    assert finder.unknown == {"person": NO_MODEL, "location": NO_MODEL}
    assert finder.kinds == (*KINDS, *FORMS)
    assert finder.find("219-09-9999 of ann@example.org") == ("email", "iban", "us_ssn")
    assert finder.find("") == ()
    assert standin.asked == ("en", list(RECOGNIZERS.values()), 0.5)
    assert standin.texts == ["219-09-9999 of ann@example.org"]


def test_a_model_says_language_and_labels(standin, tmp_path):
    standin.answer = lambda text: ["PERSON"]
    finder = presidio_finder(tmp_path)
    assert standin.loaded == [tmp_path]
    assert finder.by == "rules and presidio-analyzer 2.2.363 with spaCy 3.8.1 and the model de_core_news_sm 3.8.0"
    assert finder.unknown == {}
    assert finder.kinds == (*KINDS, "person", "location", *FORMS)
    assert finder.find("Guten Tag, Jörg.") == ("person",)
    assert standin.asked == ("de", ["PERSON", "LOCATION", *RECOGNIZERS.values()], 0.5)
    assert standin.languages == ["de"]
    assert list(standin.engine.nlp) == ["de"]
    known = standin.engine.ner_model_configuration
    assert known.model_to_presidio_entity_mapping == {"PER": "PERSON", "LOC": "LOCATION"}
    assert known.labels_to_ignore == ["ORG"]


def test_only_recognisers_that_were_chosen_are_used(standin):
    presidio_finder()
    assert [used.name for used in standin.recognizers] == [*RECOGNIZERS, "SpacyRecognizer"]
    assert {used.language for used in standin.recognizers} == {"en"}
    assert standin.recognizers[-1].entities == list(LABELS)


def test_what_a_model_has_no_label_for_is_unknown(standin):
    standin.pipe_labels = {"entity_ruler_ner": ["PERSON"]}
    finder = presidio_finder("de_core_news_sm")
    assert "person" in finder.kinds
    assert "location" not in finder.kinds
    assert finder.unknown == {"location": "the model de_core_news_sm 3.8.0 does not find it"}


def test_long_texts_are_read_in_pieces_up_to_the_limit(standin, monkeypatch):
    monkeypatch.setattr(presidio, "MAX_TEXT", 70_000)
    text = "word " * 9_000 + "\n" + "x" * 30_000
    presidio_finder().find(text)
    assert "".join(standin.texts) == text[:70_000]
    assert max(map(len, standin.texts)) == 20_000
    assert standin.texts[0].endswith("word ")
    assert standin.texts[2].endswith("\n")


def test_a_model_that_cannot_be_loaded_leaves_the_rules_and_is_said(standin):
    standin.pipe_labels = OSError("[E053] Could not read config file\nfrom there")
    finder = presidio_finder("de_core_news_sm")
    assert finder.fault == "Presidio cannot be used: OSError: [E053] Could not read config file"
    assert (finder.by, finder.kinds) == ("rules", KINDS)


def test_an_absent_library_leaves_the_rules_and_is_said(monkeypatch):
    monkeypatch.setitem(sys.modules, "spacy", None)
    finder = presidio_finder()
    assert finder.fault == "Presidio cannot be used: ModuleNotFoundError: import of spacy halted; None in sys.modules"
    assert (finder.by, finder.kinds, finder.find) == ("rules", KINDS, RULES.find)
    assert finder.unknown == dict.fromkeys(("person", "location", *FORMS), finder.fault)
    found = assess([said("a")], finder=finder)
    assert f"personal data was looked for by rules alone: {finder.fault}" in found.advice


def test_where_it_fails_at_a_text_the_rules_look_and_the_line_is_named(standin):
    def answer(text):
        if "Ann" in text:
            raise ValueError(text)
        return ["PERSON"] if "Bob" in text else []

    standin.answer = answer
    found = assess([said("Bob"), said("Ann, ann@example.org"), said("Ann")], finder=presidio_finder("de_core_news_sm"))
    assert found.personal_unread == (2, 3)
    assert {kind: lines for kind, lines in found.personal_data.items() if lines} == {"email": (2,), "person": (1,)}
    assert (
        "personal data was looked for by rules alone in 2 examples (lines 2, 3), where rules and presidio-analyzer 2.2.363 with spaCy 3.8.1 "
        "and the model de_core_news_sm 3.8.0 failed"
    ) in found.advice
    assert "Ann" not in json.dumps(found.to_dict())


def test_a_text_is_read_once(standin):
    assess([said("You are the shop's assistant.")] * 3, finder=presidio_finder())
    assert sorted(standin.texts) == ["You are the shop's assistant.", "ok"]


class TestCheck:
    def test_without_presidio_it_is_said_how_to_get_it(self, monkeypatch):
        monkeypatch.setitem(sys.modules, "presidio_analyzer", None)
        with pytest.raises(ExportError) as raised:
            check_presidio(None)
        assert str(raised.value) == (
            "--llm-personal-data presidio needs presidio-analyzer, which is not installed; pip install 'pytest-touchstone[pii]', "
            "or let the rules look alone: --llm-personal-data rules"
        )

    def test_a_folder_holds_a_model(self, standin, tmp_path):
        with pytest.raises(ExportError) as raised:
            check_presidio(tmp_path)
        assert str(raised.value) == (
            f"{tmp_path}: has no meta.json and config.cfg; give --llm-personal-data presidio:FOLDER the folder of a spaCy model"
        )
        for name in ("meta.json", "config.cfg"):
            (tmp_path / name).touch()
        check_presidio(tmp_path)

    @pytest.mark.parametrize("name", ["en_core_web_none", "pytest", "no.such", "a b"])
    def test_a_name_is_that_of_an_installed_model(self, standin, name):
        with pytest.raises(ExportError) as raised:
            check_presidio(name)
        assert str(raised.value) == (
            f"no spaCy model {name!r} is installed; install it, for example by python -m spacy download {name}, "
            "or give --llm-personal-data presidio:FOLDER the folder of one, as a path with a slash"
        )

    def test_an_installed_model_will_do(self, standin, tmp_path, monkeypatch):
        install(tmp_path, "xx_shop")
        monkeypatch.syspath_prepend(tmp_path)
        check_presidio("xx_shop")
        check_presidio(None)


def install(folder, name):
    (folder / name).mkdir()
    (folder / name / "__init__.py").touch()
    (folder / name / "meta.json").touch()
    (folder / f"{name}-1.0.dist-info").mkdir()
    (folder / f"{name}-1.0.dist-info" / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.0\n", encoding="utf-8")


class TestOption:
    @pytest.mark.parametrize("value", ["spacy", "rules:x", "presidio:", ""])
    def test_a_value_that_is_none_is_refused(self, project, runner, value):
        result = runner.run("--llm-eval", "--llm-export", "training", f"--llm-personal-data={value}")
        result.stderr.fnmatch_lines([f"*argument --llm-personal-data: '{value}' is none of rules, presidio and presidio:MODEL"])
        assert result.ret == pytest.ExitCode.USAGE_ERROR

    def test_an_ini_value_that_is_none_is_refused(self, project, runner):
        project.makeini("[pytest]\nllm_personal_data = spacy\n")
        result = runner.run("--llm-eval")
        result.stderr.fnmatch_lines(
            ["*ini llm_personal_data: 'spacy' is none of rules, presidio and presidio:MODEL, for example llm_personal_data = presidio:en_*"]
        )
        assert result.ret == pytest.ExitCode.USAGE_ERROR

    def test_without_an_export_it_is_refused(self, project, runner):
        result = runner.run("--llm-eval", "--llm-personal-data=rules")
        result.stderr.fnmatch_lines(
            ["*--llm-personal-data looks for personal data in what --llm-export writes; add --llm-export DIR, or leave it out"]
        )
        assert result.ret == pytest.ExitCode.USAGE_ERROR

    @pytest.mark.parametrize("where", ["option", "ini"])
    def test_a_missing_library_is_told_before_anything_runs(self, project, runner, monkeypatch, where):
        monkeypatch.setitem(sys.modules, "presidio_analyzer", None)
        if where == "ini":
            project.makeini("[pytest]\nllm_personal_data = presidio\n")
        options = ["--llm-personal-data=presidio"] if where == "option" else []
        result = runner.run("--llm-eval", "--llm-export", "training", *options)
        result.stderr.fnmatch_lines(["*needs presidio-analyzer, which is not installed; pip install 'pytest-touchstone[[]pii[]]'*"])
        assert result.ret == pytest.ExitCode.USAGE_ERROR
        assert not (project.path / "training").exists()

    @pytest.mark.parametrize("where", ["option", "ini"])
    def test_a_folder_is_that_of_who_names_it(self, project, standin, where):
        below = project.mkdir("below")
        if where == "ini":
            project.makeini("[pytest]\nllm_personal_data = presidio:models/shop\n")
        os.chdir(below)
        options = ["--llm-personal-data=presidio:models/shop"] if where == "option" else []
        result = project.runpytest_inprocess(
            "--llm-eval", "--llm-export", "training", *options, "-c", "../tox.ini" if where == "ini" else "/dev/null"
        )
        base = project.path if where == "ini" else below
        result.stderr.fnmatch_lines([f"*{base}/models/shop: has no meta.json and config.cfg; *"])

    def test_rules_are_the_default(self, project, runner):
        runner.run("--llm-eval", "--llm-export", "training")
        found = json.loads((project.path / "training" / "report.json").read_text(encoding="utf-8"))
        assert found["personal_by"] == "rules"
        assert found["personal_data"] == {kind: [2] if kind == "email" else [] for kind in KINDS}
        assert list(found["personal_unknown"]) == ["person", "location"]
        card = (project.path / "training" / "README.md").read_text(encoding="utf-8")
        assert "- Personal data was looked for by `rules`: `email`, `phone`, `iban`, `card`, `ip`" in card
        assert (
            "- Personal data of other kinds, `person`, `location`: unknown "
            "(`has no form that rules could know; --llm-personal-data presidio:MODEL looks for it`)"
        ) in card

    def test_a_model_that_cannot_be_read_leaves_the_rules_and_a_line_in_the_terminal(self, project, standin):
        folder = project.mkdir("model")
        for name in ("meta.json", "config.cfg"):
            (folder / name).touch()
        standin.pipe_labels = OSError("[E053] Could not read config file")
        result = project.runpytest_inprocess("--llm-eval", "--llm-export", "training", "--llm-personal-data=presidio:./model")
        result.stdout.fnmatch_lines(
            [
                "quality: personal data was looked for by rules alone: Presidio cannot be used: OSError: [[]E053[]] Could not read config file"
            ]
        )
        assert (project.path / "training" / "train.jsonl").exists()


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    """A spaCy model that knows one person, one place and one organisation."""
    code = (
        "import spacy, sys\n"
        "nlp = spacy.blank('en')\n"
        "names = {'PERSON': 'Daniel Okafor', 'GPE': 'Leeds', 'ORG': 'Acme'}\n"
        "nlp.add_pipe('entity_ruler').add_patterns([{'label': label, 'pattern': name} for label, name in names.items()])\n"
        "nlp.meta['name'] = 'shop'\n"
        "nlp.to_disk(sys.argv[1])\n"
    )
    folder = tmp_path_factory.mktemp("spacy") / "model"
    subprocess.run([sys.executable, "-c", code, str(folder)], check=True)
    return folder


@pytest.fixture(scope="module")
def finder():
    return presidio_finder()


@pytest.fixture
def without_network(monkeypatch):
    def refuse(*_):
        pytest.fail("asks the network")

    monkeypatch.setattr(socket.socket, "connect", refuse)
    monkeypatch.setattr(socket, "getaddrinfo", refuse)


@real
@pytest.mark.usefixtures("without_network")
class TestReal:
    @pytest.mark.parametrize(
        ("kinds", "text"),
        [
            ("us_ssn", "My SSN is 219-09-9999."),
            ("us_itin us_ssn", "ITIN 912-70-1234, which has the form of an SSN, too"),
            ("us_mbi", "My Medicare number is 1EG4-TE5-MK73."),
            ("uk_nino", "National insurance AB 12 34 56 C"),
            ("es_nif", "DNI 12345678Z"),
            ("it_fiscal_code", "codice fiscale RSSMRA85T10A562S"),
            ("iban", "DE89-3704-0044-0532-0130-00"),
            ("crypto", "to 1BvBMSEYstWetqTFn5Au4m4GFg7xJaNVN2"),
            ("mac_address", "the router 00:1B:44:11:3A:B7"),
            ("email", "ann@example.org"),
        ],
    )
    def test_finds_forms_without_a_model(self, finder, kinds, text):
        assert finder.find(text) == tuple(kinds.split())

    @pytest.mark.parametrize(
        "text",
        [
            "My customer number is 533380006. The duplicate invoice has number 912345678.",
            "My account number is 12345678 and I want to check my balance.",
            "Order #100045213, invoice INV-2026-00381, refund of $1,249.99 on 12 March 2026 at 14:30.",
            "Serial number SN-AX4471920, model KT-2200, voucher A1234567, tracking 1Z999AA10123456784.",
            "uuid 550e8400-e29b-41d4-a716-446655440000, https://example.org/a, version 2.4.1",
            "Daniel Okafor of Leeds",
        ],
    )
    def test_takes_numbers_and_dates_of_a_shop_for_what_they_are(self, finder, text):
        assert finder.find(text) == ()

    def test_says_what_it_could_not_look_for(self, finder):
        assert finder.fault == ""
        assert finder.unknown == {"person": NO_MODEL, "location": NO_MODEL}

    def test_another_language_needs_no_model_either(self):
        finder = presidio_finder(language="de")
        assert finder.find("Meine IBAN: DE89-3704-0044-0532-0130-00") == ("iban",)

    def test_a_model_finds_names_and_places(self, model):
        finder = presidio_finder(model)
        assert finder.fault == ""
        assert finder.by.endswith("and the model en_shop 0.0.0")
        assert finder.unknown == {}
        assert finder.find("Daniel Okafor of Acme, Leeds, ann@example.org") == ("email", "person", "location")

    def test_a_model_that_is_not_there_is_not_downloaded(self):
        finder = presidio_finder("en_core_web_none")
        assert finder.fault.startswith("Presidio cannot be used: OSError: [E050]")

    def test_an_export_says_who_looked(self, project, model):
        # In a process of its own: what spaCy registers cannot be registered twice.
        project.makeini("[pytest]\nfilterwarnings = error\n")
        result = project.runpytest_subprocess("--llm-eval", "--llm-export", "training", f"--llm-personal-data=presidio:{model}")
        result.stdout.fnmatch_lines(
            [
                "quality: what looks like personal data: email in 1 example, person in 1 example, uk_nino in 1 example; a model may repeat it *"
            ]
        )
        card = (project.path / "training" / "README.md").read_text(encoding="utf-8")
        assert "Examples with what looks like personal data: 2\n- Personal data was looked for by `rules and presidio-analyzer " in card
        assert "and the model en_shop 0.0.0`: `email`, `phone`, `iban`, `card`, `ip`, `person`, `location`, `crypto`" in card
        report = json.loads((project.path / "training" / "report.json").read_text(encoding="utf-8"))
        assert report["personal_data"]["person"] == [1]
        assert report["personal_data"]["location"] == []
        assert report["personal_unknown"] == {}
        assert report["personal_unread"] == []
