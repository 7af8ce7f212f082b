"""Medians, ranges and tables of known times."""

from typing import Any

import pytest

from cifar_lightning.benchmark.tables import MEANINGS, summarize, table

SETTING = {
    "model": "CNN",
    "parameters": 1234,
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


def summary(
    seconds: dict[str, list[float]] = SECONDS, peak_mib: int | None = 100, device_mib: int | None = None
) -> dict[str, Any]:
    """Of epochs as they come: each tells the peak so far, which grows by as much in every epoch."""
    epochs = {
        name: [
            {
                "seconds": value,
                "steps": 40 if name == "limit" else 20,
                "peak_mib": peak_mib and peak_mib * i,
                "peak_device_mib": device_mib,
            }
            for i, value in enumerate(values, start=1)
        ]
        for name, values in seconds.items()
    }
    return summarize(SETTING, epochs)


def cells(line: str) -> list[str]:
    assert line.startswith("| ")
    assert line.endswith(" |")
    return [cell.strip() for cell in line[1:-1].split("|")]


def markdown(text: str) -> list[str]:
    """The lines of its one table, after a look at their form."""
    lines = [line for line in text.splitlines() if line.startswith("|")]
    bars = {tuple(i for i, letter in enumerate(line) if letter == "|") for line in lines}
    assert len(bars) == 1
    assert all(set(cell) <= set("-:") and len(cell) >= 3 for cell in cells(lines[1]))
    return lines


def test_medians_and_ranges() -> None:
    assert summary()["variants"]["fit"] == {
        "ms_per_step": {"median": 100.0, "range": [50.0, 200.0]},  # 2 s for 20 steps
        "images_per_second": 495.0,  # 990 in 2 s: the images there are, not 20 batches of 50
        "peak_mib": 300,  # of the last epoch
        "peak_device_mib": None,
        "steps": 20,
        "seconds": [1.0, 2.0, 4.0],
    }


def test_the_limit_has_only_full_batches() -> None:
    limit = summary()["variants"]["limit"]
    assert limit["images_per_second"] == 40 * 50 / 0.5
    assert limit["ms_per_step"] == {"median": 12.5, "range": [6.25, 25.0]}


def test_ratios_are_taken_by_pair() -> None:
    result = summary()
    assert result["setting"] is SETTING
    assert list(result["variants"]) == ["baseline", "fit", "bare loop", "limit"]
    assert result["ratios"] == {
        "baseline/fit": {"median": 4.0, "range": [2.0, 8.0]},
        "fit/bare loop": {"median": 4.0, "range": [2.0, 4.0]},
        # A step against a step: 50/6.25, 100/25, 200/12.5 ms.
        "fit/limit": {"median": 8.0, "range": [4.0, 16.0]},
    }


def test_a_machine_that_slows_down_leaves_the_ratios() -> None:
    even = summary({name: [values[0]] * 3 for name, values in SECONDS.items()})
    slower = summary({name: [values[0] * f for f in (1, 2, 4)] for name, values in SECONDS.items()})
    assert slower["ratios"] == even["ratios"]
    for name in SECONDS:
        before, after = even["variants"][name], slower["variants"][name]
        assert after["ms_per_step"]["median"] == 2 * before["ms_per_step"]["median"]
        assert after["images_per_second"] == before["images_per_second"] / 2


def test_one_round_is_enough() -> None:
    result = summary({name: values[:1] for name, values in SECONDS.items()})
    assert result["variants"]["fit"]["ms_per_step"] == {"median": 50.0, "range": [50.0, 50.0]}
    assert result["ratios"]["baseline/fit"] == {"median": 8.0, "range": [8.0, 8.0]}


def test_the_table_shows_what_was_measured() -> None:
    text = table(summary())
    assert text.splitlines()[0] == (
        "CNN, batch 50, 20 steps per epoch, cpu (threads: 2), 32-true, synthetic, median and range of 3"
    )
    head, rule, *rows = map(cells, markdown(text))
    assert head == ["", "ms/step", "range", "images/s", "peak MiB", ""]
    assert [cell.endswith(":") for cell in rule] == [False, True, True, True, True, False]
    assert rows == [
        ["baseline", "400.0", "200.0 - 800.0", "124", "300", MEANINGS["baseline"]],
        ["fit", "100.0", "50.0 - 200.0", "495", "300", MEANINGS["fit"]],
        ["bare loop", "25.0", "25.0 - 50.0", "1,980", "300", MEANINGS["bare loop"]],
        ["limit", "12.5", "6.2 - 25.0", "4,000", "300", MEANINGS["limit"]],
        ["baseline/fit", "4.00", "2.00 - 8.00", "", "", ""],
        ["fit/bare loop", "4.00", "2.00 - 4.00", "", "", ""],
        ["fit/limit", "8.00", "4.00 - 16.00", "", "", ""],
    ]


def test_numbers_are_aligned_right_and_words_left() -> None:
    head, _, *rows = markdown(table(summary()))
    for line in (head, *rows):
        first, *numbers, last = line[2:-2].split(" | ")
        assert not first.startswith(" ") or not first.strip()
        assert not last.startswith(" ") or not last.strip()
        assert all(not cell.endswith(" ") or not cell.strip() for cell in numbers)


@pytest.mark.parametrize(
    ("peak_mib", "device_mib", "head", "shown"),
    [(100, None, "peak MiB", "300"), (100, 2048, "peak GPU MiB", "2,048"), (None, None, "peak MiB", "")],
)
def test_memory_is_the_devices_if_it_has_some_and_blank_if_unknown(
    peak_mib: int | None, device_mib: int | None, head: str, shown: str
) -> None:
    result = summary(SECONDS, peak_mib, device_mib)
    assert result["variants"]["fit"]["peak_mib"] == (peak_mib and 300)
    names, _, *rows = map(cells, markdown(table(result)))
    assert names[4] == head
    assert [row[4] for row in rows] == [shown] * 4 + [""] * 3
