"""How often gates cry wolf, and what they see: `gate_simulation.py [PROJECTS] [FOLDER]`, writes FOLDER/gate_simulation.{json,svg}.

The app that is simulated: each case is one that it can or cannot do (85 % it can), and each trial says the opposite with a chance of
5 %. A change that makes the app worse takes cases that it can do from it. Every figure of our gate is made by the gate itself.
Drawing needs matplotlib.
"""

from __future__ import annotations

import json
import sys
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from pytest_touchstone.gate import Evidence, decide, suspicious
from pytest_touchstone.stats import sign_flip, wilson

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from matplotlib.axes import Axes
    from numpy.random import Generator
    from numpy.typing import NDArray

    Counts = NDArray[np.int64]
    Rates = NDArray[np.float64]
    Side = dict[str, dict[str, Evidence]]
    Gate = Callable[["Commit"], str]

SEED = 20
CAN = 0.85
LOW = 0.15
NOISE = 0.05
ALPHA = 0.01
COMMITS = 20
BASELINE_TRIALS = 5
MORE_TRIALS = 4
SIZES = (50, 200, 1000)
DROPS = (0.01, 0.02, 0.03, 0.05, 0.07, 0.10, 0.15)
TABLE_SIZE = 200
TABLE_DROP = 0.05


@dataclass(frozen=True, kw_only=True)
class Commit:
    """One run beside the baseline: passes of each case, in one trial of the baseline and in all five, in one trial now and in five."""

    before: Counts
    baseline: Counts
    first: Counts
    both: Counts


def main(projects: int = 400, folder: str = "docs/explanation") -> None:
    table = {name: row(gate, projects) for name, gate in GATES.items()}
    calls = calls_a_case(10 * projects)
    unequal = low_rate(10 * projects)
    curves = {str(size): [seen(two_stage, size, drop, projects) for drop in DROPS] for size in SIZES}
    figures = {
        "app": {"can": CAN, "noise": NOISE, "baseline_trials": BASELINE_TRIALS, "commits": COMMITS, "projects": projects, "seed": SEED},
        "gates": table,
        "low_rate": unequal,
        "two_stage": {"drops": list(DROPS), "seen": curves, "calls_a_case": calls},
    }
    target = Path(folder, "gate_simulation.json")
    target.write_text(json.dumps(figures, indent=1) + "\n", encoding="utf-8")
    draw(figures, target.with_suffix(".svg"))
    print("\n".join(table_lines(table)))
    by_signs, by_gate = unequal["signs"]["rate"], unequal["gate"]["rate"]
    print(f"pass rate {LOW:.0%}, one trial against five: {by_signs:.1%} false alarms by flipped signs alone, {by_gate:.1%} by the gate")
    print(f"two stages, nothing changed: {calls:.2f} calls a case")
    for size, rates in curves.items():
        seen_at = ", ".join(f"{drop:.0%}: {rate['regressed']:.0%}" for drop, rate in zip(DROPS, rates, strict=True))
        print(f"two stages, {size} cases, drops seen: {seen_at}")


def row(gate: Gate, projects: int) -> dict[str, Any]:
    """What a gate does with commits that change nothing, and with one that costs 5 points."""
    rng = np.random.default_rng(SEED)
    results = [[gate(commit) for commit in commits(rng, TABLE_SIZE, 0.0, COMMITS)] for _ in range(projects)]
    each = Counter(result for project in results for result in project)
    runs = projects * COMMITS
    return {
        "false_alarms": rate(each["regressed"], runs),
        "undecided": rate(each["undecided"], runs),
        "projects_with_a_false_alarm": rate(sum("regressed" in project for project in results), projects),
        "seen": seen(gate, TABLE_SIZE, TABLE_DROP, projects),
    }


def seen(gate: Gate, size: int, drop: float, projects: int) -> dict[str, float]:
    """How often a gate calls a change that costs `drop` regressed, and how often undecided."""
    rng = np.random.default_rng(SEED + 1)
    found = Counter(gate(commit) for _ in range(projects) for commit in commits(rng, size, drop, 1))
    return {"regressed": found["regressed"] / projects, "undecided": found["undecided"] / projects}


def rate(count: int, runs: int) -> dict[str, float]:
    """A part of the runs, with its 95 % interval."""
    interval = wilson(count, runs)
    assert interval
    return {"rate": count / runs, "low": interval.low, "high": interval.high}


def calls_a_case(runs: int) -> float:
    """What a run with a second stage asks on average where nothing changed."""
    rng = np.random.default_rng(SEED + 3)
    drawn = (commit for _ in range(runs) for commit in commits(rng, TABLE_SIZE, 0.0, 1))
    again = sum(bool(suspicious(side(commit.baseline, BASELINE_TRIALS), side(commit.first, 1))) for commit in drawn)
    return 1 + MORE_TRIALS * again / runs


def low_rate(runs: int) -> dict[str, Any]:
    """False alarms of one trial against five where most cases fail: by flipped signs alone, and by the gate, which asks a second test."""
    rng = np.random.default_rng(SEED + 2)
    signs = gate = 0
    for _ in range(runs):
        (commit,) = commits(rng, TABLE_SIZE, 0.0, 1, can=LOW)
        test = sign_flip(
            [5 * int(first) - int(before) for first, before in zip(commit.first, commit.baseline, strict=True)], alternative="less"
        )
        assert test
        signs += test.p <= ALPHA
        gate += one_against_five(commit) == "regressed"
    return {"signs": rate(signs, runs), "gate": rate(gate, runs)}


def commits(rng: Generator, size: int, drop: float, count: int, can: float = CAN) -> Iterator[Commit]:
    """So many commits of one project, against one baseline."""
    able = rng.random(size) < can
    chances = np.where(able, 1 - NOISE, NOISE)
    baseline = rng.binomial(BASELINE_TRIALS, chances)
    before = rng.binomial(1, baseline / BASELINE_TRIALS)
    for _ in range(count):
        # A case that is lost costs what its chance of passing falls by.
        lost = rng.random(size) < drop / (CAN * (1 - 2 * NOISE))
        now = np.where(able & ~lost, 1 - NOISE, NOISE)
        first = rng.binomial(1, now)
        yield Commit(before=before, baseline=baseline, first=first, both=first + rng.binomial(MORE_TRIALS, now))


def any_flip(commit: Commit) -> str:
    return "regressed" if (commit.first < commit.before).any() else "passed"


def mean_dropped(commit: Commit) -> str:
    return "regressed" if commit.first.mean() < commit.before.mean() else "passed"


def mean_dropped_2_points(commit: Commit) -> str:
    return "regressed" if commit.first.mean() < commit.before.mean() - 0.02 else "passed"


def one_against_one(commit: Commit) -> str:
    return decide(side(commit.before, 1), side(commit.first, 1)).result


def one_against_five(commit: Commit) -> str:
    return decide(side(commit.baseline, BASELINE_TRIALS), side(commit.first, 1)).result


def two_stage(commit: Commit) -> str:
    baseline = side(commit.baseline, BASELINE_TRIALS)
    if not suspicious(baseline, side(commit.first, 1)):
        return "passed"
    return decide(baseline, side(commit.both, 1 + MORE_TRIALS)).result


GATES: dict[str, Gate] = {
    "any case flipped": any_flip,
    "the mean dropped": mean_dropped,
    "the mean dropped by 2 points": mean_dropped_2_points,
    "regression gate, baseline of 1 trial": one_against_one,
    "regression gate, baseline of 5": one_against_five,
    "regression gate, baseline of 5, second stage": two_stage,
}


def side(passes: Counts, trials: int) -> Side:
    """One side of a run, as the gate takes it."""
    cases = {
        str(number): Evidence(case_id=str(number), content_hash="", trials=trials, passes=int(count)) for number, count in enumerate(passes)
    }
    return {"suite": cases}


def table_lines(table: dict[str, Any]) -> Iterator[str]:
    """The table of the documentation."""
    yield "| | alarms | alarm in 20 commits | undecided | 5 points: regressed | 5 points: undecided |"
    yield "|---|---|---|---|---|---|"
    for name, figures in table.items():
        cells = (
            f"{figures['false_alarms']['rate']:.1%}",
            f"{figures['projects_with_a_false_alarm']['rate']:.0%}",
            f"{figures['undecided']['rate']:.0%}",
            f"{figures['seen']['regressed']:.0%}",
            f"{figures['seen']['undecided']:.0%}",
        )
        yield f"| {name} | {' | '.join(cells)} |"


def draw(figures: dict[str, Any], target: Path) -> None:
    import matplotlib as mpl
    from matplotlib.figure import Figure

    mpl.rcParams["svg.hashsalt"] = "touchstone"  # the same figure, the same file
    figure = Figure(figsize=(9, 7.6), layout="constrained")
    alarms, power = figure.subplots(2, 1, height_ratios=(1, 1.2))
    _draw_alarms(alarms, figures["gates"])
    _draw_power(power, figures["two_stage"])
    figure.savefig(target, metadata={"Date": None} if target.suffix == ".svg" else None, dpi=110)


def _draw_alarms(axes: Axes, gates: dict[str, Any]) -> None:
    names = [name.replace(", ", "\n", 1) for name in gates]
    rates = [found["projects_with_a_false_alarm"] for found in gates.values()]
    colours = ["#2b6f9e" if name.startswith("regression gate") else "#c2603f" for name in names]
    values = [100 * found["rate"] for found in rates]
    errors = [[100 * (found["rate"] - found["low"]) for found in rates], [100 * (found["high"] - found["rate"]) for found in rates]]
    axes.barh(names, values, xerr=errors, color=colours, ecolor="#444444", capsize=3)
    axes.invert_yaxis()
    axes.set_xlim(0, 112)
    axes.set_xticks(range(0, 101, 20))
    for position, (value, found) in enumerate(zip(values, rates, strict=True)):
        axes.text(100 * found["high"] + 1.5, position, f"{value:.0f} %", va="center")
    axes.set_title(f"Nothing changed: wrong alarms in {COMMITS} commits ({TABLE_SIZE} cases)", fontsize=11, loc="left")
    axes.set_xlabel("% of projects with at least one (lines: 95 % intervals)")
    axes.spines[["top", "right"]].set_visible(False)


def _draw_power(axes: Axes, curves: dict[str, Any]) -> None:
    drops = [100 * drop for drop in curves["drops"]]
    for (size, found), colour in zip(curves["seen"].items(), ("#8fb8d6", "#2b6f9e", "#14354d"), strict=True):
        regressed = [100 * each["regressed"] for each in found]
        not_passed = [100 * (each["regressed"] + each["undecided"]) for each in found]
        axes.plot(drops, regressed, marker="o", color=colour, label=f"{int(size):,} cases: regressed")
        axes.plot(drops, not_passed, linestyle=":", color=colour, label="or undecided")
    axes.set_ylim(0, 103)
    axes.set_xlim(0, max(drops) + 0.5)
    axes.set_xticks(range(int(max(drops)) + 1))
    axes.set_title("Something got worse: drops that the gate with a second stage sees", fontsize=11, loc="left")
    axes.set_xlabel("drop of the pass rate, in points")
    axes.set_ylabel("% of runs")
    axes.legend(loc="center left", bbox_to_anchor=(1.01, 0.5), fontsize=9, frameon=False)
    axes.spines[["top", "right"]].set_visible(False)


if __name__ == "__main__":
    main(*map(int, sys.argv[1:2]), *sys.argv[2:3])
