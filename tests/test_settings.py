from __future__ import annotations

import dataclasses

import pytest

from pytest_touchstone.settings import RECORD_MODES, SPLITS, Settings, chosen_store, default_record_mode


@pytest.mark.parametrize("ci", ["true", "1", "True", "yes", "woodpecker"])
def test_ci_replays(ci):
    assert default_record_mode({"CI": ci}) == "none"


@pytest.mark.parametrize("environ", [{}, {"CI": ""}, {"CI": "false"}, {"CI": "False"}, {"CI": "0"}])
def test_elsewhere_what_is_missing_is_recorded(environ):
    assert default_record_mode(environ) == "missing"


def test_the_defaults_ask_for_nothing():
    settings = Settings()
    assert (settings.split, settings.limit, settings.export, settings.judge.model) == (None, None, None, None)
    assert settings.record in RECORD_MODES
    assert SPLITS == ("train", "holdout")


def test_settings_are_frozen():
    with pytest.raises(dataclasses.FrozenInstanceError):
        Settings().limit = 3


def test_a_run_is_stored_unless_somebody_says_otherwise():
    assert Settings().store == chosen_store() == chosen_store(None, "", None) == ".touchstone/runs.db"
    assert chosen_store(None, "team.db", "off") == "team.db"
    assert chosen_store("off", "team.db") is None
