"""The curves of a run as a picture: loss and learning rate over steps."""

from __future__ import annotations

import importlib
import io
from typing import TYPE_CHECKING, Any, Final

from pytest_touchstone.files import replace_file

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from pytest_touchstone.train.watch import Step

CURVES_FILE: Final = "curves.svg"
_LOSS, _EVAL, _RATE = "#2b6cb0", "#c05621", "#718096"


def draw_curves(steps: Sequence[Step], path: Path) -> str | None:
    """Write the picture; None where it is there, else why there is none."""
    if not any(step.loss is not None or step.eval_loss is not None for step in steps):
        return "no curves were drawn: no step was logged"
    try:
        parts: list[Any] = [importlib.import_module(f"matplotlib{name}") for name in ("", ".figure", ".backends.backend_svg")]
    except ImportError:
        return "no curves were drawn: matplotlib is not installed; pip install 'pytest-touchstone[train]'"
    matplotlib, figures, svg = parts
    figure = figures.Figure(figsize=(7, 4.2), layout="constrained")
    upper, lower = figure.subplots(2, 1, sharex=True, height_ratios=(3, 1))
    for name, color, label, marker in (("loss", _LOSS, "training", ""), ("eval_loss", _EVAL, "held back for measuring", "o")):
        points = [(step.step, value) for step in steps if (value := getattr(step, name)) is not None]
        if points:
            single = "o" if len(points) == 1 else marker
            upper.plot(*zip(*points, strict=True), color=color, label=label, marker=single, markersize=4, linewidth=1.4)
    rates = [(step.step, step.learning_rate) for step in steps if step.learning_rate is not None]
    if rates:
        lower.plot(*zip(*rates, strict=True), color=_RATE, linewidth=1.4)
    upper.set_ylabel("loss")
    upper.legend(frameon=False)
    lower.set_ylabel("learning rate")
    lower.set_xlabel("step")
    lower.ticklabel_format(axis="y", style="sci", scilimits=(-2, 2))
    for axes in (upper, lower):
        axes.grid(alpha=0.25)
        axes.spines[["top", "right"]].set_visible(False)
    drawn = io.BytesIO()
    canvas = svg.FigureCanvasSVG(figure)
    with matplotlib.rc_context({"svg.hashsalt": CURVES_FILE}):  # the same picture for the same steps
        canvas.print_svg(drawn, metadata={"Date": None})
    replace_file(path, drawn.getvalue())
    return None
