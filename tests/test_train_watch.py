from __future__ import annotations

import io
import json
from xml.etree import ElementTree as ET

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pytest_touchstone.train.curves import draw_curves
from pytest_touchstone.train.telling import told
from pytest_touchstone.train.watch import Step, Watch, read_steps


class Terminal(io.StringIO):
    def isatty(self):
        return True


class Clock:
    """Ten seconds a look."""

    def __init__(self):
        self.now = 0.0

    def __call__(self):
        self.now += 10
        return self.now


class TestSteps:
    @pytest.mark.parametrize(
        "values",
        [
            {},
            {"step": 3},
            {"step": 3, "train_runtime": 5.0},
            {"step": "3", "loss": 1.0},
            {"step": 3, "loss": "much"},
            {"step": 3, "loss": True},
        ],
    )
    def test_what_is_no_step(self, values):
        assert Step.of(values) is None

    @pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf")])
    def test_what_is_no_finite_number_is_not_known(self, value):
        assert Step.of({"step": 3, "loss": value, "eval_loss": 1}) == Step(step=3, eval_loss=1.0)

    def test_are_read_back_without_what_a_kill_left(self, tmp_path):
        (tmp_path / "progress.jsonl").write_bytes(Step(step=1, loss=0.5).encode() + b'[]\n{"step": 2, "lo')
        assert read_steps(tmp_path) == [Step(step=1, loss=0.5)]
        assert read_steps(tmp_path / "none") == []


class TestWatch:
    def watched(self, tmp_path, out, *, before=()):
        return Watch(tmp_path, out, before=before, clock=Clock())

    def test_each_step_is_a_line_of_the_file_at_once(self, tmp_path):
        watch = self.watched(tmp_path, io.StringIO(), before=[Step(step=1, loss=2.0)])
        watch.step(Step(step=2, epoch=0.5, loss=1.0, learning_rate=0.1))
        lines = [json.loads(line) for line in (tmp_path / "progress.jsonl").read_text(encoding="utf-8").splitlines()]
        assert lines == [
            {"step": 1, "epoch": None, "loss": 2.0, "learning_rate": None, "eval_loss": None},
            {"step": 2, "epoch": 0.5, "loss": 1.0, "learning_rate": 0.1, "eval_loss": None},
        ]
        watch.close()

    def test_without_a_terminal_about_twenty_lines_whatever_the_length(self, tmp_path):
        out = io.StringIO()
        watch = self.watched(tmp_path, out)
        watch.phase("training")
        watch.total(1000)
        for number in range(1, 1001):
            watch.step(Step(step=number, loss=1.0))
        watch.close()
        lines = out.getvalue().splitlines()
        assert lines[0] == "training ..."
        assert len(lines) == 22
        assert lines[1] == "step 1/1000  loss 1.0000  2 h 46 min left"
        assert lines[-1] == "step 1000/1000  loss 1.0000"

    def test_every_measured_loss_is_shown(self, tmp_path):
        out = io.StringIO()
        watch = self.watched(tmp_path, out)
        watch.total(1000)
        for number in (1, 2, 3):
            watch.step(Step(step=number, epoch=0.001, eval_loss=0.25))
        assert out.getvalue().count("eval loss 0.2500") == 3
        watch.close()

    def test_where_the_number_of_steps_is_not_known_each_is_shown(self, tmp_path):
        out = io.StringIO()
        watch = self.watched(tmp_path, out)
        watch.step(Step(step=7, loss=0.5, learning_rate=2e-4))
        assert out.getvalue() == "step 7  loss 0.5000  lr 2.00e-04\n"
        watch.close()

    def test_a_terminal_has_one_line_that_changes(self, tmp_path):
        out = Terminal()
        watch = self.watched(tmp_path, out)
        watch.phase("loading")
        watch.step(Step(step=1, loss=0.5))
        watch.note("saved")
        watch.close()
        assert out.getvalue() == "\r\x1b[Kloading ...\r\x1b[Kstep 1  loss 0.5000\r\x1b[Ksaved\n"

    def test_the_line_goes_away_at_the_end(self, tmp_path):
        out = Terminal()
        watch = self.watched(tmp_path, out)
        watch.phase("loading")
        watch.close()
        assert out.getvalue().endswith("\r\x1b[K")

    @pytest.mark.parametrize("out", [io.StringIO, Terminal])
    def test_nothing_that_is_told_acts_on_the_terminal(self, tmp_path, out):
        out = out()
        watch = self.watched(tmp_path, out)
        watch.phase("\x1b]0;gone\x07")
        watch.note("\x1b[2Jgone")
        watch.close()
        assert r"\x1b[2Jgone" in out.getvalue()
        assert "\x07" not in out.getvalue()
        assert "\x1b]" not in out.getvalue()


class TestEvents:
    def test_a_line_without_one_is_what_a_library_printed(self):
        assert told(b"loss: 3\n") == (b"loss: 3\n", None)

    @pytest.mark.parametrize("text", [b"{", b"3", b"{}", b'{"event": 3}', b"[" * 100_000])
    def test_what_is_none_is_printed(self, text):
        line = b"\x1e" + text + b"\n"
        assert told(line) == (line, None)

    @given(st.binary())
    def test_any_bytes_are_one_or_the_other(self, line):
        printed, event = told(line)
        assert printed == line or event is not None


class TestCurves:
    STEPS = (Step(step=1, loss=2.0, learning_rate=1e-3), Step(step=2, loss=1.0, learning_rate=5e-4), Step(step=2, eval_loss=1.5))

    def test_are_drawn_the_same_every_time(self, tmp_path):
        pytest.importorskip("matplotlib")
        path = tmp_path / "curves.svg"
        assert draw_curves(self.STEPS, path) is None
        first = path.read_bytes()
        assert ET.fromstring(first).tag == "{http://www.w3.org/2000/svg}svg"
        assert draw_curves(self.STEPS, path) is None
        assert path.read_bytes() == first

    def test_a_provider_that_tells_no_rate(self, tmp_path):
        pytest.importorskip("matplotlib")
        assert draw_curves([Step(step=1, eval_loss=1.0)], tmp_path / "curves.svg") is None

    def test_nothing_to_draw(self, tmp_path):
        assert draw_curves([], tmp_path / "curves.svg") == "no curves were drawn: no step was logged"

    def test_without_matplotlib(self, tmp_path, monkeypatch):
        monkeypatch.setitem(__import__("sys").modules, "matplotlib.backends.backend_svg", None)
        said = draw_curves(self.STEPS, tmp_path / "curves.svg")
        assert said == "no curves were drawn: matplotlib is not installed; pip install 'pytest-touchstone[train]'"
        assert not (tmp_path / "curves.svg").exists()
