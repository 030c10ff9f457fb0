"""What an improvement remembers, and when a step counts as done."""

from __future__ import annotations

import pytest

from pytest_touchstone.errors import ImproveError
from pytest_touchstone.improve_state import Done, Inputs, State, file_hash, locked


def state():
    return State(
        inputs=Inputs(folder="/project", pytest_args=("evals",), model="base"),
        steps={"before": Done(fingerprint="a1", result={"run": "1"})},
    )


def test_it_comes_back_as_it_was_saved(tmp_path):
    state().save(tmp_path)
    assert State.load(tmp_path) == state()


def test_a_step_is_done_only_with_what_it_depends_on():
    assert state().result("before", "a1") == {"run": "1"}
    assert state().result("before", "b2") is None
    assert state().result("train", "a1") is None


@pytest.mark.parametrize("content", [b"{", b"[]", b'{"format": "pytest-touchstone improvement 2", "inputs": {"folder": "", "model": ""}}'])
def test_what_is_not_ours_is_refused(tmp_path, content):
    (tmp_path / "state.json").write_bytes(content)
    with pytest.raises(ImproveError) as error:
        State.load(tmp_path)
    assert str(error.value) == f"{tmp_path / 'state.json'}: cannot be read as the state of an improvement; start anew with another --output"


def test_nothing_to_resume(tmp_path):
    with pytest.raises(ImproveError) as error:
        State.load(tmp_path / "none")
    assert str(error.value) == f"{tmp_path / 'none'}: holds no improvement that could be resumed (no state.json); leave --resume out"


def test_two_do_not_work_in_one_folder(tmp_path):
    with locked(tmp_path), pytest.raises(ImproveError) as error, locked(tmp_path):
        pass
    assert str(error.value) == f"{tmp_path}: another touchstone improve works there; wait for it, or give another --output"
    with locked(tmp_path):
        pass


def test_the_hash_of_a_file(tmp_path):
    (tmp_path / "x").write_bytes(b"")
    assert file_hash(tmp_path / "x") == "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"
    assert file_hash(tmp_path / "y") is None
    assert file_hash(tmp_path / "x" / "y") is None
