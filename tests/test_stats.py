"""Known answers, brute force where the numbers are small, and what must hold for any numbers.

Known answers are those of published examples and of independent computations (scipy, statsmodels); each carries its source.
"""

from __future__ import annotations

import itertools
import math
import random
from fractions import Fraction
from statistics import NormalDist, fmean, stdev

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from pytest_touchstone import stats
from pytest_touchstone.stats import Interval, Unknown

ALTERNATIVES = ["two-sided", "less", "greater"]

FLIPS = st.tuples(st.integers(0, 40), st.integers(0, 40))
LEVELS = st.sampled_from([0.8, 0.95, 0.99])


def bounds(interval):
    return interval.low, interval.high


# Rates

RATES = [
    # Newcombe 1998, table I
    (15, 148, (0.0623863995307363, 0.16048724172330803), (0.05784401008344857, 0.161650490349479)),
    (0, 20, (0.0, 0.16112515805281938), (0.0, 0.1684334709830853)),
    (42, 50, (0.7148578393696501, 0.916625793219666), (0.7088736934048891, 0.9282992328167138)),
    (850, 1000, (0.8265313415731996, 0.8707899274869118), (0.826341871432964, 0.8715751888838272)),
    (286, 1319, (0.1954313944055889, 0.23987508543066718), (0.19486357539953728, 0.24006746581229235)),
]


@pytest.mark.parametrize(("passes", "n", "wilson", "exact"), RATES)
def test_intervals_of_rates_known_answers(passes, n, wilson, exact):
    assert bounds(stats.wilson(passes, n)) == pytest.approx(wilson, abs=1e-12)
    assert bounds(stats.clopper_pearson(passes, n)) == pytest.approx(exact, abs=1e-9)


@pytest.mark.parametrize("function", [stats.wilson, stats.clopper_pearson])
@given(n=st.integers(1, 60), data=st.data(), level=LEVELS)
def test_intervals_of_rates_hold_the_rate_and_mirror_when_passes_and_failures_swap(function, n, data, level):
    passes = data.draw(st.integers(0, n))
    interval, mirrored = function(passes, n, level=level), function(n - passes, n, level=level)
    assert 0 <= interval.low <= passes / n <= interval.high <= 1
    assert bounds(interval) == pytest.approx((1 - mirrored.high, 1 - mirrored.low), abs=1e-9)
    assert interval.level == level


def test_intervals_of_rates_say_their_method_and_end_exactly_at_0_and_1():
    assert stats.wilson(0, 3).method == "Wilson"
    assert (stats.wilson(0, 3).low, stats.wilson(3, 3).high) == (0.0, 1.0)
    assert stats.clopper_pearson(3, 3).method == "Clopper-Pearson"
    assert stats.clopper_pearson(3, 3).high == 1.0


@pytest.mark.parametrize(("hits", "n", "rate"), [(0, 10, 0.05), (5, 10, 0.05), (3, 60, 0.02), (7, 7, 0.5), (1, 4, 0.0)])
def test_binomial_excess_is_the_sum_of_the_tail(hits, n, rate):
    tail = sum(math.comb(n, count) * rate**count * (1 - rate) ** (n - count) for count in range(hits, n + 1))
    found = stats.binomial_excess(hits, n, rate)
    assert found.p == pytest.approx(tail, abs=1e-12)
    assert (found.statistic, found.n, found.method) == (hits, n, "exact binomial")


def test_binomial_excess_at_the_edges():
    assert stats.binomial_excess(0, 0, 0.05) == stats.Unknown(reason="there are no trials")
    with pytest.raises(ValueError, match=r"^rate is 1; give a number from 0 to less than 1$"):
        stats.binomial_excess(0, 1, 1)


@pytest.mark.parametrize("rate", [0.02, 0.3, 0.5, 0.85])
def test_the_exact_interval_covers_the_truth_as_often_as_it_says(rate):
    for n in (1, 6, 20):
        intervals = [stats.clopper_pearson(passes, n) for passes in range(n + 1)]
        chances = [math.comb(n, passes) * rate**passes * (1 - rate) ** (n - passes) for passes in range(n + 1)]
        assert sum(chance for chance, interval in zip(chances, intervals, strict=True) if interval.low <= rate <= interval.high) >= 0.95


def test_wilson_takes_a_sum_of_case_means():
    assert stats.wilson(41, 50).low < stats.wilson(41.6, 50).low < stats.wilson(42, 50).low


@pytest.mark.parametrize("function", [stats.wilson, stats.clopper_pearson])
def test_rates_without_trials_are_unknown_and_impossible_counts_are_refused(function):
    assert function(0, 0) == Unknown(reason="there are no trials")
    with pytest.raises(ValueError, match=r"^4 of 3 is no count; give a number from 0 to 3$"):
        function(4, 3)
    with pytest.raises(ValueError, match=r"^-1 of 3 is no count"):
        function(-1, 3)
    with pytest.raises(ValueError, match=r"^level is 95; give a number between 0 and 1$"):
        function(1, 3, level=95)


# Chen et al. 2021 (HumanEval), equation 1; Yao et al. 2024 (tau-bench)
OF_K = [
    (10, 3, 5, 0.9166666666666666, 0.0),
    (5, 5, 3, 1.0, 1.0),
    (5, 4, 2, 1.0, 0.6),
    (200, 13, 10, 0.4975511147306061, 1.2738851058221087e-14),
    (200, 13, 100, 0.9999194971988055, 0.0),
    (10, 8, 5, 1.0, 0.2222222222222222),
]


@pytest.mark.parametrize(("trials", "passes", "k", "at", "hat"), OF_K)
def test_pass_at_k_and_pass_hat_k_known_answers(trials, passes, k, at, hat):
    assert stats.pass_at_k(trials, passes, k) == pytest.approx(at, abs=1e-12)
    assert stats.pass_hat_k(trials, passes, k) == pytest.approx(hat, rel=1e-9)


@given(st.integers(1, 7), st.data())
def test_pass_at_k_and_pass_hat_k_count_the_choices_of_k_trials(trials, data):
    passes, k = data.draw(st.integers(0, trials)), data.draw(st.integers(1, trials))
    choices = list(itertools.combinations([True] * passes + [False] * (trials - passes), k))
    assert stats.pass_at_k(trials, passes, k) == pytest.approx(fmean(any(choice) for choice in choices))
    assert stats.pass_hat_k(trials, passes, k) == pytest.approx(fmean(all(choice) for choice in choices))


@pytest.mark.parametrize("function", [stats.pass_at_k, stats.pass_hat_k])
def test_of_k_needs_k_trials(function):
    assert function(2, 1, 3) == Unknown(reason="2 trials say nothing about 3 of them")
    assert function(0, 0, 1) == Unknown(reason="0 trials say nothing about 1 of them")
    with pytest.raises(ValueError, match=r"^k is 0; give a number of trials of at least 1$"):
        function(2, 1, 0)
    with pytest.raises(ValueError, match=r"^3 of 2 is no count"):
        function(2, 3, 1)


# Rogan and Gladen 1978; Lang and Reiczigel 2014 (computed independently)
JUDGED = [
    ((70, 100), (90, 100), (80, 100), 0.7142857142857141, (0.5634743069077055, 0.8580813622715018)),
    ((259, 2971), (178, 179), (358, 372), 0.051779592197711354, (0.026820637035838375, 0.07206080426791783)),
]


@pytest.mark.parametrize(("judged", "on_pass", "on_fail", "rate", "interval"), JUDGED)
def test_rogan_gladen_known_answers(judged, on_pass, on_fail, rate, interval):
    corrected = stats.rogan_gladen(*judged, right_passes=on_pass[0], true_passes=on_pass[1], right_fails=on_fail[0], true_fails=on_fail[1])
    assert corrected.raw == pytest.approx(judged[0] / judged[1])
    assert corrected.rate == pytest.approx(rate, abs=1e-12)
    assert bounds(corrected.interval) == pytest.approx(interval, abs=1e-12)
    assert corrected.interval.method == "Lang-Reiczigel"


def judge(passes, n, right_passes=90, true_passes=100, right_fails=80, true_fails=100):
    return stats.rogan_gladen(passes, n, true_passes=true_passes, right_passes=right_passes, true_fails=true_fails, right_fails=right_fails)


def test_rogan_gladen_at_its_edges():
    assert (judge(0, 50).rate, judge(50, 50).rate) == (0.0, 1.0)
    assert judge(0, 50).interval.low == 0.0
    assert judge(50, 50).interval.high == 1.0
    nothing = Unknown(reason="there are no answers, or none that people passed or failed")
    assert judge(0, 0) == judge(3, 5, right_passes=0, true_passes=0) == judge(3, 5, right_fails=0, true_fails=0) == nothing
    assert judge(3, 5, right_passes=20) == Unknown(reason="the judge agrees with people no better than chance does")
    with pytest.raises(ValueError, match=r"^101 of 100 is no count"):
        judge(3, 5, right_fails=101)


def test_a_perfect_judge_is_not_corrected():
    assert judge(30, 50, right_passes=100, right_fails=100).rate == pytest.approx(0.6)


# Paired tests

MCNEMAR = [
    # Agresti, approval ratings
    (86, 150, 3.715936139571442e-05, 2.89338951761549e-05, 0.9999896457855217, 0.9999855330524119),
    (0, 4, 0.125, 0.0625, 1.0, 0.96875),
    (10, 3, 0.09228515625, 0.057373046875, 0.046142578125, 0.0286865234375),
    (3, 10, 0.09228515625, 0.057373046875, 0.98876953125, 0.9713134765625),
    (0, 0, 1.0, 1.0, 1.0, 0.5),
    (5, 5, 1.0, 0.75390625, 0.623046875, 0.5),
    # GSM8K, two published models
    (209, 152, 0.0031506568803606042, 0.002687391328471378, 0.0015753284401803021, 0.001343695664235689),
]


@pytest.mark.parametrize(("worse", "better", "two", "two_mid", "less", "less_mid"), MCNEMAR)
def test_mcnemar_known_answers(worse, better, two, two_mid, less, less_mid):
    assert stats.mcnemar(worse, better).p == pytest.approx(two, rel=1e-9)
    assert stats.mcnemar(worse, better, mid_p=True).p == pytest.approx(two_mid, rel=1e-9)
    assert stats.mcnemar(worse, better, alternative="less").p == pytest.approx(less, rel=1e-9)
    assert stats.mcnemar(worse, better, mid_p=True, alternative="less").p == pytest.approx(less_mid, rel=1e-9)


@given(FLIPS, st.booleans())
def test_mcnemar_mirrors_when_sides_swap(flips, mid_p):
    worse, better = flips
    test = stats.mcnemar(worse, better, mid_p=mid_p)
    assert test.p == pytest.approx(stats.mcnemar(better, worse, mid_p=mid_p).p)
    assert 0 <= test.p <= 1
    less, greater = (stats.mcnemar(*pair, mid_p=mid_p, alternative=side).p for pair, side in ((flips, "less"), (flips[::-1], "greater")))
    assert less == pytest.approx(greater)
    assert (test.statistic, test.n) == (worse, worse + better)


def test_mcnemar_says_its_method_and_refuses_negative_counts():
    assert stats.mcnemar(1, 2).method == "exact McNemar"
    assert stats.mcnemar(1, 2, mid_p=True).method == "McNemar mid-p"
    with pytest.raises(ValueError, match=r"^-1 of 1 is no count"):
        stats.mcnemar(-1, 2)


# Student 1908, table of hours of sleep gained (dextro less laevo), as in many textbooks: t = -4.0621, p = .002833
SLEEP = [-1.2, -2.4, -1.3, -1.3, 0.0, -1.0, -1.8, -0.8, -4.6, -1.4]


def test_paired_t_known_answer():
    test = stats.paired_t(SLEEP)
    assert (test.statistic, test.p) == pytest.approx((-4.062128, 0.002832890), abs=1e-6)
    assert stats.paired_t(SLEEP, alternative="less").p == pytest.approx(test.p / 2)
    assert (test.n, test.method) == (10, "paired t")


def test_paired_t_at_its_edges():
    assert stats.paired_t([]) == stats.paired_t([0.5]) == Unknown(reason="a t test needs at least two cases")
    assert stats.paired_t([0.0, 0.0, 0.0], alternative="less").p == 1.0
    reason = "every case differs by the same amount, so there is no variation to measure against"
    assert stats.paired_t([-0.2, -0.2]) == Unknown(reason=reason)


def brute_force_signs(differences, alternative):
    observed = sum(differences)
    sums = [
        sum(sign * difference for sign, difference in zip(signs, differences, strict=True))
        for signs in itertools.product((1, -1), repeat=len(differences))
    ]
    less, greater = fmean(total <= observed for total in sums), fmean(total >= observed for total in sums)
    return {"less": less, "greater": greater, "two-sided": min(1.0, 2 * min(less, greater))}[alternative]


SIGN_FLIPS = [([-3, -1, 0, 2, -5, 0, 1, -2], 0.171875), ([-5, -5, -5, 0, 0, 1], 0.125), ([1, -1, 1, -1], 0.6875)]


@pytest.mark.parametrize(("differences", "p"), SIGN_FLIPS)
def test_sign_flip_known_answers_by_enumeration_and_scipy(differences, p):
    test = stats.sign_flip(differences, alternative="less")
    assert test.p == p
    assert (test.method, test.n) == ("exact sign-flip permutation", len(differences))
    assert test.statistic == pytest.approx(fmean(differences))


@pytest.mark.parametrize("alternative", ALTERNATIVES)
@given(st.lists(st.fractions(-1, 1, max_denominator=6), min_size=1, max_size=8))
def test_sign_flip_is_what_enumeration_gives(alternative, differences):
    wanted = brute_force_signs(differences, alternative)
    assert stats.sign_flip(differences, alternative=alternative).p == pytest.approx(wanted)
    # The same rates as floats, however they were rounded.
    as_floats = stats.sign_flip([float(difference) for difference in differences], alternative=alternative)
    assert as_floats.p == pytest.approx(wanted)
    assert as_floats.method == "exact sign-flip permutation"


@given(FLIPS)
@example((88, 260))
def test_sign_flip_with_one_trial_a_side_is_exact_mcnemar(flips):
    worse, better = flips
    differences = [-1] * worse + [1] * better + [0] * 7
    for alternative in ALTERNATIVES:
        expected = stats.mcnemar(worse, better, alternative=alternative).p
        assert stats.sign_flip(differences, alternative=alternative).p == pytest.approx(expected, rel=1e-9)


def test_sign_flip_of_arbitrary_values_draws_from_a_seed_and_says_so():
    differences = [math.pi / 10, -0.1234567891, 0.2718281828, -0.9, 0.33333, 0.777, 0.1111]
    test = stats.sign_flip(differences, seed=3)
    assert test.method == "sign-flip permutation, 9,999 draws from seed 3"
    assert test == stats.sign_flip(differences, seed=3)
    assert test.p == pytest.approx(brute_force_signs(differences, "two-sided"), abs=0.03)
    assert (test.p * 10_000 / 2) == pytest.approx(round(test.p * 10_000 / 2))
    assert stats.sign_flip(differences, seed=4).p != test.p


def test_drawn_signs_never_give_a_p_of_0_and_count_ties():
    values = [math.sqrt(number) / 10 for number in range(2, 40)]
    assert stats.sign_flip([-value for value in values], alternative="less", draws=99).p == 1 / 100
    # Equal sizes, so that many sums are equal but for rounding.
    assert stats.sign_flip([math.pi / 10] * 2 + [-math.pi / 10] * 2, alternative="less").p == pytest.approx(0.6875, abs=0.02)


def test_sign_flip_draws_where_the_exact_distribution_is_too_long(monkeypatch):
    differences = [-3, -1, 0, 2, -5, 0, 1, -2]
    monkeypatch.setattr(stats, "EXACT_SUM", 13)
    monkeypatch.setattr(stats, "DRAWN_AT_ONCE", 800)
    test = stats.sign_flip(differences, alternative="less")
    assert test.method == "sign-flip permutation, 9,999 draws from seed 0"
    assert test.p == pytest.approx(0.171875, abs=0.02)
    monkeypatch.setattr(stats, "EXACT_SUM", 14)
    assert stats.sign_flip(differences, alternative="less").p == 0.171875


def test_sign_flip_at_its_edges():
    assert stats.sign_flip([]) == Unknown(reason="there are no cases")
    assert [stats.sign_flip([0, 0, 0], alternative=alternative).p for alternative in ALTERNATIVES] == [1.0, 1.0, 1.0]
    assert stats.sign_flip([-0.2] * 20, alternative="less").p == pytest.approx(0.5**20)


def brute_force_trials(cases, alternative):
    """Every way to choose the run's trials from those of a case, for every case."""

    def rates(case):
        before, before_n, after, after_n = case
        pool = [1] * (before + after) + [0] * (before_n + after_n - before - after)
        return [
            Fraction(sum(taken), after_n) - Fraction(sum(pool) - sum(taken), before_n) for taken in itertools.combinations(pool, after_n)
        ]

    observed = sum(Fraction(after, after_n) - Fraction(before, before_n) for before, before_n, after, after_n in cases)
    sums = [sum(differences) for differences in itertools.product(*map(rates, cases))]
    less, greater = fmean(total <= observed for total in sums), fmean(total >= observed for total in sums)
    return {"less": less, "greater": greater, "two-sided": min(1.0, 2 * min(less, greater))}[alternative]


@st.composite
def tried_cases(draw):
    def side():
        trials = draw(st.integers(1, 3))
        return draw(st.integers(0, trials)), trials

    return [(*side(), *side()) for _ in range(draw(st.integers(1, 3)))]


@pytest.mark.parametrize("alternative", ALTERNATIVES)
@given(tried_cases())
def test_within_case_permutation_is_what_enumeration_gives(alternative, cases):
    test = stats.within_case_permutation(cases, alternative=alternative)
    assert test.p == pytest.approx(brute_force_trials(cases, alternative))
    assert test.method == "exact permutation within cases"
    assert test.statistic == pytest.approx(float(fmean(after / a_n - before / b_n for before, b_n, after, a_n in cases)))


@given(FLIPS)
def test_within_case_permutation_with_one_trial_a_side_is_exact_mcnemar(flips):
    worse, better = flips
    cases = [(1, 1, 0, 1)] * worse + [(0, 1, 1, 1)] * better + [(1, 1, 1, 1)]
    expected = stats.mcnemar(worse, better, alternative="less").p
    assert stats.within_case_permutation(cases, alternative="less").p == pytest.approx(expected, rel=1e-9)


def test_within_case_permutation_draws_where_the_exact_distribution_is_too_long(monkeypatch):
    cases = [(5, 5, 3, 7), (4, 5, 2, 3), (2, 6, 1, 2), (5, 5, 0, 1)]
    exact = stats.within_case_permutation(cases, alternative="less").p
    monkeypatch.setattr(stats, "EXACT_SUM", 10)
    monkeypatch.setattr(stats, "DRAWN_AT_ONCE", 3_000)
    drawn = stats.within_case_permutation(cases, alternative="less", seed=1)
    assert drawn.p == pytest.approx(exact, abs=0.02)
    assert drawn.method == "permutation within cases, 9,999 draws from seed 1"
    assert drawn == stats.within_case_permutation(cases, alternative="less", seed=1)


def test_within_case_permutation_of_many_different_numbers_of_trials():
    cases = [(count - 1, count, count // 2, count + 1) for count in range(2, 60)]
    test = stats.within_case_permutation(cases, alternative="less")
    assert (test.p, test.method) == (1 / 10_000, "permutation within cases, 9,999 draws from seed 0")


def test_within_case_permutation_at_its_edges():
    assert stats.within_case_permutation([]) == Unknown(reason="there are no cases")
    assert stats.within_case_permutation([(5, 5, 1, 1)], alternative="less").p == 1.0
    with pytest.raises(ValueError, match=r"^a case without a trial on both sides cannot be compared; leave it out$"):
        stats.within_case_permutation([(1, 1, 0, 0)])
    with pytest.raises(ValueError, match=r"^2 of 1 is no count"):
        stats.within_case_permutation([(2, 1, 0, 1)])


# Intervals for paired differences

TANGO = [
    # Tango 1998; the constrained likelihood was also maximised by brute force
    (3, 1, 50, (-0.14614626506650383, 0.05442500698760951), 0.601591398850825, 0.40306256837561755),
    (12, 9, 43, (-0.27422293712393964, 0.1410179709184049), 0.645790384034358, 0.5738411863878059),
    (10, 4, 200, (-0.07254309134689116, 0.007581275052644761), 0.5, 0.15730047748603238),
    (209, 152, 1319, (-0.0714581928810328, -0.015051738958925294), 0.8213894009123759, 0.3183093475712323),
    (0, 0, 50, (-0.07134759913339107, 0.07134759913339107), 0.10683445369689665, 0.052378744924865314),
]


@pytest.mark.parametrize(("worse", "better", "n", "interval", "p_03", "p_05"), TANGO)
def test_tango_known_answers(worse, better, n, interval, p_03, p_05):
    assert bounds(stats.tango(worse, better, n)) == pytest.approx(interval, abs=1e-9)
    assert stats.tango_test(worse, better, n, -0.03, alternative="greater").p == pytest.approx(p_03, abs=1e-9)
    assert stats.tango_test(worse, better, n, -0.05, alternative="greater").p == pytest.approx(p_05, abs=1e-9)


@st.composite
def paired_counts(draw):
    n = draw(st.integers(1, 80))
    worse = draw(st.integers(0, n))
    return worse, draw(st.integers(0, n - worse)), n


@pytest.mark.parametrize("function", [stats.tango, stats.bonett_price])
@given(paired_counts(), LEVELS)
def test_intervals_of_differences_mirror_when_sides_swap(function, counts, level):
    worse, better, n = counts
    interval, mirrored = function(worse, better, n, level=level), function(better, worse, n, level=level)
    assert -1 <= interval.low <= interval.high <= 1
    assert bounds(interval) == pytest.approx((-mirrored.high, -mirrored.low), abs=1e-9)


@given(paired_counts())
def test_the_interval_of_tango_holds_the_difference_and_ends_where_its_test_turns(counts):
    worse, better, n = counts
    interval = stats.tango(worse, better, n)
    assert interval.low <= (better - worse) / n + 1e-12
    assert interval.high >= (better - worse) / n - 1e-12
    for end in bounds(interval):
        if abs(end) < 0.999:
            assert stats.tango_test(worse, better, n, end).p == pytest.approx(0.05, abs=1e-6)


def test_the_interval_of_tango_at_its_edges():
    assert bounds(stats.tango(5, 0, 5))[0] == pytest.approx(-1.0)
    assert stats.tango(5, 0, 5).high < 0
    assert stats.tango(0, 5, 5).high == pytest.approx(1.0)
    assert stats.tango_test(0, 0, 5, 0.0).p == 1.0
    assert stats.tango_test(0, 0, 5, 0.0).statistic == 0.0
    assert stats.tango_test(0, 0, 5, 0.3, alternative="less").p < 0.1


@pytest.mark.parametrize("function", [stats.tango, stats.bonett_price, lambda *counts: stats.tango_test(*counts, 0.1)])
def test_differences_without_cases_are_unknown_and_impossible_counts_are_refused(function):
    assert function(0, 0, 0) == Unknown(reason="there are no cases")
    with pytest.raises(ValueError, match=r"^3 worse and 2 better of 4 cases cannot be; give counts >= 0 that add up to at most 4$"):
        function(3, 2, 4)
    with pytest.raises(ValueError, match=r"^-1 worse and 2 better of 4 cases cannot be"):
        function(-1, 2, 4)


@pytest.mark.parametrize("shift", [-1, 1, 5])
def test_a_shift_in_points_is_refused(shift):
    with pytest.raises(ValueError, match=rf"^shift is {shift}; give a difference of rates between -1 and 1$"):
        stats.tango_test(1, 2, 10, shift)


def test_bonett_price_by_its_formula():
    # p12 = (b + 1) / (n + 2), p21 = (c + 1) / (n + 2), variance (p12 + p21 - (p12 - p21)^2) / (n + 2)
    low, high = 11 / 202, 5 / 202
    half = NormalDist().inv_cdf(0.975) * math.sqrt((low + high - (low - high) ** 2) / 202)
    interval = stats.bonett_price(10, 4, 200)
    assert bounds(interval) == pytest.approx((high - low - half, high - low + half))
    assert interval.method == "Bonett-Price"


def test_the_interval_of_mean_differences_narrows_with_cases_and_is_never_certain():
    assert stats.mean_difference([]) == Unknown(reason="there are no cases")
    few, many = stats.mean_difference([0.0] * 5), stats.mean_difference([0.0] * 500)
    assert few.low < many.low < 0 < many.high < few.high
    assert stats.mean_difference([-1.0] * 3).low == -1.0
    with pytest.raises(ValueError, match=r"^1\.5 is no difference of rates; give numbers from -1 to 1$"):
        stats.mean_difference([0.5, 1.5])


@given(st.lists(st.fractions(-1, 1, max_denominator=5), min_size=1, max_size=30), st.sampled_from([-0.1, 0.0, 0.2]))
def test_the_test_of_mean_differences_agrees_with_the_interval(differences, shift):
    test = stats.mean_difference_test(differences, shift)
    interval = stats.mean_difference(differences)
    assert (interval.low < shift < interval.high) == (test.p > 0.05)
    less, greater = (stats.mean_difference_test(differences, shift, alternative=side).p for side in ("less", "greater"))
    assert less + greater == pytest.approx(1)
    assert (test.n, test.method) == (len(differences), "Bonett-Price z")


def test_the_test_of_mean_differences_without_cases():
    assert stats.mean_difference_test([], 0.0) == Unknown(reason="there are no cases")


# Several answers at once

# statsmodels; p-values of McDonald's handbook (García-Arenzana et al. 2014)
PS = [
    0.001, 0.008, 0.039, 0.041, 0.042, 0.06, 0.074, 0.205, 0.212, 0.216, 0.222, 0.251, 0.269,
    0.275, 0.34, 0.341, 0.384, 0.569, 0.594, 0.696, 0.762, 0.94, 0.942, 0.975, 0.986,
]  # fmt: skip
BY_HOLM = [0.025, 0.192, 0.897, 0.902, 0.902, *[1.0] * 20]
BY_BENJAMINI_HOCHBERG = [
    0.025, 0.1, 0.21, 0.21, 0.21, 0.25, 0.26428571428571423, *[0.49107142857142855] * 7, 0.5328125, 0.5328125, 0.5647058823529412,
    0.781578947368421, 0.781578947368421, 0.87, 0.9071428571428571, *[0.986] * 4,
]  # fmt: skip


def test_adjusted_p_values_known_answers_in_any_order():
    order = list(range(len(PS)))
    random.Random(1).shuffle(order)
    shuffled = [PS[index] for index in order]
    assert stats.holm(shuffled) == pytest.approx([BY_HOLM[index] for index in order])
    assert stats.benjamini_hochberg(shuffled) == pytest.approx([BY_BENJAMINI_HOCHBERG[index] for index in order])


@pytest.mark.parametrize("function", [stats.holm, stats.benjamini_hochberg])
@given(st.lists(st.floats(0, 1), max_size=12))
def test_adjusting_keeps_the_order_and_lowers_no_p_value(function, ps):
    adjusted = function(ps)
    assert all(p <= after + 1e-12 and after <= 1 for p, after in zip(ps, adjusted, strict=True))
    pairs = sorted(zip(ps, adjusted, strict=True))
    assert all(one[1] <= other[1] + 1e-12 for one, other in itertools.pairwise(pairs))


@pytest.mark.parametrize("function", [stats.holm, stats.benjamini_hochberg])
def test_adjusting_at_its_edges(function):
    assert function([]) == ()
    assert function([0.3]) == (0.3,)
    with pytest.raises(ValueError, match=r"^1\.2 is no p-value; give numbers from 0 to 1$"):
        function([0.5, 1.2])


# Variance


@given(st.lists(st.floats(0, 1), min_size=2, max_size=20))
def test_clustered_error_of_single_values_is_the_ordinary_standard_error(values):
    found = stats.clustered_standard_error(values, range(len(values)))
    assert found == pytest.approx(stdev(values) / math.sqrt(len(values)), abs=1e-9)


def test_clustered_error_grows_when_groups_agree_and_of_pairs_is_that_of_their_means():
    values, groups = [1, 1, 1, 0, 0, 0, 1, 1, 0, 0], [0, 0, 1, 1, 2, 2, 3, 3, 4, 4]
    means = [1, 0.5, 0, 1, 0]
    assert stats.clustered_standard_error(values, groups) == pytest.approx(stdev(means) / math.sqrt(5))
    assert stats.clustered_standard_error(values, groups) > stats.clustered_standard_error(values, range(10))


def test_clustered_error_at_its_edges():
    reason = "values of one group say nothing about how groups vary"
    assert stats.clustered_standard_error([], []) == stats.clustered_standard_error([1, 0], ["a", "a"]) == Unknown(reason=reason)
    with pytest.raises(ValueError, match=r"^there are 2 values and 1 groups; give one group for each value$"):
        stats.clustered_standard_error([1, 0], ["a"])


def test_variance_split_of_balanced_trials_is_that_of_the_analysis_of_variance():
    # Mean squares by hand: cases have means 1, .5, 0, 1 and two trials each; between 2 * .6875 / 3, within .5 / 4.
    split = stats.variance_split([[1, 1], [1, 0], [0, 0], [1, 1]])
    assert split.within == pytest.approx(0.125)
    assert split.between == pytest.approx((2 * 0.6875 / 3 - 0.125) / 2)
    assert split.flakiness == pytest.approx(0.125 / (0.125 + split.between))


def test_variance_split_finds_what_made_the_data():
    chance = random.Random(5)
    rates = [chance.choice((0.05, 0.95)) for _ in range(3000)]
    split = stats.variance_split([[float(chance.random() < rate) for _ in range(chance.choice((2, 5)))] for rate in rates])
    assert split.between == pytest.approx(0.45**2, abs=0.01)
    assert split.within == pytest.approx(0.05 * 0.95, abs=0.005)
    assert split.cases == 3000


def test_variance_split_at_its_edges():
    assert stats.variance_split([]) == Unknown(reason="at least two cases with trials are needed to see how cases vary")
    assert stats.variance_split([[1, 0], []]) == Unknown(reason="at least two cases with trials are needed to see how cases vary")
    assert stats.variance_split([[1], [0]]) == Unknown(reason="no case was tried twice, so what varies within a case is not known")
    same = stats.variance_split([[1, 1], [1, 1]])
    assert (same.between, same.within, same.flakiness) == (0.0, 0.0, 0.0)
    only_within = stats.variance_split([[1, 0], [0, 1]])
    assert (only_within.between, only_within.flakiness) == (0.0, 1.0)


# Power


def test_cases_for_flips_known_answer():
    # Connor 1987
    assert stats.cases_for_flips(0.05, 0.125, alpha=0.05, alternative="less") == pytest.approx(307.02819974823353)


# Miller 2024, section 5
@pytest.mark.parametrize(("trials", "n"), [(1, 3875.9899922711543), (5, 1550.3959969084617)])
def test_cases_for_means_known_answers(trials, n):
    found = stats.cases_for_means(0.03, between=1 / 9, within=(1 / 6, 1 / 6), trials=(trials, trials), alpha=0.05)
    assert found == pytest.approx(n)


@given(st.floats(0, 0.3), st.integers(30, 2000), st.sampled_from(["two-sided", "less"]))
def test_the_smallest_drop_needs_the_cases_that_there_are(noise, n, alternative):
    drop = stats.smallest_drop_flips(n, noise=noise, alternative=alternative)
    needed = stats.cases_for_flips(drop, min(1.0, noise + drop), alternative=alternative)
    certain = stats.smallest_certain_flips(0.01, alternative)
    assert needed == pytest.approx(n, rel=1e-6) or (drop == certain / n and needed <= n)


def test_the_smallest_drop_of_flips_at_its_edges():
    assert stats.smallest_drop_flips(7) == Unknown(reason="7 cases cannot show a drop: even if all got worse, that could be chance")
    assert stats.smallest_drop_flips(0) == Unknown(reason="0 cases cannot show a drop: even if all got worse, that could be chance")
    assert 8 / 9 <= stats.smallest_drop_flips(9) <= 1
    assert stats.smallest_drop_flips(1000) < stats.smallest_drop_flips(1000, noise=0.1) < stats.smallest_drop_flips(100, noise=0.1)
    assert isinstance(stats.smallest_drop_flips(9, noise=0.9, alpha=0.003, power=0.999), Unknown)
    with pytest.raises(ValueError, match=r"^n is -1 and noise is 0\.0; give n >= 0 and noise from 0 to less than 1$"):
        stats.smallest_drop_flips(-1)
    with pytest.raises(ValueError, match=r"noise is 1\.0"):
        stats.smallest_drop_flips(10, noise=1.0)


def test_the_smallest_certain_flips_are_those_that_the_exact_test_needs():
    for alpha, alternative in ((0.05, "less"), (0.01, "less"), (0.01, "two-sided"), (0.001, "two-sided")):
        needed = stats.smallest_certain_flips(alpha, alternative)
        assert stats.mcnemar(needed, 0, alternative=alternative).p <= alpha
        assert stats.mcnemar(needed - 1, 0, alternative=alternative).p > alpha


def test_the_smallest_drop_of_means_is_the_inverse_of_the_cases_for_means():
    n = stats.cases_for_means(0.03, between=0.1, within=(0.04, 0.05), trials=(5, 1))
    assert stats.smallest_drop_means(math.sqrt((0.1 + 0.04 / 5 + 0.05) / n)) == pytest.approx(0.03)
    assert stats.smallest_drop_means(0.0) == 0.0


@pytest.mark.parametrize(
    ("ask", "message"),
    [
        (lambda: stats.cases_for_flips(0.2, 0.1), r"^drop is 0\.2 and flips is 0\.1; give 0 < drop <= flips <= 1$"),
        (lambda: stats.cases_for_flips(0.1, 0.2, alpha=0), r"^alpha is 0; give a number between 0 and 1$"),
        (lambda: stats.cases_for_means(0.1, between=0.1, power=1), r"^power is 1; give a number between 0 and 1$"),
        (
            lambda: stats.cases_for_means(0, between=0.1),
            r"^drop is 0, between 0\.1, within \(0\.0, 0\.0\), trials \(1, 1\); give a positive drop, no negative variance, trials >= 1$",
        ),
        (lambda: stats.cases_for_means(0.1, between=-0.1), r"between -0\.1"),
        (lambda: stats.cases_for_means(0.1, between=0.1, trials=(0, 1)), r"trials \(0, 1\)"),
        (lambda: stats.smallest_drop_means(-1), r"^the standard error is -1; it cannot be negative$"),
        (lambda: stats.smallest_certain_flips(2), r"^alpha is 2; give a number between 0 and 1$"),
    ],
)
def test_power_refuses_what_cannot_be(ask, message):
    with pytest.raises(ValueError, match=message):
        ask()


# Looking early


@given(st.integers(0, 60), st.integers(0, 60))
def test_a_fair_coin_wins_nothing_on_average(worse, better):
    after = (stats.e_value(worse + 1, better) + stats.e_value(worse, better + 1)) / 2
    assert after == pytest.approx(stats.e_value(worse, better), rel=1e-9)


@given(st.integers(0, 30), st.integers(0, 30))
def test_the_e_value_is_the_mixture_that_it_says(worse, better):
    steps = 4000
    mixture = fmean((2 * p) ** worse * (2 * (1 - p)) ** better for p in (0.5 + (step + 0.5) / (2 * steps) for step in range(steps)))
    assert stats.e_value(worse, better) == pytest.approx(mixture, rel=1e-3)


def test_the_e_value_at_its_edges():
    assert stats.e_value(0, 0) == 1.0
    assert stats.e_value(0, 40) == pytest.approx(1 / 41)
    assert stats.e_value(3000, 0) == math.inf
    with pytest.raises(ValueError, match=r"^-1 of 0 is no count"):
        stats.e_value(-1, 1)


def test_looking_after_every_pair_keeps_the_promise():
    chance = random.Random(11)
    stopped = [stats.e_process((chance.choice((-1, 1)) for _ in range(60)), alpha=0.1).stopped_at for _ in range(400)]
    assert 0 < sum(1 for at in stopped if at is not None) / 400 <= 0.1


def test_the_e_process_stops_at_the_first_pair_that_is_enough_and_keeps_its_largest_value():
    process = stats.e_process([0, *[-1] * 9, 0, 1, 1, 1, 1])
    assert process.stopped_at == 10
    assert process.largest == stats.e_value(9, 0) >= 100
    assert process.e == stats.e_value(9, 4) < process.largest
    assert process.p == 1 / process.largest
    assert stats.e_process([0.2, 0.4, 0.0]).p == 1.0
    assert stats.e_process([]) == stats.EProcess(e=1.0, largest=1.0, p=1.0, stopped_at=None)
    with pytest.raises(ValueError, match=r"^alpha is 0; give a number between 0 and 1$"):
        stats.e_process([], alpha=0)


def test_what_is_unknown_is_false_and_what_is_known_is_true():
    assert not Unknown(reason="nobody asked")
    assert Interval(low=0.0, high=0.0, level=0.95, method="m")
