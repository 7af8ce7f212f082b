"""What an interval tells of an effect."""

import pytest

from cifar_lightning.report.evidence import exceeds
from cifar_lightning.report.statistics import Difference


@pytest.mark.parametrize(
    ("low", "high", "floor", "expected"),
    [
        (0.01, 0.03, 0.0, True),
        (0.01, 0.019, 0.0, False),  # certain, and too small
        (-0.03, -0.01, 0.0, False),
        (-0.01, 0.03, 0.0, None),
        (0.01, 0.03, 0.02, None),  # may be below the floor
        (0.021, 0.03, 0.02, True),
        (None, None, 0.0, None),
    ],
)
def test_an_effect_is_there_or_not_or_the_interval_does_not_tell(
    low: float | None, high: float | None, floor: float, expected: bool | None
) -> None:
    difference = Difference(3, 0.02, 0.01, low, high, borrowed=False)
    assert exceeds(difference, 0.02, floor) is expected


def test_without_a_difference_nothing_is_told() -> None:
    assert exceeds(None, 0.02) is None
