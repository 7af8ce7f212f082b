"""Means, spreads and intervals against numbers worked out by hand."""

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd
import pytest
from scipy import stats

from cifar_lightning.report.statistics import Estimate, estimate, holm

T2, T3, T4 = 4.302653, 3.182446, 2.776445  # 97.5 % quantiles of Student's t


def rows(values: Sequence[float] | Mapping[int, float], metric: str = "val/loss", name: str = "mlp") -> pd.DataFrame:
    by_seed = values if isinstance(values, Mapping) else dict(enumerate(values))
    frame = pd.DataFrame({"seed": list(by_seed), metric: list(by_seed.values())})
    return frame.assign(experiment=name, variant=name)


def found(*args: pd.DataFrame, metric: str = "val/loss", table: pd.DataFrame | None = None) -> Estimate:
    each = estimate(args[0], metric, args[0][:0] if table is None else table, minus=args[1] if args[1:] else None)
    assert each is not None
    return each


def test_a_mean_has_the_sample_standard_deviation_and_a_t_interval() -> None:
    each = found(rows([1.0, 2.0, 4.0]))
    assert (each.n, each.mean, each.sd) == pytest.approx((3, 7 / 3, math.sqrt(7 / 3)))
    assert each.half == pytest.approx(T2 * math.sqrt(7 / 9))


def test_the_pooled_sd_weighs_variances_by_degrees_of_freedom() -> None:
    # Variances 2 and 4 with 1 and 2 degrees of freedom; a single value and a sweep tell nothing.
    groups = {"mlp": [1.0, 3.0], "cnn": [7.0], "mlp_no_dropout": [2.0, 4.0, 6.0], "dropout": [0.0, 90.0]}
    table = pd.concat([rows(values, name=name) for name, values in groups.items()])
    assert found(rows([7.0]), table=table).half == pytest.approx(T3 * math.sqrt(10 / 3))


def test_differences_are_paired_by_seed() -> None:
    # 0.2, 0.5, 0.8: standard deviation 0.3; seed 9 has no partner.
    each = found(rows({0: 1.2, 1: 3.5, 2: 5.8}), rows({2: 5.0, 1: 3.0, 0: 1.0, 9: 5.0}))
    assert (each.n, each.pooled, each.excludes_zero) == (3, False, False)
    assert (each.mean, each.sd, each.half) == pytest.approx((0.5, 0.3, T2 * 0.3 / math.sqrt(3)))
    assert estimate(rows({0: 1.0}), "val/loss", rows([]), minus=rows({1: 1.0})) is None


@pytest.mark.parametrize(("value", "excludes"), [(3.0, True), (-1.0, True), (1.5, False), (0.5, False)])
def test_a_single_difference_has_the_pooled_sd_twice(value: float, excludes: bool) -> None:
    each = found(rows([value]), rows([1.0]), table=rows([0.0, 0.5, 1.0, 0.0, 1.0], name="cnn"))
    assert (each.n, each.sd, each.pooled, each.excludes_zero) == (1, None, True, excludes)
    assert each.half == pytest.approx(T4 * 0.5 * math.sqrt(2))  # 1.96


def test_a_single_value_without_a_pooled_sd_has_no_interval() -> None:
    each = found(rows([3.0]), rows([1.0]))
    assert (each.mean, each.half, each.ends, each.pooled, each.excludes_zero) == (2.0, None, [], False, None)


@pytest.mark.parametrize(
    ("metric", "accuracies", "variance"),
    [
        ("val/acc", {"val/acc": 0.77}, 0.77 * 0.23 / 10_000),
        ("train/acc", {"train/acc": 0.77}, 0.77 * 0.23 / 40_000),
        ("gap/acc", {"train_clean/acc": 0.9, "val/acc": 0.77, "gap/acc": 0.13}, 0.09 / 5000 + 0.77 * 0.23 / 10_000),
        ("val/loss", {"val/loss": 0.77}, 0),
    ],
)
def test_an_accuracy_is_known_as_well_as_its_images_allow(metric: str, accuracies: Any, variance: float) -> None:
    assert found(rows([0.0, 0.0]).assign(**accuracies), metric=metric).half == pytest.approx(1.96 * math.sqrt(variance))


# Two seeds that agree have a standard deviation of 0. Of two accuracies near 0.5, on 10,000 images each, 1.96 standard
# deviations are 1.386 points.
@pytest.mark.parametrize(("gain", "excludes"), [(0.0138, False), (0.0140, True), (-0.0138, False), (-0.0140, True)])
def test_seeds_that_agree_prove_nothing(gain: float, excludes: bool) -> None:
    a, b = rows([0.5 + gain] * 2, "best_val/acc"), rows([0.5, 0.5], "best_val/acc")
    each = found(a, b, metric="best_val/acc")
    assert each.sd == 0
    assert each.half == pytest.approx(1.96 * math.sqrt(0.5 / 10_000), rel=1e-3)
    assert each.excludes_zero is excludes


@pytest.mark.parametrize(
    ("metric", "expected"),
    [
        ("val/acc", lambda seeds, images: math.hypot(seeds, images)),  # the original's images are others
        ("test/acc", max),
        ("val/loss", lambda seeds, images: seeds),
    ],
)
@pytest.mark.parametrize("sd", [0.0001, 0.01])
def test_one_more_run_is_expected_within_the_prediction_interval(metric: str, expected: object, sd: float) -> None:
    runs = rows([0.75 - sd, 0.75, 0.75 + sd], metric)
    each = estimate(runs, metric, runs, one_more=True)
    assert each is not None
    seeds, images = T2 * sd * math.sqrt(4 / 3), 1.96 * math.sqrt(2 * 0.1875 / 10_000)
    assert callable(expected)
    assert each.half == pytest.approx(expected(seeds, images))


def test_differences_of_different_networks_add_in_quadrature() -> None:
    each = Estimate(3, 4.0, 0.1, 3.0).minus(Estimate(1, 1.0, None, 4.0, pooled=True))
    assert each == Estimate(1, 3.0, None, 5.0, pooled=True)
    assert each.ends == [-2.0, 8.0]
    assert Estimate(3, 4.0).minus(each) == Estimate(1, 1.0, pooled=True)


# Three seeds with a standard deviation of 0.01 around 0.75: one more run has a variance of 0.0001 * 4/3, the images of
# two networks 2 * 0.1875 / 10,000. By Welch and Satterthwaite the sum has 2 * (1 + 0.28125)^2 degrees of freedom.
@pytest.mark.parametrize(
    ("metric", "df"), [("val/loss", 2), ("train/acc", 2), ("val/acc", 2 * 1.28125**2), ("best_val/acc", 2 * 1.28125**2)]
)
def test_an_interval_holds_95_percent_of_its_distribution(metric: str, df: float) -> None:
    runs = rows([0.74, 0.75, 0.76], metric)
    each = estimate(runs, metric, runs, one_more=True)
    assert each is not None
    assert each.df == pytest.approx(df)
    low, high = each.student(each.df).cdf(each.ends)
    assert (low, high) == pytest.approx((0.025, 0.975))


def test_where_images_decide_the_distribution_is_normal() -> None:
    # Two seeds that agree, and a difference of accuracies near 0.5: a standard deviation of 0.00707.
    each = found(rows([0.52] * 2, "best_val/acc"), rows([0.5, 0.5], "best_val/acc"), metric="best_val/acc")
    assert each.df == math.inf
    assert each.student(each.df).std() == pytest.approx(math.sqrt(0.4996 / 10_000), rel=1e-4)
    assert each.detectable == pytest.approx((1.96 + 0.8416) * math.sqrt(0.4996 / 10_000), rel=1e-4)


@pytest.mark.parametrize("n", [3, 5])
def test_four_of_five_studies_see_the_detectable_effect(n: int) -> None:
    scale = 1 / np.std(np.arange(n), ddof=1)
    effect = found(rows(list(np.arange(n) * scale))).detectable  # of a standard deviation of 1
    assert effect is not None
    studies = np.random.default_rng(0).normal(effect, 1, (100_000, n))
    half = stats.t.ppf(0.975, n - 1) * studies.std(axis=1, ddof=1) / math.sqrt(n)
    assert np.mean(np.abs(studies.mean(axis=1)) > half) == pytest.approx(0.8, abs=0.04)
    assert found(rows([1.0])).detectable is None


def test_holm_multiplies_by_how_many_are_left() -> None:
    # In ascending order 0.005 * 4, 0.01 * 3, 0.03 * 2, and 0.04, which is raised to what comes before it.
    adjusted = holm(pd.Series([0.01, 0.04, math.nan, 0.03, 0.005]))
    assert adjusted.tolist() == pytest.approx([0.03, 0.06, math.nan, 0.06, 0.02], nan_ok=True)
    assert holm(pd.Series([0.6, 0.7])).tolist() == [1, 1]
    assert holm(pd.Series([math.nan])).isna().all()
