"""Personal data by Presidio beside the rules: names and places by a spaCy model that is installed, identity numbers by their form.

Everything runs in this process. Nothing is downloaded and nothing is asked: a model is loaded from this disk or not at all, and only
recognisers that look at the text and nowhere else are used.
"""

from __future__ import annotations

import dataclasses
import importlib
import importlib.metadata
import importlib.util
import warnings
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from pytest_touchstone.errors import ExportError
from pytest_touchstone.export.personal import KINDS, MAX_TEXT, RULES, PersonalFinder

if TYPE_CHECKING:
    from collections.abc import Iterator

LANGUAGE: Final = "en"  # where no model says which
# A form that counts without the words around it: below, every customer number is a US passport, since "customer" holds "us".
THRESHOLD: Final = 0.5
# Presidio's own recognisers, and what they look for. Kept are those that take hardly any order, invoice or serial number, date or code for
# theirs: of 5,000 such texts (benchmarks/personal_data.py), each of these at most three. Left out are, by the part of the texts that they
# took: dates (15 %), US driver licences (2 %), medical licences (1 %), phone numbers (1 %, and from 0.4 on 7 %; the rules have the
# unmistakable ones), and identity numbers that are nothing but digits with a check digit, as PESEL and the NHS's (1 %). E-mail addresses
# and URLs are left out, since those recognisers fetch a list of domains from the network; cards and IP addresses, since the rules have
# them all. Organisations are no persons.
RECOGNIZERS: Final = {
    "CryptoRecognizer": "CRYPTO",
    "DeSocialSecurityRecognizer": "DE_SOCIAL_SECURITY",
    "EsNieRecognizer": "ES_NIE",
    "EsNifRecognizer": "ES_NIF",
    "FiPersonalIdentityCodeRecognizer": "FI_PERSONAL_IDENTITY_CODE",
    "IbanRecognizer": "IBAN_CODE",
    "InPanRecognizer": "IN_PAN",
    "ItFiscalCodeRecognizer": "IT_FISCAL_CODE",
    "MacAddressRecognizer": "MAC_ADDRESS",
    "SgFinRecognizer": "SG_NRIC_FIN",
    "UkDrivingLicenceRecognizer": "UK_DRIVING_LICENCE",
    "UkNinoRecognizer": "UK_NINO",
    "UsItinRecognizer": "US_ITIN",
    "UsMbiRecognizer": "US_MBI",
    "UsSsnRecognizer": "US_SSN",
}
# What spaCy's models call them: those of OntoNotes, of WikiNER, and the Swedish, Norwegian, Polish and Korean ones.
LABELS: Final = {
    "PERSON": frozenset({"PERSON", "PER", "PRS", "PS", "persName"}),
    "LOCATION": frozenset({"LOCATION", "LOC", "GPE", "GPE_LOC", "FAC", "LC", "geogName", "placeName"}),
}

_NAMES: Final = {entity: entity.lower() for entity in (*LABELS, *RECOGNIZERS.values())} | {"IBAN_CODE": "iban"}
_FURTHER: Final = tuple(kind for kind in _NAMES.values() if kind not in KINDS)
_PIECE: Final = 20_000  # characters; a model's memory grows with the text that it is given at once


def check_presidio(model: Path | str | None) -> None:
    """Refuse what cannot be looked with; cheap, so it can be asked before a run is paid for. `model` is as in `presidio_finder`.

    Raises:
        ExportError: Presidio is not installed, or there is no such model.
    """
    if importlib.util.find_spec("presidio_analyzer") is None:
        msg = (
            "--llm-personal-data presidio needs presidio-analyzer, which is not installed; "
            "pip install 'pytest-touchstone[pii]', or let the rules look alone: --llm-personal-data rules"
        )
        raise ExportError(msg)
    if isinstance(model, Path):
        if not all((model / name).is_file() for name in ("meta.json", "config.cfg")):
            msg = f"{model}: has no meta.json and config.cfg; give --llm-personal-data presidio:FOLDER the folder of a spaCy model"
            raise ExportError(msg)
    elif model is not None and not _is_installed(model):
        msg = (
            f"no spaCy model {model!r} is installed; install it, for example by python -m spacy download {model}, "
            "or give --llm-personal-data presidio:FOLDER the folder of one, as a path with a slash"
        )
        raise ExportError(msg)


def presidio_finder(model: Path | str | None = None, *, language: str = LANGUAGE) -> PersonalFinder:
    """What finds all that the rules find, and what Presidio finds; the rules alone, with the reason, where Presidio cannot be used.

    `model` is a spaCy model, by the folder or the package that holds it, which also says the language. Without one, `language` (as spaCy
    calls it) cuts texts into words, and names and places are not looked for.
    """
    try:
        with warnings.catch_warnings():
            # Those of libraries about each other; a run that makes errors of warnings shall have its report all the same.
            warnings.simplefilter("ignore")
            return _finder(model, language)
    except Exception as error:  # noqa: BLE001 - whatever a broken model makes of the library
        said = (str(error).splitlines() or [""])[0]
        fault = f"Presidio cannot be used: {type(error).__name__}: {said}"
        return dataclasses.replace(RULES, unknown=dict.fromkeys(_FURTHER, fault), fault=fault)


def _is_installed(name: str) -> bool:
    """As spaCy sees it: a distribution of that name, whose package is a model."""
    try:
        importlib.metadata.distribution(name)
        found = importlib.util.find_spec(name)
    except (ImportError, ValueError):  # the latter for what cannot be a name
        return False
    return found is not None and any(Path(folder, "meta.json").is_file() for folder in found.submodule_search_locations or ())


def _finder(model: Path | str | None, language: str) -> PersonalFinder:
    spacy: Any = importlib.import_module("spacy")
    nlp: Any = spacy.blank(language) if model is None else spacy.load(model)
    labels = _labels(nlp)
    analyzer = _analyzer(nlp, labels)
    entities = [*(entity for entity in LABELS if entity in labels.values()), *RECOGNIZERS.values()]
    kinds = tuple(dict.fromkeys((*KINDS, *(_NAMES[entity] for entity in entities))))

    def find(text: str) -> tuple[str, ...]:
        found = set(RULES.find(text))
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            for piece in _pieces(text[:MAX_TEXT]):
                results = analyzer.analyze(text=piece, language=nlp.lang, entities=entities, score_threshold=THRESHOLD)
                found |= {_NAMES[result.entity_type] for result in results}
        return tuple(kind for kind in kinds if kind in found)

    named = f"{nlp.meta['lang']}_{nlp.meta['name']} {nlp.meta['version']}"
    told = "no model" if model is None else f"the model {named}"
    why = "needs a spaCy model; --llm-personal-data presidio:MODEL names it" if model is None else f"{told} does not find it"
    return PersonalFinder(
        find=find,
        kinds=kinds,
        by=f"rules and presidio-analyzer {importlib.metadata.version('presidio-analyzer')} with spaCy {spacy.__version__} and {told}",
        unknown={kind: why for kind in _FURTHER if kind not in kinds},
    )


def _labels(nlp: Any) -> dict[str, str]:  # noqa: ANN401 - spaCy may not be here
    """The labels of the pipeline's entities, each with Presidio's name for it; the empty one where it is none of ours."""
    finders = [name for name in nlp.pipe_names if "doc.ents" in nlp.get_pipe_meta(name).assigns]
    ours = {label: entity for entity, labels in LABELS.items() for label in labels}
    return {label: ours.get(label, "") for name in finders for label in nlp.pipe_labels.get(name, ())}


def _analyzer(nlp: Any, labels: dict[str, str]) -> Any:  # noqa: ANN401 - as above
    presidio: Any = importlib.import_module("presidio_analyzer")
    recognizers: Any = importlib.import_module("presidio_analyzer.predefined_recognizers")
    engines: Any = importlib.import_module("presidio_analyzer.nlp_engine")
    language: str = nlp.lang
    known = engines.NerModelConfiguration(
        model_to_presidio_entity_mapping={label: entity for label, entity in labels.items() if entity},
        labels_to_ignore=[label for label, entity in labels.items() if not entity],
    )
    engine = engines.SpacyNlpEngine(models=[{"lang_code": language, "model_name": language}], ner_model_configuration=known)
    engine.nlp = {language: nlp}  # what `load` sets, which would download a model that it does not find
    # Named one by one: what the registry takes by itself changes with each version, and some of it calls out.
    used = [getattr(recognizers, name)(supported_language=language) for name in RECOGNIZERS]
    used.append(recognizers.SpacyRecognizer(supported_language=language, supported_entities=list(LABELS)))
    registry = presidio.RecognizerRegistry(recognizers=used, supported_languages=[language])
    return presidio.AnalyzerEngine(registry=registry, nlp_engine=engine, supported_languages=[language])


def _pieces(text: str) -> Iterator[str]:
    """The text in pieces that end, where they can, with a line or a word."""
    while len(text) > _PIECE:
        cut = (text.rfind("\n", 0, _PIECE) + 1) or (text.rfind(" ", 0, _PIECE) + 1) or _PIECE
        yield text[:cut]
        text = text[cut:]
    if text:
        yield text
