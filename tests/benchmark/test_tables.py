"""Medians, ranges and tables of known times."""

from typing import Any

import pytest

from cifar_lightning.benchmark.tables import summarize, table

SETTING = {
    "model": "CNN",
    "batch_size": 50,
    "train_images": 990,  # 20 steps, the last one of 40 images
    "source": "synthetic",
    "device": "cpu",
    "precision": "32-true",
    "threads": 2,
}
# Powers of two: no quotient of these is rounded.
SECONDS = {
    "baseline": [8.0, 4.0, 16.0],
    "fit": [1.0, 2.0, 4.0],
    "bare loop": [0.5, 0.5, 1.0],
    "limit": [0.25, 1.0, 0.5],
}
TABLE = """\
CNN, batch 50, 20 steps per epoch, cpu (threads: 2), 32-true, synthetic, median and range of 3

|               |  ms/step |             range | images/s |     peak MiB |                                        |
| ------------- | -------: | ----------------: | -------: | -----------: | -------------------------------------- |
| baseline      |    400.0 |     200.0 - 800.0 |      124 |          300 | the loop people write                  |
| fit           |    100.0 |      50.0 - 200.0 |      495 |          300 | everything included                    |
| bare loop     |     25.0 |       25.0 - 50.0 |    1,980 |          300 | without the Trainer                    |
| limit         |     12.5 |        6.2 - 25.0 |    4,000 |          300 | convolutions and matrix products alone |
| baseline/fit  |     4.00 |       2.00 - 8.00 |          |              |                                        |
| fit/bare loop |     4.00 |       2.00 - 4.00 |          |              |                                        |
| fit/limit     |     8.00 |      4.00 - 16.00 |          |              |                                        |"""


def summary(
    seconds: dict[str, list[float]], peak_mib: int | None = 100, device_mib: int | None = None
) -> dict[str, Any]:
    """Of epochs as they come: each tells the peak so far, which grows by as much in every epoch."""

    def epoch(name: str, number: int) -> dict[str, Any]:
        peaks = {"peak_mib": peak_mib and peak_mib * (number + 1), "peak_device_mib": device_mib}
        return {"seconds": seconds[name][number], "steps": 40 if name == "limit" else 20, **peaks}

    return summarize(SETTING, {name: [epoch(name, i) for i in range(len(seconds[name]))] for name in seconds})


def test_medians_and_ranges() -> None:
    result = summary(SECONDS)
    assert result["setting"] is SETTING
    assert list(result["variants"]) == list(SECONDS)
    assert result["variants"]["fit"] == {
        "ms_per_step": {"median": 100.0, "range": [50.0, 200.0]},  # 2 s for 20 steps
        "images_per_second": 495.0,  # 990 in 2 s: the images there are, not 20 batches of 50
        "peak_mib": 300,  # of the last epoch
        "peak_device_mib": None,
        "steps": 20,
        "seconds": [1.0, 2.0, 4.0],
    }
    limit = result["variants"]["limit"]
    assert limit["images_per_second"] == 40 * 50 / 0.5  # has only full batches
    assert limit["ms_per_step"] == {"median": 12.5, "range": [6.25, 25.0]}


def test_ratios_are_taken_by_pair() -> None:
    assert summary(SECONDS)["ratios"] == {
        "baseline/fit": {"median": 4.0, "range": [2.0, 8.0]},
        "fit/bare loop": {"median": 4.0, "range": [2.0, 4.0]},
        # A step against a step: 50/6.25, 100/25, 200/12.5 ms.
        "fit/limit": {"median": 8.0, "range": [4.0, 16.0]},
    }
    # A machine that slows down leaves them as they are.
    even, slower = (
        summary({name: [values[0] * factor for factor in load] for name, values in SECONDS.items()})
        for load in ((1, 1, 1), (1, 2, 4))
    )
    assert slower["ratios"] == even["ratios"]
    for before, after in zip(even["variants"].values(), slower["variants"].values(), strict=True):
        assert after["ms_per_step"]["median"] == 2 * before["ms_per_step"]["median"]
        assert after["images_per_second"] == before["images_per_second"] / 2


def test_one_round_is_enough() -> None:
    result = summary({name: values[:1] for name, values in SECONDS.items()})
    assert result["variants"]["fit"]["ms_per_step"] == {"median": 50.0, "range": [50.0, 50.0]}
    assert result["ratios"]["baseline/fit"] == {"median": 8.0, "range": [8.0, 8.0]}


@pytest.mark.parametrize(
    ("peak_mib", "device_mib", "head", "shown"),
    [
        (100, None, "peak MiB", "300"),
        (100, 2048, "peak GPU MiB", "2,048"),  # the device's, if it has some
        (None, None, "peak MiB", ""),  # a system that does not tell
    ],
)
def test_the_table_shows_what_was_measured(peak_mib: int | None, device_mib: int | None, head: str, shown: str) -> None:
    result = summary(SECONDS, peak_mib, device_mib)
    assert result["variants"]["fit"]["peak_mib"] == (peak_mib and 300)
    assert table(result) == TABLE.replace("    peak MiB", f"{head:>12}").replace("         300", f"{shown:>12}")
