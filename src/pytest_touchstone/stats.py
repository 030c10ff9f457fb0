"""Intervals, paired tests, power and variance: numbers in, numbers out.

A *difference* is always the run's value minus the baseline's, so `less` means that the run is worse. *Worse* and *better* count the
cases that flipped: passed before and failed now, and the other way round. Levels, rates and powers are in [0, 1].

Where there is too little data for an answer, the answer is `Unknown`, which says why and is false in a condition; an argument that no
data could have (more passes than trials) is a ValueError. What is drawn at random is drawn from a seed, and the result says so.

>>> wilson(0, 0) or "no interval"
'no interval'
>>> wilson(0, 0)
Unknown(reason='there are no trials')
"""

from __future__ import annotations

import functools
import itertools
import math
from collections import Counter, defaultdict
from dataclasses import dataclass
from fractions import Fraction
from statistics import NormalDist, fmean
from typing import TYPE_CHECKING, Any, Literal

if TYPE_CHECKING:
    from collections.abc import Callable, Hashable, Iterable, Mapping, Sequence

    import numpy as np
    from numpy.typing import NDArray

    Probabilities = NDArray[np.float64]
    # Cases that a permutation cannot tell apart: the step of a pass, passes and trials of both sides, trials of the run.
    _Alike = tuple[int, int, int, int]

Alternative = Literal["two-sided", "less", "greater"]

# The longest exact distribution of a sum: its cost grows with the square, to about a second; beyond it, draws are made at random.
EXACT_SUM = 32_000
# The random numbers in memory at once.
DRAWN_AT_ONCE = 1_000_000
# Differences of rates of up to this many trials are multiples of 1/k, however they were rounded.
LARGEST_DENOMINATOR = 60
# Relative: how far a drawn sum may be from the observed one and still count as equal to it.
TIE = 1e-9
BISECTIONS = 100


@dataclass(frozen=True, kw_only=True)
class Unknown:
    """There is no answer, and the reason; false, so that `interval or ...` reads well."""

    reason: str

    def __bool__(self) -> Literal[False]:
        """Never taken for an answer."""
        return False


@dataclass(frozen=True, kw_only=True)
class Interval:
    """An interval of confidence: `low` <= `high`, at `level` (in (0, 1)), by `method`."""

    low: float
    high: float
    level: float
    method: str


@dataclass(frozen=True, kw_only=True)
class Test:
    """The result of a test: `p` in [0, 1], the statistic, how many cases it is about, and how it was made."""

    __test__ = False  # not for pytest to collect

    p: float
    statistic: float
    n: int
    method: str
    alternative: Alternative


@dataclass(frozen=True, kw_only=True)
class VarianceSplit:
    """Variance of single trials, split: `between` the cases' true rates and `within` a case from trial to trial; both >= 0.

    `flakiness` is the part of the whole that is within, in [0, 1], 0 where nothing varies.
    """

    between: float
    within: float
    cases: int
    trials: int

    @property
    def flakiness(self) -> float:
        """The part of the variance that repeats of a case average out."""
        whole = self.between + self.within
        return self.within / whole if whole else 0.0


@dataclass(frozen=True, kw_only=True)
class Corrected:
    """A rate corrected for a judge's mistakes: `raw` is the judge's, `rate` the estimate of the true one, both in [0, 1]."""

    raw: float
    rate: float
    interval: Interval


@dataclass(frozen=True, kw_only=True)
class EProcess:
    """Evidence gathered so far: `e` is what one unit of money bet against "nothing changed" has become, `largest` what it once was.

    `p` = 1 / `largest`, at most 1, holds whenever one looks. `stopped_at` counts the pairs at which `largest` first reached 1 / alpha,
    None where it did not.
    """

    e: float
    largest: float
    p: float
    stopped_at: int | None


# Values


def percentile(values: Iterable[float], share: float) -> float | None:
    """The smallest of the values that at least `share` (above 0, to 1) of them do not exceed: the nearest rank. None without a value.

    >>> percentile([0.2, 0.9, 0.4], 0.95), percentile([], 0.95)
    (0.9, None)
    """
    ordered = sorted(values)
    return ordered[math.ceil(share * len(ordered)) - 1] if ordered else None


# Rates


def wilson(passes: float, n: int, *, level: float = 0.95) -> Interval | Unknown:
    """Wilson's score interval for a rate.

    Assumes n independent trials with one rate. `passes` may be a sum of case means: means vary less than single trials, so the interval
    is then wide enough. Source: Wilson 1927, JASA 22:209; recommended by Newcombe 1998, Statistics in Medicine 17:857.

    Raises:
        ValueError: `passes` is not in [0, n], or `level` not in (0, 1).

    >>> interval = wilson(42, 50)
    >>> f"{interval.low:.4f} to {interval.high:.4f}"
    '0.7149 to 0.9166'
    """
    _check_count(passes, n)
    z = _two_sided_z(level)
    if not n:
        return Unknown(reason="there are no trials")
    rate, weight = passes / n, 1 + z * z / n
    middle = (rate + z * z / (2 * n)) / weight
    half = z * math.sqrt(rate * (1 - rate) / n + z * z / (4 * n * n)) / weight
    # At 0 and n an end is exact, whatever rounding says.
    low, high = (0.0 if passes == 0 else middle - half), (1.0 if passes == n else middle + half)
    return Interval(low=max(0.0, low), high=min(1.0, high), level=level, method="Wilson")


def clopper_pearson(passes: int, n: int, *, level: float = 0.95) -> Interval | Unknown:
    """The exact interval for a rate: it covers the truth at least as often as `level` says, and usually more often.

    Assumes n independent trials with one rate. Source: Clopper and Pearson 1934, Biometrika 26:404; by scipy.

    Raises:
        ValueError: `passes` is not in [0, n], or `level` not in (0, 1).

    >>> interval = clopper_pearson(0, 20)
    >>> f"{interval.low:.4f} to {interval.high:.4f}"
    '0.0000 to 0.1684'
    """
    from scipy.stats import binomtest

    _check_count(passes, n)
    _two_sided_z(level)
    if not n:
        return Unknown(reason="there are no trials")
    found = binomtest(passes, n).proportion_ci(confidence_level=level, method="exact")
    return Interval(low=float(found.low), high=float(found.high), level=level, method="Clopper-Pearson")


def binomial_excess(hits: int, n: int, rate: float) -> Test | Unknown:
    """The exact binomial test that a rate is above `rate`, in [0, 1), from `hits` in n trials: one-sided.

    Assumes n independent trials with one rate. With `rate` 0 a single hit is certain proof. By scipy.

    Raises:
        ValueError: `hits` is not in [0, n], or `rate` not in [0, 1).

    >>> f"{binomial_excess(5, 10, 0.05).p:.2g}", binomial_excess(0, 10, 0.05).p
    ('6.4e-05', 1.0)
    """
    from scipy.stats import binomtest

    _check_count(hits, n)
    if not 0 <= rate < 1:
        msg = f"rate is {rate}; give a number from 0 to less than 1"
        raise ValueError(msg)
    if not n:
        return Unknown(reason="there are no trials")
    found = binomtest(hits, n, rate, alternative="greater")
    return Test(p=float(found.pvalue), statistic=float(hits), n=n, method="exact binomial", alternative="greater")


def pass_at_k(trials: int, passes: int, k: int) -> float | Unknown:
    """The chance that at least one of k trials passes, estimated without bias from more trials than k.

    Assumes trials of one case that are independent and alike. Source: Chen et al. 2021, arXiv 2107.03374, equation 1.

    Raises:
        ValueError: `passes` is not in [0, trials], or k is less than 1.

    >>> round(pass_at_k(10, 3, 5), 4)
    0.9167
    """
    return _of_k(trials, passes, k, lambda: 1 - math.comb(trials - passes, k) / math.comb(trials, k))


def pass_hat_k(trials: int, passes: int, k: int) -> float | Unknown:
    """The chance that all of k trials pass (pass^k), estimated without bias from more trials than k.

    Assumes trials of one case that are independent and alike. Source: Yao et al. 2024 (tau-bench), arXiv 2406.12045.

    Raises:
        ValueError: `passes` is not in [0, trials], or k is less than 1.

    >>> pass_hat_k(5, 4, 2)
    0.6
    """
    return _of_k(trials, passes, k, lambda: math.comb(passes, k) / math.comb(trials, k))


def _of_k(trials: int, passes: int, k: int, estimate: Callable[[], float]) -> float | Unknown:
    _check_count(passes, trials)
    if k < 1:
        msg = f"k is {k}; give a number of trials of at least 1"
        raise ValueError(msg)
    return estimate() if k <= trials else Unknown(reason=f"{trials} trials say nothing about {k} of them")


def rogan_gladen(
    judge_passes: int, n: int, *, true_passes: int, right_passes: int, true_fails: int, right_fails: int, level: float = 0.95
) -> Corrected | Unknown:
    """The true pass rate behind the rate that an imperfect judge gives.

    The judge passed `judge_passes` of `n`; against people it was right on `right_passes` of `true_passes` answers that should pass
    and on `right_fails` of `true_fails` that should fail. Assumes that it errs on the new answers as often as on those. The estimate is
    cut to [0, 1]. Source: Rogan and Gladen 1978, American Journal of Epidemiology 107:71; interval by Lang and Reiczigel 2014,
    Preventive Veterinary Medicine 113:13.

    Raises:
        ValueError: a count is larger than what it is a count of, or `level` is not in (0, 1).

    >>> corrected = rogan_gladen(70, 100, true_passes=100, right_passes=90, true_fails=100, right_fails=80)
    >>> f"{corrected.raw:.2f} means {corrected.rate:.4f}"
    '0.70 means 0.7143'
    """
    for count, of in ((judge_passes, n), (right_passes, true_passes), (right_fails, true_fails)):
        _check_count(count, of)
    z = _two_sided_z(level)
    if not (n and true_passes and true_fails):
        return Unknown(reason="there are no answers, or none that people passed or failed")
    raw, on_pass, on_fail = judge_passes / n, right_passes / true_passes, right_fails / true_fails
    if on_pass + on_fail <= 1:
        return Unknown(reason="the judge agrees with people no better than chance does")
    # Adjusted counts keep the interval honest at rates of 0 and 1.
    sizes = n + z * z, true_passes + 2, true_fails + 2
    raw_, on_pass_, on_fail_ = (judge_passes + z * z / 2) / sizes[0], (right_passes + 1) / sizes[1], (right_fails + 1) / sizes[2]
    gain = on_pass_ + on_fail_ - 1
    rate_ = (raw_ + on_fail_ - 1) / gain
    spread_pass, spread_fail = on_pass_ * (1 - on_pass_) / sizes[1], on_fail_ * (1 - on_fail_) / sizes[2]
    shift = 2 * z * z * (rate_ * spread_pass - (1 - rate_) * spread_fail)
    half = z * math.sqrt(raw_ * (1 - raw_) / sizes[0] + rate_**2 * spread_pass + (1 - rate_) ** 2 * spread_fail) / gain
    low, high = (_clip(rate_ + shift + side * half) for side in (-1, 1))
    interval = Interval(low=low, high=high, level=level, method="Lang-Reiczigel")
    return Corrected(raw=raw, rate=_clip((raw + on_fail - 1) / (on_pass + on_fail - 1)), interval=interval)


# Paired tests


def mcnemar(worse: int, better: int, *, mid_p: bool = False, alternative: Alternative = "two-sided") -> Test:
    """McNemar's test from the flips of cases that were tried once on each side.

    Assumes independent cases. Exact: each flip is as likely worse as better where nothing changed (a sign test); it is never wrong more
    often than its p says. The mid-p version counts half of the observed outcome's probability: closer to the promised rate, which it can
    slightly exceed. Without a flip p is 1 (one-sided mid-p: 0.5). The statistic is the number of cases that got worse.
    Sources: McNemar 1947, Psychometrika 12:153; Fagerland, Lydersen and Laake 2013, BMC Medical Research Methodology 13:91.

    Raises:
        ValueError: a count is negative.

    >>> f"{mcnemar(10, 3).p:.4f} {mcnemar(10, 3, mid_p=True).p:.4f}"
    '0.0923 0.0574'
    """
    from scipy.stats import binom

    flips = worse + better
    _check_count(worse, flips)
    less, greater = float(binom.sf(worse - 1, flips, 0.5)), float(binom.cdf(worse, flips, 0.5))
    p = _tail(less, greater, alternative)
    if mid_p and (flips or alternative != "two-sided"):
        p -= float(binom.pmf(worse, flips, 0.5)) / (1 if alternative == "two-sided" else 2)
    return Test(p=p, statistic=worse, n=flips, method="McNemar mid-p" if mid_p else "exact McNemar", alternative=alternative)


def paired_t(differences: Sequence[float], *, alternative: Alternative = "two-sided") -> Test | Unknown:
    """Student's t over the differences of case means.

    Assumes independent cases, and enough of them for their mean to be nearly normal (30 or so; fewer where the differences look normal).
    Source: Student 1908, Biometrika 6:1; by scipy. Nothing differs anywhere: p is 1.

    >>> round(paired_t([-0.2, -0.4, 0.0, -0.2, 0.2, -0.4]).p, 4)
    0.1412
    """
    from scipy.stats import ttest_1samp

    if len(differences) < 2:
        return Unknown(reason="a t test needs at least two cases")
    if len(set(differences)) == 1:
        if differences[0]:
            return Unknown(reason="every case differs by the same amount, so there is no variation to measure against")
        return Test(p=1.0, statistic=0.0, n=len(differences), method="paired t", alternative=alternative)
    found: Any = ttest_1samp(differences, 0.0, alternative=alternative)
    return Test(p=float(found.pvalue), statistic=float(found.statistic), n=len(differences), method="paired t", alternative=alternative)


def sign_flip(
    differences: Sequence[float | Fraction], *, alternative: Alternative = "two-sided", draws: int = 9_999, seed: int = 0
) -> Test | Unknown:
    """Permutation test over the differences of case means: where nothing changed, each could as well have had the other sign.

    Assumes independent cases and, for that symmetry, as many trials of a case on one side as on the other. With one trial on each side
    it is exact McNemar. Exact where differences are multiples of one fraction, as those of rates are; elsewhere `draws` random
    assignments of signs, counted as (k + 1) / (draws + 1), and `method` says so. The statistic is the mean difference.
    Sources: Fisher 1935, The Design of Experiments, section 21; Phipson and Smyth 2010, Statistical Applications in Genetics and Molecular
    Biology 9:39.

    >>> sign_flip([-3, -1, 0, 2, -5, 0, 1, -2], alternative="less").p
    0.171875
    >>> sign_flip([0.0, 0.0]).p
    1.0
    """
    if not differences:
        return Unknown(reason="there are no cases")
    mean = float(sum(differences)) / len(differences)
    units = _units(differences)
    if units is not None and (tails := _exact_signs(units)) is not None:
        method = "exact sign-flip permutation"
    else:
        tails = _drawn_signs([float(difference) for difference in differences], draws, seed)
        method = f"sign-flip permutation, {draws:,} draws from seed {seed}"
    return Test(p=_tail(*tails, alternative), statistic=mean, n=len(differences), method=method, alternative=alternative)


def within_case_permutation(
    cases: Sequence[tuple[int, int, int, int]], *, alternative: Alternative = "two-sided", draws: int = 9_999, seed: int = 0
) -> Test | Unknown:
    """Permutation test of trials within their case: where nothing changed, any of a case's trials could have been the run's.

    Each case is (baseline passes, baseline trials, run passes, run trials), with at least one trial on each side. Right whatever the
    numbers of trials; assumes that no case changed at all, so it answers "did anything change" where cases moved both ways. With one
    trial on each side it is exact McNemar. Exact, or by draws, as `sign_flip`. The statistic is the mean difference of rates. Sources:
    Mantel and Haenszel 1959, JNCI 22:719; Birch 1964, Journal of the Royal Statistical Society B 26:313.

    Raises:
        ValueError: a case has no trial on a side, or more passes than trials.

    >>> within_case_permutation([(5, 5, 0, 1), (5, 5, 1, 1), (4, 5, 0, 1)], alternative="less").p.__round__(4)
    0.0556
    """
    if not cases:
        return Unknown(reason="there are no cases")
    for before, before_n, after, after_n in cases:
        _check_count(before, before_n)
        _check_count(after, after_n)
        if not (before_n and after_n):
            msg = "a case without a trial on both sides cannot be compared; leave it out"
            raise ValueError(msg)
    mean = fmean(after / after_n - before / before_n for before, before_n, after, after_n in cases)
    # The difference moves by 1/before_n + 1/after_n with each pass that moves to the run.
    weights = [Fraction(1, before_n) + Fraction(1, after_n) for _, before_n, _, after_n in cases]
    scale = math.lcm(*(weight.denominator for weight in weights))
    steps = [int(weight * scale) for weight in weights]
    unit = math.gcd(*steps)
    alike = Counter((step // unit, b + a, b_n + a_n, a_n) for step, (b, b_n, a, a_n) in zip(steps, cases, strict=True))
    observed = sum(step // unit * case[2] for step, case in zip(steps, cases, strict=True))
    if sum(step * run_trials * count for (step, _, _, run_trials), count in alike.items()) <= EXACT_SUM:
        tails, method = _exact_passes(alike, observed), "exact permutation within cases"
    else:
        tails, method = _drawn_passes(alike, observed, draws, seed), f"permutation within cases, {draws:,} draws from seed {seed}"
    return Test(p=_tail(*tails, alternative), statistic=mean, n=len(cases), method=method, alternative=alternative)


# Intervals for paired differences


def tango(worse: int, better: int, n: int, *, level: float = 0.95) -> Interval | Unknown:
    """Tango's score interval for the difference of two paired rates, better minus worse over n cases tried once on each side.

    Assumes independent cases. Good from small n on, also where nothing flipped. Source: Tango 1998, Statistics in Medicine 17:891.

    Raises:
        ValueError: the counts are negative or add up to more than n, or `level` is not in (0, 1).

    >>> interval = tango(10, 4, 200)
    >>> f"{interval.low:.4f} to {interval.high:.4f}"
    '-0.0725 to 0.0076'
    """
    _check_flips(worse, better, n)
    z = _two_sided_z(level)
    if not n:
        return Unknown(reason="there are no cases")
    middle = (better - worse) / n
    low = _bisect(lambda shift: _tango_z(worse, better, n, shift) - z, middle, -1.0)
    high = _bisect(lambda shift: _tango_z(worse, better, n, shift) + z, middle, 1.0)
    return Interval(low=low, high=high, level=level, method="Tango")


def tango_test(worse: int, better: int, n: int, shift: float, *, alternative: Alternative = "two-sided") -> Test | Unknown:
    """Tango's score test of a difference of paired rates against `shift`, in (-1, 1).

    `greater` with a shift of -0.05 asks whether the run is less than 5 points worse (not inferior); `less` whether it is more than that
    worse. Assumes independent cases, and enough of them for a normal approximation. Source: as `tango`. The statistic is z.

    Raises:
        ValueError: the counts are negative or add up to more than n, or `shift` is not in (-1, 1).

    >>> round(tango_test(10, 4, 200, -0.05, alternative="greater").p, 4)
    0.1573
    """
    _check_flips(worse, better, n)
    if not -1 < shift < 1:
        msg = f"shift is {shift}; give a difference of rates between -1 and 1"
        raise ValueError(msg)
    if not n:
        return Unknown(reason="there are no cases")
    z = _tango_z(worse, better, n, shift)
    below = NormalDist().cdf(z)
    return Test(p=_tail(below, 1 - below, alternative), statistic=z, n=n, method="Tango score test", alternative=alternative)


def bonett_price(worse: int, better: int, n: int, *, level: float = 0.95) -> Interval | Unknown:
    """Bonett and Price's adjusted Wald interval for the difference of two paired rates.

    One flip each way is added to the data. Assumes independent cases. Source: Bonett and Price 2012, Journal of Educational and
    Behavioral Statistics 37:479.

    Raises:
        ValueError: the counts are negative or add up to more than n, or `level` is not in (0, 1).

    >>> interval = bonett_price(10, 4, 200)
    >>> f"{interval.low:.4f} to {interval.high:.4f}"
    '-0.0683 to 0.0089'
    """
    _check_flips(worse, better, n)
    return mean_difference([-1.0] * worse + [1.0] * better + [0.0] * (n - worse - better), level=level)


def mean_difference(differences: Sequence[float], *, level: float = 0.95) -> Interval | Unknown:
    """Bonett and Price's interval for the mean of differences of case means, each in [-1, 1].

    Their adjustment carried over to repeats: one case that got fully worse and one that got fully better are added, so that a small
    suite, or one in which nothing differs, is not taken for certain. With one trial on each side it is their interval. Assumes
    independent cases.

    Raises:
        ValueError: a difference is not in [-1, 1], or `level` not in (0, 1).

    >>> interval = mean_difference([-0.2, 0.0, 0.0, 0.2] * 10)
    >>> f"{interval.low:.4f} to {interval.high:.4f}"
    '-0.0781 to 0.0781'
    """
    z = _two_sided_z(level)
    if not differences:
        return Unknown(reason="there are no cases")
    mean, error = adjusted_mean(differences)
    low, high = (max(-1.0, min(1.0, mean + side * z * error)) for side in (-1, 1))
    return Interval(low=low, high=high, level=level, method="Bonett-Price")


def mean_difference_test(differences: Sequence[float], shift: float, *, alternative: Alternative = "two-sided") -> Test | Unknown:
    """The test that belongs to `mean_difference`: of the mean difference against `shift`, by its adjusted z.

    Raises:
        ValueError: a difference is not in [-1, 1].

    >>> round(mean_difference_test([-0.2, 0.0, 0.0, 0.2] * 10, -0.05, alternative="greater").p, 4)
    0.1047
    """
    if not differences:
        return Unknown(reason="there are no cases")
    mean, error = adjusted_mean(differences)
    z = (mean - shift) / error
    below = NormalDist().cdf(z)
    n = len(differences)
    return Test(p=_tail(below, 1 - below, alternative), statistic=z, n=n, method="Bonett-Price z", alternative=alternative)


def adjusted_mean(differences: Sequence[float]) -> tuple[float, float]:
    """Mean and standard error that `mean_difference` builds on: of the differences with one full step down and one up added.

    As Bonett and Price do, the variance is divided by the number of cases, not by one less.

    Raises:
        ValueError: a difference is not in [-1, 1].

    >>> adjusted_mean([])
    (0.0, 0.7071067811865476)
    """
    if wrong := [difference for difference in differences if not -1 <= difference <= 1]:
        msg = f"{wrong[0]} is no difference of rates; give numbers from -1 to 1"
        raise ValueError(msg)
    size = len(differences) + 2
    mean = sum(differences) / size
    squares = sum(difference * difference for difference in differences) + 2
    return float(mean), math.sqrt(max(0.0, squares / size - mean * mean) / size)


# Several answers at once


def holm(ps: Sequence[float]) -> tuple[float, ...]:
    """Holm's adjusted p-values, in the order given: the chance of any false alarm among all tests stays below the level compared with.

    Holds however the tests depend on each other. Source: Holm 1979, Scandinavian Journal of Statistics 6:65.

    Raises:
        ValueError: a p-value is not in [0, 1].

    >>> holm([0.01, 0.04, 0.03])
    (0.03, 0.06, 0.06)
    """
    _check_ps(ps)
    adjusted = [0.0] * len(ps)
    largest = 0.0
    for rank, index in enumerate(sorted(range(len(ps)), key=ps.__getitem__)):
        largest = max(largest, min(1.0, (len(ps) - rank) * ps[index]))
        adjusted[index] = largest
    return tuple(adjusted)


def benjamini_hochberg(ps: Sequence[float]) -> tuple[float, ...]:
    """Adjusted p-values, in the order given: of what is then called a difference, at most the level's part is none, on average.

    Assumes independent tests, or positively dependent ones. For exploring many tags; the gate uses Holm. Source: Benjamini and Hochberg
    1995, Journal of the Royal Statistical Society B 57:289; by scipy.

    Raises:
        ValueError: a p-value is not in [0, 1].

    >>> [round(p, 4) for p in benjamini_hochberg([0.01, 0.04, 0.03])]
    [0.03, 0.04, 0.04]
    """
    from scipy.stats import false_discovery_control

    _check_ps(ps)
    return tuple(float(p) for p in false_discovery_control(ps)) if ps else ()


# Variance


def clustered_standard_error(values: Sequence[float], groups: Sequence[Hashable]) -> float | Unknown:
    """The standard error of a mean of values that come in groups (tags, documents, dialogues) and are alike within them.

    Assumes independent groups, and more than a handful of them. Where every value is its own group it is the ordinary standard error.
    Sources: Liang and Zeger 1986, Biometrika 73:13, with the factor G / (G - 1) for few groups; for evaluations Miller 2024,
    arXiv 2411.00640.

    Raises:
        ValueError: there are not as many groups as values.

    >>> clustered_standard_error([1, 1, 0, 0], ["a", "a", "b", "b"])
    0.5
    """
    if len(values) != len(groups):
        msg = f"there are {len(values)} values and {len(groups)} groups; give one group for each value"
        raise ValueError(msg)
    if len(set(groups)) < 2:
        return Unknown(reason="values of one group say nothing about how groups vary")
    mean = fmean(values)
    sums: defaultdict[Hashable, float] = defaultdict(float)
    for value, group in zip(values, groups, strict=True):
        sums[group] += value - mean
    return math.sqrt(len(sums) / (len(sums) - 1) * sum(total**2 for total in sums.values())) / len(values)


def variance_split(cases: Sequence[Sequence[float]]) -> VarianceSplit | Unknown:
    """How much of what varies is between the cases, and how much from trial to trial of a case.

    Each case is its trials' values. Assumes independent cases and trials (a one-way model with random cases); an estimate of `between`
    below 0 is 0. Sources: Searle, Casella and McCulloch 1992, Variance Components, section 3.6; for evaluations Miller 2024,
    arXiv 2411.00640.

    >>> variance_split([[1, 1], [1, 0], [0, 0], [1, 1]])
    VarianceSplit(between=0.16666666666666666, within=0.125, cases=4, trials=8)
    """
    tried = [case for case in cases if case]
    trials = sum(len(case) for case in tried)
    if len(tried) < 2:
        return Unknown(reason="at least two cases with trials are needed to see how cases vary")
    if trials == len(tried):
        return Unknown(reason="no case was tried twice, so what varies within a case is not known")
    means = [fmean(case) for case in tried]
    mean = sum(map(sum, tried)) / trials
    within = sum((value - of_case) ** 2 for case, of_case in zip(tried, means, strict=True) for value in case) / (trials - len(tried))
    between = sum(len(case) * (of_case - mean) ** 2 for case, of_case in zip(tried, means, strict=True)) / (len(tried) - 1)
    size = (trials - sum(len(case) ** 2 for case in tried) / trials) / (len(tried) - 1)
    return VarianceSplit(between=max(0.0, (between - within) / size), within=within, cases=len(tried), trials=trials)


# Power


def cases_for_flips(drop: float, flips: float, *, alpha: float = 0.01, power: float = 0.8, alternative: Alternative = "two-sided") -> float:
    """How many cases, tried once on each side, McNemar's test needs to see a drop.

    `drop` is the difference of rates in (0, 1], `flips` the part of the cases that flip either way, at least `drop`. A normal
    approximation. Sources: Miettinen 1968, Biometrics 24:339; Connor 1987, Biometrics 43:207.

    Raises:
        ValueError: `drop` is not in (0, 1], `flips` not in [drop, 1], or `alpha` or `power` not in (0, 1).

    >>> round(cases_for_flips(0.05, 0.125, alpha=0.05, alternative="less"))
    307
    """
    if not 0 < drop <= flips <= 1:
        msg = f"drop is {drop} and flips is {flips}; give 0 < drop <= flips <= 1"
        raise ValueError(msg)
    z_alpha, z_power = _power_zs(alpha, power, alternative)
    return ((z_alpha * math.sqrt(flips) + z_power * math.sqrt(flips - drop * drop)) / drop) ** 2


def smallest_drop_flips(
    n: int, *, noise: float = 0.0, alpha: float = 0.01, power: float = 0.8, alternative: Alternative = "two-sided"
) -> float | Unknown:
    """The smallest drop that McNemar's exact test of n cases, tried once on each side, would see with the given power.

    `noise` is the part of the cases, in [0, 1), that flips either way though nothing changed; the drop comes on top. The inverse of
    `cases_for_flips`, and at least what the exact test needs: that many flips, all worse.

    Raises:
        ValueError: `n` is negative, `noise` not in [0, 1), or `alpha` or `power` not in (0, 1).

    >>> round(smallest_drop_flips(200), 3)
    0.058
    >>> smallest_drop_flips(5)
    Unknown(reason='5 cases cannot show a drop: even if all got worse, that could be chance')
    """
    z_alpha, z_power = _power_zs(alpha, power, alternative)
    if n < 0 or not 0 <= noise < 1:
        msg = f"n is {n} and noise is {noise}; give n >= 0 and noise from 0 to less than 1"
        raise ValueError(msg)
    needed = smallest_certain_flips(alpha, alternative)

    def lacking(drop: float) -> float:
        flips = min(1.0, noise + drop)
        return ((z_alpha * math.sqrt(flips) + z_power * math.sqrt(max(0.0, flips - drop * drop))) / drop) ** 2 - n

    if needed > n or lacking(1.0) > 0:
        return Unknown(reason=f"{n} {'case' if n == 1 else 'cases'} cannot show a drop: even if all got worse, that could be chance")
    return max(needed / n, _bisect(lacking, 1.0, TIE))


def smallest_certain_flips(alpha: float, alternative: Alternative = "two-sided") -> int:
    """How many flips, all of them worse, the exact sign test needs to reach `alpha`, in (0, 1).

    >>> smallest_certain_flips(0.01), smallest_certain_flips(0.01, "less")
    (8, 7)
    """
    one_sided, _ = _one_sided(alpha, alternative), _power_zs(alpha, 0.5, alternative)
    return next(flips for flips in itertools.count(1) if 0.5**flips <= one_sided)


def cases_for_means(
    drop: float,
    *,
    between: float,
    within: tuple[float, float] = (0.0, 0.0),
    trials: tuple[int, int] = (1, 1),
    alpha: float = 0.01,
    power: float = 0.8,
    alternative: Alternative = "two-sided",
) -> float:
    """How many cases a paired test over case means needs to see a drop.

    `between` is the variance, from case to case, of how much the true rates differ; `within` the variance of a trial within a case,
    and `trials` the trials of a case, both (baseline, run). A normal approximation. Source: Miller 2024, arXiv 2411.00640, section 5.

    Raises:
        ValueError: `drop` is not positive, a variance negative, a side without a trial, or `alpha` or `power` not in (0, 1).

    >>> round(cases_for_means(0.03, between=1 / 9, within=(1 / 6, 1 / 6), trials=(5, 5), alpha=0.05))
    1550
    """
    z_alpha, z_power = _power_zs(alpha, power, alternative)
    if drop <= 0 or min(between, *within) < 0 or min(trials) < 1:
        msg = (
            f"drop is {drop}, between {between}, within {within}, trials {trials}; give a positive drop, no negative variance, trials >= 1"
        )
        raise ValueError(msg)
    variance = between + within[0] / trials[0] + within[1] / trials[1]
    return ((z_alpha + z_power) / drop) ** 2 * variance


def smallest_drop_means(standard_error: float, *, alpha: float = 0.01, power: float = 0.8, alternative: Alternative = "two-sided") -> float:
    """The smallest drop of a mean that a test with this standard error (>= 0) would see with the given power: a normal approximation.

    Raises:
        ValueError: the standard error is negative, or `alpha` or `power` not in (0, 1).

    >>> round(smallest_drop_means(0.01), 4)
    0.0342
    """
    z_alpha, z_power = _power_zs(alpha, power, alternative)
    if standard_error < 0:
        msg = f"the standard error is {standard_error}; it cannot be negative"
        raise ValueError(msg)
    return (z_alpha + z_power) * standard_error


# Looking early


def e_value(worse: int, better: int) -> float:
    """What one unit of money has become that was bet on "worse" at each flip, at fair odds.

    Where nothing got worse (each flip is worse with a chance of at most one half), its mean is at most 1 whenever one looks, so it
    reaches 1 / alpha with a chance of at most alpha. The bet is a mixture, uniform over the chances from one half to one; only the counts
    matter, not their order. Assumes independent cases.
    Sources: Ville 1939, Étude critique de la notion de collectif; Robbins 1970, Annals of Mathematical Statistics 41:1397; Ramdas,
    Grünwald, Vovk and Shafer 2023, Statistical Science 38:576.

    Raises:
        ValueError: a count is negative.

    >>> round(e_value(8, 0), 2), round(e_value(5, 5), 2), e_value(0, 0)
    (56.78, 0.37, 1.0)
    """
    _check_count(worse, worse + better)
    # The integral of 2 * p^worse * (1 - p)^better from 1/2 to 1, over 1/2^n, is a tail of the binomial distribution of n + 1 throws.
    n = worse + better
    try:
        return sum(itertools.islice(_ways(n + 1), worse + 1)) / ((n + 1) * math.comb(n, worse))
    except OverflowError:
        return math.inf


def e_process(signs: Iterable[float], *, alpha: float = 0.01) -> EProcess:
    """`e_value` after each pair in turn; only the sign of a difference counts, and 0 bets nothing.

    A run may be stopped as regressed as soon as `e` reaches 1 / alpha. Assumes, beside what `e_value` does, that a pair's sign is as likely
    plus as minus where nothing changed: as many trials of a case on one side as on the other.

    Raises:
        ValueError: `alpha` is not in (0, 1).

    >>> e_process([-1] * 12).stopped_at
    9
    """
    _check_open(alpha, "alpha")
    worse = better = 0
    e = largest = 1.0
    stopped_at = None
    for count, sign in enumerate(signs, start=1):
        if not sign:
            continue
        worse, better = worse + (sign < 0), better + (sign > 0)
        e = e_value(worse, better)
        largest = max(largest, e)
        if stopped_at is None and e >= 1 / alpha:
            stopped_at = count
    return EProcess(e=e, largest=largest, p=1 / largest, stopped_at=stopped_at)


# What they share


def _check_count(count: float, n: int) -> None:
    if not 0 <= count <= n:
        msg = f"{count} of {n} is no count; give a number from 0 to {n}"
        raise ValueError(msg)


def _check_flips(worse: int, better: int, n: int) -> None:
    if min(worse, better) < 0 or worse + better > n:
        msg = f"{worse} worse and {better} better of {n} cases cannot be; give counts >= 0 that add up to at most {n}"
        raise ValueError(msg)


def _check_open(value: float, name: str) -> None:
    if not 0 < value < 1:
        msg = f"{name} is {value}; give a number between 0 and 1"
        raise ValueError(msg)


def _check_ps(ps: Sequence[float]) -> None:
    if wrong := [p for p in ps if not 0 <= p <= 1]:
        msg = f"{wrong[0]} is no p-value; give numbers from 0 to 1"
        raise ValueError(msg)


def _two_sided_z(level: float) -> float:
    _check_open(level, "level")
    return NormalDist().inv_cdf((1 + level) / 2)


def _one_sided(alpha: float, alternative: Alternative) -> float:
    return alpha / 2 if alternative == "two-sided" else alpha


def _power_zs(alpha: float, power: float, alternative: Alternative) -> tuple[float, float]:
    _check_open(alpha, "alpha")
    _check_open(power, "power")
    return NormalDist().inv_cdf(1 - _one_sided(alpha, alternative)), NormalDist().inv_cdf(power)


def _tail(less: float, greater: float, alternative: Alternative) -> float:
    """The p-value from the chances of a result at most, and at least, as large as the observed one."""
    one_of = {"less": less, "greater": greater, "two-sided": 2 * min(less, greater)}
    return _clip(one_of[alternative])


def _clip(value: float) -> float:
    return max(0.0, min(1.0, value))


def _bisect(function: Callable[[float], float], start: float, end: float) -> float:
    """Where a monotone function changes its sign between `start` and `end`; `end` where it does not."""
    sign = function(start) > 0
    for _ in range(BISECTIONS):
        middle = (start + end) / 2
        if (function(middle) > 0) == sign:
            start = middle
        else:
            end = middle
    return end


def _tango_z(worse: int, better: int, n: int, shift: float) -> float:
    """The score statistic at a difference of `shift`; the chance of "worse" is then its likeliest value."""
    a, b = 2 * n, (2 * n - better + worse) * shift - better - worse
    likeliest = (math.sqrt(max(0.0, b * b + 4 * a * worse * shift * (1 - shift))) - b) / (2 * a)
    variance = n * (2 * likeliest + shift * (1 - shift))
    distance = better - worse - n * shift
    # No variance is left only where no flip is possible, or where all must flip.
    return distance / math.sqrt(variance) if variance > 0 else math.copysign(math.inf, distance) if distance else 0.0


def _units(differences: Sequence[float | Fraction]) -> list[int] | None:
    """The differences as whole multiples of one fraction, None where they are none."""
    fractions = [
        Fraction(difference) if isinstance(difference, (int, Fraction)) else Fraction(difference).limit_denominator(LARGEST_DENOMINATOR)
        for difference in differences
    ]
    if any(abs(float(fraction) - difference) > TIE for fraction, difference in zip(fractions, differences, strict=True)):
        return None
    scale = math.lcm(*(fraction.denominator for fraction in fractions))
    units = [int(fraction * scale) for fraction in fractions]
    unit = math.gcd(*units) or 1
    return [value // unit for value in units]


def _exact_signs(units: Sequence[int]) -> tuple[float, float] | None:
    """The chances of a sum at most, and at least, the observed one, None where that takes too long.

    Counted is the sum of the sizes that get a plus sign: the sum of all moves with it.
    """
    import numpy as np

    sizes = Counter(abs(unit) for unit in units if unit)
    total = sum(size * count for size, count in sizes.items())
    if total > EXACT_SUM:
        return None
    sums: Probabilities = np.ones(1)
    for size, count in sorted(sizes.items()):
        sums = np.convolve(sums, _spread(_fair_coins(count), size))
    observed = sum(unit for unit in units if unit > 0)
    return float(sums[: observed + 1].sum()), float(sums[observed:].sum())


def _drawn_signs(differences: Sequence[float], draws: int, seed: int) -> tuple[float, float]:
    import numpy as np

    values = np.asarray(differences, dtype=float)
    observed, tie = values.sum(), TIE * float(np.abs(values).sum())
    random = np.random.default_rng(seed)
    less = greater = 0
    part = max(1, DRAWN_AT_ONCE // len(values))
    for start in range(0, draws, part):
        sums = random.choice((-1.0, 1.0), size=(min(part, draws - start), len(values))) @ values
        less += int((sums <= observed + tie).sum())
        greater += int((sums >= observed - tie).sum())
    return (less + 1) / (draws + 1), (greater + 1) / (draws + 1)


def _exact_passes(alike: Mapping[_Alike, int], observed: int) -> tuple[float, float]:
    import numpy as np

    sums: Probabilities = np.ones(1)
    for (step, passes, trials, run_trials), count in sorted(alike.items()):
        sums = np.convolve(sums, _spread(_power(_hypergeometric(passes, trials, run_trials), count), step))
    return float(sums[: observed + 1].sum()), float(sums[observed:].sum())


def _drawn_passes(alike: Mapping[_Alike, int], observed: int, draws: int, seed: int) -> tuple[float, float]:
    import numpy as np

    random = np.random.default_rng(seed)
    # Floats, because the steps of many different numbers of trials outgrow 64 bits; what differs by rounding alone is equal.
    sums: Probabilities = np.zeros(draws)
    tie = TIE * observed
    for (step, passes, trials, run_trials), count in sorted(alike.items()):
        part = max(1, DRAWN_AT_ONCE // count)
        for start in range(0, draws, part):
            size = (min(part, draws - start), count)
            passed = random.hypergeometric(passes, trials - passes, run_trials, size=size).sum(axis=1)
            sums[start : start + part] += float(step) * passed
    return (int((sums <= observed + tie).sum()) + 1) / (draws + 1), (int((sums >= observed - tie).sum()) + 1) / (draws + 1)


@functools.lru_cache(maxsize=1024)
def _fair_coins(count: int) -> Probabilities:
    """The distribution of heads in `count` throws of a fair coin, from whole numbers, so that far tails are right."""
    import numpy as np

    return np.array([ways / 2**count for ways in _ways(count)])


def _ways(count: int) -> Iterable[int]:
    """In how many ways `count` coins show no head, one, two, and so on."""
    return itertools.accumulate(range(count), lambda ways, heads: ways * (count - heads) // (heads + 1), initial=1)


@functools.lru_cache(maxsize=1024)
def _hypergeometric(passes: int, trials: int, run_trials: int) -> Probabilities:
    """The distribution of passes among `run_trials` taken at random from `trials`, `passes` of which passed."""
    import numpy as np

    ways = [math.comb(passes, taken) * math.comb(trials - passes, run_trials - taken) for taken in range(run_trials + 1)]
    return np.array([way / math.comb(trials, run_trials) for way in ways])


def _power(distribution: Probabilities, count: int) -> Probabilities:
    """The distribution of the sum of `count` independent draws."""
    import numpy as np

    result: Probabilities = np.ones(1)
    while count:
        if count % 2:
            result = np.convolve(result, distribution)
        count //= 2
        if count:
            distribution = np.convolve(distribution, distribution)
    return result


def _spread(distribution: Probabilities, step: int) -> Probabilities:
    """The distribution of `step` times the value."""
    import numpy as np

    spread: Probabilities = np.zeros((len(distribution) - 1) * step + 1)
    spread[::step] = distribution
    return spread
