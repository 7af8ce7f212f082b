"""Means, spreads and intervals against numbers worked out by hand or taken from tables."""

import math

import pytest

from cifar_lightning.report.statistics import Noise, paired, pooled, summary, t_quantile


@pytest.mark.parametrize(
    ("probability", "df", "value"),
    [
        (0.975, 1, 12.7062),
        (0.975, 2, 4.30265),
        (0.975, 3, 3.18245),
        (0.975, 4, 2.77645),
        (0.975, 12, 2.17881),
        (0.975, 30, 2.04227),
        (0.975, 1000, 1.96234),
        (0.95, 5, 2.01505),
        (0.995, 7, 3.49948),
        (0.9995, 10, 4.58689),
    ],
)
def test_t_quantiles_are_those_of_the_tables(probability: float, df: int, value: float) -> None:
    assert t_quantile(probability, df) == pytest.approx(value, abs=5e-5 if value > 10 else 5e-6)
    assert t_quantile(1 - probability, df) == pytest.approx(-value, abs=5e-5 if value > 10 else 5e-6)


@pytest.mark.parametrize("probability", [0.001, 0.2, 0.5, 0.6, 0.9, 0.975, 0.9999])
def test_t_quantiles_of_one_and_two_degrees_of_freedom_have_closed_forms(probability: float) -> None:
    cauchy = math.tan(math.pi * (probability - 0.5))
    assert t_quantile(probability, 1) == pytest.approx(cauchy, rel=1e-8, abs=1e-12)
    two = (2 * probability - 1) / math.sqrt(2 * probability * (1 - probability))
    assert t_quantile(probability, 2) == pytest.approx(two, rel=1e-8, abs=1e-12)


def test_a_summary() -> None:
    found = summary([1.0, 2.0, 4.0])
    assert (found.n, found.mean, found.sd) == pytest.approx((3, 7 / 3, math.sqrt(7 / 3)))
    assert summary([0.5]).sd is None


def test_pooled_noise_weighs_variances_by_degrees_of_freedom() -> None:
    # Variances 2 and 4 with 1 and 2 degrees of freedom; the single value says nothing.
    groups = [[1.0, 3.0], [7.0], [2.0, 4.0, 6.0]]
    found = pooled(groups)
    assert found is not None
    assert (found.sd, found.df) == pytest.approx((math.sqrt(10 / 3), 3))
    shifted = pooled([[value + 10 * i for value in group] for i, group in enumerate(groups)])
    assert shifted is not None
    assert shifted.sd == pytest.approx(found.sd)


def test_single_values_tell_no_noise() -> None:
    assert pooled([[1.0], [2.0], []]) is None


def test_paired_differences_have_a_t_interval() -> None:
    # 0.2, 0.5, 0.8: standard deviation 0.3; seed 9 has no partner.
    found = paired({0: 1.2, 1: 1.5, 2: 1.8}, {2: 1.0, 1: 1.0, 0: 1.0, 9: 5.0}, Noise(100.0, 5))
    assert found is not None
    assert (found.n, found.borrowed) == (3, False)
    assert (found.mean, found.sd) == pytest.approx((0.5, 0.3))
    half = 4.302653 * 0.3 / math.sqrt(3)
    assert (found.low, found.high) == pytest.approx((0.5 - half, 0.5 + half))
    assert found.larger_than_noise is False


def test_what_all_seeds_share_cancels_out() -> None:
    a, b = {0: 0.5, 1: 0.9, 2: 0.1}, {0: 0.4, 1: 0.8, 2: 0.0}
    found = paired(a, b, None)
    assert found is not None
    assert (found.low, found.high) == pytest.approx((0.1, 0.1))
    assert found.larger_than_noise is True


@pytest.mark.parametrize(("a", "larger"), [(3.0, True), (-1.0, True), (1.5, False), (0.5, False)])
def test_a_single_difference_borrows_its_noise(a: float, larger: bool) -> None:
    found = paired({4: a}, {4: 1.0}, Noise(0.5, 12))
    assert found is not None
    assert (found.n, found.sd, found.borrowed) == (1, None, True)
    half = 2.178813 * 0.5 * math.sqrt(2)  # 1.54
    assert (found.low, found.high) == pytest.approx((a - 1 - half, a - 1 + half))
    assert found.larger_than_noise is larger


def test_a_single_difference_without_noise_has_no_interval() -> None:
    found = paired({0: 3.0}, {0: 1.0}, None)
    assert found is not None
    assert (found.mean, found.low, found.high, found.borrowed) == (2.0, None, None, False)
    assert found.larger_than_noise is None


def test_without_a_seed_in_common_there_is_no_difference() -> None:
    assert paired({0: 1.0}, {1: 1.0}, Noise(1.0, 1)) is None
    assert paired({}, {}, None) is None
