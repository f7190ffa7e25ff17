"""The statistics behind the verdicts, against scipy and numbers worked out by hand."""

import math

import numpy as np
import pytest

from gcnn.reproduction.noise import (
    ASSUMED_DEVIATION,
    HOLDS,
    NORMAL_QUANTILE,
    NOT,
    NOT_MEASURED,
    UNDECIDED,
    MeanLog,
    Noise,
    compare,
    figure_noise,
    is_lower,
    mean_log,
    pooled_noise,
)
from gcnn.reproduction.records import load_records
from tests.conftest import ROOT
from tests.reproduction.made_up import group, record

stats = pytest.importorskip("scipy.stats")


def test_the_quantiles_are_those_of_students_t():
    for degrees in range(1, 31):
        assert Noise(0.01, degrees).quantile == pytest.approx(stats.t.ppf(0.975, degrees), abs=6e-4)
    assert Noise(0.01, 1000).quantile >= stats.t.ppf(0.975, 1000)
    assert pytest.approx(stats.norm.ppf(0.975), abs=6e-4) == NORMAL_QUANTILE


def test_the_noise_is_pooled_over_groups_of_several_seeds():
    groups = [group("a", [100, 110, 120]), group("b", [50, 51]), group("c", [7])]
    logs = [np.log([100, 110, 120]), np.log([50, 51])]
    pooled = math.sqrt(sum(((x - x.mean()) ** 2).sum() for x in logs) / 3)
    noise = pooled_noise(groups)
    assert (noise.deviation, noise.degrees) == (pytest.approx(pooled), 3)
    assert pooled_noise([group("c", [7])]) == Noise(ASSUMED_DEVIATION, 0)


def test_seeds_that_scatter_at_a_rate_that_nothing_is_compared_at_are_not_noise():
    groups = [group("both", [100, 101, 102]), group("neither", [120, 121, 123])]
    too_high = group("both", [300, 700], lr=3.0, valid=500.0)
    assert figure_noise(record("fig6", *groups, too_high)) == pooled_noise(groups)


def test_two_groups_are_compared_as_by_the_t_test_of_equal_variances():
    first, second = [180.0, 184.0, 187.0], [190.0, 189.0, 196.0]
    noise = pooled_noise([group("a", first), group("b", second)])
    comparison = is_lower("a < b", mean_log(first), mean_log(second), noise)
    expected = stats.ttest_ind(np.log(second), np.log(first), equal_var=True)
    assert comparison.t == pytest.approx(expected.statistic)
    assert (comparison.answer == HOLDS) == (expected.pvalue < 0.05)


def test_a_comparison_has_the_interval_of_the_t_test():
    first, second = [180.0, 184.0, 187.0], [182.0, 185.0, 192.0]
    noise = pooled_noise([group("a", first), group("b", second)])
    comparison = is_lower("a < b", mean_log(first), mean_log(second), noise)
    expected = stats.ttest_ind(np.log(second), np.log(first)).confidence_interval(0.95)
    assert comparison.interval == pytest.approx(np.expm1(expected), rel=1e-3)
    diverged = mean_log([220.0, math.inf])
    assert is_lower("a < b", mean_log(first), diverged, noise).interval is None


def test_one_seed_has_the_pooled_noise_and_a_constant_none():
    noise = Noise(0.01, 6)  # quantile 2.447
    three = MeanLog(0.0, 3)
    one = MeanLog(0.03, 1)
    constant = MeanLog(0.015)
    assert is_lower("", three, one, noise).t == pytest.approx(0.03 / (0.01 * math.sqrt(1 / 3 + 1)))
    assert is_lower("", three, constant, noise).t == pytest.approx(
        0.015 / (0.01 * math.sqrt(1 / 3))
    )
    assert compare("", [(1, one), (-2, three)], noise).t == pytest.approx(
        0.03 / (0.01 * math.sqrt(1 + 4 / 3))
    )


@pytest.mark.parametrize(
    ("difference", "answer"),
    [(0.025, HOLDS), (0.024, UNDECIDED), (-0.024, UNDECIDED), (-0.025, NOT)],
)
def test_a_comparison_has_three_answers(difference, answer):
    noise = Noise(0.01, 6)  # 2.447 * 0.01 is what one seed against a constant takes
    comparison = is_lower("a < b", MeanLog(5.0, 1), MeanLog(5.0 + difference), noise)
    assert comparison.answer == answer
    assert is_lower("a < b", MeanLog(5.0, 1), None, noise).answer == NOT_MEASURED


def test_with_no_two_seeds_of_anything_only_a_large_difference_is_decided():
    noise = pooled_noise([group("a", [100]), group("b", [105])])
    assert noise.degrees == 0
    answers = [
        is_lower("", mean_log([100]), mean_log([b]), noise).answer for b in (90, 95, 105, 110)
    ]
    assert answers == [NOT, UNDECIDED, UNDECIDED, HOLDS]  # the bound is 5.7 %


def test_a_diverged_seed_is_worse_than_any_and_two_of_them_are_undecided():
    noise = Noise(0.01, 6)
    fine = mean_log([100.0])
    diverged = mean_log([90.0, math.inf])
    answers = [
        is_lower("", a, b, noise).answer
        for a, b in ((fine, diverged), (diverged, fine), (diverged, diverged))
    ]
    assert answers == [HOLDS, NOT, UNDECIDED]


def test_no_committed_figure_is_noisier_than_what_is_assumed_without_seeds():
    records = load_records(ROOT / "docs" / "results" / "reproduction")
    noises = [figure_noise(record) for figures in records.values() for record in figures.values()]
    assert sum(noise.degrees > 0 for noise in noises) >= 5
    assert max(noise.deviation for noise in noises) <= ASSUMED_DEVIATION
